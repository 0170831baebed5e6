"""Settle what a weights file leaves open: on validation cases, or by defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, load_case
from unet_lib.foreign.networks import DEFAULT_SIZE, Network, Reading, Variant, lesion_map
from unet_lib.images import Preprocessing
from unet_lib.metrics import count_pixels

_MOST_CASES, _FIRST_CASES, _LEAST_KEPT, _KEPT = 12, 3, 8, 0.1
_LEAST_DICE, _LEAST_MARGIN = 0.7, 0.01  # below which a reading is not settled
_HARMLESS = ("activation function", "interpolation of resizing")  # where Dice is nearly the same
_SQUEEZED, _PADDED = "squeezed to the square", "kept, padded"
_POINTS = {
    "merge": "order of concatenation",
    "activation_first": "activation before normalisation",
    "up_activation": "activation after up-sampling",
    "end": "last activation of residual blocks",
    "swap": "which convolution of a pair takes which input",
    "activation": "activation function",
    "interpolation": "interpolation of resizing",
    "groups": "groups of the normalisation",
    "scale": "values of the input",
    "rescaling": "what the file's scaling layer makes of bytes",
    "head": "activation of the output",
    "lesion": "output that is the lesion (-1: all but the first)",
}

Candidate = tuple[Variant, Reading]
LoadedCase = tuple[np.ndarray, np.ndarray]  # image (H, W, 1) in [0, 1], mask (H, W)


@dataclass(frozen=True)
class Assumption:
    """One point that a file does not tell.

    Attributes
    ----------
    point : str
    value : object
        What was taken.
    settled_by : str
        "default", "validation", "user".
    alternatives : tuple
        What else it could be; empty where nothing else was tried.
    margin : float or None
        Mean Dice on the validation cases, less that of the best alternative.
    """

    point: str
    value: Any
    settled_by: str = "default"
    alternatives: tuple[Any, ...] = ()
    margin: float | None = None

    def __str__(self) -> str:
        text = f"{self.point}: {self.value} ({self.settled_by}"
        if self.margin is not None:
            text += f", Dice {self.margin:+.3f} over the best alternative"
        others = ", ".join(map(str, self.alternatives))
        return f"{text}{f'; could be {others}' if others else ''})"


def narrow(
    path: str | Path,
    variant: Variant,
    images: list[np.ndarray],
    scale: str | None,
    head: str | None,
) -> Variant:
    """Add the data set's mean and deviation to what is tried, and keep what the user states."""
    options = dict(variant.options)
    if images and len(options["scale"]) > 1:
        mean = np.mean([image.mean() for image in images])
        square = np.mean([(image.astype(np.float64) ** 2).mean() for image in images])
        measured = f"set {mean:.6g} {max(np.sqrt(square - mean**2), 1e-7):.6g}"
        options["scale"] = (*options["scale"], measured)
    for name, value in (("scale", scale), ("head", head)):
        if value is None:
            continue
        fits = [option for option in options.get(name, ()) if value in (option, option.split()[0])]
        if name == "scale" and re.fullmatch(r"set [-+.e\d]+ [-+.e\d]+", value):
            fits = [value]
        if not fits:
            raise ValueError(
                f"{path}: {name} can be {', '.join(options.get(name, ())) or 'nothing else'} here; "
                f"received {value!r}."
            )
        options[name] = tuple(fits)
    return replace(variant, options=options)


