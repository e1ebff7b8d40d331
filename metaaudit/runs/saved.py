"""A finished run, read back from its folder without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from metaaudit.errors import RunError
from metaaudit.findings import Findings
from metaaudit.inputs.task_set import SETS
from metaaudit.runs.atomic import resolved
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow, read_csv

SCHEMA_VERSION = 2
FILES = (
    *("tasks.csv", "instances.csv", "items.csv"),
    *("scores.h5", "findings.json", "manifest.json"),
)
"""What a run folder is made of."""

_MANIFEST_KEYS = (
    *("metaaudit_version", "config", "seeds", "packages", "device", "dtype", "task_batch"),
    *("cache", "timings_s", "peak_memory_mb", "warnings", "checkpoints"),
    *(f"data.{part}.{key}" for part in ("train", "eval") for key in ("format", "sha256")),
    *(f"data.{part}.{key}" for part in ("train", "eval") for key in ("n_tasks", "n_instances")),
    *(f"coverage.{key}" for key in ("tasks", "instances", "items", "eval_tasks")),
    *(f"evaluation.{key}" for key in ("mean_loss", "mean_accuracy")),
    *(f"solver.{key}" for key in ("method", "curvature", "solver", "damping", "delta")),
    *(f"solver.{key}" for key in ("tolerance", "converged", "residual_history")),
    "solver.curvature_scale",
)

ThumbnailKey = tuple[str, str, int]
"""``(task_id, set, index)`` of one occurrence."""


@dataclass(frozen=True)
class SavedRun:
    """The files of a run folder.

    Attributes:
        path: The folder.
        tasks: ``tasks.csv``, most harmful first.
        instances: ``instances.csv``, most suspicious first.
        items: ``items.csv``, most suspicious first.
        findings: ``findings.json``.
        manifest: ``manifest.json``.
    """

    path: Path
    tasks: list[TaskRow]
    instances: list[InstanceRow]
    items: list[ItemRow]
    findings: Findings
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> SavedRun:
        """Reads a run folder.

        Raises:
            RunError: It is not a finished run, or one of its files is damaged.
        """
        if not (path / "manifest.json").is_file():
            raise RunError(
                path, "is no finished run", "a folder that `metaaudit score` wrote", "score first"
            )
        manifest = _read_json(path / "manifest.json")
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise RunError(
                path / "manifest.json",
                f"has schema version {manifest.get('schema_version')}",
                f"{SCHEMA_VERSION}",
                "score again with this version",
            )
        _check_keys(path / "manifest.json", manifest, _MANIFEST_KEYS)
        findings = _read_findings(path / "findings.json")
        tasks = read_csv(TaskRow, path / "tasks.csv")
        instances = read_csv(InstanceRow, path / "instances.csv")
        items = read_csv(ItemRow, path / "items.csv")
        for name, rows in (("tasks", tasks), ("instances", instances), ("items", items)):
            wanted = manifest["coverage"][name]
            if len(rows) != wanted:
                raise RunError(
                    path / f"{name}.csv",
                    f"holds {len(rows)} rows",
                    f"{wanted}, as in manifest.json",
                    "score again into a new folder",
                )
        return cls(path, tasks, instances, items, findings, manifest)

    @property
    def labelled(self) -> bool:
        """Whether the tasks are batches of a labelled data set, which have no support."""
        return not any(row.set == "support" for row in self.instances)

    @cached_property
    def task_influence(self) -> tuple[list[str], list[str], npt.NDArray[np.float64]]:
        """``(task_ids, eval_ids, influence [n_tasks, n_eval])`` from ``scores.h5``.

        Raises:
            RunError: The file is missing or damaged.
        """
        with self._arrays() as file:
            return _texts(file["task_ids"]), _texts(file["eval_ids"]), file["task_influence"][()]

    @cached_property
    def null_scores(self) -> npt.NDArray[np.float64]:
        """Mislabel scores ``[n]`` of the evaluation tasks' instances, whose labels are trusted.

        Raises:
            RunError: The file is missing or damaged.
        """
        with self._arrays() as file:
            scores: npt.NDArray[np.float64] = file["evaluation/mislabel_score"][()]
            return scores

    @cached_property
    def class_names(self) -> dict[str, list[str]]:
        """The dataset's names of each task's labels, by task id; empty where there are none.

        Raises:
            RunError: The file is missing or damaged.
        """
        with self._arrays() as file:
            if "class_names" not in file:
                return {}
            names = [[name.decode() for name in row] for row in file["class_names"][()]]
            return dict(zip(_texts(file["task_ids"]), names, strict=True))

    @cached_property
    def thumbnails(self) -> dict[ThumbnailKey, npt.NDArray[np.uint8]]:
        """Images ``[height, width]`` or ``[height, width, 3]`` of what the reports show.

        Raises:
            RunError: The file is missing or damaged.
        """
        with self._arrays() as file:
            if "thumbnails" not in file:
                return {}
            ids, group = _texts(file["task_ids"]), file["thumbnails"]
            keys = zip(group["task"][()], group["set"][()], group["index"][()], strict=True)
            names = [(ids[task], SETS[part], int(index)) for task, part, index in keys]
            return dict(zip(names, group["pixels"][()], strict=True))

    @contextmanager
    def _arrays(self) -> Iterator[h5py.File]:
        path = self.path / "scores.h5"
        try:
            with h5py.File(path, "r") as file:
                yield file
        except (OSError, KeyError, IndexError, ValueError) as error:
            raise RunError(
                path, f"is damaged ({error})", remedy="score again into a new folder"
            ) from None


def check_output(run: Path, path: Path) -> None:
    """Refuses to write a report or plan over one of a run's own files.

    Raises:
        RunError: ``path`` is one of them, or a link to one.
    """
    if resolved(path) in {resolved(run / name) for name in FILES}:
        raise RunError(path, "is a file of the run itself", "another file", "choose another name")


def check_no_input(run: SavedRun, path: Path) -> None:
    """Refuses to write a report or plan over what a run was made from.

    Raises:
        RunError: ``path`` is a checkpoint, a file of tasks or a file of the gate, or a link to one.
    """
    config = run.manifest["config"]
    tasks, gate = config.get("tasks", {}), config.get("gate", {})
    named = [
        *(one.get("path") for one in run.manifest["checkpoints"]),
        *(tasks.get(key) for key in ("train", "eval")),
        *(gate.get(key) for key in ("baseline", "suppressions")),
    ]
    if resolved(path) in {resolved(Path(name)) for name in named if isinstance(name, str)}:
        raise RunError(path, "is what the run was made from", "another file", "choose another name")


def _check_keys(path: Path, value: dict[str, Any], dotted: Iterable[str]) -> None:
    missing = [key for key in dotted if not _holds(value, key)]
    if missing:
        raise RunError(
            path, f"lacks {', '.join(missing)}", "a finished run", "score again into a new folder"
        )


def _holds(value: Any, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def _texts(dataset: h5py.Dataset) -> list[str]:
    return [text.decode() for text in dataset[()]]


def _read_findings(path: Path) -> Findings:
    try:
        return Findings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        lacks = first["type"] == "missing"
        what = f"lacks {key}" if lacks else f"cannot be read ({key}: {first['msg']})"
        raise RunError(path, what, "a finished run", "score again into a new folder") from None
    except OSError as error:
        raise RunError(path, f"cannot be read ({error.strerror})", "a finished run") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(path, f"cannot be read ({error})", "a finished run") from None
    if not isinstance(value, dict):
        raise RunError(path, "holds no JSON object", "a finished run")
    return value
