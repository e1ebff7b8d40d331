"""Factors in a file: bit for bit, whole or not at all, and for one model only."""

import h5py
import pytest
import torch
from torch.nn.functional import cross_entropy

from metaaudit.curvature import EKFAC, ekfac
from metaaudit.errors import RunError
from tests.curvature.fitted import Fitted
from tests.curvature.networks import NETWORKS, gaussian


@pytest.fixture(params=["empirical", "true"])
def fisher(request):
    return request.param


@pytest.fixture(params=NETWORKS)
def fitted(request, fisher):
    return Fitted(request.param, fisher)


def load(path, fitted, module=None):
    return EKFAC.load(
        path, expect=module or fitted.module, loss=cross_entropy, inputs=fitted.train[0]
    )


def test_loaded_factors_give_the_same_bits(fitted, tmp_path):
    path = tmp_path / "factors.h5"
    fitted.ekfac.save(path)
    loaded = load(path, fitted, fitted.case.module())
    assert loaded.fisher == fitted.fisher
    for one, other in zip(
        *(
            (
                found.scores([fitted.train], [fitted.test]),
                found.self_influence([fitted.train], 0.3),
                found.inverse_matvec(gaussian(found.factors.layout.size)),
            )
            for found in (fitted.ekfac, loaded)
        ),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_paths_can_be_text(tmp_path):
    fitted = Fitted("linear")
    fitted.ekfac.save(str(tmp_path / "new" / "factors.h5"))
    assert load(str(tmp_path / "new" / "factors.h5"), fitted).fisher == "true"


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"factors\.h5: cannot be used .*No such file.*fit$"):
        load(tmp_path / "factors.h5", Fitted("linear"))


@pytest.fixture
def saved(tmp_path):
    fitted = Fitted("batch norm")
    fitted.ekfac.save(tmp_path / "factors.h5")
    return fitted, tmp_path / "factors.h5"


@pytest.mark.parametrize("place", [3, 300, 600, 3000, -1])
def test_flipped_byte_is_an_error(saved, place):
    fitted, path = saved
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(
        RunError, match=r"cannot be used .*expected factors of this model and these"
    ):
        load(path, fitted)


@pytest.mark.parametrize("size", [0, 100, 600, -1])
def test_truncated_file_is_an_error(saved, size):
    fitted, path = saved
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match=r"cannot be used"):
        load(path, fitted)


def test_file_of_another_program_is_an_error(saved):
    fitted, path = saved
    with h5py.File(path, "w") as file:
        file["x"] = 1.0
    with pytest.raises(RunError, match=r"cannot be used .does not begin as a cache file"):
        load(path, fitted)


def other_weights(module):
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1e-12


def other_statistics(module):
    module[1].running_mean[0] += 1e-12


def frozen_layer(module):
    module[0].requires_grad_(False)


@pytest.mark.parametrize(
    "change", [other_weights, other_statistics, frozen_layer], ids=lambda change: change.__name__
)
def test_factors_of_other_weights_are_refused(saved, change):
    fitted, path = saved
    module = fitted.case.module()
    load(path, fitted, module)
    change(module)
    with pytest.raises(
        RunError, match=r"cannot be used .was written for another key.; expected fac"
    ):
        load(path, fitted, module)


def test_frozen_weights_count_as_weights(tmp_path):
    module, data = NETWORKS["mlp"].module(), NETWORKS["mlp"].data()
    module[0].requires_grad_(False)
    EKFAC.fit(module, cross_entropy, [data]).save(tmp_path / "factors.h5")
    with torch.no_grad():
        module[0].weight.add_(1.0)
    with pytest.raises(RunError, match=r"another key"):
        EKFAC.load(tmp_path / "factors.h5", expect=module, loss=cross_entropy, inputs=data[0])


def test_factors_of_another_model_are_refused(saved):
    _, path = saved
    other = Fitted("mlp")
    with pytest.raises(RunError, match=r"cannot be used"):
        load(path, other)


def test_failing_save_leaves_the_old_file(saved, monkeypatch):
    fitted, path = saved
    before = path.read_bytes()

    def fail(temporary, *_):
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(ekfac, "write_entry", fail)
    with pytest.raises(KeyboardInterrupt):
        fitted.ekfac.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir() if entry.is_file()] == [path.name]


def test_save_replaces_the_old_file(saved):
    fitted, path = saved
    other = EKFAC.fit(fitted.module, cross_entropy, [fitted.train], fisher="empirical")
    other.save(path)
    assert load(path, fitted).fisher == "empirical"


def test_folder_cannot_be_saved_to(tmp_path):
    with pytest.raises(RunError, match=r"cannot be written .it is a folder"):
        Fitted("linear").ekfac.save(tmp_path)
