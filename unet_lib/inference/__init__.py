"""From an image of any size to a mask at its own size, and the scores of many."""

from unet_lib.inference.lesions import Cleaning, Lesion, find_lesions
from unet_lib.inference.scoring import evaluate_cases, show_cases
from unet_lib.inference.segmentation import LESIONS, Segmentation, write_lesions
from unet_lib.inference.segmenter import Segmenter, UnreadableImages

__all__ = [
    "LESIONS",
    "Cleaning",
    "Lesion",
    "Segmentation",
    "Segmenter",
    "UnreadableImages",
    "evaluate_cases",
    "find_lesions",
    "show_cases",
    "write_lesions",
]
