"""The ``tasks`` section: one kind a format on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from metaaudit.config.section import CallableName, PositiveFloat, PositiveInt, Section, Seed

Channels = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1)]
Colour = Literal["grey", "rgb"]


class ValuesConfig(Section):
    """How stored pixels become inputs.

    Attributes:
        scale: uint8 pixels are divided by this; floats are left alone.
        invert: Whether uint8 pixels are flipped (255 - pixel) first.
        mean: Subtracted from the result: one number, or one a channel.
        std: The result is divided by this: one number, or one a channel.
    """

    scale: PositiveFloat = 255.0
    invert: bool = False
    mean: Channels | None = None
    std: Annotated[list[PositiveFloat], Field(min_length=1)] | None = None


class ImageConfig(ValuesConfig):
    """Images, resized to ``size`` x ``size``.

    Attributes:
        size: Height and width; absent: as stored.
        colour: ``grey`` (one channel) or ``rgb`` (three).
    """

    size: PositiveInt | None = None
    colour: Colour = "rgb"

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> ImageConfig:
        allowed = [1] if self.colour == "grey" else [1, 3]
        for name, given in (("mean", self.mean), ("std", self.std)):
            if given is not None and len(given) not in allowed:
                raise ValueError(
                    f"image.{name} has {len(given)} numbers for colour '{self.colour}'; "
                    f"expected {' or '.join(map(str, allowed))}"
                )
        return self


class OmniglotImageConfig(ImageConfig):
    """Drawings: black on white as stored, bright strokes as input."""

    size: PositiveInt | None = 28
    colour: Colour = "grey"
    invert: bool = True


class GreyImageConfig(ImageConfig):
    """Images with one channel."""

    colour: Colour = "grey"


class EpisodeConfig(Section):
    """Size of a sampled task."""

    ways: Annotated[int, Field(ge=2)] = 5
    shots: PositiveInt = 5
    queries: PositiveInt = 5


class TrainSplitConfig(Section):
    """Training tasks.

    Attributes:
        tasks: How many.
        classes: From how many classes, drawn by ``seed``; absent: all of ``split``.
        split: From which of the data set's splits; absent: ``train`` where it has splits, but all
            classes where ``classes`` divides them, there being no ``eval.split``.
        seed: Of the choice of classes, of the division by ``eval.images`` and of the tasks.
    """

    tasks: PositiveInt
    classes: PositiveInt | None = None
    split: str | None = None
    seed: Seed = 0


class EvalSplitConfig(Section):
    """Evaluation tasks.

    Attributes:
        tasks: How many.
        split: From which of the data set's splits; absent: the classes that ``train.classes``
            leaves, or ``test`` where ``train.classes`` is absent. It may share no class with
            training.
        images: Share of every class's images that is set aside for evaluation tasks over the same
            classes as training, where a data set has too few classes to divide.
        seed: Of the tasks.
    """

    tasks: PositiveInt
    split: str | None = None
    images: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Seed = 1

    @model_validator(mode="after")
    def _one_way_to_divide(self) -> EvalSplitConfig:
        if self.split is not None and self.images is not None:
            raise ValueError("split and images are two ways to divide; remove one")
        return self


class SampledConfig(Section):
    """Tasks that are sampled from images by class.

    Attributes:
        root: Where the data set is.
        image: How an image becomes an input.
        episode: Size of a task.
        rotations: Turns in degrees (90, 180, 270) that make further classes: ``<class>@90`` and
            so on, which stay with their class when classes are divided or counted.
        splits: CSV file with the columns ``class,split``, instead of the data set's own splits.
        train: Training tasks.
        eval: Evaluation tasks.
    """

    root: Path
    image: ImageConfig = ImageConfig()
    episode: EpisodeConfig = EpisodeConfig()
    rotations: list[Literal[90, 180, 270]] = Field(default_factory=list)
    splits: Path | None = None
    train: TrainSplitConfig
    eval: EvalSplitConfig

    @model_validator(mode="after")
    def _each_turn_once(self) -> SampledConfig:
        if len(set(self.rotations)) < len(self.rotations):
            raise ValueError("rotations names a turn twice; remove one")
        return self


class OmniglotConfig(SampledConfig):
    """Omniglot's folders or zips, ``alphabet/character/image.png``."""

    format: Literal["omniglot"]
    image: OmniglotImageConfig = OmniglotImageConfig()


class IdxConfig(SampledConfig):
    """A pair of idx files, as MNIST has them, ``.gz`` or not.

    Attributes:
        root: Folder of ``*-images-idx3-ubyte`` and ``*-labels-idx1-ubyte`` files, all of which are
            read, or the file of images, whose labels lie beside it.
        image: How an image becomes an input.
    """

    format: Literal["idx"]
    image: GreyImageConfig = GreyImageConfig()


