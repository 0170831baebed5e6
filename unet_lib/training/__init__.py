"""Training: the recipe, the epochs, the threshold, the run folder."""

from unet_lib.training.loop import TrainingError, compile_network, fit
from unet_lib.training.recipe import Recipe, TrainingConfig
from unet_lib.training.run import Run, load_run, train
from unet_lib.training.threshold import Candidate, ThresholdChoice, tune_threshold

__all__ = [
    "Candidate",
    "Recipe",
    "Run",
    "ThresholdChoice",
    "TrainingConfig",
    "TrainingError",
    "compile_network",
    "fit",
    "load_run",
    "train",
    "tune_threshold",
]
