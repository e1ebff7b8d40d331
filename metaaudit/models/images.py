"""What networks for images have in common."""

from __future__ import annotations

from torch import Tensor, nn

from metaaudit.errors import ModelError


class SpatialMean(nn.Module):
    """Mean over positions: ``[batch, channels, height, width] -> [batch, channels]``."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Averages the last two dimensions."""
        return inputs.mean((-2, -1))


def check_images(input_shape: tuple[int, ...], channels: int) -> tuple[int, int]:
    """Height and width of images ``(channels, height, width)``.

    Raises:
        ModelError: The inputs have another shape.
    """
    if len(input_shape) != 3 or input_shape[0] != channels:
        raise ModelError(
            "model.in_channels",
            f"is {channels} but the tasks' inputs have shape {list(input_shape)}",
            "images [channels, height, width]",
        )
    return input_shape[1], input_shape[2]


def check_positions(name: str, input_shape: tuple[int, ...], left: tuple[int, int]) -> int:
    """Number of positions that a network leaves of an image.

    Raises:
        ModelError: It leaves none.
    """
    height, width = left
    if height < 1 or width < 1:
        raise ModelError(
            "model",
            f"{name} leaves nothing of {input_shape[1]}x{input_shape[2]} images",
            "larger images",
            "raise tasks.image.size, or use another model",
        )
    return height * width
