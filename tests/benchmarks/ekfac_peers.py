"""EK-FAC influence on scikit-learn's digits, next to kronfluence and curvlinops.

Trains two small models, gives every library the same weights, and times three calls of each: fit
the factors, all train x test scores, self-influence. Prints one JSON object on stdout and Markdown
tables on stderr. Best in a virtual environment of its own, with torch named in both commands so
that no dependency of a peer replaces it::

    pip install torch==2.13.0
    pip install torch==2.13.0 kronfluence==1.0.1 curvlinops-for-pytorch==3.0.1 scikit-learn scipy
    pip install -e .
    python tests/benchmarks/ekfac_peers.py

A library that is not installed is left out, with a line on stderr. What is measured, and how:

- One thread, float32, 1,437 training and 360 test images. A warm-up of every library, then
  ``--repeats`` rounds through all of them in turn; the seconds are the best of the rounds. Imports
  and training are not counted. Every library has the batch size that suits it best. ``--clock cpu``
  counts processor seconds, for a machine that does other work too.
- All use the same damping: to the eigenvalues of a layer, a tenth of their mean is added.
- ``empirical`` takes the given labels and leaves nothing to chance, so that scores can be compared
  value by value. ``true`` is the exact expectation over the predicted classes (curvlinops:
  type-2); kronfluence has only one drawn label an image instead, called ``sampled`` here.
- kronfluence calls ``gc.collect()`` at every step, which takes longer the more objects a process
  holds. It is timed as it is and, as ``frozen``, after ``gc.freeze()``, which makes that call
  cheap. ``--libraries kronfluence`` gives its times in a process without the other libraries.
  Reading back the scores that it writes to disk is counted, since it returns none.
- curvlinops has the operators and no influence: its gradients are by ``vmap`` of ``grad`` and its
  inverse is applied to many columns at once. Its operator takes one damping for all layers; so
  each layer's own is added to the eigenvalues in the operator's state. Its total counts the
  training gradients once, as a user would keep them. Its eigenvectors are float32, those of the
  others float64, and that is its difference from them: see ``--dtype float64``.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import importlib.metadata
import json
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

Data = tuple[Tensor, Tensor]
Clock = Callable[[], float]

STAGES = ("fit", "scores", "self_influence")
OURS, KRONFLUENCE, CURVLINOPS = "metaaudit", "kronfluence", "curvlinops"
PACKAGES = {OURS: "metaaudit", KRONFLUENCE: "kronfluence", CURVLINOPS: "curvlinops-for-pytorch"}
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
DAMPING = 0.1
OURS_BATCH = 256
KRONFLUENCE_BATCH = 128
CURVLINOPS_COLUMNS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--libraries", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning, module="kronfluence")
    result = {
        "repeats": args.repeats,
        "threads": torch.get_num_threads(),
        "clock": args.clock,
        "dtype": args.dtype,
        "versions": {"torch": torch.__version__},
        "batch": {
            OURS: OURS_BATCH,
            KRONFLUENCE: KRONFLUENCE_BATCH,
            CURVLINOPS: f"all; inverse of {CURVLINOPS_COLUMNS} columns for self-influence",
        },
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            problem = train(name, args.seed).to(getattr(torch, args.dtype))
            entries = [
                entry
                for library in args.libraries
                for entry in entries_of(library, problem, Path(folder) / name)
            ]
            measure(entries, args.repeats, CLOCKS[args.clock])
            result["models"][name] = summary(problem, entries)
    installed = {entry.library for entry in entries}
    result["versions"] |= {name: version(PACKAGES[name]) for name in PACKAGES if name in installed}
    print(json.dumps(result, indent=2))
    print(tables(result), file=sys.stderr)


def version(package: str) -> str:
    return importlib.metadata.version(package)


# The problem


@dataclass
class Problem:
    name: str
    model: nn.Module
    train: Data
    test: Data
    accuracy: float

    def to(self, dtype: torch.dtype) -> Problem:
        """The same trained weights and images in another precision."""
        model = copy.deepcopy(self.model).to(dtype)
        (x, y), (x_test, y_test) = self.train, self.test
        return Problem(
            self.name, model, (x.to(dtype), y), (x_test.to(dtype), y_test), self.accuracy
        )


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "conv": conv}


def train(name: str, seed: int, epochs: int = 40) -> Problem:
    pixels, labels = load_digits(return_X_y=True)
    split = train_test_split(
        (pixels / 16).astype(np.float32), labels, test_size=360, random_state=0, stratify=labels
    )
    x, x_test, y, y_test = (torch.as_tensor(part) for part in split)
    torch.manual_seed(seed)
    model = MODELS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = float((model(x_test).argmax(1) == y_test).float().mean())
    if accuracy <= 0.95:
        raise SystemExit(f"{name}: test accuracy {accuracy:.3f}, expected more than 0.95")
    return Problem(name, model, (x, y), (x_test, y_test), accuracy)


# The libraries


class Ours:
    def __init__(self, problem: Problem, fisher: str) -> None:
        from metaaudit.curvature import EKFAC

        self.ekfac_class, self.fisher = EKFAC, fisher
        self.model = copy.deepcopy(problem.model)
        self.train, self.test = batches(problem.train), batches(problem.test)

    def fit(self) -> None:
        self.ekfac = self.ekfac_class.fit(self.model, cross_entropy, self.train, fisher=self.fisher)

    def scores(self) -> Tensor:
        return self.ekfac.scores(self.train, self.test, damping="heuristic")

    def self_influence(self) -> Tensor:
        return self.ekfac.self_influence(self.train, damping="heuristic")


def batches(data: Data) -> list[Data]:
    return list(zip(*(part.split(OURS_BATCH) for part in data), strict=True))


class Kronfluence:
    def __init__(self, problem: Problem, fisher: str, folder: Path) -> None:
        from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model

        class Classification(Task):
            def compute_train_loss(self, batch, model, sample=False):
                inputs, labels = batch
                logits = model(inputs)
                if sample:
                    with torch.no_grad():
                        labels = torch.multinomial(logits.softmax(-1), 1).flatten()
                return cross_entropy(logits, labels, reduction="sum")

            def compute_measurement(self, batch, model):
                return self.compute_train_loss(batch, model)

        task = Classification()
        self.analyzer = Analyzer(
            analysis_name=fisher,
            model=prepare_model(copy.deepcopy(problem.model), task),
            task=task,
            cpu=True,
            disable_tqdm=True,
            output_dir=str(folder),
        )
        self.factor_args = FactorArguments(
            "ekfac",
            use_empirical_fisher=fisher == "empirical",
            **precision(FactorArguments, problem),
        )
        # No factor is its heuristic, DAMPING x the mean.
        self.score_args = ScoreArguments(damping_factor=None, **precision(ScoreArguments, problem))
        self.train, self.test = TensorDataset(*problem.train), TensorDataset(*problem.test)

    def fit(self) -> None:
        self.analyzer.fit_all_factors(
            factors_name="factors",
            dataset=self.train,
            per_device_batch_size=KRONFLUENCE_BATCH,
            factor_args=self.factor_args,
            overwrite_output_dir=True,
        )

    def scores(self) -> Tensor:
        self.analyzer.compute_pairwise_scores(
            scores_name="pairwise",
            factors_name="factors",
            query_dataset=self.test,
            train_dataset=self.train,
            per_device_query_batch_size=len(self.test),
            per_device_train_batch_size=KRONFLUENCE_BATCH,
            score_args=self.score_args,
            overwrite_output_dir=True,
        )
        return self.analyzer.load_pairwise_scores("pairwise")["all_modules"].T

    def self_influence(self) -> Tensor:
        self.analyzer.compute_self_scores(
            scores_name="self",
            factors_name="factors",
            train_dataset=self.train,
            per_device_train_batch_size=KRONFLUENCE_BATCH,
            score_args=self.score_args,
            overwrite_output_dir=True,
        )
        return self.analyzer.load_self_scores("self")["all_modules"]


def precision(arguments: type, problem: Problem) -> dict[str, torch.dtype]:
    """The fields of kronfluence's arguments that are float32 by default."""
    dtype = problem.train[0].dtype
    return {f.name: dtype for f in dataclasses.fields(arguments) if f.default == torch.float32}


