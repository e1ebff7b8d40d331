"""mini-ImageNet as pickles, ``mini-imagenet-cache-{train,val,test}.pkl``."""

from __future__ import annotations

from pathlib import Path

from metaaudit.config.tasks import MiniImagenetConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.folders import searched
from metaaudit.inputs.pickles import StoredArray, described, integers, read_pickle
from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.stored_images import check_images, read_images

_SPLITS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
_FILES = "mini-imagenet-cache-{train,val,test}.pkl"


def mini_imagenet_source(config: MiniImagenetConfig) -> ImageSource:
    """The classes of all files that are there.

    Each holds ``image_data``, uint8 ``[n, height, width, 3]``, and ``class_dict``, the rows of each
    class in it.

    Args:
        config: Its ``root`` is the folder of the files.

    Returns:
        Ids are ``<split>/<row>``; the splits are ``train``, ``val`` and ``test``.

    Raises:
        TaskSetError: There are no such files, one cannot be read or holds something else, or a
            class is in two splits.
    """
    stores: dict[str, tuple[object, StoredArray]] = {}
    classes: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {}
    for split, path in _files(config.root).items():
        images, rows_of = _read(path)
        stores[split] = (path, images)
        for name, rows in rows_of.items():
            if name in classes:
                what = f"has class {name[:60]!r}, which another split has too"
                raise TaskSetError(path, what, "each class in one split")
            classes[name] = [f"{split}/{row}" for row in rows]
        splits[split] = sorted(rows_of)
    return ImageSource(
        where=config.root,
        classes=dict(sorted(classes.items())),
        read=lambda ids: read_images(stores, ids, config.image),
        splits=splits,
    )


def _files(root: Path) -> dict[str, Path]:
    """The file of each split."""
    files: dict[str, Path] = {}
    with searched(root, f"a folder with {_FILES}"):
        for split, names in _SPLITS.items():
            found = [root / f"mini-imagenet-cache-{name}.pkl" for name in names]
            found = [path for path in found if path.is_file()]
            if len(found) > 1:
                what = f"has both {found[0].name} and {found[1].name}"
                raise TaskSetError(root, what, "one file a split", "remove one")
            if found:
                files[split] = found[0]
    if not files:
        raise TaskSetError(root, "holds no mini-ImageNet", _FILES, "check tasks.root")
    return files


def _read(path: Path) -> tuple[StoredArray, dict[str, list[int]]]:
    """The images of a file, and the rows of each class."""
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise TaskSetError(path, f"holds {described(content)}", "image_data and class_dict")
    images, named = content.get("image_data"), content.get("class_dict")
    if not isinstance(images, StoredArray):
        raise TaskSetError(f"{path}: image_data", f"is {described(images)}", "an array")
    if not isinstance(named, dict):
        raise TaskSetError(f"{path}: class_dict", f"is {described(named)}", "rows by class")
    check_images(f"{path}: image_data", images.shape, images.dtype)
    class_of: dict[int, str] = {}
    rows_of: dict[str, list[int]] = {}
    for name, rows in named.items():
        if not isinstance(name, str) or not name:
            what = "a class without a name" if name == "" else f"{described(name)} as a class"
            raise TaskSetError(f"{path}: class_dict", f"has {what}", "names")
        where = f"{path}: class_dict[{name[:60]!r}]"
        rows_of[name] = sorted(integers(where, rows).tolist())
        for row in rows_of[name]:
            if not 0 <= row < len(images):
                raise TaskSetError(where, f"has row {row}", f"0 to {len(images) - 1}")
            if row in class_of:
                what = f"has row {row}, which {class_of[row][:60]!r} has too"
                raise TaskSetError(where, what, "each row in one class, once")
            class_of[row] = name
    return images, rows_of
