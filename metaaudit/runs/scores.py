"""The scores of a run, and the ranked tables and files made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.findings import RuleName
from metaaudit.inputs.task_set import SETS, TaskSet
from metaaudit.runs.atomic import replacing, write_json, write_text
from metaaudit.runs.flagging import Flagging
from metaaudit.runs.hdf5 import writing
from metaaudit.runs.sign import sign_of
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow, csv_text
from metaaudit.runs.thumbnails import Thumbnails, thumbnails

SHOWN_TASKS = 48
SHOWN_INSTANCES = 200

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """All that is known of every training task, instance and item.

    Instances are in the task set's order, items in that of their first occurrence.

    Attributes:
        task_influence: ``[n_tasks, n_targets]``.
        targets: Ids of the evaluation targets.
        interval: Ends ``[n_tasks]`` of the interval of the mean influence; ``None`` with one
            target.
        influence_spread: ``[n_tasks]``; ``None`` with one checkpoint.
        influence_z: ``[n_tasks]``.
        harmful_q: ``[n_tasks]``.
        harmful: ``[n_tasks]``, bool.
        label_noise: ``[n_tasks]``.
        noisy_q: ``[n_tasks]``.
        contradiction: ``[n_tasks]``.
        contradictory_q: ``[n_tasks]``.
        outlier_z: ``[n_tasks]``.
        outlier_q: ``[n_tasks]``.
        duplicates: For each task the ids of those with the same images.
        kinds: For each task what is wrong with it beside harm.
        alignment: ``[n_tasks]``.
        outer_loss: ``[n_tasks]``.
        grad_norm: ``[n_tasks]``.
        contents: For each task the hash of its content.
        instance_influence: ``[n_instances]``.
        self_influence: ``[n_instances]``; ``None`` where it was not asked for.
        loss: ``[n_instances]``, after adaptation.
        signal: ``[n_instances]``.
        margin: ``[n_instances]``, out of fold.
        mislabel_score: ``[n_instances]``.
        wrong: ``[n_instances]``, probability that the label is wrong; the ranking follows it and
            then the signal.
        q_value: ``[n_instances]``.
        suggested_label: ``[n_instances]``, int.
        mislabeled: ``[n_instances]``, bool.
        trusted_score: ``[n_trusted]``, mislabel scores of the evaluation tasks.
        items: Every image, unranked: its ``rank`` is 0.
        item_wrong: ``[n_items]``; the ranking of items follows it.
    """

    task_influence: Floats
    targets: list[str]
    interval: tuple[Floats, Floats] | None
    influence_spread: Floats | None
    influence_z: Floats
    harmful_q: Floats
    harmful: Flags
    label_noise: Floats
    noisy_q: Floats
    contradiction: Floats
    contradictory_q: Floats
    outlier_z: Floats
    outlier_q: Floats
    duplicates: list[tuple[str, ...]]
    kinds: list[tuple[RuleName, ...]]
    alignment: Floats
    outer_loss: Floats
    grad_norm: Floats
    contents: list[str]
    instance_influence: Floats
    self_influence: Floats | None
    loss: Floats
    signal: Floats
    margin: Floats
    mislabel_score: Floats
    wrong: Floats
    q_value: Floats
    suggested_label: npt.NDArray[np.int64]
    mislabeled: Flags
    trusted_score: Floats
    items: list[ItemRow]
    item_wrong: Floats

    @property
    def mean_influence(self) -> Floats:
        """``[n_tasks]``: influence on the mean evaluation loss."""
        mean: Floats = self.task_influence.mean(axis=1)
        return mean


def ranked_tasks(scores: Scores, task_set: TaskSet) -> list[TaskRow]:
    """Most harmful first, ties by id."""
    influence = scores.mean_influence
    low, high = scores.interval or (None, None)
    order = sorted(range(len(task_set)), key=lambda k: (-influence[k], task_set.tasks[k].task_id))
    return [
        TaskRow(
            rank=rank,
            task_id=task_set.tasks[k].task_id,
            influence=float(influence[k]),
            influence_low=_optional(low, k),
            influence_high=_optional(high, k),
            influence_spread=_optional(scores.influence_spread, k),
            influence_z=float(scores.influence_z[k]),
            harmful_q=float(scores.harmful_q[k]),
            harmful=bool(scores.harmful[k]),
            label_noise=float(scores.label_noise[k]),
            noisy_q=float(scores.noisy_q[k]),
            contradiction=float(scores.contradiction[k]),
            contradictory_q=float(scores.contradictory_q[k]),
            outlier_z=float(scores.outlier_z[k]),
            outlier_q=float(scores.outlier_q[k]),
            duplicates=len(scores.duplicates[k]),
            kinds=" ".join(scores.kinds[k]),
            alignment=float(scores.alignment[k]),
            outer_loss=float(scores.outer_loss[k]),
            grad_norm=float(scores.grad_norm[k]),
            content=scores.contents[k],
        )
        for rank, k in enumerate(order, start=1)
    ]


def ranked_instances(scores: Scores, task_set: TaskSet) -> list[InstanceRow]:
    """Most surely wrong first, then by the signal, which has the order of the score, ties apart."""
    places = list(task_set.instances())

    def key(i: int) -> tuple[float, float, str, int, int]:
        row, name, index = places[i]
        return (
            -scores.wrong[i],
            -scores.signal[i],
            task_set.tasks[row].task_id,
            SETS.index(name),
            index,
        )

    rows = []
    for rank, i in enumerate(sorted(range(len(places)), key=key), start=1):
        row, name, index = places[i]
        task = task_set.tasks[row]
        rows.append(
            InstanceRow(
                rank=rank,
                task_id=task.task_id,
                set=name,
                index=index,
                instance_id=task_set.pool.ids[task.rows(name)[index]],
                label=int(task.labels(name)[index]),
                suggested_label=int(scores.suggested_label[i]),
                mislabel_score=float(scores.mislabel_score[i]),
                q_value=float(scores.q_value[i]),
                mislabeled=bool(scores.mislabeled[i]),
                influence=float(scores.instance_influence[i]),
                loss=float(scores.loss[i]),
            )
        )
    return rows


def ranked_items(scores: Scores) -> list[ItemRow]:
    """Most surely wrong first, then by score, ties by id."""

    def key(i: int) -> tuple[float, float, str]:
        row = scores.items[i]
        return -scores.item_wrong[i], -row.mislabel_score, row.instance_id

    order = sorted(range(len(scores.items)), key=key)
    return [replace(scores.items[i], rank=rank) for rank, i in enumerate(order, start=1)]


def write_run(
    folder: Path,
    scores: Scores,
    task_set: TaskSet,
    evidence: Mapping[str, Sequence[str]],
    manifest: dict[str, Any],
) -> None:
    """Writes all ``FILES`` of a run.

    Args:
        folder: An existing folder.
        scores: The scores.
        task_set: The training tasks.
        evidence: Sentences on tasks, by id, for their findings.
        manifest: What is to stand in the manifest.
    """
    tasks, instances = ranked_tasks(scores, task_set), ranked_instances(scores, task_set)
    items = ranked_items(scores)
    write_text(folder / "tasks.csv", csv_text(TaskRow, tasks))
    write_text(folder / "instances.csv", csv_text(InstanceRow, instances))
    write_text(folder / "items.csv", csv_text(ItemRow, items))
    sign = sign_of(manifest["solver"]["method"])
    pictures = _pictures(task_set, tasks, instances)
    _write_arrays(folder / "scores.h5", scores, task_set, pictures, sign)
    flagged = Flagging(tasks, instances, items, evidence).findings(
        estimated_wrong_labels=float(scores.wrong.sum()),
        eval_tasks=manifest["coverage"]["eval_tasks"],
        warnings=manifest["warnings"],
        sign=sign,
    )
    write_json(folder / "findings.json", flagged.model_dump(mode="json"))
    write_json(folder / "manifest.json", manifest)


def _optional(values: Floats | None, k: int) -> float | None:
    return None if values is None else float(values[k])


def _pictures(
    task_set: TaskSet, tasks: list[TaskRow], instances: list[InstanceRow]
) -> Thumbnails | None:
    """Whole tasks, those with findings before the most harmful, and suspicious instances."""
    position = {task.task_id: row for row, task in enumerate(task_set.tasks)}
    order = sorted(tasks, key=lambda row: (not (row.harmful or row.kinds), row.rank))
    flagged = [row for row in instances if row.mislabeled] or instances
    worst = {row.instance_id: row for row in reversed(flagged)}  # the worst place of each image
    shown = sorted(worst.values(), key=lambda row: row.rank)[:SHOWN_INSTANCES]
    return thumbnails(
        task_set,
        [position[row.task_id] for row in order[:SHOWN_TASKS]],
        [(position[row.task_id], SETS[row.set == "query"], row.index) for row in shown],
    )


def _write_arrays(
    path: Path, scores: Scores, task_set: TaskSet, pictures: Thumbnails | None, sign: str
) -> None:
    places = list(task_set.instances())
    arrays: dict[str, npt.NDArray[Any]] = {
        # fletcher32 refuses variable-length strings, so ids have a fixed length in bytes.
        "task_ids": np.array([task_id.encode() for task_id in task_set.task_ids]),
        "eval_ids": np.array([target.encode() for target in scores.targets]),
        "task_influence": scores.task_influence,
        "instances/task": np.array([row for row, _, _ in places]),
        "instances/set": np.array([SETS.index(name) for _, name, _ in places], dtype=np.uint8),
        "instances/index": np.array([index for _, _, index in places]),
        "instances/influence": scores.instance_influence,
        "instances/mislabel_score": scores.mislabel_score,
        "instances/signal": scores.signal,
        "instances/margin": scores.margin,
        "instances/wrong": scores.wrong,
        "instances/q_value": scores.q_value,
        "instances/loss": scores.loss,
        "instances/suggested_label": scores.suggested_label,
    }
    arrays["evaluation/mislabel_score"] = scores.trusted_score
    if scores.self_influence is not None:
        arrays["instances/self_influence"] = scores.self_influence
    if any(task.class_names for task in task_set.tasks):
        arrays["class_names"] = _class_names(task_set)
    if pictures is not None:
        arrays["thumbnails/pixels"] = pictures.pixels
        arrays["thumbnails/task"] = np.array([row for row, _, _ in pictures.places])
        arrays["thumbnails/set"] = np.array(
            [SETS.index(name) for _, name, _ in pictures.places], dtype=np.uint8
        )
        arrays["thumbnails/index"] = np.array([index for _, _, index in pictures.places])
    with replacing(path) as temporary, writing(temporary) as file:
        for name, values in arrays.items():
            compression = "gzip" if name == "thumbnails/pixels" else None
            file.create_dataset(
                name, data=values, chunks=True, fletcher32=True, compression=compression
            )
        file.attrs["sign"] = sign
        file.attrs["complete"] = True


def _class_names(task_set: TaskSet) -> npt.NDArray[np.bytes_]:
    """``[n_tasks, ways]``, empty where a class has no name."""
    ways = task_set.ways
    rows = [[*task.class_names, *[""] * ways][:ways] for task in task_set.tasks]
    return np.array([[name.encode() for name in row] for row in rows])
