"""The score card of one image: its counts, and its scores by the empty-mask rule."""

from __future__ import annotations

import math
import operator
from dataclasses import astuple, dataclass

import numpy as np

from unet_lib.metrics.counts import NAN, PixelCounts, count_pixels
from unet_lib.metrics.surfaces import check_spacing, component_counts, contour_scores

TEXT_FIELDS = ("name", "label", "group")
COUNT_FIELDS = ("height", "width", "tp", "fp", "fn", "tn")
COMPONENT_FIELDS = ("components", "components_found", "predicted_components", "false_components")
CONTOUR_FIELDS = ("hd95", "mean_surface_distance", "surface_dice")
CALIBRATION_FIELDS = ("brier", "ece", "band_brier", "band_ece")
SPACING_FIELDS = ("pixel_height_mm", "pixel_width_mm")
SHARES = ("surface_dice", *CALIBRATION_FIELDS)
# They follow from the pixels themselves and are kept exactly; nan where not known.
MEASURED_FIELDS = (*COMPONENT_FIELDS, *CONTOUR_FIELDS, *CALIBRATION_FIELDS, *SPACING_FIELDS)


@dataclass(frozen=True, eq=False)
class CaseScore:
    """What one prediction got right and wrong, at the original size of the image.

    The rule for empty masks is the table in the docstring of `unet_lib.metrics`. Fields from
    `components` on are nan where the rule says so or where they are not known.

    Parameters
    ----------
    name : str
        Name of the image, unique in a table, for example "benign (1)".
    label : str
        Class of the image: "benign", "malignant", "normal", "unknown" or "".
    group : str
        Near-duplicate group; "" means that the image stands alone.
    height, width : int
        Size of the image in pixels.
    tp, fp, fn, tn : int
        Pixel counts, as in `PixelCounts`; their sum is height * width.
    components, components_found, predicted_components, false_components : float
        Connected components, see `component_counts`; whole numbers.
    hd95, mean_surface_distance : float
        Distances of the contours, see `contour_scores`; mm where the size of a pixel is known,
        else pixels.
    surface_dice : float
        Share of the contours that agree to 0.5 mm, or 5 pixels where mm are not known.
    brier, ece : float
        Calibration of all pixels, see `Calibration`; nan without probabilities.
    band_brier, band_ece : float
        The same of the pixels at most 20 pixels from the true contour; nan without a lesion.
    pixel_height_mm, pixel_width_mm : float
        Size of a pixel.

    Raises
    ------
    ValueError
        If a count is negative, the counts do not add up to height * width, or a text holds a
        line break.
    """

    name: str
    label: str
    group: str
    height: int
    width: int
    tp: int
    fp: int
    fn: int
    tn: int
    components: float = NAN
    components_found: float = NAN
    predicted_components: float = NAN
    false_components: float = NAN
    hd95: float = NAN
    mean_surface_distance: float = NAN
    surface_dice: float = NAN
    brier: float = NAN
    ece: float = NAN
    band_brier: float = NAN
    band_ece: float = NAN
    pixel_height_mm: float = NAN
    pixel_width_mm: float = NAN

    def __post_init__(self) -> None:
        """Check the texts and that the counts add up."""
        for name in TEXT_FIELDS:
            if set("\r\n\0") & set(getattr(self, name)):  # would break a line of the CSV
                raise ValueError(f"the {name} {getattr(self, name)!r} must not hold line breaks")
        for name in COUNT_FIELDS:
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        if self.counts.n != self.height * self.width or self.height < 1:
            raise ValueError(
                f"{self.name}: tp + fp + fn + tn is {self.counts.n} pixels, but the image has "
                f"{self.height} x {self.width} = {self.height * self.width}"
            )
        for name in MEASURED_FIELDS:
            value = float(getattr(self, name))
            if value < 0 or math.isinf(value) or (name in SHARES and value > 1):
                limits = "from 0 to 1" if name in SHARES else "0 or more"
                raise ValueError(f"{self.name}: {name} must be {limits}, or unknown, got {value}")
            object.__setattr__(self, name, NAN if math.isnan(value) else value)

    def __eq__(self, other: object) -> bool:
        """Compare all fields; unknown equals unknown, as NAN is one object and dicts see that."""
        return vars(self) == vars(other) if isinstance(other, CaseScore) else NotImplemented

    def __hash__(self) -> int:
        """Hash all fields."""
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
        return NAN if self.has_lesion else float(self.predicted_empty)

    @property
    def false_positive_area(self) -> float:
        """Wrongly predicted pixels as a share of the image, in [0, 1]."""
        return self.fp / (self.height * self.width)

    @property
    def area_error(self) -> float:
        """(Predicted area - true area) / true area; -1 for an empty prediction; nan without one."""
        return (self.fp - self.fn) / (self.tp + self.fn) if self.has_lesion else NAN

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
        return self.counts.dice if self.has_lesion else NAN

    @property
    def iou(self) -> float:
        """Lesion IoU of this image; nan without a lesion."""
        return self.counts.iou if self.has_lesion else NAN

    @property
    def precision(self) -> float:
        """Precision of this image; 0 if nothing was predicted on a lesion; nan without one."""
        if not self.has_lesion:
            return NAN
        return 0.0 if self.predicted_empty else self.counts.precision

    @property
    def recall(self) -> float:
        """Recall of this image; nan without a lesion."""
        return self.counts.recall if self.has_lesion else NAN


def score_case(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    name: str,
    label: str = "",
    group: str = "",
    spacing: tuple[float, float] | None = None,
) -> CaseScore:
    """Score one predicted mask against the truth; calibration needs `Evaluation.add`.

    Parameters
    ----------
    truth, prediction : np.ndarray
        bool (H, W) at the original size of the image.
    name, label, group : str
        As in `CaseScore`.
    spacing : (float, float), optional
        Height and width of a pixel in mm.

    Returns
    -------
    CaseScore

    Raises
    ------
    ValueError
        As `count_pixels`, or for a spacing that is not positive; the message begins with `name`.
    """
    try:
        counts = count_pixels(truth, prediction)
        check_spacing(spacing)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    measured = {
        **component_counts(truth, prediction),
        **contour_scores(truth, prediction, spacing),
        **dict(zip(SPACING_FIELDS, spacing or (), strict=False)),
    }
    return CaseScore(name, label, group, *truth.shape, *astuple(counts), **measured)
