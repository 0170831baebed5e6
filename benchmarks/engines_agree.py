"""How far the masks of the engines differ from Keras' in float32, on one part of a fold.

``python -m benchmarks.engines_agree FOLDER [--model busi-fold0] [--fold 0]``: for each engine
the share of equal pixels, the largest difference of a probability, and the Dice between
both masks of each image (1 where both are empty).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from unet_lib.dataset import load_case
from unet_lib.inference import read_ahead
from unet_lib.metrics import score_case
from unet_lib.source import open_dataset
from unet_lib.weights import ExportError, load_segmenter


def main() -> None:
    """Print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--model", default="busi-fold0")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("runs/bench/engines_agree.json"))
    options = parser.parse_args()
    cases = open_dataset(options.folder, fold=options.fold).split.test
    segmenter = load_segmenter(options.model)
    images = [image for image, _ in read_ahead(load_case, cases, 16)]
    expected = list(segmenter.iter_probabilities(images))
    print(f"{options.model}, {len(cases)} images, against Keras in float32\n")
    print("| engine | equal pixels | largest difference | mean Dice | least Dice | differ |")
    print("|---|---|---|---|---|---|")
    found = {}
    for engine in ("openvino", "onnx"):
        segmenter = load_segmenter(options.model, engine=engine)
        try:
            maps = list(segmenter.iter_probabilities(images))
        except ExportError as error:
            print(f"| {engine} | {error} | | | | |")
            continue
        pairs = list(zip(expected, maps, strict=True))
        masks = [(segmenter.mask(a), segmenter.mask(b)) for a, b in pairs]
        pixels = sum(a.size for a, _ in masks)
        differ = [int((a != b).sum()) for a, b in masks]
        dice = [score_case(a, b, name="").dice if a.any() else float(not b.any()) for a, b in masks]
        row = {
            "equal_pixels": 1 - sum(differ) / pixels,
            "largest_difference": max(float(np.abs(a - b).max()) for a, b in pairs),
            "mean_dice": float(np.mean(dice)),
            "least_dice": float(min(dice)),
            "differing_images": sum(map(bool, differ)),
        }
        found[segmenter.engine_used] = row
        print(
            f"| {segmenter.engine_used} | {row['equal_pixels']:.7f} "
            f"| {row['largest_difference']:.2g} | {row['mean_dice']:.5f} "
            f"| {row['least_dice']:.4f} | {row['differing_images']} |",
            flush=True,
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
