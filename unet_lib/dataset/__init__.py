"""Which files make a case, what is wrong with them, near-duplicate groups, splits and folds."""

from unet_lib.dataset.audit import BUSI_AUDIT, read_audit
from unet_lib.dataset.cases import (
    DATA_FOLDER,
    LABELS,
    Case,
    DatasetError,
    load_case,
    pixel_sizes,
)
from unet_lib.dataset.check import CheckReport, Finding, check_cases
from unet_lib.dataset.dividing import make_folds, make_split
from unet_lib.dataset.duplicates import DuplicateRule, find_duplicates
from unet_lib.dataset.folds import BUSI_FOLDS, PARTS, FoldRow, Folds, Split, SplitError
from unet_lib.dataset.groups import GROUPS_FILE, duplicate_pairs, find_groups, join_groups
from unet_lib.dataset.layout import BUSI_NAME, find_cases
from unet_lib.dataset.places import locate_dataset
from unet_lib.dataset.training_images import TrainingImages, content_hash, data_hash
from unet_lib.dataset.watching import Watched

__all__ = [
    "BUSI_AUDIT",
    "BUSI_FOLDS",
    "BUSI_NAME",
    "DATA_FOLDER",
    "GROUPS_FILE",
    "LABELS",
    "PARTS",
    "Case",
    "CheckReport",
    "DatasetError",
    "DuplicateRule",
    "Finding",
    "FoldRow",
    "Folds",
    "Split",
    "SplitError",
    "TrainingImages",
    "Watched",
    "check_cases",
    "content_hash",
    "data_hash",
    "duplicate_pairs",
    "find_cases",
    "find_duplicates",
    "find_groups",
    "join_groups",
    "load_case",
    "locate_dataset",
    "make_folds",
    "make_split",
    "pixel_sizes",
    "read_audit",
]
