"""Masks made by any program: matched with the images by name, checked, scored like our own."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, content_hash, data_hash, left_out, load_case, pixel_sizes
from unet_lib.images import MaskSet, is_picture, picture_name, read_image, read_masks, read_pixels
from unet_lib.metrics import Evaluation
from unet_lib.phantoms import phantom_kind
from unet_lib.provenance import NUMERIC, Provenance, package_versions

__all__ = ["PredictionError", "Predictions", "find_predictions"]


class PredictionError(ValueError):
    """Predictions do not fit the images; the message names the files and what to do."""


@dataclass(frozen=True)
class Predictions:
    """One mask, and perhaps one probability map, for each of some cases, as `find_predictions`."""

    cases: tuple[Case, ...]
    masks: dict[str, Path]  # by the name of the case
    probabilities: dict[str, Path]  # of all cases or of none
    resize: bool = False
    mask_rule: str | None = None

    @cached_property
    def mask_set(self) -> MaskSet:
        """The masks, which are judged together."""
        return MaskSet(self.masks.values(), self.mask_rule)

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Return image, truth and mask bool (H, W), and probabilities float32 (H, W) or None."""
        image, truth = load_case(case)
        path = self.masks[case.name]
        mask = self._fitted(_read_mask(path, self.mask_set), truth, path)
        path = self.probabilities.get(case.name)
        return image, truth, mask, self._fitted(_read_map(path), truth, path) if path else None

    def evaluate(
        self, provenance: Provenance | Mapping[str, Any] | None = None, *, progress: bool = True
    ) -> Evaluation:
        """Score all cases, one in memory at a time; SHA-256 and versions join what is known."""
        sizes, evaluation = pixel_sizes(self.cases), Evaluation()
        images, truths, predictions = [], [], []
        for case in tqdm(self.cases, "scoring", disable=not progress, unit="image"):
            image, truth, mask, probabilities = self.read(case)
            images.append(content_hash(image))
            truths.append(content_hash(truth[..., None]))
            predictions.append(content_hash(mask[..., None]))
            if probabilities is not None:
                predictions[-1] += hashlib.sha256(probabilities.tobytes()).hexdigest()
            names = {"name": case.name, "label": case.label, "group": case.group}
            evaluation.add(truth, mask, probabilities, spacing=sizes.get(case.name), **names)
        # Curves and calibration use the maps, everything else the masks; no threshold is chosen.
        provenance = Provenance.of(provenance)
        evaluation.provenance = provenance.but(
            scored=True,
            threshold=provenance.threshold or "that of the given masks",
            threshold_chosen=provenance.threshold_chosen
            or "not recorded: nobody can tell on which images",
            prediction_rule=self.mask_rule,
            data_sha256=data_hash(self.cases, images, truths),
            predictions_sha256=data_hash(self.cases, truths, predictions),
            versions={"python": platform.python_version(), **package_versions(NUMERIC)},
            **phantom_kind(case.image_path for case in self.cases),
        )
        return evaluation

    def show(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, true and predicted mask of a case, for `write_report`."""
        return self.read(next(case for case in self.cases if case.name == name))[:3]

    def _fitted(self, values: np.ndarray, truth: np.ndarray, path: Path) -> np.ndarray:
        """Bring a prediction to the size of its image; refuse another size where it may not be."""
        if values.shape == truth.shape:
            return values
        if not self.resize:
            raise PredictionError(
                f"{path}: is {values.shape[0]} x {values.shape[1]} (height x width), its image "
                f"{truth.shape[0]} x {truth.shape[1]}. Bring predictions back to the size of the "
                "image the way your program shrank it; where it only stretched it, resize=True "
                "(--resize) does that."
            )
        size = truth.shape[::-1]
        if values.dtype == bool:
            return cv2.resize(values.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        return cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)


def find_predictions(
    folder: str | os.PathLike,
    cases: Sequence[Case],
    *,
    unscored: Sequence[Case] = (),
    resize: bool = False,
    mask_rule: str | None = None,
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
    unscored : sequence of Case
        Others of the same data: predictions of them are passed over.
    resize : bool
        Bring predictions of another size to the size of their image: masks by the nearest pixel,
        probabilities bilinearly. False: another size is an error. The truth is never resized.
    mask_rule : str, optional
        How predicted masks are read, where the library refuses; see `find_cases`.

    Returns
    -------
    Predictions
        ``evaluate()`` scores them, ``show(name)`` gives the pictures of one for `write_report`.

    Raises
    ------
    PredictionError
        No such folder, it holds true masks, a case without prediction or with two, a file that
        belongs to no case, probability maps of some cases only.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PredictionError(f"{folder}: no such folder of predictions.")
    every, files = (*cases, *unscored), _files(folder)
    _refuse_truth(folder, every)
    names, wanted = {case.name for case in every}, {case.name for case in cases}
    masks: dict[str, Path] = {}
    maps: dict[str, Path] = {}
    strangers = []
    for path in files:
        owner, matched = _owner(path, names, masks, maps)
        if not owner and not path.stem.endswith("_overlay"):
            strangers.append(path.name)
        if owner in wanted and matched.setdefault(owner, path) != path:
            raise PredictionError(
                f"{matched[owner]} and {path.name}: two predictions of {owner}; which one is meant "
                "cannot be known. Remove one."
            )
    if strangers:
        raise PredictionError(
            f"{folder}: {_some(strangers)}: belong to no image of the data by name. Expected "
            "NAME.png, NAME_pred.png, NAME_mask.png or NAME_prob.png with the name of an image "
            "before its ending; remove or rename them."
        )
    for what, matched in (("mask", masks), ("probability map", maps)):
        missing = sorted(wanted - set(matched))
        if missing and (what == "mask" or maps):
            raise PredictionError(
                f"{folder}: {len(missing)} of {len(wanted)} images have no predicted {what}: "
                f"{_some(missing)}. Predict them too (an image in which nothing was found "
                "needs a black mask), or score the part that you predicted with --split, --fold. "
                f"{left_out(folder, files).text}".rstrip()
            )
    return Predictions(tuple(cases), masks, maps, resize, mask_rule)


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if (path.suffix.lower() == ".npy" or is_picture(path))
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _owner(
    path: Path, names: set[str], masks: dict[str, Path], maps: dict[str, Path]
) -> tuple[str, dict[str, Path]]:
    """Return the case of a file ("" for none), and where it belongs: masks or maps."""
    image, stem = path.suffix.lower() != ".npy", picture_name(path)
    for ending, matched in (("", masks), ("_pred", masks), ("_mask", masks), ("_prob", maps)):
        name = stem.removesuffix(ending)
        if stem.endswith(ending) and name in names and (image or matched is maps):
            return name, matched
    return "", masks


def _refuse_truth(folder: Path, cases: Sequence[Case]) -> None:
    place = folder.resolve()
    for path in (path for case in cases for path in (case.image_path, *case.mask_paths)):
        if place in path.resolve().parents:
            raise PredictionError(
                f"{folder}: holds the data themselves ({path.name}): the truth would be scored "
                "against itself. Give a folder that holds predictions only."
            )


def _read_mask(path: Path, mask_set: MaskSet) -> np.ndarray:
    ours = path.stem.endswith("_pred") and (path.parent / "lesions.csv").is_file()
    if ours and not mask_set.rule:
        pixels = read_pixels(path)  # by `segment`: white is lesion, however much it covers
        if pixels.ndim == 2 and np.isin(pixels, (0, 255)).all():
            return pixels > 0
    return read_masks(path, mask_set=mask_set)


def _read_map(path: Path) -> np.ndarray:
    if path.suffix.lower() != ".npy":
        return read_image(path)[..., 0]
    try:  # `numpy.load` would also take what is none: an .npz by its first bytes
        values = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, OverflowError) as error:
        raise PredictionError(f"{path}: not an array file of NumPy ({error}).") from error
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise PredictionError(
            f"{path}: expected float probabilities (H, W) in [0, 1], got {values.dtype} "
            f"{values.shape}. Divide 8-bit values by 255."
        )
    return np.array(values, np.float32)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
