"""How well a ranking finds what it is to find.

Sources: Hanley and McNeil (1982), "The meaning and use of the area under a receiver operating
characteristic (ROC) curve", for AUROC by ranks; average precision is the area under the
precision-recall curve by steps, without interpolation (Davis and Goadrich, 2006).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def auroc(sought: Flags, values: Floats) -> float | None:
    """Chance that something sought has a larger value than something else; ties count half.

    Args:
        sought: ``[n]``.
        values: ``[n]``, higher where it is rather to be found.

    Returns:
        ``None`` where all or none of it is sought.
    """
    n_sought = int(sought.sum())
    n_others = len(sought) - n_sought
    if not n_sought or not n_others:
        return None
    above = rankdata(values)[sought].sum() - n_sought * (n_sought + 1) / 2
    return float(above / (n_sought * n_others))


def average_precision(sought: Flags, values: Floats) -> float | None:
    """Mean over what is sought of the share of it among all values at least as large.

    Args:
        sought: ``[n]``.
        values: ``[n]``, higher where it is rather to be found.

    Returns:
        ``None`` where nothing is sought.
    """
    n_sought = int(sought.sum())
    if not n_sought:
        return None
    order = np.argsort(-values, kind="stable")
    found = np.cumsum(sought[order])
    # What is tied is found together: only the last of equal values is a place to stop.
    stops = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    more = np.diff(found[stops], prepend=0)
    return float((more * found[stops] / (stops + 1)).sum() / n_sought)


def precision_recall(flagged: Flags, sought: Flags) -> tuple[float | None, float | None]:
    """Share of the flags that are right, and share of what is sought that is flagged.

    Either is ``None`` where it would divide by nothing.
    """
    hits = int((flagged & sought).sum())
    n_flagged, n_sought = int(flagged.sum()), int(sought.sum())
    return (hits / n_flagged if n_flagged else None, hits / n_sought if n_sought else None)
