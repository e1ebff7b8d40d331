"""Processes that work at once: those that this one starts, and those that ``torchrun`` started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from metaaudit.errors import IncompleteError, MetaauditError

GRACE_S = 5.0
"""Seconds that a process has to end by itself when told to."""

Item = TypeVar("Item")
Result = TypeVar("Result")

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Failed:
    """An error in a process, as what can be sent."""

    kind: type[MetaauditError]
    text: str


@dataclass(frozen=True)
class _Said:
    """A line to be told at once."""

    text: str


@dataclass
class _Worker:
    """A process, the end of the pipe to it, and what it works on."""

    process: BaseProcess
    pipe: Connection
    busy: int | None = None


class Workers(Generic[Item, Result]):
    """Processes that call one function on one item after the other.

    They take no notice of Ctrl-C, and are ended when the block ends, whatever they are doing.

    Args:
        count: How many.
        function: Called in them as ``function(item, say)``; it is sent to each of them once.
        threads: Intra-op threads of each.
        names: What items are called in errors, by number.
        say: Told what they say.
    """

    def __init__(
        self,
        count: int,
        function: Callable[[Item, Say], Result],
        threads: int,
        names: Sequence[str],
        say: Say,
    ) -> None:
        self._count, self._function, self._threads = count, function, threads
        self._names, self._say = names, say
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        try:
            with _surroundings(self._threads):
                for _ in range(self._count):
                    pipe, its_end = context.Pipe()
                    process = context.Process(target=_serve, args=(its_end,), daemon=True)
                    process.start()
                    its_end.close()  # lest its death go unnoticed
                    self._workers.append(_Worker(process, pipe))
            for worker in self._workers:  # which all start meanwhile
                self._send(worker, self._function)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def idle(self) -> bool:
        """Whether one of them has nothing to do."""
        return any(worker.busy is None for worker in self._workers)

    @property
    def busy(self) -> list[int]:
        """Numbers of the items that are worked on."""
        return [worker.busy for worker in self._workers if worker.busy is not None]

    def give(self, number: int, item: Item) -> None:
        """Gives an item to one that has nothing to do.

        Raises:
            IncompleteError: It is dead.
        """
        worker = next(worker for worker in self._workers if worker.busy is None)
        worker.busy = number
        self._send(worker, item)

    def results(self, timeout: float | None) -> Iterator[tuple[int, Result]]:
        """Numbers and results of what was done by the time that anything is done.

        Args:
            timeout: Seconds after which there is nothing.

        Raises:
            IncompleteError: One of them died.
            MetaauditError: What the function raised.
        """
        ready = wait([worker.pipe for worker in self._workers if worker.busy is not None], timeout)
        for worker in self._workers:
            if worker.pipe not in ready:
                continue
            reply = self._reply(worker)
            if isinstance(reply, _Said):
                self._say(reply.text)
                continue
            number, worker.busy = worker.busy, None
            assert number is not None
            if isinstance(reply, _Failed):
                raise reply.kind(self._names[number], reply.text)
            yield number, reply

    def _send(self, worker: _Worker, message: Any) -> None:
        try:
            worker.pipe.send(message)
        except OSError:
            raise self._died(worker) from None

    def _reply(self, worker: _Worker) -> Any:
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            raise self._died(worker) from None

    def _died(self, worker: _Worker) -> IncompleteError:
        worker.process.join(GRACE_S)
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else "ended"
        return IncompleteError(
            "evaluate.jobs" if worker.busy is None else self._names[worker.busy],
            f"its process {how}" + (f" with exit code {code}" if code and code > 0 else ""),
            "",
            "where memory ran out, lower evaluate.jobs or compute.task_batch; what was done is "
            "kept: run the same command again",
        )

    def _end(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers = []


def _serve(pipe: Connection) -> None:
    """What a process does until its pipe is closed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # temporary files are removed then
    with suppress(EOFError, OSError):
        function = pipe.recv()
        while True:
            item = pipe.recv()
            pipe.send(_outcome(function, item, lambda text: pipe.send(_Said(text))))


def _outcome(function: Callable[[Any, Say], Any], item: Any, say: Say) -> Any:
    try:
        return function(item, say)
    except MetaauditError as error:
        return _Failed(type(error), str(error))
    except Exception as error:
        traceback.print_exc()
        return _Failed(IncompleteError, f"{type(error).__name__}: {error}")


@contextmanager
def _surroundings(threads: int) -> Iterator[None]:
    """What processes find that are started now: few threads, which wait asleep, and no Ctrl-C."""
    wanted = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    resource_tracker.ensure_running()  # which would lift the mask, were it to start later
    # A mask is inherited, so that even one that is just starting stays silent; one that comes to
    # this process meanwhile is heard afterwards.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
