"""A run folder as a data curator meets it: real pictures, named classes, items in many tasks."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.findings import RULES, Finding, Findings, Place, RuleName, fingerprint
from metaaudit.runs.atomic import write_json, write_text
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow, csv_text
from tests.run_folder import content, findings_of, write_run

WAYS, PER_SET = 5, 25
SHOWN_TASKS, SHOWN_INSTANCES = 24, 200
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Images:
    """Pictures ``[n, height, width]`` or ``[n, height, width, 3]`` of classes ``[n]``, named."""

    pixels: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    names: tuple[str, ...]


def digit_images() -> Images:
    """The 1,797 digits of scikit-learn, four times as large."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)
    return Images(pixels.repeat(4, axis=1).repeat(4, axis=2), data.target, DIGITS)


def scene_images(n: int, side: int) -> Images:
    """Crops of the two colour photographs of scikit-learn, which compress as photographs do."""
    from sklearn.datasets import load_sample_images

    rng, scenes = np.random.default_rng(0), load_sample_images().images
    pixels = np.empty((n, side, side, 3), dtype=np.uint8)
    for row in range(n):
        scene = scenes[row % 2]
        y, x = (int(rng.integers(0, length - side)) for length in scene.shape[:2])
        pixels[row] = scene[y : y + side, x : x + side]
    return Images(pixels, rng.integers(0, 30, n), tuple(f"class {k:02d}" for k in range(30)))


def curated_run(path: Path, images: Images, n_tasks: int = 40, *, wrong: float = 0.01) -> SavedRun:
    """Writes a run of tasks of 50 instances with planted faults of every kind.

    Args:
        path: The folder.
        images: What the tasks are sampled from.
        n_tasks: Number of tasks.
        wrong: Share of items with a wrong label.
    """
    rng = np.random.default_rng(1)
    given = images.classes.copy()
    bad = rng.choice(len(given), round(wrong * len(given)), replace=False)
    given[bad] = (given[bad] + rng.integers(1, 4, len(bad))) % len(images.names)
    tasks = _tasks(n_tasks, rng)
    drawn = [_draw(given, rng) for _ in tasks]
    instances = _instances(tasks, drawn, images, given, rng)
    items = _items(instances, images, given)
    pictures = _pictures(tasks, instances, images)
    run = write_run(path, tasks, instances, thumbnails=pictures)
    _rewrite(run, items, [[images.names[k] for k in classes] for classes, _ in drawn], rng)
    return SavedRun.open(path)


