"""The methods that score tasks and instances, each behind one interface."""

from metaaudit.methods.ascent import ascent_influence
from metaaudit.methods.averaging import averaged_scores, comparable, evened
from metaaudit.methods.base import Factored, Given, Method, MethodScores, differentiated
from metaaudit.methods.direct import direct_influence
from metaaudit.methods.ekfac import ekfac_influence
from metaaudit.methods.mts import mts_scores
from metaaudit.methods.simple import at_random, by_grad_norm, by_loss
from metaaudit.methods.total import adjoint_solver, total_influence
from metaaudit.methods.tracin import tracin_influence
from metaaudit.methods.trak import trak_influence

METHODS: dict[str, Method] = {
    "task-if": total_influence,
    "dot": total_influence,
    "direct-if": direct_influence,
    "ekfac-if": ekfac_influence,
    "gradient-ascent": ascent_influence,
    "trak": trak_influence,
    "mts": mts_scores,
    "tracin": tracin_influence,
    "loss": by_loss,
    "grad-norm": by_grad_norm,
    "random": at_random,
}
"""By the value of ``influence.method``."""

__all__ = [
    "METHODS",
    "Factored",
    "Given",
    "Method",
    "MethodScores",
    "adjoint_solver",
    "averaged_scores",
    "comparable",
    "differentiated",
    "evened",
]
