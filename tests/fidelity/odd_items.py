"""What processes do with items in tests, without PyTorch, so that they start fast."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from metaaudit.errors import RunError
from metaaudit.fidelity.processes import Say, Workers


def do(item: str, say: Say) -> tuple[str, str]:
    """Does what it is told; answers with itself, its threads, and whether it is deaf to Ctrl-C."""
    what, _, rest = item.partition(" ")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(7)
    if what == "refuse":
        raise RunError("folder", "is no folder", "a folder", "make one")
    if what == "fail":
        raise MemoryError(rest)
    if what == "say":
        say(rest)
    if what == "last":
        path = Path(rest)
        path.with_suffix(".new").write_text(str(os.getpid()))
        path.with_suffix(".new").rename(path)
        time.sleep(600)
    deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    return item, f"{os.environ['OMP_NUM_THREADS']} {os.environ['OMP_WAIT_POLICY']} {deaf}"


def main() -> None:
    """Two items that last, in a process that is to be interrupted."""
    with Workers(2, do, 1, ["one", "two"], print) as workers:
        for number, path in enumerate(sys.argv[1:]):
            workers.give(number, f"last {path}")
        list(workers.results(None))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
