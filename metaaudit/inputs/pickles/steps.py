"""The instructions of a pickle that are carried out: those that build plain values."""

from __future__ import annotations

import codecs
import pickle
import struct
import warnings
from collections.abc import Callable

from metaaudit.inputs.pickles.arrays import Name, UnfitError, made
from metaaudit.inputs.pickles.machine import DAMAGED, Machine, Steps, shown

_PROTOCOLS = range(6)


def _protocol(machine: Machine) -> None:
    if machine.number(1) not in _PROTOCOLS:
        raise UnfitError("is of an unknown pickle protocol")


def _frame(machine: Machine) -> None:
    machine.take(8)  # its size, which is of use only to what reads ahead


def _line_of_number(machine: Machine) -> None:
    text = machine.line()
    truths = {b"00": False, b"01": True}
    machine.push(truths[text] if text in truths else int(text.removesuffix(b"L")))


def _line_of_python2_text(machine: Machine) -> None:
    text = machine.line(-1)
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise UnfitError(DAMAGED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a backslash that escapes nothing
        machine.push(codecs.escape_decode(text[1:-1])[0].decode("latin1"))


def _line_of_name(machine: Machine) -> None:
    module, name = (machine.line().decode("utf-8") for _ in range(2))
    machine.push_name(module, name)


def _instance(machine: Machine) -> None:
    module, name = (machine.line().decode("utf-8") for _ in range(2))
    raise UnfitError(f"asks to make a {shown(module)}.{shown(name)}")


def _stack_name(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_name(module, name)


def _reduce(machine: Machine) -> None:
    args, name = machine.pop(), machine.pop()
    if type(name) is not Name:
        raise UnfitError(f"asks to run a {type(name).__name__}")
    machine.spend(args)
    machine.push(made(name, args, machine.path))


def _dictionary(machine: Machine) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    machine.set_items(items)


def _item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _tuple(count: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine.push(tuple(reversed([machine.pop() for _ in range(count)])))

    return step


def _remember(machine: Machine, key: int) -> None:
    machine.memo[key] = machine.stack[-1]


STEPS: Steps = {
    pickle.PROTO: _protocol,
    pickle.FRAME: _frame,
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.POP: Machine.drop,
    pickle.POP_MARK: lambda m: m.pop_to_mark().clear(),
    pickle.DUP: lambda m: m.push(m.stack[-1]),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.INT: _line_of_number,
    pickle.LONG: _line_of_number,
    pickle.BININT: lambda m: m.push(struct.unpack("<i", m.take(4))[0]),
    pickle.BININT1: lambda m: m.push(m.number(1)),
    pickle.BININT2: lambda m: m.push(m.number(2)),
    pickle.LONG1: lambda m: m.push(int.from_bytes(m.take(m.number(1)), "little", signed=True)),
    pickle.FLOAT: lambda m: m.push(float(m.line())),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.STRING: _line_of_python2_text,
    pickle.BINSTRING: lambda m: m.push_python2_text(m.number(4)),
    pickle.SHORT_BINSTRING: lambda m: m.push_python2_text(m.number(1)),
    pickle.BINBYTES: lambda m: m.push(m.payload(m.number(4))),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.payload(m.number(1))),
    pickle.BINBYTES8: lambda m: m.push(m.payload(m.number(8))),
    pickle.BYTEARRAY8: lambda m: m.push(m.payload(m.number(8))),
    pickle.UNICODE: lambda m: m.push(m.line(-1).decode("raw-unicode-escape")),
    pickle.BINUNICODE: lambda m: m.push_unicode(m.number(4)),
    pickle.SHORT_BINUNICODE: lambda m: m.push_unicode(m.number(1)),
    pickle.BINUNICODE8: lambda m: m.push_unicode(m.number(8)),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.pop_to_mark()),
    pickle.APPEND: lambda m: m.extend([m.pop()]),
    pickle.APPENDS: lambda m: m.extend(m.pop_to_mark()),
    pickle.EMPTY_TUPLE: _tuple(0),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_to_mark())),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.DICT: _dictionary,
    pickle.SETITEM: _item,
    pickle.SETITEMS: lambda m: m.set_items(m.pop_to_mark()),
    pickle.PUT: lambda m: _remember(m, int(m.line())),
    pickle.BINPUT: lambda m: _remember(m, m.number(1)),
    pickle.LONG_BINPUT: lambda m: _remember(m, m.number(4)),
    pickle.MEMOIZE: lambda m: _remember(m, len(m.memo)),
    pickle.GET: lambda m: m.push(m.memo[int(m.line())]),
    pickle.BINGET: lambda m: m.push(m.memo[m.number(1)]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.number(4)]),
    pickle.GLOBAL: _line_of_name,
    pickle.STACK_GLOBAL: _stack_name,
    pickle.REDUCE: _reduce,
    pickle.BUILD: lambda m: m.build(m.pop()),
    pickle.INST: _instance,
}

_OUTSIDE = "refers to an object outside it"
_OBJECT = "asks to make an object"
_SET = "holds a set"
REFUSED = {
    pickle.PERSID: _OUTSIDE,
    pickle.BINPERSID: _OUTSIDE,
    pickle.NEXT_BUFFER: _OUTSIDE,
    pickle.READONLY_BUFFER: _OUTSIDE,
    pickle.EXT1: _OUTSIDE,
    pickle.EXT2: _OUTSIDE,
    pickle.EXT4: _OUTSIDE,
    pickle.OBJ: _OBJECT,
    pickle.NEWOBJ: _OBJECT,
    pickle.NEWOBJ_EX: _OBJECT,
    pickle.EMPTY_SET: _SET,
    pickle.FROZENSET: _SET,
    pickle.LONG4: "holds a number of many bytes",
}
"""What is known and not taken; anything else is no pickle."""
