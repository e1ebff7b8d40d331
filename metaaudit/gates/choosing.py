"""The gate that a command applies: that of the configuration, as its options change it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metaaudit.config.gate import GateConfig, RuleGate
from metaaudit.errors import RunError, UsageError
from metaaudit.findings import RULES
from metaaudit.findings.naming import known_rule
from metaaudit.gates.rates import rule_gates
from metaaudit.runs.saved import SavedRun

NONE = "none"
"""In place of the names of rules: none of them gates."""


def saved_gate(run: SavedRun) -> GateConfig:
    """The gate that a run was configured with.

    Raises:
        RunError: The manifest holds something else there.
    """
    try:
        # Strict mode takes text for a path from JSON only.
        return GateConfig.model_validate_json(json.dumps(run.manifest["config"].get("gate", {})))
    except (ValidationError, AttributeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RunError(
            run.path / "manifest.json",
            f"holds no gate that can be used ({what})",
            "a finished run",
            "score again into a new folder",
        ) from None


def chosen_gate(
    gate: GateConfig,
    fail_on: Sequence[str] = (),
    baseline: Path | None = None,
    suppressions: Path | None = None,
) -> GateConfig:
    """A gate as the command line changes it.

    Args:
        gate: Of the configuration.
        fail_on: Names of rules, separated by commas: only these gate then, each as configured, or
            with the defaults where it is not; ``none`` stands for no rule.
        baseline: Replaces the configured one.
        suppressions: Likewise.

    Raises:
        UsageError: A name is unknown, or a file is given where no rule gates.
    """
    changes: dict[str, Any] = {}
    if fail_on:
        changes = dict.fromkeys(RULES) | _named(gate, fail_on)
    changes |= {"baseline": baseline} if baseline else {}
    changes |= {"suppressions": suppressions} if suppressions else {}
    chosen = gate.model_copy(update=changes)
    if not rule_gates(chosen):
        for option, path in (("--baseline", baseline), ("--suppressions", suppressions)):
            if path is not None:
                raise UsageError(
                    f"{option} {path}",
                    "is not used, as no rule has a gate",
                    remedy="name rules with --fail-on, or in the gate section",
                )
    return chosen


def _named(gate: GateConfig, fail_on: Sequence[str]) -> dict[str, RuleGate]:
    names = [name.strip() for text in fail_on for name in text.split(",")]
    if names == [NONE]:
        return {}
    configured = rule_gates(gate)
    rules = [known_rule(name, "--fail-on") for name in names]
    return {rule: configured.get(rule, RuleGate()) for rule in rules}
