from __future__ import annotations

import numpy as np
import pytest

from metaaudit.robust import MAD_TO_SIGMA, robust_z


def test_robust_z_is_in_units_of_the_scaled_deviation() -> None:
    # The median is 3 and the median absolute deviation 1.
    found = robust_z(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert found == pytest.approx(np.array([-2, -1, 0, 1, 97]) / MAD_TO_SIGMA, rel=1e-12)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0, 5.0], [1.0], []])
def test_robust_z_without_spread_is_zero(values: list[float]) -> None:
    found = robust_z(np.array(values))
    assert found.tolist() == [0.0] * len(values)
