"""Which classes, and which of their images, training and evaluation tasks are drawn from.

Evaluation tasks are of classes that training tasks lack, unless ``eval.images`` asks for the same
classes: then no image is in both. What cannot be divided so ends with an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from metaaudit.config.tasks import SampledConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.csv_files import read_rows
from metaaudit.inputs.source import ImageSource

Splits = Mapping[str, Sequence[str]]

_IMAGES_STREAM = 3  # first word of the seeds; tasks have 1 and 2


def divide(source: ImageSource, config: SampledConfig) -> tuple[ImageSource, ImageSource]:
    """What training tasks and what evaluation tasks are sampled from.

    Args:
        source: All classes, none of them turned.
        config: Its ``train``, ``eval`` and ``splits``.

    Raises:
        TaskSetError: The data set cannot be divided as asked, or a class would be on both sides.
    """
    splits = read_splits(config.splits, source) if config.splits else source.splits
    return _Division(source, splits, config).sides()


def read_splits(path: Path, source: ImageSource) -> Splits:
    """The splits that a CSV file with the columns ``class,split`` makes of a data set's classes.

    Classes that are not in it are in no split.

    Raises:
        TaskSetError: The file cannot be read, names a class that the data set lacks, or one twice.
    """
    splits: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for where, (name, split) in read_rows(path, ("class", "split")):
        if name not in source.classes:
            what = f"class '{name}' is not in {source.where}"
            raise TaskSetError(where, what, "its classes", _nearest(name, source.classes))
        if name in seen:
            what = f"class '{name}' is there twice, as '{seen[name]}' and as '{split}'"
            raise TaskSetError(where, what, "one row a class", "remove one")
        seen[name] = split
        splits.setdefault(split, []).append(name)
    return splits


@dataclass(frozen=True)
class _Division:
    """How classes are divided.

    Attributes:
        source: All classes.
        splits: Those of the file that is configured, else the data set's own.
        config: What is asked.
    """

    source: ImageSource
    splits: Splits
    config: SampledConfig

    def sides(self) -> tuple[ImageSource, ImageSource]:
        pool = self._pool()
        used = len(pool) if self.config.train.classes is None else self.config.train.classes
        if self.config.train.classes is not None:
            order = np.random.default_rng([self.config.train.seed]).permutation(len(pool))
            pool = [pool[row] for row in order]
        if self.config.eval.images is not None:
            self._check_enough(pool, used)
            return self._by_images(pool[:used], self.config.eval.images)
        if self.config.eval.split is None and self.config.train.classes is not None:
            evaluation = self._left(pool, used)
        else:
            self._check_enough(pool, used)
            evaluation = self._evaluation_split(pool[:used])
        return self._restricted(pool[:used]), self._restricted(evaluation)

    def _pool(self) -> list[str]:
        """The classes that training may use, sorted."""
        train, evaluation = self.config.train, self.config.eval
        if train.split is not None:
            return self._split("train", train.split, asked=True)
        if not self.splits and train.classes is None and evaluation.images is None:
            raise TaskSetError(
                "tasks.train.classes",
                f"is missing, and {self.source.where} has no splits",
                "how many classes training tasks are drawn from",
                "give it, or divide by tasks.splits or tasks.eval.images",
            )
        if self.splits and (train.classes is None or evaluation.split is not None):
            return self._split("train", "train", asked=False)
        if self.config.splits and evaluation.split is None:
            raise TaskSetError(
                "tasks.splits",
                "is not used: tasks.train.classes divides all classes",
                remedy="give tasks.train.split or tasks.eval.split, or remove it",
            )
        return sorted(self.source.classes)

    def _split(self, side: str, name: str, *, asked: bool) -> list[str]:
        """The classes of a split, sorted."""
        owner, key = self.config.splits or self.source.where, f"tasks.{side}.split"
        if not self.splits:
            what = f"is '{name}', and {owner} has no splits"
            raise TaskSetError(key, what, remedy="remove it, or give tasks.splits")
        if name not in self.splits:
            there = f"one of {', '.join(sorted(self.splits))}"
            if asked:
                what = f"'{name}' is no split of {owner}"
                raise TaskSetError(key, what, there, _nearest(name, self.splits))
            what = f"{owner} has no split '{name}', which is taken by default"
            raise TaskSetError(key, what, there, "give it")
        self._check_apart(owner)
        return sorted(self.splits[name])

    def _check_apart(self, owner: Path) -> None:
        split_of: dict[str, str] = {}
        for split, names in self.splits.items():
            for name in names:
                if split_of.setdefault(name, split) != split:
                    raise TaskSetError(
                        owner,
                        f"class '{name}' is in the splits '{split_of[name]}' and '{split}'",
                        "splits that share no class",
                        "divide the classes by tasks.splits or tasks.train.classes",
                    )

    def _check_enough(self, pool: Sequence[str], used: int) -> None:
        if used > len(pool):
            raise TaskSetError(
                "tasks.train.classes",
                f"is {used}, and there are {len(pool)} classes to draw from",
                f"at most {len(pool)}",
            )

    def _left(self, pool: Sequence[str], used: int) -> list[str]:
        """What ``train.classes`` leaves, without what looks like a class of training."""
        alike = self._kinds(pool[:used])
        rest = [name for name in pool[used:] if self._kind(name) not in alike]
        # Turns make more of what is left.
        if len(rest) * (1 + len(self.config.rotations)) < self.config.episode.ways:
            raise TaskSetError(
                self.source.where,
                f"holds {len(pool)} classes; {used} for training leave {len(rest)} for evaluation",
                f"at least {self.config.episode.ways}",
                "lower tasks.train.classes or tasks.episode.ways",
            )
        return rest

    def _evaluation_split(self, used: Sequence[str]) -> list[str]:
        asked = self.config.eval.split
        names = self._split("eval", asked or "test", asked=asked is not None)
        alike = self._kinds(used)
        shared = [name for name in names if self._kind(name) in alike]
        if shared:
            raise TaskSetError(
                "tasks.eval.split",
                f"'{asked or 'test'}' has {len(shared)} classes that training tasks use, or that "
                f"look like one that they use, such as '{shared[0]}'",
                "classes that training lacks",
                "name another split, or take the same classes by tasks.eval.images",
            )
        return names

    def _by_images(self, names: Sequence[str], share: float) -> tuple[ImageSource, ImageSource]:
        """The same classes twice, each image on one side."""
        sides: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
        number = {name: row for row, name in enumerate(sorted(self.source.classes))}
        for name in names:
            ids = self.source.classes[name]
            rng = np.random.default_rng([_IMAGES_STREAM, self.config.train.seed, number[name]])
            held_out = set(rng.permutation(len(ids))[: round(share * len(ids))].tolist())
            sides[0][name] = [ids[row] for row in range(len(ids)) if row not in held_out]
            sides[1][name] = [ids[row] for row in range(len(ids)) if row in held_out]
        train, evaluation = (replace(self.source, classes=side) for side in sides)
        return train, evaluation

    def _restricted(self, names: Iterable[str]) -> ImageSource:
        classes = {name: self.source.classes[name] for name in names}
        return replace(self.source, classes=classes)

    def _kinds(self, names: Iterable[str]) -> set[str]:
        return {self._kind(name) for name in names}

    def _kind(self, name: str) -> str:
        return self.source.kinds.get(name, name)


def _nearest(name: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f"did you mean '{close[0]}'?" if close else ""
