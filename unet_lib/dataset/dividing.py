"""Divide cases into parts: by group, stratified, the same for one seed; join data sets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from unet_lib.dataset.cases import Case
from unet_lib.dataset.groups import duplicate_pairs, join_groups
from unet_lib.dataset.splits import COMMITTED_FOLDS, PARTS, FoldRow, Folds, SplitError
from unet_lib.phantoms import is_phantoms

_CANDIDATES = 6  # assignments drawn; the most even one is kept
_FINEST = 12  # a share is rounded to k / n with n up to this


def make_folds(
    cases: Sequence[Case], count: int = 5, validation: float = 0.1, seed: int = 0
) -> Folds:
    """Divide cases into folds for cross-validation.

    The test parts of the folds partition the cases. Groups stay together; classes, and images
    with and without near-duplicates, are spread evenly: scikit-learn's ``StratifiedGroupKFold``,
    the most even of six draws.

    Parameters
    ----------
    cases : sequence of Case
    count : int
        Number of folds, at least 2.
    validation : float
        Share of all images for validation, in each fold, taken from those not under test.
    seed : int
        The same seed gives the same folds.

    Returns
    -------
    Folds

    Raises
    ------
    SplitError
        Fewer groups than parts, or a share that is not possible.
    """
    if count < 2:
        raise SplitError(f"count must be at least 2, not {count}.")
    _check(seed, validation=(validation, 1 - 1 / count))
    test_of = _divide(cases, count, seed)
    rests = [np.flatnonzero(test_of != fold) for fold in range(count)]
    return _folds(cases, rests, validation, seed, "folds")


def make_split(
    cases: Sequence[Case], test: float = 0.2, validation: float = 0.1, seed: int = 0
) -> Folds:
    """Divide cases into train, validation and test once.

    Parameters
    ----------
    cases : sequence of Case
    test, validation : float
        Shares of all images.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    Folds
        With one fold, ``fold0``; made, and refused, as by `make_folds`.
    """
    _check(seed, test=(test, 1.0), validation=(validation, 1 - test))
    everything = np.arange(len(cases))
    rest = np.setdiff1d(everything, _take(cases, everything, test, seed))
    return _folds(cases, [rest], validation, seed, "split")


def join_data_sets(
    sets: Mapping[str, tuple[Sequence[Case], Folds | None]], seed: int = 0, *, progress: bool = True
) -> tuple[list[Case], Folds, str]:
    """Put several data sets together; fold k of all is fold k of each.

    Names and groups begin with the set's name. Near-duplicates across the sets are searched and
    kept together. Sets without folds are divided together by `make_folds`. Returned with what was
    found across them.
    """
    folds_of = {name: folds for name, (_, folds) in sets.items() if folds}
    counts = {name: folds_of[name].count if name in folds_of else 5 for name in sets}
    if len(set(counts.values())) > 1:
        raise SplitError(
            "Fold k of several data sets is fold k of each, but their numbers of folds differ "
            f"({', '.join(f'{name}: {n}' for name, n in counts.items())}; where no split is given "
            "it has 5). Give splits of as many folds."
        )
    cases: list[Case] = []
    parts: dict[str, tuple[str, ...]] = {}
    for name, (own, folds) in sets.items():
        if folds:  # the cases with the groups of their split, in its order
            split = folds.split(own, 0)
            by_name = {case.name: case for part in PARTS for case in getattr(split, part)}
            own = [by_name[row.image] for row in folds.rows]
            parts |= {f"{name}/{row.image}": row.parts for row in folds.rows}
        cases += [
            replace(
                case,
                name=f"{name}/{case.name}",
                group=f"{name}/{case.group}",
                patient="",  # is in the groups
                data_set=name,
                own_group=case.group if case.has_twins else "",
            )
            for case in own
        ]
    pairs = []
    # BUSI and BUS-BRA have none across; the search over both takes a quarter of an hour.
    committed = [Folds.read(path) for path in COMMITTED_FOLDS.values()]
    searched = all(folds in committed for _, folds in sets.values())
    if not searched and not all(is_phantoms(case.image_path) for case in cases):
        pairs = duplicate_pairs(cases, progress=progress)
        pairs = [pair for pair in pairs if len({cases[i].data_set for i in pair[:2]}) > 1]
    cases = join_groups(cases, pairs)
    rest = [case for case in cases if case.name not in parts]
    if rest:
        parts |= {row.image: row.parts for row in make_folds(rest, seed=seed).rows}
    rows = tuple(FoldRow(c.name, c.label, c.group, parts[c.name]) for c in cases)
    leaks = [[f"{t} ({name})" for t in of.leaks] for name, of in folds_of.items() if of.leaks]
    # The worst come first: a text that begins with "0 of" leaks nothing.
    texts = (sorted(of, key=lambda t: t.startswith("0 of")) for of in zip(*leaks, strict=True))
    names = dict.fromkeys(folds.name if folds else "folds" for _, folds in sets.values())
    folds = Folds(rows, " + ".join(names), tuple("; ".join(of) for of in texts))
    return cases, folds, f"{len(pairs)} near-duplicates across them"


def _check(seed: int, **shares: tuple[float, float]) -> None:
    if not 0 <= seed < 1_000_000:
        raise SplitError(f"seed must be a whole number from 0 to 999999, not {seed!r}.")
    for name, (share, limit) in shares.items():
        if not 0 < share < limit:
            raise SplitError(f"{name} must be a share between 0 and {limit:g}, not {share:g}.")


def _folds(
    cases: Sequence[Case], rests: Sequence[np.ndarray], validation: float, seed: int, name: str
) -> Folds:
    """Make one fold of each array of positions that are not under test."""
    parts = np.full((len(cases), len(rests)), "test", dtype=object)
    for k, rest in enumerate(rests):
        parts[rest, k] = "train"
        share = validation * len(cases) / len(rest)
        parts[_take(cases, rest, share, seed + k + 1), k] = "validation"
    pairs = zip(cases, parts.tolist(), strict=True)
    return Folds(tuple(FoldRow(c.name, c.label, c.group, tuple(p)) for c, p in pairs), name)


def _take(cases: Sequence[Case], among: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose about `share` of the cases in `among`, by group, stratified; return indices."""
    groups = max(2, len({cases[i].group for i in among}))
    options = (
        (round(abs(k / n - share), 6), n, k)
        for n in range(2, min(groups, _FINEST) + 1)
        for k in range(1, n)
    )
    _, parts, wanted = min(options)
    return among[_divide([cases[i] for i in among], parts, seed) < wanted]


