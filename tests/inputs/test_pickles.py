"""Pickles: what is read of them, and that nothing of theirs is run."""

from __future__ import annotations

import collections
import pickle
import pickletools
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.errors import TaskSetError
from metaaudit.inputs.pickles import StoredArray, StoredBytes, integers, read_pickle
from metaaudit.inputs.pickles import machine as pickle_machine
from tests.written import write_pickle

PROTOCOLS = [None, 0, 1, 2, 3, 4, 5]  # the first is one of Python 2

LARGE = np.arange(300 * 200, dtype=">i4").reshape(300, 200)

ARRAYS: dict[str, np.ndarray] = {
    "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "large": LARGE,
    "large by column": np.asfortranarray(LARGE),
    "axes in another order": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    "no rows": np.zeros((0, 3)),
    "no axes": np.array(3.5),
    "truth": np.array([True, False]),
    "complex": np.array([1 + 2j], dtype=np.complex64),
    "text": np.array(["ä", "bcd"]),
    "bytes as text": np.array([b"x", b"yz"]),
    "text as objects": np.array(["ab", "c"], dtype=object),
}

PLAIN: list[Any] = [
    {"a": 1, 2: b"\xff\0", "none": None, "nested": [[], (), ((1,), [2.5, -3])]},
    [0, 1, 255, 256, 65536, -1, 2**31, -(2**40), True, False, 1e300, "", "ä€", "a\n'b\\"],
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
]

OF_PYTHON_3: list[Any] = [
    collections.OrderedDict(x=1, y=[2]),
    [bytearray(b"ab"), bytearray(), b"", bytes(range(256))],
    [np.float32(2.5), np.int64(-3), np.bool_(True), np.str_("ab")],
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read(tmp_path: Path, name: str, protocol: int | None) -> None:
    array = ARRAYS[name]
    found = read_pickle(write_pickle(tmp_path / "a.pkl", {"x": array}, protocol))["x"]
    assert isinstance(found, StoredArray)
    assert found.shape == array.shape
    assert found.whole().dtype == found.dtype == array.dtype
    assert np.array_equal(found.whole(), array)
    again = read_pickle(tmp_path / "a.pkl")["x"]  # whose numbers are still in the file
    if array.ndim and len(array):
        assert np.array_equal(again.block(1, len(array)), array[1:])
        assert np.array_equal(again.block(0, 1), array[:1])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", PLAIN)
def test_plain_values_are_read(tmp_path: Path, value: Any, protocol: int | None) -> None:
    path = write_pickle(tmp_path / "a.pkl", value, 2 if protocol is None else protocol)
    assert read_pickle(path) == value


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
@pytest.mark.parametrize("value", OF_PYTHON_3)
def test_values_of_python_3_are_read(tmp_path: Path, value: Any, protocol: int) -> None:
    found = read_pickle(write_pickle(tmp_path / "a.pkl", value, protocol))
    assert found == value
    if isinstance(value, list) and isinstance(value[0], np.generic):
        assert [type(item) for item in found] == [type(item) for item in value]


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.uint8)
    data = pickle.loads(write_pickle(tmp_path / "a.pkl", {"x": array}).read_bytes())
    assert np.array_equal(data["x"], array)  # so the writer is right
    names = {opcode.name for opcode, _, _ in pickletools.genops((tmp_path / "a.pkl").read_bytes())}
    assert "SHORT_BINSTRING" in names and "BINUNICODE" not in names
    assert b"numpy.core.multiarray\n_reconstruct" in (tmp_path / "a.pkl").read_bytes()
    text = b"(S'it\\'s \\xe9'\nV\\u20ac\nI01\nI00\nL12L\nF2.5\nl."
    (tmp_path / "b.pkl").write_bytes(text)
    assert read_pickle(tmp_path / "b.pkl") == ["it's é", "€", True, False, 12, 2.5]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_of_every_age_is_read(tmp_path: Path, core: str, protocol: int) -> None:
    data = pickle.dumps([np.arange(3), np.int8(1)], protocol=protocol)
    # A name has its length before it, in a byte, from protocol 4 on.
    for old in ("numpy._core.multiarray", "numpy._core.numeric"):
        new = old.replace("numpy._core", core)
        data = data.replace(
            bytes([len(old)]) + old.encode(), bytes([len(new)]) + new.encode()
        ).replace(f"c{old}\n".encode(), f"c{new}\n".encode())
    (tmp_path / "a.pkl").write_bytes(data)
    array, number = read_pickle(tmp_path / "a.pkl")
    assert (array.whole().tolist(), number) == ([0, 1, 2], 1)


