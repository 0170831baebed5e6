"""Which files make a case, what is wrong with them, near-duplicate groups, splits and folds."""

from unet_lib.dataset.cases import (
    DATA_FOLDER,
    Case,
    DatasetError,
    load_case,
    pixel_sizes,
)
from unet_lib.dataset.check import check_cases
from unet_lib.dataset.dividing import join_data_sets, make_folds, make_split
from unet_lib.dataset.duplicates import duplicate_pairs, find_duplicates
from unet_lib.dataset.groups import (
    group_cases,
    join_groups,
    read_audit,
    unlike_busi,
)
from unet_lib.dataset.layouts import BUSI_NAME, LAYOUTS, Layout, from_table, pictures
from unet_lib.dataset.left_out import TEXTS, left_out
from unet_lib.dataset.reading import (
    find_cases,
    find_root,
    locate_dataset,
    of_folder,
    read_folder,
)
from unet_lib.dataset.splits import (
    COMMITTED_FOLDS,
    OWN_SPLIT,
    PARTS,
    FoldRow,
    Folds,
    Split,
    SplitError,
    committed_folds,
    own_split,
)
from unet_lib.dataset.training_images import TrainingImages, content_hash, data_hash

__all__ = [
    "COMMITTED_FOLDS",
    "BUSI_NAME",
    "DATA_FOLDER",
    "LAYOUTS",
    "OWN_SPLIT",
    "PARTS",
    "TEXTS",
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
    "find_root",
    "from_table",
    "group_cases",
    "join_data_sets",
    "join_groups",
    "left_out",
    "load_case",
    "locate_dataset",
    "make_folds",
    "make_split",
    "committed_folds",
    "own_split",
    "pictures",
    "pixel_sizes",
    "read_audit",
    "read_folder",
    "of_folder",
    "unlike_busi",
]
