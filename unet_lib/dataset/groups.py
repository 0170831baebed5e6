"""Which images a split must keep together: near-duplicates and pictures of one patient.

Near-duplicates are the same view cut, scaled, brightened or written on differently. Local features
propose pairs and an affine map between them; the speckle decides. Two pictures of the same organ
look alike, but only copies of one picture (or neighbouring frames) share the fine grain, so the
normalised cross-correlation of the high-pass over the overlap is what counts. SIFT (Lowe, IJCV
2004) as RootSIFT (Arandjelovic and Zisserman, CVPR 2012) on pictures equalised by CLAHE,
approximate neighbours by OpenCV's FLANN with a fixed seed, affine map by RANSAC. Turned and
mirrored copies are not found.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.dataset.cases import DATA_FOLDER, Case, DatasetError, read_table
from unet_lib.files import SHIPPED_FOLDER, sha256
from unet_lib.images import ImageError, as_grey, as_image, read_pixels, read_size
from unet_lib.phantoms import is_phantoms

BUSI_AUDIT = SHIPPED_FOLDER / "data" / "busi_audit.csv"
"""One row per BUSI image; its columns and their sources: ``data/README.md``."""

GROUPS_FILE = "groups.csv"  # in a data folder: columns image and group; no search then

CACHE_FOLDER = DATA_FOLDER / "cache"
"""Pairs that were found, by the content of the files; may be deleted at any time."""

Pair = tuple[int, int, float]  # positions of two pictures, the first smaller; correlation

# Chosen on BUSI, the only audited set there is, and judged on it again: its recall and precision
# are those of a fit. A correlation of .18 to .25 gives nearly the same groups. Copies of phantoms,
# which had no part in the choice, are in tests/test_duplicates.py.
_SIDE = 384  # pixels of the longest side, to which pictures are reduced; smaller ones stay
_FEATURES = 400  # SIFT key points of a picture, the strongest ones
_NEIGHBOURS = 8  # nearest descriptors that are asked for each
_VOTES = 12  # matches between two pictures from which the pair is examined
_INLIERS = 6  # matches that one affine map must explain
_SCALES = 0.5, 2.0  # of the map, on either axis
_SHEAR = 0.2  # largest off-diagonal entry of the map: copies are neither turned nor mirrored
_OVERLAP = 0.1  # least share of the smaller picture that both must show
_CORRELATION = 0.2  # least normalised cross-correlation of the speckle over the overlap
_VERSION = 2, cv2.__version__  # raised whenever the same pictures may give other pairs


def read_audit(path: str | os.PathLike = BUSI_AUDIT) -> dict[str, dict[str, str]]:
    """Read a CSV with at least the columns ``image`` and ``group``: rows by image, in order."""
    rows: dict[str, dict[str, str]] = {}
    for line in read_table(Path(path), ("image", "group")):
        name = normalize("NFC", line["image"])
        if name in rows:
            raise DatasetError(f"{path}: {name} is listed twice.")
        rows[name] = line
    return rows


def unlike_busi(cases: Sequence[Case], *, part: bool = False, sizes: bool = True) -> str:
    """Say in what cases differ from BUSI as published, or from a part of it; empty: in nothing."""
    rows, names = read_audit(), {case.name for case in cases}
    missing = [] if part else [name for name in rows if name not in names]
    extra = [case.name for case in cases if case.name not in rows]
    if missing or extra:
        first = f"missing {missing[0]!r}" if missing else f"unknown {extra[0]!r}"
        return (
            f"is not BUSI as published ({len(rows)} images): {len(missing)} images are missing "
            f"and {len(extra)} are unknown, first: {first}"
        )
    for case in cases:
        row = rows[case.name]
        listed = row["class"], (int(row["height"]), int(row["width"]))
        try:
            size = read_size(case.image_path) if sizes else listed[1]
        except ImageError as error:
            return str(error)
        if (case.label, size) != listed:
            return (
                f"{case.image_path.name}: is of class {case.label} and {size} pixels (height, "
                f"width); in BUSI it is {listed[0]} and {listed[1]}"
            )
    return ""


def group_cases(
    cases: Sequence[Case],
    root: Path,
    audit: str | os.PathLike | None = "auto",
    *,
    search: bool = True,
    progress: bool = True,
) -> tuple[list[Case], str]:
    """Group cases by what is written down (see `find_cases`), else by what the pictures show.

    Phantoms, BUSI (audited) and a folder with a ``groups.csv`` are not searched. Returned with
    where the groups come from, to be shown.
    """
    if audit is None:
        return list(cases), "none"
    synthetic = [is_phantoms(case.image_path) for case in cases]
    origins, pairs = [], []
    if path := _list_of(cases, root, audit, any(synthetic)):
        groups = _listed(cases, root, path)
        cases = [replace(case, group=groups[case.name]) for case in cases]
        origins.append("audited list" if path == BUSI_AUDIT and audit == "auto" else path.name)
    elif all(synthetic):
        origins.append("none: phantoms are made one by one")
    if any(case.patient for case in cases):
        origins.append("patients")
    if search and not path and not all(synthetic):
        pairs = duplicate_pairs(cases, progress=progress)
        alone = join_groups([replace(c, patient="", group=c.name) for c in cases], pairs)
        twins = [case.group for case in alone if case.has_twins]
        count = f"{len(twins)} images in {len(set(twins))} groups"
        origins.append(f"near-duplicates found by the library ({count})")
    return join_groups(cases, pairs), ", ".join(origins) or "none"


def _list_of(
    cases: Sequence[Case], root: Path, audit: str | os.PathLike, phantoms: bool
) -> Path | None:
    """Return the list that gives the groups, if there is one."""
    own = root / GROUPS_FILE
    if audit != "auto" or own.is_file():
        return own if audit == "auto" else Path(audit)
    whole = len(cases) == len(read_audit())  # names like "benign (1)" are common, so a part
    if phantoms or unlike_busi(cases, part=True, sizes=not whole):  # must agree in its sizes
        return None
    return BUSI_AUDIT


def _listed(cases: Sequence[Case], root: Path, path: Path) -> dict[str, str]:
    """Read the groups of all cases from a list."""
    rows = read_audit(path)
    files = {c.name + c.image_path.suffix: c.name for c in cases if c.name not in rows}
    rows = {files.get(image, image): row for image, row in rows.items()}  # also 1.png for 1
    absent = [c.name for c in cases if c.name not in rows]
    if absent:
        raise DatasetError(
            f"{path}: does not list {len(absent)} of the {len(cases)} images of {root}, "
            f"first {absent[0]!r}. Make it again (python -m unet_lib duplicates), or take it "
            "away."
        )
    return shared_names({name: row["group"] for name, row in rows.items()})


def join_groups(cases: Sequence[Case], pairs: Iterable[Sequence] = ()) -> list[Case]:
    """Join groups, patients and pairs that share an image, so that a split divides none.

    A pair begins with two positions among the cases. A new group has the first listed group's
    name, else ``NAME + 2`` for an image with two others; an image alone carries its own name.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [(pair[0], pair[1]) for pair in pairs]
    for key in ("group", "patient"):
        first: dict[str, int] = {}
        for i, case in enumerate(cases):
            if value := getattr(case, key):
                links.append((first.setdefault(value, i), i))
    # int32: of int64, SciPy before 1.12 swallows an error and returns labels that mean nothing.
    rows, columns = np.array(links or np.zeros((0, 2)), np.int32).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(cases),) * 2)
    labels = connected_components(graph, directed=False)[1]
    members: dict[int, list[Case]] = defaultdict(list)
    for label, case in zip(labels, cases, strict=True):
        members[label].append(case)
    names = {label: _group_name(together) for label, together in members.items()}
    return [replace(c, group=names[label]) for label, c in zip(labels, cases, strict=True)]


