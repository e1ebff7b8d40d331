"""Data, losses, models and dampings that EK-FAC refuses, one clear line each."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from metaaudit.curvature import EKFAC
from metaaudit.errors import ConfigError, IncompleteError, ModelError
from tests.curvature.fitted import Fitted, cut
from tests.curvature.networks import NETWORKS, gaussian


def test_iterators_are_refused_to_fit():
    module, data = NETWORKS["linear"].module(), NETWORKS["linear"].data()
    with pytest.raises(ConfigError, match=r"^batches: is an iterator, which can be read once only"):
        EKFAC.fit(module, cross_entropy, iter([data]))


def test_no_data_is_refused():
    with pytest.raises(ConfigError, match=r"^batches: is empty; expected at least one batch"):
        EKFAC.fit(NETWORKS["linear"].module(), cross_entropy, [])


def test_sum_of_losses_is_refused():
    module, data = NETWORKS["linear"].module(), NETWORKS["linear"].data()
    with pytest.raises(ConfigError, match=r"^loss: is not the mean over the batch"):
        EKFAC.fit(module, nn.CrossEntropyLoss(reduction="sum"), [data])


def test_model_without_a_layer_to_train_is_refused():
    module, data = NETWORKS["linear"].module(), NETWORKS["linear"].data()
    with pytest.raises(ModelError, match=r"^model: has no parameters to train"):
        EKFAC.fit(module.requires_grad_(False), cross_entropy, [data])


@pytest.mark.parametrize("batch", [0, 1])
def test_input_that_is_not_finite_is_an_error(batch):
    module, data = NETWORKS["mlp"].module(), NETWORKS["mlp"].data()
    batches = cut(data, 4)
    batches[batch][0][1, 2] = torch.nan
    with pytest.raises(
        IncompleteError, match=r"^EK-FAC, layer 0: has a covariance that is not fin"
    ):
        EKFAC.fit(module, cross_entropy, batches)


class Overflows(nn.Module):
    def forward(self, inputs):
        return inputs * torch.inf


def test_activation_that_is_not_finite_names_the_layer_it_enters():
    module, data = NETWORKS["mlp"].module(), NETWORKS["mlp"].data()
    module[1] = Overflows()
    with pytest.raises(
        IncompleteError, match=r"^EK-FAC, layer 2: has a covariance that is not fin"
    ):
        EKFAC.fit(module, cross_entropy, [data])


@pytest.mark.parametrize(
    ("damping", "message"),
    [
        (0.0, "0.0 leaves layer .* singular; expected a positive number or 'heuristic'"),
        (-0.1, "is -0.1"),
        (float("nan"), "is nan"),
    ],
)
def test_dampings_that_are_refused(damping, message):
    fitted = Fitted("mlp")
    for call in (
        lambda: fitted.ekfac.inverse_matvec(gaussian(fitted.ekfac.factors.layout.size), damping),
        lambda: fitted.ekfac.scores([fitted.train], [fitted.test], damping),
        lambda: fitted.ekfac.self_influence([fitted.train], damping),
    ):
        with pytest.raises(ConfigError, match=rf"^damping: {message}"):
            call()


@pytest.mark.parametrize("shape", [(14,), (16,), (2, 14), (15, 2)], ids=str)
def test_vectors_of_another_size_are_refused(shape):
    found = Fitted("linear").ekfac
    with pytest.raises(ConfigError, match=rf"^vectors: have size {shape[-1]}; expected 15"):
        found.inverse_matvec(gaussian(*shape))
