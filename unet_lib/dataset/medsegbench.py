"""MedSegBench's BUSI: one .npz file of arrays, unpacked to a folder of pictures."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.dataset.cases import DatasetError
from unet_lib.dataset.folds import FoldRow, Folds
from unet_lib.files import draft_folder, sha256

__all__ = ["OWN_SPLIT", "unpack_npz"]

OWN_SPLIT = "own_split.csv"
"""In a data folder: the split that its authors made, in the format of `Folds`."""

_MARKER = "MEDSEGBENCH.json"
_PARTS = {"train": "train", "val": "validation", "test": "test"}
_CLASSES = {"_C1": "benign", "_C2": "malignant"}


def unpack_npz(path: Path, *, progress: bool = True) -> Path:
    """Write the pictures of a MedSegBench .npz beside it, once.

    ``busi_256.npz`` becomes ``busi_256/benign/images/benign_train_0001.png`` and so on, with
    ``own_split.csv``. The folder appears whole or not at all; one that was made from this very
    file is taken as it is.

    Parameters
    ----------
    path : Path
        Arrays ``{train,val,test}_images`` (N, H, W) of uint8 and ``..._label`` of 0 and 1, or, with
        the class, ``..._images_C1`` (benign), ``..._images_C2`` (malignant), ``..._label_C1`` and
        ``..._label_C2``; these are taken where they are there.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DatasetError
        Not such a file; arrays are missing or do not fit; the folder is there and is another's.
    """
    target = path.with_suffix("")
    facts = {"what": "pictures of a MedSegBench file", "sha256": sha256(path)}
    if target.exists():
        try:
            known = json.loads((target / _MARKER).read_text(encoding="utf-8")) == facts
        except (OSError, ValueError):
            known = False
        if known:
            return target
        raise DatasetError(
            f"{target}: is in the way of the pictures of {path.name} and was not made from it. "
            "Move it away."
        )
    try:
        with draft_folder(target.parent, target.name) as draft:
            _write(path, draft, progress)
            (draft / _MARKER).write_text(json.dumps(facts) + "\n", encoding="utf-8")
            os.replace(draft, target)
    except OSError as error:
        raise DatasetError(
            f"{target}: the pictures of {path.name} cannot be written there ({error.strerror}). "
            "Copy the file into a folder of yours."
        ) from error
    return target


def _write(path: Path, draft: Path, progress: bool) -> None:
    rows: list[FoldRow] = []
    try:
        arrays = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path}: is no whole .npz file ({error}). Copy or download it again."
        ) from error
    if not isinstance(arrays, Mapping):  # a .npy file under another name
        raise DatasetError(f"{path}: is one array; expected a .npz file of MedSegBench's BUSI.")
    with arrays:
        endings = _CLASSES if f"train_images{min(_CLASSES)}" in arrays else {"": "unknown"}
        for part, name in _PARTS.items():
            for ending, label in endings.items():
                images, masks = _read(path, arrays, part, ending)
                bar = tqdm(
                    zip(images, masks, strict=True), f"{path.name}: {part}{ending}", len(images),
                    unit="image", disable=not progress,
                )  # fmt: skip
                folder = draft if label == "unknown" else draft / label
                for number, (image, mask) in enumerate(bar, start=1):
                    stem = f"{label}_{part}_{number:04d}".removeprefix("unknown_")
                    _png(folder / "images" / f"{stem}.png", image)
                    _png(folder / "masks" / f"{stem}.png", mask)
                    rows.append(FoldRow(stem, label, stem, (name,)))
    Folds(tuple(rows)).save(draft / OWN_SPLIT)


def _read(path: Path, arrays: Any, part: str, ending: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and the masks (0 and 255) of one part and class, checked."""
    found = []
    for what in ("images", "label"):
        key = f"{part}_{what}{ending}"
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
        if values.ndim == 4 and values.shape[3] == 1:
            values = values[..., 0]
        found.append(values)
    images, masks = found
    if images.ndim != 3 or images.dtype != np.uint8 or images.shape != masks.shape:
        raise DatasetError(
            f"{path}: {part}_images{ending} is {images.dtype} {images.shape} and its labels are "
            f"{masks.shape}; expected uint8 (N, H, W), both alike."
        )
    if masks.size and not np.isin(masks, (0, 1)).all():
        raise DatasetError(
            f"{path}: {part}_label{ending} holds values up to {masks.max()}; expected 0 and 1."
        )
    return images, masks.astype(np.uint8) * 255


def _png(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
