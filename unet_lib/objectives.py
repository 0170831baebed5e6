"""What the optimiser sees: losses by name, and the running score shown while training.

The scores that are reported come from `unet_lib.metrics`, not from here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import ops


def bce_dice(y_true: Any, y_pred: Any, dice_weight: float = 1.0) -> Any:
    """Return pixel-wise binary cross-entropy plus a smoothed Dice loss.

    The cross-entropy teaches "nothing here" on images without a lesion, where the Dice term is
    nearly flat; the Dice term (Milletari et al. 2016, doi:10.1109/3DV.2016.79) weighs small
    lesions like large ones. One pixel is added to its numerator and denominator, so that an empty
    mask has a defined loss.
    """
    y_pred, y_true = ops.cast(y_pred, "float32"), ops.cast(y_true, "float32")
    axes = (1, 2, 3)
    entropy = ops.mean(ops.binary_crossentropy(y_true, y_pred), axis=axes)
    overlap = ops.sum(y_true * y_pred, axis=axes)
    total = ops.sum(y_true, axis=axes) + ops.sum(y_pred, axis=axes)
    return entropy + dice_weight * (1.0 - (2.0 * overlap + 1.0) / (total + 1.0))


LOSSES: dict[str, Callable[..., Any]] = {"bce_dice": bce_dice}
"""By the name in `TrainingConfig.loss`: functions of masks and probabilities, (N, H, W, 1) in
[0, 1], and of `dice_weight` where they know it, that return the loss of each image, (N,)."""


def make_loss(name: str, dice_weight: float = 1.0) -> Callable[[Any, Any], Any]:
    """Return a loss of `LOSSES` for `keras.Model.compile`."""
    loss = LOSSES[name]
    if "dice_weight" in inspect.signature(loss).parameters:
        return partial(loss, dice_weight=dice_weight)
    if dice_weight != 1.0:
        raise ValueError(
            f"loss {name!r} has no dice_weight; leave it at 1, received {dice_weight}."
        )
    return loss


class LesionDice(keras.metrics.Metric):
    """Mean Dice, at the network's resolution, of the images that have a lesion; missed = 0."""

    def __init__(self, threshold: float = 0.5, name: str = "dice", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.threshold = threshold
        self.total = self.add_variable((), initializer="zeros", name="total")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch (N, H, W, C)."""
        truth = ops.cast(y_true > 0.5, self.dtype)
        prediction = ops.cast(ops.cast(y_pred, self.dtype) >= self.threshold, self.dtype)
        axes = (1, 2, 3)
        lesion = ops.sum(truth, axis=axes)
        has_lesion = ops.cast(lesion > 0, self.dtype)
        total = lesion + ops.sum(prediction, axis=axes)
        dice = 2.0 * ops.sum(truth * prediction, axis=axes) / ops.maximum(total, 1.0)
        self.total.assign_add(ops.sum(dice * has_lesion))
        self.count.assign_add(ops.sum(has_lesion))

    def result(self) -> Any:
        """Return the mean so far; 0 before the first lesion."""
        return self.total / ops.maximum(self.count, 1.0)