def _tasks(n: int, rng: np.random.Generator) -> list[TaskRow]:
    influence = np.sort(rng.standard_t(4, n) / 1000)[::-1]
    influence[: n // 40 + 1] += 0.02
    influence = np.sort(influence)[::-1]
    width = rng.uniform(0.0005, 0.004, n)
    kinds = dict(zip(rng.permutation(n)[: n // 10 + 4].tolist(), range(n), strict=False))
    rows = []
    for row in range(n):
        harmful = influence[row] > 0.015
        which = kinds.get(row)
        kind = (
            "" if which is None else ("noisy", "contradictory", "duplicate", "outlier")[which % 4]
        )
        z = influence[row] * 1000
        rows.append(
            TaskRow(
                rank=row + 1,
                task_id=f"episodes/train-{rng.integers(10**6):06d}-{row:04d}",
                influence=float(influence[row]),
                influence_low=float(influence[row] - width[row]),
                influence_high=float(influence[row] + width[row]),
                influence_spread=None,
                influence_z=float(z),
                harmful_q=float(0.0004 * (row + 1)) if harmful else min(1.0, 0.1 + row / n),
                harmful=bool(harmful),
                label_noise=float(rng.uniform(0.2, 0.5) if kind == "noisy" else rng.beta(1, 30)),
                noisy_q=0.003 if kind == "noisy" else 1.0,
                contradiction=21.4 if kind == "contradictory" else 0.0,
                contradictory_q=0.0004 if kind == "contradictory" else 1.0,
                outlier_z=8.2 if kind == "outlier" else float(rng.normal()),
                outlier_q=0.002 if kind == "outlier" else 1.0,
                duplicates=int(kind == "duplicate"),
                kinds=kind,
                alignment=float(rng.normal(0.1, 0.1)),
                outer_loss=float(rng.gamma(4, 0.1)),
                grad_norm=float(rng.gamma(9, 0.2)),
                content=content("twins" if kind == "duplicate" else f"task-{row}"),
            )
        )
    return rows


def _draw(
    given: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Classes ``[WAYS]`` of a task and its images ``[2, WAYS, shots]``."""
    classes = rng.choice(int(given.max()) + 1, WAYS, replace=False)
    shots = PER_SET // WAYS
    rows = [rng.choice(np.flatnonzero(given == k), 2 * shots, replace=False) for k in classes]
    return classes, np.stack(rows).reshape(WAYS, 2, shots).transpose(1, 0, 2)


def _instances(
    tasks: list[TaskRow],
    drawn: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    images: Images,
    given: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> list[InstanceRow]:
    rows = []
    for task, (classes, picked) in zip(tasks, drawn, strict=True):
        for part, name in enumerate(("support", "query")):
            for index, image in enumerate(picked[part].ravel()):
                label, true = index // (PER_SET // WAYS), images.classes[image]
                wrong = true != given[image] and true in classes
                suggested = int(np.flatnonzero(classes == true)[0]) if wrong else label
                score = rng.beta(60, 1.5) if wrong else rng.beta(0.6, 6)
                rows.append(
                    InstanceRow(
                        rank=0,
                        task_id=task.task_id,
                        set=name,
                        index=index,
                        instance_id=f"images/{images.names[given[image]]}/{image:05d}.png",
                        label=label,
                        suggested_label=suggested,
                        mislabel_score=float(score),
                        q_value=0.02 if wrong else 1.0,
                        mislabeled=bool(wrong),
                        influence=float(rng.normal() / 10_000),
                        loss=float(-np.log1p(-min(score, 0.999))),
                    )
                )
    rows.sort(key=lambda row: -row.mislabel_score)
    return [dataclasses.replace(row, rank=rank) for rank, row in enumerate(rows, start=1)]


def _items(
    instances: list[InstanceRow], images: Images, given: npt.NDArray[np.int64]
) -> list[ItemRow]:
    groups: dict[str, list[InstanceRow]] = {}
    for row in instances:
        groups.setdefault(row.instance_id, []).append(row)
    items = []
    for name, rows in groups.items():
        image = int(name.split("/")[-1].removesuffix(".png"))
        score = float(np.mean([row.mislabel_score for row in rows]))
        flagged = sum(row.mislabeled for row in rows)
        items.append(
            ItemRow(
                rank=0,
                instance_id=name,
                label=images.names[given[image]],
                suggested_label=images.names[images.classes[image] if flagged else given[image]],
                occurrences=len(rows),
                flagged=flagged,
                mislabel_score=score,
                q_value=round(0.05 * (1 - score), 4) if flagged else 0.18 if score > 0.6 else 1.0,
                mislabeled=flagged > 0,
                influence=sum(row.influence for row in rows),
                content=content(name),
            )
        )
    items.sort(key=lambda row: (not row.mislabeled, -row.mislabel_score))
    return [dataclasses.replace(row, rank=rank) for rank, row in enumerate(items, start=1)]


def _pictures(
    tasks: list[TaskRow], instances: list[InstanceRow], images: Images
) -> dict[tuple[int, int, int], npt.NDArray[np.uint8]]:
    """Of the first tasks, the noisiest ones and the flagged instances, as a run keeps them."""
    position = {task.task_id: row for row, task in enumerate(tasks)}
    noisiest = sorted(tasks, key=lambda task: -task.label_noise)
    whole = {task.task_id for task in (*tasks[:SHOWN_TASKS], *noisiest[:SHOWN_TASKS])}
    flagged = [row for row in instances if row.mislabeled][:SHOWN_INSTANCES]
    kept = [row for row in instances if row.task_id in whole]
    return {
        (position[row.task_id], int(row.set == "query"), row.index): images.pixels[
            int(row.instance_id.split("/")[-1].removesuffix(".png"))
        ]
        for row in (*kept, *flagged)
    }


def _rewrite(
    run: SavedRun, items: list[ItemRow], names: list[list[str]], rng: np.random.Generator
) -> None:
    """Puts items over all tasks, class names and a null in the place of the small run's."""
    places: dict[str, list[Place]] = {}
    for row in run.instances:
        place = Place(task_id=row.task_id, set=row.set, index=row.index)
        places.setdefault(row.instance_id, []).append(place)
    old = findings_of(run.tasks, run.instances)
    found = [_told(one, run) for one in old.findings if one.rule != "mislabeled"]
    found += [_of_item(row, places[row.instance_id]) for row in items if row.q_value < 0.25]
    found.sort(key=lambda one: (RULES.index(one.rule), not one.flagged, -one.score))
    counts: dict[RuleName, int] = {
        rule: sum(one.rule == rule and one.flagged for one in found) for rule in RULES
    }
    new = old.model_copy(
        update={
            "findings": tuple(found),
            "counts": old.counts.model_copy(update={"items": len(items), "flagged": counts}),
        }
    )
    write_json(run.path / "findings.json", Findings.model_validate(new).model_dump(mode="json"))
    write_text(run.path / "items.csv", csv_text(ItemRow, items))
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["coverage"]["items"] = len(items)
    write_json(run.path / "manifest.json", manifest)
    with h5py.File(run.path / "scores.h5", "a") as file:
        file["class_names"] = np.array([[name.encode() for name in row] for row in names])
        del file["evaluation/mislabel_score"]
        file["evaluation/mislabel_score"] = rng.beta(0.6, 6, 2_000)


def _told(finding: Finding, run: SavedRun) -> Finding:
    evidence = {
        "harmful": (
            "its labels do not explain it: 1% of them are estimated to be wrong",
            "it hurts 5 of the 5 evaluation tasks",
        ),
        "noisy": ("many labels of this task are taken for one other class",),
        "contradictory": ("the query labels fit best with classes 1 and 3 exchanged",),
        "duplicate": ("it has the same images as another task",),
        "outlier": ("query loss after adaptation 3.20, median 0.38",),
    }[finding.rule]
    message = f"{finding.subject} is flagged as {finding.rule}"
    return finding.model_copy(update={"evidence": evidence, "message": message})


def _of_item(row: ItemRow, places: list[Place]) -> Finding:
    return Finding(
        rule="mislabeled",
        fingerprint=fingerprint("mislabeled", row.content),
        subject=row.instance_id,
        flagged=row.mislabeled,
        q_value=row.q_value,
        score=row.mislabel_score,
        message=f"{row.instance_id} is labelled {row.label}, probably {row.suggested_label}",
        evidence=(f"flagged in {row.flagged} of {row.occurrences} places",),
        label=row.label,
        suggested_label=row.suggested_label,
        places=tuple(places),
    )
