"""The ``gate`` section: which findings fail a check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from metaaudit.config.section import Section
from metaaudit.findings.rules import RULES

Rate = Annotated[float, Field(gt=0, le=0.25)]
Share = Annotated[float, Field(ge=0, le=1)]


class RuleGate(Section):
    """How much of one rule is let through.

    Attributes:
        fdr: Only findings whose q-value is at most this count; absent: all that the run flags.
        max_count: So many new findings pass.
        max_fraction: Or this share of all tasks, or of all items for ``mislabeled``; the larger of
            the two counts.
    """

    fdr: Rate | None = None
    max_count: Annotated[int, Field(ge=0)] = 0
    max_fraction: Share = 0.0


class GateConfig(Section):
    """Which findings make ``score`` and ``report`` end with exit code 1.

    Attributes:
        harmful: Gate of the rule of that name, as are the next ones; absent: it lets all through.
            ``{}`` has the defaults, and nothing at all after the colon is refused, since it could
            mean either.
        mislabeled: As above.
        noisy: As above.
        contradictory: As above.
        duplicate: As above; such a finding has no q-value and always counts.
        outlier: As above.
        release: A finding of the baseline stays known, and is not stale, up to this q-value, so
            that one near ``fdr`` does not come and go with every retraining.
        baseline: File of known findings, which pass.
        suppressions: File of suppressed findings, which pass until they expire.
    """

    harmful: RuleGate | None = None
    mislabeled: RuleGate | None = None
    noisy: RuleGate | None = None
    contradictory: RuleGate | None = None
    duplicate: RuleGate | None = None
    outlier: RuleGate | None = None
    release: Rate = 0.2
    baseline: Path | None = None
    suppressions: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_named_rule_has_a_gate(cls, given: Any) -> Any:
        empty = [name for name in RULES if isinstance(given, dict) and given.get(name, {}) is None]
        if empty:
            raise ValueError(f"{empty[0]} is named without a value; write {empty[0]}: {{}}")
        return given

    @model_serializer(mode="wrap")
    def _only_what_is_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @model_validator(mode="after")
    def _release_lies_above(self) -> GateConfig:
        for name in RULES:
            rule = getattr(self, name)
            if rule is not None and (rule.fdr or 0) > self.release:
                raise ValueError(
                    f"{name}.fdr is {rule.fdr}, above release {self.release}; raise release"
                )
        return self
