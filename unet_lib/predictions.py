"""Masks made by any program: matched with the images by name, checked, scored like our own."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, content_hash, data_hash, load_case, pixel_sizes
from unet_lib.images import IMAGE_SUFFIXES, read_image, read_masks
from unet_lib.metrics import Evaluation
from unet_lib.phantoms import phantom_kind
from unet_lib.provenance import NUMERIC, Provenance, package_versions

__all__ = ["PredictionError", "Predictions", "find_predictions"]

MASK_ENDINGS = ("", "_pred", "_mask")
PROBABILITY_ENDING, PROBABILITY_SUFFIXES = "_prob", {*IMAGE_SUFFIXES, ".npy"}
_PASSED_OVER = "_overlay"
# Curves and calibration use the maps, everything else the masks; no threshold is chosen here.
_UNKNOWN = {
    "seen_in_training": None,
    "threshold": "that of the given masks",
    "threshold_chosen": "not recorded: nobody can tell on which images",
}
_MANY = 5  # names shown in one message


class PredictionError(ValueError):
    """Predictions do not fit the images; the message names the files and what to do."""


@dataclass(frozen=True)
class Predictions:
    """One mask, and perhaps one probability map, for each of some cases.

    Attributes
    ----------
    cases : tuple of Case
    masks : dict of str to Path
        Mask file by the name of the case.
    probabilities : dict of str to Path
        Probability map by the name of the case; of all cases or of none.
    resize : bool
        Bring predictions of another size to the size of their image: masks by the nearest pixel,
        probabilities bilinearly. False: another size is an error. The truth is never resized.
    """

    cases: tuple[Case, ...]
    masks: dict[str, Path]
    probabilities: dict[str, Path]
    resize: bool = False

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Read one case.

        Returns
        -------
        image : ndarray of float32, shape (H, W, 1)
        truth, mask : ndarray of bool, shape (H, W)
        probabilities : ndarray of float32, shape (H, W), or None

        Raises
        ------
        ImageError
            A file is unreadable, or a predicted mask holds other values than a mask does
            (`unet_lib.images.as_mask`).
        PredictionError
            A prediction has another size than its image, or a map is no map of probabilities.
        """
        image, truth = load_case(case)
        path = self.masks[case.name]
        mask = read_masks(path)
        if self._fits(mask, truth, path):
            mask = _resized(mask.astype(np.uint8), truth, cv2.INTER_NEAREST) > 0
        if not self.probabilities:
            return image, truth, mask, None
        path = self.probabilities[case.name]
        found = _read_map(path)
        if self._fits(found, truth, path):
            found = _resized(found, truth, cv2.INTER_LINEAR)
        return image, truth, mask, found

    def evaluate(self, about: dict[str, Any] | None = None, *, progress: bool = True) -> Evaluation:
        """Score all cases, one in memory at a time, by the same code as our own models.

        Parameters
        ----------
        about : dict, optional
            As `Evaluation.about`. SHA-256 of data and predictions and versions are added; phantoms
            are told as such.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Evaluation
            Whether the images were training images of the model, and on which images the
            threshold behind the masks was chosen, is not known, and it says so.

        Raises
        ------
        ImageError, PredictionError
            As `read`; the message names the file.
        """
        sizes = pixel_sizes(self.cases)
        about = {
            **_UNKNOWN,
            **(about or {}),
            **phantom_kind(case.image_path for case in self.cases),
        }
        evaluation = Evaluation()
        hashes: dict[str, list[str]] = {"image": [], "truth": [], "prediction": []}
        for case in tqdm(self.cases, "scoring", disable=not progress, unit="image"):
            image, truth, mask, probabilities = self.read(case)
            given = content_hash(mask[..., None])
            if probabilities is not None:
                given += hashlib.sha256(probabilities.tobytes()).hexdigest()
            for kind, found in (
                ("image", content_hash(image)),
                ("truth", content_hash(truth[..., None])),
                ("prediction", given),
            ):
                hashes[kind].append(found)
            evaluation.add(
                truth, mask, probabilities, name=case.name, label=case.label, group=case.group,
                spacing=sizes.get(case.name),
            )  # fmt: skip
        about["data_sha256"] = data_hash(self.cases, hashes["image"], hashes["truth"])
        about["predictions_sha256"] = data_hash(self.cases, hashes["truth"], hashes["prediction"])
        about["versions"] = {"python": platform.python_version(), **package_versions(NUMERIC)}
        evaluation.provenance = Provenance.of(about)
        return evaluation

    def show(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, true and predicted mask of a case, for `write_report`."""
        return self.read(next(case for case in self.cases if case.name == name))[:3]

    def _fits(self, found: np.ndarray, truth: np.ndarray, path: Path) -> bool:
        """Tell whether a prediction is to be resized; refuse another size where it may not be."""
        if found.shape == truth.shape or self.resize:
            return found.shape != truth.shape
        raise PredictionError(
            f"{path}: is {found.shape[0]} x {found.shape[1]} (height x width), its image "
            f"{truth.shape[0]} x {truth.shape[1]}. Bring predictions back to the size of the image "
            "the way your program shrank it; where it only stretched it, resize=True (--resize) "
            "does that."
        )


def find_predictions(
    folder: str | os.PathLike,
    cases: Sequence[Case],
    *,
    known: Sequence[Case] = (),
    resize: bool = False,
) -> Predictions:
    """Match the files of a folder, and of folders in it, with cases by name.

    A file belongs to the case ``NAME`` as its mask when it is called ``NAME``, ``NAME_pred`` or
    ``NAME_mask``, as its probability map when it is called ``NAME_prob``. Masks are images with two
    values; maps are 8 or 16 bit images (divided by their maximum), or float TIFF or ``.npy`` in
    [0, 1]. Overlays (``*_overlay``) and files of other kinds are passed over.

    Parameters
    ----------
    folder : path-like
    cases : sequence of Case
        Those to be scored; each needs a mask.
    known : sequence of Case
        Others of the same data: predictions of them are passed over.
    resize : bool
        As in `Predictions`.

    Returns
    -------
    Predictions

    Raises
    ------
    PredictionError
        No such folder, it holds true masks, a case without prediction or with two, a file that
        belongs to no case, probability maps of some cases only.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PredictionError(f"{folder}: no such folder of predictions.")
    names = {case.name for case in (*cases, *known)}
    _refuse_truth(folder, (*cases, *known))
    found: dict[bool, dict[str, list[Path]]] = {True: {}, False: {}}
    strangers = []
    for path in _files(folder):
        owner, is_mask = _owner(path, names)
        if owner:
            found[is_mask].setdefault(owner, []).append(path)
        elif not path.stem.endswith(_PASSED_OVER):
            strangers.append(path.name)
    if strangers:
        raise PredictionError(
            f"{folder}: {_some(strangers)}: belong to no image of the data by name. Expected "
            f"NAME.png, NAME_pred.png, NAME_mask.png or NAME{PROBABILITY_ENDING}.png with the name "
            "of an image before its ending; remove or rename them."
        )
    wanted = {case.name for case in cases}
    masks, maps = (
        {name: _only(name, paths) for name, paths in found[kind].items() if name in wanted}
        for kind in (True, False)
    )
    for missing, what in ((wanted - set(masks), "mask"), (wanted - set(maps), "probability map")):
        if missing and (what == "mask" or maps):
            raise PredictionError(
                f"{folder}: {len(missing)} of {len(wanted)} images have no predicted {what}: "
                f"{_some(sorted(missing))}. Predict them too (an image in which nothing was found "
                "needs a black mask), or score the part that you predicted with --split, --fold."
            )
    return Predictions(tuple(cases), masks, maps, resize)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in inside)
        if path.suffix.lower() in PROBABILITY_SUFFIXES and path.is_file() and not hidden:
            yield path


