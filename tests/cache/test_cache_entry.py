"""One file of the cache: what must be noticed before it is used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from metaaudit.cache import FORMAT, FactorCache, Header, read_header
from metaaudit.cache.entry import check_entry
from metaaudit.cache.seal import BLOCK_BYTES, DamagedError, write_seal
from tests.cache.cases import arrays, assert_same, get, only_file, refuse


def flipped(whole: bytes, offset: int, mask: int) -> bytes:
    damaged = bytearray(whole)
    damaged[offset] ^= mask
    return bytes(damaged)


# HDF5 itself crashes on some of these, so the damage has to be seen before it is asked.
@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_flipped_byte_is_noticed_wherever_it_is(tmp_path: Path, mask: int) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for offset in range(mask % 7, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(flipped(whole, offset, mask))
        cache = FactorCache(tmp_path)
        assert_same(get(cache), arrays())
        assert cache.uses["x"].status == "computed", offset
        assert len(cache.warnings) == 1, offset
        assert f"cache file {path.name} was damaged" in cache.warnings[0]
        assert path.with_suffix(".damaged").read_bytes() == flipped(whole, offset, mask)


def test_truncated_file_is_rebuilt(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        cache = FactorCache(tmp_path)
        assert_same(get(cache), arrays())
        assert cache.uses["x"].status == "computed"
        assert len(cache.warnings) == 1
        assert path.with_suffix(".damaged").read_bytes() == whole[:size]


def test_every_bit_of_the_seal_counts(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    whole = path.read_bytes()
    check_entry(path, "")
    for offset in range(BLOCK_BYTES):
        mask = 1 << offset % 8
        path.write_bytes(flipped(whole, offset, mask))
        with pytest.raises(DamagedError):
            check_entry(path, "")
    digit = whole.index(b"format 3") + len("format ")
    for bit in range(8):
        path.write_bytes(flipped(whole, digit, 1 << bit))
        with pytest.raises(DamagedError):
            check_entry(path, "")


def without_complete(file: h5py.File, aside: Path) -> None:
    del file.attrs["complete"]


def marked_incomplete(file: h5py.File, aside: Path) -> None:
    file.attrs["complete"] = False


def another_key(file: h5py.File, aside: Path) -> None:
    file.attrs["key"] = "0" * 64


def another_format(file: h5py.File, aside: Path) -> None:
    file.attrs["format"] = FORMAT + 1


def soft_link(file: h5py.File, aside: Path) -> None:
    file["again"] = h5py.SoftLink("/losses")


def external_link(file: h5py.File, aside: Path) -> None:
    with h5py.File(aside, "w") as other:
        other["losses"] = file["losses"][()]
    del file["losses"]
    file["losses"] = h5py.ExternalLink(str(aside), "/losses")


def external_storage(file: h5py.File, aside: Path) -> None:
    values = file["losses"][()]
    aside.write_bytes(values.tobytes())
    del file["losses"]
    file.create_dataset(
        "losses", values.shape, values.dtype, external=[(str(aside), 0, values.nbytes)]
    )


def virtual_data_set(file: h5py.File, aside: Path) -> None:
    with h5py.File(aside, "w") as other:
        other["losses"] = file["losses"][()]
    layout = h5py.VirtualLayout(shape=(6,), dtype=float)
    layout[:] = h5py.VirtualSource(str(aside), "losses", shape=(6,))
    del file["losses"]
    file.create_virtual_dataset("losses", layout)


def no_checksum(file: h5py.File, aside: Path) -> None:
    values = file["losses"][()]
    del file["losses"]
    file["losses"] = values


def group(file: h5py.File, aside: Path) -> None:
    file.create_group("group")


def named_type(file: h5py.File, aside: Path) -> None:
    file["type"] = np.dtype("f8")


TAMPERINGS = [
    (without_complete, "can't locate attribute: 'complete'"),
    (marked_incomplete, "was not finished"),
    (another_key, "was written for another key"),
    (another_format, f"is of format {FORMAT + 1}, not {FORMAT}"),
    (soft_link, "again is a link"),
    (external_link, "losses is a link"),
    (external_storage, "losses is stored in another file"),
    (virtual_data_set, "losses is a virtual data set"),
    (no_checksum, "losses has no checksum"),
    (group, "group is no data set"),
    (named_type, "type is no data set"),
]


@pytest.mark.parametrize("sealed", [False, True], ids=["as it is", "sealed anew"])
@pytest.mark.parametrize(
    ("tamper", "reason"), TAMPERINGS, ids=[tamper.__name__ for tamper, _ in TAMPERINGS]
)
def test_tampered_file_is_rebuilt(tmp_path: Path, tamper: Any, reason: str, sealed: bool) -> None:
    folder = tmp_path / "cache"
    get(FactorCache(folder))
    path = only_file(folder)
    with h5py.File(path, "r+") as file:
        tamper(file, tmp_path / "aside.h5")
    if sealed:
        write_seal(path, 1.0)
    with pytest.raises(DamagedError):
        check_entry(path, path.stem[-32:])
    cache = FactorCache(folder)
    assert_same(get(cache), arrays())
    assert cache.uses["x"].status == "computed"
    assert len(cache.warnings) == 1
    assert (reason if sealed else "checksum differs") in cache.warnings[0]
    assert_same(get(FactorCache(folder), refuse), arrays())


def test_file_says_its_format_and_checksums_all_arrays(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    with h5py.File(path) as file:
        assert file.attrs["format"] == FORMAT
        assert file.attrs["complete"]
        assert file.attrs["key"].startswith(path.stem[-32:])
        assert all(dataset.fletcher32 and dataset.chunks for dataset in file.values())
    header = read_header(path)
    assert header is not None
    assert header.format == FORMAT


@pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1])
def test_file_of_another_format_is_never_read(tmp_path: Path, version: int) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    with h5py.File(path, "r+") as file:
        del file.attrs["complete"]  # which other formats may lack
    write_seal(path, 1.0, version)
    assert check_entry(path, "").format == version  # whole, as far as this version can tell
    cache = FactorCache(tmp_path)
    assert_same(get(cache), arrays())
    assert cache.uses["x"].status == "computed"
    assert f"is of format {version}, not {FORMAT}" in cache.warnings[0]


def unversioned(path: Path) -> None:
    """Seals a file as format 2 did."""
    content = path.read_bytes()[BLOCK_BYTES:]
    digest = hashlib.sha256(content).hexdigest()
    text = f"metaaudit; sha256 of what follows: {digest}\n".encode()
    path.write_bytes(text.ljust(BLOCK_BYTES, b"\0") + content)


def test_file_of_format_2_is_known_by_its_seal(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    unversioned(path)
    assert check_entry(path, "") == Header(2, None)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="checksum differs"):
        check_entry(path, "")


SHAPES = {
    "scalar": np.float64(2.5),
    "0-d": np.array(3),
    "no rows": np.empty((0, 4)),
    "empty rows": np.empty((3, 0), dtype=np.float32),
    "many rows": np.arange(400_000.0),
    "wide rows": np.ones((2, 3, 60_000)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_reads_back(tmp_path: Path, shape: str) -> None:
    values = {"a": np.asarray(SHAPES[shape])}
    get(FactorCache(tmp_path), lambda: {"a": SHAPES[shape]})
    assert_same(get(FactorCache(tmp_path), refuse), values)
