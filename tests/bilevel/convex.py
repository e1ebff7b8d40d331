"""A strictly convex bilevel problem whose every solution has a closed form.

Inner: ridge regression pulled towards lambda; outer: square loss and an L2 weight. Both are
quadratic, so adaptation, the minimum of F and retraining after any change of weights are exact.
Nothing here uses the package's derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from metaaudit.bilevel import Batching, Objective
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet

RHO, DELTA = 0.3, 0.05


@dataclass(frozen=True)
class ProximalRidge:
    """argmin (1/n) sum_i w_i (x_i theta - y_i)^2 / 2 + (rho/2) ||theta - lambda||^2."""

    rho: float = RHO

    def adapt(self, forward, loss, params, support):
        x, y, weights = support
        scaled = x * weights[:, None] / len(x)
        matrix = x.T @ scaled + self.rho * torch.eye(x.shape[1], dtype=x.dtype)
        right = scaled.T @ y.to(x.dtype) + self.rho * params["theta"]
        return {"theta": torch.linalg.solve(matrix, right)}


def forward(params, x):
    return (x @ params["theta"])[:, None]


def square_loss(outputs, labels):
    return 0.5 * (outputs[:, 0] - labels) ** 2


OBJECTIVE = Objective(forward, ProximalRidge(), square_loss)


def batching(size=7):
    return Batching(size, torch.device("cpu"), torch.float64)


def tasks(n_tasks, n, m, size=5, seed=0, prefix="task"):
    """Tasks of one linear family; labels are 0, 1 or 2, so that they are class labels as well."""
    rng = np.random.default_rng([seed, n_tasks, n, m])
    count = n + m
    # The package's pools hold float32; these values are exact in it, so float64 sees the same.
    x = rng.standard_normal((n_tasks * count, size)).astype(np.float32)
    common = rng.standard_normal(size)
    found = []
    for k in range(n_tasks):
        rows = np.arange(k * count, (k + 1) * count)
        slope = common + 0.5 * rng.standard_normal(size)
        y = np.clip(np.round(x[rows] @ slope + 1 + 0.3 * rng.standard_normal(count)), 0, 2)
        y = y.astype(np.int64)
        found.append(Task(f"{prefix}-{k}", rows[:n], y[:n], rows[n:], y[n:]))
    return TaskSet(ImagePool(x, tuple(f"{prefix}/{i}" for i in range(len(x)))), tuple(found))


class ClosedForm:
    """F, its minimum and M in numpy, for any weights of tasks, support and query instances."""

    def __init__(self, train, evaluation, rho=RHO, delta=DELTA):
        self.rho, self.delta = rho, delta
        self.train = [self._arrays(train, task) for task in train.tasks]
        self.evaluation = [self._arrays(evaluation, task) for task in evaluation.tasks]
        self.size = train.pool.input_shape[0]

    @staticmethod
    def _arrays(task_set, task):
        x = task_set.pool.pixels.astype(np.float64)
        return x[task.support], task.support_y, x[task.query], task.query_y

    def adaptation(self, task, w=None):
        """theta(lambda) = slope @ lambda + shift."""
        x, y, _, _ = task
        w = np.ones(len(x)) if w is None else w
        matrix = x.T @ (x * w[:, None]) / len(x) + self.rho * np.eye(self.size)
        inverse = np.linalg.inv(matrix)
        return self.rho * inverse, inverse @ (x.T @ (w * y)) / len(x)

    def terms(self, k, w=None, v=None):
        """Hessian and gradient at 0 of L_k as a quadratic in lambda."""
        slope, shift = self.adaptation(self.train[k], w)
        _, _, x, y = self.train[k]
        v = np.ones(len(x)) if v is None else v
        z, left = x @ slope, x @ shift - y
        return z.T @ (z * v[:, None]) / len(x), z.T @ (v * left) / len(x)

    def minimum(self, changed=None):
        """The minimum of F; ``changed = {k: (a, w, v)}`` replaces the weights of some tasks."""
        hessian, gradient = self.delta * np.eye(self.size), np.zeros(self.size)
        for k in range(len(self.train)):
            a, w, v = (changed or {}).get(k, (1.0, None, None))
            h, g = self.terms(k, w, v) if k in (changed or {}) else self._cached(k)
            hessian, gradient = (
                hessian + a * h / len(self.train),
                gradient + a * g / len(self.train),
            )
        assert np.linalg.eigvalsh(hessian)[0] > 0
        return np.linalg.solve(hessian, -gradient)

    def _cached(self, k):
        if not hasattr(self, "_terms"):
            self._terms = [self.terms(j) for j in range(len(self.train))]
        return self._terms[k]

    def evaluation_loss(self, params):
        losses = []
        for task in self.evaluation:
            slope, shift = self.adaptation(task)
            losses.append(0.5 * np.mean((task[2] @ (slope @ params + shift) - task[3]) ** 2))
        return float(np.mean(losses))
