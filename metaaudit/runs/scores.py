"""The scores of a run, and the ranked tables and files made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import SETS, TaskSet
from metaaudit.runs.atomic import replacing, write_json, write_text
from metaaudit.runs.hdf5 import writing
from metaaudit.runs.saved import SCHEMA_VERSION, SIGN
from metaaudit.runs.tables import InstanceRow, TaskRow, csv_text
from metaaudit.runs.thumbnails import Thumbnails, thumbnails

SHOWN_TASKS = 12
SHOWN_INSTANCES = 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """All that is known of every training task and instance.

    Attributes:
        task_influence: ``[n_tasks, n_targets]``.
        targets: Ids of the evaluation targets.
        influence_z: ``[n_tasks]``.
        harmful: ``[n_tasks]``, bool.
        label_noise: ``[n_tasks]``.
        outer_loss: ``[n_tasks]``.
        grad_norm: ``[n_tasks]``.
        instance_influence: ``[n_instances]``, in the task set's order of instances, as the rest.
        self_influence: ``[n_instances]``; ``None`` where it was not asked for.
        loss: ``[n_instances]``, after adaptation.
        crossfit_loss: ``[n_instances]``, out of fold; the ranking follows it.
        mislabel_score: ``[n_instances]``.
        suggested_label: ``[n_instances]``, int.
        mislabeled: ``[n_instances]``, bool.
    """

    task_influence: Floats
    targets: list[str]
    influence_z: Floats
    harmful: npt.NDArray[np.bool_]
    label_noise: Floats
    outer_loss: Floats
    grad_norm: Floats
    instance_influence: Floats
    self_influence: Floats | None
    loss: Floats
    crossfit_loss: Floats
    mislabel_score: Floats
    suggested_label: npt.NDArray[np.int64]
    mislabeled: npt.NDArray[np.bool_]

    @property
    def mean_influence(self) -> Floats:
        """``[n_tasks]``: influence on the mean evaluation loss."""
        mean: Floats = self.task_influence.mean(axis=1)
        return mean


def ranked_tasks(scores: Scores, task_set: TaskSet) -> list[TaskRow]:
    """Most harmful first, ties by id."""
    influence = scores.mean_influence
    order = sorted(range(len(task_set)), key=lambda k: (-influence[k], task_set.tasks[k].task_id))
    return [
        TaskRow(
            rank=rank,
            task_id=task_set.tasks[k].task_id,
            influence=float(influence[k]),
            influence_z=float(scores.influence_z[k]),
            harmful=bool(scores.harmful[k]),
            label_noise=float(scores.label_noise[k]),
            outer_loss=float(scores.outer_loss[k]),
            grad_norm=float(scores.grad_norm[k]),
        )
        for rank, k in enumerate(order, start=1)
    ]


def ranked_instances(scores: Scores, task_set: TaskSet) -> list[InstanceRow]:
    """Most suspicious first: by out-of-fold loss, whose order is that of the score without ties."""
    places = list(task_set.instances())

    def key(i: int) -> tuple[float, str, int, int]:
        row, name, index = places[i]
        return -scores.crossfit_loss[i], task_set.tasks[row].task_id, SETS.index(name), index

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
                mislabeled=bool(scores.mislabeled[i]),
                influence=float(scores.instance_influence[i]),
                loss=float(scores.loss[i]),
            )
        )
    return rows


def write_run(folder: Path, scores: Scores, task_set: TaskSet, manifest: dict[str, Any]) -> None:
    """Writes ``tasks.csv``, ``instances.csv``, ``scores.h5``, ``findings.json``, ``manifest.json``.

    Args:
        folder: An existing folder.
        scores: The scores.
        task_set: The training tasks.
        manifest: What is to stand in the manifest.
    """
    tasks, instances = ranked_tasks(scores, task_set), ranked_instances(scores, task_set)
    write_text(folder / "tasks.csv", csv_text(TaskRow, tasks))
    write_text(folder / "instances.csv", csv_text(InstanceRow, instances))
    _write_arrays(folder / "scores.h5", scores, task_set, _pictures(task_set, tasks, instances))
    write_json(folder / "findings.json", findings(tasks, instances, manifest["warnings"]))
    write_json(folder / "manifest.json", manifest)


def findings(
    tasks: list[TaskRow], instances: list[InstanceRow], warnings: list[str]
) -> dict[str, Any]:
    """What was flagged, as JSON."""
    harmful = [row for row in tasks if row.harmful]
    mislabeled = [row for row in instances if row.mislabeled]
    task_keys = ("rank", "task_id", "influence", "influence_z", "label_noise")
    instance_keys = (
        *("rank", "task_id", "set", "index", "instance_id"),
        *("label", "suggested_label", "mislabel_score"),
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "sign": SIGN,
        "counts": {
            "tasks": len(tasks),
            "harmful_tasks": len(harmful),
            "instances": len(instances),
            "mislabeled_instances": len(mislabeled),
        },
        "harmful_tasks": [{key: getattr(row, key) for key in task_keys} for row in harmful],
        "mislabeled_instances": [
            {key: getattr(row, key) for key in instance_keys} for row in mislabeled
        ],
        "warnings": warnings,
    }


def _pictures(
    task_set: TaskSet, tasks: list[TaskRow], instances: list[InstanceRow]
) -> Thumbnails | None:
    position = {task.task_id: row for row, task in enumerate(task_set.tasks)}
    noisiest = sorted(tasks, key=lambda row: (-row.label_noise, row.task_id))
    whole = [row.task_id for row in (*tasks[:SHOWN_TASKS], *noisiest[:SHOWN_TASKS])]
    flagged = [row for row in instances if row.mislabeled]
    worst = (flagged or instances)[:SHOWN_INSTANCES]
    return thumbnails(
        task_set,
        [position[task_id] for task_id in dict.fromkeys(whole)],
        [(position[row.task_id], SETS[row.set == "query"], row.index) for row in worst],
    )


def _write_arrays(
    path: Path, scores: Scores, task_set: TaskSet, pictures: Thumbnails | None
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
        "instances/crossfit_loss": scores.crossfit_loss,
        "instances/loss": scores.loss,
        "instances/suggested_label": scores.suggested_label,
    }
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
        file.attrs["sign"] = SIGN
        file.attrs["complete"] = True


def _class_names(task_set: TaskSet) -> npt.NDArray[np.bytes_]:
    """``[n_tasks, ways]``, empty where a class has no name."""
    ways = task_set.ways
    rows = [[*task.class_names, *[""] * ways][:ways] for task in task_set.tasks]
    return np.array([[name.encode() for name in row] for row in rows])
