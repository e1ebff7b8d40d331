"""EK-FAC of a small network, its data, and the same as a matrix."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from metaaudit.curvature import EKFAC
from tests.curvature.dense import Dense, flat_gradients
from tests.curvature.networks import NETWORKS

N_TRAIN, N_TEST = 8, 5

Data = tuple[Tensor, Tensor]


class Fitted:
    """A network of the table, fitted to one batch."""

    def __init__(self, name: str, fisher: str = "true") -> None:
        self.case, self.fisher = NETWORKS[name], fisher
        self.module = self.case.module()
        self.train, self.test = self.case.data(N_TRAIN), self.case.data(N_TEST, seed=2)
        self.ekfac = EKFAC.fit(self.module, cross_entropy, [self.train], fisher=fisher)

    @property
    def dense(self) -> Dense:
        return Dense.of(self.module, *self.train, self.fisher)

    def gradients(self, data: Data) -> Tensor:
        """``[n, size]``."""
        return flat_gradients(self.module, *data)


def cut(data: Data, size: int) -> list[Data]:
    """Batches."""
    return list(zip(*(part.split(size) for part in data), strict=True))
