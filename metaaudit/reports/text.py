"""Numbers and foreign text, as people read them."""

from __future__ import annotations

import math
from pathlib import PurePosixPath, PureWindowsPath


def number(value: float) -> str:
    """Three significant digits.

    >>> number(0.123456), number(float("nan"))
    ('0.123', 'n/a')
    """
    return f"{value:#.3g}".rstrip(".") if math.isfinite(value) else "n/a"


def signed(value: float) -> str:
    """Three significant digits with a sign.

    >>> signed(12.345)
    '+12.3'
    """
    return f"{value:+#.3g}".rstrip(".") if math.isfinite(value) else "n/a"


def z_score(value: float) -> str:
    """Two decimals with a sign.

    >>> z_score(0.975)
    '+0.97'
    """
    return f"{value:+.2f}" if math.isfinite(value) else "n/a"


def percent(value: float) -> str:
    """A share in per cent.

    >>> percent(0.125)
    '12%'
    """
    return f"{value:.0%}" if math.isfinite(value) else "n/a"


def score(value: float) -> str:
    """A score in [0, 1], two digits.

    >>> score(0.987)
    '0.99'
    """
    return f"{value:.2f}" if math.isfinite(value) else "n/a"


def q_value(value: float | None) -> str:
    """A q-value, two digits; nothing where a rule has none.

    >>> q_value(0.01234), q_value(None)
    ('0.012', '')
    """
    return "" if value is None else f"{value:.2g}" if math.isfinite(value) else "n/a"


def without_folder(text: str) -> str:
    """An absolute path becomes its last part, since where files lie is nobody else's business.

    >>> without_folder("/home/me/model.pt"), without_folder("runs/model.pt")
    ('.../model.pt', 'runs/model.pt')
    """
    for path in (PurePosixPath(text), PureWindowsPath(text)):
        if path.is_absolute():
            return f".../{path.name}"
    return text
