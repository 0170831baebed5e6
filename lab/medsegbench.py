"""Unpack MedSegBench's BUSI, one .npz file of arrays, to a folder that the library reads.

``python -m lab.medsegbench busi_256.npz`` makes ``busi_256/benign/images/benign_train_0001.png``
and so on, with the set's own split (``--split own``; it divides near-duplicates).
"""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.dataset import DatasetError, FoldRow, Folds
from unet_lib.dataset.splits import OWN_SPLIT
from unet_lib.files import draft_folder

_PARTS = {"train": "train", "val": "validation", "test": "test"}
_CLASSES = {"_C1": "benign", "_C2": "malignant"}


def unpack_npz(path: Path, target: Path, *, progress: bool = True) -> Path:
    """Write the pictures of a MedSegBench file into a new folder, whole or not at all.

    `path` holds ``{train,val,test}_images`` (N, H, W) of uint8 and ``..._label`` of 0 and 1, or,
    with the class, ``..._images_C1`` (benign), ``..._images_C2`` (malignant) and their labels;
    these are taken where they are there. DatasetError: not such a file, or the folder is there.
    """
    if target.exists():
        raise DatasetError(f"{target}: is there already. Move it away, or name another folder.")
    try:
        arrays = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path}: is no whole .npz file ({error}). Copy or download it again."
        ) from error
    if not isinstance(arrays, Mapping):  # a .npy file under another name
        raise DatasetError(f"{path}: is one array; expected a .npz file of MedSegBench's BUSI.")
    rows: list[FoldRow] = []
    with arrays, draft_folder(target.parent, target.name) as draft:
        endings = _CLASSES if f"train_images{min(_CLASSES)}" in arrays else {"": "unknown"}
        for part in _PARTS:
            for ending, label in endings.items():
                images, masks = _read(path, arrays, part, ending)
                folder = draft if label == "unknown" else draft / label
                for kind in ("images", "masks"):
                    (folder / kind).mkdir(parents=True, exist_ok=True)
                pairs = zip(images, masks, strict=True)
                bar = tqdm(pairs, f"{part}{ending}", len(images), disable=not progress)
                for number, (image, mask) in enumerate(bar, start=1):
                    stem = f"{label}_{part}_{number:04d}".removeprefix("unknown_")
                    for kind, picture in (("images", image), ("masks", mask)):
                        content = cv2.imencode(".png", picture)[1].tobytes()
                        (folder / kind / f"{stem}.png").write_bytes(content)
                    rows.append(FoldRow(stem, label, stem, (_PARTS[part],)))
        Folds(tuple(rows)).save(draft / OWN_SPLIT)
        os.replace(draft, target)
    return target


def _read(path: Path, arrays: Any, part: str, ending: str) -> list[np.ndarray]:
    """Return the images and the masks (0 and 255) of one part and class, checked."""
    read = []
    for key in (f"{part}_images{ending}", f"{part}_label{ending}"):
        if key not in arrays:
            raise DatasetError(
                f"{path}: array {key} is missing; it has {', '.join(arrays.files)}. Expected a "
                "file of MedSegBench's BUSI."
            )
        try:
            values = arrays[key]
        except Exception as error:  # damaged, encrypted or packed in a way zipfile does not know
            raise DatasetError(
                f"{path}: array {key} cannot be read ({error}). Copy or download the file again."
            ) from error
        if not isinstance(values, np.ndarray):  # numpy gives the bytes of what is no array
            raise DatasetError(f"{path}: {key} is no array. Copy or download the file again.")
        read.append(values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values)
    images, masks = read
    if images.ndim != 3 or images.dtype != np.uint8 or images.shape != masks.shape:
        raise DatasetError(
            f"{path}: {part}_images{ending} is {images.dtype} {images.shape} and its labels are "
            f"{masks.shape}; expected uint8 (N, H, W), both alike."
        )
    if masks.size and not np.isin(masks, (0, 1)).all():
        raise DatasetError(
            f"{path}: {part}_label{ending} holds values up to {masks.max()}; expected 0 and 1."
        )
    return [images, masks.astype(np.uint8) * 255]


def main() -> None:
    """Unpack the file that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, help="new folder (beside the file, without .npz)")
    options = parser.parse_args()
    print(unpack_npz(options.file, options.out or options.file.with_suffix("")))


if __name__ == "__main__":
    main()
