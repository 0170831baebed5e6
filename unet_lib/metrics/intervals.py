"""How sure a mean is, when some images are near-duplicates of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, t

MIN_GROUPS = 20
"""Fewer independent groups give no interval of a mean: it would hold the truth too rarely."""

MIN_GROUPS_SHARE = 10
"""The same for a share."""

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2


@dataclass(frozen=True)
class Interval:
    """A mean over images, nan without any, and its confidence interval."""

    mean: float
    low: float  # nan, as `high`, when there are too few groups to tell
    high: float
    n: int  # images
    groups: int  # independent ones among them

    @property
    def known(self) -> bool:
        """Whether there are limits."""
        return not np.isnan(self.low)


def group_bootstrap(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
    least: int = MIN_GROUPS,
    worst: float | None = None,
) -> Interval:
    """Bootstrap the mean over groups: near-duplicate images are drawn together or not at all.

    Images of one group are not independent; drawing images singly would give intervals that are
    too narrow. The interval is the studentised one (Efron & Tibshirani 1993, chapter 12.5; over
    groups: Cameron, Gelbach & Miller 2008, doi:10.1162/rest.90.3.414): for scores with many
    misses, percentile and BCa intervals of 20 to 60 groups hold the truth in 87 to 94 % of trials
    instead of 95 %, this one in 94 to 97 %. It is cut at the lowest and highest value. There
    are no limits for fewer than `least` groups, or when all agree: nothing is known of the spread
    then.

    A few groups seldom hold one of the rare misses, and the lower limit is then too high. Given
    the `worst` value that a score can have, it is the lower of this limit and that with a quarter
    of a group of this value added: of 20 groups of one hospital's images the interval holds the
    mean in 95 to 96 % instead of 91 to 93 % (`experiments/site`).
    """
    values, sums, sizes = _by_group(values, groups)
    count = len(sums)
    mean = float(values.mean()) if len(values) else math.nan
    if count < least or _standard_error(sums, sizes) < 1e-12:
        return Interval(mean, math.nan, math.nan, len(values), count)
    low, high = _studentised(sums, sizes, draws, seed)
    if worst is not None:
        size = sizes.mean() / 4
        added = np.append(sums, worst * size), np.append(sizes, size)
        low = min(low, _studentised(*added, draws, seed)[0])
    limits = np.clip([low, high], values.min() if worst is None else worst, values.max())
    return Interval(mean, *limits.tolist(), len(values), count)


def _studentised(sums: np.ndarray, sizes: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """Return the limits of the studentised bootstrap over groups."""
    count, mean, error = len(sums), sums.sum() / sizes.sum(), _standard_error(sums, sizes)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    means = drawn @ sums / (drawn @ sizes)
    # of (sum - mean * size) ** 2 over the groups drawn, without an array of draws x groups
    squares = drawn @ sums**2 - 2 * means * (drawn @ (sums * sizes)) + means**2 * (drawn @ sizes**2)
    # a draw of equal groups alone has no spread: far out, on its side
    errors = np.sqrt(np.maximum(squares * count / (count - 1), 1e-18)) / (drawn @ sizes)
    low, high = np.quantile((means - mean) / errors, TAILS)
    return mean - high * error, mean - low * error


def share_interval(
    hits: Sequence[bool] | np.ndarray, groups: Sequence[str] | np.ndarray
) -> Interval:
    """Give the interval of a share, also where every image agrees.

    Wilson's interval (1927, doi:10.1080/01621459.1927.10502953) of the effective number of images:
    n divided by how much the grouping widens the variance, and by the t quantile for few groups
    (Korn & Graubard 1998, Survey Methodology 24:193). Bootstraps fail for shares near 0 or 1. All
    hits or no hit at all: the exact binomial interval of as many trials as there are groups
    (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404); it needs no minimum of groups. There
    are no limits for fewer than 10 groups that do not all agree.
    """
    values, sums, sizes = _by_group(hits, groups)
    n, count = len(values), len(sums)
    share = float(values.mean()) if n else math.nan
    if share in (0.0, 1.0):
        limits = binomtest(round(share * count), count).proportion_ci(LEVEL, method="exact")
        return Interval(share, float(limits.low), float(limits.high), n, count)
    if count < MIN_GROUPS_SHARE:
        return Interval(share, math.nan, math.nan, n, count)
    error = _standard_error(sums, sizes)
    plain = np.sqrt(share * (1 - share) / n)
    effective = n * min(1.0, (plain / max(error, 1e-12)) ** 2)
    effective *= (t.ppf(TAILS[1], n - 1) / t.ppf(TAILS[1], count - 1)) ** 2
    z2 = norm.ppf(TAILS[1]) ** 2
    centre = (share + z2 / effective / 2) / (1 + z2 / effective)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / effective / 4) / effective)
    half /= 1 + z2 / effective
    return Interval(share, float(centre - half), float(centre + half), n, count)


def _by_group(
    values: Sequence[float] | np.ndarray, groups: Sequence[str] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check and return the values, the sum of those of each group, and its number of images."""
    values, groups = np.asarray(values, dtype=float), np.asarray(groups)
    if values.ndim != 1 or values.shape != groups.shape:
        raise ValueError(
            f"expected one group for each value, got {values.shape} and {groups.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "a score is nan or infinite; leave such images out before, and say how many they are"
        )
    names, index = np.unique(groups, return_inverse=True)
    sums, sizes = (np.bincount(index, w, len(names)).astype(float) for w in (values, None))
    return values, sums, sizes


def _standard_error(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Return the standard error of the mean over images that holds for groups (linearised)."""
    residuals = sums - sums.sum() / sizes.sum() * sizes
    count = len(sums)
    return float(np.sqrt(np.sum(residuals**2) * count / (count - 1)) / sizes.sum())