class Curvlinops:
    def __init__(self, problem: Problem, fisher: str) -> None:
        import curvlinops

        self.library = curvlinops
        types = curvlinops.FisherType
        self.fisher_type = {"empirical": types.EMPIRICAL, "true": types.TYPE2}[fisher]
        self.model = copy.deepcopy(problem.model)
        self.train, self.test = problem.train, problem.test

    def fit(self) -> None:
        operator = self.library.EKFACLinearOperator(
            self.model,
            nn.CrossEntropyLoss(),
            list(self.model.parameters()),
            [self.train],
            check_deterministic=False,
            fisher_type=self.fisher_type,
            separate_weight_and_bias=False,
            num_data=len(self.train[0]),
            num_per_example_loss_terms=1,
        )
        operator.compute_kronecker_factors()
        operator.compute_eigenvalue_correction()
        for eigenvalues in operator.state_dict()["corrected_eigenvalues"].values():
            eigenvalues.add_(DAMPING * eigenvalues.mean())
        self.inverse = self.library.KFACInverseLinearOperator(
            operator, damping=0.0, use_exact_damping=True
        )

    def scores(self) -> Tensor:
        solved = self.inverse @ columns(self.gradients(self.test))
        products = zip(self.gradients(self.train), solved, strict=True)
        return sum(own.flatten(1) @ other.flatten(0, -2) for own, other in products)

    def self_influence(self) -> Tensor:
        chunked = [part.split(CURVLINOPS_COLUMNS) for part in self.gradients(self.train)]
        parts = []
        for chunk in zip(*chunked, strict=True):
            own = columns(chunk)
            products = zip(own, self.inverse @ own, strict=True)
            parts.append(sum((a * b).flatten(0, -2).sum(0) for a, b in products))
        return torch.cat(parts)

    def repeated(self) -> None:
        """What both of the above do and a user would do once."""
        self.gradients(self.train)

    def gradients(self, data: Data) -> list[Tensor]:
        """By parameter, ``[n, *shape]``."""
        params = {name: p.detach() for name, p in self.model.named_parameters()}

        def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(functional_call(self.model, params, (x[None],)), y[None])

        return list(vmap(grad(loss), (None, 0, 0))(params, *data).values())


