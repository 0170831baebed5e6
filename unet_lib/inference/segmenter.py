"""From an image of any size to probabilities and a mask at its own size."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from unet_lib.backend import keep_freed_memory
from unet_lib.images import Frame, Geometry, Preprocessing, as_image, read_frame, read_frames
from unet_lib.inference.lesions import Cleaning, Lesion, find_lesions
from unet_lib.shift import Shift, ShiftMonitor, ShiftWarning

__all__ = ["Segmentation", "Segmenter", "read_ahead"]


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
    frame : Frame or None
        What the file holds: stored values, frame number, pixel sizes. None for an array.
    shift : Shift or None
        How far the image is from the training images; None where the model does not know them.
    """

    image: np.ndarray
    probabilities: np.ndarray
    mask: np.ndarray
    frame: Frame | None = None
    shift: Shift | None = None

    @property
    def lesions(self) -> list[Lesion]:
        """The connected components of the mask, the largest first; in mm where that is known."""
        regions = self.frame.regions if self.frame else ()
        return find_lesions(self.mask, self.probabilities, regions)


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
    monitor : ShiftMonitor, optional
        Statistics of the training images, see `unet_lib.shift`.

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
    monitor: ShiftMonitor | None = None

    def __post_init__(self) -> None:
        keep_freed_memory()
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
        """Segment one image, given as a file of one frame or as float (H, W, 1) in [0, 1].

        Raises
        ------
        ImageError
            The file cannot be read; the message names it.

        Warns
        -----
        ShiftWarning
            The image is unlike the training images.
        """
        name, frame = "the image", None
        if not isinstance(image, np.ndarray):
            name, frame = image, read_frame(image)
            image = as_image(frame.pixels, name)
        found = self._found(image, self.probabilities(image), frame)
        if found.shift and found.shift.flagged:
            warnings.warn(f"{name}: {found.shift}", ShiftWarning, stacklevel=2)
        return found

    def segment_files(
        self, paths: Sequence[str | Path], *, progress: bool = True
    ) -> Iterator[tuple[Path, Segmentation]]:
        """Segment every frame of many files, reading ahead while the network works.

        Yields
        ------
        (Path, Segmentation)
            In the order of `paths`, the frames of a file in its order; `shift` says which are
            unlike the training images.

        Raises
        ------
        ImageError
            A file cannot be read. Images before it in the same batch are not yielded.
        """
        bar = tqdm(desc="segmenting", total=len(paths), disable=not progress, unit="file")
        kept: list[tuple[Path, Frame, np.ndarray]] = []

        def images() -> Iterator[np.ndarray]:
            for item in _ahead(_frames_of(paths), 2 * self.batch_size):
                kept.append(item)
                yield item[2]

        with bar:
            for probabilities in self.iter_probabilities(images()):
                path, frame, image = kept.pop(0)
                bar.update(frame.number == frame.count)
                yield path, self._found(image, probabilities, frame)

    def _found(
        self, image: np.ndarray, probabilities: np.ndarray, frame: Frame | None
    ) -> Segmentation:
        shift = self.monitor and self.monitor.measure(frame.pixels if frame else image)
        return Segmentation(image, probabilities, self.mask(probabilities), frame, shift)


def _frames_of(paths: Sequence[str | Path]) -> Iterator[tuple[Path, Frame, np.ndarray]]:
    for path in map(Path, paths):
        for frame in read_frames(path):
            yield path, frame, as_image(frame.pixels, path)


def _ahead(items: Iterator[Any], ahead: int) -> Iterator[Any]:
    """Yield the items in order, the next ones being made in a thread of their own."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(next, items, end) for _ in range(ahead)]
        while (item := waiting.pop(0).result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item


def read_ahead(read: Any, items: Sequence[Any], ahead: int) -> Iterator[Any]:
    """Yield ``read(item)`` in order, at most `ahead` results waiting; bounds the memory."""
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(read, item) for item in items[:ahead]]
        following = iter(items[ahead:])
        while waiting:
            result = waiting.pop(0).result()
            for item in islice(following, 1):
                waiting.append(pool.submit(read, item))
            yield result
