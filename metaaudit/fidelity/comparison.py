"""What became of a checkpoint without some of the data, beside what retraining made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from metaaudit.fidelity.closeness import Closeness
from metaaudit.fidelity.results import Value
from metaaudit.fidelity.retraining import Performance
from metaaudit.models import Layout, Params

COLUMNS = (
    "method",
    "accuracy",
    "accuracy error",
    "difference to retraining (points)",
    "difference error (points)",
    "loss",
    "time (s)",
    "share of retraining's time",
    "distance to retrained (of retraining's)",
    "correlation of loss changes",
    "repeats",
)


@dataclass(frozen=True)
class Outcome:
    """Meta-parameters, and how they do.

    Attributes:
        params: The meta-parameters.
        performance: On the evaluation tasks.
        seconds: What they cost.
    """

    params: Params
    performance: Performance
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """One way to do without some of the data, beside retraining without it.

    Attributes:
        accuracy: Mean over the evaluation tasks.
        loss: Likewise.
        seconds: What it cost.
        points: Accuracy less that of retraining, in percentage points.
        share: Time over that of retraining.
        distance: ``||here - retrained|| / ||retrained - original||``: 1 of the checkpoint as it
            was, 0 of the retrained one.
        correlation: Pearson's over evaluation tasks, of the changes of their losses here and by
            retraining.
    """

    accuracy: float
    loss: float
    seconds: float
    points: float | None = None
    share: float | None = None
    distance: float | None = None
    correlation: float | None = None

    @classmethod
    def of(
        cls, here: Outcome, retrained: Outcome | None, original: Outcome, *, same_data: bool = True
    ) -> Comparison:
        """Compares.

        Args:
            here: The way.
            retrained: Retraining without the same data; ``None`` where that was not done.
            original: The checkpoint as it was.
            same_data: Whether both lack the same data; where they do not, distance and
                correlation would mean nothing.
        """
        plain = (
            float(here.performance.accuracies.mean()),
            float(here.performance.losses.mean()),
            here.seconds,
        )
        if retrained is None:
            return cls(*plain)
        points = 100 * (plain[0] - float(retrained.performance.accuracies.mean()))
        share = here.seconds / retrained.seconds if retrained.seconds > 0 else None
        if not same_data:
            return cls(*plain, points, share)
        before = original.performance.losses
        changes = (here.performance.losses - before, retrained.performance.losses - before)
        apart = distance(here, retrained, original)
        return cls(*plain, points, share, apart, Closeness.of(*changes).linear)


def distance(here: Outcome, retrained: Outcome, original: Outcome) -> float | None:
    """``||here - retrained|| / ||retrained - original||``; ``None`` where that divides by 0."""
    layout = Layout.of(original.params)
    flat = [layout.flatten(one.params).double().cpu() for one in (here, retrained, original)]
    moved = float((flat[1] - flat[2]).norm())
    return float((flat[0] - flat[1]).norm()) / moved if moved else None


def mean_and_error(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Mean of what is known and finite, and its standard error, which takes two.

    >>> mean_and_error([1.0, 3.0, None])
    (2.0, 1.0)
    >>> mean_and_error([4.0])
    (4.0, None)
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return (known[0] if known else None), None
    return float(np.mean(known)), float(np.std(known, ddof=1)) / math.sqrt(len(known))


def row(name: str, repeats: Sequence[Comparison]) -> tuple[Value, ...]:
    """A row of a table with ``COLUMNS``, over repeats."""

    def mean(attribute: str) -> tuple[float | None, float | None]:
        return mean_and_error(getattr(one, attribute) for one in repeats)

    rest = ("loss", "seconds", "share", "distance", "correlation")
    means = (mean(attribute)[0] for attribute in rest)
    return name, *mean("accuracy"), *mean("points"), *means, len(repeats)
