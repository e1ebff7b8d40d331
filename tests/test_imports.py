"""The user's own code: found in its folder, and never another folder's of the same name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metaaudit.errors import ModelError, TaskSetError
from metaaudit.imports import Factory


def factory(folder: Path | None, name: str, section: str = "tasks") -> Factory:
    error = {"tasks": TaskSetError, "model": ModelError}[section]
    return Factory(section, name, folder, error)


def folder_with(folder: Path, **sources: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def test_it_is_called_with_its_arguments(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, own_called="def make(a, b=2):\n    return a, b\n")
    assert factory(folder, "own_called:make").called({"a": 1}) == (1, 2)
    assert factory(None, "gc:isenabled").called({}) in (True, False)


TWIN = """
from own_helper import VALUE

def make():
    import own_late
    return VALUE, own_late.VALUE
"""


def test_modules_of_two_folders_may_have_the_same_names(tmp_path: Path) -> None:
    made = []
    for value in (1, 2):
        folder = folder_with(
            tmp_path / str(value),
            own_twin=TWIN,
            own_helper=f"VALUE = {value}\n",
            own_late=f"VALUE = {value * 10}\n",
        )
        made.append(factory(folder, "own_twin:make"))
    assert [f.called({}) for f in (*made, *made)] == [(1, 10), (2, 20), (1, 10), (2, 20)]


def test_a_module_is_imported_once_a_folder(tmp_path: Path) -> None:
    source = "THINGS = []\n\ndef make():\n    THINGS.append(0)\n    return len(THINGS)\n"
    one = factory(folder_with(tmp_path / "1", own_counter=source), "own_counter:make")
    other = factory(folder_with(tmp_path / "2", own_counter=source), "own_counter:make")
    assert [one.called({}), other.called({}), one.called({}), other.called({})] == [1, 1, 2, 2]


def test_packages_of_two_folders_may_have_the_same_names(tmp_path: Path) -> None:
    for value in (1, 2):
        folder_with(
            tmp_path / str(value) / "own_package",
            part=f"VALUE = {value}\n",
            core="from own_package.part import VALUE\n\ndef make():\n    return VALUE\n",
        )
    folders = [tmp_path / "1", tmp_path / "2", tmp_path / "1"]
    assert [factory(f, "own_package.core:make").called({}) for f in folders] == [1, 2, 1]


def test_an_installed_module_is_no_module_of_the_folder(tmp_path: Path) -> None:
    import json

    folder = folder_with(tmp_path, json="def loads():\n    return 1\n")
    with pytest.raises(TaskSetError, match=r"is another module of that name, .*json.*; rename"):
        factory(folder, "json:loads").called({})
    assert sys.modules["json"] is json


def test_what_is_imported_beside_it_stays(tmp_path: Path) -> None:
    """A folder may hold a whole environment, whose modules are not to be imported twice."""
    installed = folder_with(tmp_path / "lib" / "site", own_installed="THINGS = []\n")
    source = "import own_installed\n\ndef make():\n    return own_installed.THINGS\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed))
        one = factory(folder_with(tmp_path, own_user=source), "own_user:make").called({})
        other = factory(folder_with(tmp_path / "2", own_user=source), "own_user:make").called({})
    assert one is other


@pytest.mark.parametrize(
    "body",
    [
        "return 1",
        "raise ValueError",
        "import sys; sys.path.clear()",
        "import sys; sys.path.insert(0, 'x')",
    ],
)
def test_the_path_is_as_before(tmp_path: Path, body: str) -> None:
    folder = folder_with(tmp_path, own_path=f"def make():\n    {body}\n")
    before = list(sys.path)
    try:
        factory(folder, "own_path:make").called({})
    except TaskSetError:
        assert body.startswith("raise")
    assert sys.path == before


def test_what_it_prints_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path, own_loud="print('one')\n\ndef make():\n    print('two')\n")
    factory(folder, "own_loud:make").called({})
    assert capsys.readouterr() == ("", "one\ntwo\n")


BAD: dict[str, tuple[str, str, str]] = {
    "no module": ("", "own_absent:make", "failed with ModuleNotFoundError: No module named"),
    "no callable": ("", "own_bad:make", "failed with AttributeError: .*'make'"),
    "a number": ("make = 1", "own_bad:make", "failed with TypeError: 'int' object is not callable"),
    "syntax": ("def make(:", "own_bad:make", "failed with SyntaxError"),
    "fails on import": ("1 / 0", "own_bad:make", "failed with ZeroDivisionError: division by"),
    "fails": ("def make():\n    raise KeyError('x')", "own_bad:make", "failed with KeyError: 'x'"),
    "says nothing": (
        "def make():\n    raise RuntimeError",
        "own_bad:make",
        "failed with RuntimeError; expected an importable callable that takes tasks.args",
    ),
    "many lines": (
        "def make():\n    raise OSError('a\\nb\\n\\tc')",
        "own_bad:make",
        "failed with OSError: a b c;",
    ),
    "ends the process": (
        "import sys\n\ndef make():\n    sys.exit(0)",
        "own_bad:make",
        "failed with SystemExit: 0",
    ),
    "arguments": (
        "def make(a):\n    return a",
        "own_bad:make",
        "failed with TypeError: make.. miss",
    ),
}


@pytest.mark.parametrize("section", ["tasks", "model"])
@pytest.mark.parametrize(("source", "name", "part"), BAD.values(), ids=BAD.keys())
def test_what_fails_gives_one_line(
    tmp_path: Path, source: str, name: str, part: str, section: str
) -> None:
    made = factory(folder_with(tmp_path, own_bad=source), name, section)
    with pytest.raises(made.error, match=part.replace("tasks.", f"{section}.")) as caught:
        made.called({})
    assert str(caught.value).startswith(f"{section}.factory {name}: ")
    assert "\n" not in str(caught.value)
    assert "set tasks.path" not in str(caught.value)


def test_without_a_folder_the_remedy_is_to_name_it() -> None:
    with pytest.raises(ModelError, match=r"; set model\.path to the folder of the module$"):
        factory(None, "own_absent:make", "model").called({})


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskSetError, match=r"^tasks\.path: .*absent is no folder; expected the"):
        factory(tmp_path / "absent", "own:make").called({})


def test_an_interrupt_passes(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, own_stopped="def make():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        factory(folder, "own_stopped:make").called({})


def hashed(folder: Path | None, name: str, *modules: str) -> str:
    made = factory(folder, name)
    made.called({})
    return made.source_hash(modules)


def test_the_hash_is_that_of_all_source(tmp_path: Path) -> None:
    source = "def make():\n    return 1\n"
    contents: list[dict[str, str]] = [{}, {"own_other": "A = 1\n"}, {"own_other": "A = 2\n"}]
    hashes = [
        hashed(folder_with(tmp_path / str(row), own_hashed=source, **more), "own_hashed:make")
        for row, more in enumerate((*contents, {}))
    ]
    assert len(set(hashes)) == 3
    assert hashes[3] == hashes[0]  # and not of where it lies
    assert hashed(None, "gc:get_count") != hashed(None, "gc:get_count", "json")
