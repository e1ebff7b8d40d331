"""Decides what to change in a data set, and changes it; computes no scores, imports no torch."""

from metaaudit.pruning.apply import apply_plan
from metaaudit.pruning.making import make_plan
from metaaudit.pruning.plan import PruneItem, PrunePlan
from metaaudit.pruning.reading import check_plan, read_plan

__all__ = ["PruneItem", "PrunePlan", "apply_plan", "check_plan", "make_plan", "read_plan"]
