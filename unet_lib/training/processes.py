"""One training on several processes and devices, by `keras.distribution` on JAX.

Every device holds all weights and computes its share of every batch; XLA adds up what belongs to
the whole batch: loss, gradients, the statistics of batch normalisation, running scores.

Keras' own way, `fit` under a `DataParallel`, gives all batches of an epoch the layout of the first
one, but here some batches have one image fewer, which the devices cannot share evenly. So the
variables are made under the distribution, and `fit` gets arrays that lie on all devices already: a
batch that cannot be shared (at most ``batch_size - 1`` an epoch) is computed whole by each.
Padding it would change the statistics of batch normalisation.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from unet_lib.batches import Batches
from unet_lib.training.recipe import TrainingConfig

__all__ = ["SharedBatches", "Team", "find_team", "join"]

START_SECONDS = 300
#: After these, a process that is silent (hung, or its machine is off) counts as lost. The end of a
#: process breaks its connections, which the others see at once.
SILENCE_SECONDS = 60


def join(address: str, index: int, count: int, *, one_machine: bool) -> None:
    """Make this process one of several that train together; before anything is computed.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` at which process 0 waits for the others.
    index, count : int
        Which process this is, and of how many.
    one_machine : bool
        All run on this machine: process k takes GPU k where there are GPUs, and the port is opened
        on loopback only. Otherwise a process takes all GPUs that it sees.

    Raises
    ------
    ValueError
        Keras does not run on JAX.
    """
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            f"--processes {count}: several processes need Keras on JAX; this is Keras on "
            f"{backend}. Install jax and set KERAS_BACKEND=jax, or leave --processes out."
        )
    sys.modules["jax"].distributed.initialize(
        address,
        count,
        index,
        local_device_ids=[index] if one_machine else None,
        cluster_detection_method="deactivate",
        coordinator_bind_address=address if one_machine else None,
        initialization_timeout=START_SECONDS,
        heartbeat_timeout_seconds=SILENCE_SECONDS,
        shutdown_timeout_seconds=SILENCE_SECONDS,
    )


def find_team() -> Team | None:
    """Return the devices that JAX shows where there are several, of one process or more."""
    if keras.backend.backend() != "jax" or sys.modules["jax"].device_count() == 1:
        return None
    return Team()


class Team:
    """The processes and devices that train one network.

    Attributes
    ----------
    index, count : int
        This process, from 0, and their number.
    devices : int
        Devices of all processes.
    """

    def __init__(self) -> None:
        self._jax = sys.modules["jax"]
        self.index, self.count = self._jax.process_index(), self._jax.process_count()
        self.devices = self._jax.device_count()
        self._distribution = keras.distribution.DataParallel(auto_shard_dataset=False)

    def scope(self) -> contextlib.AbstractContextManager:
        """Within it, variables are made on all devices."""
        return self._distribution.scope()

    def check(self, config: TrainingConfig) -> None:
        """Refuse batches that the devices cannot share.

        Raises
        ------
        ValueError
        """
        images = config.batch_size // config.accumulate
        if images % self.devices:
            raise ValueError(
                f"{self.devices} devices ({self.count} process(es)) cannot share {images} images "
                f"evenly (batch_size {config.batch_size} in {config.accumulate} part(s)). Take a "
                f"multiple of {self.devices}, fewer processes, or show JAX fewer devices "
                "(CUDA_VISIBLE_DEVICES)."
            )

    def place(self, arrays: Sequence[np.ndarray], *, shared: bool) -> tuple[Any, ...]:
        """Return arrays on all devices: of this process's share, or of what all processes hold."""
        layout = self._layout("batch") if shared else self._layout()
        put = self._jax.make_array_from_process_local_data
        return tuple(put(layout, array) for array in arrays)

    def _layout(self, *axes: str) -> Any:
        sharding = self._jax.sharding
        return sharding.NamedSharding(
            self._distribution.device_mesh.backend_mesh, sharding.PartitionSpec(*axes)
        )

    def share(self, data: bytes) -> bytes:
        """Return what the first process gave, in all of them; each must ask."""
        if self.count == 1:
            return data
        size = int.from_bytes(self._first(len(data).to_bytes(8, "little"), 8), "little")
        return self._first(data if self.index == 0 else bytes(size), size)

    def _first(self, data: bytes, size: int) -> bytes:
        if size == 0:
            return b""
        row = np.frombuffer(data, np.uint8)
        rows = np.repeat(row[None], self._jax.local_device_count(), axis=0)
        (everywhere,) = self.place([rows], shared=True)
        first = self._jax.jit(lambda x: x[0], out_shardings=self._layout())
        return np.asarray(first(everywhere)).tobytes()

    def agree(self, **facts: str) -> None:
        """Check that all processes train the same thing on the same data.

        Raises
        ------
        ValueError
            In each process that differs from the first; the message says in what.
        """
        first = json.loads(self.share(json.dumps(facts).encode()))
        differ = [name for name, fact in facts.items() if first[name] != fact]
        if differ:
            raise ValueError(
                f"process {self.index} of {self.count} has other {', '.join(differ)} than process "
                "0. Give all of them the same command, the same files and the same version of the "
                "library."
            )

    def leave(self) -> None:
        """End the work in common, in all processes; each can go on by itself."""
        if self.count > 1:
            self._jax.distributed.shutdown()


class SharedBatches(Batches):
    """Batches of which each process prepares its share alone.

    Parameters
    ----------
    prepared, batch_size, **options
        As of `Batches`; the batches are the same as those of one process.
    team : Team
    """

    def __init__(self, *arguments: Any, team: Team, **options: Any) -> None:
        self.team = team
        super().__init__(*arguments, **options)

    def _arrays(self, epoch: int, indices: np.ndarray, weight: float) -> tuple[Any, ...]:
        shared = len(indices) % self.team.devices == 0
        if shared:
            indices = np.split(indices, self.team.count)[self.team.index]
        return self.team.place(super()._arrays(epoch, indices, weight), shared=shared)
