"""The split that a data set's authors made: taken only on request, since it may leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unet_lib.dataset.cases import Case, read_table
from unet_lib.dataset.splits import FoldRow, Folds, SplitError

OWN_SPLIT = "own_split.csv"
"""In a data folder: the split of its authors, in the format of `Folds`."""

_BUS_BRA = "5-fold-cv.csv"


def own_split(root: Path, cases: Sequence[Case]) -> tuple[list[Case], Folds, list[str]]:
    """Read the split that lies in a data folder, and cut the groups that it divides.

    Returned with the cut groups, in cases and folds, and with what to say of each fold: how many
    test images have a group mate in training or validation.
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
    divided: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for case in cases:
        if part_of[case.name] not in divided[case.group]:
            divided[case.group].append(part_of[case.name])
    cut = []
    for case in cases:
        sides = sorted(divided[case.group])
        number = sides.index(part_of[case.name]) + 1
        cut.append(replace(case, group=f"{case.group} [{number}]") if len(sides) > 1 else case)
    rows = tuple(FoldRow(c.name, c.label, c.group, part_of[c.name]) for c in cut)
    leaks = []
    for fold in range(len(rows[0].parts)):
        learned = {c.group for c in cases if part_of[c.name][fold] != "test"}
        tested = [c.group in learned for c in cases if part_of[c.name][fold] == "test"]
        leaks.append(
            f"{sum(tested)} of {len(tested)} test images have a group mate in training or "
            "validation"
        )
    return cut, Folds(rows, "own split"), leaks


def _bus_bra(table: Path, cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """Fold k: test where kFold is k; valid_k divides the rest, and the smaller side is validation.

    Which of 0 and 1 means validation is told differently by two public programs.
    """
    rows = {row["ID"]: row for row in read_table(table, ("ID", "kFold", "valid_1"))}
    rows = {case.name: rows[case.name] for case in cases if case.name in rows}
    columns = []
    for k in sorted({int(row["kFold"]) for row in rows.values() if row["kFold"].isdigit()}):
        sides: dict[str, list[str]] = defaultdict(list)
        for name, row in rows.items():
            side = "test" if row["kFold"] == str(k) else row.get(f"valid_{k}", "").split(".")[0]
            if side not in ("test", "0", "1"):
                raise SplitError(
                    f"{table}: {name} is in fold {row['kFold']!r} with valid_{k} = "
                    f"{row.get(f'valid_{k}')!r}; expected 0 or 1."
                )
            sides[side].append(name)
        smaller = min(("0", "1"), key=lambda side: len(sides[side]))
        part_of = dict.fromkeys(rows, "train") | dict.fromkeys(sides[smaller], "validation")
        columns.append(part_of | dict.fromkeys(sides["test"], "test"))
    return {name: tuple(column[name] for column in columns) for name in rows}
