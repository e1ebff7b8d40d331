"""Fitting a checkpoint to a network: exactly one reading, or a refusal that says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from metaaudit.errors import CheckpointError
from metaaudit.inputs.checkpoints.by_name import readings_by_name
from metaaudit.inputs.checkpoints.by_order import readings_by_order
from metaaudit.inputs.checkpoints.interpretation import Reading
from metaaudit.inputs.checkpoints.names import is_tracked, leaf, listed
from metaaudit.inputs.checkpoints.renaming import renamed
from metaaudit.inputs.checkpoints.target import Target, Tensors

_REMEDY = "check the model section, or say which tensor is which under rename"


@dataclass(frozen=True)
class Fitted:
    """A checkpoint, as the learner and the network want it.

    Attributes:
        params: In the template's order, shapes and types.
        buffers: Those of the network's that the file has.
        mapping: Lines that say which tensor became which parameter, a summary first.
        warnings: Lines on tensors that were left out and may have been meant.
    """

    params: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    mapping: tuple[str, ...]
    warnings: tuple[str, ...]


def fit_weights(
    tensors: Tensors,
    target: Target,
    where: object,
    *,
    rename: Mapping[str, str] | None = None,
    ordered: bool = True,
) -> Fitted:
    """Finds the one reading of a checkpoint that fits.

    By name first, below any prefix; then by order and shape. Readings that give no tensor different
    values count as one.

    Args:
        tensors: The file's tensors, by dotted name.
        target: What is wanted.
        where: What to call the file in messages.
        rename: New names of tensors, or of prefixes where a name ends with a dot; with it, only
            names count.
        ordered: Whether the file keeps the order in which its tensors were written.

    Raises:
        CheckpointError: No reading fits, several do that differ, or a tensor is not of finite
            real numbers.
        ConfigError: ``rename`` names something that is not there.
    """
    names = renamed(tensors, rename or {}, target, where)
    tensors = {new: tensors[old] for new, old in names.items()}
    candidates = list(readings_by_name(tensors, target))
    if rename:
        candidates = [one for one in candidates if not one.prefix and not one.cut]
    fitting = [one for one in candidates if one.fits(tensors, target)]
    # Where all names are there, a wrong shape is an error, not another network's order.
    if not rename and all(one.missing(target) for one in candidates):
        candidates += readings_by_order(tensors, target, ordered=ordered)
        fitting = [one for one in candidates if one.fits(tensors, target)]
    if not fitting:
        raise _misfit(candidates, tensors, target, where)
    reading = _only(fitting, tensors, target, where)
    unexpected = [] if rename else _unexpected(reading, tensors, target)
    if unexpected:
        raise _problem(where, [], unexpected, [])
    if ordered and not rename:
        _check_order(reading, tensors, target, where)
    return _fitted(reading, tensors, target, where, names)


def _only(fitting: list[Reading], tensors: Tensors, target: Target, where: object) -> Reading:
    # All give what is needed; some what is taken where it is there.
    first = max(fitting, key=lambda one: len(target.wanted.keys() & one.places.keys()))
    for other in fitting:
        name = first.differs(other, tensors, target)
        if name is not None:
            said = [f"{one.how} ({name} is {one.places[name]})" for one in (first, other)]
            raise CheckpointError(
                where, f"can be read in two ways: {' and '.join(said)}", "one", _which(other)
            )
    return first


def _which(reading: Reading) -> str:
    """How to ask for a reading."""
    example = f'"{reading.prefix}": "{reading.cut}"'
    return f"say which under rename{f', as in {{{example}}}' if reading.prefix else ''}"


def _misfit(
    candidates: list[Reading], tensors: Tensors, target: Target, where: object
) -> CheckpointError:
    """What keeps the nearest reading from fitting."""
    best = min(
        candidates,
        key=lambda one: len(one.missing(target)) + len(one.misshapen(tensors, target)),
        default=Reading("by name", {}),
    )
    shaped = [
        f"{best.places[name]} {list(tensors[best.places[name]].shape)} for "
        f"{'' if best.places[name].endswith(name) else f'{name} '}{list(target.wanted[name].shape)}"
        for name in best.misshapen(tensors, target)
    ]
    missing = [f"{name} {list(target.wanted[name].shape)}" for name in best.missing(target)]
    return _problem(where, missing, _unexpected(best, tensors, target), shaped)


def _problem(
    where: object, missing: list[str], unexpected: list[str], shaped: list[str]
) -> CheckpointError:
    kinds = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shaped))
    problems = [f"{label} {listed(names)}" for label, names in kinds if names]
    return CheckpointError(where, f"does not fit the model: {'; '.join(problems)}", remedy=_REMEDY)


def _unexpected(reading: Reading, tensors: Tensors, target: Target) -> list[str]:
    """Tensors among those of the network that are none of its own.

    A learner that computes the head does not mind another one in the file.
    """
    if target.weights.keys() != target.network.keys():
        return []
    return [
        f"{name} {list(tensors[name].shape)}"
        for name, reason in _left_out(reading, tensors, target).items()
        if reason == _OUTSIDE and name.startswith(reading.prefix)
    ]


_OUTSIDE = "none of the network's"


def _left_out(reading: Reading, tensors: Tensors, target: Target) -> dict[str, str]:
    """Tensors that a reading does not use, and why."""
    used = [place for name, place in reading.places.items() if name in target.wanted]
    known = {
        reading.prefix + one.removeprefix(reading.cut): name
        for name in (*target.network, *target.buffers)
        for one in target.names(name)
    }
    known |= {place: name for name, place in reading.places.items()}

    def reason(name: str) -> str:
        if known.get(name) in target.wanted:
            return "stored twice"
        if name in known:
            return "not used by this learner"
        if is_tracked(name):
            return "statistics that this model does not use"
        copied = any(_is_copy(tensors[name], tensors[place]) for place in used)
        return "stored twice" if copied else _OUTSIDE

    return {name: reason(name) for name in tensors if name not in used}


def _is_copy(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _fitted(
    reading: Reading, tensors: Tensors, target: Target, where: object, names: Mapping[str, str]
) -> Fitted:
    _check_twins(reading, tensors, target, where)
    taken = {
        name: _converted(tensors[reading.places[name]], like.dtype, name, where)
        for name, like in target.wanted.items()
        if name in reading.places
    }
    left = _left_out(reading, tensors, target)
    outside = [names[name] for name, reason in left.items() if reason == _OUTSIDE]
    absent = {
        **dict.fromkeys(target.buffers, "as the model has it"),
        **dict.fromkeys(target.optional, "from the configuration"),
    }
    counts = Counter(left.values()).items()
    return Fitted(
        params={name: taken.get(name, p) for name, p in target.template.items()},
        buffers={name: taken[name] for name in target.buffers if name in taken},
        mapping=(
            "; ".join(
                [f"{len(taken)} tensors {reading.how}", *(f"{n} {reason}" for reason, n in counts)]
            ),
            *(f"{names[reading.places[n]]} -> {n} {list(p.shape)}" for n, p in taken.items()),
            *(f"{n}: not in the file, {what}" for n, what in absent.items() if n not in taken),
            *(f"{names[name]}: ignored, {reason}" for name, reason in left.items()),
        ),
        warnings=(f"tensors of the checkpoint that are ignored: {listed(outside)}",)
        if outside
        else (),
    )


def _check_twins(reading: Reading, tensors: Tensors, target: Target, where: object) -> None:
    """A tensor that the network knows under two names must have one value in the file."""
    for name, place in reading.places.items():
        for one in target.names(name):
            twin = reading.prefix + one.removeprefix(reading.cut)
            apart = twin in tensors and twin != place
            if apart and not torch.equal(tensors[twin], tensors[place]):
                raise CheckpointError(
                    where,
                    f"{twin} and {place} differ",
                    "one value: the model has one tensor for both",
                )


def _check_order(reading: Reading, tensors: Tensors, target: Target, where: object) -> None:
    """A learner's own tensors are numbered by the weights, so that these need the model's order."""
    positions = {name: position for position, name in enumerate(tensors)}
    found = [positions[reading.places[name]] for name in target.weights]
    if target.own.keys() - set(target.optional) and found != sorted(found):
        raise CheckpointError(
            where,
            f"has the weights in another order than the model, and {next(iter(target.own))} and so "
            "on are numbered by it",
            "the model's order",
            "use the model that it was trained with",
        )


def _converted(tensor: torch.Tensor, dtype: torch.dtype, name: str, file: object) -> torch.Tensor:
    where = f"{file}: {name}"
    if dtype.is_floating_point != tensor.is_floating_point() or tensor.is_complex():
        wanted = "floating point" if dtype.is_floating_point else str(dtype)
        raise CheckpointError(where, f"has dtype {tensor.dtype}", wanted)
    converted = tensor.detach().to(dtype, copy=True).contiguous()
    bad = int((~torch.isfinite(converted)).sum())
    if bad:
        raise CheckpointError(
            where, f"{bad} of {tensor.numel()} weights are NaN or infinite", "finite weights"
        )
    if leaf(name) == "running_var" and bool((converted < 0).any()):
        raise CheckpointError(where, "has variances below 0", "running variances")
    return converted
