"""The user's own names for the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping

from metaaudit.errors import ConfigError
from metaaudit.inputs.checkpoints.names import listed
from metaaudit.inputs.checkpoints.target import Target, Tensors


def renamed(
    tensors: Tensors, rename: Mapping[str, str], target: Target, where: object
) -> dict[str, str]:
    """The file's names by new names.

    Args:
        tensors: The file's tensors.
        rename: New names of tensors, or of prefixes where a name is empty or ends with a dot.
        target: What has the new names.
        where: What to call the file in messages.

    Raises:
        ConfigError: An entry names nothing in the file or in the model, or two tensors get one
            name.
    """
    used: dict[str, set[str]] = {}

    def new(name: str) -> str:
        # The longest prefix counts, and a whole name before any prefix.
        for old in sorted(rename, key=len, reverse=True):
            if name == old or (name.startswith(old) and old[-1:] in ("", ".")):
                found = rename[old] + name.removeprefix(old)
                used.setdefault(old, set()).add(found)
                return found
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
    known = {one for name in target.known for one in target.names(name)}
    for old in rename:
        if old not in used:
            raise ConfigError(
                "rename", f"'{old}' is nothing in {where}", f"one of {listed(list(tensors))}"
            )
        if known.isdisjoint(used[old]):
            raise ConfigError(
                "rename",
                f"'{old}' becomes '{rename[old]}', which is nothing in the model",
                f"one of {listed(list(target.known))}",
            )
    return names
