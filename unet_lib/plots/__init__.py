"""Every figure of the notebooks and of the report.

A function takes data, returns a matplotlib Figure and shows nothing by itself; in a notebook a
figure that ends a cell is displayed. Titles say whether numbers are pooled over pixels or per
image; the line below says which model, data, fold and how many images, and a banner warns where
`Provenance.banner` does. Colours are those of Okabe and Ito (2008), told apart by colour-blind
readers, and line styles differ for grey prints.
"""

from unet_lib.plots.figure import save_figure
from unet_lib.plots.pictures import plot_augmentation, plot_examples, plot_predictions
from unet_lib.plots.scores import (
    plot_calibration,
    plot_confusion_matrix,
    plot_dice_by_size,
    plot_image_roc,
    plot_precision_recall,
    plot_roc,
)
from unet_lib.plots.training import plot_history, plot_threshold_curve

__all__ = [
    "plot_augmentation",
    "plot_calibration",
    "plot_confusion_matrix",
    "plot_dice_by_size",
    "plot_examples",
    "plot_history",
    "plot_image_roc",
    "plot_precision_recall",
    "plot_predictions",
    "plot_roc",
    "plot_threshold_curve",
    "save_figure",
]
