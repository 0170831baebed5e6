"""Train on the folds of one or several data sets and score by set; the search of README.md.

Usage: PYTHONPATH=. BUSI_DIR=... BUSBRA_DIR=... python experiments/train_joint.py NAME
    --train BUSI:0 [--train BUSBRA:0] --epochs 30 [--seed 1] [--repeat BUSI=2]
    [--set augmentation.gamma=0.8]
"""

import argparse
import csv
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib import RECIPES, Segmenter, open_dataset, save_segmenter, train, tune_threshold
from unet_lib.dataset import DATA_FOLDER, Case, load_case
from unet_lib.inference import Cleaning
from unet_lib.metrics import count_pixels
from unet_lib.source import DataSource

SETS = {"BUSI": ("BUSI_DIR", "busi_5fold_v2.csv"), "BUSBRA": ("BUSBRA_DIR", "busbra_5fold.csv")}
COLUMNS = ("set", "part", "name", "group", "label", "dice", "empty")


def open_sets(names: Sequence[str], fold: str, splits: Path) -> DataSource:
    """Open one or several sets with the split of each; in the fold "all" every image trains."""
    folders = [os.environ[SETS[name][0]] for name in names]
    files = [splits / SETS[name][1] for name in names]
    source = open_dataset(folders, split=files, fold=int(fold.replace("all", "0")))
    if source.provenance.sets not in (None, list(names)):
        raise SystemExit(f"the folders must be called {' and '.join(names)}")
    if fold != "all":
        return source
    split = source.split
    everything = (*split.train, *split.validation, *split.test)
    return replace(source, split=replace(split, train=everything, validation=(), test=()))


def part_of(source: DataSource, name: str, part: str) -> list[Case]:
    """Images of one set; "unseen" are those that validate in any fold and do not test fold 0."""
    split, rows = source.split, source.folds.rows
    votes = {r.image for r in rows if "validation" in r.parts and r.parts[0] != "test"}
    everything = (*split.train, *split.validation, *split.test)
    of = {"unseen": [case for case in everything if case.name in votes]}
    cases = of[part] if part in of else getattr(split, part)
    return [case for case in cases if case.data_set in ("", name)]


def score(segmenter: Segmenter, cases: Sequence[Case], name: str, part: str) -> list[dict]:
    """One row an image: Dice of those with a lesion, whether the mask is empty."""
    rows = []
    for case in cases:
        image, truth = load_case(case)
        mask = segmenter.segment(image).mask
        dice = round(count_pixels(truth, mask).dice, 5) if truth.any() else ""
        own = (text.removeprefix(f"{name}/") for text in (case.name, case.group))
        row = (name, part, *own, case.label, dice, int(not mask.any()))
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def means(rows: Sequence[dict]) -> dict[str, Any]:
    """Scores of the images of one set."""
    dice = [row["dice"] for row in rows if row["dice"] != ""]
    empty = [row["empty"] for row in rows if row["dice"] == ""]
    return {
        "lesion_dice": round(float(np.mean(dice)), 4),
        "lesions": len(dice),
        "missed": sum(value == 0 for value in dice),
        "normals_left_empty": sum(empty),
        "normals": len(empty),
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--train", action="append", required=True, metavar="SET:FOLD")
    parser.add_argument("--repeat", action="append", default=[], metavar="SET=TIMES")
    parser.add_argument("--lesions-only", action="store_true", help="train without normals")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", choices=RECIPES, default="pretrained")
    parser.add_argument("--set", action="append", default=[], metavar="PART.NAME=VALUE")
    parser.add_argument("--splits", type=Path, default=DATA_FOLDER / "splits")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("experiments/search2"))
    parser.add_argument("--final", action="store_true", help="score test parts instead: once")
    return parser.parse_args()


def main() -> None:
    """Train, choose the threshold on the own validation parts, score, write JSON and CSV."""
    args, begun = parse(), time.time()
    home = dict(one.split(":") for one in args.train)
    repeat = {name: int(times) for name, times in (one.split("=") for one in args.repeat)}
    if len({*home.values()}) > 1:
        raise SystemExit("--train: fold k of several sets is fold k of each; give one fold.")
    source = open_sets(list(home), *{*home.values()}, args.splits)
    pictures = [c for c in source.split.train if not (args.lesions_only and c.label == "normal")]
    validation = source.split.validation
    changes = [f"training.epochs={args.epochs}", f"training.seed={args.seed}", *args.set]
    recipe = RECIPES[args.recipe].but(*changes, f"training.repeat={','.join(args.repeat)}")
    run = train(
        # Without a validation part the last epoch's moving average is taken, not the luckiest one.
        replace(source.split, name=args.name, train=tuple(pictures), validation=(), test=()),
        args.runs / args.name,
        recipe,
        provenance=source.provenance,
        operating_point=(0.5, Cleaning()),
        resume=True,
    )
    trained = time.time() - begun
    segmenter = run.segmenter
    if validation:
        choice = tune_threshold(
            segmenter, validation, new_images=True, progress=False, **recipe.training.candidates()
        )
        segmenter.threshold, segmenter.cleaning = choice.chosen.threshold, choice.chosen.cleaning
        save_segmenter(segmenter, recipe.network, run.folder / "model")
    rows, scores = [], {}
    for name in SETS if validation else ():
        part = "test" if args.final else "validation" if name in home else "unseen"
        if part == "unseen" and set(home.values()) != {"0"}:
            continue
        opened = source if name in home else open_sets([name], "0", args.splits)
        scored = score(segmenter, part_of(opened, name, part), name, part)
        scores[name] = {"part": part, **means(scored)}
        rows += scored
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    stem = args.results / (args.name + ("-final" if args.final else ""))
    stem.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{stem}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    result = {
        "name": args.name,
        "train": home,
        "repeat": repeat,
        "lesions_only": args.lesions_only,
        "pictures_an_epoch": sum(repeat.get(c.data_set, 1) for c in pictures),
        "epochs": args.epochs,
        "seed": args.seed,
        "changes": args.set,
        "recipe": recipe.to_dict(),
        "threshold": segmenter.threshold,
        "cleaning": segmenter.cleaning.to_dict(),
        "hours_of_epochs": round(run.result["hours"], 3),
        "seconds_until_trained": round(trained),
        "commit": commit.stdout.strip(),
        "scores": scores,
    }
    Path(f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("name", "threshold", "scores")}))


if __name__ == "__main__":
    main()
