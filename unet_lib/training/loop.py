"""The epochs of a run: fit, validate the averaged weights, keep the best, save the state."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from tqdm import tqdm

from unet_lib.backend import AdamW, fit_input
from unet_lib.batches import Batches
from unet_lib.files import atomic_path
from unet_lib.objectives import LesionDice, make_loss
from unet_lib.training import distributed
from unet_lib.training.recipe import TrainingConfig, TrainingError
from unet_lib.weights import save_weights_file

STATE, _BEST = "state.npz", "best{}.weights.h5"
_ADVICE = (
    "Use a smaller learning_rate (a third of it), or precision='float32' if a mixed precision was "
    "in use"
)


@dataclass
class Progress:
    """How far a run has come."""

    history: list[dict[str, float]] = field(default_factory=list)  # a row for each finished epoch
    best_epoch: int = 0  # from 1; 0 before the first with a finite validation loss
    best_loss: float = math.inf
    finished: bool = False
    data: dict[str, str] = field(default_factory=dict)  # hashes of image and mask by case

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.history)

    def best_weights(self, folder: Path) -> Path:
        """Return where the weights of the best epoch lie."""
        return folder / _BEST.format(self.best_epoch)


def remove_weights(folder: Path, keep: Path | None = None) -> None:
    """Remove the weights of earlier best epochs."""
    for path in folder.glob(_BEST.format("*")):
        if path != keep:
            path.unlink()


def compile_network(network: keras.Model, config: TrainingConfig, updates: int) -> None:
    """Give the network its optimiser, loss and running scores, for `updates` in an epoch."""
    total, warmup = config.epochs * updates, round(config.warmup_epochs * updates)
    # Keras counts the parts of batches: the rate is stretched over them, and the average moves by
    # a root of its momentum with each.
    parts = config.accumulate
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate / 100 if warmup else config.learning_rate,
        decay_steps=max(1, total - warmup) * parts,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup * parts,
    )
    optimizer = AdamW(
        schedule,
        weight_decay=config.weight_decay,
        gradient_accumulation_steps=parts if parts > 1 else None,
        use_ema=config.ema > 0,
        # In a short run an average over many steps would still hold the first, random weights.
        ema_momentum=max(0.0, min(config.ema, 1 - 20 / total)) ** (1 / parts),
        ema_overwrite_frequency=None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    network.compile(
        optimizer,
        loss=make_loss(config.loss, config.dice_weight),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), LesionDice()],
        # XLA makes TensorFlow's convolutions three times slower on a CPU.
        jit_compile="auto" if keras.backend.backend() != "tensorflow" else False,
    )
    network.optimizer.build(network.trainable_variables)


def _variables(network: keras.Model) -> list[Any]:
    # Of the network: weights, moving statistics and dropout's seeds; of the optimiser: step,
    # moments and the moving average of the weights. Keras' own weights files lack the seeds.
    return [*network.variables, *network.optimizer.variables]


def save_state(path: Path, network: keras.Model, progress: Progress) -> None:
    """Write all variables, not averaged, and the progress, whole or not at all."""
    values = enumerate(keras.ops.convert_to_numpy(v.value) for v in _variables(network))
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            progress=json.dumps(vars(progress)),
            **{f"v{i}": value for i, value in values},
        )


def load_state(path: Path, network: keras.Model) -> Progress:
    """Put the variables back and return the progress; a new one where there is no state yet."""
    variables = _variables(network)
    content = distributed.share(path.read_bytes() if path.exists() else b"")
    if not content:
        return Progress()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            progress = Progress(**json.loads(str(stored["progress"])))
            arrays = [stored[f"v{i}"] for i in range(len(stored.files) - 1)]
    except Exception as error:  # whatever a damaged file gives: BadZipFile, KeyError, OSError, ...
        raise ValueError(
            f"{path}: the state of the run cannot be read ({error}). Delete the run folder and "
            "train again."
        ) from error
    if [a.shape for a in arrays] != [tuple(v.shape) for v in variables]:
        raise ValueError(
            f"{path}: holds {len(arrays)} arrays of another network or optimiser; expected "
            f"{len(variables)}. Resume with the settings that the run was started with."
        )
    for variable, array in zip(variables, distributed.place(arrays), strict=True):
        variable.assign(array)
    return progress


@contextmanager
def averaged_weights(network: keras.Model) -> Iterator[None]:
    """Give the network the moving average of its weights, and the trained ones back exactly.

    `keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which rounds: a run that
    was resumed would differ from one that was not.
    """
    weights = network.trainable_variables
    trained = [keras.ops.copy(weight.value) for weight in weights]
    # With float16 the optimiser is wrapped in one that scales the loss and has no average itself.
    optimizer = getattr(network.optimizer, "inner_optimizer", network.optimizer)
    if optimizer.use_ema:
        optimizer.finalize_variable_values(weights)
        # On JAX the weights now share their arrays with the average, which `evaluate` would donate.
        for weight in weights:
            weight.assign(keras.ops.copy(weight.value))
    try:
        yield
    finally:
        for weight, value in zip(weights, trained, strict=True):
            weight.assign(value)


@dataclass(eq=False)
class _Epochs(keras.callbacks.Callback):
    """Order, validation, best weights, state and early stopping, epoch by epoch."""

    folder: Path
    progress: Progress
    batches: Batches
    validation: Any  # of `fit_input`, or None
    config: TrainingConfig
    bar: tqdm

    def __post_init__(self) -> None:
        super().__init__()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.set_epoch(epoch)
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in epoch {self.progress.epochs + 1}, batch {batch + 1}. "
                f"{_ADVICE}. The state of the last whole epoch is kept."
            )
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        progress, network, config = self.progress, self.model, self.config
        scores = {key: float(value) for key, value in logs.items()}
        with averaged_weights(network):
            if self.validation is not None:
                of_validation = network.evaluate(self.validation, verbose=0, return_dict=True)
                scores |= {f"val_{key}": float(value) for key, value in of_validation.items()}
            # The loss, not the Dice at one threshold: on some 65 lesions that jumps by .03 from one
            # epoch to the next. Without validation images the last epoch is taken.
            loss = scores.get("val_loss", 0.0)
            last = self.validation is None or config.take == "last"
            if last or loss < progress.best_loss:
                progress.best_epoch, progress.best_loss = epoch + 1, loss
                if distributed.is_first():
                    # Under its epoch's name: a process that is killed before the state is written
                    # goes on with the weights that its state speaks of.
                    save_weights_file(network, progress.best_weights(self.folder))
        scores["learning_rate"] = float(network.optimizer.learning_rate)
        scores["seconds"] = time.perf_counter() - self.started
        progress.history.append({"epoch": epoch + 1, **scores})
        logs.update(scores)  # the callbacks after this one get them too
        waited = progress.epochs - progress.best_epoch
        stop = 0 < config.patience <= waited or progress.epochs >= config.epochs
        # All processes stop at once, whatever they rounded.
        progress.finished = bool(distributed.share(b"stop" if stop else b""))
        network.stop_training = progress.finished
        if distributed.is_first():
            save_state(self.folder / STATE, network, progress)
            remove_weights(self.folder, keep=progress.best_weights(self.folder))
        shown = f"epoch {progress.epochs}/{config.epochs}, loss {scores['loss']:.3f}"
        if self.validation is not None:
            shown += f", val loss {loss:.3f} (best {progress.best_loss:.3f})"
            shown += f", val Dice {scores['val_dice']:.3f}"
        self.bar.set_postfix_str(shown)


def fit(
    network: keras.Model,
    batches: Batches,
    validation: Batches | None,
    config: TrainingConfig,
    folder: Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    show_progress: bool = True,
) -> Progress:
    """Train a compiled network, going on from the folder's state where there is one.

    The folder gets ``state.npz`` after each epoch and ``best<epoch>.weights.h5`` after each better
    one (without validation: after each); the network has the weights of the last epoch.
    """
    progress = load_state(folder / STATE, network)
    now = batches.prepared.fingerprints
    if validation is not None:
        now |= validation.prepared.fingerprints
    if not progress.epochs:
        progress.data = now
    changed = [name for name, value in progress.data.items() if now.get(name) != value]
    if changed:
        raise ValueError(
            f"{folder}: {len(changed)} images or masks are not what they were when this run was "
            f"begun, first {changed[0]!r}. Restore them, or train into another folder."
        )
    if not progress.finished:
        steps = len(batches)
        bar = tqdm(
            desc="training",
            total=config.epochs * steps,
            initial=progress.epochs * steps,
            disable=not show_progress,
            unit="step",
        )
        validated = fit_input(validation) if validation is not None else None
        epochs = _Epochs(folder, progress, batches, validated, config, bar)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(0)  # our threads work on whole pictures; OpenCV's would be in their way
        try:
            with bar:
                network.fit(
                    fit_input(batches),
                    epochs=config.epochs,
                    initial_epoch=progress.epochs,
                    shuffle=False,
                    verbose=0,
                    callbacks=[epochs, *callbacks],
                )
        finally:
            cv2.setNumThreads(threads)
    if not math.isfinite(progress.best_loss):
        raise TrainingError(
            f"The validation loss was {progress.history[-1]['val_loss']} after epoch "
            f"{progress.epochs}, and there is no epoch to take. {_ADVICE}; train into another "
            "folder."
        )
    return progress
