"""Everything that decides a training run, JSON-able."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from unet_lib.augment import Augmentation
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning
from unet_lib.model import UNetConfig
from unet_lib.objectives import LOSSES
from unet_lib.settings import Settings


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """How the network is trained.

    Parameters
    ----------
    epochs : int
        Passes over the training images; 100 for real data.
    batch_size : int
        Images in an update of the weights.
    accumulate : int
        Parts in which a batch is computed, one after the other, when memory runs out: half the
        memory with 2. Must divide the batch size. Batch normalisation sees a part alone, and rate
        and average of the weights move with the parts instead of the batches.
    learning_rate : float
        Peak of AdamW's rate (Loshchilov & Hutter 2019, arXiv:1711.05101).
    warmup_epochs : float
        Epochs of linear rise to the peak, by default 3, but at most a fifth of all; a cosine falls
        to zero after it.
    weight_decay : float
        Of the kernels; biases and normalisation are left out.
    ema : float
        Momentum of the moving average of the weights that is validated and saved; the average
        never spans more than a twentieth of the run. 0 = no average.
    loss : str
        A name of `unet_lib.objectives.LOSSES`; ``"bce_dice"`` is cross-entropy plus Dice.
    dice_weight : float
        Weight of the Dice term of the loss; the cross-entropy has weight 1.
    take : {"best", "last"}
        Epoch that becomes the model: that of the lowest validation loss, or the last.
    patience : int
        Epochs without a lower validation loss after which training stops; 0 = never. Long,
        because much of the gain comes late, when the cosine has lowered the rate.
    precision : str
        ``"auto"`` (what the hardware is fastest with), or a Keras dtype policy.
    deterministic : bool
        Bit-for-bit repeatable, also across an interruption; slower on TensorFlow.
    seed : int
        Of initial weights, order, augmentation, dropout.
    workers : int
        Threads that prepare batches.
    memory_mb : float
        Budget for decoded images, in 10**6 bytes; beyond it they are kept on disk.
    repeat : str
        How often the images of a data set come in an epoch where several are joined:
        ``"BUSI=2,BUSBRA=1"``; once where it is not named.
    threshold, minimum_peak : float
        Of the model (`Segmenter`, `Cleaning`); threshold 0 is chosen on validation images, the
        cleaning where both are 0. A fold has so few that the choice costs more on another scanner
        than it brings (`experiments/README.md`).
    start_from : str
        Model whose weights the network starts from, as `load_segmenter` takes it; it must be the
        same network. Empty: random weights, or `UNetConfig.encoder_weights`.
    """

    epochs: int = 100
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup_epochs: float | None = None
    weight_decay: float = 1e-4
    ema: float = 0.99
    loss: str = "bce_dice"
    dice_weight: float = 1.0
    take: str = "best"
    patience: int = 60
    precision: str = "auto"
    deterministic: bool = False
    seed: int = 0
    workers: int = 2
    memory_mb: float = 1024.0
    start_from: str = ""
    repeat: str = ""
    threshold: float = 0.0
    minimum_peak: float = 0.0

    def __post_init__(self) -> None:
        self.check(
            epochs=(1, 100_000),
            batch_size=(1, 4096),
            accumulate=(1, 4096),
            learning_rate=(1e-9, 10),
            weight_decay=(0, 1),
            ema=(0, 0.99999),
            loss=list(LOSSES),
            dice_weight=(0, 1000),
            take=["best", "last"],
            patience=(0, 100_000),
            precision=["auto", "float32", "mixed_bfloat16", "mixed_float16"],
            seed=(0, 2**32 - 1),
            workers=(1, 256),
            memory_mb=(0, 1e9),
            threshold=(0, 0.99),
            minimum_peak=(0, 1),
        )
        if self.warmup_epochs is None:
            object.__setattr__(self, "warmup_epochs", min(3.0, self.epochs / 5))
        self.check(f" (epochs {self.epochs})", warmup_epochs=(0, self.epochs))
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"TrainingConfig: accumulate must divide batch_size ({self.batch_size}); "
                f"received {self.accumulate!r}."
            )

    def candidates(self) -> dict[str, Any]:
        """Return what `tune_threshold` chooses from; what is left out is not limited."""
        thresholds = {"thresholds": [self.threshold]} if self.threshold else {}
        if not (self.threshold or self.minimum_peak):
            return thresholds
        return thresholds | {"cleanings": [Cleaning(minimum_peak=self.minimum_peak)]}


@dataclass(frozen=True)
class Recipe(Settings):
    """Network, input, augmentation and training together."""

    network: UNetConfig = field(default_factory=UNetConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.network.output_channels != 1:
            raise ValueError(
                "Recipe: network.output_channels must be 1, the lesion, which is what masks hold; "
                f"received {self.network.output_channels}."
            )

    def changes(self) -> dict[str, dict[str, Any]]:
        """Return the settings that differ from the default, by part."""
        default = Recipe().to_dict()
        return {
            part: {name: value for name, value in settings.items() if value != default[part][name]}
            for part, settings in self.to_dict().items()
        }

    def but(self, *changes: str) -> Self:
        """Return the recipe with single settings changed, each ``PART.NAME=VALUE``.

        The value is JSON, or a word without quotation marks: ``"training.epochs=30"``,
        ``"preprocessing.keep_aspect=false"``, ``"network.encoder=EfficientNetLite0"``.
        """
        values = self.changes()
        change_settings(values, changes)
        return self.from_dict(values)


def change_settings(values: dict[str, dict[str, Any]], changes: Iterable[str]) -> None:
    """Put single settings, as `Recipe.but` takes them, into a recipe's dictionary."""
    for change in changes:
        name, equals, text = change.partition("=")
        part, dot, setting = name.partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {change}: expected PART.SETTING=VALUE.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        values.setdefault(part, {})[setting] = value


RECIPES = {
    "plain": Recipe(),
    "pretrained": Recipe(
        UNetConfig(filters=8, depth=5, encoder="EfficientNetLite0", encoder_weights="imagenet"),
        Preprocessing(size=128, keep_aspect=True),
        Augmentation(
            scale=0.4,
            shift=0.12,
            elastic=0.03,
            brightness=0.25,
            contrast=0.5,
            gamma=0.7,
            attenuation=0.4,
            shadow=0.4,
            speckle=0.15,
            blur=0.015,
        ),
        TrainingConfig(
            epochs=30, take="last", precision="float32", threshold=0.5, minimum_peak=0.9
        ),
    ),
}
"""Recipes by name: the default, and that of the shipped models (`experiments/README.md`)."""
