"""Splits and folds: made by group, the same for one seed, stored in files, matched to a folder."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unet_lib.dataset.cases import Case, DatasetError, read_table
from unet_lib.dataset.groups import shared_names
from unet_lib.files import write_atomic
from unet_lib.folders import SHIPPED_FOLDER

BUSI_FOLDS = SHIPPED_FOLDER / "data" / "splits" / "busi_5fold.csv"
"""The committed five folds of BUSI."""

PARTS = ("train", "validation", "test")
_COLUMNS = ("image", "class", "group")
_CANDIDATES = 6  # assignments drawn; the most even one is kept
_FINEST = 12  # a share is rounded to k / n with n up to this


class SplitError(DatasetError):
    """A split is malformed or does not match the folder; the message says what differs."""


@dataclass(frozen=True)
class Split:
    """The cases of one fold.

    Attributes
    ----------
    train, validation, test : tuple of Case
    name : str
        Such as ``busi_5fold, fold 0``.
    """

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]
    name: str


@dataclass(frozen=True)
class FoldRow:
    """One image of a fold file: its class, group and its part in every fold."""

    image: str
    label: str
    group: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Folds:
    """Which part every image plays in every fold.

    Attributes
    ----------
    rows : tuple of FoldRow
        One per image.
    name : str
        The file's name without ending.
    """

    rows: tuple[FoldRow, ...]
    name: str = field(default="folds", compare=False)

    def __post_init__(self) -> None:
        if not self.rows:
            raise SplitError(f"{self.name}: the split names no image.")
        if len({len(row.parts) for row in self.rows}) != 1:
            raise SplitError(f"{self.name}: the rows have different numbers of folds.")
        repeated = [n for n, c in Counter(row.image for row in self.rows).items() if c > 1]
        if repeated:
            names = ", ".join(map(repr, repeated[:3]))
            raise SplitError(f"{self.name}: {names} is listed more than once.")
        for row in self.rows:
            unknown = set(row.parts) - set(PARTS)
            if unknown:
                raise SplitError(
                    f"{self.name}: {row.image!r} has the part {sorted(unknown)[0]!r}; "
                    f"expected {', '.join(PARTS)}."
                )
        self._refuse_divided({row.image: row.group for row in self.rows})

    @classmethod
    def of_split(cls, split: Split) -> Folds:
        """Return a single split as folds with one column, for saving; images sorted by name."""
        rows = [
            FoldRow(case.name, case.label, case.group, (part,))
            for part in PARTS
            for case in getattr(split, part)
        ]
        return cls(tuple(sorted(rows, key=lambda row: row.image)), split.name)

    @property
    def count(self) -> int:
        """Number of folds."""
        return len(self.rows[0].parts)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the CSV ``image,class,group,fold0,...``, one row per image."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"fold{k}" for k in range(self.count))])
        writer.writerows([r.image, r.label, r.group, *r.parts] for r in self.rows)
        return write_atomic(path, text.getvalue())

    @classmethod
    def read(cls, path: str | os.PathLike) -> Folds:
        """Read the CSV that :meth:`save` writes.

        Raises
        ------
        SplitError
            Missing file or column, an unknown part, an image twice, a group in two parts.
        """
        path = Path(path)
        try:
            lines = read_table(path, (*_COLUMNS, "fold0"))
            names = [f"fold{k}" for k in range(len(lines[0]) - len(_COLUMNS))] if lines else []
            rows = (
                FoldRow(*(line[c] for c in _COLUMNS), tuple(line[n] for n in names))
                for line in lines
            )
            return cls(tuple(rows), path.stem)
        except KeyError as error:
            raise SplitError(f"{path}: column {error} is missing.") from error
        except DatasetError as error:
            raise SplitError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error

    def split(self, cases: Sequence[Case], fold: int, normals: bool = True) -> Split:
        """Return the cases of one fold.

        Parameters
        ----------
        cases : sequence of Case
            All cases of the folder; they must be those of the split, neither more nor fewer.
        fold : int
            0 to ``count - 1``.
        normals : bool
            False leaves the images of class normal out of all three parts.

        Returns
        -------
        Split
            Its cases carry the groups of the split file.

        Raises
        ------
        SplitError
            The split and the folder differ (the message says in what), or there is no such fold.
        """
        if not 0 <= fold < self.count:
            raise SplitError(
                f"{self.name}: there is no fold {fold}; it has folds 0 to {self.count - 1}."
            )
        by_name = {c.name: c for c in cases}
        self._check_match(by_name)
        self._refuse_divided({name: case.group for name, case in by_name.items()})
        groups = shared_names({row.image: row.group for row in self.rows})
        parts: dict[str, list[Case]] = {part: [] for part in PARTS}
        for row in self.rows:
            if normals or row.label != "normal":
                case = replace(by_name[row.image], group=groups[row.image])
                parts[row.parts[fold]].append(case)
        return Split(*map(tuple, parts.values()), name=f"{self.name}, fold {fold}")

    def _check_match(self, by_name: Mapping[str, Case]) -> None:
        listed = {r.image: r.label for r in self.rows}
        absent = [n for n in listed if n not in by_name]
        extra = [n for n in by_name if n not in listed]
        other = [n for n in listed if n in by_name and by_name[n].label != listed[n]]
        differences = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, what in (
                (absent, "images of the split are not in the folder"),
                (extra, "images of the folder are not in the split"),
                (other, "images have another class in the folder than in the split"),
            )
            if names
        ]
        if differences:
            raise SplitError(
                f"The split {self.name} does not match the folder: {'; '.join(differences)}. "
                "Use the split made for this folder, or make a new one."
            )

    def _refuse_divided(self, group_of: Mapping[str, str]) -> None:
        """Refuse folds that divide a group, of the file's own groups or of those of a folder."""
        first: dict[str, FoldRow] = {}
        for row in self.rows:
            other = first.setdefault(group_of[row.image], row)
            for fold, parts in enumerate(zip(other.parts, row.parts, strict=True)):
                if parts[0] != parts[1]:
                    raise SplitError(
                        f"{self.name}: fold {fold} has {other.image!r} in {parts[0]} and "
                        f"{row.image!r} in {parts[1]}, which are near-duplicates (group "
                        f"{group_of[row.image]}). Make the split again with the groups."
                    )


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
    _check_seed(seed)
    _check_share("validation", validation, 1 - 1 / count)
    test_of = _divide(cases, count, seed)
    rests = [np.flatnonzero(test_of != fold) for fold in range(count)]
    columns = [_column(cases, rest, validation, seed + k + 1) for k, rest in enumerate(rests)]
    return _folds(cases, columns, "folds")


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
        With one fold, ``fold0``; made as in :func:`make_folds`.

    Raises
    ------
    SplitError
        Fewer groups than parts, or shares that are not possible.
    """
    _check_seed(seed)
    _check_share("test", test, 1.0)
    _check_share("validation", validation, 1 - test)
    everything = np.arange(len(cases))
    rest = np.setdiff1d(everything, _take(cases, everything, test, seed))
    return _folds(cases, [_column(cases, rest, validation, seed + 1)], "split")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 1_000_000:
        raise SplitError(f"seed must be a whole number from 0 to 999999, not {seed!r}.")


def _check_share(name: str, share: float, limit: float) -> None:
    if not 0 < share < limit:
        raise SplitError(f"{name} must be a share between 0 and {limit:g}, not {share:g}.")


def _column(cases: Sequence[Case], rest: np.ndarray, validation: float, seed: int) -> np.ndarray:
    """Parts of one fold; `rest` are the cases not under test."""
    column = np.full(len(cases), "test", dtype=object)
    column[rest] = "train"
    column[_take(cases, rest, validation * len(cases) / len(rest), seed)] = "validation"
    return column


def _folds(cases: Sequence[Case], columns: Iterable[Sequence[str]], name: str) -> Folds:
    parts = zip(*columns, strict=True)
    return Folds(
        tuple(FoldRow(c.name, c.label, c.group, p) for c, p in zip(cases, parts, strict=True)), name
    )


def _take(cases: Sequence[Case], among: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose about `share` of the cases in `among`, by group, stratified; return indices."""
    groups = len({cases[i].group for i in among})
    options = [
        (round(abs(k / n - share), 6), n, k)
        for n in range(2, min(groups, _FINEST) + 1)
        for k in range(1, n)
    ]
    if not options:
        raise SplitError(
            f"{len(cases)} images in {len({c.group for c in cases})} groups are too few to divide "
            "into train, validation and test; add images."
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
    if not cases or groups.max() + 1 < count:
        raise SplitError(
            f"{len(cases)} images in {len(set(groups))} groups cannot be divided into {count} "
            "parts; add images or ask for fewer parts."
        )
    strata = _strata(cases, groups, count)
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


def _strata(cases: Sequence[Case], groups: np.ndarray, count: int) -> np.ndarray:
    """Class and membership in a near-duplicate group as one number per case."""
    sizes = np.bincount(groups)
    names = [f"{c.label} {sizes[g] > 1}" for c, g in zip(cases, groups, strict=True)]
    strata = np.unique(names, return_inverse=True)[1]
    # scikit-learn refuses when every stratum is smaller than the number of parts.
    return strata if np.bincount(strata).max() >= count else np.zeros(len(cases), int)


def _unevenness(parts: np.ndarray, strata: np.ndarray, count: int) -> float:
    """Chi-square of strata against parts, plus the squared range of the part sizes."""
    table = np.zeros((count, strata.max() + 1))
    np.add.at(table, (parts, strata), 1)
    expected = table.sum(0) / count
    spread = np.ptp(table.sum(1)) ** 2 / len(parts)
    return float((((table - expected) ** 2) / expected).sum() + spread)