class ImageFolderConfig(SampledConfig):
    """``split/class/image`` or ``class/image``, in a folder or a zip."""

    format: Literal["image-folder"]


class ImageCsvConfig(SampledConfig):
    """CSV files ``<split>.csv`` with the columns ``filename,label``, and a folder ``images``."""

    format: Literal["image-csv"]


class MiniImagenetConfig(SampledConfig):
    """Pickles ``mini-imagenet-cache-{train,val,test}.pkl``: ``image_data`` and ``class_dict``."""

    format: Literal["mini-imagenet"]


class MetaOptNetConfig(SampledConfig):
    """Pickles ``FC100_{train,val,test}.pickle`` or ``CIFAR_FS_*``: ``data`` and ``labels``."""

    format: Literal["metaoptnet"]


class TorchmetaConfig(SampledConfig):
    """Torchmeta's HDF5 files of Omniglot, mini-ImageNet, FC100 or CIFAR-FS, and their labels.

    Attributes:
        root: Torchmeta's folder ``omniglot``, ``miniimagenet`` or ``cifar100``; where the last one
            has labels of both benchmarks, ``cifar100/fc100`` or ``cifar100/cifar-fs``.
        image: How an image becomes an input. Omniglot's are stored white on black there: they need
            ``colour: grey`` and no ``invert``.
    """

    format: Literal["torchmeta"]


class JoinedConfig(Section):
    """How tasks that are stored with support and query together are cut.

    Attributes:
        shots: Support instances a class.
        order: ``interleaved``: of each class's instances, in their order, every other one is
            support until there are ``shots`` (learn2learn); ``blocked``: the first ``shots`` are.
    """

    shots: PositiveInt
    order: Literal["interleaved", "blocked"] = "interleaved"


class EpisodesConfig(Section):
    """Ready-made tasks in ``.npz`` or HDF5 files, as this or another code base names arrays.

    Attributes:
        train: Training tasks.
        eval: Evaluation tasks.
        image: How an image becomes an input.
        joined: For files with ``data`` and ``labels``, support and query together.
    """

    format: Literal["episodes"]
    train: Path
    eval: Path
    image: ValuesConfig = ValuesConfig()
    joined: JoinedConfig | None = None


class LabelledImageConfig(ValuesConfig):
    """How a labelled instance becomes an input.

    Attributes:
        size: Height and width that images of idx files and folders are resized to; absent: as
            stored.
        colour: Of those images; absent: ``grey`` for idx files, ``rgb`` for folders.
    """

    size: PositiveInt | None = None
    colour: Colour | None = None


class LabelledConfig(Section):
    """Labelled data sets for a classifier that does not adapt, cut into batches.

    A path is a file of arrays (``.npz`` or HDF5), an idx file of images whose labels lie beside it,
    or a folder or zip of ``class/image``.

    Attributes:
        train: The training set.
        eval: The evaluation set, of the same classes.
        train_size: So many instances of it, drawn by ``seed``; absent: all.
        eval_size: Likewise.
        batch: Instances of a batch, which is scored as a task; the last one may be smaller.
        seed: Of the order in which instances are put into batches.
        image: How an instance becomes an input.
    """

    format: Literal["labelled"]
    train: Path
    eval: Path
    train_size: PositiveInt | None = None
    eval_size: PositiveInt | None = None
    batch: PositiveInt = 64
    seed: Seed = 0
    image: LabelledImageConfig = LabelledImageConfig()


class TaskFactoryConfig(Section):
    """One's own tasks.

    Attributes:
        factory: ``module:callable`` that returns the training and the evaluation tasks, two
            iterables of mappings with ``support_x``, ``support_y``, ``query_x``, ``query_y`` and
            perhaps ``task_id``, ``support_id``, ``query_id`` and ``class_names``.
        path: Folder to import the module from, if it is not installed.
        args: Keyword arguments of the callable.
        image: How an image becomes an input.
    """

    format: Literal["factory"]
    factory: CallableName
    path: Path | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    image: ValuesConfig = ValuesConfig()


FORMATS: dict[str, type[Section]] = {
    "omniglot": OmniglotConfig,
    "idx": IdxConfig,
    "image-folder": ImageFolderConfig,
    "image-csv": ImageCsvConfig,
    "mini-imagenet": MiniImagenetConfig,
    "metaoptnet": MetaOptNetConfig,
    "torchmeta": TorchmetaConfig,
    "episodes": EpisodesConfig,
    "factory": TaskFactoryConfig,
    "labelled": LabelledConfig,
}

TasksConfig = Annotated[
    OmniglotConfig
    | IdxConfig
    | ImageFolderConfig
    | ImageCsvConfig
    | MiniImagenetConfig
    | MetaOptNetConfig
    | TorchmetaConfig
    | EpisodesConfig
    | TaskFactoryConfig
    | LabelledConfig,
    Field(discriminator="format"),
]
