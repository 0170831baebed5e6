"""What the optimiser sees: the loss, and the running score shown while training.

The scores that are reported come from `unet_lib.metrics`, not from here.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["BinaryCrossentropyDice", "LesionDice"]


@keras.saving.register_keras_serializable(package="unet_lib")
class BinaryCrossentropyDice(keras.losses.Loss):
    """Pixel-wise binary cross-entropy plus a smoothed Dice loss of each image.

    The cross-entropy teaches "nothing here" on images without a lesion, where the Dice term is
    nearly flat; the Dice term (Milletari et al. 2016, doi:10.1109/3DV.2016.79) weighs small
    lesions like large ones.

    Parameters
    ----------
    dice_weight : float
        Weight of the Dice term; the cross-entropy has weight 1.
    smooth : float
        Pixels added to numerator and denominator, so that an empty mask has a defined loss.
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        smooth: float = 1.0,
        name: str = "bce_dice",
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.dice_weight = dice_weight
        self.smooth = smooth

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, shape (N,), for inputs (N, H, W, C) in [0, 1]."""
        y_pred = ops.cast(y_pred, "float32")
        y_true = ops.cast(y_true, "float32")
        axes = (1, 2, 3)
        entropy = ops.mean(ops.binary_crossentropy(y_true, y_pred), axis=axes)
        overlap = ops.sum(y_true * y_pred, axis=axes)
        total = ops.sum(y_true, axis=axes) + ops.sum(y_pred, axis=axes)
        dice = 1.0 - (2.0 * overlap + self.smooth) / (total + self.smooth)
        return entropy + self.dice_weight * dice

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {
            **super().get_config(),
            "dice_weight": self.dice_weight,
            "smooth": self.smooth,
        }


@keras.saving.register_keras_serializable(package="unet_lib")
class LesionDice(keras.metrics.Metric):
    """Mean Dice of the images that have a lesion, at the network's resolution.

    A running figure for the progress bar and for choosing an epoch on validation; images without
    a lesion are left out, a missed lesion counts 0.

    Parameters
    ----------
    threshold : float
        Probability from which a pixel counts as lesion.
    """

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

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the metric."""
        return {**super().get_config(), "threshold": self.threshold}
