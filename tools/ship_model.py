"""Copy a trained model folder into weights/: half as large, checked, with a card of its figures.

    python tools/ship_model.py runs/recipe/fold0 busi-fold0 --results experiments/recipe
    python tools/ship_model.py runs/recipe/all busi-best --results experiments/recipe

Kernels are rounded to 11 significant bits (those of float16, but with float32's range) and the file
is compressed; Keras reads it like any other. Nothing is written when a probability of the check
images moves by more than 0.005. The shipped model is a little different from the trained one, so
score the shipped one where its own figures are quoted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import h5py
import numpy as np

from unet_lib.experiments import CrossValidation, load_crossvalidation, write_card
from unet_lib.files import atomic_path, sha256, write_atomic
from unet_lib.phantoms import phantom_pictures
from unet_lib.weights import load_segmenter
from unet_lib.weights.folder import SETTINGS, WEIGHTS

ROOT = Path(__file__).parent.parent
LARGEST_CHANGE = 0.005


def rounded(values: np.ndarray, bits: int = 11) -> np.ndarray:
    """Round float32 values to so many significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent).astype(np.float32)


def compact(source: Path, target: Path) -> None:
    """Write an HDF5 weights file again with rounded kernels, compressed."""
    with h5py.File(source, "r") as old, h5py.File(target, "w", libver="earliest") as new:

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                made = new.require_group(name)
            else:
                values = item[()]
                if values.ndim >= 2:
                    # Biases, scales and moving statistics are few and stay as they are.
                    made = new.create_dataset(
                        name, data=rounded(values), compression="gzip", shuffle=True
                    )
                else:
                    made = new.create_dataset(name, data=values)
            made.attrs.update(item.attrs)

        old.visititems(visit)
        new.attrs.update(old.attrs)


def largest_change(before: Path, after: Path) -> float:
    """Compare the probabilities of two model folders on phantoms."""
    pictures = [phantom.image for phantom in phantom_pictures(8)]
    maps = [list(load_segmenter(m).iter_probabilities(pictures)) for m in (before, after)]
    return max(float(np.abs(a - b).max()) for a, b in zip(*maps, strict=True))


def main() -> None:
    """Ship one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="name below weights/")
    parser.add_argument("--results", type=Path, required=True, help="published cross-validation")
    options = parser.parse_args()
    source, target = options.run / "model", ROOT / "weights" / options.name
    done: CrossValidation = load_crossvalidation(options.results)
    with atomic_path(target / WEIGHTS) as temporary:
        compact(source / WEIGHTS, temporary)
    settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
    settings["weights_sha256"] = sha256(target / WEIGHTS)
    settings["about"]["name"] = options.name
    write_atomic(target / SETTINGS, json.dumps(settings, indent=2) + "\n")
    change = largest_change(source, target)
    if change > LARGEST_CHANGE:
        (target / WEIGHTS).unlink()
        (target / SETTINGS).unlink()
        raise SystemExit(f"{options.run}: a probability moved by {change:.4f}; not shipped")
    write_card(target, done)
    size = (target / WEIGHTS).stat().st_size / 1e6
    print(f"{target}: {size:.1f} MB, probabilities moved by at most {change:.1e}")


if __name__ == "__main__":
    main()
