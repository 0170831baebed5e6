"""The score cards of many images: chosen, sorted, pooled, written and read."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path

import numpy as np

from unet_lib.files import atomic_path
from unet_lib.metrics.cases import CaseScore
from unet_lib.metrics.scores import (
    COUNTS,
    DERIVED,
    MEASURED,
    SCORES,
    TEXTS,
    PixelCounts,
    of_kind,
)

FLAGS = of_kind("flag")
# A file name that is not valid UTF-8 reaches Python as surrogates; keep it as it is.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


class CaseTable:
    """The score cards of an evaluation, one for each image.

    Its length is the number of images; it is gone through, and indexed, in the order of `cases`.

    Parameters
    ----------
    cases : iterable of CaseScore
        In any order; names must be unique.

    Raises
    ------
    ValueError
        If a name occurs twice, or some distances are in mm and others in pixels.
    """

    def __init__(self, cases: Iterable[CaseScore] = ()) -> None:
        self._cases: list[CaseScore] = []
        self._names: set[str] = set()
        for case in cases:
            self.add(case)

    def add(self, case: CaseScore) -> None:
        """Add one image; refuse a name that is there already, and distances of two units."""
        if case.name in self._names:
            raise ValueError(f"{case.name} is in the table twice; each image counts once")
        if self._cases and case.unit != self.unit:
            units = {self.unit: self._cases[-1].name, case.unit: case.name}
            raise ValueError(
                f"the size of a pixel is known for {units['mm']} and not for {units['px']}; "
                "distances in mm and in pixels cannot share a table: give it for all or for none"
            )
        self._names.add(case.name)
        self._cases.append(case)

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[CaseScore]:
        return iter(self._cases)

    def __getitem__(self, index: int) -> CaseScore:
        return self._cases[index]

    def __eq__(self, other: object) -> bool:
        return self._cases == other._cases if isinstance(other, CaseTable) else NotImplemented

    __hash__ = None

    @property
    def cases(self) -> tuple[CaseScore, ...]:
        """The score cards, in the order of the table."""
        return tuple(self._cases)

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
        return tuple(sorted({case.label for case in self}))

    @property
    def groups(self) -> np.ndarray:
        """Group of each image, (n,) str; one that stands alone has a group of its own."""
        return np.array([case.group or f"alone: {case.name}" for case in self], dtype=str)

    @property
    def unit(self) -> str:
        """Unit of the distances: "mm" or "px"."""
        return self._cases[0].unit if self._cases else "px"

    def subset(
        self,
        predicate: Callable[[CaseScore], bool] | None = None,
        *,
        labels: Iterable[str] | None = None,
    ) -> CaseTable:
        """Keep the cases for which `predicate` holds and whose label is one of `labels`."""
        chosen = self._cases if predicate is None else filter(predicate, self._cases)
        wanted = None if labels is None else set(labels)
        return CaseTable(case for case in chosen if wanted is None or case.label in wanted)

    def pooled(self) -> PixelCounts:
        """Return the pixels of all cases in one confusion matrix."""
        return sum((case.counts for case in self), PixelCounts())

    def column(self, name: str) -> np.ndarray:
        """Return a field or score of every image, for example "dice", in the order of the table.

        (n,) of str for texts, int64 for counts, float64 for scores (nan where the empty-mask rule
        says so), bool for flags. ValueError: there is no such column; it lists those that exist.
        """
        kinds = dict.fromkeys(TEXTS, str) | dict.fromkeys(COUNTS, np.int64)
        kinds |= dict.fromkeys(DERIVED + MEASURED, np.float64) | dict.fromkeys(FLAGS, bool)
        if name not in kinds:
            raise ValueError(f"no column {name!r}; there are {', '.join(kinds)}")
        return np.array([getattr(case, name) for case in self], dtype=kinds[name])

    def sorted(self, by: str, *, descending: bool = False) -> CaseTable:
        """Return the table ordered by a column; nan last, ties by name."""
        undefined = {c.name for c, v in zip(self, self.column(by), strict=True) if v != v}
        by_name = sorted(self, key=attrgetter("name"))
        defined = (case for case in by_name if case.name not in undefined)
        ordered = sorted(defined, key=attrgetter(by), reverse=descending)
        return CaseTable([*ordered, *(case for case in by_name if case.name in undefined)])

    def to_csv(self, path: str | Path) -> Path:
        """Write the table and return `path`; a cell is empty where a score is undefined.

        Counts and measured scores are exact; scores that follow from counts have 4 decimals.
        """
        path = Path(path)
        with atomic_path(path) as temporary, temporary.open("w", **ENCODING) as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow((*TEXTS, *COUNTS, *DERIVED, *MEASURED))
            for case in self:
                exact = [getattr(case, name) for name in (*TEXTS, *COUNTS)]
                scores = [_cell(getattr(case, name), name) for name in (*DERIVED, *MEASURED)]
                writer.writerow([*exact, *scores])
        return path

    @classmethod
    def read_csv(cls, path: str | Path) -> CaseTable:
        """Read a table written by `to_csv`; equal to the table that was written.

        Measured scores may be absent, as in tables of earlier versions; they are nan then.
        ValueError: columns are missing or unknown, or a line cannot be read; names file and line.
        """
        with Path(path).open(**ENCODING) as file:
            reader = csv.DictReader(file, restkey="more", restval="")
            needed, scores = TEXTS + COUNTS, DERIVED + MEASURED
            columns = set(reader.fieldnames or ())
            if not columns.issuperset(needed) or columns.difference(needed, scores):
                raise ValueError(
                    f"{path}: expected the columns {', '.join(needed)} (and at most "
                    f"{', '.join(scores)}), got {', '.join(sorted(columns))}"
                )
            return cls(_read_row(row, f"{path}, line {reader.line_num}") for row in reader)


def _read_row(row: dict[str, str], where: str) -> CaseScore:
    try:
        if "more" in row:
            raise ValueError("there are more cells than columns")
        counts = [int(row[name]) for name in COUNTS]
        measured = [float(row.get(name) or math.nan) for name in MEASURED]
        return CaseScore(*(row[name] for name in TEXTS), *counts, *measured)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _cell(value: float, name: str) -> str:
    """Write a score; one that is measured as the shortest text that reads back as the same."""
    digits = ".4f" if name in DERIVED else ".0f" if SCORES[name].unit == "count" else ""
    return "" if math.isnan(value) else format(value, digits)
