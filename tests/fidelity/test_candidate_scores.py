"""A candidate's configuration, and its scores over several checkpoints."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config.evaluate import CandidateConfig
from metaaudit.console import Messages
from metaaudit.errors import ConfigError
from metaaudit.fidelity.retraining import Retrainer
from metaaudit.fidelity.workbench import Workbench
from metaaudit.loading import Weights
from metaaudit.methods import METHODS, Given, averaged_scores
from metaaudit.stages import Stages
from tests.methods.small_given import digit_problem


def bench(changes: dict[str, Any] | None = None, checkpoints: int = 1) -> Workbench:
    """A workbench with some checkpoints, which retrains nothing."""
    names = [f"{number}.safetensors" for number in range(checkpoints)]
    problem = digit_problem({**(changes or {}), "checkpoint": names})
    weights = tuple(
        Weights(
            Path(path),
            {name: (1 + 0.1 * number) * p for name, p in problem.template.items()},
            *("", (), {}, ()),
        )
        for number, path in enumerate(names)
    )
    cache = FactorCache(cache_folder())
    retrainer = Retrainer.__new__(Retrainer)
    return Workbench(problem, weights, cache, Messages(Console(file=StringIO())), retrainer)


def candidate(checkpoints: int | None = None, **influence: Any) -> CandidateConfig:
    return CandidateConfig(name="one of them", influence=influence, checkpoints=checkpoints)


def test_keys_of_a_candidate_are_put_over_those_of_the_configuration() -> None:
    own = {"influence.curvature": "exact", "influence.damping": 0.3, "influence.fdr": 0.1}
    found = bench(own).configured(candidate(damping=0.7)).influence
    assert (found.curvature, found.damping, found.fdr) == ("exact", 0.7, 0.1)
    assert bench(own).configured(candidate()) == bench(own).config


@pytest.mark.parametrize("method", [name for name in METHODS if name != "task-if"])
def test_another_method_starts_from_the_defaults(method: str) -> None:
    own = {
        "influence.curvature": "exact",
        "influence.solver": "cg",
        "influence.preconditioner": "ekfac",
        "influence.damping": 0.3,
        "influence.tolerance": 1e-6,
        "influence.fdr": 0.1,
    }
    found = bench(own).configured(candidate(method=method)).influence
    told = (found.curvature, found.solver, found.preconditioner, found.damping)
    assert told == ("sampled-fisher", "auto", "none", "auto")
    assert found.fdr == 0.1
    assert found.tolerance == (1e-6 if method == "direct-if" else 1e-4)


def test_another_curvature_has_a_solver_of_its_own() -> None:
    own = {"influence.curvature": "exact", "influence.solver": "cg", "influence.damping": 0.3}
    found = bench(own).configured(candidate(curvature="ekfac")).influence
    assert (found.curvature, found.solver, found.damping) == ("ekfac", "auto", 0.3)


def test_another_derivative_has_an_inner_section_of_its_own() -> None:
    own = {"influence.derivative": "implicit", "influence.inner": {"inverse": "ggn"}}
    found = bench(own).configured(candidate(derivative="unrolled")).influence
    assert found.derivative == "unrolled" and found.inner.inverse == "ekfac"


def test_a_learner_that_follows_a_field_keeps_its_jacobian() -> None:
    learner = {"name": "fomaml", "inner_lr": 0.3, "steps": 2}
    found = bench({"learner": learner}).configured(candidate(method="trak"))
    assert found.influence.curvature == "jacobian"


@pytest.mark.parametrize(
    ("influence", "expected"),
    [
        ({"curvatur": "exact"}, "influence.curvatur: unknown key"),
        ({"method": "trac"}, "influence.method: got 'trac'"),
        ({"method": "tracin", "damping": 0.1}, "influence: damping is for method"),
        ({"curvature": "jacobian"}, "is for the learners fomaml and reptile"),
    ],
)
def test_a_wrong_key_is_one_line_that_names_the_candidate(
    influence: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        bench().configured(candidate(**influence))
    message = str(caught.value)
    assert message.startswith("evaluate: candidate one of them: ")
    assert expected in message and "\n" not in message


@pytest.mark.parametrize("method", ["task-if", "trak", "tracin", "ekfac-if"])
def test_scores_are_those_of_the_last_checkpoints_averaged(method: str) -> None:
    made = bench(checkpoints=3)
    found = made.scores(candidate(2, method=method), by_instance=True)
    problem = replace(made.problem, config=made.configured(candidate(method=method)))
    network = problem.layers() if problem.config.influence.uses_ekfac else None
    each = [
        METHODS[method](
            Given.of(Stages.of_checkpoint(problem, one, made.cache, made.messages, network))
        )
        for one in made.weights[1:]
    ]
    expected = averaged_scores(method, each)
    np.testing.assert_array_equal(found.task_influence, expected.task_influence)
    np.testing.assert_array_equal(found.instance_influence, expected.instance_influence)
    alone = made.scores(candidate(1, method=method))
    assert not np.allclose(alone.task_influence, found.task_influence)
    assert len(list(made.given(candidate(method=method)))) == 3
