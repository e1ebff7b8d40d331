"""From probabilities to flags: which labels and which tasks are doubted, and how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from metaaudit.config.mislabel import MislabelConfig, Signal
from metaaudit.inputs.task_set import Ints, TaskSet
from metaaudit.labelnoise.calibration import calibrate, harder
from metaaudit.labelnoise.items import Item, pool_items
from metaaudit.labelnoise.judgement import Judgement, Probabilities, judge
from metaaudit.labelnoise.task_kinds import (
    Contradictions,
    calibration_of,
    contradictions,
    label_noise,
    noisy_q_values,
)
from metaaudit.robust import running_rates

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LOSSES = ("loss", "crossfit-loss", "leave-one-out", "combined")
MARGINS = ("margin", "crossfit-margin")
MUCH_HARDER = 2.0
"""In logarithms of odds: 7 times."""


@dataclass(frozen=True)
class Evidence:
    """What the learner says of a task set's labels, in its order of instances.

    Attributes:
        crossfit: ``[n_instances, n_outputs]`` out-of-fold log-probabilities.
        adapted: ``[n_instances, n_outputs]`` log-probabilities after adaptation to the support.
        left_out: Likewise, with each support instance left out of the adaptation, by itself or
            with others; where a signal asks for it.
        other: ``[n_instances]``: a signal that is none of probabilities; where it is asked for.
    """

    crossfit: Probabilities
    adapted: Probabilities
    left_out: Probabilities | None = None
    other: Floats | None = None


@dataclass(frozen=True)
class LabelNoise:
    """What is known of every label, in the training tasks' order of instances.

    Attributes:
        signal: ``[n_instances]``, the configured signal; the ranking follows it.
        score: ``[n_instances]``, the same on a scale from 0 to 1: ``mislabel_score``.
        trusted_score: ``[n_trusted]``, that of the evaluation tasks.
        suggested: ``[n_instances]``, the likeliest label out of fold.
        margin: ``[n_instances]``, out of fold.
        wrong: ``[n_instances]``, probability that the label is wrong.
        q_value: ``[n_instances]``.
        mislabeled: ``[n_instances]``, bool.
        harder: By how much labels fit less surely than those of evaluation tasks, in logarithms of
            odds.
        warnings: One line for each reason why the evaluation tasks may say little of the training
            tasks.
        items: Every image with its pooled evidence.
        item_q: ``[n_items]``.
        item_mislabeled: ``[n_items]``, bool.
        label_noise: ``[n_tasks]``, expected share of wrong labels.
        noisy_q: ``[n_tasks]``.
        contradictions: Of the tasks' query labels.
    """

    signal: Floats
    score: Floats
    trusted_score: Floats
    suggested: Ints
    margin: Floats
    wrong: Floats
    q_value: Floats
    mislabeled: Flags
    harder: float
    warnings: list[str]
    items: list[Item]
    item_q: Floats
    item_mislabeled: Flags
    label_noise: Floats
    noisy_q: Floats
    contradictions: Contradictions


def detect(
    train: TaskSet,
    evidence: Evidence,
    trusted: TaskSet,
    trusted_evidence: Evidence,
    config: MislabelConfig,
) -> LabelNoise:
    """Finds wrong labels in training tasks, by what is usual in tasks with trusted labels.

    Args:
        train: The tasks in doubt.
        evidence: What the learner says of their labels.
        trusted: The evaluation tasks.
        trusted_evidence: Likewise.
        config: Signal and false-discovery rate.
    """
    judgement = judge(evidence.crossfit, train)
    values = signal_values(config.signal, evidence, judgement, train)
    trusted_judgement = judge(trusted_evidence.crossfit, trusted)
    trusted_values = signal_values(config.signal, trusted_evidence, trusted_judgement, trusted)
    odds, trusted_odds = (_log_odds(config.signal, part) for part in (values, trusted_values))
    shift = 0.0
    if config.signal in (*LOSSES, *MARGINS):  # the others do not tell how sure the learner is
        undoubted = odds[judgement.margin < 0], trusted_odds[trusted_judgement.margin < 0]
        shift = harder(*undoubted)
    found = calibrate(odds, trusted_odds + shift)
    # Where no other label is suggested with confidence, there is nothing to be mistaken for.
    wrong = np.where(judgement.confident, found, 0.0)
    q_value = running_rates(1 - wrong, values)
    score, trusted_score = _on_unit_scale(config.signal, values, trusted_values)
    items = pool_items(train, judgement.suggested, score, wrong)
    item_wrong = np.array([item.wrong for item in items])
    item_q = running_rates(1 - item_wrong, np.array([item.score for item in items]))
    renamed, noisy_q = Contradictions.none(len(train)), np.ones(len(train))
    if not train.labelled:  # whose batches are drawn at random, and have no support
        noisy_q = noisy_q_values(wrong, train, config.noisy_share)
        temperature, lapse = calibration_of(trusted_evidence.adapted, trusted)
        renamed = contradictions(evidence.adapted, train, temperature, lapse)
    return LabelNoise(
        signal=values,
        score=score,
        trusted_score=trusted_score,
        suggested=judgement.suggested,
        margin=judgement.margin,
        wrong=wrong,
        q_value=q_value,
        mislabeled=q_value <= config.fdr,
        harder=shift,
        warnings=_warnings(train, trusted, shift, noisy_q <= config.fdr),
        items=items,
        item_q=item_q,
        item_mislabeled=item_q <= config.fdr,
        label_noise=label_noise(wrong, train),
        noisy_q=noisy_q,
        contradictions=renamed,
    )


def signal_values(
    signal: Signal, evidence: Evidence, judgement: Judgement, task_set: TaskSet
) -> Floats:
    """A signal of every instance ``[n_instances]``, higher where a label is more suspicious."""
    if signal == "crossfit-loss":
        return judgement.loss
    if signal == "crossfit-margin":
        return judgement.margin
    if signal in ("self-influence", "own-influence"):
        assert evidence.other is not None
        return evidence.other
    if signal in ("loss", "margin"):
        adapted = judge(evidence.adapted, task_set)
        return adapted.loss if signal == "loss" else adapted.margin
    assert evidence.left_out is not None
    left_out = judge(evidence.left_out, task_set).loss
    return left_out if signal == "leave-one-out" else (judgement.loss + left_out) / 2


def _log_odds(signal: Signal, values: Floats) -> Floats:
    """A loss as the logarithm of the odds against the label; a margin is one; the rest stays."""
    if signal not in LOSSES:
        return values
    loss = np.maximum(values, np.finfo(float).tiny)
    odds: Floats = loss + np.log(-np.expm1(-loss))
    return odds


def _warnings(train: TaskSet, trusted: TaskSet, shift: float, noisy: Flags) -> list[str]:
    found = []
    ours, theirs = (
        [(task.ways, *task.shape) for task in tasks.tasks] for tasks in (train, trusted)
    )
    unlike = sum(size not in theirs for size in ours)
    if unlike > len(ours) / 2 and not train.labelled:
        found.append(
            f"no evaluation task has the size of {unlike} of the {len(ours)} training tasks, so "
            "that what is usual there says little of wrong labels here: give evaluation tasks of "
            "the same ways, shots and queries"
        )
    if noisy.sum() > len(train) / 4:
        found.append(
            f"{noisy.sum()} of {len(train)} tasks look noisy: perhaps they are only harder than "
            "the evaluation tasks; look at a few before you believe it"
        )
    if shift > MUCH_HARDER:
        found.append(
            f"labels of training tasks fit much worse than those of evaluation tasks (median odds "
            f"against them {math.exp(shift):.0f} times larger): many are wrong, or the tasks are "
            "harder, and then flags of labels are less sure than they say"
        )
    return found


def _on_unit_scale(signal: Signal, values: Floats, trusted: Floats) -> tuple[Floats, Floats]:
    """Values and those of trusted labels from 0 to 1, in the same order.

    A loss becomes 1 minus a probability, a margin the probability of the likeliest other label
    against the given one, what has no natural scale the share of trusted labels below it.
    """
    if signal in MARGINS:
        return expit(values), expit(trusted)
    if signal not in LOSSES:
        usual = np.sort(trusted)
        below = (np.searchsorted(usual, part, side="left") for part in (values, trusted))
        score, trusted_score = (part / len(trusted) for part in below)
        return score, trusted_score
    return -np.expm1(-values), -np.expm1(-trusted)
