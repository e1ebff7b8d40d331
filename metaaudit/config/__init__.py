"""Configuration files: their schema, how they are read, and a commented template."""

from metaaudit.config.flags import LdsFlags, planting, with_experiments
from metaaudit.config.load import load_config
from metaaudit.config.schema import Config
from metaaudit.config.template import template_text, write_template

__all__ = [
    "Config",
    "LdsFlags",
    "load_config",
    "planting",
    "template_text",
    "with_experiments",
    "write_template",
]
