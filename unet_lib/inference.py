"""From an image of any size to probabilities and a mask at its own size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from tqdm.auto import tqdm

from unet_lib.dataset import Case, load_case
from unet_lib.images import Geometry, Preprocessing, read_image
from unet_lib.metrics import Evaluation
from unet_lib.settings import Settings

__all__ = ["Cleaning", "Lesion", "Segmentation", "Segmenter", "evaluate_cases", "find_lesions"]


@dataclass(frozen=True)
class Cleaning(Settings):
    """Removal of connected components (8 neighbours) of a mask; off by default.

    Parameters
    ----------
    minimum_area : float
        Components that cover less than this fraction of the image are removed.
    minimum_peak : float
        Components in which no pixel reaches this probability are removed.
    """

    minimum_area: float = 0.0
    minimum_peak: float = 0.0

    def __post_init__(self) -> None:
        for name in ("minimum_area", "minimum_peak"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"Cleaning: {name} must be between 0 and 1; received {getattr(self, name)!r}."
                )

    def apply(self, mask: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return the mask, bool (H, W), without the components that are too small or too weak."""
        if (self.minimum_area == 0 and self.minimum_peak == 0) or not mask.any():
            return mask
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        keep = stats[:, cv2.CC_STAT_AREA] >= self.minimum_area * mask.size
        peaks = np.zeros(count, np.float32)
        np.maximum.at(peaks, labels[mask], probabilities[mask])
        keep &= peaks >= self.minimum_peak
        keep[0] = False  # the background
        return keep[labels]


@dataclass(frozen=True)
class Lesion:
    """One connected component of a mask; lengths in pixels of the image.

    Attributes
    ----------
    area : int
        Pixels.
    left, top, width, height : int
        Its bounding box.
    mean_probability : float
        Mean over its pixels.
    """

    area: int
    left: int
    top: int
    width: int
    height: int
    mean_probability: float


