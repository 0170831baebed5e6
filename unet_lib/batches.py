"""Reproducible batches: every case decoded once, augmented anew in every epoch."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from unet_lib.augment import Augmentation
from unet_lib.dataset import Case, content_hash, load_case
from unet_lib.files import write_errors
from unet_lib.images import Preprocessing, oddity_of


class PreparedCases:
    """Cases at the network's size, decoded once and kept.

    Beyond `memory_mb` (10**6 bytes) they lie in a temporary file without a name (`TMPDIR`), which
    goes with the process. `hashes` are those of the images as read, `fingerprints` those of
    image and mask by the case's name; `lesions` says which cases have any.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        preprocessing: Preprocessing,
        *,
        memory_mb: float = 1024,
        workers: int = 2,
        progress: bool = False,
    ) -> None:
        if not cases:
            raise ValueError("PreparedCases: received no cases; expected at least one.")
        self.cases = tuple(cases)
        self.preprocessing = preprocessing
        self._pixels = preprocessing.size**2
        size_mb = len(self.cases) * self._pixels * 5e-6  # 4 bytes image, 1 byte mask
        self.on_disk = size_mb > memory_mb
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if self.on_disk:
            self._where = f"{tempfile.gettempdir()}, decoded images of {size_mb:.0f} MB"
            self._one_at_a_time = threading.Lock()
            with write_errors(self._where):
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
        with ThreadPoolExecutor(max(1, workers)) as pool:
            decoded = pool.map(self._decode, range(len(self.cases)))
            bar = tqdm(decoded, "reading", len(self.cases), disable=not progress, unit="image")
            self.hashes, masks, self.lesions, odd = zip(*bar, strict=True)
        both = zip(self.cases, self.hashes, masks, strict=True)
        self.fingerprints = {case.name: image + mask for case, image, mask in both}
        much = [f"{c.name} {text}" for c, text in zip(self.cases, odd, strict=True) if text]
        if much:
            warnings.warn(
                f"{len(much)} masks are odd, first: {min(much)}. Are they negatives, outlines? The "
                "command check lists them.",
                stacklevel=2,
            )

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image and mask at a position, which must not be changed."""
        if not self.on_disk:
            return self._kept[index]
        # Read and not mapped: of mapped files the system puts far more into this process's memory
        # than was asked for.
        with self._one_at_a_time:
            self._file.seek(index * 5 * self._pixels)
            data = self._file.read(5 * self._pixels)
        image = np.frombuffer(data, np.float32, self._pixels)
        mask = np.frombuffer(data, bool, offset=image.nbytes)
        side = self.preprocessing.size
        return image.reshape(side, side, 1), mask.reshape(side, side)

    def _decode(self, index: int) -> tuple[str, str, bool, str]:
        """Keep a case at the network's size; return hashes, whether a lesion, what is odd of it."""
        image, mask = load_case(self.cases[index])
        prepared = self.preprocessing.apply(image, mask)
        if self.on_disk:
            with self._one_at_a_time, write_errors(self._where):
                self._file.seek(index * 5 * self._pixels)
                self._file.write(prepared.image.tobytes() + prepared.mask.tobytes())
                self._file.flush()
        else:
            self._kept[index] = prepared.image, prepared.mask
        hashes = content_hash(image), content_hash(mask[..., None])
        return *hashes, bool(mask.any()), oddity_of(mask)

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.cases)


class Batches(keras.utils.PyDataset):
    """Batches for `fit` and `evaluate`: the same ones for any number of workers and backend.

    What a case looks like in an epoch is drawn from ``default_rng([seed, epoch, index])``, its
    place from ``default_rng([seed, epoch])``. Keras does not say which epoch it asks for, so the
    training loop calls `set_epoch` at the start of each. The images are spread evenly, so some
    batches have one fewer than `batch_size`. With `accumulate` above 1 each item is a part of a
    batch, with weights that make the mean of its parts the mean of its images. `order` gives the
    positions of the cases in an epoch, where some come more than once.
    """

    def __init__(
        self,
        prepared: PreparedCases,
        batch_size: int = 8,
        *,
        augmentation: Augmentation | None = None,
        shuffle: bool = False,
        seed: int = 0,
        channels: int = 1,
        workers: int = 2,
        accumulate: int = 1,
        order: Sequence[int] | None = None,
    ) -> None:
        # Keras' own worker threads run ahead into the next epoch, on JAX before `set_epoch`; these
        # threads work on one batch at a time, and Keras still overlaps it with the step.
        super().__init__(workers=1, use_multiprocessing=False)
        self._pool = ThreadPoolExecutor(max(1, workers))
        self.prepared = prepared
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.shuffle = shuffle
        self.seed = seed
        self.channels = channels
        self.accumulate = accumulate
        self._order = range(len(prepared)) if order is None else order
        self.set_epoch(0)

    @property
    def updates(self) -> int:
        """Batches in an epoch, however many parts each has: updates of the weights."""
        return -(-len(self._order) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches are asked for next; the first is 0."""
        order = np.arange(len(self._order))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        batches = np.array_split(order, self.updates)
        parts = [part for batch in batches for part in _parts(batch, self.accumulate)]
        # One assignment, so that a worker thread never sees the one without the other.
        self._plan = (epoch, parts)

    def __len__(self) -> int:
        """Return the number of batches in an epoch, or of their parts."""
        return self.updates * self.accumulate

    def __getitem__(self, batch: int) -> tuple[Any, ...]:
        """Return images, masks and, of a part, weights; (n, S, S, channels), (n, S, S, 1), (n,)."""
        epoch, parts = self._plan
        return self._arrays(epoch, *parts[batch])

    def _arrays(self, epoch: int, indices: np.ndarray, weight: float) -> tuple[Any, ...]:
        pairs = list(self._pool.map(lambda index: self._pair(epoch, int(index)), indices))
        images = np.stack([image for image, _ in pairs])
        if self.channels > 1:
            images = np.repeat(images, self.channels, axis=-1)
        masks = np.stack([mask for _, mask in pairs])[..., None].astype(np.float32)
        if self.accumulate == 1:
            return images, masks
        return images, masks, np.full(len(indices), weight, np.float32)

    def _pair(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.prepared.pair(self._order[index])
        if self.augmentation is None:
            return image, mask
        rng = np.random.default_rng([self.seed, epoch, index])
        return self.augmentation.apply(image, mask, rng)


def _parts(batch: np.ndarray, count: int) -> list[tuple[np.ndarray, float]]:
    """Cut a batch into parts, each with the weight of its images."""
    parts = [(part, count * len(part) / len(batch)) for part in np.array_split(batch, count)]
    # Fewer images than parts: the optimiser counts parts, so the empty ones repeat an image for
    # nothing.
    return [(part, weight) if len(part) else (batch[:1], 0.0) for part, weight in parts]
