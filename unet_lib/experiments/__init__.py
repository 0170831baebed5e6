"""Recipes over folds, resumable, into a ledger; the model that is trained on everything."""

from unet_lib.experiments.card import headline, write_card
from unet_lib.experiments.crossvalidation import (
    CrossValidation,
    FoldScores,
    load_crossvalidation,
    publish,
    recipe_digest,
)
from unet_lib.experiments.ledger import LedgerRow, check_final, read_ledger, record
from unet_lib.experiments.running import crossvalidate, train_on_all
from unet_lib.experiments.scores import (
    FoldsSummary,
    PairedDifference,
    compare_folds,
    summarise_folds,
)
from unet_lib.experiments.tables import normals_line, per_image_table, pooled_table, size_table

__all__ = [
    "CrossValidation",
    "FoldScores",
    "FoldsSummary",
    "LedgerRow",
    "PairedDifference",
    "check_final",
    "compare_folds",
    "crossvalidate",
    "headline",
    "load_crossvalidation",
    "normals_line",
    "per_image_table",
    "pooled_table",
    "publish",
    "read_ledger",
    "recipe_digest",
    "record",
    "size_table",
    "summarise_folds",
    "train_on_all",
    "write_card",
]
