"""Reverse-mode derivatives as a value and a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.func import vjp


def pullback(
    function: Callable[[Any], Any], at: Any, *, has_aux: bool = False
) -> tuple[Any, Callable[[Any], Any]]:
    """The value of a function, and its transposed derivative there as a function of cotangents.

    Args:
        function: Of one argument.
        at: The argument.
        has_aux: Whether the function returns a pair whose second part is not differentiated; the
            value then is that pair.
    """
    if has_aux:
        value, pull, aux = vjp(function, at, has_aux=True)  # type: ignore[misc]
        return (value, aux), lambda cotangent: pull(cotangent)[0]
    value, pull = vjp(function, at)  # type: ignore[misc]
    return value, lambda cotangent: pull(cotangent)[0]
