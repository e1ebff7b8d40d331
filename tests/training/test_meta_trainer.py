"""The meta-trainer: its gradient, its step and schedule, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metaaudit.bilevel import Batching, FirstOrder, Objective, Unrolled
from metaaudit.config.learner import MamlConfig
from metaaudit.config.model import MlpConfig
from metaaudit.config.training import TrainingConfig
from metaaudit.errors import IncompleteError
from metaaudit.inputs.task_set import TaskSet
from metaaudit.learners import build_learner
from metaaudit.models import Model, Params, build_model
from metaaudit.training import MetaTrainer, TrainingState
from tests.small import WAYS, digits

LEARNER = {"inner_lr": 0.3, "steps": 2}
DELTA = 0.05


def model_of(dtype: torch.dtype = torch.float64, hidden: int = 4) -> Model:
    config = MlpConfig(name="mlp", hidden=[hidden], ways=WAYS)
    return build_model(config, input_shape=(1, 8, 8), ways=WAYS, seed=0).to(
        torch.device("cpu"), dtype
    )


def trainer_of(
    *,
    learner: str = "maml",
    task_batch: int = 10,
    dtype: torch.dtype = torch.float64,
    hidden: int = 4,
    **training: Any,
) -> tuple[MetaTrainer, TrainingState]:
    """A trainer on 8 tasks of digits and the state it starts from."""
    model = model_of(dtype, hidden)
    objective = Objective(
        model, build_learner(MamlConfig(name=learner, **LEARNER), model, (1, 8, 8))
    )
    config = TrainingConfig(**{"epochs": 1, "batch": 8, "lr": 0.01, **training})
    batching = Batching(task_batch, torch.device("cpu"), dtype)

    kind = FirstOrder if learner == "fomaml" else Unrolled

    def differentiate(params: Params, task_set: TaskSet) -> Unrolled:
        return kind(objective, params, task_set, batching)

    trainer = MetaTrainer(differentiate, digits()[0], config)
    return trainer, TrainingState.initial(model.initial())


def mean_gradient(trainer: MetaTrainer, params: Params) -> tuple[Params, float]:
    rows = list(range(len(trainer.task_set)))
    gradient, loss, _ = trainer._mean_gradient(params, rows)
    return gradient, loss


def tensors(trainer: MetaTrainer) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Support inputs and labels, query inputs and labels of each task."""
    pool = trainer.task_set.pool
    return [
        (
            torch.from_numpy(pool.values(task.support)).double(),
            torch.from_numpy(task.support_y),
            torch.from_numpy(pool.values(task.query)).double(),
            torch.from_numpy(task.query_y),
        )
        for task in trainer.task_set.tasks
    ]


def network(params: Params, x: Tensor) -> Tensor:
    """The model, written out: 64 inputs, ReLU, 3 outputs."""
    first_w, first_b, last_w, last_b = params.values()
    return torch.relu(x.flatten(1) @ first_w.T + first_b) @ last_w.T + last_b


def reference_loss(trainer: MetaTrainer, params: Params, *, second_order: bool) -> Tensor:
    """Mean query loss after two inner steps, by ``torch.autograd`` and a loop over tasks."""
    losses = []
    for support_x, support_y, query_x, query_y in tensors(trainer):
        theta = params
        for _ in range(LEARNER["steps"]):
            inner = torch.nn.functional.cross_entropy(network(theta, support_x), support_y)
            steps = torch.autograd.grad(inner, list(theta.values()), create_graph=second_order)
            theta = {
                name: p - LEARNER["inner_lr"] * step
                for (name, p), step in zip(theta.items(), steps, strict=True)
            }
        losses.append(torch.nn.functional.cross_entropy(network(theta, query_x), query_y))
    return torch.stack(losses).mean()


def reference_gradient(
    trainer: MetaTrainer, start: Params, *, second_order: bool
) -> tuple[Params, float]:
    params = {name: p.clone().requires_grad_() for name, p in start.items()}
    loss = reference_loss(trainer, params, second_order=second_order)
    gradient = torch.autograd.grad(loss, list(params.values()))
    return dict(zip(params, gradient, strict=True)), loss.item()


