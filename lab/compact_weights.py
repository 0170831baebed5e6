"""Make the weights file of a model folder smaller by a third, for a repository.

    python -m lab.compact_weights runs/recipe/fold0/model

Kernels are rounded to 13 significant bits, then the file is compressed; Keras reads it like any
other, and a file that went through this before comes out with the same values. Nothing is changed
when a probability on eight phantoms moves by more than 0.005. Do it before the scores that are
quoted are made: they are then those of the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np

from unet_lib.files import atomic_path, sha256, write_atomic
from unet_lib.phantoms import phantom_pictures
from unet_lib.weights import load_segmenter
from unet_lib.weights.folder import IN_ONNX, ONNX, SETTINGS, WEIGHTS, settings_digest

LARGEST_CHANGE = 0.005


def rounded(values: np.ndarray, bits: int = 13) -> np.ndarray:
    """Round float32 values to so many significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent).astype(np.float32)


def compact(source: Path, target: Path) -> None:
    """Write an HDF5 weights file again with rounded kernels, compressed."""
    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                made = new.require_group(name)
            elif item.ndim < 2:  # biases, scales, moving statistics: few, and kept as they are
                made = new.create_dataset(name, data=item[()])
            else:
                made = new.create_dataset(
                    name, data=rounded(item[()]), compression="gzip", shuffle=True
                )
            made.attrs.update(item.attrs)

        old.visititems(visit)
        new.attrs.update(old.attrs)


def largest_change(before: Path, after: Path) -> float:
    """Compare the probabilities of two model folders on phantoms."""
    pictures = [p.image[..., None] / np.float32(255) for p in phantom_pictures(8)]
    maps = [
        list(load_segmenter(m, runtime="keras").iter_probabilities(pictures))
        for m in (before, after)
    ]
    return max(float(np.abs(a - b).max()) for a, b in zip(*maps, strict=True))


def compact_folder(folder: Path) -> float:
    """Make the weights file of a model folder smaller; returns what probabilities moved by."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as place:
        small = Path(place) / "model"
        small.mkdir()
        compact(folder / WEIGHTS, small / WEIGHTS)
        settings.pop(IN_ONNX, None)  # of the weights as they were
        settings["weights_sha256"] = sha256(small / WEIGHTS)
        settings["settings_sha256"] = settings_digest(settings)
        text = json.dumps(settings, indent=2) + "\n"
        (small / SETTINGS).write_text(text, encoding="utf-8")
        change = largest_change(folder, small)
        if change > LARGEST_CHANGE:
            raise SystemExit(f"{folder}: a probability moves by {change:.4f}; left as it is")
        with atomic_path(folder / WEIGHTS) as temporary:
            shutil.copyfile(small / WEIGHTS, temporary)
        (folder / ONNX).unlink(missing_ok=True)
        write_atomic(folder / SETTINGS, text)
    return change


def main() -> None:
    """Make one folder smaller."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="model folder")
    folder = parser.parse_args().folder
    change = compact_folder(folder)
    size = (folder / WEIGHTS).stat().st_size / 1e6
    print(f"{folder}: {size:.1f} MB, probabilities moved by at most {change:.1e}")


if __name__ == "__main__":
    main()
