"""Inverses of the inner Hessians ``H_in = d^2/d theta^2 (inner loss at theta_k) + rho I``."""

from metaaudit.bilevel.inner.base import InnerInverse, InnerProblem, InnerReport, State
from metaaudit.bilevel.inner.ekfac import EKFACInverse
from metaaudit.bilevel.inner.exact import CGInverse, DenseInverse
from metaaudit.bilevel.inner.gauss_newton import GaussNewtonInverse

__all__ = [
    "CGInverse",
    "DenseInverse",
    "EKFACInverse",
    "GaussNewtonInverse",
    "InnerInverse",
    "InnerProblem",
    "InnerReport",
    "State",
]
