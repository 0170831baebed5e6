"""Scores of one mask pair and of pooled pixels: counts first, then scores.

This is the only place that decides what a score means when a mask is empty.

==================  ==========================  ==========================================
scale               situation                   value
==================  ==========================  ==========================================
per image           lesion, nothing predicted   Dice 0, IoU 0, precision 0, recall 0
per image           lesion, no true pixel hit   the same: all four are 0; it is *missed*
per image           no lesion in the truth      Dice, IoU, precision, recall are nan; such
                                                an image gives *left empty* (no pixel
                                                predicted; their share is the specificity)
                                                and the *false-positive area* (predicted
                                                share of the image)
pooled pixels       any 0/0                     nan, shown as "-"; never a silent 0 or 1
==================  ==========================  ==========================================

Two scales exist and are never mixed. *Pooled*: the pixels of many images in one confusion matrix
(`PixelCounts`, `ProbabilityHistogram`), so large images and large lesions weigh more. *Per image*:
one score for every image with a lesion (`CaseScore`, `CaseTable`), averaged afterwards.

A pixel is predicted when its probability is at or above the threshold:
``probability >= threshold``.

Importing this package needs NumPy and nothing else.
"""

from unet_lib.metrics.cases import CaseScore, score_case
from unet_lib.metrics.counts import PixelCounts, count_pixels
from unet_lib.metrics.curves import BIN_EDGES, Curve, ProbabilityHistogram
from unet_lib.metrics.evaluation import Evaluation
from unet_lib.metrics.table import CaseTable

__all__ = [
    "BIN_EDGES",
    "CaseScore",
    "CaseTable",
    "Curve",
    "Evaluation",
    "PixelCounts",
    "ProbabilityHistogram",
    "count_pixels",
    "score_case",
]
