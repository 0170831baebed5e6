"""One training on several devices and processes, by `keras.distribution` on JAX.

Every device holds all weights and computes its share of every batch; XLA adds up what belongs to
the whole batch: loss, gradients, the statistics of batch normalisation, running scores.

Keras' own way, `fit` under a `DataParallel`, gives all batches of an epoch the layout of the first
one, but here some batches have one image fewer, which the devices cannot share evenly. So the
variables are made under the distribution, and `fit` gets arrays that lie on all devices already: a
batch that cannot be shared (at most ``batch_size - 1`` an epoch) is computed whole by each.
Padding it would change the statistics of batch normalisation.

With one device, and on other backends, all of this does nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from unet_lib.batches import Batches
from unet_lib.training.recipe import TrainingConfig, TrainingError

_VARIABLES = [
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
]


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that train together, as ``KERAS_DISTRIBUTION_...`` tell.

    An error ends this process at once after its message: JAX would wait at its exit for processes
    that are gone. Those that wait for this one see their connection break.
    """
    backend = keras.backend.backend()
    missing = [name for name in _VARIABLES if name not in os.environ]
    if backend != "jax" or missing:
        raise ValueError(
            f"--distributed: several processes need Keras on JAX (this is Keras on {backend}: "
            f"install jax, set KERAS_BACKEND=jax) and {', '.join(_VARIABLES)}: the address of "
            "process 0 (HOST:PORT), the number of processes, and its own number from 0. Not set: "
            f"{', '.join(missing) or 'none'}."
        )
    keras.distribution.initialize()
    try:
        yield
    except BaseException as error:
        atexit.register(_exit_at_once, 130 if isinstance(error, KeyboardInterrupt) else 1)
        if not re.search("gloo|nccl|coordination", str(error), re.IGNORECASE):
            raise
        raise TrainingError(
            f"this process lost its connection to another one ({str(error).splitlines()[0]}), "
            "whose own terminal tells more. The same command with --resume goes on after the last "
            "whole epoch, with any number of processes."
        ) from error


def _exit_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _jax() -> Any:
    """Return JAX where it shows several devices, else None."""
    jax = sys.modules["jax"] if keras.backend.backend() == "jax" else None
    return jax if jax and jax.device_count() > 1 else None


@functools.cache
def _distribution() -> keras.distribution.DataParallel:
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def is_first() -> bool:
    """Whether this process has the run folder."""
    jax = _jax()
    return jax is None or jax.process_index() == 0


def scope() -> contextlib.AbstractContextManager:
    """Return a context in which variables are made on all devices."""
    return _distribution().scope() if _jax() else contextlib.nullcontext()


def place(arrays: Sequence[np.ndarray], *, shared: bool = False) -> Sequence[Any]:
    """Put arrays on all devices: what every process has, or of each its share of a batch."""
    jax = _jax()
    if jax is None:
        return arrays
    mesh = _distribution().device_mesh.backend_mesh
    spec = jax.sharding.PartitionSpec("batch") if shared else jax.sharding.PartitionSpec()
    layout = jax.sharding.NamedSharding(mesh, spec)
    return tuple(jax.make_array_from_process_local_data(layout, array) for array in arrays)


def share(data: bytes) -> bytes:
    """Return what the first process gave, in all of them; each must ask."""
    jax = _jax()
    if jax is None or jax.process_count() == 1:
        return data
    send = importlib.import_module("jax.experimental.multihost_utils").broadcast_one_to_all
    size = int(send(np.uint32(len(data))))
    own = np.frombuffer(data[:size].ljust(size, b"\0"), np.uint8)
    return send(own).tobytes() if size else b""


def leave() -> None:
    """End the work in common, in all processes; each can go on by itself."""
    jax = _jax()
    if jax and jax.process_count() > 1:
        jax.distributed.shutdown()


def check(config: TrainingConfig) -> None:
    """Refuse batches that the devices cannot share."""
    jax, images = _jax(), config.batch_size // config.accumulate
    if jax and images % jax.device_count():
        count = jax.device_count()
        raise ValueError(
            f"{count} devices ({jax.process_count()} process(es)) cannot share {images} images "
            f"evenly (batch_size {config.batch_size} in {config.accumulate} part(s)). Take a "
            f"multiple of {count}, fewer processes, or show JAX fewer devices "
            "(CUDA_VISIBLE_DEVICES)."
        )


def agree(**parts: str) -> None:
    """Refuse, in each process that differs from the first, other settings or other data."""
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in parts.values()]
    first = share(" ".join(digests).encode()).decode().split()
    differ = [n for n, own, other in zip(parts, digests, first, strict=True) if own != other]
    if differ:
        raise ValueError(
            f"process {_jax().process_index()} has other {', '.join(differ)} than process 0. Give "
            "all of them the same command, the same files and the same version of the library."
        )


class SharedBatches(Batches):
    """Batches of which each process prepares its share alone; the same ones as those of one."""

    def _arrays(self, epoch: int, indices: np.ndarray, weight: float) -> Sequence[Any]:
        jax = _jax()
        shared = jax is not None and len(indices) % jax.device_count() == 0
        if shared:
            indices = np.split(indices, jax.process_count())[jax.process_index()]
        return place(super()._arrays(epoch, indices, weight), shared=shared)