def _group_name(members: Sequence[Case]) -> str:
    names = [c.name for c in members]
    listed = next((c.group for c in members if c.group not in names), None)
    if listed or len(members) == 1:
        return listed or names[0]
    return f"{names[0]} + {len(members) - 1}"


def shared_names(group_of: Mapping[str, str]) -> dict[str, str]:
    """Rename the groups of images that are called like a member: its own name means alone."""
    size = Counter(group_of.values())
    taken = {group for group in size if size[group] > 1 and group_of.get(group) == group}
    return {
        image: f"{group} + {size[group] - 1}" if group in taken else group
        for image, group in group_of.items()
    }


# --- the search ------------------------------------------------------------------------------


class _Features(NamedTuple):
    picture: np.ndarray  # uint8, reduced
    points: np.ndarray  # (K, 2) float32, x and y
    descriptors: np.ndarray  # (K, 128) float32


def duplicate_pairs(cases: Sequence[Case], *, progress: bool = True) -> list[Pair]:
    """Pairs of near-duplicates among cases, from the cache where the same files were searched.

    Equal files have a correlation of 1. An interrupted search leaves nothing.
    """
    from joblib import Memory  # slow to import

    where: dict[str, list[int]] = {}
    bar = tqdm(cases, "near-duplicates: hashing", unit="image", disable=not progress, leave=False)
    for i, case in enumerate(bar):
        where.setdefault(sha256(case.image_path), []).append(i)
    same = [(m[0], other, 1.0) for m in where.values() for other in m[1:]]
    digests = sorted(where)
    paths = [cases[where[digest][0]].image_path for digest in digests]
    given = "\n".join(digests), _VERSION, paths, progress
    try:
        memory = Memory(CACHE_FOLDER, verbose=0)
        pairs = memory.cache(_search, ignore=["paths", "progress"])(*given)
    except OSError as error:
        warnings.warn(
            f"{CACHE_FOLDER}: cannot be written ({error.strerror}). Near-duplicates are searched "
            "again the next time.",
            stacklevel=2,
        )
        pairs = _search(*given)
    pairs = [(where[digests[a]][0], where[digests[b]][0], value) for a, b, value in pairs]
    return sorted(same + [(min(a, b), max(a, b), value) for a, b, value in pairs])


