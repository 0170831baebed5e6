"""Write a report folder: tables, figures, one HTML page, and the data they were made from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unet_lib.files import draft_folder, folder_lock, write_atomic
from unet_lib.metrics import Evaluation, number
from unet_lib.metrics.evaluation import CASES, FOLDS
from unet_lib.plots import (
    plot_calibration,
    plot_confusion_matrix,
    plot_dice_by_size,
    plot_precision_recall,
    plot_roc,
)
from unet_lib.plots.figure import png
from unet_lib.provenance import Provenance
from unet_lib.report import markdown
from unet_lib.report.comparison import (
    OF_LESION_IMAGES,
    OF_NORMAL_IMAGES,
    Comparison,
    comparison_markdown,
)
from unet_lib.report.outlines import Show
from unet_lib.report.page import Chart, render_page
from unet_lib.report.summary import Summary, json_able, preamble, summarise
from unet_lib.report.texts import banner, escape

REPORT, SUMMARY, PAGE = "report.md", "summary.json", "report.html"
COMPARISON, COMPARED = "comparison.md", "comparison.json"
FIGURES = {
    "roc.png": ("ROC curve, pooled pixels", plot_roc),
    "precision_recall.png": ("Precision-recall curve, pooled pixels", plot_precision_recall),
    "calibration.png": ("Calibration, pooled pixels", plot_calibration),
    "confusion_matrix.png": ("Confusion matrix, pooled pixels", plot_confusion_matrix),
    "dice_by_size.png": ("Dice against the size of the lesion, per image", plot_dice_by_size),
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
        _write_all(evaluation, summary, draft, show, page)
        for name in OPTIONAL:
            (folder / name).unlink(missing_ok=True)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == REPORT):
            os.replace(path, folder / path.name)
    return folder / REPORT


def write_comparison(
    comparisons: Sequence[Comparison],
    folder: str | Path,
    first: str,
    second: str,
    *,
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Path:
    """Write a comparison beside a report: ``comparison.md`` and ``comparison.json``.

    Parameters
    ----------
    comparisons : sequence of Comparison
        From `compare`.
    folder : str or Path
        Made when absent.
    first, second : str
        Names of the two.
    provenance : Provenance or mapping of its fields, optional
        Of the first; says which images and decides on the warning.

    Returns
    -------
    Path
        ``comparison.md``.
    """
    folder, provenance = Path(folder), Provenance.of(provenance)
    numbers = {"first": first, "second": second, "scores": comparisons}
    _write_json(folder / COMPARED, preamble(provenance) | numbers | {"about": provenance.to_dict()})
    sizes = {one.score: one.difference.n for one in comparisons}
    lesions, normals = (
        max((sizes.get(name, 0) for name in names), default=0)
        for names in (OF_LESION_IMAGES, OF_NORMAL_IMAGES)
    )
    counts = f"{lesions} lesion images", f"{normals} images without a lesion"
    images = escape(provenance.describe(*counts, model=False))
    title = f"# {escape(first)} compared with {escape(second)}"
    text = comparison_markdown(comparisons, first, second)
    blocks = filter(None, (title, banner(provenance), images, text))
    return write_atomic(folder / COMPARISON, "\n\n".join(blocks))


def _write_all(
    evaluation: Evaluation, summary: Summary, folder: Path, show: Show | None, page: bool
) -> None:
    evaluation.save(folder)
    _write_json(folder / SUMMARY, summary.to_dict())
    sections = markdown.sections(summary)
    text, charts = markdown.render(summary, sections) + "\n## Figures\n", []
    for name, alt in _alternatives(evaluation, summary).items():
        title, plot = FIGURES[name]
        charts.append(Chart(title, alt, png(plot(evaluation))))
        write_atomic(folder / name, charts[-1].png)
        text += f"\n![{title}]({name})\n"
    text += f"\nEvery image by itself: [{CASES}]({CASES}).\n"
    if page:
        text += f"The same as one page: [{PAGE}]({PAGE}).\n"
        _write_text(folder / PAGE, render_page(evaluation, summary, sections, charts, show))
    _write_text(folder / REPORT, text)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(json_able(content), indent=2, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    # A file name that is no UTF-8 cannot be shown as it is.
    write_atomic(path, text.encode("utf-8", errors="replace"))


def _alternatives(evaluation: Evaluation, summary: Summary) -> dict[str, str]:
    """Give a text in place of every figure that there are numbers for, by its file."""
    pooled = summary.pooled[0]
    counts, where = pooled["counts"], f"{pooled['label']} ({pooled['images']})"
    texts = {}
    if evaluation.histograms:
        texts["roc.png"] = (
            f"ROC curve of {where}: area {number(pooled['auc'], 4)}; at the threshold recall "
            f"{number(counts.recall)}, false-positive rate {number(counts.false_positive_rate)}."
        )
        texts["precision_recall.png"] = (
            f"Precision-recall curve of {where}: average precision "
            f"{number(pooled['average_precision'])}; at the threshold precision "
            f"{number(counts.precision)}, recall {number(counts.recall)}."
        )
        texts["calibration.png"] = (
            f"Share of lesion pixels against predicted probability of {where}: expected "
            f"calibration error {number(pooled['ece'])}, in the band around the true contours "
            f"{number(pooled['band_ece'])}."
        )
    texts["confusion_matrix.png"] = (
        f"Pixels of {where}: {counts.tp:,} found, {counts.fn:,} missed, {counts.fp:,} false "
        f"alarms, {counts.tn:,} left alone."
    )
    for row in summary.per_image[:1]:
        texts["dice_by_size.png"] = (
            f"One mark for each of {row['images']} {row['label']}: median Dice "
            f"{number(row['medians']['dice'])}, {row['missed']} missed at 0."
        )
    return texts
