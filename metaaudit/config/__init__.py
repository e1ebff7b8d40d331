"""Configuration files: their schema, how they are read, and a commented template."""

from metaaudit.config.load import load_config
from metaaudit.config.schema import Config
from metaaudit.config.template import template_text, write_template

__all__ = ["Config", "load_config", "template_text", "write_template"]
