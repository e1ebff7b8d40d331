"""The weighted bilevel objective and its derivatives."""

from metaaudit.bilevel.adaptation import Adaptation, Linearised
from metaaudit.bilevel.adjoint import Adjoint, AdjointSolver, most_rows
from metaaudit.bilevel.attempts import Attempt
from metaaudit.bilevel.batch import Batching, TaskBatch, TaskTensors
from metaaudit.bilevel.curvature_scale import LOOKED_AT, CurvatureScale, curvature_scale
from metaaudit.bilevel.field import FirstOrder, Reptile
from metaaudit.bilevel.footprint import peak_bytes
from metaaudit.bilevel.implicit import Implicit
from metaaudit.bilevel.inner import InnerProblem
from metaaudit.bilevel.inner_method import InnerMethod
from metaaudit.bilevel.objective import Objective, cross_entropy, over_tasks, unit_weights
from metaaudit.bilevel.outer_ekfac import outer_bases, outer_factors
from metaaudit.bilevel.progress import Advance
from metaaudit.bilevel.query_outcome import QueryOutcome, query_outcome
from metaaudit.bilevel.sampled_fisher import fisher_factor, sampled_fisher_rows
from metaaudit.bilevel.total_gradient import TaskGradients, batch_gradients, total_gradients
from metaaudit.bilevel.total_hessian import FORMS, TotalHessian
from metaaudit.bilevel.unrolled import Unrolled, along_weights
from metaaudit.bilevel.weight_derivative import weight_derivatives

__all__ = [
    "FORMS",
    "LOOKED_AT",
    "Adaptation",
    "Adjoint",
    "AdjointSolver",
    "Advance",
    "Attempt",
    "Batching",
    "CurvatureScale",
    "FirstOrder",
    "Implicit",
    "InnerMethod",
    "InnerProblem",
    "Linearised",
    "Objective",
    "QueryOutcome",
    "Reptile",
    "TaskBatch",
    "TaskGradients",
    "TaskTensors",
    "TotalHessian",
    "Unrolled",
    "along_weights",
    "batch_gradients",
    "cross_entropy",
    "curvature_scale",
    "fisher_factor",
    "most_rows",
    "outer_bases",
    "outer_factors",
    "over_tasks",
    "peak_bytes",
    "query_outcome",
    "sampled_fisher_rows",
    "total_gradients",
    "unit_weights",
    "weight_derivatives",
]
