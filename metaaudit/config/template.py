"""The commented configuration that ``metaaudit init`` writes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from metaaudit.errors import RunError
from metaaudit.runs.atomic import write_text

FILE_NAME = "metaaudit.yaml"


def template_text() -> str:
    """A configuration with every key, its default and its meaning."""
    return resources.files("metaaudit.config").joinpath("template.yaml").read_text("utf-8")


def write_template(folder: Path) -> Path:
    """Writes the template into ``folder``, which is made if need be.

    Returns:
        The path of the new file.

    Raises:
        RunError: The file exists already, or the folder cannot be written to.
    """
    path = folder / FILE_NAME
    if path.exists() or path.is_symlink():
        raise RunError(path, "exists already", "a folder without one", "name another folder")
    write_text(path, template_text())
    return path
