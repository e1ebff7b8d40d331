"""The sample configurations and the README's are true: they load, and they run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from metaaudit.config import load_config
from tests.small import DATA, cli, succeeds

ROOT = Path(__file__).parents[1]
SAMPLES = sorted((ROOT / "sample_configs").rglob("*.yaml"))

SHRUNK = {
    "tasks.train.tasks": 6,
    "tasks.eval.tasks": 2,
    "tasks.image.size": 28,
    "training.epochs": 1,
    "training.batch": 3,
    "mislabel.folds": 3,
    "tasks.episode.shots": 1,
    "tasks.episode.queries": 1,
}


def test_there_are_samples() -> None:
    assert {path.name for path in SAMPLES} >= {"omniglot.yaml", "omniglot_exact.yaml"}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sample_loads(path: Path) -> None:
    load_config(path)


@pytest.mark.skipif(
    not (DATA / "omniglot").is_dir(),
    reason=f"no Omniglot at {DATA / 'omniglot'} (set METAAUDIT_DATA)",
)
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sample_trains_and_scores(path: Path, tmp_path: Path) -> None:
    settings = {
        **SHRUNK,
        "checkpoint": json.dumps(str(tmp_path / "small.safetensors")),
        "tasks.root": json.dumps(str((DATA / "omniglot").resolve())),
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    succeeds(cli("train", path, *overrides))
    succeeds(cli("score", path, "--run", tmp_path / "run", *overrides))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["coverage"] == {"tasks": 6, "instances": 60, "eval_tasks": 2}


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (block,) = [text for text in blocks if text.startswith("model:")]
    path = tmp_path / "metaaudit.yaml"
    path.write_text(block, encoding="utf-8")
    assert load_config(path).training.weight_decay == 0.005


def test_the_readmes_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
