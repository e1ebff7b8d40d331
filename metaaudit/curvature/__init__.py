"""Curvature factors, and what their cache entries depend on."""

from metaaudit.curvature.ekfac import EKFAC
from metaaudit.curvature.factors import Bases, Covariances, Factors, corrected, summed
from metaaudit.curvature.fingerprint import code_hash, weights_hash
from metaaudit.curvature.fisher import fisher_terms
from metaaudit.curvature.network import Network, Record, record_tasks
from metaaudit.curvature.task_fisher import task_fisher_factor

__all__ = [
    "EKFAC",
    "Bases",
    "Covariances",
    "Factors",
    "Network",
    "Record",
    "code_hash",
    "corrected",
    "fisher_terms",
    "record_tasks",
    "summed",
    "task_fisher_factor",
    "weights_hash",
]