def assert_close(got: Params, expected: Params, tolerance: float = 1e-10) -> None:
    assert list(got) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            got[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def differ(a: Params, b: Params) -> float:
    """Largest difference relative to the largest value."""
    size = max(float(p.abs().max()) for p in b.values())
    return max(float((a[name] - b[name]).abs().max()) for name in b) / size


@pytest.mark.parametrize("learner", ["maml", "fomaml"])
def test_gradient_is_that_of_a_plain_loop(learner: str) -> None:
    trainer, state = trainer_of(learner=learner)
    gradient, loss = mean_gradient(trainer, state.params)
    expected, expected_loss = reference_gradient(
        trainer, state.params, second_order=learner == "maml"
    )
    assert_close(gradient, expected)
    assert math.isclose(loss, expected_loss, rel_tol=1e-12)


def test_first_and_second_order_differ_in_gradient_alone() -> None:
    second, state = trainer_of(learner="maml")
    first, _ = trainer_of(learner="fomaml")
    (with_term, loss), (without, same_loss) = (
        mean_gradient(trainer, state.params) for trainer in (second, first)
    )
    assert loss == same_loss
    assert differ(without, with_term) > 0.01


def test_gradient_of_maml_is_the_slope_of_the_loss() -> None:
    trainer, state = trainer_of()
    gradient, _ = mean_gradient(trainer, state.params)
    generator = torch.Generator().manual_seed(0)
    step = 1e-5
    for _ in range(3):
        direction = {
            name: torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for name, p in state.params.items()
        }

        def loss_at(scale: float, direction: Params = direction) -> float:
            moved = {name: p + scale * direction[name] for name, p in state.params.items()}
            return mean_gradient(trainer, moved)[1]

        slope = (loss_at(step) - loss_at(-step)) / (2 * step)
        expected = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
        # Central differences: an error of order step^2, and of 1e-16 / step by rounding.
        assert math.isclose(slope, expected, rel_tol=1e-6, abs_tol=1e-8)


@pytest.mark.parametrize("learner", ["maml", "fomaml"])
@pytest.mark.parametrize("task_batch", [1, 3])
def test_gradient_does_not_depend_on_the_task_batch(learner: str, task_batch: int) -> None:
    whole, state = trainer_of(learner=learner)
    parts, _ = trainer_of(learner=learner, task_batch=task_batch)
    expected, loss = mean_gradient(whole, state.params)
    gradient, same_loss = mean_gradient(parts, state.params)
    assert_close(gradient, expected)
    assert math.isclose(loss, same_loss, rel_tol=1e-12)


def adam(params: Params, gradients: list[Params], rates: list[float]) -> Params:
    """Adam as in Kingma and Ba (2015), algorithm 1, with ``delta * lambda`` in the gradient."""
    first, second, epsilon = 0.9, 0.999, 1e-8
    mean = {name: torch.zeros_like(p) for name, p in params.items()}
    square = {name: torch.zeros_like(p) for name, p in params.items()}
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        total = {name: gradient[name] + DELTA * p for name, p in params.items()}
        mean = {name: first * mean[name] + (1 - first) * g for name, g in total.items()}
        square = {name: second * square[name] + (1 - second) * g**2 for name, g in total.items()}
        params = {
            name: p
            - rate
            * (mean[name] / (1 - first**t))
            / ((square[name] / (1 - second**t)).sqrt() + epsilon)
            for name, p in params.items()
        }
    return params


def test_steps_are_adams_with_weight_decay_in_the_gradient() -> None:
    trainer, state = trainer_of(weight_decay=DELTA)
    gradients, rates = [], [0.01, 0.003, 0.02]
    start, now = state.params, state
    for rate in rates:
        gradients.append(mean_gradient(trainer, now.params)[0])
        now = now.step(gradients[-1], rate, DELTA)
    assert now.steps == 3
    assert_close(now.params, adam(start, gradients, rates))
    assert differ(state.params, start) == 0  # a state is never changed in place


def test_an_epoch_of_one_batch_is_one_step() -> None:
    trainer, state = trainer_of(weight_decay=DELTA)
    gradient, loss = mean_gradient(trainer, state.params)
    done = trainer.run(state, lambda _: None)
    assert_close(done.params, state.step(gradient, 0.01, DELTA).params)
    assert math.isclose(done.log[0].loss, loss, rel_tol=1e-12)


def test_cosine_begins_at_the_rate_and_ends_near_zero() -> None:
    trainer, state = trainer_of(epochs=4, batch=2, hidden=2)
    done = trainer.run(state, lambda _: None)
    # The rate of the last of four batches of each epoch.
    expected = [0.005 * (1 + math.cos(math.pi * (e + 0.75) / 4)) for e in range(4)]
    assert [epoch.lr for epoch in done.log] == pytest.approx(expected, rel=1e-12)
    assert trainer.config.rate(0, trainer.config.epochs) == 0.01
    assert trainer.config.rate(2, trainer.config.epochs) == pytest.approx(0.005)
    assert trainer.config.rate(4, trainer.config.epochs) == pytest.approx(0, abs=1e-15)


def test_constant_schedule() -> None:
    trainer, state = trainer_of(epochs=2, schedule="constant", hidden=2)
    assert [epoch.lr for epoch in trainer.run(state, lambda _: None).log] == [0.01, 0.01]


@pytest.mark.parametrize("learner", ["maml", "fomaml"])
def test_training_lowers_the_loss_and_beats_chance(learner: str) -> None:
    told: list[int] = []
    trainer, state = trainer_of(
        learner=learner, dtype=torch.float32, hidden=16, epochs=25, batch=4, lr=0.02
    )
    done = trainer.run(state, lambda _: None, lambda tasks, *_: told.append(tasks))
    assert sum(told) == 25 * 8
    assert [epoch.epoch for epoch in done.log] == list(range(1, 26))
    assert done.log[-1].loss < 0.6 * done.log[0].loss
    assert done.log[-1].accuracy > 0.7 > 2 / WAYS


def test_log_holds_means_over_tasks_even_of_unequal_batches() -> None:
    trainer, state = trainer_of(batch=5, lr=1e-12)  # too small a step to change the loss
    log = trainer.run(state, lambda _: None).log
    assert math.isclose(log[0].loss, mean_gradient(trainer, state.params)[1], rel_tol=1e-8)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    trainer, state = trainer_of(epochs=3, batch=3)
    saved: list[TrainingState] = []
    whole = trainer.run(state, saved.append)
    resumed = trainer.run(saved[0], lambda _: None)
    for name, p in whole.params.items():
        assert torch.equal(resumed.params[name], p)
    other = replace(trainer, config=trainer.config.model_copy(update={"seed": 1}))
    assert differ(other.run(state, lambda _: None).params, whole.params) > 1e-6


def test_finished_epochs_are_saved_before_an_interrupt() -> None:
    trainer, state = trainer_of(epochs=5, batch=4)
    saved: list[int] = []

    def interrupt(tasks: int, loss: float, accuracy: float) -> None:
        if saved == [1, 2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(state, lambda s: saved.append(s.epoch), interrupt)
    assert saved == [1, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops(bad: float) -> None:
    trainer, state = trainer_of(epochs=2)
    params = {name: torch.full_like(p, bad) for name, p in state.params.items()}
    saved: list[int] = []
    with pytest.raises(IncompleteError, match=r"the loss of epoch 1 is nan; expected finite"):
        trainer.run(replace(state, params=params), lambda s: saved.append(s.epoch))
    assert saved == []


def test_trained_to_the_end_does_nothing() -> None:
    trainer, state = trainer_of()
    done = trainer.run(state, lambda _: None)
    assert trainer.run(done, lambda _: pytest.fail("trained again")) is done
