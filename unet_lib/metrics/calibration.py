"""How far predicted probabilities are from what they say, in a few sums of bounded size."""

from __future__ import annotations

import numpy as np

from unet_lib.metrics.counts import NAN, check_probabilities, ratio

BINS = 15
"""Bins of equal width of the expected calibration error: bin i holds i / 15 <= p < (i + 1) / 15."""

ARRAYS = ("pixels", "lesion", "probability", "squared_error")


class Calibration:
    """Pixels by predicted probability, with what is needed for Brier score and ECE.

    Parameters
    ----------
    pixels, lesion, probability, squared_error : np.ndarray, optional
        float64 (15,), by bin: number of pixels, of lesion pixels, sum of the probabilities and of
        (probability - truth) ** 2. Zeros by default.

    Raises
    ------
    ValueError
        If an array has another length.
    """

    def __init__(
        self,
        pixels: np.ndarray | None = None,
        lesion: np.ndarray | None = None,
        probability: np.ndarray | None = None,
        squared_error: np.ndarray | None = None,
    ) -> None:
        for name, values in zip(ARRAYS, (pixels, lesion, probability, squared_error), strict=True):
            sums = np.zeros(BINS) if values is None else np.array(values, dtype=float)
            if sums.shape != (BINS,):
                raise ValueError(f"{name}: a calibration has {BINS} bins, got {sums.shape}")
            setattr(self, name, sums)

    @classmethod
    def of(cls, truth: np.ndarray, probabilities: np.ndarray) -> Calibration:
        """Sum up the pixels of one image.

        Parameters
        ----------
        truth : np.ndarray
            bool, any shape.
        probabilities : np.ndarray
            float32, the same shape, in [0, 1].

        Returns
        -------
        Calibration

        Raises
        ------
        ValueError
            For a `truth` that is not bool, another shape, a nan, or a value outside [0, 1].
        """
        if np.asarray(truth).dtype != bool:
            raise ValueError(f"the true mask must be bool, got dtype {np.asarray(truth).dtype}")
        p = check_probabilities(truth, probabilities).ravel().astype(float)
        truth = truth.ravel()
        index = np.minimum((p * BINS).astype(np.int64), BINS - 1)
        pixels, lesion = (np.bincount(chosen, minlength=BINS) for chosen in (index, index[truth]))
        return cls(pixels, lesion, *(np.bincount(index, w, BINS) for w in (p, (p - truth) ** 2)))

    def __add__(self, other: Calibration) -> Calibration:
        """Merge two into a new one."""
        if not isinstance(other, Calibration):
            return NotImplemented
        return Calibration(*(getattr(self, name) + getattr(other, name) for name in ARRAYS))

    @property
    def n(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())

    @property
    def brier(self) -> float:
        """Mean squared difference between probability and truth; nan without pixels."""
        return ratio(float(self.squared_error.sum()), self.n)

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, arXiv:1706.04599); nan without pixels.

        The difference of mean probability and lesion share of each of the 15 bins, weighted by
        its pixels.
        """
        return ratio(float(np.abs(self.probability - self.lesion).sum()), self.n)

    def reliability(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean probability and lesion share by bin, float64 (15,), nan in empty bins."""
        pixels = np.where(self.pixels > 0, self.pixels, NAN)
        return self.probability / pixels, self.lesion / pixels

    def to_array(self) -> np.ndarray:
        """Return all sums, float64 (4, 15), for `from_array`."""
        return np.stack([getattr(self, name) for name in ARRAYS])

    @classmethod
    def from_array(cls, sums: np.ndarray) -> Calibration:
        """Build it from the array of `to_array`."""
        return cls(*sums)
