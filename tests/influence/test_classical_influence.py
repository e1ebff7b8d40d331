"""Without adaptation, influence is the classical one: dense algebra, and actual retraining.

The dense reference and the retraining use plain NumPy or autograd over all instances at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, vmap

from metaaudit.bilevel import (
    AdjointSolver,
    Batching,
    Objective,
    TotalHessian,
    Unrolled,
    total_gradients,
    weight_derivatives,
)
from metaaudit.config.influence import InfluenceConfig
from metaaudit.influence import instance_influence, task_influence
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.learners import Unadapted
from metaaudit.models import Layout, Params

DELTA = 0.05
WAYS = 3


def labelled(n: int, batch: int, seed: int) -> TaskSet:
    """Batches of noisy classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, WAYS, n)
    centres = np.random.default_rng(0).standard_normal((WAYS, 4))
    x = centres[y] + rng.standard_normal((n, 4))
    nothing = np.empty(0, dtype=np.int64)
    names = tuple(map(str, range(WAYS)))
    rows = [np.arange(n)[start : start + batch] for start in range(0, n, batch)]
    tasks = [Task(f"b{k}", nothing, nothing, r, y[r], names) for k, r in enumerate(rows)]
    return TaskSet(ImagePool(x, tuple(map(str, range(n)))), tuple(tasks))


def ones(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.float64)


MODELS = {
    "logistic regression": lambda: torch.nn.Linear(4, WAYS),
    "MLP": lambda: torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, WAYS)
    ),
}


@dataclass
class Classifier:
    """A small classifier at the minimum of ``F``, over batches of one size or of two."""

    name: str = "logistic regression"
    n: int = 24
    batch: int = 6
    at_once: int = 3

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.module = MODELS[self.name]().double()
        self.train, self.evaluation = labelled(self.n, self.batch, 1), labelled(9, 3, 2)
        names = {name: p.detach() for name, p in self.module.named_parameters()}
        self.layout = Layout.of(names)
        self.like = names

    def forward(self, params: Params, x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self.module, params, (x,))
        return outputs

    @cached_property
    def weights(self) -> Tensor:
        """``[n]``: 1/N of the mean of its batch, so that they add up to the objective."""
        sizes = self.train.query_sizes
        return torch.cat([ones(m) / (len(sizes) * m) for m in sizes.tolist()])

    def losses(self, flat: Tensor, task_set: TaskSet) -> Tensor:
        """``[n]``, all instances at once."""
        x = torch.from_numpy(task_set.pool.pixels)
        y = torch.from_numpy(np.concatenate([task.query_y for task in task_set.tasks]))
        outputs = self.forward(self.layout.unflatten(flat, self.like), x)
        return torch.nn.functional.cross_entropy(outputs, y, reduction="none")

    def objective(self, flat: Tensor, weights: Tensor) -> Tensor:
        """``F``."""
        return (weights * self.losses(flat, self.train)).sum() + DELTA / 2 * flat.square().sum()

    def minimum(self, weights: Tensor) -> Tensor:
        """By Newton's method; for the MLP with steps that are halved until they go down."""
        flat = self.layout.flatten(self.like).clone()
        for _ in range(200):
            slope = grad(self.objective)(flat, weights)
            if slope.norm() < 1e-12:
                break
            curvature = hessian(self.objective)(flat, weights)
            values, vectors = torch.linalg.eigh(curvature)
            step = vectors @ ((vectors.T @ slope) / values.abs().clamp(min=1e-3))
            scale, here = 1.0, self.objective(flat, weights)
            while self.objective(flat - scale * step, weights) > here and scale > 1e-8:
                scale /= 2
            flat = flat - scale * step
        assert slope.norm() < 1e-9
        return flat

    @cached_property
    def best(self) -> Tensor:
        return self.minimum(self.weights)

    def dense(self) -> tuple[Tensor, Tensor]:
        """Classical influence of batches and instances: ``-v^T H^-1 g``, from all at once."""
        curvature = hessian(self.objective)(self.best, self.weights)
        sizes = self.evaluation.query_sizes
        means = torch.cat([ones(m) / (len(sizes) * m) for m in sizes.tolist()])
        target = grad(lambda flat: (means * self.losses(flat, self.evaluation)).sum())(self.best)
        slopes = torch.func.jacrev(lambda flat: self.losses(flat, self.train))(self.best)
        each = -self.weights * (slopes @ torch.linalg.solve(curvature, target))
        batches = torch.stack([part.sum() for part in each.split(self.train.query_sizes.tolist())])
        return batches, each

    def measured(self, solver: str) -> tuple[np.ndarray, np.ndarray]:
        """What metaaudit says of batches and instances."""
        config = InfluenceConfig(
            curvature="exact", solver=solver, damping=0.0, tolerance=1e-13, max_iterations=500
        )
        params = self.layout.unflatten(self.best, self.like)
        objective = Objective(self.forward, Unadapted())
        batching = Batching(self.at_once, torch.device("cpu"), torch.float64)
        train = Unrolled(objective, params, self.train, batching)
        held_out = Unrolled(objective, params, self.evaluation, batching)
        gradients = torch.from_numpy(total_gradients(train).gradients)
        targets = torch.from_numpy(total_gradients(held_out).gradients)
        adjoint = AdjointSolver(config, TotalHessian(train), gradients, DELTA).solve(targets)
        found = weight_derivatives(train, adjoint.direction.mean(dim=0))
        return (
            task_influence(gradients, adjoint.direction).mean(axis=1),
            instance_influence(found, len(self.train)),
        )


