"""Digits with bad data in them, and a few clean ones, as labelled data sets.

Of 800 training digits a fifth have a wrong label, and another fifth are synthetic: turned, blurred
and noisy, as a poor generator might draw them. 200 clean ones say what is to be learned.

    python sample_configs/data_cleaning/write_digits.py runs/cleaning
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, rotate
from sklearn.datasets import load_digits

N_TRAINING, N_CLEAN, SHARE = 800, 200, 0.2


def turned(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image ``[n, 1, height, width]`` turned by 40 to 90 degrees, blurred and noisy."""
    angles = rng.uniform(40, 90, len(images)) * rng.choice([-1, 1], len(images))
    turns = [
        rotate(image.astype(float), angle, axes=(1, 2), reshape=False, order=1)
        for image, angle in zip(images, angles, strict=True)
    ]
    soft = gaussian_filter(np.stack(turns), (0, 0, 0.6, 0.6))
    return (soft + rng.normal(0, 15, soft.shape)).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Writes ``train.npz`` and ``clean.npz``; ids begin with what an instance is."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(labels))[: N_TRAINING + N_CLEAN]
    x, y = (images[order].reshape(-1, 1, 8, 8) * 15.9).astype(np.uint8), labels[order]
    count = round(SHARE * N_TRAINING)
    wrong, synthetic = slice(0, count), slice(count, 2 * count)
    y[wrong] = (y[wrong] + rng.integers(1, 10, count)) % 10
    x[synthetic] = turned(x[synthetic], rng)
    kinds = ["wrong"] * count + ["synthetic"] * count
    kinds += ["right"] * (N_TRAINING - len(kinds)) + ["clean"] * N_CLEAN
    ids = np.array([f"{kind}-{number:04d}" for number, kind in enumerate(kinds)])
    for name, rows in (("train", slice(0, N_TRAINING)), ("clean", slice(N_TRAINING, None))):
        np.savez(folder / f"{name}.npz", x=x[rows], y=y[rows], id=ids[rows])


if __name__ == "__main__":
    main()
