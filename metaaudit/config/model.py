"""The ``model`` section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from metaaudit.config.section import CallableName, PositiveFloat, PositiveInt, Section


class NetworkConfig(Section):
    """What every network has.

    Attributes:
        statistics: What batch normalisation normalises by: ``batch``, the inputs at hand, as in
            MAML, or ``running``, what the checkpoint holds.
    """

    statistics: Literal["batch", "running"] = "batch"


class Conv4Config(NetworkConfig):
    """Blocks of 3x3 convolution, normalisation and activation, then a linear layer.

    Attributes:
        hidden: Channels of every block.
        blocks: Number of blocks.
        in_channels: Channels of an input image.
        ways: Classes of a task.
        downsample: ``stride`` (stride-2 convolutions) or ``max_pool`` (2x2 max pooling).
        norm: Normalisation after every convolution.
        activation: ``relu``, or ``softplus``, which has a second derivative everywhere.
        features: What the linear layer sees: the ``mean`` over positions or all positions
            (``flatten``); absent: ``mean`` with ``stride`` and ``flatten`` with ``max_pool``.
        gain: Standard deviation of a convolution's initial weights times the root of its fan-in,
            its biases being 0; absent: PyTorch's own, too small to learn without normalisation.
    """

    name: Literal["conv4"]
    hidden: PositiveInt = 32
    blocks: PositiveInt = 4
    in_channels: PositiveInt = 1
    ways: PositiveInt = 5
    downsample: Literal["stride", "max_pool"] = "stride"
    norm: Literal["batch", "group", "none"] = "batch"
    activation: Literal["relu", "softplus"] = "relu"
    features: Literal["mean", "flatten"] | None = None
    gain: PositiveFloat | None = None


class MlpConfig(NetworkConfig):
    """Fully connected layers with ReLU between them.

    Attributes:
        hidden: Width of each hidden layer.
        ways: Classes of a task.
    """

    name: Literal["mlp"]
    hidden: list[PositiveInt] = Field(default_factory=lambda: [64, 64])
    ways: PositiveInt = 5


class OmniglotFCConfig(NetworkConfig):
    """learn2learn's ``OmniglotFC``: fully connected layers, normalisation and ReLU.

    Attributes:
        sizes: Width of each hidden layer.
        ways: Classes of a task.
    """

    name: Literal["l2l-omniglot-fc"]
    sizes: list[PositiveInt] = Field(default_factory=lambda: [256, 128, 64, 64], min_length=1)
    ways: PositiveInt = 5


class OmniglotCNNConfig(NetworkConfig):
    """learn2learn's ``OmniglotCNN``: stride-2 convolutions, then the mean over positions.

    Attributes:
        hidden: Channels of every block.
        layers: Number of blocks.
        ways: Classes of a task.
    """

    name: Literal["l2l-omniglot-cnn"]
    hidden: PositiveInt = 64
    layers: PositiveInt = 4
    ways: PositiveInt = 5


class CNN4Config(NetworkConfig):
    """learn2learn's ``CNN4``, also called ``MiniImagenetCNN``.

    Attributes:
        hidden: Channels of every block.
        layers: Number of blocks, 4 at most.
        in_channels: Channels of an input image.
        max_pool: Whether blocks pool, or convolve with a stride.
        ways: Classes of a task.
    """

    name: Literal["l2l-cnn4"]
    hidden: PositiveInt = 64
    layers: Annotated[int, Field(ge=1, le=4)] = 4
    in_channels: PositiveInt = 3
    max_pool: bool = True
    ways: PositiveInt = 5


class ResNet12Config(NetworkConfig):
    """learn2learn's ``ResNet12``, without its dropout.

    Attributes:
        in_channels: Channels of an input image.
        wider: 64, 160, 320 and 640 channels, as MetaOptNet has, or 64, 128, 256 and 512.
        avg_pool: Whether the mean over positions is taken at the end.
        ways: Classes of a task.
    """

    name: Literal["l2l-resnet12"]
    in_channels: PositiveInt = 3
    wider: bool = True
    avg_pool: bool = True
    ways: PositiveInt = 5


class TorchmetaConv4Config(NetworkConfig):
    """The Conv-4 of torchmeta's examples and of pytorch-maml, with max pooling.

    Attributes:
        hidden: Channels of every block.
        in_channels: Channels of an input image.
        ways: Classes of a task.
    """

    name: Literal["torchmeta-conv4"]
    hidden: PositiveInt = 64
    in_channels: PositiveInt = 1
    ways: PositiveInt = 5


class MamlPytorchConfig(NetworkConfig):
    """The networks of dragen1860's MAML-Pytorch, which normalise after the ReLU.

    Attributes:
        hidden: Channels of every block; 64 for Omniglot and 32 for mini-ImageNet there.
        in_channels: Channels of an input image.
        ways: Classes of a task.
    """

    name: Literal["maml-pytorch-omniglot", "maml-pytorch-mini-imagenet"]
    hidden: PositiveInt | None = None
    in_channels: PositiveInt | None = None
    ways: PositiveInt = 5


class FactoryConfig(NetworkConfig):
    """One's own model.

    Attributes:
        factory: ``module:callable`` that returns a ``torch.nn.Module``.
        path: Folder to import the module from, if it is not installed.
        args: Keyword arguments of the callable.
    """

    factory: CallableName
    path: Path | None = None
    args: dict[str, Any] = Field(default_factory=dict)


def _model_kind(value: Any) -> str | None:
    """Tag of the union's member that a ``model`` section means; ``None`` if it names none."""
    if isinstance(value, FactoryConfig) or (isinstance(value, dict) and "factory" in value):
        return "factory"
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if isinstance(name, str) else None


MODELS: dict[str, type[Section]] = {
    "conv4": Conv4Config,
    "mlp": MlpConfig,
    "l2l-omniglot-fc": OmniglotFCConfig,
    "l2l-omniglot-cnn": OmniglotCNNConfig,
    "l2l-cnn4": CNN4Config,
    "l2l-resnet12": ResNet12Config,
    "torchmeta-conv4": TorchmetaConv4Config,
    "maml-pytorch-omniglot": MamlPytorchConfig,
    "maml-pytorch-mini-imagenet": MamlPytorchConfig,
    "factory": FactoryConfig,
}

ModelConfig = Annotated[
    Annotated[Conv4Config, Tag("conv4")]
    | Annotated[MlpConfig, Tag("mlp")]
    | Annotated[OmniglotFCConfig, Tag("l2l-omniglot-fc")]
    | Annotated[OmniglotCNNConfig, Tag("l2l-omniglot-cnn")]
    | Annotated[CNN4Config, Tag("l2l-cnn4")]
    | Annotated[ResNet12Config, Tag("l2l-resnet12")]
    | Annotated[TorchmetaConv4Config, Tag("torchmeta-conv4")]
    | Annotated[MamlPytorchConfig, Tag("maml-pytorch-omniglot")]
    | Annotated[MamlPytorchConfig, Tag("maml-pytorch-mini-imagenet")]
    | Annotated[FactoryConfig, Tag("factory")],
    Discriminator(_model_kind),
]
