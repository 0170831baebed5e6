"""Settle what a weights file leaves open: on validation cases, or by defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, load_case
from unet_lib.foreign.networks import DEFAULT_SIZE, Network, Reading, Variant
from unet_lib.images import Preprocessing
from unet_lib.metrics import count_pixels

__all__ = ["Assumption", "explain_doubt", "frame", "lesion_map", "load_lesions", "narrow", "settle"]

_MOST_CASES, _FIRST_CASES, _LEAST_KEPT, _KEPT = 12, 3, 8, 0.1
_LEAST_DICE, _LEAST_MARGIN = 0.7, 0.01  # below which a reading is not settled
_HARMLESS = ("activation function", "interpolation of resizing")  # where Dice is nearly the same
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


@dataclass(frozen=True)
class Candidate:
    """A variant (by its number) under one reading."""

    variant: int
    reading: Reading


def load_lesions(cases: Sequence[Case]) -> list[LoadedCase]:
    """Load up to twelve cases with a lesion, spread over the list."""
    loaded: list[LoadedCase] = []
    step = max(1, len(cases) // (2 * _MOST_CASES))
    for index in (i for start in range(step) for i in range(start, len(cases), step)):
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


def lesion_map(values: np.ndarray, reading: Reading) -> np.ndarray:
    """Turn a network's values (N, S, S, outputs) into lesion probabilities (N, S, S)."""
    values = values.astype(np.float64)
    if reading.head == "sigmoid":
        values = 1.0 / (1.0 + np.exp(-np.clip(values, -500, 500)))
    elif reading.head == "softmax":
        exponents = np.exp(values - values.max(axis=-1, keepdims=True))
        values = exponents / exponents.sum(axis=-1, keepdims=True)
    return 1.0 - values[..., 0] if reading.lesion < 0 else values[..., reading.lesion]


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


def settle(
    variants: Sequence[Variant],
    loaded: Sequence[LoadedCase],
    sides: Sequence[int],
    keep_aspect: bool,
    progress: bool,
) -> tuple[Candidate, list[Assumption]]:
    """Choose among variants and readings, and list every point on which they differ.

    With cases: all on three of them, the best tenth on all, at each of the sizes; the highest mean
    Dice at one half wins, then the lowest cross-entropy.
    """
    candidates = [
        Candidate(number, Reading(**dict(zip(variant.options, values, strict=True))))
        for number, variant in enumerate(variants)
        for values in product(*variant.options.values())
    ]
    # "All but the first" is for outputs that exclude one another.
    candidates = [c for c in candidates if c.reading.lesion >= 0 or c.reading.head != "sigmoid"]
    chosen, scores = candidates[0], {}
    if loaded:
        ranked = dict.fromkeys(sides, candidates)
        for cases in (loaded[:_FIRST_CASES], loaded):
            tried = _score_all(variants, ranked, cases, keep_aspect, progress)
            for side, table in tried.items():
                order = sorted(table, key=table.get, reverse=True)  # stable: defaults first
                ranked[side] = order[: max(_LEAST_KEPT, int(_KEPT * len(order)))]
            if len(loaded) <= _FIRST_CASES:
                break
        best = max(tried, key=lambda side: tried[side][ranked[side][0]])
        chosen, scores = ranked[best][0], tried[best]
    return chosen, _open_points(variants, candidates, chosen, scores)


def _score_all(
    variants: Sequence[Variant],
    ranked: dict[int, list[Candidate]],
    loaded: Sequence[LoadedCase],
    keep_aspect: bool,
    progress: bool,
) -> dict[int, dict[Candidate, tuple[float, float]]]:
    """Score each size's candidates; one run serves all input values and heads."""
    scores: dict[int, dict[Candidate, tuple[float, float]]] = {side: {} for side in ranked}
    for number, variant in enumerate(tqdm(variants, "reading the file", disable=not progress)):
        network = variant.build()
        for side, candidates in ranked.items():
            prepared = [Preprocessing(side, keep_aspect).apply(*case) for case in loaded]
            images, truths = (
                np.stack([getattr(p, k) for p in prepared]) for k in ("image", "mask")
            )
            values: dict[Reading, dict[str, np.ndarray]] = {}
            for candidate in candidates:
                if candidate.variant != number:
                    continue
                reading = candidate.reading
                body = replace(reading, scale="unit", head="none", lesion=0)
                if body not in values:
                    network.read(body)
                    values[body] = network.values(images, *variant.options["scale"])
                maps = lesion_map(values[body][reading.scale], reading)
                scores[side][candidate] = _score(maps, truths)
    return scores


def _open_points(
    variants: Sequence[Variant],
    candidates: Sequence[Candidate],
    chosen: Candidate,
    scores: dict[Candidate, tuple[float, float]],
) -> list[Assumption]:
    """List every point on which the candidates differ, with the margin where they were scored."""
    table = [(c, variants[c.variant].style | vars(c.reading)) for c in candidates]
    points = []
    for name, value in (variants[chosen.variant].style | vars(chosen.reading)).items():
        others = tuple(dict.fromkeys(v[name] for _, v in table if v[name] != value))
        if others:
            rivals = [scores[c][0] for c, v in table if v[name] != value and c in scores]
            margin = scores[chosen][0] - max(rivals) if rivals else None
            by = "validation" if scores else "default"
            points.append(Assumption(_POINTS.get(name, name), value, by, others, margin))
        elif name == "head" and value != "none":
            points.append(Assumption(_POINTS[name], value))
    return points


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
    aspects = [False, True] if keep_aspect is None else [keep_aspect]
    default = size or (DEFAULT_SIZE if DEFAULT_SIZE in sizes else sizes[-1])
    pairs = list(product(sizes, aspects))
    scores: dict[tuple[int, bool], float] = {}
    for pair in tqdm(pairs if loaded else [], "image size", disable=not progress):
        preparation = Preprocessing(*pair)
        prepared = [preparation.apply(image) for image, _ in loaded]
        values = network.values(np.stack([p.image for p in prepared]), reading.scale)
        maps = lesion_map(values[reading.scale], reading).astype(np.float32)
        dice = []
        for item, value, (_, truth) in zip(prepared, maps, loaded, strict=True):
            full = preparation.restore(value, item.geometry)
            dice.append(count_pixels(truth, full >= 0.5).dice)
        scores[pair] = float(np.mean(dice))
    chosen = max(scores, key=scores.get) if scores else (default, aspects[0])
    words = {False: "squeezed to the square", True: "kept, padded"}

    def point(name: str, place: int, given: object, values: list[Any]) -> Assumption:
        rivals = [score for pair, score in scores.items() if pair[place] != chosen[place]]
        margin = scores[chosen] - max(rivals) if rivals else None
        by = "user" if given is not None else "validation" if loaded else "default"
        others = [value for value in values if value != chosen[place]]
        value, *others = [words[v] if place else v for v in (chosen[place], *others)]
        return Assumption(name, value, by, tuple(others), margin)

    points = [
        point("image size", 0, size, list(sizes)),
        point("aspect ratio", 1, keep_aspect, aspects),
    ]
    return Preprocessing(*chosen), points, scores.get(chosen)


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
