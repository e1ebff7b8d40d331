"""How a command ends: every error is one line on stderr and an exit code."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from metaaudit.console import Messages
from metaaudit.errors import MetaauditError, is_interrupt, is_out_of_memory

INTERRUPTED = 130
INCOMPLETE = 3


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turns every error into one line on stderr and its exit code."""
    messages = Messages()
    try:
        yield
    except MetaauditError as error:
        messages.console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except (KeyboardInterrupt, Exception) as error:
        if is_interrupt(error):
            messages.say("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        if is_out_of_memory(error):
            messages.say(
                "error: out of memory; lower compute.task_batch (--set compute.task_batch=1)"
            )
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            messages.say(f"error: no space left on the disk of {error.filename or 'the output'}")
        elif type(error).__module__.startswith(("typer", "click")):
            raise
        else:
            traceback.print_exc()
            messages.say("error: this is a bug in metaaudit; please report the lines above")
        raise typer.Exit(INCOMPLETE) from None


class Group(TyperGroup):
    """A group whose commands end with the exit codes of ``errors.py``."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        with exit_codes():
            return super().invoke(ctx)