def find_lesions(mask: np.ndarray, probabilities: np.ndarray) -> list[Lesion]:
    """List the connected components (8 neighbours) of a mask, the largest first.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
    probabilities : ndarray of float, shape (H, W)
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    sums = np.bincount(labels.ravel(), probabilities.ravel(), minlength=count)
    found = [
        Lesion(int(area), int(left), int(top), int(width), int(height), float(sums[i] / area))
        for i, (left, top, width, height, area) in enumerate(stats)
        if i > 0
    ]
    return sorted(found, key=lambda lesion: -lesion.area)


@dataclass(frozen=True)
class Segmentation:
    """What the network says of one image.

    Attributes
    ----------
    image : ndarray of float32, shape (H, W, 1)
        As read, in [0, 1].
    probabilities : ndarray of float32, shape (H, W)
        Of lesion, at the image's own size.
    mask : ndarray of bool, shape (H, W)
        After threshold and cleaning.
    """

    image: np.ndarray
    probabilities: np.ndarray
    mask: np.ndarray

    @property
    def lesions(self) -> list[Lesion]:
        """The connected components of the mask, the largest first."""
        return find_lesions(self.mask, self.probabilities)


@dataclass
class Segmenter:
    """A network with everything that belongs to its use.

    Parameters
    ----------
    network : keras.Model
        (N, S, S, C) in [0, 1] -> lesion probabilities (N, S, S, 1).
    preprocessing : Preprocessing
        The one that the network was trained with.
    threshold : float
        Probability from which a pixel is lesion, from validation.
    cleaning : Cleaning
        Of the mask.
    about : dict
        Where the network comes from: JSON-able, shown in reports.
    batch_size : int
        Images that the network sees at once.

    Raises
    ------
    ValueError
        The network's input does not fit the preprocessing.
    """

    network: keras.Model
    preprocessing: Preprocessing
    threshold: float = 0.5
    cleaning: Cleaning = field(default_factory=Cleaning)
    about: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 8

    def __post_init__(self) -> None:
        side = self.preprocessing.size
        shape = tuple(self.network.input_shape[1:3])
        if shape not in ((side, side), (None, None)):
            raise ValueError(
                f"Segmenter: the network takes {shape[0]} x {shape[1]} pixels, the preprocessing "
                f"gives {side} x {side}. Build the network with size={side}."
            )
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"Segmenter: threshold must lie between 0 and 1; received {self.threshold!r}."
            )

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the lesion probabilities, float32 (H, W), of an image (H, W, 1) in [0, 1]."""
        return next(self.iter_probabilities([image]))

    def iter_probabilities(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the probabilities of each image in turn, holding one batch at a time.

        Parameters
        ----------
        images : iterable of ndarray, shape (H, W, 1)
            Any sizes, in [0, 1].

        Yields
        ------
        ndarray of float32, shape (H, W)
        """
        images = iter(images)
        size = 1 if self.batch_size < 1 else self.batch_size
        while chunk := list(islice(images, size)):
            prepared = [self.preprocessing.apply(image) for image in chunk]
            maps = self._predict(np.stack([p.image for p in prepared]))
            for item, values in zip(prepared, maps, strict=True):
                yield self._restore(values, item.geometry)

    def _predict(self, batch: np.ndarray) -> np.ndarray:
        channels = self.network.input_shape[-1]
        if channels > 1:
            batch = np.repeat(batch, channels, axis=-1)
        count = len(batch)
        # Two batch shapes only, 1 and full: a compiled backend makes a program for each.
        if 1 < count < self.batch_size:
            fill = np.zeros((self.batch_size - count, *batch.shape[1:]), batch.dtype)
            batch = np.concatenate([batch, fill])
        return np.asarray(self.network.predict_on_batch(batch))[:count, ..., 0]

    def _restore(self, values: np.ndarray, geometry: Geometry) -> np.ndarray:
        return self.preprocessing.restore(values.astype(np.float32), geometry)

    def mask(self, probabilities: np.ndarray) -> np.ndarray:
        """Apply threshold and cleaning to probabilities (H, W); bool (H, W)."""
        return self.cleaning.apply(probabilities >= self.threshold, probabilities)

    def segment(self, image: str | Path | np.ndarray) -> Segmentation:
        """Segment one image, given as a file or as float (H, W, 1) in [0, 1].

        Raises
        ------
        ImageError
            The file cannot be read; the message names it.
        """
        if not isinstance(image, np.ndarray):
            image = read_image(image)
        probabilities = self.probabilities(image)
        return Segmentation(image, probabilities, self.mask(probabilities))

    def segment_files(
        self, paths: Sequence[str | Path], *, progress: bool = True
    ) -> Iterator[tuple[Path, Segmentation]]:
        """Segment many files, reading ahead while the network works.

        Yields
        ------
        (Path, Segmentation)
            In the order of `paths`.

        Raises
        ------
        ImageError
            A file cannot be read; those before it have been yielded.
        """
        images = tqdm(
            _read_ahead(read_image, paths, 2 * self.batch_size),
            "segmenting",
            len(paths),
            disable=not progress,
            unit="image",
        )
        kept: list[np.ndarray] = []
        for path, probabilities in zip(
            paths, self.iter_probabilities(_remember(images, kept)), strict=True
        ):
            yield (
                Path(path),
                Segmentation(kept.pop(0), probabilities, self.mask(probabilities)),
            )


def _remember(images: Iterable[np.ndarray], kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    for image in images:
        kept.append(image)
        yield image


def _read_ahead(read: Any, items: Sequence[Any], ahead: int) -> Iterator[Any]:
    """Yield ``read(item)`` in order, at most `ahead` results waiting; bounds the memory."""
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(read, item) for item in items[:ahead]]
        following = iter(items[ahead:])
        while waiting:
            result = waiting.pop(0).result()
            for item in islice(following, 1):
                waiting.append(pool.submit(read, item))
            yield result


def evaluate_cases(
    segmenter: Segmenter,
    cases: Sequence[Case],
    *,
    about: dict[str, Any] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score a segmenter on cases, each at its original size, one map in memory at a time.

    Parameters
    ----------
    segmenter : Segmenter
    cases : sequence of Case
        Images with masks.
    about : dict, optional
        What to say of data and split; model, threshold and ``seen_in_training`` are added.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Evaluation
        Per-image scores and pooled histograms.

    Raises
    ------
    ImageError, DatasetError
        A file cannot be used; the message names it.
    ValueError
        No cases.
    """
    if not cases:
        raise ValueError("evaluate_cases: received no cases; expected at least one.")
    facts = {
        "model": segmenter.about.get("name", "unnamed"),
        "threshold": segmenter.threshold,
        "cleaning": segmenter.cleaning.to_dict(),
        "preprocessing": segmenter.preprocessing.to_dict(),
    }
    about = {**facts, **(about or {})}
    about["seen_in_training"] = _seen(segmenter, cases, about.get("data"))
    evaluation = Evaluation(about=about)
    truths: list[np.ndarray] = []

    def images() -> Iterator[np.ndarray]:
        for image, truth in _read_ahead(load_case, cases, 2 * segmenter.batch_size):
            truths.append(truth)
            yield image

    maps = segmenter.iter_probabilities(images())
    steps = tqdm(cases, "evaluating", disable=not progress, unit="image")
    for case, probabilities in zip(steps, maps, strict=True):
        evaluation.add(
            truths.pop(0),
            segmenter.mask(probabilities),
            probabilities,
            name=case.name,
            label=case.label,
            group=case.group,
        )
    return evaluation


def _seen(segmenter: Segmenter, cases: Sequence[Case], data: str | None) -> bool | None:
    """Tell whether cases were used to train the model or to choose its epoch; None: unknown."""
    known = segmenter.about.get("trained_on")
    if known is None:
        return None
    if segmenter.about.get("data") != data:
        return False
    used = {*known, *segmenter.about.get("validated_on", ())}
    return any(case.name in used for case in cases)
