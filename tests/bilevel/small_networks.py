"""Tiny smooth networks and random tasks in float64, and dense references to compare with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.func import hessian

from metaaudit.bilevel import (
    Batching,
    InnerMethod,
    InnerProblem,
    TotalHessian,
    Unrolled,
    total_gradients,
    unit_weights,
    weight_derivatives,
)
from metaaudit.config.influence import InfluenceConfig
from metaaudit.curvature import Network
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.models import Layout, Model

N_TASKS, N, M, WAYS, FEATURES, HIDDEN = 6, 4, 6, 2, 3, 4
FORMS = ("exact", "ggn", "gamma", "instance-fisher")
INVERSES = {
    "dense": {"inverse": "dense"},
    "cg": {"inverse": "cg"},
    "ggn": {"inverse": "ggn"},
    "ekfac": {"inverse": "ekfac", "basis": "task"},
    "ekfac shared": {"inverse": "ekfac", "basis": "shared"},
}


def gaussian(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# Tasks.


def random_tasks(shape=(FEATURES,), n=N, m=M, n_tasks=N_TASKS, ways=WAYS, seed=0):
    rng = np.random.default_rng(seed)
    count = n + m
    x = rng.standard_normal((n_tasks * count, *shape)).astype(np.float32)
    found = []
    for k in range(n_tasks):
        rows = np.arange(k * count, (k + 1) * count)
        labels = rng.permutation(np.arange(count) % ways)
        labels[:ways] = np.arange(ways)
        found.append(Task(f"t{k}", rows[:n], labels[:n], rows[n:], labels[n:]))
    return TaskSet(ImagePool(x, tuple(str(i) for i in range(len(x)))), tuple(found))


def ragged_tasks():
    """Two shapes of tasks, alternating."""
    large, small = random_tasks(n=6, m=3, n_tasks=2, seed=1), random_tasks(n_tasks=2, seed=2)
    pixels = np.concatenate([large.pool.pixels, small.pool.pixels])
    pool = ImagePool(pixels, tuple(str(i) for i in range(len(pixels))))
    offset = len(large.pool.pixels)
    moved = [
        Task(f"s{k}", t.support + offset, t.support_y, t.query + offset, t.query_y)
        for k, t in enumerate(small.tasks)
    ]
    return TaskSet(pool, (large.tasks[0], moved[0], large.tasks[1], moved[1]))


def batching(size=N_TASKS, dtype=torch.float64):
    return Batching(size, torch.device("cpu"), dtype)


def task_tensors(task_set, k):
    """Task ``k`` alone, without a leading dimension."""
    (batch,) = batching(1).batches(task_set.select([k]))
    return type(batch.data)(*(tensor[0] for tensor in batch.data))


# Networks.


def small_mlp(seed=0, outputs=WAYS):
    """Smooth, so that finite differences meet no kink."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs)
    return Model(nn.Sequential(*layers).double(), "")


def layers_of(model, task_set):
    like = next(model.module.parameters())
    return Network.of(model.module, torch.zeros(2, *task_set.pool.input_shape).to(like))


def implicit(objective, params, task_set, inverse="dense", *, rho, batches=None, **settings):
    """The implicit derivative by one of ``INVERSES``, its solves as exact as float64 allows."""
    chosen = {"tolerance": 1e-13, "max_iterations": 200, **settings}
    config = InfluenceConfig(derivative="implicit", inner=INVERSES[inverse], **chosen)
    network = layers_of(objective.forward, task_set) if inverse.startswith("ekfac") else None
    problem = InnerProblem(objective, params, task_set, batches or batching(), rho)
    return InnerMethod(config, network).implicit(problem)


# Comparisons.


