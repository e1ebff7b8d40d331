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
        matmul: Precision of float32 products: ``highest`` is float32 itself, ``high`` TensorFloat32
            and ``medium`` bfloat16 where the hardware has them, which is quicker and less exact.
        deterministic: Whether torch is asked for algorithms that give the same bits every time,
            and warns where it has none; on a GPU they can be slower, on a CPU all are.
        threads: Intra-op threads; one is fastest for the small tensors of few-shot tasks.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    task_batch: Literal["auto"] | PositiveInt = "auto"
    matmul: Literal["highest", "high", "medium"] = "highest"
    deterministic: bool = False
    threads: PositiveInt = 1
