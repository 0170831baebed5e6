"""What a run needs to go on after an interruption, in one file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unet_lib.files import atomic_path
from unet_lib.training.processes import Team

__all__ = ["Progress", "averaged_weights", "load_state", "save_state"]


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    history : list of dict
        One row a finished epoch.
    best_epoch : int
        Epoch (from 1) with the lowest validation loss so far; 0 before the first.
    best_loss : float
        That loss.
    finished : bool
        All epochs done, or stopped early.
    data : dict of str to str
        Hashes of the images and masks that the run was begun with, by the name of the case.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    finished: bool = False
    data: dict[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.history)


def _variables(network: keras.Model) -> list[Any]:
    # Of the network: weights, moving statistics and dropout's seeds; of the optimiser: step,
    # moments and the moving average of the weights. Keras' own weights files lack the seeds.
    return [*network.variables, *network.optimizer.variables]


def save_state(path: Path, network: keras.Model, progress: Progress) -> None:
    """Write all variables and the progress, whole or not at all.

    Parameters
    ----------
    path : Path
        Ends with ``.npz``.
    network : keras.Model
        Compiled and built, with the weights as trained (not their average).
    progress : Progress
    """
    arrays = {
        f"v{i}": keras.ops.convert_to_numpy(variable.value)
        for i, variable in enumerate(_variables(network))
    }
    with atomic_path(path) as temporary:
        np.savez(temporary, progress=json.dumps(vars(progress)), **arrays)


def load_state(path: Path, network: keras.Model, team: Team | None = None) -> Progress:
    """Put the variables back and return the progress; a new one where there is no state yet.

    Parameters
    ----------
    path : Path
        Read by the first process alone, which tells the others.
    network : keras.Model
        Compiled and built as when the state was saved.
    team : Team, optional
        All of its processes must call.

    Raises
    ------
    ValueError
        The file is unreadable or belongs to another network or optimiser.
    """
    variables = _variables(network)
    mine = path.read_bytes() if (team is None or team.index == 0) and path.exists() else b""
    found = team.share(mine) if team else mine
    if not found:
        return Progress()
    try:
        with np.load(io.BytesIO(found), allow_pickle=False) as stored:
            progress = json.loads(str(stored["progress"]))
            arrays = [stored[f"v{i}"] for i in range(len(stored.files) - 1)]
    except (
        Exception
    ) as error:  # zipfile, KeyError, ValueError, OSError: whatever a damaged file gives
        raise ValueError(
            f"{path}: the state of the run cannot be read ({error}). Delete the run folder and "
            "train again."
        ) from error
    shapes = [tuple(v.shape) for v in variables]
    if [a.shape for a in arrays] != shapes:
        raise ValueError(
            f"{path}: holds {len(arrays)} arrays of another network or optimiser; expected "
            f"{len(shapes)}. Resume with the settings that the run was started with."
        )
    if team:
        arrays = team.place(arrays, shared=False)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return Progress(**progress)


@contextmanager
def averaged_weights(network: keras.Model) -> Iterator[None]:
    """Give the network the moving average of its weights, and the trained ones back exactly.

    `keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which rounds: a run that
    was resumed would differ from one that was not.
    """
    trained = [keras.ops.copy(v.value) for v in network.trainable_variables]
    if network.optimizer.use_ema:
        network.optimizer.finalize_variable_values(network.trainable_variables)
        # On JAX the weights now share their arrays with the average, which `evaluate` would donate.
        for variable in network.trainable_variables:
            variable.assign(keras.ops.copy(variable.value))
    try:
        yield
    finally:
        for variable, value in zip(network.trainable_variables, trained, strict=True):
            variable.assign(value)
