"""Print the table of the search in README.md from the finished trainings of a folder.

Usage: PYTHONPATH=. python experiments/compare_search.py [experiments/search2 [BASE]]
"""

import csv
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from unet_lib.metrics.intervals import Interval, group_bootstrap

OTHER = {"BUSI": "BUSBRA", "BUSBRA": "BUSI"}
Training = tuple[dict, dict[str, tuple[str, float]]]


def read(folder: Path) -> dict[tuple[str, str, int], Training]:
    """Read each training's result, and group and Dice of the other set's lesion images.

    By candidate, home set and seed: of `grey-busi-s0` they are grey, BUSI and 0.
    """
    trainings = {}
    for path in sorted(folder.glob("*.json")):
        named = re.fullmatch(r"(\w+)-(busi|busbra)-s(\d+)", path.stem)
        if not named:
            continue
        candidate, home, seed = named[1], named[2].upper(), int(named[3])
        with open(path.with_suffix(".csv"), encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["set"] == OTHER[home]]
        dice = {r["name"]: (f"{home} {r['group']}", float(r["dice"])) for r in rows if r["dice"]}
        trainings[candidate, home, seed] = json.loads(path.read_text(encoding="utf-8")), dice
    return trainings


def difference(trainings: dict, candidate: str, against: str) -> dict[str, tuple]:
    """By home set: mean difference of each image over the seeds of both, groups, seeds."""
    ways = {}
    for home in OTHER:
        seeds = [s for c, h, s in trainings if (c, h) == (candidate, home)]
        seeds = [s for s in seeds if (against, home, s) in trainings]
        if not seeds:
            continue
        names = list(trainings[against, home, seeds[0]][1])
        pairs = [(trainings[candidate, home, s][1], trainings[against, home, s][1]) for s in seeds]
        mean = np.array([np.mean([ours[n][1] - base[n][1] for ours, base in pairs]) for n in names])
        ways[home] = mean, [pairs[0][1][n][0] for n in names], len(seeds)
    return ways


def interval(ways: dict[str, tuple], spread: float) -> Interval:
    """Mean of the ways with equal weight; limits over groups, widened by what seeds move."""
    n = sum(len(values) for values, _, _ in ways.values())
    values = np.concatenate([v * n / (len(ways) * len(v)) for v, _, _ in ways.values()])
    over = group_bootstrap(values, [g for _, groups, _ in ways.values() for g in groups])
    by_seed = 1.96 * spread * math.sqrt(sum(2 / k for _, _, k in ways.values())) / len(ways)
    low, high = (math.hypot(over.mean - limit, by_seed) for limit in (over.low, over.high))
    return Interval(over.mean, over.mean - low, over.mean + high, over.n, over.groups)


def main(folder: Path, base: str = "base") -> None:
    """Print one row a training, then one a candidate against the base."""
    trainings = read(folder)
    print("| training | threshold | home Dice (missed) | normals empty | other set (missed) |")
    print("|---|---|---|---|---|")
    seeds: dict[str, list[float]] = {home: [] for home in OTHER}
    for (candidate, home, seed), (result, _) in trainings.items():
        own, other = result["scores"][home], result["scores"][OTHER[home]]
        if candidate == base:
            seeds[home].append(other["lesion_dice"])
        normals = own if own["normals"] else other
        shown = [f"{s['lesion_dice']:.3f} ({s['missed']} of {s['lesions']})" for s in (own, other)]
        empty = f"{normals['normals_left_empty']} of {normals['normals']}"
        name = f"{candidate}, {home}, seed {seed}"
        print(f"| {name} | {result['threshold']} | {shown[0]} | {empty} | {shown[1]} |")
    spreads = [np.std(values, ddof=1) for values in seeds.values() if len(values) > 1]
    spread = float(np.mean(spreads)) if spreads else math.nan
    print(f"\nStandard deviation of {base}'s seeds on the other set: {spread:.4f}")
    print("\n| candidate | BUSI to BUS-BRA | BUS-BRA to BUSI | mean of the ways (95 % interval) |")
    print("|---|---|---|---|")
    for candidate in dict.fromkeys(c for c, _, _ in trainings if c != base):
        if not (ways := difference(trainings, candidate, base)):
            continue
        cells = [f"{ways[h][0].mean():+.4f}" if h in ways else "-" for h in OTHER]
        mean = interval(ways, 0.0 if math.isnan(spread) else spread)
        cells.append(f"{mean.mean:+.4f} ({mean.low:+.4f} to {mean.high:+.4f})")
        print(f"| {candidate} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["experiments/search2"]), *sys.argv[2:3])
