"""What an error says."""

from __future__ import annotations

from metaaudit.errors import MetaauditError


def test_a_message_is_one_line_of_what_can_be_printed() -> None:
    error = MetaauditError("a\nb", "holds \x1b[2J\x07\u202e", "c", "d")
    assert str(error) == "a b: holds \\x1b[2J\\x07\\u202e; expected c; d"
