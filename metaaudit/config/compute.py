"""The ``compute`` section."""

from __future__ import annotations

from typing import Literal

from metaaudit.config.section import PositiveInt, Section


class ComputeConfig(Section):
    """Where and how the numbers are computed.

    Attributes:
        device: ``auto`` takes CUDA where there is one.
        dtype: Precision of models and gradients; solves are in float64.
        task_batch: Tasks computed at once; ``auto`` takes 10 (on a GPU 50), or what memory holds.
            Results do not depend on it.
        threads: Intra-op threads; one is fastest for the small tensors of few-shot tasks.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    task_batch: Literal["auto"] | PositiveInt = "auto"
    threads: PositiveInt = 1