def load_lesions(cases: Sequence[Case]) -> list[LoadedCase]:
    """Load up to twelve cases with a lesion, spread over the list."""
    step = max(1, len(cases) // (2 * _MOST_CASES))
    spread = (case for start in range(step) for case in cases[start::step])
    loaded = list(islice((pair for pair in map(load_case, spread) if pair[1].any()), _MOST_CASES))
    if not loaded:
        raise ValueError(
            f"calibrate_on: none of the {len(cases)} cases has a lesion; give validation cases "
            "with lesions."
        )
    return loaded


def settle(
    variants: Sequence[Variant],
    loaded: Sequence[LoadedCase],
    sides: Sequence[int],
    keep_aspect: bool,
    progress: bool,
) -> tuple[Variant, Reading, list[Assumption]]:
    """Choose among variants and readings, and list every point on which they differ.

    With cases: all on three of them, the best tenth on all, at each of the sizes; the highest mean
    Dice at one half wins, then the lowest cross-entropy.
    """
    candidates = [
        (variant, Reading(**dict(zip(variant.options, values, strict=True))))
        for variant in variants
        for values in product(*variant.options.values())
    ]
    # "All but the first" is for outputs that exclude one another.
    candidates = [c for c in candidates if c[1].lesion >= 0 or c[1].head != "sigmoid"]
    chosen, scores = candidates[0], {}
    ranked = dict.fromkeys(sides, candidates)
    for count in sorted({min(_FIRST_CASES, len(loaded)), len(loaded)} - {0}):
        tried = _score_all(ranked, loaded[:count], keep_aspect, progress)
        for side, table in tried.items():
            order = sorted(table, key=table.get, reverse=True)  # stable: defaults first
            ranked[side] = order[: max(_LEAST_KEPT, int(_KEPT * len(order)))]
        scores = max(tried.values(), key=lambda table: max(table.values()))
        chosen = max(scores, key=scores.get)
    points, values = [], chosen[0].style | vars(chosen[1])
    for name, value in values.items():
        others = {c: c[0].style | vars(c[1]) for c in candidates}
        others = {c: own[name] for c, own in others.items() if own[name] != value}
        if others or (name == "head" and value != "none"):
            by = "validation" if scores and others else "default"
            rivals = [scores[c][0] for c in others if c in scores]
            best = scores[chosen][0] if scores else 0.0
            margin = best - max(rivals) if rivals else None
            tried = tuple(dict.fromkeys(others.values()))
            points.append(Assumption(_POINTS.get(name, name), value, by, tried, margin))
    return *chosen, points


def _score_all(
    ranked: dict[int, list[Candidate]],
    loaded: Sequence[LoadedCase],
    keep_aspect: bool,
    progress: bool,
) -> dict[int, dict[Candidate, tuple[float, float]]]:
    """Score each size's candidates; one run serves all input values and heads."""
    scores: dict[int, dict[Candidate, tuple[float, float]]] = {side: {} for side in ranked}
    variants = dict.fromkeys(variant for some in ranked.values() for variant, _ in some)
    for variant in tqdm(variants, "reading the file", disable=not progress):
        network = variant.build()
        for side, candidates in ranked.items():
            prepared = [Preprocessing(side, keep_aspect).apply(*case) for case in loaded]
            images, truths = (
                np.stack([getattr(p, k) for p in prepared]) for k in ("image", "mask")
            )
            values: dict[Reading, dict[str, np.ndarray]] = {}
            for candidate in candidates:
                reading = candidate[1]
                body = replace(reading, scale="unit", head="none", lesion=0)
                if candidate[0] is not variant:
                    continue
                if body not in values:
                    network.read(body)
                    values[body] = network.values(images, *variant.options["scale"])
                maps = lesion_map(values[body][reading.scale], reading)
                scores[side][candidate] = _score(maps, truths)
    return scores


def _score(probabilities: np.ndarray, truths: np.ndarray) -> tuple[float, float]:
    """Return mean Dice at one half and the negative cross-entropy; more is better for both."""
    if not np.isfinite(probabilities).all():
        return -1.0, -np.inf
    masks = probabilities >= 0.5
    both = (masks & truths).sum(axis=(1, 2))
    size = masks.sum(axis=(1, 2)) + truths.sum(axis=(1, 2))
    inside = np.where(truths, probabilities, 1.0 - probabilities)
    entropy = float(np.mean(np.log(np.clip(inside, 1e-7, 1.0))))
    return float(np.mean(2 * both / np.maximum(size, 1))), entropy


def frame(
    network: Network,
    reading: Reading,
    loaded: Sequence[LoadedCase],
    sizes: Sequence[int],
    size: int | None,
    keep_aspect: bool | None,
    progress: bool,
) -> tuple[Preprocessing, list[Assumption], float | None]:
    """Settle size and aspect ratio by the mean Dice at the images' own size, which comes last."""
    fits = {None: (_SQUEEZED, _PADDED), False: (_SQUEEZED,), True: (_PADDED,)}[keep_aspect]
    pairs = list(product(sizes, fits))
    chosen = (size or (DEFAULT_SIZE if DEFAULT_SIZE in sizes else sizes[-1]), fits[0])
    scores: dict[tuple[int, str], float] = {}
    for pair in tqdm(pairs if loaded else [], "image size", disable=not progress):
        preparation = Preprocessing(pair[0], pair[1] == _PADDED)
        prepared = [preparation.apply(image) for image, _ in loaded]
        values = network.values(np.stack([p.image for p in prepared]), reading.scale)
        maps = lesion_map(values[reading.scale], reading).astype(np.float32)
        full = [
            preparation.restore(value, item.geometry)
            for item, value in zip(prepared, maps, strict=True)
        ]
        dice = [
            count_pixels(truth, one >= 0.5).dice
            for one, (_, truth) in zip(full, loaded, strict=True)
        ]
        scores[pair] = float(np.mean(dice))
    chosen = max(scores, key=scores.get) if scores else chosen
    points = []
    for place, name, given in ((0, "image size", size), (1, "aspect ratio", keep_aspect)):
        others = [pair for pair in pairs if pair[place] != chosen[place]]
        by = "user" if given is not None else "validation" if loaded else "default"
        rivals = [scores[pair] for pair in others if scores]
        margin = scores[chosen] - max(rivals) if rivals else None
        tried = tuple(dict.fromkeys(pair[place] for pair in others))
        points.append(Assumption(name, chosen[place], by, tried, margin))
    return Preprocessing(chosen[0], chosen[1] == _PADDED), points, scores.get(chosen)


def explain_doubt(points: list[Assumption], dice: float | None) -> str | None:
    """Say why what was assumed may be wrong."""
    if dice is None:
        return "not settled: without validation cases all that the file leaves open is a default"
    if dice < _LEAST_DICE:
        return f"not settled: the best reading has a Dice of {dice:.2f} on the validation cases"
    close = [
        str(p)
        for p in points
        if p.margin is not None and p.margin < _LEAST_MARGIN and p.point not in _HARMLESS
    ]
    return f"not settled, Dice hardly differs: {'; '.join(close)}" if close else None
