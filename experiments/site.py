r"""What the command `site` promises, on hospitals that exist.

    python -m experiments.site score experiments/site BUSBRA <BUS-BRA> --model <trained on BUSI>
    python -m experiments.site tune experiments/site BUSBRA <BUS-BRA> --model <trained on BUSI> \
        --groups 20 50 100 --draws 5 --runs runs/site
    python -m experiments.site table experiments/site
    python -m experiments.site draw experiments/site

score: every image's Dice at every threshold. tune: sites drawn from folds 1 to 4 without
replacement, fitted as the command does and tested on the rest of these folds; `--fold0` draws and
tests in fold 0, where the settings were fixed. table: 1,000 sites a size drawn with replacement.
draw: `docs/site_gain.png`, what the fitted weights gained.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from unet_lib import site
from unet_lib.dataset import COMMITTED_FOLDS, Folds, find_cases
from unet_lib.files import write_atomic
from unet_lib.inference import evaluate_cases
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.plots import save_figure
from unet_lib.plots.figure import BLUE, NARROW, VERMILION, add_legend, new_figure
from unet_lib.provenance import Provenance
from unet_lib.report.markdown import table
from unet_lib.training.result import THRESHOLDS
from unet_lib.weights import load_segmenter

FIGURE = Path(__file__).parents[1] / "docs/site_gain.png"
SIZES, DRAWS = (10, 20, 50, 100, 200), 1000
TUNED = ("network", "groups", "draw", "images", "rest", "gain", "low", "high", "before", "after")


def read_cases(name: str, folder: str) -> list[list]:
    """Return the test cases of each committed fold."""
    folds, cases = Folds.read(COMMITTED_FOLDS[name]), find_cases(folder, audit=None)
    return [list(folds.split(cases, k).test) for k in range(folds.count)]


def score(options: argparse.Namespace) -> None:
    """Write every image's Dice, and whether it stays empty, at every threshold."""
    segmenter = load_segmenter(options.model, runtime="keras")
    cases = [case for fold in read_cases(options.set, options.folder) for case in fold]
    seen = evaluate_cases(segmenter, cases[:1]).provenance.seen_in_training
    if seen or options.set in str(segmenter.provenance.data):
        raise ValueError(f"{options.model}: was trained on images of {options.set}.")
    grid, _ = site.score_grid(segmenter, cases)
    path = options.out / f"{options.set}-{options.name}.csv"
    columns = ["group", *(f"{t:g}" for t in (segmenter.threshold, *THRESHOLDS)), "empty"]
    lines = [",".join(columns)]
    for case, row in zip(cases, grid, strict=True):
        dice = ["" if np.isnan(d) else f"{d:.4f}" for d in row[:, 0]]
        lines.append(",".join([case.group, *dice, "".join(str(int(e)) for e in row[:, 1])]))
    print(write_atomic(path, "\n".join(lines) + "\n"))


