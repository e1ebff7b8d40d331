"""Whether a model can be used: it is tried on two inputs before anything is computed with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.overrides import TorchFunctionMode

from metaaudit.errors import ModelError
from metaaudit.models.functional import Model, Params

WRONG_THIRD_DERIVATIVE = ("batch_norm", "instance_norm", "layer_norm")


def check_model(model: Model, input_shape: tuple[int, ...], ways: int) -> None:
    """Runs the model on two inputs, and once in the way in which MAML differentiates it.

    Args:
        model: The model, on the CPU.
        input_shape: Shape of one input of the tasks.
        ways: Largest number of classes of a task.

    Raises:
        ModelError: It has no or frozen parameters, does not take the inputs, has too few outputs,
            or cannot be differentiated as needed.
    """
    params = model.initial()
    if not params:
        raise ModelError("model", "has no parameters", "a module with trainable parameters")
    frozen = [name for name, p in model.module.named_parameters() if not p.requires_grad]
    if frozen:
        raise ModelError(
            "model",
            f"has frozen parameters, {frozen[0]} first",
            "meta-parameters only",
            "register fixed tensors as buffers",
        )
    inputs = torch.zeros(2, *input_shape, dtype=next(iter(params.values())).dtype)
    _check_outputs(model, params, inputs, ways)
    _check_derivatives(model, params, inputs)


def _check_outputs(model: Model, params: Params, inputs: Tensor, ways: int) -> None:
    used = _Operations()
    try:
        with torch.no_grad(), used:
            outputs: Any = model(params, inputs)
    except Exception as error:
        raise ModelError(
            "model",
            f"does not take inputs of shape {list(inputs.shape[1:])} ({error})",
            "a network for the tasks' inputs",
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelError("model", f"gave {shape} for two inputs", "a tensor [2, ways]")
    if outputs.shape[1] < ways:
        raise ModelError(
            "model.ways",
            f"the model has {outputs.shape[1]} outputs but the tasks have {ways} classes",
            f"at least {ways} outputs",
        )
    for name in used.names.intersection(WRONG_THIRD_DERIVATIVE):
        raise ModelError(
            "model",
            f"calls torch's {name} in its forward, whose third derivative is wrong",
            "torch.nn.BatchNorm or torch.nn.LayerNorm modules, which are replaced on loading",
        )


def _check_derivatives(model: Model, params: Params, inputs: Tensor) -> None:
    def loss(params: Params, inputs: Tensor) -> Tensor:
        return model(params, inputs).square().mean()

    def adapted_loss(params: Params, inputs: Tensor) -> Tensor:
        step = grad(loss)(params, inputs)
        return loss({name: p - 0.01 * step[name] for name, p in params.items()}, inputs)

    def product(inputs: Tensor) -> Params:
        tangents = {name: torch.ones_like(p) for name, p in params.items()}
        result: Params = jvp(lambda p: grad(adapted_loss)(p, inputs), (params,), (tangents,))[1]
        return result

    try:
        vmap(product)(inputs[None])  # one task shows as much as several, which take more memory
    except Exception as error:
        raise ModelError(
            "model",
            f"cannot be differentiated as MAML needs it ({str(error).splitlines()[0]})",
            "operations that torch.func can vectorise and differentiate three times",
        ) from error


class _Operations(TorchFunctionMode):
    """Records the names of torch's functions that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))
