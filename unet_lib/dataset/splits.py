"""Splits and folds: stored in files, matched to a folder; none divides a group."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet_lib.dataset.cases import Case, DatasetError, read_table
from unet_lib.dataset.groups import shared_names
from unet_lib.files import SHIPPED_FOLDER, write_atomic

_SPLITS = SHIPPED_FOLDER / "data" / "splits"

COMMITTED_FOLDS = {"BUSI": _SPLITS / "busi_5fold_v2.csv", "BUSBRA": _SPLITS / "busbra_5fold.csv"}
"""The five folds of published data sets; what they are of: `data/README.md`."""

OWN_SPLIT = "own_split.csv"
"""In a data folder: the split of its authors, in the format of `Folds`."""

PARTS = ("train", "validation", "test")
_BUS_BRA = "5-fold-cv.csv"
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
    leaks : tuple of str
        Of the split of a data set's authors: how many test images it exposes, by fold.
    """

    rows: tuple[FoldRow, ...]
    name: str = field(default="folds", compare=False)
    leaks: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.rows:
            raise SplitError(f"{self.name}: the split names no image.")
        image, times = Counter(row.image for row in self.rows).most_common(1)[0]
        if times > 1:
            raise SplitError(f"{self.name}: {image!r} is listed more than once.")
        for row in self.rows:
            if len(row.parts) != self.count:
                raise SplitError(f"{self.name}: the rows have different numbers of folds.")
            if unknown := set(row.parts).difference(PARTS):
                raise SplitError(
                    f"{self.name}: {row.image!r} has the part {min(unknown)!r}; "
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
        other = [n for n in listed if n in by_name and by_name[n].label != listed[n]]
        kinds = {
            "images of the split are not in the folder": [n for n in listed if n not in by_name],
            "images of the folder are not in the split": [n for n in by_name if n not in listed],
            "images have another class in the folder than in the split": other,
        }
        differences = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in kinds.items()
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
                        f"{group_of[row.image]}). Make the split again with the groups, or take "
                        "one of the images out."
                    )


def committed_folds(cases: Sequence[Case]) -> tuple[str, Folds] | None:
    """Return name and folds of the published data set that cases are, by names and classes."""
    ours = {(case.name, case.label) for case in cases}
    for name, path in COMMITTED_FOLDS.items():
        folds = Folds.read(path)
        if ours == {(row.image, row.label) for row in folds.rows}:
            return name, folds
    return None


def own_split(root: Path, cases: Sequence[Case]) -> tuple[list[Case], Folds]:
    """Read the split that a data set's authors made, and cut the groups that it divides.

    Returned with the cut groups, in cases and folds; `Folds.leaks` counts the test images that have
    a group mate in training or validation.
    """
    if (root / OWN_SPLIT).is_file():
        part_of = {row.image: row.parts for row in Folds.read(root / OWN_SPLIT).rows}
    elif (root / _BUS_BRA).is_file():
        part_of = _bus_bra(root / _BUS_BRA, cases)
    else:
        raise SplitError(
            f"{root}: has no split of its own ({OWN_SPLIT} or {_BUS_BRA}). Leave --split out: five "
            "folds are made that keep patients and near-duplicates together."
        )
    absent = [case.name for case in cases if case.name not in part_of]
    if absent or len(part_of) > len(cases):
        raise SplitError(
            f"{root}: its own split has no row for {len(absent)} of {len(cases)} images "
            f"({', '.join(absent[:3])}) and {len(part_of)} rows. Unpack the data set whole."
        )
    sides: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for case in cases:
        sides[case.group].add(part_of[case.name])
    cut = []
    for case in cases:
        ordered = sorted(sides[case.group])
        number = f" [{ordered.index(part_of[case.name]) + 1}]" if len(ordered) > 1 else ""
        cut.append(replace(case, group=case.group + number))
    leaks = []
    for fold in range(len(part_of[cases[0].name])):
        learned = {c.group for c in cases if part_of[c.name][fold] != "test"}
        tested = [c.group in learned for c in cases if part_of[c.name][fold] == "test"]
        leaks.append(
            f"{sum(tested)} of {len(tested)} test images have a group mate in training or "
            "validation"
        )
    rows = tuple(FoldRow(c.name, c.label, c.group, part_of[c.name]) for c in cut)
    return cut, Folds(rows, "own split", tuple(leaks))


def _bus_bra(table: Path, cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """Fold k: test where kFold is k; valid_k divides the rest, and the smaller side is validation.

    Which of 0 and 1 means validation is told differently by two public programs.
    """
    names = {case.name for case in cases}
    rows = [r for r in read_table(table, ("ID", "kFold", "valid_1")) if r["ID"] in names]
    columns = []
    for k in sorted({int(row["kFold"]) for row in rows if row["kFold"].isdigit()}):
        sides = [
            "test" if row["kFold"] == str(k) else row.get(f"valid_{k}", "").split(".")[0]
            for row in rows
        ]
        for row, side in zip(rows, sides, strict=True):
            if side not in ("test", "0", "1"):
                raise SplitError(
                    f"{table}: {row['ID']} is in fold {row['kFold']!r} with valid_{k} = "
                    f"{row.get(f'valid_{k}')!r}; expected 0 or 1."
                )
        smaller = min("01", key=sides.count)
        part_of = {"test": "test", smaller: "validation"}
        columns.append([part_of.get(side, "train") for side in sides])
    parts = zip(*columns, strict=True)  # without a fold nothing, which is refused
    return {row["ID"]: part for row, part in zip(rows, parts, strict=False)}