def test_large_arrays_stay_in_the_file(tmp_path: Path) -> None:
    array = np.arange(1 << 23, dtype=np.uint8).reshape(-1, 1 << 10)
    for protocol in (None, 3, 4, 5):
        path = write_pickle(tmp_path / "a.pkl", {"x": array, "y": b"z" * 70000}, protocol)
        tracemalloc.start()
        found = read_pickle(path)
        rows = found["x"].block(5000, 5010)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert np.array_equal(rows, array[5000:5010])
        assert peak < 1 << 18
        assert isinstance(found["y"], StoredBytes) and len(found["y"]) == 70000


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pkl", LARGE, 4)
    found = read_pickle(path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert found.block(0, 1).tolist() == LARGE[:1].tolist()
    with pytest.raises(ValueError, match="became shorter"):
        found.block(290, 300)


def test_integers(tmp_path: Path) -> None:
    for value in ([1, 2], (1, 2), [np.int64(1), np.uint8(2)]):
        assert integers("x", value).tolist() == [1, 2]
    array = read_pickle(write_pickle(tmp_path / "a.pkl", np.array([1, 2], dtype=">u2"), 4))
    assert integers("x", array).tolist() == [1, 2]
    for value, part in [
        ([1.0], "is a list of other things; expected a list of integers"),
        ([True], "other things"),
        ([2**80], "too large"),
        ([np.uint64(2**63)], "too large; expected integers below 2"),
        (read_pickle(write_pickle(tmp_path / "c.pkl", np.array([2**63], "u8"), 4)), "too large"),
        (None, "is missing"),
        ({}, "is a dict"),
        (read_pickle(write_pickle(tmp_path / "a.pkl", np.ones(2), 4)), r"array of float64 \[2\]"),
        (read_pickle(write_pickle(tmp_path / "a.pkl", np.eye(2, dtype=int), 4)), r"\[2, 2\]"),
    ]:
        with pytest.raises(TaskSetError, match=f"^x: .*{part}"):
            integers("x", value)


# What must not be read.


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def calls(name: str, args: bytes, protocol: int = 4) -> bytes:
    """A pickle that calls ``module:name`` with what some instructions leave on the stack."""
    module, _, attribute = name.partition(":")
    if protocol < 4:
        return b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + args + b"R."
    texts = [bytes([0x8C, len(text)]) + text.encode() for text in (module, attribute)]
    return b"\x80\x04" + b"".join(texts) + b"\x93" + args + b"R."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR"
"""Instructions that make an array, which is to be completed."""


def dtype(code: str, rest: bytes = b"(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb") -> bytes:
    return b"cnumpy\ndtype\n(" + text(code) + b"\x89\x88tR" + rest


def completed(shape: bytes, kind: bytes, data: bytes, fortran: bytes = b"\x89") -> bytes:
    return b"\x80\2" + ARRAY + b"(K\1" + shape + kind + fortran + data + b"tb."


HUGE = b"J\xff\xff\xff\x7f"  # 2**31 - 1
MARKER = "touch marker"
U1 = dtype("u1")

REFUSED: dict[str, tuple[bytes, str]] = {
    "os.system": (calls("posix:system", text(MARKER) + b"\x85"), "asks to run posix.system;"),
    "os.system of Python 2": (
        calls("posix:system", text(MARKER) + b"\x85", 2),
        "asks to run posix.system",
    ),
    "eval": (
        calls("builtins:eval", text("open('marker', 'w')") + b"\x85"),
        "asks to run builtins.eval",
    ),
    "eval of Python 2": (calls("__builtin__:eval", text("1") + b"\x85", 2), "__builtin__.eval"),
    "a method of what is known": (
        calls("numpy:ndarray.tofile", text("marker") + b"\x85"),
        "asks to run numpy.ndarray.tofile",
    ),
    "a dotted name": (calls("collections:OrderedDict.__reduce__", b")"), "OrderedDict.__reduce__"),
    "NumPy's reader": (calls("numpy:load", text("marker") + b"\x85"), "asks to run numpy.load"),
    "a mapped file": (calls("numpy:memmap", text("marker") + b"\x85"), "numpy.memmap"),
    "a subclass": (
        b"\x80\2cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmatrix\n(K\0tU\1btR.",
        "asks to run numpy.matrix",
    ),
    "getattr": (calls("builtins:getattr", text("a") + text("b") + b"\x86"), "builtins.getattr"),
    "an import": (calls("builtins:__import__", text("antigravity") + b"\x85"), "__import__"),
    "an object": (calls("copyreg:_reconstructor", b")"), "copyreg._reconstructor"),
    "a name that would break the line": (
        calls("a\nb:\x1b[31m", b")"),
        r"asks to run a\\nb.\\x1b\[31m",
    ),
    "a name of great length": (calls("m:" + "x" * 200, b")"), r"asks to run m\.x{60};"),
    "an instance": (b"(" + text(MARKER) + b"iposix\nsystem\n.", "asks to make a posix.system"),
    "an object of a class": (b"(cnumpy\ndtype\no.", "asks to make an object"),
    "a new object": (b"\x80\2cnumpy\ndtype\n)\x81.", "asks to make an object"),
    "a new object with keywords": (b"\x80\4cnumpy\ndtype\n)}\x92.", "asks to make an object"),
    "a call of no name": (b"\x80\2U\6system)R.", "asks to run a str"),
    "a state of a dictionary": (b"\x80\2}}b.", "asks to change a dict"),
    "a state of a name": (b"\x80\2cnumpy\nndarray\n}b.", "asks to change a Name"),
    "a persistent id": (b"P1\n.", "refers to an object outside it"),
    "a persistent id of an object": (b"\x80\2K\1Q.", "refers to an object outside it"),
    "an extension": (b"\x80\2\x82\1.", "refers to an object outside it"),
    "a buffer": (b"\x80\5\x97.", "refers to an object outside it"),
    "a set": (b"\x80\4\x8f.", "holds a set"),
    "a frozen set": (b"\x80\4(\x91.", "holds a set"),
    "an unknown protocol": (b"\x80\6N.", "unknown pickle protocol"),
    "another encoding": (
        calls("_codecs:encode", text("a") + text("rot13") + b"\x86"),
        "asks to run encode in an unknown way",
    ),
    "an encoder of an own": (calls("_codecs:encode", text("a") + b"\x85"), "in an unknown way"),
    "bytes of any length": (calls("builtins:bytes", HUGE + b"\x85"), "asks to run bytes in an"),
    "a bytearray of any length": (
        calls("builtins:bytearray", HUGE + b"\x85"),
        "run bytearray in an",
    ),
    "a call of ndarray": (
        calls("numpy:ndarray", b"(" + HUGE * 2 + b"t\x85"),
        "asks to run ndarray in an unknown way",
    ),
    "a text of any length": (completed(b"(K\1t", dtype("U999999999"), b"U\0"), "of type 'U99999"),
    "an array of records": (
        completed(b"(K\1t", dtype("V8", b""), b"U\0"),
        "holds an array of type 'V8'",
    ),
    "an array of named fields": (
        completed(b"(K\1t", dtype("u1", b"(K\3U\1|N(U\1at}NNK\0tb"), b"U\1a"),
        "an array of records",
    ),
    "an array of dates": (completed(b"(K\1t", dtype("M8", b""), b"U\0"), "of type 'M8'"),
    "an array of objects": (
        completed(b"(K\1t", dtype("O8", b""), b"]N\x61"),
        "holds an array of objects; only those of text",
    ),
    "an array of too few objects": (completed(b"(K\2t", dtype("O8", b""), b"]"), "is damaged"),
    "an array of a claimed shape": (
        completed(b"(" + HUGE * 3 + b"t", U1, b"U\1a"),
        "not as long as its shape",
    ),
    "an array of a negative shape": (
        completed(b"(J\xff\xff\xff\xffJ\xff\xff\xff\xfft", U1, b"U\1a"),
        "a shape that cannot be",
    ),
    "an array of a shape in words": (completed(b"(U\1at", U1, b"U\1a"), "a shape that cannot be"),
    "an array of many axes": (completed(b"(" + b"K\1" * 40 + b"t", U1, b"U\1a"), "cannot be"),
    "an array without bytes": (completed(b"(K\1t", U1, b"N"), "not as long as its shape"),
    "an array without a type": (completed(b"(K\1t", b"N", b"U\1a"), "array of an unknown kind"),
    "an array in no order": (completed(b"(K\1t", U1, b"U\1a", b"]"), "an unknown order"),
    "a number that is too short": (
        b"\x80\2cnumpy.core.multiarray\nscalar\n(" + dtype("i8", b"") + b"U\1atR.",
        "a number that is damaged",
    ),
    "a key that is a tuple": (
        b"\x80\2}" + b")\x85" + b"\x85" * 100000 + b"Ns.",
        "a tuple as a key",
    ),
    "a key that is a large number": (
        b"\x80\2}\x8a\x0a" + b"\1" * 10 + b"Ns.",
        "many bytes as a key",
    ),
    "a key that is an array": (b"\x80\2}" + ARRAY + b"Ns.", "a StoredArray as a key"),
    "a large number": (b"\x80\2\x8b\xff\xff\xff\x7f\0.", "a number of many bytes"),
    "a number in many digits": (b"I" + b"9" * 5000 + b"\n.", "damaged or no pickle"),
    "bytes that are not there": (b"\x80\4\x8e" + b"\xff" * 7 + b"\x7f.", "ends early"),
    "text that is not there": (b"\x80\4\x8d" + b"\xff" * 7 + b"\x7f.", "ends early"),
    "a bytearray that is not there": (b"\x80\5\x96" + b"\xff" * 7 + b"\x7f.", "ends early"),
    "Python 2's text that is not there": (b"\x80\2T\xff\xff\xff\xffa.", "ends early"),
    "text in no encoding": (b"\x80\2X\1\0\0\0\xff.", "damaged or no pickle"),
    "text without quotes": (b"Sabc\n.", "damaged or no pickle"),
    "a list that is none": (b"\x80\2}Na.", "damaged or no pickle"),
    "a dictionary without a value": (b"\x80\2}(Nu.", "damaged or no pickle"),
    "what was never remembered": (b"\x80\2h\5.", "damaged or no pickle"),
    "no mark": (b"\x80\2Nt.", "damaged or no pickle"),
    "nothing on the stack": (b"\x80\2.", "damaged or no pickle"),
    "nothing after the mark": (b"\x80\2N(.", "damaged or no pickle"),
    "nothing": (b"", "ends early"),
    "a page": (b"<!DOCTYPE html><html>", "damaged or no pickle"),
}


@pytest.mark.parametrize(("data", "part"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_gives_one_line_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pkl"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(TaskSetError, match=part) as caught:
        read_pickle(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 400
    assert peak < (1 << 18) + 120 * len(data)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_refused_would_run() -> None:
    """The pickles above are whole: an unpickler that is not restricted calls what they name."""
    for name in ("os.system", "os.system of Python 2"):
        names = [(opcode.name, arg) for opcode, arg, _ in pickletools.genops(REFUSED[name][0])]
        assert names[-1] == ("STOP", None) and ("REDUCE", None) in names
    assert pickle.loads(calls("builtins:len", text("abc") + b"\x85")) == 3
    assert pickle.loads(calls("__builtin__:len", text("abc") + b"\x85", 2)) == 3
    assert pickle.loads(calls("numpy:ndarray.tolist", ARRAY + b"\x85")) == []
    array = pickle.loads(completed(b"(K\1t", U1, b"U\1a"), encoding="latin1")
    assert array.tolist() == [97]


@pytest.mark.parametrize("protocol", range(6))
def test_objects_of_this_python_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    value = [1, Calls(exec, "open('marker', 'w').close()")]
    path = write_pickle(tmp_path / "bad.pkl", value, protocol)
    with pytest.raises(TaskSetError, match=r"asks to run (__builtin__|builtins)\.exec"):
        read_pickle(path)
    assert not (tmp_path / "marker").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "marker").exists()


CLAIMS: dict[str, bytes] = {
    "an array that is never completed": b"\x80\2" + ARRAY + b".",
    "an array made of a huge shape": (
        b"\x80\2cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + HUGE * 3 + b"tU\1btR."
    ),
    "a value to be remembered far away": b"\x80\2Nr\xff\xff\xff\xff.",
    "a frame that is not there": b"\x80\4\x95" + b"\xff" * 7 + b"\x7fN.",
}


@pytest.mark.parametrize("data", CLAIMS.values(), ids=CLAIMS.keys())
def test_a_claim_allocates_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(data)
    tracemalloc.start()
    read_pickle(tmp_path / "a.pkl")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 18


def test_what_refers_to_itself_or_is_deep_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    laughs = b"\x80\2]q\0" + b"".join(
        b"](" + b"h" + bytes([row]) + (b"h" + bytes([row])) * 9 + b"eq" + bytes([row + 1])
        for row in range(60)
    )
    path.write_bytes(laughs + b".")
    assert len(read_pickle(path)) == 10
    path.write_bytes(b"\x80\2]q\0h\0a.")
    found = read_pickle(path)
    assert found[0] is found
    depth = 100000
    lists, tuples = b"]" * depth + b"a" * (depth - 1), b")" + b"\x85" * depth
    for nested in (lists, tuples, b"}N" * depth + b"N" + b"s" * depth):
        path.write_bytes(b"\x80\2" + nested + b".")
        read_pickle(path)
    with pytest.raises(TaskSetError, match=r"list of other things; expected a list of integers"):
        integers(path, read_pickle(write_pickle(path, [[1], [2]], 4)))


REPEATED: dict[str, bytes] = {
    "a text that is encoded": (
        b"\x80\2" + text("a" * 100000) + b"q\0" + text("latin1") + b"q\1c_codecs\nencode\nq\2"
        b"(" + b"h\2h\0h\1\x86R" * 10000 + b"t."
    ),
    "bytes that become text": (
        b"\x80\3cnumpy.core.multiarray\nscalar\nq\0(" + dtype("U9999") + b"B<\x9c\0\0"
        + bytes(39996) + b"tq\1(" + b"h\0h\1R" * 20000 + b"t."  # of 800 MB
    ),
    "a list that is looked through": (
        b"\x80\2](" + b"U\1a" * 100000 + b"eq\0" + dtype("O8", b"") + b"q\1" + ARRAY
        + b"(K\1(J\xa0\x86\1\0th\1\x89h\0tq\2b" + b"h\2b" * 100000 + b"."
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", REPEATED.values(), ids=REPEATED.keys())
def test_what_is_there_once_is_not_used_without_end(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    begin = time.perf_counter()
    with pytest.raises(TaskSetError, match="uses what it holds again and again"):
        read_pickle(path)
    assert time.perf_counter() - begin < 5  # 0.1 s; without the check, minutes


def test_a_list_that_grows_later_leaves_its_array_as_it_was(tmp_path: Path) -> None:
    array = ARRAY + b"(K\1(K\1t" + dtype("O8", b"") + b"\x89h\0tb"
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\2]q\0U\1aa0" + array + b"q\1h\0}a0h\1.")
    assert read_pickle(path).whole().tolist() == ["a"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_there_may_be_used_once_as_text_and_once_as_bytes(
    tmp_path: Path, protocol: int | None
) -> None:
    values = {"x": np.zeros(1 << 21, dtype=np.uint8), "y": list(np.arange(2000, dtype=np.int16))}
    found = read_pickle(write_pickle(tmp_path / "a.pkl", values, protocol))
    assert np.array_equal(found["x"].whole(), values["x"])
    assert found["y"] == values["y"]


def test_the_number_of_instructions_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_STEPS", 100)
    path = tmp_path / "a.pkl"
    path.write_bytes(b"N" * 99 + b".")
    assert read_pickle(path) is None
    path.write_bytes(b"N" * 100 + b".")
    with pytest.raises(TaskSetError, match="has over 100 instructions"):
        read_pickle(path)


@pytest.mark.parametrize("make", ["missing", "folder"])
def test_what_cannot_be_opened_gives_one_line(tmp_path: Path, make: str) -> None:
    path = tmp_path / "a.pkl"
    if make == "folder":
        path.mkdir()
    with pytest.raises(TaskSetError, match=r"a.pkl: cannot be read \("):
        read_pickle(path)


FUZZED = {
    "image_data": np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3),
    "class_dict": {"a": [0, 1], "b": [2, 3]},
    "labels": np.array(["x", "yz"]),
}


def survives(path: Path, data: bytes) -> bool:
    """Whether a file is read; it may be refused, but nothing else may happen."""
    path.write_bytes(data)
    try:
        found = read_pickle(path)
    except TaskSetError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
        return False
    for value in found.values() if isinstance(found, dict) else ():
        if isinstance(value, StoredArray) and value.data is not None:
            value.whole()
    return True


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_refused(tmp_path: Path, protocol: int | None) -> None:
    data = write_pickle(tmp_path / "a.pkl", FUZZED, protocol).read_bytes()
    assert survives(tmp_path / "a.pkl", data)
    assert not any(survives(tmp_path / "a.pkl", data[:end]) for end in range(len(data)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_flipped_bits_are_refused_or_read(tmp_path: Path, protocol: int | None) -> None:
    data = write_pickle(tmp_path / "a.pkl", FUZZED, protocol).read_bytes()
    rng = np.random.default_rng(protocol or 9)
    outcomes = []
    for _ in range(200):
        flipped = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        outcomes.append(survives(tmp_path / "a.pkl", bytes(flipped)))
    assert 20 < sum(outcomes) < 180


def test_any_instructions_are_refused_or_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    known = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
    pieces = [*known, b"K\1", b"U\1a", b"(K\1t", ARRAY, U1, b"cnumpy\ndtype\n", text("latin1")]
    for _ in range(2000):
        body = b"".join(pieces[row] for row in rng.integers(len(pieces), size=rng.integers(1, 20)))
        survives(tmp_path / "a.pkl", b"\x80\2" + body + b".")
