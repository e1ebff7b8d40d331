"""Imports run downwards only, and what need not wait for PyTorch does not."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metaaudit
from tests.cache.cases import add
from tests.small import Case

ROOT = Path(metaaudit.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("demo",),
    ("preflight",),
    ("rehearsal",),
    ("diagnose_app", "evaluate_app", "prune_app"),
    ("diagnose", "evaluate"),
    ("audit", "baseline_app", "cache_app", "meta_train", "prune", "report_app", "validation"),
    ("fidelity",),
    ("editing",),
    ("gradient_noise", "measuring", "planning"),
    ("assumptions", "label_stages", "methods"),
    ("stages", "manifest"),
    ("finite", "keeping", "room"),
    ("loading",),
    ("problem",),
    ("reports", "pruning"),
    ("gates",),
    ("task_facts",),
    ("selection",),
    ("influence", "labelnoise", "training"),
    ("bilevel",),
    ("curvature",),
    ("learners",),
    ("models",),
    ("inputs", "options"),
    ("config", "team"),
    ("cache",),
    ("exit_codes",),
    ("linalg", "runs", "console", "imports"),
    ("ranks",),
    ("findings",),
    ("errors", "robust"),
    ("printable",),
)
"""From top to bottom. A package or module imports from the layers below its own only."""

UPWARDS = {
    # What a run folder holds is told in the terms of task sets, which need NumPy alone.
    ("runs", "metaaudit.inputs.task_set"),
}

TORCH_FREE = {
    "reports": {"runs", "errors", "inputs.task_set", "findings", "gates", "printable"},
    "pruning": {"runs", "errors", "inputs.arrays", "inputs.task_set", "robust", "findings"},
    "gates": {"runs", "errors", "findings", "config"},
    "cache": {"runs.atomic", "runs.hdf5", "errors"},
    "runs": {"errors", "inputs.task_set", "findings"},
    "findings": {"errors"},
    "config": {"runs.atomic", "errors", "findings.rules"},
    "console": set(),
    "imports": {"errors"},
    "errors": {"printable"},
    "printable": set(),
    "robust": set(),
}
"""All that these may import from the project; and none of them may import ``HEAVY``."""

HEAVY = ("torch", "safetensors")

STARTED = {"__init__": "errors", "__main__": "cli"}
"""Files at the top that count as a layer: ``metaaudit`` holds its version, and starts ``cli``."""


def layer_of(name: str) -> int:
    (found,) = (depth for depth, layer in enumerate(LAYERS) if name in layer)
    return found


def part_of(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return STARTED.get(first, first)


def imports_of(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, also within functions and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = (ROOT.parent / whole.replace(".", "/")).with_suffix(".py").is_file()
                is_package = (ROOT.parent / whole.replace(".", "/")).is_dir()
                yield whole if is_module or is_package else node.module


SOURCES = [(path, sorted(set(imports_of(path)))) for path in sorted(ROOT.rglob("*.py"))]


def violations(path: Path, imports: list[str]) -> list[str]:
    """The imports of a file that its layer does not allow."""
    part = part_of(path)
    found = []
    for name in imports:
        top, _, rest = name.partition(".")
        if top != "metaaudit" or not rest:
            continue
        other = rest.split(".")[0]
        if other == part or (part, name) in UPWARDS:
            continue
        if layer_of(other) <= layer_of(part):
            found.append(f"{path.relative_to(ROOT)} imports {name} from above or beside it")
    return found


def test_every_part_has_one_layer() -> None:
    parts = {part_of(path) for path, _ in SOURCES}
    layered = [name for layer in LAYERS for name in layer]
    assert sorted(layered) == sorted(parts)


def test_imports_run_downwards_only() -> None:
    assert len(SOURCES) > 60
    assert [line for source in SOURCES for line in violations(*source)] == []


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("models/mlp.py", "metaaudit.learners"),
        ("reports/html.py", "metaaudit.audit"),
        ("reports/html.py", "metaaudit.pruning"),
        ("runs/scores.py", "metaaudit.inputs.episodes"),
        ("errors.py", "metaaudit.console"),
        ("__init__.py", "metaaudit.cli"),
    ],
)
def test_an_import_upwards_would_be_seen(file: str, imported: str) -> None:
    assert violations(ROOT / file, [imported])


@pytest.mark.parametrize("part", TORCH_FREE)
def test_torch_free_parts_import_only_what_is_torch_free(part: str) -> None:
    sources = [source for source in SOURCES if part_of(source[0]) == part]
    own = [
        source
        for source in sources
        if source[0].parent != ROOT
        or part in ("console", "errors", "imports", "printable", "robust")
    ]
    assert own
    for path, imports in own:
        for name in imports:
            assert name.split(".")[0] not in HEAVY, f"{path.relative_to(ROOT)} imports {name}"
            if name.startswith("metaaudit."):
                rest = name.removeprefix("metaaudit.")
                allowed = {part} | TORCH_FREE[part]
                assert any(rest == a or rest.startswith(f"{a}.") for a in allowed), (
                    f"{path.relative_to(ROOT)} imports {name}"
                )


def test_the_linear_algebra_knows_nothing_of_the_project() -> None:
    for path, imports in SOURCES:
        if part_of(path) == "linalg":
            others = [n for n in imports if n.startswith("metaaudit.")]
            assert all(n.startswith("metaaudit.linalg") for n in others), path


NO_TORCH = """
import sys
from metaaudit.cli import app
try:
    app(sys.argv[1:])
except SystemExit as done:
    assert not done.code, done.code
loaded = [name for name in ("torch", "safetensors") if name in sys.modules]
assert not loaded, loaded
"""


def in_a_new_process(code: str, *args: object) -> None:
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_command_line_imports_nothing_heavy() -> None:
    heavy = "('torch', 'numpy', 'h5py', 'pydantic', 'matplotlib', 'jinja2')"
    in_a_new_process(
        f"import sys, metaaudit.cli; assert not [n for n in {heavy} if n in sys.modules]"
    )


def test_help_imports_no_torch() -> None:
    in_a_new_process(NO_TORCH, "--help")


@pytest.mark.parametrize(
    "formats", [(), ("html", "md", "json", "csv")], ids=["terminal", "every format"]
)
def test_report_imports_no_torch(
    scored_case: Case, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    options = [part for fmt in formats for part in ("-f", f"{fmt}={tmp_path / fmt}")]
    in_a_new_process(NO_TORCH, "report", scored_case.run, *options)


def test_prune_imports_no_torch(scored_case: Case, tmp_path: Path) -> None:
    options = ("--drop", "instances", "--by", "mislabel_score", "--max-fraction", "0.1")
    in_a_new_process(NO_TORCH, "prune", scored_case.run, *options, "--plan", tmp_path / "p.json")


@pytest.mark.parametrize("command", ["ls", "verify", "clear"])
def test_cache_imports_no_torch(cache_dir: Path, command: str) -> None:
    add(cache_dir, 1)
    in_a_new_process(NO_TORCH, "cache", command)


def test_the_check_for_torch_would_see_it(scored_case: Case) -> None:
    with pytest.raises(AssertionError, match="torch"):
        in_a_new_process(NO_TORCH, "validate", scored_case.config)