def promises(path: Path) -> list[list[str]]:
    """Draw sites from the scores of a network; a row for each size."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    names = np.array([row[0] for row in rows])
    dice = np.array([[float(cell or "nan") for cell in row[1:-1]] for row in rows])
    empty = np.array([[float(digit) for digit in row[-1]] for row in rows])
    grid = np.stack([dice, empty], -1)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    truth, rng, lines = np.nanmean(dice, 0), np.random.default_rng(0), []
    for size in SIZES:
        held = plain = promised = false = 0
        widths = []
        for _ in range(DRAWS):
            drawn = [members[i] for i in rng.integers(len(members), size=size)]
            index = np.concatenate(drawn)
            groups = np.repeat(np.arange(size), [len(one) for one in drawn])
            lesion = ~np.isnan(dice[index, 0])
            given = dice[index, 0][lesion], groups[lesion]
            least = {"least": site.LEAST_GROUPS, "draws": 1000}
            mean = group_bootstrap(*given, **least, worst=0.0)
            without = group_bootstrap(*given, **least)
            held += mean.low <= truth[0] <= mean.high
            plain += without.low <= truth[0] <= without.high
            widths.append(mean.high - mean.low)
            position, gains = site.fit_threshold(grid[index], groups)
            if group_bootstrap(gains[lesion], groups[lesion], **least).low > 0:
                promised += 1
                false += truth[position] <= truth[0]
        lines.append(
            [path.stem, str(size), f"{held / DRAWS:.1%}", f"{plain / DRAWS:.1%}"]
            + [f"{np.nanmean(widths):.2f}", str(promised), str(false)]
        )
    return lines


def tune(options: argparse.Namespace) -> None:
    """Fit weights to drawn sites, as the command does; one line of tuned.csv each."""
    folds = read_cases(options.set, options.folder)
    cases = folds[0] if options.fold0 else [case for fold in folds[1:] for case in fold]
    segmenter = load_segmenter(options.model, runtime="keras")
    names, data = sorted({case.group for case in cases}), Provenance(data=options.set)
    path = options.out / ("fold0.csv" if options.fold0 else "tuned.csv")
    lines = path.read_text().splitlines() if path.is_file() else [",".join(TUNED)]
    for draw in range(options.draws):
        for size in options.groups:
            key = f"{options.name},{size},{draw},"
            if any(line.startswith(key) for line in lines):
                continue
            taken = set(np.random.default_rng(draw).permutation(names)[:size])
            own = [case for case in cases if case.group in taken]
            rest = [case for case in cases if case.group not in taken]
            runs = options.runs / f"{options.name}-{size}-{draw}"
            fit = site.fine_tuning(options.model, runs, data)
            before = evaluate_cases(segmenter, own).table
            gain = [np.nan] * 3
            if not options.fold0:
                after, _ = site.cross_tune(own, fit)
                ours = {case.name: case.dice for case in after}
                values = [ours[case.name] - case.dice for case in before]
                one = group_bootstrap(values, before.groups, least=site.LEAST_GROUPS)
                gain = [one.mean, one.low, one.high]
            tuned = fit(own, "all")
            means = [evaluate_cases(one, rest).table.column("dice") for one in (segmenter, tuned)]
            numbers = [*gain, *(float(np.nanmean(values)) for values in means)]
            lines.append(f"{key}{len(own)},{len(rest)},{','.join(f'{n:.4f}' for n in numbers)}")
            write_atomic(path, "\n".join(lines) + "\n")


def write_table(options: argparse.Namespace) -> None:
    """Write table.md of what is there."""
    rows = [row for path in sorted(options.out.glob("*-*.csv")) for row in promises(path)]
    head = ["network", "groups", "holds the mean", "without `worst`", "width"]
    text = table([*head, "threshold gains promised", "of these none"], rows)
    print(text)
    write_atomic(options.out / "table.md", text + "\n")


def plot_gains(path: Path) -> Figure:
    """Plot what fitted weights gained on the rest of the set against the pictures of the site."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    title, data = (
        "Gain of weights fitted to a site",
        Provenance(data="BUS-BRA", split="folds 1 to 4"),
    )
    details = "a dot: one drawn site, tested on the rest", "network trained on BUSI alone"
    figure, panels = new_figure(NARROW, 2.6, title, data, *details, model=False)
    axes, by_size = panels.subplots(), defaultdict(list)
    for row in rows:
        by_size[row["groups"]].append(
            (int(row["images"]), float(row["after"]) - float(row["before"]))
        )
    for sites in by_size.values():
        axes.plot(*zip(*sites, strict=True), "o", color=BLUE, alpha=0.5)
    means = np.array(sorted(np.mean(sites, 0).tolist() for sites in by_size.values()))
    axes.plot(*means.T, "-_", color=VERMILION, markersize=14, label="mean of the drawn sites")
    axes.set(
        xlabel="outlined pictures of the site",
        ylabel="gain in Dice",
        xlim=(0, 200),
        ylim=(0, 0.07),
    )
    axes.grid(alpha=0.3)
    add_legend(panels)
    return figure


def draw(options: argparse.Namespace) -> None:
    """Write the figure of the README."""
    print(save_figure(plot_gains(options.out / "tuned.csv"), FIGURE))


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    for name, run in {"score": score, "tune": tune, "table": write_table, "draw": draw}.items():
        sub = parts.add_parser(name)
        sub.set_defaults(run=run)
        sub.add_argument("out", type=Path)
        if name in ("score", "tune"):
            sub.add_argument("set", choices=list(COMMITTED_FOLDS))
            sub.add_argument("folder")
            sub.add_argument("--model", required=True)
            sub.add_argument("--name", default="model", help="of the network, in the tables")
        if name == "tune":
            sub.add_argument("--groups", type=int, nargs="+", default=[20, 50, 100])
            sub.add_argument("--draws", type=int, default=5)
            sub.add_argument("--runs", type=Path, required=True)
            sub.add_argument("--fold0", action="store_true")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
