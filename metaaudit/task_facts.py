"""What is known of tasks and items beside their scores: copies, kinds, overlap, classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metaaudit.findings import WATCHED, RuleName
from metaaudit.influence import Outliers
from metaaudit.inputs.contents import duplicates, image_contents
from metaaudit.inputs.task_set import SETS, TaskSet
from metaaudit.labelnoise import Contradictions, LabelNoise, class_name
from metaaudit.runs.tables import ItemRow


@dataclass(frozen=True)
class TaskFacts:
    """What the tasks are made of, in their order.

    Attributes:
        duplicates: Ids of the other tasks with the same images.
        shared_classes: Names of classes that evaluation tasks have too.
        shared_images: Number of images that evaluation tasks have too.
    """

    duplicates: list[tuple[str, ...]]
    shared_classes: list[tuple[str, ...]]
    shared_images: list[int]

    @classmethod
    def of(cls, train: TaskSet, evaluation: TaskSet, images: dict[int, str]) -> TaskFacts:
        """The facts on the training tasks.

        Args:
            train: The training tasks.
            evaluation: The evaluation tasks.
            images: Content hashes of the training images, by row.
        """
        held_out = set(image_contents(evaluation).values())
        # A classifier is there for the classes that it was trained on.
        told = () if train.labelled else evaluation.tasks
        classes = {name for task in told for name in task.class_names if name}
        rows = [np.concatenate([task.rows(name) for name in SETS]).tolist() for task in train.tasks]
        return cls(
            duplicates(train, images),
            [tuple(name for name in task.class_names if name in classes) for task in train.tasks],
            [sum(images[row] in held_out for row in members) for members in rows],
        )

    def warnings(self, train: TaskSet) -> list[str]:
        """One line where training and evaluation tasks share images."""
        shared, total = sum(self.shared_images), train.n_instances
        if not shared:
            return []
        return [
            f"{shared} of the {total} instances of training tasks are in evaluation tasks too, "
            "which say nothing new of them: neither influence nor flags of labels can be trusted"
        ]

    def sentences(self, train: TaskSet, contradictions: Contradictions) -> dict[str, list[str]]:
        """The facts that may explain a finding, by task id.

        Args:
            train: The training tasks.
            contradictions: Of their query labels.
        """
        result: dict[str, list[str]] = {}
        for row, task in enumerate(train.tasks):
            lines = []
            if others := self.duplicates[row]:
                more = f" and {len(others) - 3} more" if len(others) > 3 else ""
                lines.append(f"same images as {', '.join(others[:3])}{more}")
            if contradictions.q_value[row] <= WATCHED:
                pairs = contradictions.renamings[row].items()
                other = ", ".join(
                    f"{class_name(task, a)} as {class_name(task, b)}" for a, b in pairs
                )
                lines.append(f"its query labels fit best if one reads {other}")
            if names := self.shared_classes[row]:
                lines.append(
                    f"{len(names)} of its {len(task.class_names)} classes are in evaluation tasks "
                    f"too: {', '.join(names[:5])}"
                )
            if count := self.shared_images[row]:
                lines.append(f"{count} of its {sum(task.shape)} images are in evaluation tasks too")
            result[task.task_id] = lines
        return result


def unexplained(odd: Outliers, noise: LabelNoise, fdr: float) -> Outliers:
    """An outlier test of losses without the tasks whose wrong labels explain theirs.

    Args:
        odd: The outlier test.
        noise: What is known of the labels.
        fdr: False-discovery rate of the flags on labels.
    """
    explained = (noise.noisy_q <= fdr) | (noise.contradictions.q_value <= fdr)
    q_value = np.where(explained, 1.0, odd.q_value)
    return Outliers(odd.z, q_value, odd.flagged & ~explained)


def task_kinds(
    noise: LabelNoise, odd: Outliers, copies: list[tuple[str, ...]], fdr: float
) -> list[tuple[RuleName, ...]]:
    """For each task what is wrong with it beside harm.

    Args:
        noise: What is known of the labels.
        odd: The outlier test of the losses.
        copies: For each task the ids of those with the same images.
        fdr: False-discovery rate of each flag.
    """
    result: list[tuple[RuleName, ...]] = []
    for k, others in enumerate(copies):
        kinds: list[RuleName] = []
        if noise.noisy_q[k] <= fdr:
            kinds.append("noisy")
        if noise.contradictions.q_value[k] <= fdr:
            kinds.append("contradictory")
        if others:
            kinds.append("duplicate")
        if odd.flagged[k]:
            kinds.append("outlier")
        result.append(tuple(kinds))
    return result


def item_rows(noise: LabelNoise, influence: np.ndarray, images: dict[int, str]) -> list[ItemRow]:
    """Rows of ``items.csv``, unranked.

    Args:
        noise: What is known of the labels.
        influence: ``[n_instances]``.
        images: Content hashes, by row of the image pool.
    """
    return [
        ItemRow(
            rank=0,
            instance_id=item.instance_id,
            label=item.label,
            suggested_label=item.suggested,
            occurrences=len(item.occurrences),
            flagged=int(noise.mislabeled[list(item.occurrences)].sum()),
            mislabel_score=item.score,
            q_value=float(noise.item_q[i]),
            mislabeled=bool(noise.item_mislabeled[i]),
            influence=float(influence[list(item.occurrences)].sum()),
            content=images[item.row],
        )
        for i, item in enumerate(noise.items)
    ]
