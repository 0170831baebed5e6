"""Everything that decides a training run, JSON-able."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from unet_lib.augment import Augmentation
from unet_lib.images import Preprocessing
from unet_lib.model import UNetConfig
from unet_lib.settings import Settings

__all__ = ["Recipe", "TrainingConfig"]


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
        memory with 2. Must divide the batch size. Everything is counted in updates and comes out as
        with 1, except that batch normalisation sees the images of a part alone.
    learning_rate : float
        Peak of AdamW's rate (Loshchilov & Hutter 2019, arXiv:1711.05101).
    warmup_epochs : float
        Epochs of linear rise to the peak; a cosine falls to zero after it.
    weight_decay : float
        Of the kernels; biases and normalisation are left out.
    ema : float
        Momentum of the moving average of the weights that is validated and saved; the average
        never spans more than a twentieth of the run. 0 = no average.
    dice_weight : float
        Weight of the Dice term of the loss; the cross-entropy has weight 1.
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
    start_from : str
        Model whose weights the network starts from, as `load_segmenter` takes it; it must be the
        same network. Empty: random weights, or `UNetConfig.encoder_weights`.
    """

    epochs: int = 100
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup_epochs: float = 3.0
    weight_decay: float = 1e-4
    ema: float = 0.99
    dice_weight: float = 1.0
    patience: int = 60
    precision: str = "auto"
    deterministic: bool = False
    seed: int = 0
    workers: int = 2
    memory_mb: float = 1024.0
    start_from: str = ""

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, 100_000),
            "batch_size": (1, 4096),
            "accumulate": (1, self.batch_size),
            "learning_rate": (1e-9, 10),
            "warmup_epochs": (0, self.epochs),
            "weight_decay": (0, 1),
            "ema": (0, 0.99999),
            "dice_weight": (0, 1000),
            "patience": (0, 100_000),
            "seed": (0, 2**32 - 1),
            "workers": (1, 256),
            "memory_mb": (0, 1e9),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(
                    f"TrainingConfig: {name} must be from {low:g} to {high:g}; received {value!r}."
                )
        if not isinstance(self.accumulate, int) or self.batch_size % self.accumulate:
            raise ValueError(
                f"TrainingConfig: accumulate must divide batch_size ({self.batch_size}); "
                f"received {self.accumulate!r}."
            )
        if not isinstance(self.start_from, str):
            raise ValueError(
                "TrainingConfig: start_from must be the name or folder of a model; received "
                f"{self.start_from!r}."
            )
        policies = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
        if self.precision not in policies:
            raise ValueError(
                f"TrainingConfig: precision must be one of {', '.join(policies)}; "
                f"received {self.precision!r}."
            )


@dataclass(frozen=True)
class Recipe(Settings):
    """Network, input, augmentation and training together."""

    network: UNetConfig = field(default_factory=UNetConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the recipe from nested dictionaries, refusing unknown keys at each level."""
        parts = {
            "network": UNetConfig,
            "preprocessing": Preprocessing,
            "augmentation": Augmentation,
            "training": TrainingConfig,
        }
        if not isinstance(values, Mapping):
            return super().from_dict(values)  # which refuses it
        built = {
            key: parts[key].from_dict(value) if key in parts else value
            for key, value in values.items()
        }
        return super().from_dict(built)
