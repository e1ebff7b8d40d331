"""What every experiment works with: the tasks, the checkpoints, their scores, and retraining."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from metaaudit.cache import FactorCache
from metaaudit.config import Config
from metaaudit.config.evaluate import CandidateConfig
from metaaudit.config.influence import USED_BY
from metaaudit.config.problems import first_problem
from metaaudit.config.strict_yaml import Document
from metaaudit.console import Messages
from metaaudit.curvature import Network
from metaaudit.errors import ConfigError
from metaaudit.fidelity.retraining import Performance, Retrained, Retrainer, Retraining, performance
from metaaudit.loading import Weights
from metaaudit.methods import METHODS, Given, MethodScores, averaged_scores
from metaaudit.models import Params
from metaaudit.problem import Problem
from metaaudit.stages import Stages, of_checkpoint


@dataclass(frozen=True)
class Workbench:
    """The objects of an evaluation.

    Attributes:
        problem: Tasks (with what ``plant`` changed), model and learner.
        weights: Of each checkpoint.
        cache: Where what can be reused is kept.
        messages: Told of progress.
        retrainer: Trains anew on other tasks, within the time that is left.
    """

    problem: Problem
    weights: tuple[Weights, ...]
    cache: FactorCache
    messages: Messages
    retrainer: Retrainer

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.problem.config

    def stages(self, network: Network | None, what: str = "") -> Iterator[Stages]:
        """The stages of each checkpoint.

        One after the other: the model has the buffers of the checkpoint that came last.

        Args:
            network: The model's layers, where EK-FAC is used.
            what: Ends the names of the stages.
        """
        for number, weights in enumerate(self.weights, start=1):
            of = of_checkpoint(number, len(self.weights)) + what
            parts = (self.cache, self.messages, network, of)
            yield Stages.of_checkpoint(self.problem, weights, *parts)

    def given(self, candidate: CandidateConfig, *, by_instance: bool = False) -> Iterator[Given]:
        """What a candidate scores by, for each of the checkpoints that it uses.

        One after the other, as ``stages``.

        Args:
            candidate: The candidate.
            by_instance: Whether instances are scored too, which takes longer.

        Raises:
            MetaauditError: It cannot be scored so.
        """
        problem = replace(self.problem, config=self.configured(candidate))
        used = self.weights[-(candidate.checkpoints or len(self.weights)) :]
        bench, network = replace(self, problem=problem, weights=used), problem.influence_layers()
        for stages in bench.stages(network, f" ({candidate.name})"):
            yield Given.of(stages, by_instance=by_instance)

    def scores(self, candidate: CandidateConfig, *, by_instance: bool = False) -> MethodScores:
        """A candidate's scores, averaged over checkpoints as ``score`` does.

        Args:
            candidate: The candidate.
            by_instance: Whether instances are scored too, which takes longer.

        Raises:
            MetaauditError: It cannot be scored so.
        """
        method = self.configured(candidate).influence.method
        each = self.given(candidate, by_instance=by_instance)
        return averaged_scores(method, [METHODS[method](given) for given in each])

    def configured(self, candidate: CandidateConfig) -> Config:
        """The configuration with a candidate's keys, as ``configured`` has it."""
        return configured(self.config, candidate)

    def retrain(self, requests: Sequence[Retraining]) -> list[Retrained | None]:
        """Trains anew; ``None`` where the time was up."""
        return self.retrainer.run(requests)

    def performance(self, params: Params) -> Performance:
        """Losses and accuracies of meta-parameters on the evaluation tasks."""
        return performance(self.problem, params)


def configured(config: Config, candidate: CandidateConfig) -> Config:
    """A configuration with a candidate's keys of the ``influence`` section.

    What the configuration chose for its own method or curvature does not go over to another
    one, which starts from the defaults.

    Raises:
        ConfigError: They do not fit.
    """
    where, n_checkpoints = f"evaluate: candidate {candidate.name}", len(config.checkpoints)
    if candidate.checkpoints and candidate.checkpoints > n_checkpoints:
        raise ConfigError(
            f"{where}: checkpoints",
            f"got {candidate.checkpoints}",
            f"at most {n_checkpoints}, as many as are configured",
        )
    given = config.model_dump(mode="json")
    own, asked = given["influence"], candidate.influence
    kept = {key: value for key, value in own.items() if key not in _dropped(own, asked)}
    given["influence"] = {**kept, **asked}
    try:
        return Config.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise first_problem(error, Document(given), where) from None


def _dropped(own: dict[str, Any], asked: dict[str, Any]) -> set[str]:
    """Keys of the configuration that hold for its own method, curvature or derivative alone."""

    def differs(key: str) -> bool:
        return bool(asked.get(key, own[key]) != own[key])

    method, dropped = asked.get("method", own["method"]), set[str]()
    if differs("method"):
        dropped |= {"curvature", "damping"}
        dropped |= {key for key, methods in USED_BY.items() if method not in methods}
    if differs("method") or differs("curvature"):
        dropped |= {"solver", "preconditioner", "probes"}
    if differs("derivative"):
        dropped |= {"inner"}
    return dropped
