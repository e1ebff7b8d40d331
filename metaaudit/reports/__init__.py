"""Renders a saved run; imports no torch."""

from metaaudit.reports.comparison import Comparison, compare
from metaaudit.reports.formats import FORMATS, parse_format, render
from metaaudit.reports.github import append_summary
from metaaudit.reports.terminal import print_comparison, print_tables

__all__ = [
    "FORMATS",
    "Comparison",
    "append_summary",
    "compare",
    "parse_format",
    "print_comparison",
    "print_tables",
    "render",
]
