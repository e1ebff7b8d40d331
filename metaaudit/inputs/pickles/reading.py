"""Reading a pickle, and checks of what it held."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.errors import TaskSetError
from metaaudit.inputs.pickles.arrays import StoredArray, UnfitError
from metaaudit.inputs.pickles.machine import Machine
from metaaudit.inputs.pickles.steps import REFUSED, STEPS
from metaaudit.inputs.task_set import Ints

# What a step of the machine raises where a pickle is damaged, such as TypeError for its keys.
_DAMAGED = (ValueError, TypeError, LookupError, OverflowError, struct.error)
_WHOLE = "a whole pickle of arrays"


def read_pickle(path: Path) -> Any:
    """Reads a pickle of plain values and arrays.

    Args:
        path: The file.

    Returns:
        Numbers, text, bytes, ``None``, NumPy's numbers, lists, tuples and dictionaries, as the
        pickle has them, but that a ``bytearray`` is ``bytes`` and an ``OrderedDict`` a ``dict``.
        Arrays are ``StoredArray``, and bytes or Python 2's text of over 64 KiB ``StoredBytes``.
        Lists and tuples may be nested to any depth, and hold themselves.

    Raises:
        TaskSetError: The file is missing, damaged, holds anything else, or asks to run anything.
    """
    try:
        with path.open("rb") as stream:
            return Machine(path, stream).run(STEPS, REFUSED)
    except UnfitError as error:
        raise TaskSetError(path, str(error), "a whole pickle of arrays and plain values") from None
    except OSError as error:
        raise TaskSetError(path, f"cannot be read ({error.strerror})", _WHOLE) from None
    except _DAMAGED:
        what = "is damaged or no pickle"
        raise TaskSetError(path, what, _WHOLE, "fetch it again") from None
    except MemoryError:
        raise TaskSetError(path, "does not fit into memory") from None


def integers(where: object, value: object) -> Ints:
    """A list or an array of a pickle as integers.

    Raises:
        TaskSetError: It is something else, or cannot be read.
    """
    if isinstance(value, StoredArray) and value.dtype.kind in "iu" and len(value.shape) == 1:
        try:
            return _signed(where, value.whole())
        except (OSError, ValueError) as error:
            raise TaskSetError(where, f"cannot be read ({error})") from None
    if isinstance(value, (list, tuple)) and all(
        type(item) is int or isinstance(item, np.integer) for item in value
    ):
        try:
            return np.array([int(item) for item in value], dtype=np.int64)
        except OverflowError:
            raise _too_large(where) from None
    raise TaskSetError(where, f"is {described(value)}", "a list of integers")


def _signed(where: object, numbers: npt.NDArray[Any]) -> Ints:
    if numbers.size and int(numbers.max()) > np.iinfo(np.int64).max:  # NumPy would wrap them
        raise _too_large(where)
    return numbers.astype(np.int64)


def _too_large(where: object) -> TaskSetError:
    return TaskSetError(where, "holds a number that is too large", "integers below 2**63")


def described(value: object) -> str:
    """What a value of a pickle is, in few words whatever it holds."""
    if isinstance(value, StoredArray):
        return f"an array of {value.dtype} {list(value.shape)}"
    if value is None:
        return "missing"
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiou" else "a"
    if isinstance(value, (list, tuple)):
        return f"{article} {kind} of other things" if value else f"an empty {kind}"
    return f"{article} {kind}"
