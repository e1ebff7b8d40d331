"""Omniglot's drawings, ``alphabet/character/image.png``, in folders or zips."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from metaaudit.config.tasks import OmniglotConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.decoded import decoded_by_id
from metaaudit.inputs.image_files import ImageFile, find_image_files
from metaaudit.inputs.source import ImageSource

TORCHVISION_FOLDER = "omniglot-py"
_SPLITS = {"images_background": "background", "images_evaluation": "evaluation"}


def omniglot_source(config: OmniglotConfig) -> ImageSource:
    """The characters of Omniglot, one that several archives hold counting once.

    Args:
        config: Its ``root`` is a folder of zips or of alphabets, one zip, or a folder in which
            torchvision keeps its copy.

    Returns:
        Ids are ``<alphabet>/<character>/<file>``, wherever the image was read from. The splits are
        ``background`` and ``evaluation`` where there are images of both.

    Raises:
        TaskSetError: ``root`` cannot be read or holds no images.
    """
    root = config.root
    with suppress(OSError):  # which the next line finds, too
        root = root / TORCHVISION_FOLDER if (root / TORCHVISION_FOLDER).is_dir() else root
    files = find_image_files(root)
    copies: dict[str, list[ImageFile]] = {}
    classes_of: dict[str, set[str]] = {}
    for file in files:
        parts = file.parts
        if len(parts) >= 3:
            copies.setdefault("/".join(parts[-3:]), []).append(file)
            split = _split((*parts[:-3], file.container.name))
            classes_of.setdefault(split, set()).add("/".join(parts[-3:-1]))
    if not copies:
        raise TaskSetError(
            config.root, "holds no images", "zips or folders of alphabet/character/image.png"
        )
    classes: dict[str, list[str]] = {}
    for image_id in sorted(copies):
        classes.setdefault(image_id.rpartition("/")[0], []).append(image_id)
    has_both = all(split in classes_of for split in _SPLITS.values())
    return ImageSource(
        where=config.root,
        classes=classes,
        read=decoded_by_id(copies, config.image),
        splits={split: sorted(classes_of[split]) for split in _SPLITS.values() if has_both},
    )


def _split(folders: Sequence[str]) -> str:
    """The split that one of the folders, or the zip, is named after; empty if none is."""
    for folder in folders:
        for start, split in _SPLITS.items():
            if folder.startswith(start):
                return split
    return ""
