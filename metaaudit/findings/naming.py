"""Names of rules as a person types them."""

from __future__ import annotations

import difflib

from metaaudit.errors import UsageError
from metaaudit.findings.rules import BY_NAME, RULES, RuleName


def known_rule(name: str, where: str) -> RuleName:
    """The rule of that name.

    Args:
        name: What was typed.
        where: Where, for the message.

    Raises:
        UsageError: There is none; the message names the nearest.
    """
    if name in BY_NAME:
        return BY_NAME[name].name
    close = difflib.get_close_matches(name.lower(), RULES, n=1)
    raise UsageError(
        where,
        f"{name!r} is no rule",
        f"one of {', '.join(RULES)}",
        f"did you mean {close[0]!r}?" if close else "",
    )
