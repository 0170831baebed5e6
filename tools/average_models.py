"""What averaging the probabilities of several models would gain, on validation images.

    python -m tools.average_models <BUSI> MODEL MODEL ... --fold 0

The models are trained alike but for the seed. Prints the mean Dice of the validation images with a
lesion for each model, for their average, and the paired difference to the mean of the models. The
threshold of the average is the mean of theirs; no clean-up.
"""

from __future__ import annotations

import argparse

import numpy as np

from unet_lib.dataset import load_case
from unet_lib.metrics import score_case
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.source import open_dataset
from unet_lib.weights import load_segmenter


def main(arguments: list[str] | None = None) -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--fold", type=int, default=0)
    given = parser.parse_args(arguments)
    cases = open_dataset(given.data, fold=given.fold).split.validation
    cases = [case for case in cases if load_case(case)[1].any()]
    truths = [load_case(case)[1] for case in cases]
    segmenters = [load_segmenter(model) for model in given.models]
    maps = [
        list(segmenter.iter_probabilities(load_case(case)[0] for case in cases))
        for segmenter in segmenters
    ]
    thresholds = [segmenter.threshold for segmenter in segmenters]

    def dice(probabilities: list[np.ndarray], threshold: float) -> np.ndarray:
        masks = (p >= threshold for p in probabilities)
        return np.array(
            [
                score_case(truth, mask, name=case.name).dice
                for case, truth, mask in zip(cases, truths, masks, strict=True)
            ]
        )

    single = np.array([dice(m, t) for m, t in zip(maps, thresholds, strict=True)])
    for model, scores in zip(given.models, single, strict=True):
        print(f"{model}: {scores.mean():.4f}")
    joined = [np.mean(group, axis=0) for group in zip(*maps, strict=True)]
    averaged = dice(joined, float(np.mean(thresholds)))
    print(f"average of {len(maps)}: {averaged.mean():.4f} ({len(cases)} validation images)")
    gain = averaged - single.mean(axis=0)
    found = group_bootstrap(gain, [case.group for case in cases])
    limits = f"{found.low:+.4f} to {found.high:+.4f}" if found.known else "no interval"
    print(f"less the mean of the models: {found.mean:+.4f} ({limits})")


if __name__ == "__main__":
    main()
