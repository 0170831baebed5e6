"""Give a model folder made before there was a leak guard its record of training images.

    python -m tools.record_training_images weights/busi-fold0 ~/Dataset_BUSI_with_GT

The names that the folder lists (trained_on, validated_on) must all be images of the data set that
it names, and must be the train and validation part of the fold that it names; else it is refused.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from unet_lib.dataset import TrainingImages, content_hash
from unet_lib.files import write_atomic
from unet_lib.images import read_image
from unet_lib.source import open_dataset
from unet_lib.weights.folder import SETTINGS, read_settings


def record(model: Path, data: Path) -> int:
    """Write the record into ``segmenter.json``; returns the number of images."""
    settings = read_settings(model / SETTINGS)
    about = settings["about"]
    source = open_dataset(data, fold=about["fold"])
    used = [*source.split.train, *source.split.validation]
    listed = {*about["trained_on"], *about["validated_on"]}
    if source.name != about["data"] or {case.name for case in used} != listed:
        raise ValueError(
            f"{model}: was trained on {len(listed)} images of {about['data']}; fold "
            f"{about['fold']} of {source.name} has other ones. Name the data it was trained on."
        )
    hashes = [content_hash(read_image(case.image_path)) for case in used]
    about["training_images"] = TrainingImages.of(source.name, used, hashes).to_dict()
    write_atomic(model / SETTINGS, json.dumps(settings, indent=2) + "\n")
    return len(used)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", type=Path, help="folder of the images")
    options = parser.parse_args()
    print(record(options.model, options.data), "images recorded")
