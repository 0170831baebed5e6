"""Recipes over folds, resumable; the model that is trained on everything."""

from unet_lib.experiments.crossvalidation import (
    CrossValidation,
    FoldScores,
    load_crossvalidation,
    recipe_digest,
)
from unet_lib.experiments.running import crossvalidate, train_on_all

__all__ = [
    "CrossValidation",
    "FoldScores",
    "crossvalidate",
    "load_crossvalidation",
    "recipe_digest",
    "train_on_all",
]
