r"""Score the networks of cross-validations on each data set: trained here, tested there.

    python -m experiments.transfer experiments/transfer BUSI=<BUSI> BUSBRA=<BUS-BRA> \
        --trained BUSI=runs/busi BUSBRA=runs/busbra both=runs/both

Network k is tested on the test part of fold k of each set, on nobody's training images. Where some
trainings have fewer folds, a row of the folds that all have stands below: only rows of the same
images can be compared. `cases.csv` keeps every image's score, `table.md` the table; what is scored
already is not scored again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from unet_lib.dataset import COMMITTED_FOLDS, Folds, find_cases
from unet_lib.files import write_atomic
from unet_lib.inference import evaluate_cases
from unet_lib.metrics.intervals import group_bootstrap, share_interval
from unet_lib.report.markdown import table, with_interval
from unet_lib.weights import load_segmenter

COLUMNS = ("trained", "set", "fold", "name", "group", "label", "dice", "empty")
Row = Mapping[str, str]


def score(trained: str, runs: Path, name: str, folder: str, fold: int) -> list[dict[str, str]]:
    """Score the network of a fold on the test part of that fold of a set, a row an image."""
    folds = Folds.read(COMMITTED_FOLDS[name])
    cases = folds.split(find_cases(folder, audit=None), fold).test
    segmenter = load_segmenter(runs / f"fold{fold}" / "model", runtime="keras")
    evaluation = evaluate_cases(segmenter, cases)
    if evaluation.provenance.seen_in_training:
        raise ValueError(f"{runs}, fold {fold}: was trained on test images of {name}.")
    rows = []
    for case in evaluation.table:
        dice = f"{case.dice:.5f}" if case.has_lesion else ""
        empty = str(int(case.predicted_empty))
        values = (trained, name, str(fold), case.name, case.group, case.label, dice, empty)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def cells(rows: Sequence[Row]) -> list[str]:
    """Dice of the lesion images, range of the networks' means, missed, normals left empty."""
    lesions = [row for row in rows if row["dice"]]
    normals = [row for row in rows if not row["dice"]]
    dice = np.array([float(row["dice"]) for row in lesions])
    folds = np.array([row["fold"] for row in lesions])
    means = [dice[folds == fold].mean() for fold in sorted(set(folds))]
    missed = f"{np.sum(dice == 0)} of {len(dice)}"
    specificity = "-"
    if normals:
        empty = [row["empty"] == "1" for row in normals]
        interval = share_interval(empty, [row["group"] for row in normals])
        specificity = f"{sum(empty)} of {len(empty)}: {with_interval(interval, 2)}"
    mean = with_interval(group_bootstrap(dice, [row["group"] for row in lesions]))
    spread = f": {min(means):.3f} to {max(means):.3f}" if len(means) > 1 else ""
    return [mean, f"{len(means)}{spread}", missed, specificity]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read `cases.csv`; none where there is none yet."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folds_of_all(rows: Sequence[Row]) -> set[str]:
    """Return the folds of a set on which the networks of every training were tested."""
    tested: dict[str, set[str]] = {}
    for row in rows:
        tested.setdefault(row["trained"], set()).add(row["fold"])
    return set.intersection(*tested.values())


def write(folder: Path, rows: Sequence[Row]) -> str:
    """Write scores and table of a folder; returns the table."""
    lines = [",".join(COLUMNS), *(",".join(row[name] for name in COLUMNS) for row in rows)]
    write_atomic(folder / "cases.csv", "\n".join(lines) + "\n")
    body = []
    for trained, name in dict.fromkeys((row["trained"], row["set"]) for row in rows):
        here = [row for row in rows if row["set"] == name]
        own = [row for row in here if row["trained"] == trained]
        body.append([trained, name, *cells(own)])
        shared = folds_of_all(here)
        if shared and shared < {row["fold"] for row in own}:
            what = f"{trained}, fold {', '.join(sorted(shared))} alone"
            body.append([what, name, *cells([row for row in own if row["fold"] in shared])])
    head = [
        "trained on",
        "tested on",
        "Dice (95 %)",
        "networks: range",
        "missed",
        "normals empty",
    ]
    text = table(head, body)
    write_atomic(folder / "table.md", text + "\n")
    return text


def named(pairs: Iterable[str]) -> dict[str, str]:
    """Read NAME=FOLDER."""
    return dict(pair.split("=", 1) for pair in pairs)


def main() -> None:
    """Score what is not scored yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="+", metavar="SET=FOLDER")
    parser.add_argument("--trained", nargs="+", required=True, metavar="NAME=RUNS")
    options = parser.parse_args()
    rows = read_rows(options.out / "cases.csv")
    scored = {(row["trained"], row["set"], row["fold"]) for row in rows}
    for trained, runs in named(options.trained).items():
        for name, folder in named(options.sets).items():
            for fold in range(5):
                there = (Path(runs) / f"fold{fold}" / "model").is_dir()
                if there and (trained, name, str(fold)) not in scored:
                    rows += score(trained, Path(runs), name, folder, fold)
                    write(options.out, rows)
    print(write(options.out, rows))


if __name__ == "__main__":
    main()
