"""``python -m metaaudit``."""

from metaaudit.cli import main

main()
