"""Which files make a case, what is wrong with them, near-duplicate groups, splits and folds."""

from unet_lib.dataset.cases import (
    DATA_FOLDER,
    Case,
    DatasetError,
    TrainingImages,
    content_hash,
    data_hash,
    load_case,
    pixel_sizes,
)
from unet_lib.dataset.check import check_cases
from unet_lib.dataset.dividing import make_folds, make_split
from unet_lib.dataset.groups import duplicate_pairs, find_duplicates, join_groups, read_audit
from unet_lib.dataset.layouts import LAYOUTS, Layout, from_table, pictures
from unet_lib.dataset.reading import find_cases, left_out, locate_dataset, of_folder
from unet_lib.dataset.splits import COMMITTED_FOLDS, PARTS, FoldRow, Folds, Split, SplitError

__all__ = [
    "COMMITTED_FOLDS",
    "DATA_FOLDER",
    "LAYOUTS",
    "PARTS",
    "Case",
    "DatasetError",
    "FoldRow",
    "Folds",
    "Layout",
    "Split",
    "SplitError",
    "TrainingImages",
    "check_cases",
    "content_hash",
    "data_hash",
    "duplicate_pairs",
    "find_cases",
    "find_duplicates",
    "from_table",
    "join_groups",
    "left_out",
    "load_case",
    "locate_dataset",
    "make_folds",
    "make_split",
    "of_folder",
    "pictures",
    "pixel_sizes",
    "read_audit",
]
