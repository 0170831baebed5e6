"""The score card of one image, by the empty-mask rule of `unet_lib.metrics`; tables of them."""

from __future__ import annotations

import csv
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from unet_lib.files import atomic_path
from unet_lib.metrics.scores import (
    COUNTS,
    DERIVED,
    MEASURED,
    SCORES,
    TEXTS,
    PixelCounts,
    component_counts,
    contour_scores,
    count_pixels,
    of_kind,
)

COLUMNS = dict.fromkeys(TEXTS, str) | dict.fromkeys(COUNTS, np.int64)
COLUMNS |= dict.fromkeys((*DERIVED, *MEASURED), np.float64) | dict.fromkeys(of_kind("flag"), bool)
# A file name that is not valid UTF-8 reaches Python as surrogates; keep it as it is.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def _of_lesion(name: str) -> property:
    """Give a score of the counts: nan without a lesion, 0 where nothing was predicted on one."""

    def score(case: CaseScore) -> float:
        value = getattr(case.counts, name)
        return math.nan if not case.has_lesion else 0.0 if math.isnan(value) else value

    return property(score, doc=f"{SCORES[name].title} of this image; nan without a lesion.")


@dataclass(frozen=True, eq=False)
class CaseScore:
    """What one prediction got right and wrong, at the original size of the image."""

    name: str  # unique in a table, for example "benign (1)"
    label: str  # class of the image: benign, malignant, normal, unknown or ""
    group: str  # of near-duplicates; "": the image stands alone
    height: int
    width: int
    tp: int
    fp: int
    fn: int
    tn: int
    # nan from here on where the rule says so, or where they are not known
    components: float = math.nan
    components_found: float = math.nan
    predicted_components: float = math.nan
    false_components: float = math.nan
    hd95: float = math.nan  # mm where the size of a pixel is known, else pixels
    mean_surface_distance: float = math.nan
    surface_dice: float = math.nan
    image_score: float = math.nan  # highest probability in the image, before any cleaning
    brier: float = math.nan  # of all pixels; nan without probabilities
    ece: float = math.nan
    band_brier: float = math.nan  # of the pixels in `contour_band`
    band_ece: float = math.nan
    pixel_height_mm: float = math.nan
    pixel_width_mm: float = math.nan

    def __post_init__(self) -> None:
        """Check the texts, that the counts add up, and the range of the rest."""
        for name in TEXTS:
            if set("\r\n\0") & set(getattr(self, name)):  # would break a line of the CSV
                raise ValueError(f"the {name} {getattr(self, name)!r} must not hold line breaks")
        for name in COUNTS:
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        if self.counts.n != self.height * self.width or self.height < 1:
            raise ValueError(
                f"{self.name}: tp + fp + fn + tn is {self.counts.n} pixels, but the image has "
                f"{self.height} x {self.width} = {self.height * self.width}"
            )
        for name in MEASURED:
            value, share = float(getattr(self, name)), SCORES[name].unit == "share"
            if value < 0 or math.isinf(value) or (share and value > 1):
                limits = "from 0 to 1" if share else "0 or more"
                raise ValueError(f"{self.name}: {name} must be {limits}, or unknown, got {value}")
            object.__setattr__(self, name, math.nan if math.isnan(value) else value)

    def __eq__(self, other: object) -> bool:
        """Compare all fields; unknown equals unknown, as nan is one object and dicts see that."""
        return vars(self) == vars(other) if isinstance(other, CaseScore) else NotImplemented

    counts = property(lambda c: PixelCounts(c.tp, c.fp, c.fn, c.tn), doc="The four, to be pooled.")
    has_lesion = property(lambda c: c.tp + c.fn > 0, doc="Whether the truth holds a lesion pixel.")
    predicted_empty = property(lambda c: c.tp + c.fp == 0, doc="Whether no pixel was predicted.")
    missed = property(
        lambda c: c.has_lesion and c.tp == 0, doc="A lesion, and none of its pixels was predicted."
    )
    left_empty = property(
        lambda c: math.nan if c.has_lesion else float(c.predicted_empty),
        doc="1 without a lesion and a predicted pixel, 0 without a lesion; nan with one.",
    )
    lesion_share = property(
        lambda c: (c.tp + c.fn) / (c.height * c.width), doc="Lesion pixels by all pixels."
    )
    false_positive_area = property(
        lambda c: c.fp / (c.height * c.width), doc="Wrongly predicted pixels by all pixels."
    )
    area_error = property(
        lambda c: (c.fp - c.fn) / (c.tp + c.fn) if c.has_lesion else math.nan,
        doc="(Predicted area - true area) / true area; nan without a lesion.",
    )
    absolute_area_error = property(lambda c: abs(c.area_error), doc="Its size, whatever its sign.")
    dice, iou, precision, recall = map(_of_lesion, of_kind("overlap"))
    unit = property(
        lambda c: "px" if math.isnan(c.pixel_height_mm) else "mm", doc="Unit of the distances."
    )