def _owner(path: Path, names: set[str]) -> tuple[str, bool]:
    """Return the case of a file and whether it is its mask; "" for a file of no case."""
    stem, image = path.stem, path.suffix.lower() in IMAGE_SUFFIXES
    for ending in MASK_ENDINGS if image else ():
        name = stem.removesuffix(ending)
        if stem.endswith(ending) and name in names:
            return name, True
    name = stem.removesuffix(PROBABILITY_ENDING)
    return (name, False) if name != stem and name in names else ("", False)


def _refuse_truth(folder: Path, cases: Sequence[Case]) -> None:
    place = folder.resolve()
    for case in cases:
        for path in (case.image_path, *case.mask_paths):
            if place in path.resolve().parents:
                raise PredictionError(
                    f"{folder}: holds the data themselves ({path.name}): the truth would be scored "
                    "against itself. Give a folder that holds predictions only."
                )


def _only(name: str, paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise PredictionError(
            f"{paths[0]} and {paths[1].name}: two predictions of {name}; which one is meant cannot "
            "be known. Remove one."
        )
    return paths[0]


def _read_map(path: Path) -> np.ndarray:
    if path.suffix.lower() != ".npy":
        return read_image(path)[..., 0]
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise PredictionError(f"{path}: not an array file of NumPy ({error}).") from error
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise PredictionError(
            f"{path}: expected float probabilities (H, W) in [0, 1], got {values.dtype} "
            f"{values.shape}. Divide 8-bit values by 255."
        )
    return values.astype(np.float32)


def _resized(values: np.ndarray, truth: np.ndarray, interpolation: int) -> np.ndarray:
    return cv2.resize(values, truth.shape[::-1], interpolation=interpolation)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return f"{', '.join(names[:_MANY])}{more}"
