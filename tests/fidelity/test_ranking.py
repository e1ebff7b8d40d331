"""AUROC and average precision against scikit-learn, and where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from metaaudit.fidelity.ranking import auroc, average_precision, precision_recall


@pytest.mark.parametrize("levels", [1, 2, 3, 10, None])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_as_in_scikit_learn(levels: int | None, share: float) -> None:
    """With ``levels`` different values among 80, or no ties."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = rng.standard_normal(80) if levels is None else rng.integers(0, levels, 80)
        values = drawn.astype(np.float64)
        sought = rng.random(80) < share
        sought[:2] = True, False
        assert auroc(sought, values) == pytest.approx(roc_auc_score(sought, values), abs=1e-12)
        expected = average_precision_score(sought, values)
        assert average_precision(sought, values) == pytest.approx(expected, abs=1e-12)


def test_of_pairs_by_counting() -> None:
    sought = np.array([True, False, True, False, False])
    values = np.array([2.0, 1.0, 1.0, 0.0, 3.0])
    pairs = [(a > b) + (a == b) / 2 for a in values[sought] for b in values[~sought]]
    assert auroc(sought, values) == np.mean(pairs)


def test_nothing_to_say() -> None:
    values = np.arange(3.0)
    none, everything = np.zeros(3, dtype=bool), np.ones(3, dtype=bool)
    assert auroc(none, values) is None
    assert auroc(everything, values) is None
    assert average_precision(none, values) is None
    assert average_precision(everything, values) == 1.0


def test_precision_and_recall() -> None:
    flagged, sought = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    assert precision_recall(flagged, sought) == (1 / 3, 0.5)
    nothing = np.zeros(5, dtype=bool)
    assert precision_recall(nothing, sought) == (None, 0.0)
    assert precision_recall(flagged, nothing) == (0.0, None)
