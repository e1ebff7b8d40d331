"""The state of a meta-training run: weights, Adam's moments and the log so far."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, astuple, dataclass, fields, replace

import torch

from metaaudit.models import Params


@dataclass(frozen=True)
class Epoch:
    """One line of the training log.

    Attributes:
        epoch: From 1.
        loss: Mean query loss over the epoch, as it was met.
        accuracy: Mean query accuracy over the epoch, as it was met.
        lr: Learning rate of its last batch.
        seconds: Wall-clock time.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next step depends on.

    Attributes:
        params: Meta-parameters.
        mean: Adam's first moments.
        square: Adam's second moments.
        steps: Meta-updates so far.
        log: Finished epochs.
    """

    params: Params
    mean: Params
    square: Params
    steps: int = 0
    log: tuple[Epoch, ...] = ()

    @classmethod
    def initial(cls, params: Params) -> TrainingState:
        """Epoch 0."""
        return cls(
            params,
            {name: torch.zeros_like(p) for name, p in params.items()},
            {name: torch.zeros_like(p) for name, p in params.items()},
        )

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.log)

    def after(self, epoch: Epoch) -> TrainingState:
        """The state with one more finished epoch."""
        return replace(self, log=(*self.log, epoch))

    def step(self, gradient: Params, rate: float, weight_decay: float) -> TrainingState:
        """One step of Adam, with weight decay as part of the gradient (Kingma and Ba, 2015)."""
        params = {name: p.detach().clone().requires_grad_() for name, p in self.params.items()}
        optimiser = torch.optim.Adam(params.values(), lr=rate, weight_decay=weight_decay)
        for name, p in params.items():
            p.grad = gradient[name].detach()
            optimiser.state[p] = {
                "step": torch.tensor(float(self.steps)),
                "exp_avg": self.mean[name].clone(),
                "exp_avg_sq": self.square[name].clone(),
            }
        optimiser.step()
        moments = {name: optimiser.state[p] for name, p in params.items()}
        return replace(
            self,
            params={name: p.detach() for name, p in params.items()},
            mean={name: moment["exp_avg"] for name, moment in moments.items()},
            square={name: moment["exp_avg_sq"] for name, moment in moments.items()},
            steps=self.steps + 1,
        )

    def tensors(self) -> Params:
        """All tensors under one naming, to be saved."""
        groups = {"params": self.params, "mean": self.mean, "square": self.square}
        return {f"{group}/{name}": t for group, ts in groups.items() for name, t in ts.items()}

    def metadata(self) -> dict[str, str]:
        """All that is not a tensor, to be saved."""
        return {
            "steps": str(self.steps),
            "log": json.dumps([asdict(epoch) for epoch in self.log]),
        }

    @classmethod
    def restore(cls, tensors: Params, metadata: dict[str, str], like: Params) -> TrainingState:
        """Reads back what ``tensors`` and ``metadata`` gave.

        Raises:
            KeyError: Something is missing.
            ValueError: Something is malformed.
        """
        params, mean, square = (
            {name: tensors[f"{group}/{name}"].to(p) for name, p in like.items()}
            for group in ("params", "mean", "square")
        )
        log = tuple(Epoch(**line) for line in json.loads(metadata["log"]))
        return cls(params, mean, square, int(metadata["steps"]), log)

    def csv(self) -> str:
        """The training log as CSV."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([field.name for field in fields(Epoch)])
        writer.writerows(astuple(epoch) for epoch in self.log)
        return out.getvalue()
