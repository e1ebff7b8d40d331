"""Every error that metaaudit raises on purpose.

MetaauditError
├── UsageError                 exit 2: what the user gave cannot be used
│   ├── ConfigError            the configuration file or a ``--set`` override
│   ├── InputError             something on disk that the configuration names
│   │   ├── CheckpointError    weights
│   │   ├── ModelError         a model that cannot be built or does not fit its data
│   │   └── TaskSetError       tasks and their images
│   └── RunError               a run folder, an output path, a prune that a guard stopped
└── IncompleteError            exit 3: out of memory, non-finite numbers

A message is one line: where, what was got, what was expected, the remedy.
"""

from __future__ import annotations

from typing import ClassVar

from metaaudit.printable import printable


class MetaauditError(Exception):
    """Base of all errors that end a command with one clear line and no traceback.

    Args:
        where: The file, config key or object at fault.
        what: What was found there.
        expected: What would have been right; left out of the message if empty.
        remedy: What to do about it; left out of the message if empty.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, where: object, what: str, expected: str = "", remedy: str = "") -> None:
        parts = [f"{where}: {what}"]
        if expected:
            parts.append(f"expected {expected}")
        if remedy:
            parts.append(remedy)
        super().__init__(printable(" ".join("; ".join(parts).split())))


class UsageError(MetaauditError):
    """What the user gave cannot be used (exit code 2)."""


class ConfigError(UsageError):
    """The configuration file or an override is wrong."""


class InputError(UsageError):
    """Something on disk that the configuration names cannot be used."""


class CheckpointError(InputError):
    """A checkpoint cannot be read, or its tensors do not fit the model."""


class ModelError(InputError):
    """A model cannot be built, or does not fit the data."""


class TaskSetError(InputError):
    """Tasks or their images cannot be used."""


class RunError(UsageError):
    """A run folder or an output path cannot be used, or a guard stopped the command."""


class IncompleteError(MetaauditError):
    """The work could not be finished (exit code 3)."""

    exit_code: ClassVar[int] = 3


def is_interrupt(error: BaseException) -> bool:
    """Whether an error is a Ctrl-C or came of one: PyTorch can turn one into an error of its own.

    >>> is_interrupt(KeyboardInterrupt()), is_interrupt(RuntimeError())
    (True, False)
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, the GPU or PyTorch's allocator of CPU memory has none left.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError())
    (True, False)
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