@pytest.mark.parametrize("solver", ["cg", "dense"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [6, 7, 24])
def test_influence_equals_the_classical_one(name: str, batch: int, solver: str) -> None:
    case = Classifier(name, batch=batch)
    tasks, instances = case.measured(solver)
    wanted_tasks, wanted = case.dense()
    np.testing.assert_allclose(tasks, wanted_tasks, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(instances, wanted, rtol=1e-8, atol=1e-12)
    # Instances of a batch add up to it.
    sums = [part.sum() for part in np.split(instances, np.cumsum(case.train.query_sizes)[:-1])]
    np.testing.assert_allclose(sums, tasks, rtol=1e-10, atol=1e-13)


def test_influence_predicts_leaving_one_out() -> None:
    """The change on removal is minus the influence, and what is left over is of second order."""
    case = Classifier(n=240, batch=20)
    _, instances = case.measured("dense")

    def held_out(flat: Tensor) -> float:
        return float(case.losses(flat, case.evaluation).mean())

    before = held_out(case.best)
    rows = range(0, 240, 12)
    changes = []
    for row in rows:
        weights = case.weights.clone()
        weights[row] = 0.0
        changes.append(before - held_out(case.minimum(weights)))
    predicted = instances[list(rows)]
    # An instance is a 240th of the data; the largest influence is off by a tenth of itself.
    np.testing.assert_allclose(predicted, changes, atol=0.12 * np.abs(changes).max())
    assert np.corrcoef(predicted, changes)[0, 1] > 0.99
    # A small change of weight is what the derivative is of.
    weights = case.weights.clone()
    weights[0] *= 1 - 1e-4
    slope = (before - held_out(case.minimum(weights))) / 1e-4
    assert slope == pytest.approx(instances[0], rel=1e-3)


def test_results_do_not_depend_on_how_many_batches_are_computed_at_once() -> None:
    found = [Classifier("MLP", batch=7, at_once=count).measured("dense") for count in (1, 2, 9)]
    for tasks, instances in found[1:]:
        np.testing.assert_allclose(tasks, found[0][0], rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(instances, found[0][1], rtol=1e-9, atol=1e-13)


def test_losses_and_hits_are_those_of_the_network() -> None:
    case = Classifier("MLP", batch=7)
    params = case.layout.unflatten(case.best, case.like)
    batching = Batching(2, torch.device("cpu"), torch.float64)
    adaptation = Unrolled(Objective(case.forward, Unadapted()), params, case.train, batching)
    found: Any = total_gradients(adaptation)
    np.testing.assert_allclose(found.losses, case.losses(case.best, case.train), rtol=1e-12)
    assert found.losses.shape == found.correct.shape == (24,)
    x = torch.from_numpy(case.train.pool.pixels)
    y = np.concatenate([task.query_y for task in case.train.tasks])
    outputs = vmap(lambda one: case.forward(params, one[None])[0])(x)
    np.testing.assert_array_equal(found.correct, outputs.argmax(-1).numpy() == y)
