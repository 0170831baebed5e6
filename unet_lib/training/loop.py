"""The epochs of a run: fit, validate the averaged weights, keep the best, save the state."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from unet_lib.backend import fit_input
from unet_lib.batches import Batches
from unet_lib.objectives import BinaryCrossentropyDice, LesionDice
from unet_lib.training.accumulation import AccumulatingAdamW, UpdateSchedule
from unet_lib.training.processes import Team
from unet_lib.training.recipe import TrainingConfig
from unet_lib.training.state import Progress, averaged_weights, load_state, save_state
from unet_lib.weights import save_weights_file

__all__ = ["TrainingError", "best_weights", "compile_network", "fit", "remove_weights"]

STATE, _BEST = "state.npz", "best{}.weights.h5"


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


def best_weights(folder: Path, progress: Progress) -> Path:
    """Return where the weights of the best epoch lie."""
    return folder / _BEST.format(progress.best_epoch)


def remove_weights(folder: Path, keep: Path | None = None) -> None:
    """Remove the weights of earlier best epochs."""
    for path in folder.glob(_BEST.format("*")):
        if path != keep:
            path.unlink()


def compile_network(network: keras.Model, config: TrainingConfig, steps: int) -> None:
    """Give the network its optimiser, loss and running scores.

    Parameters
    ----------
    network : keras.Model
    config : TrainingConfig
    steps : int
        Updates of the weights in an epoch.
    """
    total, warmup = config.epochs * steps, round(config.warmup_epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate / 100 if warmup else config.learning_rate,
        decay_steps=max(1, total - warmup),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    parts = config.accumulate
    optimizer = (AccumulatingAdamW if parts > 1 else keras.optimizers.AdamW)(
        UpdateSchedule(schedule, parts) if parts > 1 else schedule,
        weight_decay=config.weight_decay,
        gradient_accumulation_steps=parts if parts > 1 else None,
        use_ema=config.ema > 0,
        # In a short run an average over many steps would still hold the first, random weights.
        ema_momentum=max(0.0, min(config.ema, 1 - 20 / total)),
        ema_overwrite_frequency=None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    network.compile(
        optimizer,
        loss=BinaryCrossentropyDice(config.dice_weight),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), LesionDice()],
        # XLA makes TensorFlow's convolutions three times slower on a CPU.
        jit_compile="auto" if keras.backend.backend() != "tensorflow" else False,
    )
    optimizer.build(network.trainable_variables)


class _Epochs(keras.callbacks.Callback):
    """Order, validation, best weights, state and early stopping, epoch by epoch."""

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        batches: Batches,
        validation: Batches | None,
        config: TrainingConfig,
        bar: tqdm,
        team: Team | None,
    ) -> None:
        super().__init__()
        self.folder, self.progress, self.config = folder, progress, config
        self.team, self.writes = team, team is None or team.index == 0
        self.batches, self.bar = batches, bar
        self.validation = None if validation is None else fit_input(validation)
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.set_epoch(epoch)
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in epoch {self.progress.epochs + 1}, batch {batch + 1}. "
                "Use a smaller learning_rate (a third of it), or precision='float32' if a mixed "
                "precision was in use. The state of the last whole epoch is kept."
            )
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}}
        progress, network = self.progress, self.model
        with averaged_weights(network):
            if self.validation is not None:
                scores = network.evaluate(self.validation, verbose=0, return_dict=True)
                row |= {f"val_{key}": float(value) for key, value in scores.items()}
            # The loss, not the Dice at one threshold: on some 65 lesions that jumps by .03 from one
            # epoch to the next. Without validation images the last epoch is taken.
            loss = row.get("val_loss", 0.0)
            if self.validation is None or loss < progress.best_loss:
                progress.best_epoch, progress.best_loss = epoch + 1, loss
                if self.writes:
                    # Under its epoch's name: a process that is killed before the state is written
                    # goes on with the weights that its state speaks of.
                    save_weights_file(network, best_weights(self.folder, progress))
        row["learning_rate"] = float(network.optimizer.learning_rate)
        row["seconds"] = time.perf_counter() - self.started
        progress.history.append(row)
        waited = progress.epochs - progress.best_epoch
        stop = bool(self.config.patience) and waited >= self.config.patience
        progress.finished = stop or progress.epochs >= self.config.epochs
        if self.team:  # all stop at once, whatever they rounded
            progress.finished = bool(self.team.share(b"stop" if progress.finished else b""))
        network.stop_training = progress.finished
        if self.writes:
            save_state(self.folder / STATE, network, progress)
            remove_weights(self.folder, keep=best_weights(self.folder, progress))
        shown = f"epoch {progress.epochs}/{self.config.epochs}, loss {row['loss']:.3f}"
        if self.validation is not None:
            shown += (
                f", val loss {row['val_loss']:.3f} (best {progress.best_loss:.3f}), "
                f"val Dice {row['val_dice']:.3f}"
            )
        self.bar.set_postfix_str(shown)


def fit(
    network: keras.Model,
    batches: Batches,
    validation: Batches | None,
    config: TrainingConfig,
    folder: Path,
    *,
    show_progress: bool = True,
    team: Team | None = None,
) -> Progress:
    """Train a compiled network, going on from the folder's state where there is one.

    Parameters
    ----------
    network : keras.Model
        From `compile_network`; afterwards it holds the weights of the best epoch (with a team: of
        the last).
    batches : Batches
    validation : Batches or None
        Chooses the best epoch. None: there is nothing to choose on, the last epoch is taken.
    config : TrainingConfig
    folder : Path
        Gets ``state.npz`` after each epoch and ``best<epoch>.weights.h5`` after each better one.
    show_progress : bool
        Show a progress bar with the time left.
    team : Team, optional
        Network and batches are its own; the first process alone writes.

    Returns
    -------
    Progress

    Raises
    ------
    TrainingError
        The loss is not a number.
    ValueError
        The state belongs to other settings, or images were changed since.
    """
    progress = load_state(folder / STATE, network, team)
    data = _data_hashes(batches, validation)
    if not progress.epochs:
        progress.data = data
    changed = [name for name, found in progress.data.items() if data.get(name) != found]
    if changed:
        raise ValueError(
            f"{folder}: {len(changed)} images or masks are not what they were when this run was "
            f"begun, first {changed[0]!r}. Restore them, or train into another folder."
        )
    if not progress.finished:
        steps = len(batches)
        with tqdm(
            desc="training",
            total=config.epochs * steps,
            initial=progress.epochs * steps,
            disable=not show_progress,
            unit="step",
        ) as bar:
            network.fit(
                fit_input(batches),
                epochs=config.epochs,
                initial_epoch=progress.epochs,
                shuffle=False,
                verbose=0,
                callbacks=[_Epochs(folder, progress, batches, validation, config, bar, team)],
            )
    if team is None:
        network.load_weights(best_weights(folder, progress))
    return progress


def _data_hashes(batches: Batches, validation: Batches | None) -> dict[str, str]:
    """Return the hashes of image and mask by the name of the case."""
    return {
        case.name: image + mask
        for prepared in (part.prepared for part in (batches, validation) if part is not None)
        for case, image, mask in zip(
            prepared.cases, prepared.hashes, prepared.mask_hashes, strict=True
        )
    }
