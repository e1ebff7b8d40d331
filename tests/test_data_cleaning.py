"""The example of a bilevel problem that is not few-shot learning."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from metaaudit.bilevel import total_gradients, weight_derivatives
from tests.small import Case, cli, succeeds

FOLDER = Path(__file__).parents[1] / "sample_configs" / "data_cleaning"
PATH = FOLDER / "clean_digits.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("clean_digits", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_total_gradients_are_finite_differences(example: ModuleType) -> None:
    train, *_ = example.problem()
    objective = example.objective_of(train)
    params = objective.learner.meta_parameters(objective.forward.initial())

    def outer_loss(logit: float = 0.0, log_l2: float = 0.0) -> float:
        at = {name: p.clone() for name, p in params.items()}
        at["logits"][7] += logit
        at["log_l2"] += log_l2
        return float(total_gradients(example.adaptation(objective, at, train)).outer_loss[0])

    gradient = total_gradients(example.adaptation(objective, params, train)).gradients[0]
    step = 1e-5
    slope = (outer_loss(logit=step) - outer_loss(logit=-step)) / (2 * step)
    assert gradient[7] == pytest.approx(slope, rel=1e-5)
    slope = (outer_loss(log_l2=step) - outer_loss(log_l2=-step)) / (2 * step)
    assert gradient[-1] == pytest.approx(slope, rel=1e-5)


def test_query_weights_add_up_to_the_task(example: ModuleType) -> None:
    train, *_ = example.problem()
    objective = example.objective_of(train)
    params = objective.learner.meta_parameters(objective.forward.initial())
    fitted = example.adaptation(objective, params, train)
    gradient = total_gradients(fitted).gradients[0]
    u = torch.from_numpy(np.linspace(-1, 1, len(gradient)))
    by_query = weight_derivatives(fitted, u)[example.N_TRAINING :]
    assert by_query.sum() == pytest.approx(float(gradient @ u.numpy()), rel=1e-9)


def test_learned_selection_finds_bad_digits_of_both_kinds(tmp_path: Path) -> None:
    """As the sample says, its paths moved to a folder of the test's own."""
    subprocess.run([sys.executable, FOLDER / "write_digits.py", tmp_path], check=True)
    text = (FOLDER / "learned_selection.yaml").read_text(encoding="utf-8")
    case = Case(tmp_path)
    case.config.write_text(text.replace("../../runs/cleaning/", ""), encoding="utf-8")
    succeeds(case.cli("train"))
    run = case.score("run")
    with (run / "instances.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = np.array([row["instance_id"].split("-")[0] for row in rows])
    below = np.array([float(row["influence"]) for row in rows])
    for kind, least in (("wrong", 0.85), ("synthetic", 0.95)):
        among = (kinds == kind) | (kinds == "right")
        assert roc_auc_score(kinds[among] == kind, below[among]) > least
    shown = succeeds(cli("report", run)).stdout
    assert "the weight that was learned for the item is that far below" in " ".join(shown.split())


def test_it_finds_what_is_wrong(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = example.clean
    monkeypatch.setattr(example, "clean", lambda train: clean(train, epochs=40))
    example.main()
    lines = capsys.readouterr().out.splitlines()
    before, after = (float(line.split("digits ")[1].split(",")[0]) for line in lines[:2])
    assert after > before
    found = {line.split(":")[0]: float(line.split()[-1]) for line in lines if "AUROC" in line}
    assert found["wrong training labels, by weight"] > 0.85
    assert found["wrong trusted labels, by influence"] > 0.9
