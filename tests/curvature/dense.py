"""EK-FAC as a dense matrix, by loops and automatic differentiation alone.

Nothing here comes from the package: layers are told apart by their modules, patches are cut by
hand, and gradients are those of the loss in the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional
from torch.nn.functional import cross_entropy

HEURISTIC = 0.1


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Compares entries to a tolerance that is relative to the largest one."""
    found, expected = found.detach(), expected.detach()
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    assert found.isfinite().all() and expected.isfinite().all()
    scale = float(expected.abs().max())
    ratio = (found - expected).abs() / (scale or 1.0)
    worst = tuple(int(i) for i in torch.unravel_index(ratio.argmax(), ratio.shape))
    assert ratio[worst] <= tolerance, (
        f"{float(found[worst])} at {worst}, expected {float(expected[worst])}: "
        f"{float(ratio[worst]):.1e} of the largest, {scale}"
    )


def trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def sample_gradients(module: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """By parameter, ``[n, *shape]``: of the loss of each instance, all in one batch."""

    def losses(params: dict[str, Tensor]) -> Tensor:
        state = {name: buffer.clone() for name, buffer in module.named_buffers()}
        outputs = functional_call(module, {**state, **params}, (inputs,))
        return cross_entropy(outputs, labels, reduction="none")

    return jacrev(losses)(trained(module))


def flat_gradients(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """``[n, size]``."""
    gradients = sample_gradients(module, inputs, labels)
    return torch.cat([part.flatten(1) for part in gradients.values()], dim=1)


def probabilities(module: nn.Module, inputs: Tensor) -> Tensor:
    """``[n, classes]``, leaving the buffers alone."""
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return functional_call(module, state, (inputs,)).softmax(-1).detach()


def term_labels(
    module: nn.Module, inputs: Tensor, labels: Tensor, fisher: str
) -> list[tuple[Tensor, Tensor]]:
    """Labels and weights ``[n]`` of every term of the Fisher matrix."""
    if fisher == "empirical":
        return [(labels, torch.ones(len(labels), dtype=torch.float64))]
    p = probabilities(module, inputs)
    return [(torch.full_like(labels, c), p[:, c].sqrt()) for c in range(p.shape[1])]


def term_gradients(module: nn.Module, inputs: Tensor, labels: Tensor, fisher: str) -> Tensor:
    """``[terms, n, size]``: their outer products add up to the Fisher matrix of each instance."""
    return torch.stack(
        [
            flat_gradients(module, inputs, own) * weights[:, None]
            for own, weights in term_labels(module, inputs, labels, fisher)
        ]
    )


def fisher_matrix(gradients: Tensor) -> Tensor:
    """``[size, size]`` from ``[terms, n, size]``, one outer product after another."""
    total = torch.zeros(2 * gradients.shape[-1:], dtype=gradients.dtype)
    for term in gradients:
        for vector in term:
            total += torch.outer(vector, vector)
    return total / gradients.shape[1]


def gauss_newton(module: nn.Module, inputs: Tensor) -> Tensor:
    """``mean_n J^T (diag p - p p^T) J`` of cross-entropy."""
    total = 0.0
    jacobian = jacrev(lambda params: functional_call(module, params, (inputs,)))(trained(module))
    flat = torch.cat([part.flatten(2) for part in jacobian.values()], dim=2)
    for rows, p in zip(flat, probabilities(module, inputs), strict=True):
        total = total + rows.T @ (torch.diag(p) - torch.outer(p, p)) @ rows
    return total / len(inputs)


# Layers


def is_kronecker(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear | nn.Conv2d)


def trained_layers(module: nn.Module) -> dict[str, nn.Module]:
    return {
        path: part
        for path, part in module.named_modules()
        if any(p.requires_grad for p in part.parameters(recurse=False))
    }


def entry_indices(module: nn.Module, path: str) -> Tensor:
    """Where the entries of a layer's matrices ``[groups, outputs, inputs]`` are in a flat vector.

    The inputs end with the bias. For a normalisation ``[features, 1, 1 or 2]``.
    """
    places, start = {}, 0
    for name, p in trained(module).items():
        places[name] = torch.arange(start, start + p.numel())
        start += p.numel()
    part = module.get_submodule(path)
    groups, outputs = _matrices(part)
    own = {name: places[f"{path}.{name}".lstrip(".")] for name in dict(part.named_parameters())}
    columns = [own["weight"].reshape(groups, outputs, -1)]
    if "bias" in own:
        columns.append(own["bias"].reshape(groups, outputs, 1))
    return torch.cat(columns, dim=-1)


def _matrices(part: nn.Module) -> tuple[int, int]:
    if isinstance(part, nn.Linear):
        return 1, part.out_features
    if isinstance(part, nn.Conv2d):
        return part.groups, part.out_channels // part.groups
    return part.weight.numel(), 1


def passes(
    module: nn.Module, inputs: Tensor, labels: Tensor, fisher: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """By Linear and Conv2d layer, ``a [n, groups, positions, inputs]`` and
    ``g [terms, n, groups, positions, outputs]``."""
    entered: dict[str, Tensor] = {}
    left: dict[str, Tensor] = {}
    parts = {path: p for path, p in trained_layers(module).items() if is_kronecker(p)}
    handles = []
    for path, part in parts.items():

        def keep(_, args, named, output, path=path):
            entered[path] = (args or tuple(named.values()))[0].detach().clone()
            left[path] = output
            return output.clone()

        handles.append(part.register_forward_hook(keep, with_kwargs=True))
    try:
        outputs = module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    gradients: dict[str, list[Tensor]] = {path: [] for path in parts}
    for own, weights in term_labels(module, inputs, labels, fisher):
        loss = (weights * cross_entropy(outputs, own, reduction="none")).sum()
        found = torch.autograd.grad(loss, list(left.values()), retain_graph=True)
        for path, gradient in zip(left, found, strict=True):
            gradients[path].append(_output_rows(parts[path], gradient))
    return {
        path: (_input_rows(part, entered[path]), torch.stack(gradients[path]))
        for path, part in parts.items()
    }


def _output_rows(part: nn.Module, gradient: Tensor) -> Tensor:
    if isinstance(part, nn.Linear):
        return gradient.reshape(len(gradient), 1, -1, part.out_features)
    n, channels = gradient.shape[:2]
    by_group = gradient.reshape(n, part.groups, channels // part.groups, -1)
    return by_group.transpose(-1, -2)


def _input_rows(part: nn.Module, entered: Tensor) -> Tensor:
    if isinstance(part, nn.Linear):
        rows = entered.reshape(len(entered), 1, -1, part.in_features)
    else:
        rows = torch.stack([_patches(part, own) for own in _channels(part, entered)], dim=1)
    if part.bias is None:
        return rows
    return torch.cat([rows, torch.ones(*rows.shape[:-1], 1, dtype=rows.dtype)], dim=-1)


def _channels(conv: nn.Conv2d, images: Tensor) -> list[Tensor]:
    each = conv.in_channels // conv.groups
    return [images[:, start : start + each] for start in range(0, conv.in_channels, each)]


def _patches(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """``[n, positions, channels * height * width]``."""
    (top, bottom), (left, right) = (_padding(conv, dim) for dim in range(2))
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = functional.pad(images, (left, right, top, bottom), mode=mode)
    (rows, columns), (down, across) = conv.kernel_size, conv.dilation
    tall, wide = (rows - 1) * down + 1, (columns - 1) * across + 1
    return torch.stack(
        [
            padded[:, :, y : y + tall : down, x : x + wide : across].flatten(1)
            for y in range(0, padded.shape[2] - tall + 1, conv.stride[0])
            for x in range(0, padded.shape[3] - wide + 1, conv.stride[1])
        ],
        dim=1,
    )


def _padding(conv: nn.Conv2d, dim: int) -> tuple[int, int]:
    if conv.padding == "valid":
        return 0, 0
    if conv.padding == "same":
        total = conv.dilation[dim] * (conv.kernel_size[dim] - 1)
        return total // 2, total - total // 2
    return conv.padding[dim], conv.padding[dim]


def outer_sum(rows: Tensor) -> Tensor:
    """``sum r r^T`` of rows ``[*, groups, positions, width]`` over all but groups, by loops."""
    *_, groups, _, width = rows.shape
    total = torch.zeros(groups, width, width, dtype=rows.dtype)
    for sample in rows.reshape(-1, *rows.shape[-3:]):
        for group, positions in enumerate(sample):
            for row in positions:
                total[group] += torch.outer(row, row)
    return total


# EK-FAC


@dataclass(frozen=True)
class Block:
    """One group of one layer: ``Q diag(values) Q^T`` at ``indices`` of the flat vector."""

    path: str
    indices: Tensor
    basis: Tensor
    values: Tensor

    @property
    def matrix(self) -> Tensor:
        return self.basis @ torch.diag(self.values) @ self.basis.T


@dataclass(frozen=True)
class Dense:
    """EK-FAC of a network.

    Attributes:
        size: Number of parameters.
        blocks: Of every group of every layer; the features of a normalisation are one.
    """

    size: int
    blocks: list[Block]

    @classmethod
    def of(cls, module: nn.Module, inputs: Tensor, labels: Tensor, fisher: str) -> Dense:
        gradients = term_gradients(module, inputs, labels, fisher)
        recorded = passes(module, inputs, labels, fisher)
        return cls(gradients.shape[-1], list(_blocks(module, gradients, recorded)))

    @property
    def matrix(self) -> Tensor:
        total = torch.zeros(self.size, self.size, dtype=torch.float64)
        for block in self.blocks:
            total[block.indices[:, None], block.indices] = block.matrix
        return total

    def damping(self, damping: float | str) -> Tensor:
        """A diagonal matrix."""
        if damping != "heuristic":
            return damping * torch.eye(self.size, dtype=torch.float64)
        diagonal = torch.zeros(self.size, dtype=torch.float64)
        for path in {block.path for block in self.blocks}:
            own = [block for block in self.blocks if block.path == path]
            mean = torch.cat([block.values for block in own]).mean()
            diagonal[torch.cat([block.indices for block in own])] = HEURISTIC * mean
        return torch.diag(diagonal)

    def solve(self, vectors: Tensor, damping: float | str) -> Tensor:
        """``(F + damping)^-1 v`` of rows."""
        return torch.linalg.solve(self.matrix + self.damping(damping), vectors.T).T


def _blocks(
    module: nn.Module, gradients: Tensor, recorded: dict[str, tuple[Tensor, Tensor]]
) -> Iterator[Block]:
    for path, part in trained_layers(module).items():
        indices = entry_indices(module, path)
        if not is_kronecker(part):
            own = indices.flatten()
            basis = torch.eye(len(own), dtype=torch.float64)
            yield Block(path, own, basis, _mean_squares(gradients[..., own]))
            continue
        a, g = recorded[path]
        entering, leaving = outer_sum(a), outer_sum(g)
        for group, matrix in enumerate(indices):
            basis = torch.kron(
                torch.linalg.eigh(leaving[group]).eigenvectors,
                torch.linalg.eigh(entering[group]).eigenvectors,
            )
            own = matrix.flatten()
            yield Block(path, own, basis, _mean_squares(gradients[..., own] @ basis))


def _mean_squares(rotated: Tensor) -> Tensor:
    return rotated.square().sum(0).mean(0)
