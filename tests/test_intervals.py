"""Intervals of means and shares against SciPy, loops and simulation."""

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from unet_lib.metrics.intervals import group_bootstrap, share_interval


def names(count, size=1):
    return np.repeat([f"g{i}" for i in range(count)], size)


def test_images_that_stand_alone_give_the_studentised_bootstrap_by_a_loop():
    values, rng = np.random.default_rng(0).beta(5, 2, 60), np.random.default_rng(2)
    ours = group_bootstrap(values, names(60), draws=20_000, seed=1)
    error = stats.sem(values)
    samples = rng.choice(values, (20_000, 60))
    low, high = np.quantile(
        (samples.mean(1) - values.mean()) / stats.sem(samples, axis=1), [0.025, 0.975]
    )
    assert ours.mean == pytest.approx(values.mean())
    limits = (values.mean() - high * error, values.mean() - low * error)
    assert (ours.low, ours.high) == pytest.approx(limits, abs=0.06 * error)
    assert (ours.n, ours.groups) == (60, 60)


def clustered(rng, groups=40):
    """Give scores of groups of 1 to 4 near-duplicates that resemble each other."""
    sizes = rng.integers(1, 5, groups)
    centre = np.repeat(rng.normal(0.7, 0.15, groups), sizes)
    return centre + rng.normal(0, 0.03, sizes.sum()), np.repeat(names(groups), sizes)


def test_width_is_that_of_the_cluster_robust_error():
    values, groups = clustered(np.random.default_rng(3), groups=300)
    residual = [np.sum(values[groups == g] - values.mean()) for g in np.unique(groups)]
    error = np.sqrt(np.sum(np.square(residual))) / len(values)
    interval = group_bootstrap(values, groups, draws=20_000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.04)
    single = group_bootstrap(values, names(len(values)), draws=20_000)
    assert single.high - single.low < 0.75 * (interval.high - interval.low)


def test_it_is_the_mean_over_images_that_is_bootstrapped():
    sizes = np.tile([1, 5], 40)  # large groups score 1, small ones 0
    interval = group_bootstrap(np.repeat(sizes == 5, sizes), np.repeat(names(80), sizes))
    assert interval.mean == pytest.approx(5 / 6)  # the mean over groups would be 1/2
    assert 0.7 < interval.low < 5 / 6 < interval.high < 0.95


def trials(kind, count, groups, seed=5):
    """Give scores of groups of 1 to 4 near-duplicates whose true mean is 0.7, and the groups."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        sizes = rng.choice([1, 1, 1, 1, 2, 2, 3, 4], groups)
        if kind == "normal":
            values = np.repeat(rng.normal(0.7, 0.15, groups), sizes)
            values += rng.normal(0, 0.05, len(values))
        elif kind == "dice":  # 18 % of the groups missed, the others around .854
            values = np.where(rng.random(groups) < 0.18, 0, rng.beta(9, 1.5436, groups))
            values = np.repeat(values, sizes)
        else:  # a share
            shares = np.repeat(rng.beta(1.4, 0.6, groups), sizes)
            values = rng.random(len(shares)) < shares
        yield values, np.repeat(names(groups), sizes)


@pytest.mark.parametrize(
    ("kind", "groups"),
    [("normal", 20), ("normal", 60), ("dice", 20), ("dice", 60), ("share", 10), ("share", 60)],
)
def test_95_percent_of_intervals_hold_the_truth(kind, groups):
    way = share_interval if kind == "share" else partial(group_bootstrap, draws=500)
    intervals = [way(*trial) for trial in trials(kind, 1000, groups)]
    inside = np.mean([i.low <= 0.7 <= i.high for i in intervals])
    assert 0.93 <= inside <= 0.97


def test_too_few_groups_give_a_mean_and_no_limits():
    values = np.linspace(0, 1, 190)
    interval = group_bootstrap(values, names(19, 10))
    assert interval.mean == pytest.approx(0.5) and not interval.known
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert (interval.n, interval.groups) == (190, 19)
    assert group_bootstrap(values[:180], names(20, 9)).known
    assert not group_bootstrap(np.full(30, 0.7), names(30)).known  # no spread to go by
    assert not group_bootstrap(np.tile([0.2, 0.4], 30), names(30, 2)).known
    few = share_interval(np.arange(18) % 2 == 0, names(9, 2))
    assert (few.mean, few.n, few.groups, few.known) == (0.5, 18, 9, False)
    assert share_interval(np.arange(20) % 2 == 0, names(10, 2)).known
    nothing = group_bootstrap([], np.array([], dtype=str))
    assert math.isnan(nothing.mean) and (nothing.n, nothing.groups) == (0, 0)


def test_the_seed_decides():
    values, groups = clustered(np.random.default_rng(6))
    first = group_bootstrap(values, groups, seed=1)
    assert first == group_bootstrap(values, groups, seed=1)
    assert first != group_bootstrap(values, groups, seed=2)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="one group for each value"):
        group_bootstrap([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="nan or infinite"):
        group_bootstrap([1.0, np.nan], ["a", "b"])


@pytest.mark.parametrize("hit", [0, 1])
@pytest.mark.parametrize("groups", [3, 27])
def test_a_share_of_all_or_none_has_the_exact_interval(hit, groups):
    interval = share_interval(np.full(2 * groups, bool(hit)), names(groups, 2))
    reference = stats.binomtest(hit * groups, groups).proportion_ci(0.95, method="exact")
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high))
    assert (interval.mean, interval.n, interval.groups) == (hit, 2 * groups, groups)


def test_a_share_of_images_that_stand_alone_is_nearly_wilsons_interval():
    hits = np.arange(400) % 8 == 0
    interval = share_interval(hits, names(400))
    reference = stats.binomtest(50, 400).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == pytest.approx(tuple(reference), abs=1e-3)
