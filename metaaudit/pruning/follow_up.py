"""The commands that tell whether a change was for the better."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from metaaudit.inputs.arrays import SUFFIXES
from metaaudit.runs.saved import SavedRun

NEW = Path("NEW.h5")
"""Stands for the pruned copy until it has a name, as ``CONFIG`` does for the configuration."""

_PLAIN = re.compile(r"[A-Za-z/][\w./-]*\.[A-Za-z]\w*")


def evaluation_copy(new: Path) -> Path:
    """Where the evaluation tasks go that are written beside a pruned copy, where they are."""
    return new.with_name(f"{new.stem}.eval{new.suffix}")


def needs_evaluation_copy(run: SavedRun) -> bool:
    """Whether the evaluation tasks have to be written too, to be read together with a pruned copy.

    A pruned copy has its inputs as the model sees them. A file of evaluation tasks that goes with
    it must have them so too.
    """
    tasks = run.manifest["config"].get("tasks", {})
    image = tasks.get("image") or {}
    as_seen = image.get("scale", 255.0) == 255.0 and not any(
        image.get(key) for key in ("invert", "mean", "std", "size", "colour")
    )
    kind = tasks.get("format")
    in_arrays = kind == "labelled" and Path(tasks.get("eval", "")).suffix in SUFFIXES
    return not (kind == "episodes" or in_arrays) or bool(tasks.get("joined")) or not as_seen


def score_command(run: SavedRun, checkpoint: Path) -> str:
    """Scores another checkpoint of the run's model with the run's tasks."""
    return _command(f"score CONFIG --run {_run(checkpoint)}", _weights(run, checkpoint))


def check_commands(run: SavedRun, new: Path = NEW) -> tuple[str, ...]:
    """Trains on a pruned copy and scores what comes of it; ``CONFIG`` is the run's configuration.

    Paths that are not absolute are relative to the folder of ``CONFIG``.

    Args:
        run: The run.
        new: The pruned copy.
    """
    trained = new.with_name(f"{new.stem}-retrained.safetensors")
    settings = [*_weights(run, trained), *_tasks(run, new)]
    score = _command(f"score CONFIG --run {_run(trained)}", settings)
    if run.manifest["config"].get("model", {}).get("statistics") == "running":
        return (score,)  # `train` does not update them
    return _command("train CONFIG", settings), score


def _command(what: str, settings: list[str]) -> str:
    return " ".join([f"metaaudit {what}", *(f"--set {shlex.quote(one)}" for one in settings)])


def _run(checkpoint: Path) -> str:
    return shlex.quote(str(checkpoint.with_name(f"{checkpoint.stem}-run")))


def _weights(run: SavedRun, checkpoint: Path) -> list[str]:
    found = [f"checkpoint={_yaml(checkpoint)}"]
    if run.manifest["config"].get("rename"):  # the names in the checkpoint that was scored
        found.append("rename={}")
    return found


def _tasks(run: SavedRun, new: Path) -> list[str]:
    plain = ["plant={}"] if _planted(run) else []
    tasks = run.manifest["config"].get("tasks", {})
    if not needs_evaluation_copy(run):
        # A copy of what was drawn has no more to draw from.
        whole = ["tasks.train_size=null"] if tasks.get("train_size") else []
        return [f"tasks.train={_yaml(new)}", *whole, *plain]
    section = {"format": "episodes", "train": str(new), "eval": str(evaluation_copy(new))}
    if tasks.get("format") == "labelled":
        section |= {"format": "labelled", "batch": tasks["batch"], "seed": tasks["seed"]}
    return [f"tasks={_json(section)}", *plain]


def _planted(run: SavedRun) -> bool:
    """Whether labels were changed on purpose, as a pruned copy has them: not to do so again."""
    section = run.manifest["config"].get("plant", {})
    return any(share for key, share in section.items() if key not in ("corrupted_labels", "seed"))


def _yaml(path: Path) -> str:
    return str(path) if _PLAIN.fullmatch(str(path)) else _json(str(path))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
