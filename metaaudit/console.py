"""What a person sees while a command works: progress and messages on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape

PLAIN_INTERVAL_S = 10.0
PLAIN_WIDTH = 140

Advance = Callable[..., None]
"""``advance(done, note="")``: so many more units are done."""


def results() -> Console:
    """The console on stdout, for what was asked for; wide where it is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


@dataclass
class Messages:
    """The console on stderr.

    Attributes:
        console: Where messages go. Progress is a bar on a terminal and plain lines elsewhere.
        timings: Seconds of every stage so far, by name.
    """

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    timings: dict[str, float] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Prints a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints a warning."""
        self.console.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Times a stage and shows its progress.

        Args:
            name: Of the stage.
            total: Units of work, where known.
        """
        started = time.perf_counter()
        shown = self._bar if self.console.is_terminal else self._lines
        with shown(name, total) as advance:
            yield advance
        spent = time.perf_counter() - started
        self.timings[name] = self.timings.get(name, 0.0) + spent

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Advance]:
        from rich.progress import (  # slow to import, and no bar is shown by --help
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task(name, total=total, note="")

            def advance(done: int, note: str = "") -> None:
                progress.update(bar, advance=done, note=note)

            yield advance
            progress.update(bar, total=total or 1, completed=total or 1)

    @contextmanager
    def _lines(self, name: str, total: int | None) -> Iterator[Advance]:
        started = told = time.perf_counter()
        count, last = 0, ""

        def advance(done: int, note: str = "") -> None:
            nonlocal told, count, last
            count, last = count + done, note
            now = time.perf_counter()
            if now - told >= PLAIN_INTERVAL_S and total and count:
                told = now
                left = (now - started) * (total - count) / count
                self.say(f"{name}: {count}/{total}, eta {left:.0f} s {note}".rstrip())

        yield advance
        seconds = time.perf_counter() - started
        self.say(f"{name}: done in {seconds:.1f} s {last}".rstrip())


def silent() -> Messages:
    """For a process that leaves it to another one to speak."""
    return Messages(Console(stderr=True, quiet=True))
