"""The score card of one image, by the empty-mask rule of `unet_lib.metrics`."""

from __future__ import annotations

import math
import operator
from dataclasses import astuple, dataclass

import numpy as np

from unet_lib.metrics.scores import COUNTS, MEASURED, SCORES, TEXTS, PixelCounts, count_pixels
from unet_lib.metrics.surfaces import component_counts, contour_scores


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

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    @property
    def counts(self) -> PixelCounts:
        """The four counts, to be pooled."""
        return PixelCounts(self.tp, self.fp, self.fn, self.tn)

    @property
    def has_lesion(self) -> bool:
        """Whether the truth holds a lesion pixel."""
        return self.tp + self.fn > 0

    @property
    def lesion_share(self) -> float:
        """Lesion pixels of the truth as a share of the image, in [0, 1]."""
        return (self.tp + self.fn) / (self.height * self.width)

    @property
    def predicted_empty(self) -> bool:
        """Whether no pixel was predicted."""
        return self.tp + self.fp == 0

    @property
    def missed(self) -> bool:
        """Whether there is a lesion and none of its pixels was predicted."""
        return self.has_lesion and self.tp == 0

    @property
    def left_empty(self) -> float:
        """For images without a lesion: 1 if no pixel was predicted, else 0; nan with a lesion."""
        return math.nan if self.has_lesion else float(self.predicted_empty)

    @property
    def false_positive_area(self) -> float:
        """Wrongly predicted pixels as a share of the image, in [0, 1]."""
        return self.fp / (self.height * self.width)

    @property
    def area_error(self) -> float:
        """(Predicted area - true area) / true area; -1 for an empty prediction; nan without one."""
        return (self.fp - self.fn) / (self.tp + self.fn) if self.has_lesion else math.nan

    @property
    def absolute_area_error(self) -> float:
        """Size of `area_error`, whatever its sign."""
        return abs(self.area_error)

    @property
    def unit(self) -> str:
        """Unit of the distances: "mm" or "px"."""
        return "px" if math.isnan(self.pixel_height_mm) else "mm"

    @property
    def dice(self) -> float:
        """Dice of this image; nan without a lesion."""
        return self.counts.dice if self.has_lesion else math.nan

    @property
    def iou(self) -> float:
        """Lesion IoU of this image; nan without a lesion."""
        return self.counts.iou if self.has_lesion else math.nan

    @property
    def precision(self) -> float:
        """Precision of this image; 0 if nothing was predicted on a lesion; nan without one."""
        if not self.has_lesion:
            return math.nan
        return 0.0 if self.predicted_empty else self.counts.precision

    @property
    def recall(self) -> float:
        """Recall of this image; nan without a lesion."""
        return self.counts.recall if self.has_lesion else math.nan


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
