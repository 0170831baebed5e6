"""Keras' gradient accumulation, counted in updates of the weights.

Keras 3 adds up gradients itself (``gradient_accumulation_steps``), but moves the learning rate's
schedule and the average of the weights once for each part of a batch.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["AccumulatingAdamW", "UpdateSchedule"]


class UpdateSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule over updates, for an optimiser that counts parts of batches.

    Parameters
    ----------
    schedule : LearningRateSchedule
        Over updates.
    parts : int
        Parts of a batch.
    """

    def __init__(self, schedule: Any, parts: int) -> None:
        super().__init__()
        self.schedule, self.parts = schedule, parts

    def __call__(self, step: Any) -> Any:
        """Return the rate at a step, which is a part."""
        return self.schedule(ops.floor_divide(step, self.parts))

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the schedule."""
        return {"schedule": self.schedule, "parts": self.parts}


class AccumulatingAdamW(keras.optimizers.AdamW):
    """AdamW whose moving average of the weights moves at updates only."""

    @property
    def ema_momentum(self) -> Any:
        """The momentum at the part that ends a batch, else 1: the average stays."""
        if not self.built:
            return self._momentum
        steps = self.variables[0]  # parts so far
        ends = ops.equal((steps + 1) % self.gradient_accumulation_steps, 0)
        return ops.where(ends, self._momentum, 1.0)

    @ema_momentum.setter
    def ema_momentum(self, momentum: float) -> None:
        self._momentum = momentum
