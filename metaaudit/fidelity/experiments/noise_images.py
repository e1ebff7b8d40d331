"""Whether tasks of noise images rank below regular ones (TLXML, 2501.14271).

The images of some training tasks become uniform noise, so that these tasks teach nothing. TLXML
found them in their proper place with weight decay, and the order reversed where training had
overfitted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, mannwhitneyu

from metaaudit.config.evaluate import CandidateConfig, NoiseImagesConfig
from metaaudit.curvature import weights_hash
from metaaudit.errors import ConfigError
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.retraining import Retrained, Retraining
from metaaudit.fidelity.workbench import Workbench
from metaaudit.inputs.task_set import ImagePool, Ints, TaskSet
from metaaudit.loading import Weights
from metaaudit.methods import METHODS
from metaaudit.models import Params
from metaaudit.problem import Problem

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
SIGN = (
    "Positive influence is harmful: the order is proper where tasks of noise have the higher "
    "influence, which is an AUC above 0.5."
)
DEPENDENT = (
    "The binomial test takes the evaluation tasks as independent, as TLXML does; they share the "
    "training tasks and the checkpoint, so that its p-values are too small."
)
COLUMNS = (
    "epochs",
    "weight decay",
    "loss, regular tasks",
    "loss, noise tasks",
    "loss, evaluation tasks",
    "accuracy, evaluation tasks",
    "mean AUC",
    "share in proper order",
    "share reversed",
    "order",
    "binomial p",
    "proper at p < 0.05",
    "reversed at p < 0.05",
)


@dataclass(frozen=True)
class Order:
    """How tasks of noise rank beside regular ones, by evaluation task.

    Attributes:
        auc: ``[n_targets]`` probability that a task of noise has the higher influence.
        p: ``[n_targets]`` two-sided, by Mann and Whitney's test.
    """

    auc: Floats
    p: Floats

    @classmethod
    def of(cls, influence: Floats, noise: Ints) -> Order:
        """Compares the rows of an influence ``[n_tasks, n_targets]`` with all others."""
        regular = np.setdiff1d(np.arange(len(influence)), noise)
        found = mannwhitneyu(influence[noise], influence[regular], axis=0)
        return cls(found.statistic / (len(noise) * len(regular)), found.pvalue)

    @property
    def counts(self) -> tuple[int, int]:
        """Evaluation tasks with the proper order, and those with the reverse."""
        return int((self.auc > 0.5).sum()), int((self.auc < 0.5).sum())

    @property
    def binomial_p(self) -> float | None:
        """Two-sided, of as uneven counts if either order were as likely."""
        proper, reverse = self.counts
        return float(binomtest(proper, proper + reverse).pvalue) if proper + reverse else None

    @property
    def values(self) -> tuple[Value, ...]:
        """The last columns of the table."""
        n_targets = len(self.auc)
        proper, reverse = self.counts
        p = self.binomial_p
        clear = p is not None and p < LEVEL
        order = ("proper" if proper > reverse else "reversed") if clear else "neither"
        return (
            float(self.auc.mean()),
            proper / n_targets,
            reverse / n_targets,
            order,
            p,
            float(((self.auc > 0.5) & (self.p < LEVEL)).mean()),
            float(((self.auc < 0.5) & (self.p < LEVEL)).mean()),
        )


def check(problem: Problem, config: NoiseImagesConfig) -> None:
    """Refuses a share that leaves nothing to compare.

    Raises:
        ConfigError: It comes to no task or to all of them.
    """
    _count(len(problem.train), config.share)


def run(bench: Workbench, config: NoiseImagesConfig) -> Result:
    """Trains with tasks of noise, short and long, without and with weight decay, and scores."""
    noisy, rows = with_noise(bench.problem.train, config.share, config.seed)
    lines: list[tuple[Value, ...]] = []
    auc: dict[str, dict[str, float]] = {}
    missing = []
    for decay in config.weight_decay:
        changed = _with(bench, noisy, decay)
        seed = bench.config.training.seed
        asked = [Retraining(noisy, seed, epochs=epochs) for epochs in config.epochs]
        for epochs, trained in zip(config.epochs, changed.retrain(asked), strict=True):
            name = f"{epochs} epochs, weight decay {decay:g}"
            if trained is None:
                missing.append(name)
                continue
            order, losses = _scored(changed, trained, name, rows)
            done = trained.performance
            evaluated = (float(done.losses.mean()), float(done.accuracies.mean()))
            lines.append((epochs, decay, *losses, *evaluated, *order.values))
            ids = bench.problem.evaluation.task_ids
            auc[name] = dict(zip(ids, order.auc.tolist(), strict=True))
    table = Table(
        "noise-images",
        f"Influence of {len(rows)} training tasks of noise images beside "
        f"{len(noisy) - len(rows)} regular ones",
        COLUMNS,
        lines,
    )
    figure = _figure(table)
    left = [f"Not trained within the time: {'; '.join(missing)}."] if missing else []
    return Result(
        config.kind,
        "Do tasks of noise images rank as less helpful than regular ones?",
        (table,),
        (figure,) if figure.series else (),
        (SIGN, DEPENDENT, *left),
        complete=not missing,
        details={"noise_tasks": [noisy.tasks[row].task_id for row in rows], "auc": auc},
    )


def with_noise(task_set: TaskSet, share: float, seed: int) -> tuple[TaskSet, Ints]:
    """Tasks some of which have uniform noise in place of their images, and labels as before.

    Args:
        task_set: The tasks.
        share: Of the tasks, chosen at random.
        seed: Of the choice and the noise.

    Returns:
        The tasks, and the rows of those of noise, ascending.

    Raises:
        ConfigError: The share comes to no task or to all of them.
    """
    count = _count(len(task_set), share)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(task_set))[:count])
    pool, tasks = task_set.pool, list(task_set.tasks)
    start, ids = len(pool.ids), list(pool.ids)
    for row in rows.tolist():
        task = tasks[row]
        n, m = task.shape
        places = np.arange(start, start + n + m, dtype=np.int64)
        tasks[row] = replace(task, support=places[:n], query=places[n:])
        ids += [f"noise/{task.task_id}/{i}" for i in range(n + m)]
        start += n + m
    noise = _noise(pool, start - len(pool.ids), rng)
    pixels = np.concatenate([pool.pixels, noise])
    return TaskSet(replace(pool, pixels=pixels, ids=tuple(ids)), tuple(tasks)), rows


def _count(n_tasks: int, share: float) -> int:
    count = round(share * n_tasks)
    if not 0 < count < n_tasks:
        raise ConfigError(
            "evaluate.experiments.noise-images.share",
            f"{share:g} of {n_tasks} tasks are {count}",
            "some tasks of noise and some regular ones",
        )
    return count


def _noise(pool: ImagePool, count: int, rng: np.random.Generator) -> npt.NDArray[np.generic]:
    """Uniform over all values of a byte, or over the range of the pool."""
    shape = (count, *pool.input_shape)
    if pool.pixels.dtype == np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    low, high = float(pool.pixels.min()), float(pool.pixels.max())
    return rng.uniform(low, high, shape).astype(pool.pixels.dtype)


def _with(bench: Workbench, noisy: TaskSet, decay: float) -> Workbench:
    """The workbench with tasks of noise and another outer L2 weight."""
    training = bench.config.training.model_copy(update={"weight_decay": decay})
    config = bench.config.model_copy(update={"training": training})
    problem = replace(bench.problem, config=config, train=noisy)
    return replace(bench, problem=problem, retrainer=replace(bench.retrainer, problem=problem))


def _scored(
    bench: Workbench, trained: Retrained, name: str, noise: Ints
) -> tuple[Order, tuple[float, float]]:
    """The order at trained meta-parameters, and mean losses of regular tasks and of noise."""
    candidate = CandidateConfig(name=name, influence={"method": "task-if", "targets": "each"})
    bench = replace(bench, weights=(_weights(bench, trained.params, name),))
    (given,) = bench.given(candidate)
    scores, loss = METHODS["task-if"](given), given.gradients.outer_loss
    of_noise = np.isin(np.arange(len(loss)), noise)
    losses = (float(loss[~of_noise].mean()), float(loss[of_noise].mean()))
    return Order.of(scores.task_influence, noise), losses


def _weights(bench: Workbench, params: Params, name: str) -> Weights:
    placed = {key: p.to(bench.problem.template[key]) for key, p in params.items()}
    return Weights(Path(name), placed, weights_hash(placed), (), {}, ())


def _figure(table: Table) -> Figure:
    """Bars by length of training, one colour a weight decay."""
    place = COLUMNS.index("share in proper order")
    lengths = list(dict.fromkeys(row[0] for row in table.rows))
    series = []
    for decay in dict.fromkeys(row[1] for row in table.rows):
        shares = {row[0]: row[place] for row in table.rows if row[1] == decay}
        if len(shares) == len(lengths):
            y = tuple(float(shares[length] or 0.0) for length in lengths)
            series.append(Series(f"weight decay {decay:g}", tuple(map(str, lengths)), y))
    return Figure(
        "noise-images",
        "Evaluation tasks for which noise ranks below regular tasks",
        "epochs",
        "share in proper order",
        tuple(series),
        {"chance": 0.5},
    )
