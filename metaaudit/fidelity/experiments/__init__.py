"""The experiments of ``metaaudit evaluate``, one a file."""

from metaaudit.fidelity.experiments.registry import experiment

__all__ = ["experiment"]
