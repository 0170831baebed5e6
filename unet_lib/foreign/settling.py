"""Settle what a weights file leaves open: on validation cases, or by defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case
from unet_lib.foreign.comparing import (
    LoadedCase,
    compare_sizes,
    fill_channels,
    load_lesions,
    score_maps,
)
from unet_lib.foreign.layouts import StoredLayers
from unet_lib.foreign.matching import Match, input_channels
from unet_lib.foreign.reading import (
    Reading,
    lesion_map,
    options_of,
    resolve,
    run_nodes,
)
from unet_lib.images import Preprocessing

__all__ = ["POINTS", "Assumption", "Settled", "frame", "settle"]

DEFAULT_SIZE = 256
# A reading is judged at the wrong size where the true one is another; more sizes cost more time.
COMPARED_SIZES = (128, 96, 192)
SIZES = (96, 128, 160, 192, 224, 256, 320, 384, 512)
_FIRST_CASES, _LEAST_KEPT, _KEPT, _BATCH = 3, 8, 0.1, 4


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


def settle(
    matches: Sequence[Match],
    stored: StoredLayers,
    cases: Sequence[Case] | None,
    size: int | None,
    keep_aspect: bool | None,
    progress: bool,
) -> Settled:
    """Choose among matches and readings.

    With cases: every combination on three of them, the best tenth on up to twelve, at the given
    size, else at 96, 128 and 192 pixels; the highest mean Dice at one half wins, then the lowest
    cross-entropy. Then size and aspect ratio, at the images' own size.
    """
    candidates = [
        _Candidate(index, Reading(**dict(zip(options, values, strict=True))))
        for index, match in enumerate(matches)
        for options in [options_of(match.nodes, stored)]
        for values in product(*options.values())
    ]
    candidates = [c for c in candidates if c.reading.lesion >= 0 or c.reading.head == "softmax"]
    chosen, scores = candidates[0], {}
    loaded = load_lesions(cases) if cases else []
    if loaded:
        tried = [
            _compare(matches, candidates, loaded, Preprocessing(side, bool(keep_aspect)), progress)
            for side in ([size] if size else _compared_sizes(matches))
        ]
        chosen, scores = max(tried, key=lambda found: found[1][found[0]])
    match, reading = matches[chosen.match], chosen.reading
    step = 2**match.style.depth
    sizes = [size] if size else [s for s in SIZES if s % step == 0]

    tensors: dict[str, list[Any]] = {}

    def maps(images: np.ndarray) -> np.ndarray:
        return lesion_map(_logits(match, reading, images, tensors), reading)

    preprocessing, framing = frame(maps, loaded, sizes, size, keep_aspect, progress)
    open_points = _open_points(matches, candidates, chosen, scores)
    assumed = (*open_points, *framing, *_fixed(match, stored))
    return Settled(match, reading, preprocessing, assumed)


def _compared_sizes(matches: Sequence[Match]) -> list[int]:
    step = max(2**match.style.depth for match in matches)
    return [side for side in COMPARED_SIZES if side % step == 0] or [step]


def frame(
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


POINTS = {
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
        found.append(Assumption(POINTS.get(name, name), value, by, others, margin))
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
    preprocessing: Preprocessing,
    progress: bool,
) -> tuple[_Candidate, dict[_Candidate, tuple[float, float]]]:
    """Score all on a few cases, then the best on all cases."""
    scores = _score_all(matches, candidates, loaded[:_FIRST_CASES], preprocessing, progress)
    ranked = sorted(candidates, key=lambda c: scores[c], reverse=True)  # stable: defaults first
    if len(loaded) > _FIRST_CASES:
        ranked = ranked[: max(_LEAST_KEPT, int(_KEPT * len(ranked)))]
        scores = _score_all(matches, ranked, loaded, preprocessing, progress)
        ranked = sorted(ranked, key=lambda c: scores[c], reverse=True)
    return ranked[0], scores


def _score_all(
    matches: Sequence[Match],
    candidates: Sequence[_Candidate],
    loaded: list[LoadedCase],
    preprocessing: Preprocessing,
    progress: bool,
) -> dict[_Candidate, tuple[float, float]]:
    """Score candidates at the network's size; those that differ in the head share one run."""
    groups: dict[_Candidate, list[_Candidate]] = {}
    for candidate in candidates:
        run = replace(candidate, reading=replace(candidate.reading, head="sigmoid", lesion=0))
        groups.setdefault(run, []).append(candidate)
    prepared = [preprocessing.apply(*case) for case in loaded]
    images = np.stack([p.image for p in prepared])
    truths = np.stack([p.mask for p in prepared])
    tensors: dict[str, list[Any]] = {}
    scores = {}
    known: dict[int, Any] = {}
    last = None
    bar = tqdm(
        sorted(groups.items(), key=_shared),
        "reading the file",
        disable=not progress,
        unit="reading",
    )
    for run, members in bar:
        if _shared((run, members)) != last:  # nothing but the input is the same from here on
            known.clear()
            last = _shared((run, members))
        logits = _logits(matches[run.match], run.reading, images, tensors, known)
        for member in members:
            scores[member] = score_maps(lesion_map(logits, member.reading), truths)
    return scores


def _shared(group: tuple[_Candidate, Any]) -> tuple[str, str, str]:
    """Return what runs must have in common to share the values of their first layers."""
    reading = group[0].reading
    return reading.activation, reading.scale, reading.rescaling


def _logits(
    match: Match,
    reading: Reading,
    images: np.ndarray,
    tensors: dict[str, list[Any]],
    known: dict[int, Any] | None = None,
) -> np.ndarray:
    nodes = resolve(match.nodes, reading)
    batch = fill_channels(images, input_channels(match), reading.scale)
    if len(batch) <= _BATCH:
        return run_nodes(nodes, batch, tensors, known)
    parts = [batch[i : i + _BATCH] for i in range(0, len(batch), _BATCH)]
    return np.concatenate([run_nodes(nodes, part, tensors) for part in parts])
