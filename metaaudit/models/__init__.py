"""Networks as pure functions of their parameters."""

from metaaudit.models.autodiff import pullback
from metaaudit.models.build import build_model
from metaaudit.models.functional import Model, Params
from metaaudit.models.head import Head
from metaaudit.models.layout import Layout

__all__ = ["Head", "Layout", "Model", "Params", "build_model", "pullback"]
