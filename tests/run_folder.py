"""A small, realistic run folder, written with the library's own writers."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.findings import (
    RULES,
    Counts,
    Finding,
    Findings,
    Place,
    Thresholds,
    fingerprint,
)
from metaaudit.inputs.task_set import SETS
from metaaudit.runs.atomic import write_json, write_text
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.sign import SIGN
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow, csv_text

WAYS, SHOTS, QUERIES, EVAL_TASKS = 2, 2, 2, 5
RESIDUAL_HISTORIES = (
    *((1.0, 0.5 / row, 0.05 / row, 0.0009 / row) for row in range(1, EVAL_TASKS)),
    (1.0, 0.0002),
)


def content(name: str) -> str:
    """A content hash, here of the name."""
    return hashlib.sha256(name.encode()).hexdigest()


def task_rows(n_tasks: int = 8, harmful: int = 2) -> list[TaskRow]:
    """Tasks ``task-0`` to ``task-<n-1>`` by falling influence, the first ``harmful`` flagged.

    The harmful ones are noisy too; ``task-2`` and ``task-3`` repeat each other, ``task-4`` is
    contradictory and ``task-5`` an outlier, where there are so many.
    """
    half = n_tasks // 2
    kinds = {2: "duplicate", 3: "duplicate", 4: "contradictory", 5: "outlier"}
    return [
        TaskRow(
            rank=row + 1,
            task_id=f"task-{row}",
            influence=(half - row + (20 if row < harmful else 0)) / 1000,
            influence_low=(half - row + (15 if row < harmful else -2)) / 1000,
            influence_high=(half - row + (25 if row < harmful else 2)) / 1000,
            influence_spread=None,
            influence_z=(half - row) / 2 + (10 if row < harmful else 0),
            harmful_q=0.01 if row < harmful else min(1.0, 0.2 + row / 10),
            harmful=row < harmful,
            label_noise=0.25 if row < harmful else 0.0,
            noisy_q=0.01 if row < harmful else 1.0,
            contradiction=30.0 if row == 4 else 0.0,
            contradictory_q=0.001 if row == 4 else 1.0,
            outlier_z=9.0 if row == 5 else 0.5,
            outlier_q=0.001 if row == 5 else 1.0,
            duplicates=int(row in (2, 3)),
            kinds="noisy" if row < harmful else kinds.get(row, ""),
            alignment=0.1 - row / 100,
            outer_loss=1.5 - row / 10,
            grad_norm=2.0 + row / 10,
            content=content(f"task-{row}"),
        )
        for row in range(n_tasks)
    ]


def instance_rows(tasks: list[TaskRow], mislabeled: int = 2) -> list[InstanceRow]:
    """All occurrences of the tasks; the first one of each of the first few tasks is flagged."""
    sizes = {"support": WAYS * SHOTS, "query": WAYS * QUERIES}
    rows = [
        InstanceRow(
            rank=0,
            task_id=task.task_id,
            set=name,
            index=index,
            instance_id=f"image-{number}-{name}-{index}",
            label=index % WAYS,
            suggested_label=(index + (number < mislabeled and index == 0)) % WAYS,
            mislabel_score=0.99 - number / 100 if flagged else 0.1 + index / 100,
            q_value=0.01 + number / 1000 if flagged else 1.0,
            mislabeled=flagged,
            influence=(index - 1.5 + number / 10) / 10_000,
            loss=2.5 if flagged else 0.3,
        )
        for number, task in enumerate(tasks)
        for name in SETS
        for index in range(sizes[name])
        for flagged in [number < mislabeled and name == "support" and index == 0]
    ]
    rows.sort(key=lambda row: -row.mislabel_score)
    return [dataclasses.replace(row, rank=rank) for rank, row in enumerate(rows, start=1)]


def item_rows(instances: list[InstanceRow]) -> list[ItemRow]:
    """One item for every instance: each occurs once."""
    return [
        ItemRow(
            rank=row.rank,
            instance_id=row.instance_id,
            label=str(row.label),
            suggested_label=str(row.suggested_label),
            occurrences=1,
            flagged=int(row.mislabeled),
            mislabel_score=row.mislabel_score,
            q_value=row.q_value,
            mislabeled=row.mislabeled,
            influence=row.influence,
            content=content(row.instance_id),
        )
        for row in instances
    ]


def write_run(
    path: Path,
    tasks: list[TaskRow] | None = None,
    instances: list[InstanceRow] | None = None,
    *,
    warnings: tuple[str, ...] = (),
    residual_histories: tuple[tuple[float, ...], ...] = RESIDUAL_HISTORIES,
    thumbnails: dict[tuple[int, int, int], npt.NDArray[np.uint8]] | None = None,
    gate: dict[str, Any] | None = None,
) -> SavedRun:
    """Writes a run folder and reads it back.

    Args:
        path: The folder.
        tasks: Rows of ``tasks.csv``; 8 tasks, 2 of them harmful, by default.
        instances: Rows of ``instances.csv``; all of the tasks' by default.
        warnings: What the manifest and the findings warn of.
        residual_histories: Of each evaluation task, as many as there are then; none for a direct
            solver.
        thumbnails: By ``(task, 0 for support or 1 for query, index)``; every instance of the
            first two tasks by default, and no group at all for an empty dictionary.
        gate: The section ``gate`` of the manifest's configuration; absent by default.
    """
    tasks = task_rows() if tasks is None else tasks
    instances = instance_rows(tasks) if instances is None else instances
    if thumbnails is None:
        noise = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 8, 8), dtype=np.uint8)
        thumbnails = {key: noise[key] for key in np.ndindex(2, 2, 4)}
    write_text(path / "tasks.csv", csv_text(TaskRow, tasks))
    write_text(path / "instances.csv", csv_text(InstanceRow, instances))
    write_text(path / "items.csv", csv_text(ItemRow, item_rows(instances)))
    findings = findings_of(tasks, instances, warnings)
    write_json(path / "findings.json", findings.model_dump(mode="json"))
    manifest = _manifest(len(tasks), len(instances), warnings, residual_histories)
    if gate is not None:
        manifest["config"]["gate"] = gate
    write_json(path / "manifest.json", manifest)
    _write_scores(path / "scores.h5", tasks, thumbnails)
    return SavedRun.open(path)


def _write_scores(
    path: Path,
    tasks: list[TaskRow],
    thumbnails: dict[tuple[int, int, int], npt.NDArray[np.uint8]],
) -> None:
    spread = np.linspace(-0.01, 0.01, EVAL_TASKS)
    with h5py.File(path, "w") as file:
        file["task_ids"] = np.array([task.task_id.encode() for task in tasks])
        file["eval_ids"] = np.array([f"eval-{row}".encode() for row in range(EVAL_TASKS)])
        file["evaluation/mislabel_score"] = np.linspace(0.0, 0.6, 40)
        file["task_influence"] = np.array([task.influence + spread for task in tasks])
        if thumbnails:
            group = file.create_group("thumbnails")
            group["pixels"] = np.stack(list(thumbnails.values()))
            for column, name in enumerate(("task", "set", "index")):
                group[name] = np.array([key[column] for key in thumbnails])


def findings_of(
    tasks: list[TaskRow], instances: list[InstanceRow], warnings: tuple[str, ...] = ()
) -> Findings:
    """The findings of the rows; one unflagged task is borderline as ``harmful``."""
    flags = {
        "harmful": [(row, row.harmful_q, row.influence_z) for row in tasks if row.harmful_q < 0.25],
        "noisy": [(row, row.noisy_q, row.label_noise) for row in tasks if "noisy" in row.kinds],
        "contradictory": [
            (row, row.contradictory_q, row.contradiction)
            for row in tasks
            if "contradictory" in row.kinds
        ],
        "duplicate": [
            (row, None, float(row.duplicates)) for row in tasks if "duplicate" in row.kinds
        ],
        "outlier": [(row, row.outlier_q, row.outlier_z) for row in tasks if "outlier" in row.kinds],
    }
    found = [
        Finding(
            rule=rule,
            fingerprint=fingerprint(rule, row.content),
            subject=row.task_id,
            flagged=row.harmful if rule == "harmful" else True,
            q_value=q_value,
            score=score,
            message=f"{row.task_id} is {rule}",
            evidence=("query loss after adaptation 1.5, median 1.2",),
        )
        for rule in RULES
        if rule != "mislabeled"
        for row, q_value, score in flags[rule]
    ]
    found += [
        Finding(
            rule="mislabeled",
            fingerprint=fingerprint("mislabeled", content(row.instance_id)),
            subject=row.instance_id,
            flagged=True,
            q_value=row.q_value,
            score=row.mislabel_score,
            message=f"{row.instance_id} is labelled {row.label}, probably {row.suggested_label}",
            label=str(row.label),
            suggested_label=str(row.suggested_label),
            places=(Place(task_id=row.task_id, set=row.set, index=row.index),),
        )
        for row in instances
        if row.mislabeled
    ]
    flagged = [row for row in instances if row.mislabeled]
    return Findings(
        sign=SIGN,
        counts=Counts(
            tasks=len(tasks),
            instances=len(instances),
            items=len(instances),
            eval_tasks=EVAL_TASKS,
            mislabeled_instances=len(flagged),
            flagged={rule: sum(f.rule == rule and f.flagged for f in found) for rule in RULES},
        ),
        thresholds=Thresholds(
            influence_z=min((row.influence_z for row in tasks if row.harmful), default=None),
            mislabel_score=min((row.mislabel_score for row in flagged), default=None),
        ),
        estimated_wrong_labels=1.5 * len(flagged),
        findings=tuple(sorted(found, key=lambda one: RULES.index(one.rule))),
        warnings=warnings,
    )


def _manifest(
    n_tasks: int,
    n_instances: int,
    warnings: tuple[str, ...],
    residual_histories: tuple[tuple[float, ...], ...],
) -> dict[str, Any]:
    data = {
        "format": "omniglot",
        "n_tasks": n_tasks,
        "n_instances": n_instances,
        "sha256": "d" * 64,
    }
    return {
        "schema_version": 2,
        "metaaudit_version": "0.1.0",
        "config": {
            "model": {"name": "conv4", "hidden": 32, "ways": WAYS},
            "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
            "influence": {"method": "task-if", "curvature": "task-fisher", "damping": "auto"},
        },
        "seeds": {"train": 0, "eval": 1, "folds": 0},
        "checkpoints": [{"path": "runs/omniglot.safetensors", "sha256": "c" * 64}],
        "data": {"train": data, "eval": {**data, "n_tasks": EVAL_TASKS, "n_instances": 40}},
        "packages": {"torch": "2.10.0", "numpy": "2.3.1", "h5py": "3.14.0"},
        "coupled": True,
        "outer_gradient": {"norm": 0.02, "relative": 0.05},
        "device": "cpu",
        "dtype": "float32",
        "task_batch": 25,
        "cache": {
            "gradients": {"key": "a" * 64, "status": "hit", "seconds": 0.02},
            "curvature": {"key": "b" * 64, "status": "computed", "seconds": 3.51},
        },
        "timings_s": {"load": 0.41, "gradients": 0.02, "curvature": 3.51, "influence": 2.2},
        "peak_memory_mb": 812.5,
        "solver": {
            "method": "task-if",
            "curvature": "task-fisher",
            "solver": "cg" if residual_histories else "dual",
            "damping": 0.1,
            "delta": 0.005,
            "tolerance": 0.001,
            "converged": not warnings,
            "targets": [
                {
                    "eval_id": f"eval-{row}",
                    "status": "converged",
                    "iterations": max(len(history) - 1, 0),
                    "residual": history[-1] if history else 1e-15,
                    "residual_history": list(history),
                }
                for row, history in enumerate(residual_histories or ((),) * EVAL_TASKS)
            ],
            "residual_history": _worst(residual_histories),
            "curvature_scale": {"exact": 1.2, "approximate": 1.0, "ratio": 0.83, "n_tasks": 20},
        },
        "coverage": {
            "tasks": n_tasks,
            "eval_tasks": EVAL_TASKS,
            "instances": n_instances,
            "items": n_instances,
        },
        "evaluation": {"mean_loss": 0.31, "mean_accuracy": 0.9},
        "warnings": list(warnings),
    }


def _worst(histories: tuple[tuple[float, ...], ...]) -> list[float]:
    longest = max(map(len, histories), default=0)
    return [
        max(history[min(step, len(history) - 1)] for history in histories)
        for step in range(longest)
    ]
