"""One picture of a few tasks, as the model sees their images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from metaaudit.errors import RunError, TaskSetError
from metaaudit.inputs.task_set import SETS, Task, TaskSet
from metaaudit.runs.atomic import replacing

TASKS, CLASSES, INSTANCES = 2, 8, 6
"""At most so many tasks of each set, classes of a task and instances of a class and set."""

CELL, GAP, MARGIN, TITLE = 64, 4, 16, 26
SETS_APART = 20
INK, PAPER, MUTED = (24, 24, 27), (255, 255, 255), (113, 113, 122)
SIZE = 13

Pixels = npt.NDArray[np.uint8]


def contact_sheet(path: Path, train: TaskSet, evaluation: TaskSet) -> None:
    """Writes a PNG: a row for every class, its support images and then its query images.

    Values are shown from black at the smallest to white at the largest of the tasks shown, so that
    a wrong polarity or scale is seen.

    Raises:
        RunError: The name does not end in ``.png``, or the folder cannot be written to.
        TaskSetError: The inputs are no images with 1 or 3 channels.
    """
    if path.suffix.lower() != ".png":
        raise RunError(path, "is no name for a picture", "a name ending in .png")
    shape = train.pool.input_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise TaskSetError("contact sheet", f"inputs have shape {list(shape)}", "images")
    blocks = [
        _block(f"{which} task {task.task_id}", task, task_set)
        for which, task_set in (("training", train), ("evaluation", evaluation))
        for task in task_set.tasks[:TASKS]
    ]
    width = max(block.width for block in blocks)
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks) + MARGIN), PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    out = io.BytesIO()
    sheet.save(out, format="PNG", optimize=True)
    with replacing(path) as temporary:
        temporary.write_bytes(out.getvalue())


def _block(title: str, task: Task, task_set: TaskSet) -> Image.Image:
    labels = sorted(set(task.pooled_labels.tolist()))[:CLASSES]
    sets = [name for name in SETS if len(task.rows(name))]
    columns = [
        min(INSTANCES, max(int((task.labels(name) == label).sum()) for label in labels))
        for name in sets
    ]
    step = CELL + GAP
    font = ImageFont.load_default(SIZE)
    names = [_name(task, label) for label in labels]
    first = MARGIN + int(max(font.getlength(name) for name in names)) + SETS_APART
    starts = [
        first + place * SETS_APART + sum(columns[:place]) * step for place in range(len(sets))
    ]
    width = starts[-1] + columns[-1] * step + MARGIN
    block = Image.new("RGB", (width, MARGIN + 2 * TITLE + len(labels) * step), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((MARGIN, MARGIN), title, INK, font)
    for name, start in zip(sets, starts, strict=True):
        called = name if len(sets) > 1 else "batch"
        draw.text((start, MARGIN + TITLE), f"{called} ({len(task.rows(name))})", MUTED, font)
    shown = _shown(task, task_set)
    for line, (label, class_name) in enumerate(zip(labels, names, strict=True)):
        top = MARGIN + 2 * TITLE + line * step
        draw.text((MARGIN, top + CELL // 2 - SIZE), class_name, INK, font)
        for name, start, count in zip(sets, starts, columns, strict=True):
            for place, index in enumerate(np.flatnonzero(task.labels(name) == label)[:count]):
                picture = _picture(shown[name][index])
                block.paste(picture, (start + place * step, top))
    return block


def _name(task: Task, label: int) -> str:
    name = task.class_names[label] if label < len(task.class_names) else ""
    text = f"{label} = {name}" if name else str(label)
    return text if len(text) <= 27 else f"{text[:26]}…"


def _shown(task: Task, task_set: TaskSet) -> dict[str, Pixels]:
    """The images of each set, ``[count, height, width, channels]``."""
    sets = [name for name in SETS if len(task.rows(name))]
    values = {name: task_set.pool.values(task.rows(name)) for name in sets}
    low = min(float(v.min()) for v in values.values())
    high = max(float(v.max()) for v in values.values())
    return {
        name: ((v - low) * (255 / ((high - low) or 1.0)))
        .round()
        .astype(np.uint8)
        .transpose(0, 2, 3, 1)
        for name, v in values.items()
    }


def _picture(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return image.resize((CELL, CELL), Image.Resampling.LANCZOS)
