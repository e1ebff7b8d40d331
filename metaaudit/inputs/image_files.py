"""Image files below a folder, whether they lie there or in zips, found without unpacking."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from metaaudit.errors import TaskSetError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_MAX_BYTES = 1 << 26
_MAX_DEPTH = 6  # ends the walk where a link leads back up
# RuntimeError: zipfile wants a password, or does not know the compression.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)


@dataclass(frozen=True, order=True)
class ImageFile:
    """One image.

    Attributes:
        container: The folder or zip that was searched.
        name: Path within it, with forward slashes.
        checksum: CRC-32 and size in bytes, as a zip's directory has them; ``None`` in a folder.
    """

    container: Path
    name: str
    checksum: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and file name within the container."""
        return tuple(part for part in self.name.split("/") if part not in ("", "."))

    @property
    def stamp(self) -> tuple[int, ...]:
        """What changes when the file's bytes do, without reading them.

        In a folder that is when and where the file system last wrote the file: it sets the last of
        these numbers itself, while a tool that copies files may set the time of a change.

        Raises:
            TaskSetError: The file is no longer there.
        """
        if self.checksum is not None:
            return self.checksum
        try:
            found = (self.container / self.name).stat()
        except OSError as error:
            raise TaskSetError(self, f"cannot be read ({error.strerror})") from None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def __str__(self) -> str:
        """The file's path, or ``ZIP: NAME``."""
        if self.container.is_dir():
            return str(self.container / self.name)
        return f"{self.container}: {self.name}"


def find_image_files(root: Path) -> list[ImageFile]:
    """Finds all images in a zip, or below a folder and in the zips directly in it, sorted.

    Raises:
        TaskSetError: ``root`` is missing, is neither of the two, or a zip is damaged or unsafe.
    """
    try:
        if root.is_file():
            return sorted(_in_zip(root))
        if not root.is_dir():
            raise TaskSetError(root, "does not exist", "a folder or a zip", "check tasks.root")
        archives = sorted(root.glob("*.zip"))
        files = [*_in_folder(root), *(file for path in archives for file in _in_zip(path))]
    except OSError as error:
        raise TaskSetError(root, f"cannot be read ({error.strerror})") from None
    return sorted(files)


def read_image_files(files: Iterable[ImageFile]) -> Iterator[tuple[ImageFile, bytes]]:
    """Reads the images, each container being opened once.

    Raises:
        TaskSetError: A file cannot be read, or is not what its zip says.
    """
    by_container: dict[Path, list[ImageFile]] = {}
    for file in files:
        by_container.setdefault(file.container, []).append(file)
    for container, members in by_container.items():
        if container.is_dir():
            yield from ((file, _read_plain(file)) for file in members)
        else:
            with _opened(container) as archive:
                yield from ((file, _read_member(archive, file)) for file in members)


def leads_out(name: str) -> bool:
    """Whether a path is one from the root, or leads up, on any system."""
    windows = PureWindowsPath(name)
    return bool(windows.anchor) or ".." in windows.parts


def _in_folder(root: Path) -> Iterator[ImageFile]:
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        relative = Path(folder).relative_to(root)
        if len(relative.parts) >= _MAX_DEPTH:
            folders.clear()
        for name in names:
            file = ImageFile(root, (relative / name).as_posix())
            if _is_image(file):
                yield file


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave an unreadable folder out silently


def _in_zip(path: Path) -> Iterator[ImageFile]:
    with _opened(path) as archive:
        for info in archive.infolist():
            file = ImageFile(path, info.filename, (info.CRC, info.file_size))
            if leads_out(file.name):
                raise TaskSetError(
                    path, f"holds an entry that leads outside it ({info.filename!r})"
                )
            if not info.is_dir() and _is_image(file):
                yield file


def _is_image(file: ImageFile) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in file.parts)
    return file.name.lower().endswith(_SUFFIXES) and not hidden


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise TaskSetError(
            path, f"is no readable zip ({error})", "a folder or a whole zip", "fetch it again"
        ) from None


def _read_plain(file: ImageFile) -> bytes:
    try:
        with (file.container / file.name).open("rb") as stream:
            return _bounded(file, stream.read(_MAX_BYTES + 1))
    except OSError as error:
        raise TaskSetError(file, f"cannot be read ({error.strerror})") from None


def _read_member(archive: zipfile.ZipFile, file: ImageFile) -> bytes:
    try:
        with archive.open(file.name) as stream:
            return _bounded(file, stream.read(_MAX_BYTES + 1))
    except _DAMAGED as error:
        raise TaskSetError(
            file.container, f"is damaged at {file.name} ({error})", remedy="fetch it again"
        ) from None


def _bounded(file: ImageFile, data: bytes) -> bytes:
    if len(data) > _MAX_BYTES:
        raise TaskSetError(file, f"has over {_MAX_BYTES} bytes", "an image")
    return data
