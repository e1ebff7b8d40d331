"""Gradients on the outputs, whose outer products are the Fisher matrix."""

import pytest
import torch
from torch.func import hessian
from torch.nn.functional import cross_entropy, mse_loss, multi_margin_loss, one_hot

from metaaudit.curvature import fisher_terms
from metaaudit.curvature.fisher import check_mean
from metaaudit.errors import ConfigError
from tests.curvature.dense import assert_close
from tests.curvature.networks import gaussian

N, CLASSES = 5, 4


@pytest.fixture
def logits():
    return 3 * gaussian(N, CLASSES)


LABELS = torch.arange(N) % CLASSES


def squared(outputs, labels):
    return mse_loss(outputs, one_hot(labels, CLASSES).to(outputs))


def test_empirical_has_one_term_at_the_label(logits):
    found = fisher_terms(cross_entropy, "empirical")(logits, LABELS)
    assert_close(found, (logits.softmax(-1) - one_hot(LABELS, CLASSES))[None])


def test_true_has_a_term_for_every_class(logits):
    found = fisher_terms(cross_entropy, "true")(logits, LABELS)
    p = logits.softmax(-1)
    for c in range(CLASSES):
        gradient = p - one_hot(torch.full((N,), c), CLASSES)
        assert_close(found[c], p[:, c, None].sqrt() * gradient)


def test_true_does_not_see_the_labels(logits):
    terms = fisher_terms(cross_entropy, "true")
    assert torch.equal(terms(logits, LABELS), terms(logits, LABELS.flip(0)))


def test_true_adds_up_to_the_hessian_of_cross_entropy(logits):
    found = fisher_terms(cross_entropy, "true")(logits, LABELS)
    for i in range(N):
        label = LABELS[i : i + 1]
        expected = hessian(lambda z, label=label: cross_entropy(z[None], label))(logits[i])
        assert_close(torch.einsum("ta,tb->ab", found[:, i], found[:, i]), expected)


@pytest.mark.parametrize("loss", [squared, multi_margin_loss])
def test_other_losses_give_their_own_gradients(logits, loss):
    found = fisher_terms(loss, "empirical")(logits, LABELS)
    for i in range(N):
        alone = logits[i : i + 1].clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(alone, LABELS[i : i + 1]), alone)
        assert_close(found[0, i : i + 1], expected)


def test_terms_of_a_sample_do_not_depend_on_the_batch(logits):
    for fisher in ("empirical", "true"):
        terms = fisher_terms(cross_entropy, fisher)
        whole = terms(logits, LABELS)
        assert_close(terms(logits[2:4], LABELS[2:4]), whole[:, 2:4])


def test_confident_prediction_does_not_cancel_in_single_precision():
    logits = torch.tensor([[20.0, 0.0, 0.0, 0.0]])
    label = torch.tensor([0])
    found = fisher_terms(cross_entropy, "empirical")(logits, label)
    p = logits.double().softmax(-1)
    assert found.dtype == torch.float32
    # Single precision on the way out; p - 1 in it would be 0.
    assert_close(found[0, :, 0].double(), -p[:, 1:].sum(-1), 1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, squared, multi_margin_loss])
def test_means_are_accepted(logits, loss):
    check_mean(loss, logits, LABELS)
    check_mean(loss, logits[:1], LABELS[:1])


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_other_reductions_are_refused(logits, reduction):
    with pytest.raises(ConfigError, match=r"^loss: is not the mean over the batch; .*='mean'"):
        check_mean(lambda z, y: cross_entropy(z, y, reduction=reduction), logits, LABELS)


def test_tiny_sum_is_refused_too():
    logits = torch.tensor([[30.0, 0.0], [30.0, 0.0]]).double()
    labels = torch.tensor([0, 0])
    assert cross_entropy(logits, labels) < 1e-12
    with pytest.raises(ConfigError, match="is not the mean"):
        check_mean(lambda z, y: cross_entropy(z, y, reduction="sum"), logits, labels)


def test_what_is_not_finite_is_left_to_the_layers(logits):
    check_mean(cross_entropy, logits * torch.nan, LABELS)
