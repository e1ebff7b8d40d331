"""``metaaudit demo``: the whole way on real digits with planted wrong labels."""

from metaaudit.demo.digits import digit_tasks
from metaaudit.demo.run import run_demo

__all__ = ["digit_tasks", "run_demo"]
