"""Renders a saved run; imports no torch."""

from metaaudit.reports.formats import FORMATS, parse_format, render
from metaaudit.reports.terminal import print_tables

__all__ = ["FORMATS", "parse_format", "print_tables", "render"]
