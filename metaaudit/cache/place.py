"""Where the cache is and how large it may grow."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from metaaudit.errors import ConfigError

FOLDER_VARIABLE = "METAAUDIT_CACHE_DIR"
LIMIT_VARIABLE = "METAAUDIT_CACHE_LIMIT_GB"
DEFAULT_LIMIT_GB = 20.0
GB = 1e9


def cache_folder() -> Path:
    """``METAAUDIT_CACHE_DIR``, or the platform's cache folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else user_cache_path("metaaudit")


def cache_limit() -> float:
    """Bytes that the cache may hold: ``METAAUDIT_CACHE_LIMIT_GB`` (of 10^9 bytes), or 20 GB.

    Raises:
        ConfigError: The variable is no number above 0.
    """
    text = os.environ.get(LIMIT_VARIABLE)
    try:
        gigabytes = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        gigabytes = 0.0
    if not gigabytes > 0:  # NaN is not
        raise ConfigError(
            LIMIT_VARIABLE, f"is {text!r}", "a number of gigabytes above 0", "set it, or unset it"
        )
    return gigabytes * GB
