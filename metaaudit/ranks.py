"""The processes that ``torchrun`` started, and how one of them ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metaaudit.errors import ConfigError

TERMINATED = 143
"""Exit code after SIGTERM."""


def rank() -> int:
    """The number of this process among those of ``torchrun``; 0 without it.

    Raises:
        ConfigError: There are not so many processes.
    """
    count = world_size()
    if count == 1:  # what is left of another program's start counts for nothing
        return 0
    own = _number("RANK", 0)
    if own >= count:
        raise ConfigError("RANK", f"is {own}", f"less than WORLD_SIZE, {count}", "unset both")
    return own


def world_size() -> int:
    """How many processes ``torchrun`` started; 1 without it."""
    return max(1, _number("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the process that writes the reports."""
    return rank() == 0


def take_device() -> None:
    """Makes the GPU of this process the one that ``cuda`` means, before anything is put there."""
    import torch

    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(_number("LOCAL_RANK", 0) % torch.cuda.device_count())


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end this process as an error does: its processes and temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread may say what a signal does
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the end short
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable)
    if text and not text.isdecimal():
        raise ConfigError(variable, f"is {text!r}", "a number, as torchrun sets it", "unset it")
    return int(text) if text else otherwise
