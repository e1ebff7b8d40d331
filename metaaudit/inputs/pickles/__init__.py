"""Pickles of arrays and plain values, read without running anything of theirs.

A pickle is a program. Here a machine runs it that knows no instructions but those which build
numbers, text, bytes, lists, tuples and dictionaries, and no objects but those of
``arrays``. It neither imports nor calls what a pickle names, and allocates nothing because
a pickle claims a size. Protocols 0 to 5 are read, of Python 2 and 3; text of Python 2 is taken for
Latin-1, as is usual where arrays are pickled.
"""

from metaaudit.inputs.pickles.arrays import StoredArray, StoredBytes
from metaaudit.inputs.pickles.reading import described, integers, read_pickle

__all__ = ["StoredArray", "StoredBytes", "described", "integers", "read_pickle"]
