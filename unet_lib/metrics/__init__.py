"""Scores of one mask pair and of pooled pixels: counts first, then scores.

This is the only place that decides what a score means when a mask is empty.

==================================  ================  =================  ======================
score of one image                  truth empty,      truth empty,       lesion, prediction
                                    prediction empty  prediction not     empty
==================================  ================  =================  ======================
Dice, IoU, precision, recall        nan               nan                0
surface Dice                        nan               nan                0
HD95, mean surface distance         nan               nan                diagonal of the image
area error (signed, relative)       nan               nan                -1
missed                              no                no                 yes
left empty (mean: specificity)      1                 0                  nan
false-positive area                 0                 share of image     0
components of the truth, found      0, 0              0, 0               n, 0
false components                    0                 all                0
image score, Brier, ECE             defined           defined            defined
Brier, ECE in the band              nan               nan                defined
==================================  ================  =================  ======================

A mean over images takes those where the score is defined: Dice and its like over images with a
lesion, specificity over those without. A lesion is *missed* when no true pixel was predicted,
also where pixels elsewhere were: all overlap scores are 0 then, and distances are those measured.
Pooled pixels: any 0/0 is nan, shown as "-"; never a silent 0 or 1.

Two scales exist and are never mixed. *Pooled*: the pixels of many images in one confusion matrix
(`PixelCounts`, `ProbabilityHistogram`), so large images and large lesions weigh more. *Per image*:
one score for every image (`CaseScore`, `CaseTable`), averaged afterwards.

A pixel is predicted when its probability is at or above the threshold:
``probability >= threshold``. Importing this package needs NumPy and nothing else.
"""

from unet_lib.metrics.cases import CaseScore, CaseTable, score_case
from unet_lib.metrics.curves import ProbabilityHistogram
from unet_lib.metrics.evaluation import (
    ALL_IMAGES,
    LESION_IMAGES,
    Evaluation,
    join_tables,
    merge_evaluations,
)
from unet_lib.metrics.scores import (
    BAND_PX,
    CONFUSION,
    SCORES,
    SIZES,
    TOLERANCE_MM,
    TOLERANCE_PX,
    PixelCounts,
    count_pixels,
    number,
    of_kind,
)

__all__ = [
    "ALL_IMAGES",
    "BAND_PX",
    "CONFUSION",
    "LESION_IMAGES",
    "SCORES",
    "SIZES",
    "TOLERANCE_MM",
    "TOLERANCE_PX",
    "CaseScore",
    "CaseTable",
    "Evaluation",
    "PixelCounts",
    "ProbabilityHistogram",
    "count_pixels",
    "join_tables",
    "merge_evaluations",
    "number",
    "of_kind",
    "score_case",
]
