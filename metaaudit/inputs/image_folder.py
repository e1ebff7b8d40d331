"""Images in folders by class, ``split/class/image`` or ``class/image``."""

from __future__ import annotations

from pathlib import Path

from metaaudit.config.tasks import ImageConfig, ImageFolderConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.decoded import decoded_by_id
from metaaudit.inputs.image_files import ImageFile, find_image_files
from metaaudit.inputs.source import ImageSource

_LAYOUT = "split/class/image or class/image"


def image_folder_source(config: ImageFolderConfig) -> ImageSource:
    """The images that a configuration names, by class.

    Raises:
        TaskSetError: As ``folder_images`` does.
    """
    return folder_images(config.root, config.image)


def folder_images(root: Path, image: ImageConfig) -> ImageSource:
    """Images whose class is the folder that they are in.

    Folders that hold all others are passed over, as the one at the top of many zips, and so is a
    single split.

    Args:
        root: A folder, in which zips count as folders, or one zip.
        image: Size and colours.

    Returns:
        Ids are the paths below the folders that were passed over.

    Raises:
        TaskSetError: ``root`` cannot be read, holds no images, or not all of them in one layout.
    """
    files = find_image_files(root)
    if not files:
        raise TaskSetError(root, "holds no images", _LAYOUT)
    depth = _depth(root, files)
    copies: dict[str, list[ImageFile]] = {}
    classes: dict[str, list[str]] = {}
    splits: dict[str, dict[str, None]] = {}
    for file in sorted(files, key=lambda file: file.parts):
        *split, name, _ = file.parts[-depth:]
        image_id = "/".join(file.parts[-depth:])
        if image_id not in copies:
            classes.setdefault(name, []).append(image_id)
        copies.setdefault(image_id, []).append(file)
        if split:
            splits.setdefault(split[0], {})[name] = None
    return ImageSource(
        where=root,
        classes=classes,
        read=decoded_by_id(copies, image),
        splits={split: sorted(names) for split, names in splits.items()},
    )


def _depth(root: Path, files: list[ImageFile]) -> int:
    """How many parts of an image's path count: 2 or 3."""
    for file in files:
        if len(file.parts) != len(files[0].parts):
            raise TaskSetError(
                root,
                f"has {files[0].name} and {file.name}, one deeper than the other",
                f"all images as {_LAYOUT}",
            )
    depth = len(files[0].parts)
    while depth > 2 and len({file.parts[-depth] for file in files}) == 1:
        depth -= 1
    if depth not in (2, 3):
        raise TaskSetError(
            root, f"has {files[0].name}", f"all images as {_LAYOUT}", "check tasks.root"
        )
    return depth
