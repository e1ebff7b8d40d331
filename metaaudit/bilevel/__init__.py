"""The weighted bilevel objective and its derivatives."""

from metaaudit.bilevel.adjoint import Adjoint, solve_adjoint
from metaaudit.bilevel.batch import Batching, TaskBatch, TaskTensors
from metaaudit.bilevel.curvature_scale import CurvatureScale, curvature_scale
from metaaudit.bilevel.objective import Objective, cross_entropy, over_tasks, unit_weights
from metaaudit.bilevel.parameters import Layout
from metaaudit.bilevel.total_gradient import Advance, TaskGradients, total_gradients
from metaaudit.bilevel.total_hessian import TotalHessian
from metaaudit.bilevel.weight_derivative import weight_derivatives

__all__ = [
    "Adjoint",
    "Advance",
    "Batching",
    "CurvatureScale",
    "Layout",
    "Objective",
    "TaskBatch",
    "TaskGradients",
    "TaskTensors",
    "TotalHessian",
    "cross_entropy",
    "curvature_scale",
    "over_tasks",
    "solve_adjoint",
    "total_gradients",
    "unit_weights",
    "weight_derivatives",
]
