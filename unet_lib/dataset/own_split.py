"""The split that a data set's authors made: taken only on request, since it may leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unet_lib.dataset.cases import Case
from unet_lib.dataset.folds import FoldRow, Folds, SplitError
from unet_lib.dataset.medsegbench import OWN_SPLIT
from unet_lib.dataset.published import read_table

__all__ = ["cut_groups", "leak", "own_split"]

_BUS_BRA = "5-fold-cv.csv"


def own_split(root: Path, cases: Sequence[Case]) -> Folds:
    """Read the split that lies in a data folder.

    Parameters
    ----------
    root : Path
        Of BUS-BRA (``5-fold-cv.csv``) or of MedSegBench's pictures (``own_split.csv``).
    cases : sequence of Case
        Of this folder.

    Returns
    -------
    Folds
        Every image is a group of its own: see :func:`cut_groups`.

    Raises
    ------
    SplitError
        The folder has none, or it does not fit the cases.
    """
    if (root / OWN_SPLIT).is_file():
        folds = Folds.read(root / OWN_SPLIT)
        return Folds(folds.rows, "own split")
    if (root / _BUS_BRA).is_file():
        return _bus_bra(root / _BUS_BRA, cases)
    raise SplitError(
        f"{root}: has no split of its own ({OWN_SPLIT} or {_BUS_BRA}). Leave --split out: five "
        "folds are made that keep patients and near-duplicates together."
    )


def _bus_bra(table: Path, cases: Sequence[Case]) -> Folds:
    """Fold k: test where kFold is k; valid_k divides the rest, and the smaller side is validation.

    Which of 0 and 1 means validation is told differently by two public programs.
    """
    rows = {row["ID"]: row for row in read_table(table, ("ID", "kFold", "valid_1"))}
    absent = [case.name for case in cases if case.name not in rows]
    if absent:
        raise SplitError(f"{table}: has no row for {len(absent)} images, first {absent[0]!r}.")
    numbers = sorted({int(row["kFold"]) for row in rows.values() if row["kFold"].isdigit()})
    columns = []
    for k in numbers:
        sides: dict[str, list[str]] = defaultdict(list)
        for case in cases:
            row = rows[case.name]
            side = "test" if row["kFold"] == str(k) else row.get(f"valid_{k}", "").split(".")[0]
            if side not in ("test", "0", "1"):
                raise SplitError(
                    f"{table}: {case.name} is in fold {row['kFold']!r} with valid_{k} = "
                    f"{row.get(f'valid_{k}')!r}; expected 0 or 1."
                )
            sides[side].append(case.name)
        smaller = min(("0", "1"), key=lambda side: len(sides[side]))
        part_of = dict.fromkeys(sides["test"], "test") | dict.fromkeys(sides[smaller], "validation")
        columns.append(part_of)
    return Folds(
        tuple(
            FoldRow(c.name, c.label, c.name, tuple(col.get(c.name, "train") for col in columns))
            for c in cases
        ),
        "own split",
    )


def cut_groups(cases: Sequence[Case], folds: Folds) -> tuple[list[Case], Folds]:
    """Divide the groups that a split divides, so that it can be used in spite of that.

    Returns
    -------
    cases : list of Case
        With groups that lie in one part in every fold.
    folds : Folds
        The same parts, with these groups.
    """
    row_of = {row.image: row for row in folds.rows}
    parts: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for case in cases:
        if case.name in row_of:
            parts[case.group].add(row_of[case.name].parts)
    cut = []
    for case in cases:
        if case.name in row_of and len(parts[case.group]) > 1:
            where = sorted(parts[case.group]).index(row_of[case.name].parts) + 1
            case = replace(case, group=f"{case.group} [{where}]")
        cut.append(case)
    group_of = {case.name: case.group for case in cut}
    rows = (replace(row, group=group_of.get(row.image, row.image)) for row in folds.rows)
    return cut, Folds(tuple(rows), folds.name)


def leak(cases: Sequence[Case], folds: Folds, fold: int) -> tuple[int, int]:
    """Count the test images of a fold with a group mate in training or validation, and all."""
    part_of = {row.image: row.parts[fold] for row in folds.rows if fold < len(row.parts)}
    learned = {case.group for case in cases if part_of.get(case.name) in ("train", "validation")}
    test = [case for case in cases if part_of.get(case.name) == "test"]
    return sum(case.group in learned for case in test), len(test)
