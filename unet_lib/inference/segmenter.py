"""From an image of any size to probabilities and a mask at its own size."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.images import (
    Frame,
    ImageError,
    Prepared,
    Preprocessing,
    as_image,
    name_of,
    read_frame,
    read_frames,
)
from unet_lib.inference.lesions import Cleaning
from unet_lib.inference.segmentation import Segmentation, check_threshold
from unet_lib.provenance import Provenance
from unet_lib.shift import ShiftMonitor, ShiftWarning

if TYPE_CHECKING:
    import keras

_FINISHED = 4  # segmentations at full size that wait for the caller


class UnreadableImages(ImageError):
    """Some of many files could not be read; `reasons` has the ImageError of each by its path."""

    def __init__(self, reasons: Mapping[Path, ImageError], count: int) -> None:
        self.reasons = dict(reasons)
        before = " " if len(reasons) == 1 else "\n  "
        lines = "".join(f"{before}{reason}" for reason in reasons.values())
        super().__init__(f"{len(reasons)} of {count} files could not be read:{lines}")


@dataclass
class Segmenter:
    """A network with everything that belongs to its use.

    Parameters
    ----------
    network : keras.Model or OnnxNetwork
        (N, S, S, C) in [0, 1] -> lesion probabilities (N, S, S, 1).
    preprocessing : Preprocessing
        The one that the network was trained with.
    threshold : float
        Probability from which a pixel is lesion, from validation.
    cleaning : Cleaning
        Of the mask.
    provenance : Provenance or mapping
        Where the network comes from.
    batch_size : int
        Images that the network sees at once.
    monitor : ShiftMonitor, optional
        Statistics of the training images, see `unet_lib.shift`.

    Raises
    ------
    ValueError
        The network's input does not fit the preprocessing, or its output is not one probability
        for each pixel.
    """

    network: keras.Model
    preprocessing: Preprocessing
    threshold: float = 0.5
    cleaning: Cleaning = field(default_factory=Cleaning)
    provenance: Provenance = field(default_factory=Provenance)
    batch_size: int = 8
    monitor: ShiftMonitor | None = None

    def __post_init__(self) -> None:
        if self.in_keras:
            from unet_lib.backend import keep_freed_memory

            keep_freed_memory()
        self.provenance = Provenance.of(self.provenance)
        side = self.preprocessing.size
        shape = tuple(self.network.input_shape[1:3])
        if shape not in ((side, side), (None, None)):
            raise ValueError(
                f"Segmenter: the network takes {shape[0]} x {shape[1]} pixels, the preprocessing "
                f"gives {side} x {side}. Build the network with size={side}."
            )
        if len(self.network.output_shape) != 4 or self.network.output_shape[-1] != 1:
            raise ValueError(
                f"Segmenter: the network's output is {self.network.output_shape}; expected (N, S, "
                "S, 1), the probability of lesion. Give a network that ends with this channel."
            )
        check_threshold(self.threshold)

    def __repr__(self) -> str:
        name = self.provenance.name or type(self.network).__name__
        learnt = f", trained on {self.provenance.data}" if self.provenance.data else ""
        return (
            f"<Segmenter {name}: input {self.preprocessing.size} x {self.preprocessing.size}, "
            f"threshold {self.threshold:g}{learnt}>"
        )

    @property
    def in_keras(self) -> bool:
        """Whether the network is Keras' own, with layers and weights, not a file of a runtime."""
        return hasattr(self.network, "layers")

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the lesion probabilities, float32 (H, W), of an image (H, W, 1) in [0, 1]."""
        prepared = self.preprocessing.apply(image)
        values = self._predict([prepared])[0]
        return self.preprocessing.restore(values, prepared.geometry)

    def iter_probabilities(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the probabilities of each image (H, W, 1) in turn, of any sizes, in [0, 1]."""
        return (values for _, values in self.iter_items((None, image) for image in images))

    def iter_items(
        self, items: Iterable[tuple[Any, np.ndarray]]
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield of each pair of anything and an image the former and the probabilities.

        A few batches are held at a time: the images are taken and prepared in one thread, the
        network works ahead in another.
        """
        size, threads = max(1, self.batch_size), cv2.getNumThreads()
        prepared = ((item, self.preprocessing.apply(image)) for item, image in items)
        # Threads of our own work on whole pictures; OpenCV's would only get in their way.
        cv2.setNumThreads(0)
        try:
            for item, ready, values in _ahead(self._maps(_ahead(prepared, 2 * size), size), size):
                yield item, self.preprocessing.restore(values, ready.geometry)
        finally:
            cv2.setNumThreads(threads)

    def _maps(
        self, prepared: Iterator[tuple[Any, Prepared]], size: int
    ) -> Iterator[tuple[Any, Prepared, np.ndarray]]:
        while chunk := list(islice(prepared, size)):
            maps = self._predict([ready for _, ready in chunk])
            for (item, ready), values in zip(chunk, maps, strict=True):
                yield item, ready, values

    def _predict(self, prepared: Sequence[Prepared]) -> np.ndarray:
        batch = np.stack([ready.image for ready in prepared])
        batch = np.repeat(batch, self.network.input_shape[-1], axis=-1)
        # Two batch shapes only, 1 and full: a compiled backend makes a program for each.
        if 1 < len(prepared) < self.batch_size:
            batch = np.pad(batch, [(0, self.batch_size - len(batch)), *[(0, 0)] * 3])
        values = np.asarray(self.network.predict_on_batch(batch))[: len(prepared), ..., 0]
        return values.astype(np.float32, copy=False)

    def mask(self, probabilities: np.ndarray) -> np.ndarray:
        """Apply threshold and cleaning to probabilities (H, W); bool (H, W)."""
        threshold = check_threshold(self.threshold)  # it may have been set since
        return self.cleaning.apply(probabilities >= threshold, probabilities)

    def segment(self, image: Any) -> Segmentation:
        """Segment one picture.

        Parameters
        ----------
        image : path-like, bytes, binary file, PIL image or ndarray
            A file of one frame, or the pixels: (H, W), (H, W, 1) or RGB (H, W, 3) of uint8, uint16
            or float in [0, 1]. The mask is that of the file, whichever way it is given.

        Raises
        ------
        ImageError
            The picture cannot be read; the message names it.
        TypeError
            Anything else was given.

        Warns
        -----
        ShiftWarning
            The image is unlike the training images.
        """
        frame, name = read_frame(image), name_of(image)
        grey = as_image(frame.pixels, name)
        segmentation = self._segmentation(name, grey, self.probabilities(grey), frame)
        if segmentation.shift and segmentation.shift.flagged:
            warnings.warn(f"{name}: {segmentation.shift}", ShiftWarning, stacklevel=2)
        return segmentation

    def segment_files(
        self, paths: Sequence[str | Path], *, progress: bool = True
    ) -> Iterator[tuple[Path, Segmentation]]:
        """Segment every frame of many files.

        Reading, the network and what follows it work in a thread each, beside the caller's.

        Yields
        ------
        (Path, Segmentation)
            In the order of `paths`, the frames of a file in its order; `shift` says which are
            unlike the training images.

        Raises
        ------
        UnreadableImages
            After all others were yielded: files that could not be read, with the reasons.
        """
        unreadable: dict[Path, ImageError] = {}
        bar = tqdm(desc="segmenting", total=len(paths), disable=not progress, unit="file")
        items = ((item, item[2]) for item in _frames_of(paths, unreadable))

        def segmentations() -> Iterator[tuple[Path, Segmentation]]:
            for (path, frame, image), probabilities in self.iter_items(items):
                yield path, self._segmentation(path, image, probabilities, frame)

        with bar:
            for path, segmentation in _ahead(segmentations(), _FINISHED):
                bar.update(segmentation.frame.number == segmentation.frame.count)
                yield path, segmentation
            bar.update(len(unreadable))
        if unreadable:
            raise UnreadableImages(unreadable, len(paths))

    def _segmentation(
        self, path: str | Path, image: np.ndarray, probabilities: np.ndarray, frame: Frame
    ) -> Segmentation:
        shift = self.monitor and self.monitor.measure(frame.pixels, image)
        name, mask = Path(path).name, self.mask(probabilities)
        made_by = self.threshold, self.cleaning
        return Segmentation(image, probabilities, mask, frame, shift, name, *made_by)


def _frames_of(
    paths: Sequence[str | Path], unreadable: dict[Path, ImageError]
) -> Iterator[tuple[Path, Frame, np.ndarray]]:
    for path in map(Path, paths):
        try:
            for frame in read_frames(path):
                yield path, frame, as_image(frame.pixels, path)
        except ImageError as error:
            unreadable[path] = error


def _ahead(items: Iterable[Any], count: int) -> Iterator[Any]:
    """Yield the items in order, the next ones being made in a thread of their own.

    Only that thread takes from `items`; its exception is raised in its place in the order. At most
    `count` finished items wait.
    """
    items, end = iter(items), object()
    pool = ThreadPoolExecutor(1)
    try:
        waiting = [pool.submit(next, items, end) for _ in range(max(1, count))]
        while (item := waiting.pop(0).result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:  # also when the caller stops early: nothing further is begun
        pool.shutdown(cancel_futures=True)
        if hasattr(items, "close"):
            items.close()
