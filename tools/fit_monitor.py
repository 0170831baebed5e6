"""Give a model folder the statistics of its own training images: shift.json.

    python -m tools.fit_monitor weights/busi-fold0 data/Dataset_BUSI_with_GT

Training stores them by itself; this is for folders that are older than the monitor. The images are
those that segmenter.json lists as trained_on and validated_on; all of them must be there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from unet_lib.dataset import find_cases
from unet_lib.shift import fit_monitor
from unet_lib.weights.folder import SETTINGS, read_settings, write_monitor


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", help="folder of the data set that it was trained on")
    options = parser.parse_args()
    about = read_settings(options.model / SETTINGS)["about"]
    cases = {case.name: case for case in find_cases(options.data)}
    names = about["trained_on"], about["validated_on"]
    absent = sorted({*names[0], *names[1]} - set(cases))
    if absent:
        raise SystemExit(f"{options.data}: {len(absent)} images are not there: {absent[:3]}")
    monitor = fit_monitor(*([cases[name] for name in part] for part in names))
    if monitor is None:
        raise SystemExit(f"{options.model}: too few images for statistics")
    print(
        f"{write_monitor(monitor, options.model)}: limit {monitor.limit:g}, from "
        f"{monitor.trained_on} training and {monitor.validated_on} validation images"
    )


if __name__ == "__main__":
    main()