def _divide(cases: Sequence[Case], count: int, seed: int) -> np.ndarray:
    """Assign each case to one of `count` parts; (N,) ints. Groups stay together."""
    import sklearn  # slow to import
    from sklearn.model_selection import StratifiedGroupKFold

    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8):
        raise SplitError(
            f"scikit-learn {sklearn.__version__} divides otherwise than 1.8 and later, so that one "
            "seed would give two splits. pip install -U scikit-learn"
        )
    groups = np.unique([c.group for c in cases], return_inverse=True)[1]
    sizes = np.bincount(groups)
    if len(sizes) < count:
        where = f"{cases[0].image_path.parent}: " if cases else ""
        raise SplitError(
            f"{where}{len(cases)} images in {len(sizes)} groups are too few to divide into {count} "
            "parts; add images or ask for fewer parts."
        )
    names = [f"{c.data_set} {c.label} {sizes[g] > 1}" for c, g in zip(cases, groups, strict=True)]
    strata = np.unique(names, return_inverse=True)[1]
    if np.bincount(strata).max() < count:  # which scikit-learn refuses
        strata = np.zeros(len(cases), int)
    best, lowest = None, np.inf
    for draw in range(_CANDIDATES):
        folder = StratifiedGroupKFold(count, shuffle=True, random_state=1000 * seed + draw)
        parts = np.empty(len(cases), int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stratum smaller than the number of parts
            for part, (_, members) in enumerate(folder.split(groups, strata, groups)):
                parts[members] = part
        cost = _unevenness(parts, strata, count)
        if cost < lowest and len(set(parts)) == count:
            best, lowest = parts, cost
    return _by_size(groups, count) if best is None else best


def _by_size(groups: np.ndarray, count: int) -> np.ndarray:
    """Put the groups, the largest first, into the part that is smallest so far.

    For few groups: where scikit-learn finds parts equally good, rounding decides, and one of them
    may stay empty in every draw.
    """
    sizes, filled = np.bincount(groups), np.zeros(count, int)
    part_of = np.empty(len(sizes), int)
    for group in np.argsort(-sizes, kind="stable"):
        part_of[group] = filled.argmin()
        filled[part_of[group]] += sizes[group]
    return part_of[groups]


def _unevenness(parts: np.ndarray, strata: np.ndarray, count: int) -> float:
    """Chi-square of strata against parts, plus the squared range of the part sizes."""
    table = np.zeros((count, strata.max() + 1))
    np.add.at(table, (parts, strata), 1)
    expected = table.sum(0) / count
    spread = np.ptp(table.sum(1)) ** 2 / len(parts)
    return float((((table - expected) ** 2) / expected).sum() + spread)
