"""Training: the recipe, the epochs, the threshold, the run folder."""

from unet_lib.training.folds import (
    CrossValidation,
    crossvalidate,
    load_crossvalidation,
    train_on_all,
)
from unet_lib.training.loop import compile_network, fit
from unet_lib.training.recipe import RECIPES, Recipe, TrainingConfig, TrainingError
from unet_lib.training.result import Candidate, Run, ThresholdChoice, load_run, tune_threshold
from unet_lib.training.run import train

__all__ = [
    "RECIPES",
    "Candidate",
    "CrossValidation",
    "Recipe",
    "Run",
    "ThresholdChoice",
    "TrainingConfig",
    "TrainingError",
    "compile_network",
    "crossvalidate",
    "fit",
    "load_crossvalidation",
    "load_run",
    "train",
    "train_on_all",
    "tune_threshold",
]
