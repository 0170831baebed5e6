"""Average the weights of finished trainings and score the network as `train_joint.py` does.

Usage: PYTHONPATH=. BUSI_DIR=... BUSBRA_DIR=... python experiments/average_weights.py NAME
    --runs runs/frame-busi-s0 runs/frame-busi-s1 runs/frame-busi-s2 --train BUSI:0

The batch normalisations' statistics do not average: they are measured anew on training pictures.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from train_joint import COLUMNS, SETS, means, open_sets, part_of, score

from unet_lib import RECIPES, Recipe, Segmenter, load_segmenter, save_segmenter, tune_threshold
from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import DATA_FOLDER, Case


def average(runs: Sequence[Segmenter], cases: Sequence[Case], recipe: Recipe) -> Segmenter:
    """Give the first run's network the mean weights, and the statistics of two epochs."""
    network = runs[0].network
    arrays = zip(*(run.network.get_weights() for run in runs), strict=True)
    network.set_weights([np.mean(same, axis=0) for same in arrays])
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # it keeps the moments of the last batch alone
    statistics = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    batches = Batches(
        PreparedCases(cases, recipe.preprocessing),
        32,
        augmentation=recipe.augmentation,
        shuffle=True,
        channels=network.input_shape[-1],
    )
    moments = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        for index in range(len(batches)):
            network(batches[index][0], training=True)
            moments.append([np.array(value) for value in statistics])
    for variable, values in zip(statistics, zip(*moments, strict=True), strict=True):
        variable.assign(np.mean(values, axis=0))
    return runs[0]


def main() -> None:
    """Average, choose the threshold on the own validation part, score, write JSON and CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--runs", nargs="+", type=Path, required=True)
    parser.add_argument("--train", action="append", required=True, metavar="SET:FOLD")
    parser.add_argument("--results", type=Path, default=Path("experiments/search2"))
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    home, splits = dict(one.split(":") for one in args.train), DATA_FOLDER / "splits"
    source = open_sets(list(home), home[next(iter(home))], splits)
    recipe = RECIPES["pretrained"]
    runs = [load_segmenter(run, runtime="keras") for run in args.runs]
    segmenter = average(runs, source.split.train, recipe)
    rows, scores = [], {}
    if source.split.validation:
        validation = source.split.validation
        chosen = tune_threshold(segmenter, validation, new_images=True, progress=False).chosen
        segmenter.threshold, segmenter.cleaning = chosen.threshold, chosen.cleaning
        for name in SETS:
            part = "validation" if name in home else "unseen"
            opened = source if name in home else open_sets([name], "0", splits)
            scored = score(segmenter, part_of(opened, name, part), name, part)
            scores[name] = {"part": part, **means(scored)}
            rows += scored
    save_segmenter(segmenter, recipe.network, args.out / args.name / "model")
    stem = args.results / args.name
    with open(f"{stem}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    result = {
        "name": args.name,
        "train": home,
        "average_of": [run.name for run in args.runs],
        "recipe": recipe.to_dict(),
        "threshold": segmenter.threshold,
        "cleaning": segmenter.cleaning.to_dict(),
        "scores": scores,
    }
    Path(f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("name", "threshold", "scores")}))


if __name__ == "__main__":
    main()