def derivatives(adaptation, forms=("exact",)):
    """What is asked of an adaptation, by name."""
    vector = gaussian(1, adaptation.layout.size)
    by_weight = weight_derivatives(adaptation, vector[0])
    support = np.array([part == "support" for _, part, _ in adaptation.task_set.instances()])
    return {
        "gradients": total_gradients(adaptation).gradients,
        **{form: TotalHessian.of(adaptation, form)(vector) for form in forms},
        "support weights": by_weight[support],
        "query weights": by_weight[~support],
    }


def relative_errors(found, expected):
    """Norm of the difference over that of what was expected, by name."""
    assert found.keys() == expected.keys()
    pairs = {
        name: (torch.as_tensor(found[name]), torch.as_tensor(expected[name])) for name in found
    }
    return {
        name: float((got - right).norm() / right.norm()) for name, (got, right) in pairs.items()
    }


def assert_close(found, expected, tolerance):
    errors = relative_errors(found, expected)
    assert max(errors.values()) <= tolerance, errors


# Dense references.


def flat_task_loss(objective, params, task_set, k):
    """L_k of the flat parameters and the instance weights."""
    layout, data = Layout.of(params), task_tensors(task_set, k)

    def loss(vector, w, v):
        return objective.task_loss(layout.unflatten(vector, params), w, v, data)

    return loss, layout.flatten(params), unit_weights(data)


def dense_total_hessian(objective, params, task_set):
    total = 0
    for k in range(len(task_set)):
        loss, point, (w, v) = flat_task_loss(objective, params, task_set, k)
        total = total + hessian(lambda x, loss=loss, w=w, v=v: loss(x, w, v))(point)
    return total / len(task_set)


def unrolled_gradients(objective, params, task_set):
    found = total_gradients(Unrolled(objective, params, task_set, batching()))
    return torch.from_numpy(found.gradients)


# EK-FAC of ``small_mlp`` by hand. A layer's weight and bias are one matrix [outputs, inputs + 1];
# matrices and gradients here have the layers end to end, each row by row.


def layer_pass(theta, x, labels=None):
    """For each layer what enters ``[n, inputs + 1]`` and gradients ``[n, terms, outputs]``.

    The terms are those of the true Fisher matrix; with ``labels``, of the empirical one.
    """
    one = torch.ones(len(x), 1, dtype=x.dtype)
    hidden = torch.tanh(x @ theta["0.weight"].T + theta["0.bias"])
    p = (hidden @ theta["2.weight"].T + theta["2.bias"]).softmax(-1)
    classes = torch.eye(WAYS, dtype=x.dtype)
    if labels is None:
        leaving = p.sqrt()[:, :, None] * (p[:, None, :] - classes)
    else:
        leaving = (p - classes[labels])[:, None, :]
    earlier = (leaving @ theta["2.weight"]) * (1 - hidden**2)[:, None, :]
    return [(torch.cat([x, one], 1), earlier), (torch.cat([hidden, one], 1), leaving)]


def kronecker_basis(passes):
    """The Kronecker eigenbasis of several passes pooled, one column an eigenvector."""
    blocks = []
    for layer in zip(*passes, strict=True):
        a = torch.cat([a for a, _ in layer])
        g = torch.cat([g.flatten(0, 1) for _, g in layer])
        bases = [torch.linalg.eigh(rows.T @ rows).eigenvectors for rows in (g, a)]
        blocks.append(torch.kron(*bases))
    return torch.block_diag(*blocks)


def fisher_gradients(one_pass):
    """``[n, terms, n_params]``: gradients whose outer products make up the Fisher matrix."""
    parts = [torch.einsum("nto,ni->ntoi", g, a).flatten(-2) for a, g in one_pass]
    return torch.cat(parts, dim=-1)


def by_layer(params):
    """The positions in the flat parameters of the entries of the layers' matrices."""
    layout = Layout.of(params)
    place = layout.split(torch.arange(layout.size))
    matrices = [
        torch.cat([place[f"{path}.weight"], place[f"{path}.bias"][:, None]], dim=1)
        for path in ("0", "2")
    ]
    return torch.cat([matrix.flatten() for matrix in matrices])
