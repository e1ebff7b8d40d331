"""Bad data, checkpoints and settings of every format: one line, exit code 2, and nothing written.

Each case is a good one of ``formats`` with one fault.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.bad_arrays import EPISODE_CASES, FACTORY_CASES, HDF5_CASES
from tests.cli.bad_checkpoints import CHECKPOINT_CASES, SETTING_CASES
from tests.cli.bad_images import CSV_CASES, IDX_CASES, IMAGE_CASES, PICKLE_CASES
from tests.cli.faults import MARKER, Bad
from tests.cli.formats import GOOD, change_settings, write_good
from tests.small import Case, cli, files, succeeds

BAD: dict[str, Bad] = {
    **IDX_CASES,
    **IMAGE_CASES,
    **CSV_CASES,
    **PICKLE_CASES,
    **HDF5_CASES,
    **EPISODE_CASES,
    **FACTORY_CASES,
    **CHECKPOINT_CASES,
    **SETTING_CASES,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Good cases, each written once: read them, never write to them."""
    root = tmp_path_factory.mktemp("good")
    made: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in made:
            made[name] = write_good(root / str(len(made)), name)
        return made[name]

    return case


@pytest.fixture
def own(good: Callable[[str], Case], tmp_path: Path) -> Callable[[str], Case]:
    """Good cases that the test may break."""

    def case(name: str) -> Case:
        return Case(Path(shutil.copytree(good(name).folder, tmp_path / "case")))

    return case


def one_line(everything: Path, *args: object) -> str:
    """The message of a command that must end with 2, write nothing and print no traceback."""
    before = files(everything)
    outcome = cli(*args)
    assert files(everything) == before
    assert outcome.exit_code == 2, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines()[-1] == outcome.error
    assert len(outcome.error) < 1000
    return outcome.error


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("command", ["validate", "score"])
def test_each_good_case_is_good(own: Callable[[str], Case], name: str, command: str) -> None:
    case = own(name)
    options = ("--run", case.run, "--dry-run") if command == "score" else ()
    succeeds(case.cli(command, *options))


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_one_line_and_nothing_written(
    own: Callable[[str], Case], bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARKER, str(tmp_path / "side-effect"))
    case = own(bad.good)
    bad.broken(case.folder)
    change_settings(case, bad.settings)
    for args in (("validate", case.config), ("score", case.config, "--run", case.run)):
        message = one_line(tmp_path, *args)
        assert bad.names in message
        assert bad.reason in message


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("sheet.jpg", "is no name for a picture"),
        ("sheet", "is no name for a picture"),
        ("metaaudit.yaml/sheet.png", "cannot be written"),
        ("data.png", "cannot be written"),
        (f"{'n' * 300}.png", "cannot be written"),
    ],
)
def test_contact_sheet_that_cannot_be_written(
    own: Callable[[str], Case], path: str, reason: str, tmp_path: Path
) -> None:
    case = own("image-folder")
    (case.folder / "data.png").mkdir()
    sheet = case.folder / path
    message = one_line(tmp_path, "validate", case.config, "--contact-sheet", sheet)
    assert str(sheet) in message
    assert reason in message


def test_contact_sheet_makes_its_folder(own: Callable[[str], Case]) -> None:
    case = own("image-folder")
    sheet = case.folder / "new" / "folder" / "sheet.png"
    succeeds(case.cli("validate", "--contact-sheet", sheet))
    assert sheet.is_file()