def score_case(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    name: str,
    label: str = "",
    group: str = "",
    spacing: tuple[float, float] | None = None,
) -> CaseScore:
    """Score one predicted mask, bool (H, W), against the truth; `spacing`: mm of a pixel (h, w).

    Errors begin with `name`. Calibration needs probabilities and is worked out by `Evaluation.add`.
    """
    try:
        counts = count_pixels(truth, prediction)
        measured = component_counts(truth, prediction) | contour_scores(truth, prediction, spacing)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    sizes = dict(zip(("pixel_height_mm", "pixel_width_mm"), spacing or (), strict=False))
    return CaseScore(name, label, group, *truth.shape, *astuple(counts), **measured, **sizes)


class CaseTable:
    """The score cards of an evaluation, one for each image.

    Its length is the number of images; it is gone through, and indexed, in the order given.

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
        self._cases: dict[str, CaseScore] = {}
        for case in cases:
            self.add(case)

    def add(self, case: CaseScore) -> None:
        """Add one image; refuse a name that is there already, and distances of two units."""
        if case.name in self._cases:
            raise ValueError(f"{case.name} is in the table twice; each image counts once")
        if self._cases and case.unit != self.unit:
            units = {self.unit: next(iter(self._cases)), case.unit: case.name}
            raise ValueError(
                f"the size of a pixel is known for {units['mm']} and not for {units['px']}; "
                "distances in mm and in pixels cannot share a table: give it for all or for none"
            )
        self._cases[case.name] = case

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[CaseScore]:
        return iter(self._cases.values())

    def __getitem__(self, index: int) -> CaseScore:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, CaseTable) else NotImplemented

    lesion_cases = property(
        lambda t: t.subset(lambda case: case.has_lesion), doc="Images whose truth holds a lesion."
    )
    normal_cases = property(
        lambda t: t.subset(lambda case: not case.has_lesion), doc="Images whose truth holds none."
    )
    labels = property(lambda t: tuple(sorted({case.label for case in t})), doc="Labels, sorted.")
    unit = property(
        lambda t: next((case.unit for case in t), "px"), doc="Unit of the distances: mm or px."
    )

    @property
    def groups(self) -> np.ndarray:
        """Group of each image, (n,) str; one that stands alone has a group of its own."""
        return np.array([case.group or f"alone: {case.name}" for case in self], dtype=str)

    def subset(
        self,
        predicate: Callable[[CaseScore], bool] = lambda case: True,
        *,
        labels: Iterable[str] | None = None,
    ) -> CaseTable:
        """Keep the cases for which `predicate` holds and whose label is one of `labels`."""
        wanted = self.labels if labels is None else set(labels)
        return CaseTable(case for case in self if case.label in wanted and predicate(case))

    def pooled(self) -> PixelCounts:
        """Return the pixels of all cases in one confusion matrix."""
        return sum((case.counts for case in self), PixelCounts())

    def column(self, name: str) -> np.ndarray:
        """Return a field or score of every image, for example "dice", in the order of the table.

        (n,) of str for texts, int64 for counts, float64 for scores (nan where the empty-mask rule
        says so), bool for flags. ValueError: there is no such column; it lists those that exist.
        """
        if name not in COLUMNS:
            raise ValueError(f"no column {name!r}; there are {', '.join(COLUMNS)}")
        return np.array([getattr(case, name) for case in self], dtype=COLUMNS[name])

    def sorted(self, by: str, *, descending: bool = False) -> CaseTable:
        """Return the table ordered by a column; nan last, ties by name."""
        by_name = sorted(self, key=attrgetter("name"))
        defined = [case for case in by_name if getattr(case, by) == getattr(case, by)]
        undefined = [case for case in by_name if getattr(case, by) != getattr(case, by)]
        return CaseTable(sorted(defined, key=attrgetter(by), reverse=descending) + undefined)

    def to_csv(self, path: str | Path) -> Path:
        """Write the table and return `path`; a cell is empty where a score is undefined.

        Counts and measured scores are exact; scores that follow from counts have 4 decimals.
        """
        path = Path(path)
        with atomic_path(path) as temporary, temporary.open("w", **ENCODING) as file:
            writer = csv.writer(file, lineterminator="\n")
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
            table = cls()
            for row in reader:
                try:
                    if "more" in row:
                        raise ValueError("there are more cells than columns")
                    numbers = [int(row[name]) for name in COUNTS]
                    numbers += [float(row.get(name) or math.nan) for name in MEASURED]
                    table.add(CaseScore(*(row[name] for name in TEXTS), *numbers))
                except ValueError as error:
                    raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
            return table


def _cell(value: float, name: str) -> str:
    """Write a score; one that is measured as the shortest text that reads back as the same."""
    digits = ".4f" if name in DERIVED else ".0f" if SCORES[name].unit == "count" else ""
    return "" if math.isnan(value) else format(value, digits)
