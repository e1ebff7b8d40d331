"""Whether learned selection finds bad data, and what leaving them out is worth.

Scores every instance or task of a data set with bad data (``selection_cases.py``) by each strategy,
leaves out as many as were planted, trains again without them, and measures accuracy on other data.
Prints one JSON object a seed and strategy::

    python tests/benchmarks/learned_selection.py --data omniglot --bad flips --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from selection_cases import (
    BATCH,
    FEW_SHOT,
    SIZES,
    Case,
    accuracy,
    digit_case,
    few_shot_case,
    labelled_case,
    trained,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metaaudit.cache import FactorCache
from metaaudit.config import Config
from metaaudit.console import silent
from metaaudit.label_stages import LabelEvidence, LabelStages
from metaaudit.loading import Weights
from metaaudit.methods import METHODS, Given
from metaaudit.methods.data_features import data_features
from metaaudit.stages import Stages

EPOCHS = {"few-shot": {8: 10, 64: 10}, "labelled": {8: 5, 64: 20, 256: 40}}
"""Of learned selection, by tasks, or instances, of a step: fewer where there are more steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=[*FEW_SHOT, "digit-tasks", *SIZES], default="omniglot")
    parser.add_argument("--bad", choices=["flips", "mismatch", "both"], default="flips")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--only", nargs="+", help="names of strategies; absent: all")
    args = parser.parse_args()
    if args.bad == "both" and args.data not in SIZES:
        parser.error("--bad both is for labelled data")
    for seed in args.seeds:
        case = case_of(args, seed)
        told(seed, "no selection", accuracy(case, case.params))
        good = trained(case.problem, case.weights(~case.bad), seed)
        told(seed, "the good ones", accuracy(case, good))
        for name, score in strategies(case).items():
            if not args.only or name in args.only:
                judge(case, seed, name, score)


def case_of(args: argparse.Namespace, seed: int) -> Case:
    usual = {"epochs": args.epochs, "share": args.share}
    if args.data in SIZES:
        return labelled_case(args.data, args.bad, seed, **usual)
    if args.data == "digit-tasks":
        return digit_case(args.bad, seed, tasks=args.tasks, **usual)
    return few_shot_case(args.data, args.bad, seed, tasks=args.tasks, **usual)


def judge(case: Case, seed: int, name: str, score: Callable[[Case], np.ndarray]) -> None:
    """Leaves out what a strategy finds most suspicious, and tells what that is worth."""
    started = time.perf_counter()
    values = score(case)
    seconds = time.perf_counter() - started
    dropped = np.argsort(-values, kind="stable")[: int(case.bad.sum())]
    kept = np.ones(len(values), dtype=bool)
    kept[dropped] = False
    told(
        seed,
        name,
        accuracy(case, trained(case.problem, case.weights(kept), seed)),
        auroc=float(roc_auc_score(case.bad, values)),
        bad_among_dropped=float(case.bad[dropped].mean()),
        seconds=seconds,
    )


def told(seed: int, name: str, found: float, **more: float) -> None:
    values = {key: round(value, 4) for key, value in {"accuracy": found, **more}.items()}
    print(json.dumps({"seed": seed, "strategy": name, **values}), flush=True)


def strategies(case: Case) -> dict[str, Callable[[Case], np.ndarray]]:
    settings: dict[str, dict[str, Any]] = {}
    raw = ["embedding", "label"] if case.labelled else ["embedding"]
    for named, features in (("embedding", {"features": raw}), ("features", {})):
        for batch, epochs in EPOCHS["labelled" if case.labelled else "few-shot"].items():
            size = batch // BATCH if case.labelled else batch
            own = {**features, "batch": size, "epochs": epochs}
            settings[f"mts, {named}, batch {batch}"] = own
    return {
        "random": lambda case: by(case, "random"),
        "loss": lambda case: by(case, "loss"),
        "cross-fitted": probed if case.labelled else cross_fitted,
        "mislabel score": mislabel_score,
        "influence": lambda case: by(case, "task-if"),
        **{name: lambda case, s=one: by(case, "mts", s) for name, one in settings.items()},
    }


def by(case: Case, method: str, settings: dict[str, Any] | None = None) -> np.ndarray:
    """Scores by a method of influence."""
    influence = {"method": method, "mts": settings or {}} if settings else {"method": method}
    with TemporaryDirectory() as folder:
        given = Given.of(stages_of(case, folder, influence), by_instance=not case.of_tasks)
        found = METHODS[method](given)
    return found.task_influence.mean(axis=1) if case.of_tasks else found.instance_influence


def cross_fitted(case: Case) -> np.ndarray:
    """Cross-entropy of the given labels, out of fold; of a task, the mean."""
    with TemporaryDirectory() as folder:
        stages = stages_of(case, folder, {"method": "loss"})
        log_p = LabelStages(stages).cross_fit(case.problem.train)
    return _losses(case, log_p).reshape(len(case.bad), -1).mean(axis=1)


def mislabel_score(case: Case) -> np.ndarray:
    """The tool's own, by its default signal; of a task, the mean."""
    with TemporaryDirectory() as folder:
        stages = stages_of(case, folder, {"method": "loss"})
        given = Given.of(stages)
        evidence = LabelEvidence.of(LabelStages(stages), given.train, given.held_out)
        score = evidence.judged(stages.problem).score
    return score.reshape(len(case.bad), -1).mean(axis=1)


def probed(case: Case) -> np.ndarray:
    """The same by a linear probe of the trained embedding, which has seen all labels."""
    influence = {"method": "mts", "mts": {"features": ["embedding"]}}
    with TemporaryDirectory() as folder:
        x = data_features(stages_of(case, folder, influence))
    labels = np.concatenate([task.query_y for task in case.problem.train.tasks])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))
    log_p = cross_val_predict(probe, x, labels, cv=5, method="predict_log_proba")
    return _losses(case, log_p)


def _losses(case: Case, log_p: np.ndarray) -> np.ndarray:
    labels = np.concatenate([task.pooled_labels for task in case.problem.train.tasks])
    losses: np.ndarray = -log_p[np.arange(len(labels)), labels]
    return losses


def stages_of(case: Case, folder: str, influence: dict[str, Any]) -> Stages:
    changed = case.problem.config.model_dump() | {"influence": influence}
    problem = replace(case.problem, config=Config.model_validate(changed))
    weights = Weights(Path("none"), case.params, "", (), {}, ())
    return Stages(problem, weights, FactorCache(Path(folder)), silent(), problem.influence_layers())


if __name__ == "__main__":
    main()
