"""The score cards of many images: chosen, sorted, pooled, written and read."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unet_lib.files import atomic_path
from unet_lib.metrics.cases import (
    COMPONENT_FIELDS,
    COUNT_FIELDS,
    MEASURED_FIELDS,
    TEXT_FIELDS,
    CaseScore,
)
from unet_lib.metrics.counts import NAN, PixelCounts

# Written for the human reader and worked out again from the counts when a table is read.
DERIVED_FIELDS = ("dice", "iou", "precision", "recall", "left_empty", "false_positive_area",
                  "area_error", "absolute_area_error")  # fmt: skip
FLAG_FIELDS = ("has_lesion", "predicted_empty", "missed")
# A file name that is not valid UTF-8 reaches Python as surrogates; keep it as it is.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


@dataclass(frozen=True)
class CaseTable:
    """The score cards of an evaluation, one for each image.

    Parameters
    ----------
    cases : tuple of CaseScore
        In any order; names must be unique.

    Raises
    ------
    ValueError
        If a name occurs twice, or some distances are in mm and others in pixels.
    """

    cases: tuple[CaseScore, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a name that occurs twice, and distances of two units."""
        object.__setattr__(self, "cases", tuple(self.cases))
        seen: set[str] = set()
        for case in self.cases:
            if case.name in seen:
                raise ValueError(f"{case.name} is in the table twice; each image counts once")
            seen.add(case.name)
        units = {case.unit: case.name for case in self.cases}
        if len(units) > 1:
            raise ValueError(
                f"the size of a pixel is known for {units['mm']} and not for {units['px']}; "
                "distances in mm and in pixels cannot share a table: give it for all or for none"
            )

    def added(self, case: CaseScore) -> CaseTable:
        """Return the table with one more case.

        Only that case is checked, so that n of them cost n checks and not n ** 2.
        """
        if any(case.name == there.name for there in self.cases):
            CaseTable((case, case))  # says so
        CaseTable((*self.cases[:1], case))
        table = object.__new__(CaseTable)
        object.__setattr__(table, "cases", (*self.cases, case))
        return table

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.cases)

    def __iter__(self) -> Iterator[CaseScore]:
        """Go through the score cards in the order of the table."""
        return iter(self.cases)

    def __getitem__(self, index: int) -> CaseScore:
        """Return the score card at a position."""
        return self.cases[index]

    @property
    def lesion_cases(self) -> CaseTable:
        """The images whose truth holds a lesion."""
        return self.subset(lambda case: case.has_lesion)

    @property
    def normal_cases(self) -> CaseTable:
        """The images whose truth holds no lesion, whatever their label."""
        return self.subset(lambda case: not case.has_lesion)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({case.label for case in self.cases}))

    def subset(
        self,
        predicate: Callable[[CaseScore], bool] | None = None,
        *,
        labels: Iterable[str] | None = None,
    ) -> CaseTable:
        """Keep the cases for which `predicate` holds and whose label is one of `labels`."""
        wanted = None if labels is None else set(labels)
        return CaseTable(
            tuple(
                case
                for case in self.cases
                if (predicate is None or predicate(case))
                and (wanted is None or case.label in wanted)
            )
        )

    @property
    def groups(self) -> np.ndarray:
        """Group of each image, (n,) str; one that stands alone has a group of its own."""
        return np.array([case.group or f"alone: {case.name}" for case in self.cases], dtype=str)

    @property
    def unit(self) -> str:
        """Unit of the distances: "mm" or "px"."""
        return self.cases[0].unit if self.cases else "px"

    def pooled(self) -> PixelCounts:
        """Return the pixels of all cases in one confusion matrix."""
        return sum((case.counts for case in self.cases), PixelCounts())

    def column(self, name: str) -> np.ndarray:
        """Return one column, in the order of the table.

        Parameters
        ----------
        name : str
            A field of `CaseScore` or one of its scores, for example "dice".

        Returns
        -------
        np.ndarray
            (n,) str for names, int64 for counts, float64 for scores (nan where the empty-mask
            rule says so), bool for flags.

        Raises
        ------
        ValueError
            If there is no such column; the message lists those that exist.
        """
        kinds = (str, np.int64, np.float64, np.float64, bool)
        groups = (TEXT_FIELDS, COUNT_FIELDS, DERIVED_FIELDS, MEASURED_FIELDS, FLAG_FIELDS)
        for kind, names in zip(kinds, groups, strict=True):
            if name in names:
                return np.array([getattr(case, name) for case in self.cases], dtype=kind)
        raise ValueError(f"no column {name!r}; there are {', '.join(sum(groups, ()))}")

    def sorted(self, by: str, *, descending: bool = False) -> CaseTable:
        """Return the table ordered by a column; nan last, ties by name."""
        values = dict(zip(self.column("name"), self.column(by), strict=True))
        defined = [c for c in self.cases if not _is_nan(values[c.name])]
        undefined = [c for c in self.cases if _is_nan(values[c.name])]
        by_name = sorted(defined, key=lambda case: case.name)
        ordered = sorted(by_name, key=lambda case: values[case.name], reverse=descending)
        return CaseTable((*ordered, *sorted(undefined, key=lambda case: case.name)))

    def to_csv(self, path: str | Path) -> Path:
        """Write the table; a cell is empty where a score is undefined or not known.

        Counts and measured scores are exact; scores that follow from counts have 4 decimals.

        Returns
        -------
        Path
            `path`.
        """
        path = Path(path)
        with atomic_path(path) as temporary, temporary.open("w", **ENCODING) as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow((*TEXT_FIELDS, *COUNT_FIELDS, *DERIVED_FIELDS, *MEASURED_FIELDS))
            for case in self.cases:
                exact = [getattr(case, name) for name in (*TEXT_FIELDS, *COUNT_FIELDS)]
                derived = [_cell(getattr(case, name), ".4f") for name in DERIVED_FIELDS]
                measured = [
                    _cell(getattr(case, name), ".0f" if name in COMPONENT_FIELDS else "")
                    for name in MEASURED_FIELDS
                ]
                writer.writerow([*exact, *derived, *measured])
        return path

    @classmethod
    def read_csv(cls, path: str | Path) -> CaseTable:
        """Read a table written by `to_csv`; equal to the table that was written.

        Measured scores may be absent, as in tables of earlier versions; they are nan then.

        Raises
        ------
        ValueError
            If columns are missing or unknown or a line cannot be read; names file and line.
        """
        with Path(path).open(**ENCODING) as file:
            reader = csv.DictReader(file, restkey="more", restval="")
            needed = {*TEXT_FIELDS, *COUNT_FIELDS}
            found = set(reader.fieldnames or ())
            if not needed <= found or found - needed - {*DERIVED_FIELDS, *MEASURED_FIELDS}:
                more = ", ".join((*DERIVED_FIELDS, *MEASURED_FIELDS))
                raise ValueError(
                    f"{path}: expected the columns {', '.join(TEXT_FIELDS + COUNT_FIELDS)} "
                    f"(and at most {more}), got {', '.join(sorted(found))}"
                )
            return cls(tuple(_read_row(row, f"{path}, line {reader.line_num}") for row in reader))


def _read_row(row: dict[str, str], where: str) -> CaseScore:
    try:
        if "more" in row:
            raise ValueError("there are more cells than columns")
        texts = [row[name] for name in TEXT_FIELDS]
        counts = [int(row[name]) for name in COUNT_FIELDS]
        measured = [float(row.get(name) or NAN) for name in MEASURED_FIELDS]
        return CaseScore(*texts, *counts, *measured)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _cell(value: float, digits: str) -> str:
    """Write a number; without `digits` the shortest text that reads back as the same number."""
    return "" if math.isnan(value) else format(value, digits)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
