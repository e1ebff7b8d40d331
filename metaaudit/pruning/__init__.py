"""Decides what to drop from a data set, and drops it; computes no scores and imports no torch."""

from metaaudit.pruning.apply import apply_plan
from metaaudit.pruning.plan import PruneItem, PrunePlan, make_plan

__all__ = ["PruneItem", "PrunePlan", "apply_plan", "make_plan"]
