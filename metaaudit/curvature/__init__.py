"""Curvature factors and the cache that keeps them."""

from metaaudit.curvature.factor_cache import CacheUse, FactorCache, cache_folder, chunk_shape
from metaaudit.curvature.fingerprint import code_hash, weights_hash
from metaaudit.curvature.task_fisher import task_fisher_factor

__all__ = [
    "CacheUse",
    "FactorCache",
    "cache_folder",
    "chunk_shape",
    "code_hash",
    "task_fisher_factor",
    "weights_hash",
]
