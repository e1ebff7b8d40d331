"""Processes that share the passes over the tasks, and how they exchange what they found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from safetensors.numpy import load, save
from torch import Tensor

from metaaudit.cache import Arrays
from metaaudit.errors import IncompleteError
from metaaudit.ranks import rank, take_device, world_size

Item = TypeVar("Item")

LONGEST = timedelta(days=7)
"""A stage may keep one process busy for long; one that ended is noticed at once all the same."""


@dataclass(frozen=True)
class Team:
    """One of some processes that do the same work on parts of the tasks.

    Every process calls the same methods in the same order, and has the same results.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reads and writes for all."""
        return self.rank == 0

    def owner(self, part: int) -> int:
        """The process whose turn a part is."""
        return part % self.size

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """What of some items is for this process."""
        return items[self.rank :: self.size]

    def summed(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes.

        Raises:
            IncompleteError: Another process ended.
        """
        if self.size > 1:
            with _told():
                dist.all_reduce(values)
        return values

    def sent(self, arrays: Arrays | None = None, owner: int = 0) -> Arrays:
        """The arrays of one process, in all of them.

        Args:
            arrays: What is sent; looked at in the owner alone.
            owner: Its number.

        Raises:
            IncompleteError: Another process ended.
        """
        if owner != self.rank:
            return load(_broadcast(b"", owner))
        assert arrays is not None
        if self.size > 1:
            # Not ascontiguousarray, which makes a scalar an array of one.
            _broadcast(save({k: np.asarray(v, order="C") for k, v in arrays.items()}), owner)
        return arrays

    def agreed(self, answer: bool = False) -> bool:
        """The first process's answer, in all of them.

        Args:
            answer: Looked at in the first process alone.

        Raises:
            IncompleteError: Another process ended.
        """
        return bool(self.sent({"answer": np.array([answer])})["answer"][0])


ALONE = Team()


@contextmanager
def joined() -> Iterator[Team]:
    """The processes that ``torchrun`` started, connected; this one alone without it.

    Raises:
        ConfigError: The environment is none that ``torchrun`` sets.
        IncompleteError: They do not find each other.
    """
    size = world_size()
    if size == 1:
        yield ALONE
        return
    take_device()
    with _told():
        # Arrays travel between CPUs, tensors where they are.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=LONGEST)
    try:
        yield Team(rank(), size)
    finally:
        dist.destroy_process_group()


def _broadcast(content: bytes, owner: int) -> bytes:
    """The owner's bytes, in all processes; those of the others are not looked at."""
    with _told():
        size = torch.tensor([len(content)])
        dist.broadcast(size, owner)
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if content:
            buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(buffer, owner)
    return buffer.numpy().tobytes()


@contextmanager
def _told() -> Iterator[None]:
    """Tells of a connection that is lost in one line.

    Raises:
        IncompleteError: In place of PyTorch's error.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise IncompleteError(
            "torchrun",
            f"another process ended or cannot be reached ({reason})",
            "all of them until the end",
            "the same command goes on from what is kept",
        ) from None
