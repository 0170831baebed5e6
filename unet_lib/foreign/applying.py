"""Settle how a network whose topology is in the file wants its images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import keras
import numpy as np

from unet_lib.dataset import Case
from unet_lib.foreign.comparing import fill_channels, load_lesions, score_maps
from unet_lib.foreign.reading import SCALES
from unet_lib.foreign.settling import DEFAULT_SIZE, POINTS, SIZES, Assumption, frame
from unet_lib.images import Preprocessing

__all__ = ["output_at", "settle_topology"]


def output_at(network: keras.Model, side: int) -> tuple[int | None, ...]:
    """Return the shape that a network makes of one square; () where the square does not fit."""
    try:
        return tuple(network.compute_output_shape((1, side, side, network.input_shape[-1])))
    except ValueError:
        return ()


def settle_topology(
    network: keras.Model,
    logits: bool,
    rescales: bool,
    cases: Sequence[Case] | None,
    size: int | None,
    keep_aspect: bool | None,
    progress: bool,
) -> tuple[Preprocessing, str, int, tuple[Assumption, ...]]:
    """Settle what a file with its topology leaves open: values of the input, lesion, size.

    Returns
    -------
    preprocessing : Preprocessing
    scale : str
    lesion : int
    assumed : tuple of Assumption
    """
    height, _, channels = network.input_shape[1:]
    outputs = network.output_shape[-1]
    loaded = load_lesions(cases) if cases else []
    scales = ["bytes", "unit", "symmetric"] if rescales else list(SCALES)
    lesions = [0] if outputs == 1 else [-1, *range(outputs)]
    sizes = [height or size]
    if not any(sizes):
        sizes = [side for side in SIZES if output_at(network, side)[1:3] == (side, side)]
    sides = [side for side in (DEFAULT_SIZE, 128) if side in sizes] or sizes

    def maps(images: np.ndarray, scale: str, lesion: int) -> np.ndarray:
        batch = fill_channels(images, channels, scale)
        values = np.asarray(network.predict_on_batch(batch), np.float64)
        if logits:
            values = 1.0 / (1.0 + np.exp(-np.clip(values, -500, 500)))
        return 1.0 - values[..., 0] if lesion < 0 else values[..., lesion]

    scores: dict[tuple[str, int], tuple[float, float]] = {}
    chosen = scales[0], lesions[0]
    if loaded:
        for side in sides:
            preparation = Preprocessing(side, bool(keep_aspect))
            prepared = [preparation.apply(*case) for case in loaded]
            images, truths = (
                np.stack([getattr(p, k) for p in prepared]) for k in ("image", "mask")
            )
            for pair in product(scales, lesions):
                scores[pair] = max(
                    scores.get(pair, (-2.0, 0.0)), score_maps(maps(images, *pair), truths)
                )
        chosen = max(scores, key=lambda pair: scores[pair])
    by = "validation" if loaded else "default"
    points = []
    for index, (name, values) in enumerate((("scale", scales), ("lesion", lesions))):
        if len(values) > 1:
            rivals = [score[0] for pair, score in scores.items() if pair[index] != chosen[index]]
            margin = scores[chosen][0] - max(rivals) if rivals else None
            others = tuple(value for value in values if value != chosen[index])
            points.append(Assumption(POINTS[name], chosen[index], by, others, margin))
    if logits:
        points.append(Assumption("values of the output", "logits, through a sigmoid", "default"))
    preprocessing, framing = frame(
        lambda images: maps(images, *chosen), loaded, sizes, height or size, keep_aspect, progress
    )
    if height:  # in the file
        framing = framing[1:]
    threshold = Assumption("threshold", 0.5, "default")
    return preprocessing, *chosen, (*points, *framing, threshold)
