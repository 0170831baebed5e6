"""How sure a mean is, when some images are near-duplicates of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from unet_lib.metrics.counts import NAN

MIN_GROUPS = 10


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Parameters
    ----------
    mean : float
        Mean over images; nan without images.
    low, high : float
        Limits; nan when there are too few groups to tell.
    n : int
        Number of images.
    groups : int
        Number of independent groups among them.
    """

    mean: float
    low: float
    high: float
    n: int
    groups: int

    @property
    def known(self) -> bool:
        """Whether there are limits."""
        return not np.isnan(self.low)


def group_bootstrap(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap the mean over groups: near-duplicate images are drawn together or not at all.

    Percentile interval of the cluster bootstrap (Field & Welsh 2007,
    doi:10.1111/j.1467-9868.2007.00593.x). Images of one group are not independent; drawing images
    singly would give intervals that are too narrow.

    Parameters
    ----------
    values : array-like of float
        (n,) one score an image.
    groups : array-like of str
        (n,) the group of each image; an image that stands alone has a group of its own.
    level : float
        Confidence, in (0, 1).
    draws : int
        Number of bootstrap samples.
    seed : int
        Of the random numbers; the same seed gives the same interval.

    Returns
    -------
    Interval
        Without limits (nan) when there are fewer than 10 groups.

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or `level` is not in (0, 1).
    """
    values, groups = np.asarray(values, dtype=float), np.asarray(groups)
    if values.ndim != 1 or values.shape != groups.shape:
        raise ValueError(
            f"expected one group for each value, got {values.shape} and {groups.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "a score is nan or infinite; leave such images out before, and say how many they are"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, for example 0.95, got {level}")
    names, index = np.unique(groups, return_inverse=True)
    count = len(names)
    mean = float(values.mean()) if len(values) else NAN
    if count < MIN_GROUPS:
        return Interval(mean, NAN, NAN, len(values), count)
    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    means = drawn @ sums / (drawn @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(values), count)


def share_interval(
    hits: Sequence[bool] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Give the interval of a share, also where every image agrees.

    As `group_bootstrap`, but all hits or no hit at all would make a bootstrap interval of width
    zero. There the exact binomial interval of as many trials as there are groups is given
    (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404); it needs no minimum of groups.

    Parameters
    ----------
    hits : array-like of bool
        (n,) whether the image counts.
    groups, level, draws, seed
        As in `group_bootstrap`.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        As `group_bootstrap`.
    """
    shares = np.asarray(hits, dtype=float)
    interval = group_bootstrap(shares, groups, level=level, draws=draws, seed=seed)
    if interval.mean not in (0.0, 1.0):
        return interval
    test = binomtest(round(interval.mean * interval.groups), interval.groups)
    limits = test.proportion_ci(level, method="exact")
    low, high = float(limits.low), float(limits.high)
    return Interval(interval.mean, low, high, interval.n, interval.groups)
