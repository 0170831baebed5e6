"""Write a report folder: tables, figures, one HTML page, and the data they were made from."""

from __future__ import annotations

import math
import os
from pathlib import Path

from unet_lib.files import draft_folder, folder_lock, write_atomic
from unet_lib.metrics import Evaluation, number
from unet_lib.metrics.evaluation import CASES, FOLDS
from unet_lib.plots import (
    plot_calibration,
    plot_confusion_matrix,
    plot_dice_by_size,
    plot_image_roc,
    plot_precision_recall,
    plot_roc,
)
from unet_lib.plots.figure import png
from unet_lib.report import markdown
from unet_lib.report.comparison import COMPARED, COMPARISON
from unet_lib.report.page import Chart, Show, render_page
from unet_lib.report.summary import Summary, summarise, write_json

REPORT, SUMMARY, PAGE = "report.md", "summary.json", "report.html"
FIGURES = {
    "dice_by_size.png": ("Dice by the size of the lesion, per image", plot_dice_by_size),
    "image_roc.png": ("ROC curve of the image score, per image", plot_image_roc),
    "roc.png": ("ROC curve, pooled pixels", plot_roc),
    "precision_recall.png": ("Precision-recall curve, pooled pixels", plot_precision_recall),
    "calibration.png": ("Calibration, pooled pixels", plot_calibration),
    "confusion_matrix.png": ("Confusion matrix, pooled pixels", plot_confusion_matrix),
}
# A report may lack these; those of an earlier one must not stay beside it.
OPTIONAL = (REPORT, PAGE, COMPARISON, COMPARED, FOLDS, *FIGURES)


def write_report(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    seed: int = 0,
    show: Show | None = None,
    page: bool = True,
) -> Path:
    """Write everything an evaluation gave into one folder.

    Parameters
    ----------
    evaluation : Evaluation
    folder : str or Path
        Made when absent; files of an earlier report are replaced.
    seed : int
        Of the bootstrap.
    show : callable, optional
        From the name of an image to the image (H, W, 1) in [0, 1], its true and its predicted mask
        (H, W), for example `show_cases`: the page then shows the worst and the median cases.
    page : bool
        Write ``report.html``.

    Returns
    -------
    Path
        The report, ``report.md``. Beside it: ``report.html``, the same and more as one page that
        needs no other file; ``summary.json``, ``cases.csv`` (one line an image),
        ``histograms.npz``, ``about.json``, and the figures.

    Raises
    ------
    ValueError
        If the evaluation holds no image, or `show` gives another size than was scored.
    """
    folder = Path(folder)
    summary = summarise(evaluation, seed=seed)
    # Made aside and moved at the end: a folder never holds parts of two reports.
    with folder_lock(folder), draft_folder(folder, "report") as draft:
        _write_all(evaluation, summary, draft, show, page, seed)
        for name in OPTIONAL:
            (folder / name).unlink(missing_ok=True)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == REPORT):
            os.replace(path, folder / path.name)
    return folder / REPORT


def _write_all(
    evaluation: Evaluation,
    summary: Summary,
    folder: Path,
    show: Show | None,
    page: bool,
    seed: int,
) -> None:
    evaluation.save(folder)
    write_json(folder / SUMMARY, summary.to_dict())
    sections = markdown.sections(summary)
    text, charts = markdown.render(summary, sections) + "\n## Figures\n", []
    words = _words(evaluation, summary)
    for name, (title, plot) in FIGURES.items():
        if name in words:
            figure = plot(evaluation)
            write_atomic(folder / name, png(figure))
            figure.supxlabel("")  # the page says it once, at its head
            if page:
                charts.append(Chart(title, words[name], png(figure, dpi=200)))
            text += f"\n![{title}]({name})\n"
    text += f"\nEvery image by itself: [{CASES}]({CASES}).\n"
    if page:
        text += f"The same as one page: [{PAGE}]({PAGE}).\n"
        _write_text(folder / PAGE, render_page(evaluation, summary, sections, charts, show, seed))
    _write_text(folder / REPORT, text)


def _write_text(path: Path, text: str) -> None:
    # A file name that is no UTF-8 cannot be shown as it is.
    write_atomic(path, text.encode("utf-8", errors="replace"))


def _words(evaluation: Evaluation, summary: Summary) -> dict[str, str]:
    """Say in words what every figure shows that there are numbers for, by its file."""
    pooled, image = summary.pooled[0], summary.detection
    counts, of = pooled["counts"], f"Of {pooled['label']} ({pooled['images']})"
    texts = {}
    for row in summary.per_image[:1]:
        texts["dice_by_size.png"] = (
            f"One mark for each of {row['images']} {row['label']}: median Dice "
            f"{number(row['medians']['dice'])}, {row['missed']} missed at 0."
        )
    if not math.isnan(image["auc"]):
        texts["image_roc.png"] = (
            f"Of {summary.images} images: area {number(image['auc'])}; the final masks have "
            f"sensitivity {number(image['sensitivity'].mean)} and specificity "
            f"{number(image['specificity'].mean)}."
        )
    if evaluation.histograms:
        texts["roc.png"] = (
            f"{of}: area {number(pooled['auc'], 4)}; the final masks have recall "
            f"{number(counts.recall)} and false-positive rate {number(counts.false_positive_rate)}."
        )
        texts["precision_recall.png"] = (
            f"{of}: average precision {number(pooled['average_precision'])}; the final masks have "
            f"precision {number(counts.precision)} and recall {number(counts.recall)}."
        )
        texts["calibration.png"] = (
            f"{of}: expected calibration error {number(pooled['ece'])}, in the band around the "
            f"true contours {number(pooled['band_ece'])}."
        )
    texts["confusion_matrix.png"] = (
        f"{of}: {counts.tp:,} pixels found, {counts.fn:,} missed, {counts.fp:,} false alarms, "
        f"{counts.tn:,} left alone."
    )
    return texts
