"""The score card of one image: its counts, and its scores by the empty-mask rule."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np

from unet_lib.metrics.counts import NAN, PixelCounts, count_pixels

TEXT_FIELDS = ("name", "label", "group")
COUNT_FIELDS = ("height", "width", "tp", "fp", "fn", "tn")


@dataclass(frozen=True)
class CaseScore:
    """What one prediction got right and wrong, at the original size of the image.

    The rule for empty masks is the table in the docstring of `unet_lib.metrics`.

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
    truth: np.ndarray, prediction: np.ndarray, *, name: str, label: str = "", group: str = ""
) -> CaseScore:
    """Score one predicted mask against the truth.

    Parameters
    ----------
    truth, prediction : np.ndarray
        bool (H, W) at the original size of the image.
    name, label, group : str
        As in `CaseScore`.

    Returns
    -------
    CaseScore

    Raises
    ------
    ValueError
        As `count_pixels`; the message begins with `name`.
    """
    try:
        counts = count_pixels(truth, prediction)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    height, width = truth.shape
    return CaseScore(name, label, group, height, width, counts.tp, counts.fp, counts.fn, counts.tn)
