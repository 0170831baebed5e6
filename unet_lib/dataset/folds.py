"""Splits and folds: made by group, stored in files, matched against the folder."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet_lib.dataset.cases import Case, DatasetError
from unet_lib.dataset.groups import shared_names
from unet_lib.files import read_rows, write_atomic
from unet_lib.folders import SHIPPED_FOLDER

BUSI_FOLDS = SHIPPED_FOLDER / "data" / "splits" / "busi_5fold.csv"
"""The committed five folds of BUSI."""

PARTS = ("train", "validation", "test")
_COLUMNS = ("image", "class", "group")


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
        """Refuse what cannot be a split."""
        _check_rows(self.rows, self.name)

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
            header, *lines = read_rows(path) or [[]]
        except ValueError as error:
            raise SplitError(f"{path}: the split cannot be read ({error}).") from error
        count = len(header) - len(_COLUMNS)
        expected = [*_COLUMNS, *(f"fold{k}" for k in range(count))]
        if count < 1 or header != expected:
            raise SplitError(
                f"{path}: the columns are {','.join(header)[:300]}; expected image,class,group,"
                "fold0,..."
            )
        for number, line in enumerate(lines, start=2):
            if len(line) != len(header):
                raise SplitError(
                    f"{path}: line {number} has {len(line)} cells, expected {len(header)}."
                )
        rows = tuple(FoldRow(c[0], c[1], c[2], tuple(c[3:])) for c in lines)
        try:
            return cls(rows, path.stem)
        except SplitError as error:
            raise SplitError(f"{path}: {error}") from error

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
        parts: dict[str, list[Case]] = {part: [] for part in PARTS}
        groups = shared_names({row.image: row.group for row in self.rows})
        for row in self.rows:
            if normals or row.label != "normal":
                case = replace(by_name[row.image], group=groups[row.image])
                parts[row.parts[fold]].append(case)
        self._check_twins(by_name, fold)
        chosen = {part: tuple(found) for part, found in parts.items()}
        return Split(**chosen, name=f"{self.name}, fold {fold}")

    def _check_match(self, by_name: dict[str, Case]) -> None:
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

    def _check_twins(self, by_name: dict[str, Case], fold: int) -> None:
        """Refuse a split that separates near-duplicates which the folder knows about."""
        seen: dict[str, tuple[str, str]] = {}
        for row in self.rows:
            group = by_name[row.image].group
            other, part = seen.setdefault(group, (row.image, row.parts[fold]))
            if part != row.parts[fold]:
                raise SplitError(
                    f"{self.name}: fold {fold} has {other!r} in {part} and {row.image!r} in "
                    f"{row.parts[fold]}, which are near-duplicates (group {group}). Make the "
                    "split again with the groups."
                )


def _check_rows(rows: Sequence[FoldRow], name: str) -> None:
    if not rows:
        raise SplitError(f"{name}: the split names no image.")
    if len({len(r.parts) for r in rows}) != 1:
        raise SplitError(f"{name}: the rows have different numbers of folds.")
    repeated = [n for n, c in Counter(r.image for r in rows).items() if c > 1]
    if repeated:
        raise SplitError(f"{name}: {', '.join(map(repr, repeated[:3]))} is listed more than once.")
    for row in rows:
        unknown = set(row.parts) - set(PARTS)
        if unknown:
            raise SplitError(
                f"{name}: {row.image!r} has the part {sorted(unknown)[0]!r}; "
                f"expected {', '.join(PARTS)}."
            )
    for fold in range(len(rows[0].parts)):
        part_of: dict[str, str] = {}
        for row in rows:
            if part_of.setdefault(row.group, row.parts[fold]) != row.parts[fold]:
                raise SplitError(
                    f"{name}: fold {fold} puts near-duplicates of group {row.group} into "
                    f"{part_of[row.group]} and {row.parts[fold]}; they must stay together."
                )
