"""From an image of any size to probabilities and a mask at its own size."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice, repeat, takewhile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.images import (
    Frame,
    ImageError,
    Preprocessing,
    as_image,
    name_of,
    read_frame,
    read_frames,
)
from unet_lib.inference.lesions import Cleaning
from unet_lib.inference.segmentation import Segmentation, check_threshold
from unet_lib.memory import keep_freed_memory
from unet_lib.provenance import Provenance
from unet_lib.shift import ShiftMonitor, ShiftWarning

if TYPE_CHECKING:
    import keras

_KERAS = Lock()  # it computes one batch at a time, on all cores


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
        network = self.network if self.in_keras else self.network.on_all_cores
        return self._probabilities([image], network)[0]

    def iter_probabilities(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the probabilities of each image (H, W, 1) in turn, of any sizes, in [0, 1]."""
        return (values for _, values in self.iter_items((None, image) for image in images))

    def iter_items(
        self,
        items: Iterable[tuple[Any, np.ndarray]],
        finish: Callable[[Any, np.ndarray], Any] = lambda *pair: pair,
    ) -> Iterator[Any]:
        """Yield of each pair of anything and an image the former and the probabilities.

        A few batches are held at a time: the images are taken in one thread; others, one a core,
        prepare them, run the network and call `finish`, whose value is yielded instead.
        """
        size = max(1, self.batch_size) if self.in_keras else 1

        def work(batch: list[tuple[Any, np.ndarray]]) -> list[Any]:
            maps = self._probabilities([image for _, image in batch], self.network)
            return [finish(item, values) for (item, _), values in zip(batch, maps, strict=True)]

        cores, threads = os.cpu_count() or 1, cv2.getNumThreads()
        # Threads of our own work on whole pictures; OpenCV's would only get in their way.
        cv2.setNumThreads(0)
        try:
            with closing(_ahead(items, 2 * size)) as taken:
                batches = iter(lambda: list(islice(taken, size)), [])
                with closing(_each(work, batches, cores, 2 * cores)) as results:
                    yield from chain.from_iterable(results)
        finally:
            cv2.setNumThreads(threads)

    def _probabilities(self, images: Sequence[np.ndarray], network: Any) -> list[np.ndarray]:
        prepared = [self.preprocessing.apply(image) for image in images]
        batch = np.stack([ready.image for ready in prepared])
        batch = np.repeat(batch, network.input_shape[-1], axis=-1)
        # Two batch shapes only, 1 and full: a compiled backend makes a program for each.
        if 1 < len(prepared) < self.batch_size:
            batch = np.pad(batch, [(0, self.batch_size - len(batch)), *[(0, 0)] * 3])
        with _KERAS if self.in_keras else nullcontext():
            maps = np.asarray(network.predict_on_batch(batch))[..., 0]
        restore = self.preprocessing.restore
        return [restore(maps[i], ready.geometry) for i, ready in enumerate(prepared)]

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

        Files are read in a thread beside the caller's; others, one a core, segment what was read.

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

        def finish(item: tuple[Path, Frame, np.ndarray], probabilities: np.ndarray) -> Any:
            path, frame, image = item
            return path, self._segmentation(path, image, probabilities, frame)

        with bar:
            for path, segmentation in self.iter_items(items, finish):
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
    """Yield the items, the next ones being taken in a thread of their own; at most `count` wait."""
    items, end = iter(items), object()
    try:
        with closing(_each(lambda _: next(items, end), repeat(0), 1, count)) as taken:
            yield from takewhile(lambda item: item is not end, taken)
    finally:
        if hasattr(items, "close"):
            items.close()


def _each(
    work: Callable[[Any], Any], items: Iterable[Any], threads: int, count: int
) -> Iterator[Any]:
    """Yield `work` of each item in the order of the items; at most `count` results wait."""
    pool = ThreadPoolExecutor(threads)
    futures = (pool.submit(work, item) for item in items)
    try:
        waiting = deque(islice(futures, count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(islice(futures, 1))
            yield result
    finally:  # also when the caller stops early: nothing further is begun
        pool.shutdown(cancel_futures=True)
