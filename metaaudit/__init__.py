"""Bilevel influence scores for few-shot learning: harmful tasks and mislabeled instances."""

__version__ = "0.1.0"
