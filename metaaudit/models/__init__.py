"""Networks as pure functions of their parameters."""

from metaaudit.models.build import build_model
from metaaudit.models.functional import Model, Params

__all__ = ["Model", "Params", "build_model"]
