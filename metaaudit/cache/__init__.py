"""The factor cache: arrays that are dear to compute, kept in HDF5 under a hash of their inputs."""

from metaaudit.cache.checking import Checked, check_folder
from metaaudit.cache.entry import Arrays, chunk_shape
from metaaudit.cache.folder import CacheFile, Cleared, Item, clear, items
from metaaudit.cache.place import GB, LIMIT_VARIABLE, cache_folder, cache_limit
from metaaudit.cache.seal import FORMAT, Header, read_header
from metaaudit.cache.store import CacheUse, FactorCache

__all__ = [
    "FORMAT",
    "GB",
    "LIMIT_VARIABLE",
    "Arrays",
    "CacheFile",
    "CacheUse",
    "Checked",
    "Cleared",
    "FactorCache",
    "Header",
    "Item",
    "cache_folder",
    "cache_limit",
    "check_folder",
    "chunk_shape",
    "clear",
    "items",
    "read_header",
]
