"""Score the test parts of a published cross-validation again, from the committed weights.

    python -m tools.reproduce experiments/lite0-f8-squeezed-128 <BUSI>

Each fold's model segments its test images; every image's counts are compared with the committed
ones. Prints how many agree to the pixel, the largest difference of a Dice, and the table of all
folds made from the new scores; exit code 1 when a Dice differs by more than 0.01 or the mean by
more than 0.0005 (processors round differently).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from unet_lib.experiments import load_crossvalidation
from unet_lib.experiments.tables import all_tables
from unet_lib.inference import evaluate_cases
from unet_lib.metrics import Evaluation
from unet_lib.plots import banner_for
from unet_lib.source import open_dataset
from unet_lib.weights import load_segmenter

LARGEST_DICE, LARGEST_MEAN = 0.01, 0.0005


def compare(found: Evaluation, committed: Evaluation) -> tuple[int, np.ndarray]:
    """Return how many images have the same counts, and the differences of the Dice.

    Raises
    ------
    ValueError
        The images are not the same.
    """
    before = {case.name: case for case in committed.table}
    if set(before) != {case.name for case in found.table}:
        raise ValueError("the committed scores are of other images; give the folder they were of")
    pairs = [(case, before[case.name]) for case in found.table]
    same = sum(new.counts == old.counts for new, old in pairs)
    return same, np.array([new.dice - old.dice for new, old in pairs if new.has_lesion])


def main(arguments: list[str] | None = None) -> int:
    """Score every fold and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("data", nargs="?", default="auto")
    given = parser.parse_args(arguments)
    done = load_crossvalidation(given.experiment)
    scores, differences, same, images = {}, [], 0, 0
    for fold, committed in done.evaluations("test").items():
        source = open_dataset(given.data, fold=fold)
        segmenter = load_segmenter(given.experiment / f"fold{fold}")
        about = {**source.provenance, "part": "test"}
        scores[fold] = evaluate_cases(segmenter, source.split.test, about=about)
        equal, change = compare(scores[fold], committed)
        differences.append(change)
        same, images = same + equal, images + len(scores[fold].table)
    change = np.concatenate(differences)
    warning = banner_for(done.about)
    print(f"{warning}\n\n" * bool(warning) + all_tables(scores, name=done.name, audited=False))
    print(f"{same} of {images} images have the committed counts to the pixel.")
    print(f"largest difference of a Dice: {np.abs(change).max():.4f}; of the mean: ", end="")
    print(f"{change.mean():+.5f} ({len(change)} lesion images)")
    wrong = np.abs(change).max() > LARGEST_DICE or abs(change.mean()) > LARGEST_MEAN
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