def _search(digests: str, version: object, paths: Sequence[Path], progress: bool) -> list[Pair]:
    return find_duplicates(paths, progress=progress)


def find_duplicates(paths: Sequence[Path], *, progress: bool = True) -> list[Pair]:
    """Find the pairs of near-duplicates among pictures, about ten a second on one core.

    Sorted; the same for the same pictures and versions of OpenCV. Frames of a sweep may be linked
    only through the frames between them: join the pairs (`join_groups`).
    """
    pool = ThreadPoolExecutor(cv2.getNumberOfCPUs())

    def show(steps: Iterable, what: str, total: int, unit: str) -> tqdm:
        return tqdm(steps, f"near-duplicates: {what}", total, unit=unit, disable=not progress)

    try:
        seen = list(show(pool.map(_features, paths), "reading", len(paths), "image"))
        matched = _matches(seen, show(range(len(seen)), "matching", len(seen), "image"))
        values = pool.map(lambda pair: _correlate(seen, *pair), matched.items())
        compared = show(zip(matched, values, strict=True), "comparing", len(matched), "pair")
        return [(i, j, v) for (i, j), v in compared if v >= _CORRELATION]
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for what is queued


def _features(path: Path) -> _Features:
    grey = as_image(as_grey(read_pixels(path)), path)[..., 0]
    picture = np.rint(grey * 255).astype(np.uint8)
    scale = _SIDE / max(picture.shape)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.shape[::-1]]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    equal = cv2.createCLAHE(2.0, (8, 8)).apply(picture)
    points, descriptors = cv2.SIFT_create(_FEATURES).detectAndCompute(equal, None)
    if descriptors is None:
        return _Features(picture, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    points, descriptors = points[:_FEATURES], descriptors[:_FEATURES]
    descriptors /= np.maximum(descriptors.sum(1, keepdims=True), 1e-7)
    return _Features(picture, cv2.KeyPoint_convert(points), np.sqrt(descriptors))


def _matches(seen: Sequence[_Features], order: Iterable[int]) -> dict[tuple[int, int], np.ndarray]:
    """Return the matching key points, (M, 2), of each pair of pictures with enough of them."""
    owner = np.repeat(np.arange(len(seen)), [len(one.points) for one in seen])
    if len(owner) <= _NEIGHBOURS:
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
        near = index.knnSearch(seen[i].descriptors, _NEIGHBOURS, params={"checks": 64})[0]
        here, there = np.repeat(np.arange(len(near)), near.shape[1]), near.ravel()
        for j in set(owner[there].tolist()) - {i}:
            chosen = owner[there] == j
            pair = np.stack([here[chosen], within[there[chosen]]], 1)
            matches[min(i, j), max(i, j)].append(pair if i < j else pair[:, ::-1])
    joined = {pair: np.unique(np.concatenate(m), axis=0) for pair, m in matches.items()}
    return {pair: m for pair, m in sorted(joined.items()) if len(m) >= _VOTES}


def _correlate(seen: Sequence[_Features], pair: tuple[int, int], matches: np.ndarray) -> float:
    """Lay the first picture over the second; correlation of the grain, -1 if none fits."""
    first, second = (seen[i] for i in pair)
    source, target = first.points[matches[:, 0]], second.points[matches[:, 1]]
    affine, inside = cv2.estimateAffine2D(source, target, ransacReprojThreshold=4)
    if affine is None or inside.sum() < _INLIERS:
        return -1.0
    scales, shears = affine[[0, 1], [0, 1]], affine[[0, 1], [1, 0]]
    if scales.min() < _SCALES[0] or scales.max() > _SCALES[1] or np.abs(shears).max() > _SHEAR:
        return -1.0
    size = second.picture.shape[::-1]
    moved = cv2.warpAffine(first.picture, affine, size, flags=cv2.INTER_LINEAR)
    both = cv2.warpAffine(np.ones(first.picture.shape, np.uint8), affine, size) > 0
    if both.sum() < _OVERLAP * min(first.picture.size, second.picture.size):
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
