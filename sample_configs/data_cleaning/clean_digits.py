"""Data cleaning as a bilevel problem: the framework is not only for MAML.

A softmax regression is fitted to digits a third of which have a wrong label. Its meta-parameters
are one weight for every training instance and the strength of its regularisation; they are trained
so that the fit does well on a small set with better labels (hyper-cleaning, Franceschi et al.,
2018). That small set has a few wrong labels too. Their influence on unseen digits, through all the
weights that they set, finds them; so does their loss, which costs nothing more.

Inner problem, outer loss, total gradients, total Hessian and influences are those of few-shot
learning, with one task whose support is the training set and whose query is the small set. Only the
learner is this file's own.

    python sample_configs/data_cleaning/clean_digits.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.func import grad

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
from metaaudit.config.training import TrainingConfig
from metaaudit.influence import instance_influence
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.learners import Forward, InstanceLoss, Learner, Support
from metaaudit.models import Model, Params
from metaaudit.training import MetaTrainer, TrainingState

N_TRAINING, N_TRUSTED, CLASSES = 300, 100, 10
NOISE, TRUSTED_NOISE = 1 / 3, 0.1
DELTA = 1e-3
"""Outer L2 weight: it pulls the instances' weights to one half and makes the minimum unique."""


@dataclass(frozen=True)
class Cleaning(Learner):
    """Fits a regularised classifier to weighted instances, from zero, by gradient descent.

    Attributes:
        n: Number of training instances.
        rate: Step size.
        steps: Number of steps.
    """

    n: int
    rate: float = 1.0
    steps: int = 60

    def meta_parameters(self, initial: Params) -> Params:
        """A logit for every instance's weight, and the logarithm of the L2 weight."""
        like = next(iter(initial.values()))
        return {"logits": like.new_zeros(self.n), "log_l2": like.new_tensor(math.log(1e-2))}

    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``."""
        kept = support.weights * params["logits"].sigmoid()

        def inner(theta: Params) -> Tensor:
            data = (kept * loss(forward(theta, support.inputs), support.labels)).mean()
            size = torch.stack([p.square().sum() for p in theta.values()]).sum()
            return data + 0.5 * params["log_l2"].exp() * size

        inputs = support.inputs.flatten(1)
        theta = {
            "1.weight": inputs.new_zeros(CLASSES, inputs.shape[1]),
            "1.bias": inputs.new_zeros(CLASSES),
        }
        for _ in range(self.steps):
            slope = grad(inner)(theta)
            theta = {name: p - self.rate * slope[name] for name, p in theta.items()}
        return theta


def problem(seed: int = 0) -> tuple[TaskSet, TaskSet, np.ndarray, np.ndarray]:
    """Tasks to train and to evaluate on, and which labels of the first are wrong.

    Returns:
        A task whose query is the small set, one whose query is unseen, and whether each label of
        the training set and of the small set is wrong.
    """
    digits = load_digits()
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(digits.target))
    training, trusted = rows[:N_TRAINING], rows[N_TRAINING : N_TRAINING + N_TRUSTED]
    unseen = rows[N_TRAINING + N_TRUSTED :]
    targets = digits.target.astype(np.int64)
    noise = np.zeros(len(rows))
    noise[training], noise[trusted] = NOISE, TRUSTED_NOISE
    wrong = rng.random(len(rows)) < noise
    shift = rng.integers(1, CLASSES, len(rows))
    labels = np.where(wrong, (targets + shift) % CLASSES, targets)
    pixels = (digits.images[:, None] / 16).astype(np.float32)
    pool = ImagePool(pixels, tuple(f"digit-{row}" for row in range(len(pixels))))

    def task(name: str, query: np.ndarray) -> TaskSet:
        return TaskSet(pool, (Task(name, training, labels[training], query, labels[query]),))

    return task("trusted", trusted), task("unseen", unseen), wrong[training], wrong[trusted]


def objective_of(train: TaskSet) -> Objective:
    """The objective: a linear classifier, and the learner that fits it."""
    n_inputs = math.prod(train.pool.input_shape)
    model = Model(nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, CLASSES)).double(), "")
    return Objective(model, Cleaning(N_TRAINING))


def clean(train: TaskSet, epochs: int = 150) -> tuple[Objective, Params, Params]:
    """Meta-trains the weights of the instances and the regularisation.

    Returns:
        The objective, the meta-parameters at the start, and the trained ones.
    """
    objective = objective_of(train)
    start = objective.learner.meta_parameters(objective.forward.initial())
    trainer = MetaTrainer(
        lambda params, tasks: adaptation(objective, params, tasks),
        train,
        TrainingConfig(epochs=epochs, batch=1, lr=0.1, weight_decay=DELTA),
    )
    return objective, start, trainer.run(TrainingState.initial(start), lambda _: None).params


def adaptation(objective: Objective, params: Params, tasks: TaskSet) -> Unrolled:
    """The fit, differentiated through its steps."""
    return Unrolled(objective, params, tasks, Batching(1, torch.device("cpu"), torch.float64))


def trusted_influence(
    objective: Objective, params: Params, train: TaskSet, unseen: TaskSet
) -> np.ndarray:
    """Influence of every trusted instance on the loss on unseen digits, positive = harmful."""
    fitted = adaptation(objective, params, train)
    gradients, target = (
        torch.from_numpy(total_gradients(adaptation(objective, params, tasks)).gradients)
        for tasks in (train, unseen)
    )
    config = InfluenceConfig(curvature="ggn", damping=1e-3, max_iterations=300)
    solver = AdjointSolver(config, TotalHessian(fitted, "ggn"), gradients, DELTA)
    derivatives = weight_derivatives(fitted, solver.solve(target).mean_direction)
    return instance_influence(derivatives, len(fitted.task_set))[N_TRAINING:]


def main() -> None:
    """Cleans, and says what that found."""
    torch.set_num_threads(1)
    train, unseen, wrong, wrong_trusted = problem()
    objective, start, params = clean(train)
    for name, at in (("all data", start), ("cleaned", params)):
        found = total_gradients(adaptation(objective, at, unseen))
        accuracy = found.correct[N_TRAINING:].mean()
        print(f"{name}: accuracy on unseen digits {accuracy:.3f}, loss {found.outer_loss[0]:.3f}")
    weights = params["logits"].sigmoid().numpy()
    print(f"wrong training labels, by weight: AUROC {roc_auc_score(wrong, -weights):.3f}")
    print(f"L2 weight: {float(start['log_l2'].exp()):.2g} -> {float(params['log_l2'].exp()):.2g}")
    influence = trusted_influence(objective, params, train, unseen)
    losses = total_gradients(adaptation(objective, params, train)).losses[N_TRAINING:]
    for by, score in (("influence", influence), ("their loss", losses)):
        print(f"wrong trusted labels, by {by}: AUROC {roc_auc_score(wrong_trusted, score):.3f}")


if __name__ == "__main__":
    main()
