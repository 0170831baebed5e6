"""Weights trained elsewhere: read safely, their network found out and rebuilt, or refused."""

from unet_lib.foreign.loading import ForeignWeights, load_foreign_weights
from unet_lib.foreign.settling import Assumption

__all__ = ["Assumption", "ForeignWeights", "load_foreign_weights"]
