"""What ``validate`` says, from the files to the fit of the learner."""

from __future__ import annotations

from pathlib import Path

from metaaudit.config import Config
from metaaudit.loading import Weights, load_weights, prepare
from metaaudit.problem import Problem
from metaaudit.validation.contact_sheet import contact_sheet
from metaaudit.validation.data import data_lines, data_warnings
from metaaudit.validation.fit import fit_lines, fit_warnings, measure


def validate(config: Config, sheet: Path | None = None) -> list[str]:
    """Loads tasks, model and checkpoint, adapts to the evaluation tasks, and says what was found.

    Args:
        config: The configuration.
        sheet: Where to write a picture of a few tasks, if anywhere.

    Raises:
        MetaauditError: Something cannot be used.
    """
    problem = prepare(config)
    lines = data_lines(problem.train, problem.evaluation)
    warnings = [*problem.warnings, *data_warnings(problem.train, problem.evaluation)]
    for path in config.checkpoints:
        weights = load_weights(problem, path)
        fit = measure(problem, weights.params)
        lines += [*_model_lines(problem, weights), *fit_lines(fit)]
        warnings += [*weights.warnings, *fit_warnings(fit)]
    lines += [f"warning: {warning}" for warning in dict.fromkeys(warnings)]
    if sheet is not None:
        contact_sheet(sheet, problem.train, problem.evaluation)
        lines.append(f"contact sheet: {sheet}")
    return [*lines, "ok"]


def _model_lines(problem: Problem, weights: Weights) -> list[str]:
    config = problem.config
    values = config.learner.model_dump(exclude={"name"}, exclude_none=True)
    settings = ", ".join(f"{key} {value}" for key, value in values.items())
    summary, *tensors = weights.mapping
    return [
        f"model: {sum(p.numel() for p in weights.params.values())} parameters in "
        f"{len(weights.params)} tensors; {_normalisation(problem)}",
        f"learner: {config.learner.name}{f' ({settings})' if settings else ''}",
        f"checkpoint: {weights.path} (sha256 {weights.sha256[:12]})",
        f"mapping: {summary}",
        *(f"  {line}" for line in tensors),
    ]


def _normalisation(problem: Problem) -> str:
    """Whether instances of a set are coupled through the statistics of a normalisation."""
    if problem.model.coupled:
        return "batch statistics, so that the instances of a set are coupled"
    return "each instance by itself"
