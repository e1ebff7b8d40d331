"""Where influence scores rest on what does not hold for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AT_REST = 0.1
"""Norm of the outer gradient over that of the tasks' own above which training had not ended.

A cosine schedule ended at 0.02 of it, and was at 0.1 to 0.3 halfway (200 Omniglot tasks).
"""
CHANCE = 2.0
"""So many times ``1 / sqrt(N)``, the norm of a mean of N directions that have nothing in common."""
MEMORISED = 0.2
"""Mean loss on training tasks over that on evaluation tasks below which they are known by heart."""


def unmet(
    n_tasks: int,
    outer_gradient: Mapping[str, Any],
    solver: Mapping[str, Any],
    training_loss: float,
    evaluation_loss: float,
) -> list[str]:
    """One line for each assumption that fails.

    Args:
        n_tasks: Number of training tasks.
        outer_gradient: Of the manifest: how far the checkpoint is from rest.
        solver: Of the manifest.
        training_loss: Mean query loss of the training tasks after adaptation.
        evaluation_loss: That of the evaluation tasks.
    """
    found = []
    relative, limit = outer_gradient["relative"], max(AT_REST, CHANCE / n_tasks**0.5)
    if relative is not None and relative > limit:
        found.append(
            f"the checkpoint is not at rest: its outer gradient is {relative:.2g} of a task's own "
            f"(expected at most {limit:.2g}), so influences also hold what more training would do"
        )
    scale = solver.get("curvature_scale")
    if scale and scale["exact"] + solver["delta"] < 0:
        found.append(
            "the outer loss curves downwards along the mean adjoint: the checkpoint is no minimum "
            "there, and that part of the influences is an extrapolation"
        )
    if training_loss < MEMORISED * evaluation_loss:
        found.append(
            f"training tasks are known by heart: their mean query loss is {training_loss:.2g} and "
            f"that of evaluation tasks {evaluation_loss:.2g}, so their gradients say little of "
            "what they taught"
        )
    return found
