"""What every test gets: its own factor cache and one thread; and a small trained, scored case."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.small import Case


def pytest_configure(config: pytest.Config) -> None:
    # PyTorch's own first use of forward-mode derivatives.
    ignored = "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
    config.addinivalue_line("filterwarnings", ignored)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The factor cache of one test; child processes get it, and one thread, too."""
    folder = tmp_path / "factor-cache"
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if "torch" in sys.modules:  # it takes seconds to import, and many tests do without
        sys.modules["torch"].set_num_threads(1)
    return folder


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Lets child processes hear Ctrl-C, which background jobs of a shell and theirs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def scored_case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A case with a checkpoint and a finished run, made once: read it, never write to it."""
    from tests.small import succeeds, write_case

    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(folder / "factor-cache"))
        case = write_case(folder / "case")
        succeeds(case.cli("train"))
        case.score()
        yield case


@pytest.fixture
def trained_case(scored_case: Case, tmp_path: Path) -> Case:
    """A case of the test's own with a checkpoint, not yet scored."""
    ignored = shutil.ignore_patterns(scored_case.run.name)
    copy = shutil.copytree(scored_case.folder, tmp_path / "case", ignore=ignored)
    return type(scored_case)(copy)
