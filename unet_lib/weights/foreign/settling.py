"""Settle what a weights file leaves open: on validation cases, or by defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case
from unet_lib.images import Preprocessing
from unet_lib.weights.foreign.comparing import (
    LoadedCase,
    compare_sizes,
    fill_channels,
    load_lesions,
    score_maps,
)
from unet_lib.weights.foreign.layouts import StoredLayers
from unet_lib.weights.foreign.matching import Match
from unet_lib.weights.foreign.reading import (
    SCALES,
    Reading,
    lesion_map,
    options_of,
    resolve,
    run_nodes,
)

__all__ = ["Assumption", "Settled", "input_channels", "settle", "settle_topology"]

DEFAULT_SIZE = 256
SIZES = (96, 128, 160, 192, 224, 256, 320, 384, 512)
_FIRST_CASES, _LEAST_KEPT, _KEPT = 3, 8, 0.25


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
    settled_by: str
    alternatives: tuple[Any, ...] = ()
    margin: float | None = None

    def __str__(self) -> str:
        text = f"{self.point}: {self.value} ({self.settled_by}"
        if self.margin is not None:
            text += f", Dice {self.margin:+.3f} over the best alternative"
        others = ", ".join(map(str, self.alternatives))
        return f"{text}{f'; could be {others}' if others else ''})"


@dataclass(frozen=True)
class Settled:
    """A match with everything filled in."""

    match: Match
    reading: Reading
    preprocessing: Preprocessing
    assumed: tuple[Assumption, ...]


@dataclass(frozen=True)
class _Candidate:
    match: int
    reading: Reading
    size: int


def settle(
    matches: Sequence[Match],
    stored: StoredLayers,
    cases: Sequence[Case] | None,
    size: int | None,
    keep_aspect: bool | None,
    progress: bool,
) -> Settled:
    """Choose among matches and readings.

    With cases: every combination with the usual activation function on three of them, the best
    quarter with every function on up to twelve, at the network's size; the highest mean Dice at one
    half wins, then the lowest cross-entropy. Then size and aspect ratio, at the images' own size.
    """
    sides = [size] if size else ([128, DEFAULT_SIZE] if cases else [DEFAULT_SIZE])
    candidates = [
        _Candidate(index, Reading(**dict(zip(options, values, strict=True))), side)
        for index, match in enumerate(matches)
        for options in [options_of(match.nodes, stored)]
        for values in product(*options.values())
        for side in sides
    ]
    candidates = [c for c in candidates if c.reading.lesion >= 0 or c.reading.head == "softmax"]
    chosen, scores = candidates[0], {}
    loaded = load_lesions(cases) if cases else []
    if loaded:
        chosen, scores = _compare(matches, candidates, loaded, bool(keep_aspect), progress)
    match, reading = matches[chosen.match], chosen.reading
    step = 2**match.style.depth
    sizes = [size] if size else [s for s in SIZES if s % step == 0]

    def maps(images: np.ndarray) -> np.ndarray:
        return lesion_map(_logits(match, reading, images), reading)

    preprocessing, framing = _frame(maps, loaded, sizes, size, keep_aspect, progress)
    open_points = _open_points(matches, candidates, chosen, scores)
    assumed = (*open_points, *framing, *_fixed(match, stored))
    return Settled(match, reading, preprocessing, assumed)


def _frame(
    maps: Any,
    loaded: Sequence[LoadedCase],
    sizes: list[int],
    size: int | None,
    keep_aspect: bool | None,
    progress: bool,
) -> tuple[Preprocessing, list[Assumption]]:
    """Settle size and aspect ratio."""
    aspects = [False, True] if keep_aspect is None else [keep_aspect]
    default = size or (DEFAULT_SIZE if DEFAULT_SIZE in sizes else sizes[-1])
    chosen, margins = Preprocessing(default, aspects[0]), (None, None)
    if loaded and len(sizes) * len(aspects) > 1:
        chosen, *margins = compare_sizes(maps, loaded, sizes, aspects, progress)
    by = "validation" if loaded else "default"
    words = {False: "squeezed to the square", True: "kept, padded"}
    side, keep = chosen.size, chosen.keep_aspect
    others = tuple(s for s in sizes if s != side)
    return chosen, [
        Assumption("image size", side, "user" if size else by, others, margins[0]),
        Assumption(
            "aspect ratio", words[keep], by if keep_aspect is None else "user",
            (words[not keep],) if keep_aspect is None else (), margins[1],
        ),
    ]  # fmt: skip


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

    Raises
    ------
    ValueError
        The network takes another size than the given one, or no square.
    """
    height, width, channels = network.input_shape[1:]
    outputs = network.output_shape[-1]
    if height is not None and (height != width or size not in (None, height)):
        raise ValueError(
            f"this network takes {height} x {width} pixels; a square of size={size or height} is "
            "expected."
        )
    loaded = load_lesions(cases) if cases else []
    scales = ["bytes", "unit", "symmetric"] if rescales else list(SCALES)
    lesions = [0] if outputs == 1 else [-1, *range(outputs)]
    sides = [height or size] if height or size else [DEFAULT_SIZE, 128]

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
            points.append(Assumption(_POINTS[name], chosen[index], by, others, margin))
    if logits:
        points.append(Assumption("values of the output", "logits, through a sigmoid", "default"))
    sizes = [height or size] if height or size else list(SIZES)
    preprocessing, framing = _frame(
        lambda images: maps(images, *chosen), loaded, sizes, height or size, keep_aspect, progress
    )
    if height:  # in the file
        framing = framing[1:]
    threshold = Assumption("threshold", 0.5, "default")
    return preprocessing, *chosen, (*points, *framing, threshold)


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
    "size": "size at which candidates were compared",
}


