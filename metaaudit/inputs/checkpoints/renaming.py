"""The user's own names for the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping

from metaaudit.errors import ConfigError
from metaaudit.inputs.checkpoints.names import listed
from metaaudit.inputs.checkpoints.target import Tensors


def renamed(tensors: Tensors, rename: Mapping[str, str], where: object) -> dict[str, str]:
    """The file's names by new names.

    Args:
        tensors: The file's tensors.
        rename: New names of tensors, or of prefixes where a name is empty or ends with a dot.
        where: What to call the file in messages.

    Raises:
        ConfigError: An entry names nothing in the file, or two tensors get one name.
    """
    used: set[str] = set()

    def new(name: str) -> str:
        # The longest prefix counts, and a whole name before any prefix.
        for old in sorted(rename, key=len, reverse=True):
            if name == old or (name.startswith(old) and old[-1:] in ("", ".")):
                used.add(old)
                return rename[old] + name.removeprefix(old)
        return name

    names: dict[str, str] = {}
    for name in tensors:
        if new(name) in names:
            raise ConfigError(
                "rename",
                f"gives {names[new(name)]} and {name} of {where} the same name '{new(name)}'",
                "different names",
            )
        names[new(name)] = name
    unused = [old for old in rename if old not in used]
    if unused:
        raise ConfigError(
            "rename", f"'{unused[0]}' is nothing in {where}", f"one of {listed(list(tensors))}"
        )
    return names
