"""The experiments of ``metaaudit evaluate``, one a file."""

from metaaudit.fidelity.experiments.registry import check, experiment

__all__ = ["check", "experiment"]