def _values(matches: Sequence[Match], candidate: _Candidate) -> dict[str, Any]:
    return {**asdict(matches[candidate.match].style), **asdict(candidate.reading)}


def _open_points(
    matches: Sequence[Match],
    candidates: Sequence[_Candidate],
    chosen: _Candidate,
    scores: dict[_Candidate, tuple[float, float]],
) -> list[Assumption]:
    """List every point on which the candidates differ, with the margin where they were scored."""
    table = [(c, _values(matches, c)) for c in candidates]
    mine = _values(matches, chosen)
    found = []
    for name, value in mine.items():
        others = tuple(dict.fromkeys(v[name] for _, v in table if v[name] != value))
        fixed_head = name in ("head", "lesion") and not others
        if not others and not fixed_head:
            continue
        margin = None
        if scores:
            rivals = [scores[c][0] for c, v in table if v[name] != value and c in scores]
            margin = scores[chosen][0] - max(rivals) if rivals else None
        if fixed_head and name == "lesion":
            continue
        by = "validation" if scores and others else "default"
        found.append(Assumption(_POINTS.get(name, name), value, by, others, margin))
    return found


def _fixed(match: Match, stored: StoredLayers) -> list[Assumption]:
    """List what was neither in the file nor tried."""
    points = []
    if any(node.role == "norm" for node in match.nodes):
        points.append(Assumption("epsilon of the normalisation", 0.001, "default"))
    if match.style.gate != "none":
        points.append(Assumption("activations of the gates", "relu, sigmoid", "default"))
    if match.style.down in ("max", "average") and match.style.block != "entry":
        points.append(Assumption("pooling window", "2 x 2", "default"))
    if not stored.complete:
        points.append(Assumption("kind of pooling", match.style.down, "default"))
    if stored.count("lambda"):
        points.append(
            Assumption("Lambda layers (their code is not in the file)", "scaling only", "default")
        )
    points.append(Assumption("operations that are no layers, such as +", "none", "default"))
    points.append(Assumption("padding, dilation", "same, 1", "default"))
    points.append(Assumption("threshold", 0.5, "default"))
    return points


def _compare(
    matches: Sequence[Match],
    candidates: list[_Candidate],
    loaded: list[LoadedCase],
    keep_aspect: bool,
    progress: bool,
) -> tuple[_Candidate, dict[_Candidate, tuple[float, float]]]:
    """Score all but the activation function on a few cases, then the best with each function."""
    usual = candidates[0].reading.activation
    first = [c for c in candidates if c.reading.activation == usual]
    scores = _score_all(matches, first, loaded[:_FIRST_CASES], keep_aspect, progress)
    ranked = sorted(first, key=lambda c: scores[c], reverse=True)  # stable: defaults first
    kept = set(ranked[: max(_LEAST_KEPT, int(_KEPT * len(ranked)))])
    second = [
        c for c in candidates if replace(c, reading=replace(c.reading, activation=usual)) in kept
    ]
    scores = _score_all(matches, second, loaded, keep_aspect, progress)
    return max(second, key=lambda c: scores[c]), scores


def _score_all(
    matches: Sequence[Match],
    candidates: Sequence[_Candidate],
    loaded: list[LoadedCase],
    keep_aspect: bool,
    progress: bool,
) -> dict[_Candidate, tuple[float, float]]:
    """Score candidates at the network's size; those that differ in the head share one run."""
    groups: dict[_Candidate, list[_Candidate]] = {}
    for candidate in candidates:
        run = replace(candidate, reading=replace(candidate.reading, head="sigmoid", lesion=0))
        groups.setdefault(run, []).append(candidate)
    prepared = {
        side: [Preprocessing(side, keep_aspect).apply(*case) for case in loaded]
        for side in {c.size for c in candidates}
    }
    scores = {}
    bar = tqdm(groups.items(), "reading the file", disable=not progress, unit="reading")
    for run, members in bar:
        images = np.stack([p.image for p in prepared[run.size]])
        truths = np.stack([p.mask for p in prepared[run.size]])
        logits = _logits(matches[run.match], run.reading, images)
        for member in members:
            scores[member] = score_maps(lesion_map(logits, member.reading), truths)
    return scores


def _logits(match: Match, reading: Reading, images: np.ndarray) -> np.ndarray:
    nodes = resolve(match.nodes, reading)
    batch = fill_channels(images, input_channels(match), reading.scale)
    return np.concatenate([run_nodes(nodes, batch[i : i + 4]) for i in range(0, len(batch), 4)])


def input_channels(match: Match) -> int:
    """Return the channels of the input."""
    first = next(node for node in match.nodes if node.kind in ("conv2d", "separable_conv2d"))
    return first.stored.arrays[0].shape[2]
