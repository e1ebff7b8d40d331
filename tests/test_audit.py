"""Numbers that are not finite end an audit, wherever they arise, and are not cached."""

import dataclasses

import numpy as np
import pytest

from metaaudit import stages
from tests.small import files


@pytest.mark.parametrize("name", ["losses", "gradients"])
def test_a_number_that_is_not_finite_names_its_task(trained_case, cache_dir, monkeypatch, name):
    def broken(*args):
        found = real(*args)
        array = getattr(found, name).copy()
        array[0] = np.nan  # of the first task: its gradient, or the loss of a support instance
        return dataclasses.replace(found, **{name: array})

    real = stages.total_gradients
    monkeypatch.setattr(stages, "total_gradients", broken)
    before = files(trained_case.folder)
    ended = trained_case.cli("score", "--run", trained_case.folder / "bad")
    assert ended.exit_code == 3
    assert "gradients: gave a number that is not finite for task train-0000" in ended.error
    assert files(trained_case.folder) == before
    if name == "gradients":
        assert "train-0000, in its gradient in 1.weight and 3 others" in ended.error
    assert [path.name.rpartition("-")[0] for path in cache_dir.glob("*.h5")] == ["task-batch"]
