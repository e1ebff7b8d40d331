"""Code of the user's own that a configuration names, as ``module:callable``.

It is the user's choice to run it; data files never can. Modules are found in a folder, or where
Python finds what is installed. Modules of two folders may have the same names: each folder sees
its own.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from metaaudit.errors import InputError, MetaauditError

_MODULES: dict[Path, dict[str, ModuleType]] = {}
"""What was imported from each folder. ``sys.modules`` has one module a name."""


@dataclass(frozen=True)
class Factory:
    """A callable that a configuration names.

    Attributes:
        section: Section of the configuration that names it.
        name: ``module:callable``.
        folder: Folder to import the module from, if it is not installed.
        error: What to raise where the code fails.
    """

    section: str
    name: str
    folder: Path | None
    error: type[InputError]

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return f"{self.section}.factory {self.name}"

    def called(self, args: Mapping[str, Any]) -> Any:
        """What it returns for some keyword arguments.

        Raises:
            InputError: It cannot be imported or called; of the class that is asked for.
        """
        if self.folder is not None and not self.folder.is_dir():
            raise self.error(
                f"{self.section}.path", f"{self.folder} is no folder", "the folder of the module"
            )
        with self.running(starting=True):
            module_name, _, attribute = self.name.partition(":")
            module = importlib.import_module(module_name)
            if self.folder is not None and not _is_below(module, self.folder.resolve()):
                raise self.error(
                    self.where,
                    f"is another module of that name, {_location(module) or 'built in'}",
                    f"one in {self.folder}",
                    "rename yours",
                )
            return getattr(module, attribute)(**args)

    @contextmanager
    def running(self, *, starting: bool = False) -> Iterator[None]:
        """Runs code of the user's: it can import from its folder, and fails with one line.

        What it prints goes to stderr. ``sys.path`` is as before when it ends.

        Args:
            starting: Whether this is the call itself, which the configuration may have wrong.

        Raises:
            InputError: The code raised something, or wanted to end the process.
        """
        try:
            with _importable(self.folder), redirect_stdout(sys.stderr):
                yield
        except MetaauditError:
            raise
        except (Exception, SystemExit) as error:
            what = f"failed with {type(error).__name__}: {error}".rstrip(": ")
            if not starting:
                raise self.error(self.where, what) from error
            raise self.error(
                self.where,
                what,
                f"an importable callable that takes {self.section}.args",
                "" if self.folder else f"set {self.section}.path to the folder of the module",
            ) from error

    def source_hash(self, modules: Collection[str] = ()) -> str:
        """SHA-256 of the source of its module, of further modules, and of all in its folder.

        Raises:
            InputError: A source cannot be read.
        """
        with self.running():
            names = {self.name.partition(":")[0], *modules}
            files = {getattr(sys.modules.get(name), "__file__", None) for name in names}
            paths = {Path(file) for file in files if file}
            if self.folder is not None:
                paths.update(path for path in self.folder.rglob("*.py") if path.is_file())
            digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
            return hashlib.sha256("".join(digests).encode()).hexdigest()


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Lets modules be found in a folder, those of other such folders put aside."""
    before = list(sys.path)
    root = None if folder is None else folder.resolve()
    for other, modules in _MODULES.items():
        for name, module in modules.items():
            if other != root and sys.modules.get(name) is module:
                del sys.modules[name]
    if root is not None:
        sys.modules.update(_MODULES.setdefault(root, {}))
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()  # the folder may have changed a moment ago
    known = set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - known:
            if root is not None and _is_below(sys.modules[name], root):
                _MODULES[root][name] = sys.modules[name]
        for modules in _MODULES.values():
            for name, module in modules.items():
                sys.modules.setdefault(name, module)


def _is_below(module: ModuleType, root: Path) -> bool:
    """Whether a module was found by a search of the folder itself.

    That is more than that its file is below: the folder may hold a whole environment.
    """
    location, top = _location(module), module.__name__.partition(".")[0]
    if location is None or not location.is_relative_to(root):
        return False
    return location.relative_to(root).parts[0].partition(".")[0] == top


def _location(module: ModuleType) -> Path | None:
    """Its file, or the folder of a package that has none."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        folders = getattr(module, "__path__", None)
        file = next(iter(folders), None) if folders is not None else None
    return Path(file).resolve() if isinstance(file, str) else None
