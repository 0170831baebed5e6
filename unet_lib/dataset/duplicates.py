"""Find near-duplicate pictures: the same view cut, scaled, brightened or written on differently.

Local features propose pairs and an affine map between them; the speckle decides. Two pictures of
the same organ look alike, but only copies of one picture (or neighbouring frames) share the fine
grain, so the normalised cross-correlation of the high-pass over the overlap is what counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.images import as_grey, as_image, read_pixels
from unet_lib.settings import Settings

__all__ = ["VERSION", "DuplicateRule", "Pair", "find_duplicates"]

VERSION = 1
"""Raised whenever the same pictures may give other pairs, so that cached ones are found anew."""


@dataclass(frozen=True)
class DuplicateRule(Settings):
    """When two pictures are near-duplicates.

    The values were chosen on BUSI, the only audited set there is, and are judged on it again: its
    recall and precision are those of a fit. A correlation of .18 to .25 gives nearly the same
    groups. Copies of phantoms, which had no part in the choice, are in
    ``tests/test_duplicates.py``.

    Attributes
    ----------
    side : int
        Longest side in pixels to which pictures are reduced; smaller ones stay.
    features : int
        SIFT key points of a picture, the strongest ones.
    neighbours : int
        Nearest descriptors that are asked for each.
    votes : int
        Matches between two pictures from which the pair is examined.
    inliers : int
        Matches that one affine map must explain.
    least_scale, most_scale : float
        Of the map, on either axis.
    shear : float
        Largest off-diagonal entry of the map: copies are neither turned nor mirrored.
    overlap : float
        Least share of the smaller picture that both must show.
    correlation : float
        Least normalised cross-correlation of the speckle over the overlap.
    """

    side: int = 384
    features: int = 400
    neighbours: int = 8
    votes: int = 12
    inliers: int = 6
    least_scale: float = 0.5
    most_scale: float = 2.0
    shear: float = 0.2
    overlap: float = 0.1
    correlation: float = 0.2


class Pair(NamedTuple):
    """Two pictures of one view, by their position, ``first < second``; 1.0 are equal pixels."""

    first: int
    second: int
    correlation: float


class _Features(NamedTuple):
    picture: np.ndarray  # uint8, reduced
    points: np.ndarray  # (K, 2) float32, x and y
    descriptors: np.ndarray  # (K, 128) float32


def find_duplicates(
    paths: Sequence[Path], rule: DuplicateRule | None = None, *, progress: bool = True
) -> list[Pair]:
    """Find the pairs of near-duplicates among pictures.

    Parameters
    ----------
    paths : sequence of Path
        Image files.
    rule : DuplicateRule, optional
    progress : bool
        Show progress bars: about ten images a second on one core.

    Returns
    -------
    list of Pair
        Sorted; the same for the same pictures and versions of OpenCV. Frames of a sweep may be
        linked only through the frames between them: join the pairs (`join_groups`).

    Raises
    ------
    ImageError
        A file cannot be read.

    Notes
    -----
    SIFT (Lowe, IJCV 2004) as RootSIFT (Arandjelovic and Zisserman, CVPR 2012) on pictures
    equalised by CLAHE, approximate neighbours by OpenCV's FLANN with a fixed seed, affine map by
    RANSAC. Turned and mirrored copies are not found.
    """
    rule = rule or DuplicateRule()
    pool = ThreadPoolExecutor(cv2.getNumberOfCPUs())

    def show(steps: Iterable, what: str, total: int, unit: str) -> tqdm:
        return tqdm(steps, f"near-duplicates: {what}", total, unit=unit, disable=not progress)

    try:
        read = pool.map(lambda path: _features(path, rule), paths)
        seen = list(show(read, "reading", len(paths), "image"))
        matched = _matches(seen, rule, show(range(len(seen)), "matching", len(seen), "image"))
        values = pool.map(lambda pair: _correlate(seen, *pair, rule), matched.items())
        compared = show(zip(matched, values, strict=True), "comparing", len(matched), "pair")
        return [Pair(i, j, v) for (i, j), v in compared if v >= rule.correlation]
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for what is queued


def _features(path: Path, rule: DuplicateRule) -> _Features:
    grey = as_image(as_grey(read_pixels(path)), path)[..., 0]
    picture = np.rint(grey * 255).astype(np.uint8)
    scale = rule.side / max(picture.shape)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.shape[::-1]]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    equal = cv2.createCLAHE(2.0, (8, 8)).apply(picture)
    points, descriptors = cv2.SIFT_create(rule.features).detectAndCompute(equal, None)
    if descriptors is None:
        return _Features(picture, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    points, descriptors = points[: rule.features], descriptors[: rule.features]
    descriptors /= np.maximum(descriptors.sum(1, keepdims=True), 1e-7)
    return _Features(picture, cv2.KeyPoint_convert(points), np.sqrt(descriptors))


def _matches(
    seen: Sequence[_Features], rule: DuplicateRule, order: Iterable[int]
) -> dict[tuple[int, int], np.ndarray]:
    """Return the matching key points, (M, 2), of each pair of pictures with enough of them."""
    owner = np.repeat(np.arange(len(seen)), [len(one.points) for one in seen])
    if len(owner) <= rule.neighbours:
        return {}
    within = np.concatenate([np.arange(len(one.points)) for one in seen])
    cv2.setRNGSeed(0)  # FLANN draws from it
    index = cv2.flann.Index(
        np.concatenate([one.descriptors for one in seen]), {"algorithm": 1, "trees": 4}
    )
    matches: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for i in order:
        if not len(seen[i].points):
            continue
        found = index.knnSearch(seen[i].descriptors, rule.neighbours, params={"checks": 64})[0]
        here, there = np.repeat(np.arange(len(found)), found.shape[1]), found.ravel()
        for j in set(owner[there].tolist()) - {i}:
            chosen = owner[there] == j
            pair = np.stack([here[chosen], within[there[chosen]]], 1)
            matches[min(i, j), max(i, j)].append(pair if i < j else pair[:, ::-1])
    joined = {pair: np.unique(np.concatenate(m), axis=0) for pair, m in matches.items()}
    return {pair: m for pair, m in sorted(joined.items()) if len(m) >= rule.votes}


def _correlate(
    seen: Sequence[_Features], pair: tuple[int, int], matches: np.ndarray, rule: DuplicateRule
) -> float:
    """Lay the first picture over the second; correlation of the grain, -1 if none fits."""
    first, second = (seen[i] for i in pair)
    source, target = first.points[matches[:, 0]], second.points[matches[:, 1]]
    affine, inside = cv2.estimateAffine2D(source, target, ransacReprojThreshold=4)
    if affine is None or inside.sum() < rule.inliers:
        return -1.0
    scales, shears = affine[[0, 1], [0, 1]], affine[[0, 1], [1, 0]]
    if scales.min() < rule.least_scale or scales.max() > rule.most_scale:
        return -1.0
    if np.abs(shears).max() > rule.shear:
        return -1.0
    size = second.picture.shape[::-1]
    moved = cv2.warpAffine(first.picture, affine, size, flags=cv2.INTER_LINEAR)
    both = cv2.warpAffine(np.ones(first.picture.shape, np.uint8), affine, size) > 0
    if both.sum() < rule.overlap * min(first.picture.size, second.picture.size):
        return -1.0
    x, y = _grain(moved)[both], _grain(second.picture)[both]
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / norm) if norm > 0 else -1.0


def _grain(picture: np.ndarray) -> np.ndarray:
    """High-pass of a picture, brought to equal contrast everywhere; float32."""
    values = picture.astype(np.float32)
    high = values - cv2.GaussianBlur(values, (0, 0), 3)
    return high / (np.sqrt(cv2.GaussianBlur(high * high, (0, 0), 8)) + 4)
