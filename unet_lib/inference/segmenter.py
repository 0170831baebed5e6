"""From an image of any size to probabilities and a mask at its own size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from tqdm import tqdm

from unet_lib.backend import keep_freed_memory
from unet_lib.images import (
    Frame,
    Geometry,
    Prepared,
    Preprocessing,
    as_image,
    read_frame,
    read_frames,
)
from unet_lib.inference.ahead import ahead
from unet_lib.inference.engines import Engine, check_engine, make_engine
from unet_lib.inference.lesions import Cleaning, Lesion, find_lesions
from unet_lib.shift import Shift, ShiftMonitor, ShiftWarning

__all__ = ["Segmentation", "Segmenter"]

_FINISHED = 4  # segmentations at full size that wait for the caller


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
    engine : {"keras", "auto", "openvino", "onnx"}
        What computes the probabilities. The others need `requirements-export.txt` and Keras on
        TensorFlow, take seconds to make, and give Keras' probabilities to 1e-4; see
        `unet_lib.inference.engines.make_engine`, also for what "auto" does.

    Raises
    ------
    ValueError
        The network's input does not fit the preprocessing, its output is not one probability for
        each pixel, or an unknown engine. Prediction raises ExportError where the engine cannot be
        used.
    """

    network: keras.Model
    preprocessing: Preprocessing
    threshold: float = 0.5
    cleaning: Cleaning = field(default_factory=Cleaning)
    about: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    monitor: ShiftMonitor | None = None
    engine: str = "keras"
    _ready: tuple[keras.Model, list[np.ndarray], Engine] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        keep_freed_memory()
        check_engine(self.engine)
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
        self._check_threshold()

    def _check_threshold(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"Segmenter: threshold must lie between 0 and 1; received {self.threshold!r}."
            )

    @property
    def engine_used(self) -> str:
        """Runtime and precision; with "auto" also the choice, once it was made."""
        return self._ready[2].description if self._ready else f"{self.engine}, float32"

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the lesion probabilities, float32 (H, W), of an image (H, W, 1) in [0, 1]."""
        prepared = self.preprocessing.apply(image)
        values = self._predict(self._runner(several=False), prepared.image[None])[0]
        return self.preprocessing.restore(values, prepared.geometry)

    def iter_probabilities(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the probabilities of each image in turn, holding a few batches at a time.

        The images are taken and prepared in one thread, the network works ahead in another.

        Parameters
        ----------
        images : iterable of ndarray, shape (H, W, 1)
            Any sizes, in [0, 1].

        Yields
        ------
        ndarray of float32, shape (H, W)
        """
        for _, values, geometry in self._iter_maps((None, image) for image in images):
            yield self.preprocessing.restore(values, geometry)

    def _iter_maps(
        self, items: Iterable[tuple[Any, np.ndarray]]
    ) -> Iterator[tuple[Any, np.ndarray, Geometry]]:
        """Yield with each image's companion the map at the network's size and the geometry."""
        # Threads of our own work on whole pictures; OpenCV's would only get in their way.
        cv2.setNumThreads(0)
        size = max(1, self.batch_size)
        prepared = ((item, self.preprocessing.apply(image)) for item, image in items)
        return ahead(self._maps(ahead(prepared, 2 * size), size), size)

    def _maps(
        self, prepared: Iterator[tuple[Any, Prepared]], size: int
    ) -> Iterator[tuple[Any, np.ndarray, Geometry]]:
        run = None
        while chunk := list(islice(prepared, size)):
            run = run or self._runner(several=len(chunk) > 1)
            batch = np.stack([ready.image for _, ready in chunk])
            for (item, ready), values in zip(chunk, self._predict(run, batch), strict=True):
                yield item, values, ready.geometry

    def _runner(self, several: bool) -> Callable[[np.ndarray], Any]:
        """Return what computes the maps of a batch, for the weights of this moment."""
        # One image alone is done before the folded network is built: half a second.
        if not several and self.engine == "keras":
            return self.network.predict_on_batch
        network, weights = self.network, self.network.get_weights()
        if (
            not self._ready
            or self._ready[0] is not network
            or not all(map(np.array_equal, self._ready[1], weights))
        ):
            engine = make_engine(network, self.preprocessing, self.engine, self.batch_size)
            self._ready = network, weights, engine
        return self._ready[2].run

    def _predict(self, run: Callable[[np.ndarray], Any], batch: np.ndarray) -> np.ndarray:
        channels = self.network.input_shape[-1]
        if channels > 1:
            batch = np.repeat(batch, channels, axis=-1)
        count = len(batch)
        # Two batch shapes only, 1 and full: a compiled backend makes a program for each.
        if 1 < count < self.batch_size:
            fill = np.zeros((self.batch_size - count, *batch.shape[1:]), batch.dtype)
            batch = np.concatenate([batch, fill])
        return np.asarray(run(batch))[:count, ..., 0].astype(np.float32, copy=False)

    def mask(self, probabilities: np.ndarray) -> np.ndarray:
        """Apply threshold and cleaning to probabilities (H, W); bool (H, W)."""
        self._check_threshold()  # it may have been set since
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
        """Segment every frame of many files.

        Reading, the network and what follows it work in a thread each, beside the caller's.

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
        items = ((item, item[2]) for item in _frames_of(paths))

        def found() -> Iterator[tuple[Path, Segmentation]]:
            for (path, frame, image), values, geometry in self._iter_maps(items):
                probabilities = self.preprocessing.restore(values, geometry)
                yield path, self._found(image, probabilities, frame)

        with bar:
            for path, segmentation in ahead(found(), _FINISHED):
                bar.update(segmentation.frame.number == segmentation.frame.count)
                yield path, segmentation

    def _found(
        self, image: np.ndarray, probabilities: np.ndarray, frame: Frame | None
    ) -> Segmentation:
        shift = self.monitor and self.monitor.measure(frame.pixels if frame else image)
        return Segmentation(image, probabilities, self.mask(probabilities), frame, shift)


def _frames_of(paths: Sequence[str | Path]) -> Iterator[tuple[Path, Frame, np.ndarray]]:
    for path in map(Path, paths):
        for frame in read_frames(path):
            yield path, frame, as_image(frame.pixels, path)
