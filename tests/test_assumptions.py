"""What a run warns of where influence rests on what does not hold."""

import pytest

from metaaudit.assumptions import unmet


def told(n_tasks=200, relative=0.02, exact=2.0, training=0.5, evaluation=0.6):
    solver = {"delta": 0.01, "curvature_scale": {"exact": exact, "approximate": 2.0}}
    return unmet(n_tasks, {"norm": 1.0, "relative": relative}, solver, training, evaluation)


def test_nothing_where_all_holds():
    assert told() == []
    assert unmet(200, {"relative": None}, {"delta": 0.0, "curvature_scale": None}, 1.0, 1.0) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"relative": 0.3}, "the checkpoint is not at rest: its outer gradient is 0.3 of a"),
        ({"exact": -0.02}, "curves downwards along the mean adjoint"),
        ({"training": 0.1}, "known by heart: their mean query loss is 0.1 and"),
    ],
)
def test_one_line_for_each(values, words):
    (line,) = told(**values)
    assert words in line and "\n" not in line


def test_few_tasks_have_no_direction_in_common_and_are_no_sign_of_it():
    assert told(n_tasks=20, relative=0.4) == []  # 2 / sqrt(20) is 0.45
    assert len(told(n_tasks=20, relative=0.5)) == 1


def test_weight_decay_makes_up_for_a_little_negative_curvature():
    assert told(exact=-0.005) == []
