"""Compare answers to what a weights file leaves open, on validation cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, load_case
from unet_lib.foreign.reading import SCALES
from unet_lib.images import Preprocessing
from unet_lib.metrics import count_pixels

__all__ = ["LoadedCase", "compare_sizes", "fill_channels", "load_lesions", "score_maps"]

LoadedCase = tuple[np.ndarray, np.ndarray]
"""An image (H, W, 1) in [0, 1] and its mask (H, W)."""

_MOST_CASES = 12


def load_lesions(cases: Sequence[Case]) -> list[LoadedCase]:
    """Load up to twelve cases with a lesion, spread over the list.

    Raises
    ------
    ValueError
        None has a lesion.
    """
    loaded: list[LoadedCase] = []
    step = max(1, len(cases) // (2 * _MOST_CASES))
    order = [i for start in range(step) for i in range(start, len(cases), step)]
    for index in order:
        image, truth = load_case(cases[index])
        if truth.any():
            loaded.append((image, truth))
        if len(loaded) == _MOST_CASES:
            break
    if not loaded:
        raise ValueError(
            f"calibrate_on: none of the {len(cases)} cases has a lesion; give validation cases "
            "with lesions."
        )
    return loaded


def fill_channels(images: np.ndarray, channels: int, scale: str) -> np.ndarray:
    """Bring grey images (N, S, S, 1) in [0, 1] to a network's channels and values."""
    factor, offset = SCALES[scale]
    return np.repeat(images, channels, axis=-1) * np.float32(factor) + np.float32(offset)


def score_maps(probabilities: np.ndarray, truths: np.ndarray) -> tuple[float, float]:
    """Return mean Dice at one half and the negative cross-entropy; more is better for both.

    Parameters
    ----------
    probabilities : ndarray of float, shape (N, S, S)
    truths : ndarray of bool, shape (N, S, S)
    """
    if not np.isfinite(probabilities).all():
        return -1.0, -np.inf
    found = probabilities >= 0.5
    both = (found & truths).sum(axis=(1, 2))
    size = found.sum(axis=(1, 2)) + truths.sum(axis=(1, 2))
    dice = float(np.mean(2 * both / np.maximum(size, 1)))
    inside = np.where(truths, probabilities, 1.0 - probabilities)
    return dice, float(np.mean(np.log(np.clip(inside, 1e-7, 1.0))))


def compare_sizes(
    maps: Callable[[np.ndarray], np.ndarray],
    loaded: Sequence[LoadedCase],
    sizes: Sequence[int],
    aspects: Sequence[bool],
    progress: bool,
) -> tuple[Preprocessing, float | None, float | None]:
    """Choose size and aspect ratio by the mean Dice at the images' own size.

    Parameters
    ----------
    maps : callable
        Images (N, S, S, 1) in [0, 1] to probabilities (N, S, S).
    loaded : sequence of LoadedCase
    sizes, aspects : sequence
        What is tried.
    progress : bool

    Returns
    -------
    preprocessing : Preprocessing
    size_margin, aspect_margin : float or None
        Dice over the best with another size, another aspect; None where no other was tried.
    """
    scores: dict[tuple[int, bool], float] = {}
    pairs = list(product(sizes, aspects))
    for side, keep in tqdm(pairs, "image size", disable=not progress, unit="size"):
        preparation = Preprocessing(side, keep)
        prepared = [preparation.apply(image) for image, _ in loaded]
        found = maps(np.stack([p.image for p in prepared]))
        dice = []
        for item, values, (_, truth) in zip(prepared, found, loaded, strict=True):
            full = preparation.restore(values.astype(np.float32), item.geometry)
            dice.append(count_pixels(truth, full >= 0.5).dice)
        scores[side, keep] = float(np.mean(dice))
    side, keep = max(pairs, key=lambda pair: scores[pair])
    best = scores[side, keep]
    size = [s for (other, _), s in scores.items() if other != side]
    aspect = [s for (_, other), s in scores.items() if other != keep]
    return (
        Preprocessing(side, keep),
        best - max(size) if size else None,
        best - max(aspect) if aspect else None,
    )
