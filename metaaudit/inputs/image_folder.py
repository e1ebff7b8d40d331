"""Images in folders by class, ``split/class/image`` or ``class/image``."""

from __future__ import annotations

from metaaudit.config.tasks import ImageFolderConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.decoded import decoded_by_id
from metaaudit.inputs.image_files import ImageFile, find_image_files
from metaaudit.inputs.source import ImageSource

_LAYOUT = "split/class/image or class/image"


def image_folder_source(config: ImageFolderConfig) -> ImageSource:
    """Images whose class is the folder that they are in.

    Folders that hold all others are passed over, as the one at the top of many zips, and so is a
    single split.

    Args:
        config: Its ``root`` is a folder, in which zips count as folders, or one zip.

    Returns:
        Ids are the paths below the folders that were passed over.

    Raises:
        TaskSetError: ``root`` cannot be read, holds no images, or not all of them in one layout.
    """
    files = find_image_files(config.root)
    if not files:
        raise TaskSetError(config.root, "holds no images", _LAYOUT)
    depth = _depth(config, files)
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
        where=config.root,
        classes=classes,
        read=decoded_by_id(copies, config.image),
        splits={split: sorted(names) for split, names in splits.items()},
    )


def _depth(config: ImageFolderConfig, files: list[ImageFile]) -> int:
    """How many parts of an image's path count: 2 or 3."""
    for file in files:
        if len(file.parts) != len(files[0].parts):
            raise TaskSetError(
                config.root,
                f"has {files[0].name} and {file.name}, one deeper than the other",
                f"all images as {_LAYOUT}",
            )
    depth = len(files[0].parts)
    while depth > 2 and len({file.parts[-depth] for file in files}) == 1:
        depth -= 1
    if depth not in (2, 3):
        raise TaskSetError(
            config.root, f"has {files[0].name}", f"all images as {_LAYOUT}", "check tasks.root"
        )
    return depth
