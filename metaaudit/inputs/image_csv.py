"""Images that CSV files name, one file a split: mini-ImageNet as it is often passed around."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from metaaudit.config.tasks import ImageCsvConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.csv_files import read_rows
from metaaudit.inputs.decoded import decoded_by_id
from metaaudit.inputs.folders import searched
from metaaudit.inputs.image_files import ImageFile, leads_out
from metaaudit.inputs.source import ImageSource

IMAGES = "images"


def image_csv_source(config: ImageCsvConfig) -> ImageSource:
    """Images by the labels of ``<split>.csv``.

    Args:
        config: Its ``root`` is a folder with CSV files, each a split, and a folder ``images``.

    Returns:
        Ids are ``<label>/<filename>``.

    Raises:
        TaskSetError: There is no such file, one cannot be read, names an image that is not there
            or leads out of the folder, or an image is named twice.
    """
    copies: dict[str, list[ImageFile]] = {}
    classes: dict[str, list[str]] = {}
    splits: dict[str, dict[str, None]] = {}
    named: dict[str, str] = {}
    images = config.root / IMAGES
    for path in _csv_files(config.root):
        for where, (filename, label) in read_rows(path, ("filename", "label")):
            name = _checked(where, filename, images)
            if name in named:
                what = f"names {name}, as {named[name]} does"
                raise TaskSetError(where, what, "each image once", "remove a row")
            named[name] = where
            image_id = f"{label}/{name}"
            copies[image_id] = [ImageFile(images, name)]
            classes.setdefault(label, []).append(image_id)
            splits.setdefault(path.stem, {})[label] = None
    return ImageSource(
        where=config.root,
        classes={label: sorted(ids) for label, ids in sorted(classes.items())},
        read=decoded_by_id(copies, config.image),
        splits={split: sorted(labels) for split, labels in splits.items()},
    )


def _csv_files(root: Path) -> list[Path]:
    expected = f"<split>.csv files and a folder '{IMAGES}'"
    with searched(root, f"a folder with {expected}"):
        files = sorted(root.glob("*.csv"))
        if not files or not (root / IMAGES).is_dir():
            what = f"has no folder '{IMAGES}'" if files else "has no CSV files"
            raise TaskSetError(root, what, expected, "check tasks.root")
    return files


def _checked(where: str, filename: str, images: Path) -> str:
    """The path of an image within the folder, which it may not leave."""
    if leads_out(filename):
        what = f"names {filename!r}, which leads out of {images}"
        raise TaskSetError(where, what, f"the path of an image within '{IMAGES}'")
    name = PurePosixPath(filename).as_posix()
    try:
        there = (images / name).is_file()
    except OSError:  # such as a name that no file system takes
        there = False
    if not there:
        raise TaskSetError(where, f"names {filename!r}, which is not in {images}", "an image there")
    return name
