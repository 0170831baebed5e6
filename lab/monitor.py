"""Measure the training images of a model again and write its ``shift.json``.

    python -m lab.monitor weights/busi-best data/Dataset_BUSI_with_GT

For a folder whose statistics are of an earlier way of measuring, which takes longer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from unet_lib.dataset import find_cases
from unet_lib.files import write_atomic
from unet_lib.provenance import Provenance
from unet_lib.shift import fit_monitor
from unet_lib.weights.folder import MONITOR, SETTINGS, read_settings


def measure_again(folder: Path, data: list[Path]) -> Path:
    """Fit the monitor to the images that the model names; all of them must be in the data."""
    model = Provenance.of(read_settings(folder / SETTINGS)["about"])
    cases = {case.name: case for one in data for case in find_cases(one)}
    parts = [
        [cases[name] for name in names or ()] for names in (model.trained_on, model.validated_on)
    ]
    return write_atomic(folder / MONITOR, json.dumps(fit_monitor(*parts).to_dict()) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", type=Path, nargs="+", help="folders that it was trained on")
    options = parser.parse_args()
    print(measure_again(options.model, options.data))
