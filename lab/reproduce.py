"""Score the test parts of a published cross-validation again, from the committed weights.

    python -m lab.reproduce experiments/joint/joint-BUSI <BUSI>

Every image's counts are compared with the committed ones. Exit code 1 when a Dice differs by more
than 0.01 or the mean by more than 0.0005 (processors round differently).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from lab.tables import all_tables
from unet_lib.dataset import DATA_FOLDER
from unet_lib.inference import evaluate_cases
from unet_lib.metrics import Evaluation
from unet_lib.source import open_dataset
from unet_lib.training import load_crossvalidation
from unet_lib.weights import load_segmenter

LARGEST_DICE, LARGEST_MEAN = 0.01, 0.0005


def compare(new: Evaluation, committed: Evaluation) -> tuple[int, list[float]]:
    """Return how many images have the same counts, and the differences of the Dice."""
    before = {case.name: case for case in committed.table}
    if set(before) != {case.name for case in new.table}:
        raise ValueError("the committed scores are of other images; give the folder they were of")
    pairs = [(case, before[case.name]) for case in new.table]
    same = sum(now.counts == old.counts for now, old in pairs)
    return same, [now.dice - old.dice for now, old in pairs if now.has_lesion]


def main(arguments: list[str] | None = None) -> int:
    """Score every fold and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("data", nargs="?", default="auto")
    options = parser.parse_args(arguments)
    folds = load_crossvalidation(options.experiment)
    evaluations, differences, same, images = {}, [], 0, 0
    split = DATA_FOLDER / "splits" / f"{folds.provenance.split}.csv"
    for fold, committed in folds.scores["test"].items():
        source = open_dataset(options.data, fold=fold, split=split if split.is_file() else None)
        # The models of a joint training lie beside the sets, the shipped one in weights/ alone.
        places = [folder / f"fold{fold}" for folder in (folds.folder, folds.folder.parent)]
        places = [place for place in places if (place / "model").is_dir()]
        place = places[0] if places else f"busi-fold{fold}"
        segmenter = load_segmenter(place, runtime="keras")
        data = source.provenance.but(part="test")
        evaluations[fold] = evaluate_cases(segmenter, source.split.test, provenance=data)
        equal, change = compare(evaluations[fold], committed)
        differences += change
        same, images = same + equal, images + len(evaluations[fold].table)
    largest, mean = np.abs(differences).max(), np.mean(differences)
    print(all_tables(evaluations, name=folds.name))
    print(f"{same} of {images} images have the committed counts to the pixel.")
    print(
        f"largest difference of a Dice: {largest:.4f}; of the mean: {mean:+.5f} "
        f"({len(differences)} lesion images)"
    )
    return int(largest > LARGEST_DICE or abs(mean) > LARGEST_MEAN)


if __name__ == "__main__":
    sys.exit(main())
