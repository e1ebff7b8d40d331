"""``metaaudit diagnose``: how noisy the gradients are that bilevel estimates rest on."""

from __future__ import annotations

from pathlib import Path

from metaaudit.audit import prepared
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.writing import write_evaluation
from metaaudit.gradient_noise import FIFTHS, Diagnosed, Flow, diagnosed
from metaaudit.manifest import measurements, provenance
from metaaudit.runs.atomic import check_new, new_folder

HALF = 0.5
"""By how much two means agree whose signal is as strong as their noise."""


def run(config: Config, folder: Path | None, messages: Messages) -> Result:
    """Diagnoses the gradients of all tasks, and writes a folder where one is given.

    Args:
        config: The configuration.
        folder: Where results go; it appears when they are whole.
        messages: Told of progress.

    Raises:
        MetaauditError: Something cannot be used or finished.
    """
    if folder is not None:
        check_new(folder)
    audit = prepared(config, messages, keep=False)
    found: list[Diagnosed] = []
    flows: list[Flow] = []
    for number in range(len(audit.weights)):
        gradients, weights = diagnosed(audit.stages(number))
        found += gradients
        flows += weights
    result = _result(found, flows)
    if folder is not None:
        facts = provenance(audit.problem, audit.cache)
        spent = measurements(messages.timings, audit.problem.batching.device)
        with new_folder(folder) as temporary:
            write_evaluation(temporary, [result], facts | spent)
    return result


def _result(found: list[Diagnosed], flows: list[Flow]) -> Result:
    return Result(
        kind="gradient-noise",
        title="How much of a mean of task gradients is signal",
        tables=(_ratios(found), _agreement_table(found), _layers(found), *_flow_tables(flows)),
        figures=(_figure(found), *map(_flow_figure, flows)),
        notes=tuple(map(_sentence, found)),
    )


def _ratios(found: list[Diagnosed]) -> Table:
    columns = ("gradients of", "tasks", "ratio", "low", "high", "batch", "ratio of their mean")
    rows = [
        (
            one.name,
            one.ratio.count,
            one.ratio.ratio,
            *one.ratio.interval,
            one.ratio.batch,
            one.ratio.of_mean(one.ratio.count),
        )
        for one in found
    ]
    title = "Signal-to-noise ratio of one task's gradient (95%), and the batch where it is 1"
    return Table("gradient-noise", title, columns, [*rows])


def _agreement_table(found: list[Diagnosed]) -> Table:
    columns = ("gradients of", "batch", "predicted", "low", "high", "measured")
    rows: list[tuple[Value, ...]] = [
        (one.name, each.batch, each.predicted, *each.interval, each.measured)
        for one in found
        for each in one.agreements
    ]
    title = (
        "Agreement of the mean gradients of two batches without a task in common: predicted from "
        "one half of the tasks (95%), measured on the other"
    )
    return Table("batch-size", title, columns, rows)


def _layers(found: list[Diagnosed]) -> Table:
    rows: list[tuple[Value, ...]] = [
        (one.name, layer, median) for one in found for layer, median in one.by_layer.items()
    ]
    title = "Median signal-to-noise ratio of single parameters, by one task's gradient"
    return Table("layers", title, ("gradients of", "parameters", "median ratio"), rows)


def _flow_tables(flows: list[Flow]) -> tuple[Table, ...]:
    """Where the weights are at the end."""
    if not flows:
        return ()
    title = (
        "Share of the weight when half of the evaluation tasks decide (free weights, until a "
        "quarter of the tasks counts), by fifths of how much tasks help the other half"
    )
    rows: list[tuple[Value, ...]] = [
        (flow.name.strip() or "the checkpoint", *map(float, flow.shares[-1])) for flow in flows
    ]
    return (Table("weights", title, ("at", *FIFTHS), rows),)


def _flow_figure(flow: Flow) -> Figure:
    series = tuple(
        Series(f"{name} fifth", tuple(flow.time.tolist()), tuple(shares.tolist()))
        for name, shares in zip(FIFTHS, flow.shares.T, strict=True)
    )
    title = f"Weight flows to what helps, as far as held-out tasks agree on it{flow.name}"
    return Figure("weights", title, "time", "share of the weight", series, {"equal": 0.2})


def _figure(found: list[Diagnosed]) -> Figure:
    series = []
    for one in found:
        batches = tuple(float(each.batch) for each in one.agreements)
        predicted = tuple(each.predicted for each in one.agreements)
        measured = tuple(each.measured for each in one.agreements)
        series.append(Series(f"{one.name}, predicted", batches, predicted))
        series.append(Series(f"{one.name}, measured", batches, measured))
    title = "Two batches agree as far as their mean gradients are signal"
    return Figure("batch-size", title, "tasks in a batch", "agreement", tuple(series))


def _sentence(one: Diagnosed) -> str:
    ratio, count = one.ratio, one.ratio.count
    whose = f"The mean gradient of {count} {one.name}"
    high = ratio.agreement_interval(count)[1]
    if high < HALF:
        return (
            f"{whose} is mostly noise: two such means agree by {max(0.0, high):.2g} at most (95%), "
            "so whatever rests on its direction does too."
        )
    return (
        f"{whose} has {ratio.of_mean(count):.2g} times as much signal as noise; for as much of "
        f"both take {ratio.batch:.0f} at once."
    )
