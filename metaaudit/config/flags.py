"""What the flags of ``metaaudit evaluate`` change in the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError

from metaaudit.config.evaluate import EXPERIMENTS, UNADAPTED_EXPERIMENTS, LdsConfig
from metaaudit.config.plant import WAYS
from metaaudit.config.schema import Config
from metaaudit.config.section import Section
from metaaudit.errors import ConfigError, UsageError


@dataclass(frozen=True)
class LdsFlags:
    """Keys of the experiments of kind ``lds``; those that are ``None`` stay as they are."""

    retrainings: int | None = None
    seeds: int | None = None
    same_steps: bool | None = None
    warm_start: bool | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that change anything."""
        each = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in each.items() if value is not None}


def with_experiments(config: Config, kinds: Sequence[str], lds: LdsFlags) -> Config:
    """The configuration with the experiments that are asked for.

    Args:
        config: The configuration. Where it plants wrong labels and names no experiments, they are
            how well these are found.
        kinds: Of the experiments that stay; those of a kind that is not there are as documented.
        lds: What changes in those of kind ``lds``.

    Raises:
        ConfigError: An experiment cannot do without settings of its own.
        UsageError: Nothing is there to change.
    """
    experiments: list[Any] = list(config.evaluate.experiments)
    if "experiments" not in config.evaluate.model_fields_set and config.plant.anything:
        experiments = [_plain("detection")]
    if kinds:
        _check_adapting(config, kinds)
        there = [one for one in experiments if one.kind in kinds]
        missing = [kind for kind in dict.fromkeys(kinds) if kind not in {one.kind for one in there}]
        experiments = [*there, *map(_plain, missing)]
    if lds.given:
        if not any(isinstance(one, LdsConfig) for one in experiments):
            raise UsageError(
                "--subsets, --seeds, --same-steps, --warm-start",
                "are for experiments of kind lds, and there is none",
                remedy="add --kind lds",
            )
        experiments = [
            one.model_copy(update=lds.given) if isinstance(one, LdsConfig) else one
            for one in experiments
        ]
    evaluate = config.evaluate.model_copy(update={"experiments": experiments})
    return config.model_copy(update={"evaluate": evaluate})


def planting(asked: Sequence[str]) -> list[str]:
    """Overrides of the ``plant`` section from ``KIND:RATE``.

    >>> planting(["permuted:0.2"])
    ['plant.permuted=0.2']

    Raises:
        UsageError: One of them is something else, or plants nothing.
    """
    for one in asked:
        kind, _, rate = one.partition(":")
        if kind not in WAYS or not _above_zero(rate):
            expected = f"KIND one of {', '.join(WAYS)} and RATE above 0, such as permuted:0.2"
            raise UsageError(f"--plant {one}", "is no KIND:RATE", expected)
    return [f"plant.{one.replace(':', '=')}" for one in asked]


def _above_zero(rate: str) -> bool:
    try:
        return float(rate) > 0
    except ValueError:
        return False


def _check_adapting(config: Config, kinds: Sequence[str]) -> None:
    for kind in kinds:
        if not config.adapts and kind in EXPERIMENTS and kind not in UNADAPTED_EXPERIMENTS:
            raise UsageError(
                f"--kind {kind}",
                "is for learners that adapt, not for none",
                " or ".join(UNADAPTED_EXPERIMENTS),
            )


def _plain(kind: str) -> Section:
    if kind not in EXPERIMENTS:
        raise UsageError(f"--kind {kind}", "is no experiment", f"one of {', '.join(EXPERIMENTS)}")
    try:
        return EXPERIMENTS[kind].model_validate({"kind": kind})
    except ValidationError as error:
        missing = ", ".join(str(details["loc"][-1]) for details in error.errors())
        raise ConfigError(
            f"--kind {kind}",
            f"needs settings of its own ({missing})",
            "an experiment of this kind under evaluate.experiments",
        ) from None
