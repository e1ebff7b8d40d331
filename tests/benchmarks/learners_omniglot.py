"""Every learner on Omniglot: what it learns, and whether its influences are derivatives.

Meta-trains each learner as ``metaaudit train`` does, then compares instance influence's main
ingredient, ``d/d omega [u . D L_k]`` for the weights of support and query instances, and the
products of the total Hessian, with central differences of the total gradient in float64.

    python tests/benchmarks/learners_omniglot.py [--learners maml protonet] [--epochs 20]
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from metaaudit.bilevel import TotalHessian, over_tasks, total_gradients, weight_derivatives
from metaaudit.config import Config
from metaaudit.loading import prepare
from metaaudit.models import Layout, Params
from metaaudit.problem import Problem
from metaaudit.training import MetaTrainer, TrainingState

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
STEPS = {"inner_lr": 0.4, "steps": 3}
LEARNERS = {
    "maml": STEPS,
    "anil": STEPS,
    "protonet": {},
    "ridge": {},
    "meta-sgd": STEPS,
    "fomaml": STEPS,
    "reptile": {"inner_lr": 0.1, "steps": 5},
    "imaml": {"inner_lr": 0.4, "steps": 20, "proximity": 1.0},
}


def config_of(name: str, epochs: int) -> Config:
    return Config.model_validate(
        {
            "model": {"name": "conv4", "hidden": 16},
            "learner": {"name": name, **LEARNERS[name]},
            "checkpoint": Path("unused.safetensors"),
            "tasks": {
                "format": "omniglot",
                "root": DATA / "omniglot",
                "train": {"tasks": 200, "classes": 190},
                "eval": {"tasks": 60},
            },
            "training": {"epochs": epochs, "batch": 25, "lr": 0.003, "weight_decay": 0.005},
        }
    )


def trained(problem: Problem) -> Params:
    trainer = MetaTrainer(problem.as_trained, problem.train, problem.config.training)
    return trainer.run(TrainingState.initial(problem.template), lambda _: None).params


def accuracy(problem: Problem, params: Params) -> float:
    found = total_gradients(problem.unrolled(params, problem.evaluation))
    query = np.array([name == "query" for _, name, _ in problem.evaluation.instances()])
    return float(found.correct[query].mean())


def differences(problem: Problem, params: Params) -> dict[str, float]:
    """Relative errors against central differences, on four tasks, in float64."""
    exact = replace(problem, batching=replace(problem.batching, dtype=torch.float64, size=4))
    exact.model.to(torch.device("cpu"), torch.float64)
    params = {name: p.double() for name, p in params.items()}
    layout, tasks = Layout.of(params), problem.train.select(list(range(4)))
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(layout.size, generator=generator, dtype=torch.float64)
    u /= u.norm()
    # A step that crosses no kink of ReLU leaves 1e-6 of rounding.
    step = 1e-8

    def at(shift: float) -> Params:
        return layout.unflatten(layout.flatten(params) + shift * u, params)

    def along(shift: float) -> np.ndarray:
        fields = exact.as_trained if problem.follows_field else exact.unrolled
        return total_gradients(fields(at(shift), tasks)).gradients.astype(np.float64)

    slope = (along(step) - along(-step)).mean(0) / (2 * step)
    here = (exact.as_trained if problem.follows_field else exact.unrolled)(params, tasks)
    found = {}
    if problem.follows_field:  # J u by differences, against v . J u = u . J^T v
        v = torch.randn(layout.size, generator=generator, dtype=torch.float64)
        product = float(TotalHessian(here, "jacobian")(v[None])[0] @ u)
        found["jacobian"] = abs(product / float(torch.from_numpy(slope) @ v) - 1)
    else:
        product = TotalHessian(here)(u[None])[0].numpy()
        found["hessian"] = float(np.linalg.norm(product - slope) / np.linalg.norm(slope))
        found["instances"] = _instances(exact, here, at, u, step)
    return found


def _instances(problem: Problem, here, at, u: torch.Tensor, step: float) -> float:
    """``d/d(w, v)`` of the change of ``L_k`` along ``u``."""
    objective = problem.objective

    def by_weight(params: Params) -> np.ndarray:
        (batch,) = here.batches()

        def one(params, w, v, data):
            return torch.cat(
                torch.func.grad(objective.task_loss, argnums=(1, 2))(params, w, v, data)
            )

        return over_tasks(one, params, batch.data).numpy().reshape(-1)

    expected = (by_weight(at(step)) - by_weight(at(-step))) / (2 * step)
    found = weight_derivatives(here, u)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=LEARNERS)
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    for name in args.learners:
        problem = prepare(config_of(name, args.epochs))
        started = time.perf_counter()
        params = trained(problem)
        seconds = time.perf_counter() - started
        score = accuracy(problem, params)
        errors = ", ".join(f"{k} {v:.1e}" for k, v in differences(problem, params).items())
        print(f"{name}: accuracy {score:.3f}, trained in {seconds:.0f} s; {errors}", flush=True)


if __name__ == "__main__":
    main()