def columns(gradients: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    """From ``[n, *shape]`` to the ``[*shape, n]`` that an operator of curvlinops takes."""
    return [part.movedim(0, -1) for part in gradients]


# The measurement


@dataclass
class Entry:
    """One library with one Fisher matrix."""

    library: str
    fisher: str
    runner: Ours | Kronfluence | Curvlinops
    frozen: bool = False
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    scores: Tensor | None = None
    self_influence: Tensor | None = None

    @property
    def name(self) -> str:
        return f"{self.library} {self.fisher}{' frozen' if self.frozen else ''}"

    def run(self, clock: Clock) -> None:
        gc.collect()
        if self.frozen:
            gc.freeze()
        for stage in (*STAGES, "repeated"):
            call = getattr(self.runner, stage, lambda: None)
            started = clock()
            output = call()
            self.seconds[stage].append(clock() - started)
            if output is not None:
                setattr(self, stage, output.detach().clone())
        gc.unfreeze()

    def times(self) -> dict[str, float]:
        best = {stage: min(seconds) for stage, seconds in self.seconds.items()}
        totals = sum(np.array(self.seconds[stage]) for stage in STAGES)
        return {
            **{f"{stage}_s": best[stage] for stage in STAGES},
            "total_s": sum(best[stage] for stage in STAGES) - best["repeated"],
            "median_total_s": float(np.median(totals - self.seconds["repeated"])),
        }


def entries_of(library: str, problem: Problem, folder: Path) -> list[Entry]:
    """A library's entries; none where it cannot be imported."""
    try:
        if library == OURS:
            return [Entry(library, f, Ours(problem, f)) for f in ("empirical", "true")]
        if library == CURVLINOPS:
            return [Entry(library, f, Curvlinops(problem, f)) for f in ("empirical", "true")]
        runners = {f: Kronfluence(problem, f, folder) for f in ("empirical", "sampled")}
    except ImportError as error:
        print(f"{library} is left out: {error}", file=sys.stderr)
        return []
    return [
        Entry(library, fisher, runner, frozen)
        for fisher, runner in runners.items()
        for frozen in (False, True)
    ]


def measure(entries: list[Entry], repeats: int, clock: Clock) -> None:
    for entry in entries:
        entry.run(clock)
        entry.seconds.clear()
    for turn in range(repeats):
        first = turn % max(1, len(entries))
        for entry in entries[first:] + entries[:first]:
            entry.run(clock)


def summary(problem: Problem, entries: list[Entry]) -> dict[str, object]:
    times = {entry.name: entry.times() for entry in entries}
    ratios, agreements = {}, {}
    for own, other in pairs(entries):
        if own.library == OURS:
            ratios[other.name] = times[own.name]["total_s"] / times[other.name]["total_s"]
        if not other.frozen and not own.frozen:
            agreements[f"{own.name} / {other.name}"] = {
                "scores": agreement(own.scores, other.scores),
                "self_influence": agreement(own.self_influence, other.self_influence),
            }
    return {
        "parameters": sum(p.numel() for p in problem.model.parameters()),
        "train": len(problem.train[0]),
        "test": len(problem.test[0]),
        "test_accuracy": problem.accuracy,
        "times": times,
        "our_total_over_theirs": ratios,
        "agreement": agreements,
    }


def pairs(entries: list[Entry]) -> list[tuple[Entry, Entry]]:
    """Entries of two libraries with the same Fisher matrix; ``sampled`` estimates the true one."""

    def kind(entry: Entry) -> str:
        return "empirical" if entry.fisher == "empirical" else "true"

    order = [OURS, CURVLINOPS, KRONFLUENCE]
    return [
        (one, other)
        for one in entries
        for other in entries
        if order.index(one.library) < order.index(other.library) and kind(one) == kind(other)
    ]


def agreement(own: Tensor, other: Tensor) -> dict[str, float]:
    """Of two ``[n_train]`` or ``[n_train, n_test]``, column by column."""
    a, b = (values.double().reshape(len(values), -1).numpy() for values in (own, other))
    ranks = [spearmanr(a[:, i], b[:, i]).statistic for i in range(a.shape[1])]
    differences = np.abs(a - b).max(0) / np.abs(b).max(0)
    return {
        "spearman_mean": float(np.mean(ranks)),
        "spearman_min": float(np.min(ranks)),
        "max_difference_over_max_value": float(np.max(differences)),
    }


def tables(result: dict) -> str:
    lines = [
        "| model | library, Fisher | fit s | scores s | self s | total s | ours / theirs |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for model, found in result["models"].items():
        for name, times in found["times"].items():
            seconds = " | ".join(f"{times[f'{part}_s']:.3f}" for part in (*STAGES, "total"))
            ratio = found["our_total_over_theirs"].get(name)
            lines.append(f"| {model} | {name} | {seconds} | {f'{ratio:.2f}' if ratio else ''} |")
    lines += [
        "",
        "| model | pair | Spearman mean | min | max difference | self: Spearman | max difference |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for model, found in result["models"].items():
        for name, parts in found["agreement"].items():
            ranks = [parts["scores"]["spearman_mean"], parts["scores"]["spearman_min"]]
            ranks.append(parts["self_influence"]["spearman_mean"])
            most = [parts[p]["max_difference_over_max_value"] for p in ("scores", "self_influence")]
            lines.append(
                f"| {model} | {name} | {ranks[0]:.6f} | {ranks[1]:.6f} | {most[0]:.1e} "
                f"| {ranks[2]:.6f} | {most[1]:.1e} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
