"""Write a report folder: tables, figures, one HTML page, and the data they were made from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unet_lib.files import atomic_path, draft_folder, folder_lock, write_atomic
from unet_lib.metrics import Evaluation
from unet_lib.metrics.evaluation import FOLDS
from unet_lib.plots import (
    describe,
    plot_calibration,
    plot_confusion_matrix,
    plot_dice_by_size,
    plot_precision_recall,
    plot_roc,
    save_figure,
)
from unet_lib.report.comparison import (
    OF_LESION_IMAGES,
    OF_NORMAL_IMAGES,
    Comparison,
    comparison_markdown,
)
from unet_lib.report.outlines import Show
from unet_lib.report.page import Chart, render_page
from unet_lib.report.summary import Summary, json_able, preamble, summarise
from unet_lib.report.texts import banner, escape, number

REPORT, SUMMARY, PAGE = "report.md", "summary.json", "report.html"
COMPARISON, _COMPARED = "comparison.md", "comparison.json"


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
        for name in (REPORT, PAGE, COMPARISON, _COMPARED, FOLDS):
            (folder / name).unlink(missing_ok=True)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == REPORT):
            os.replace(path, folder / path.name)
    return folder / REPORT


def _write_all(
    evaluation: Evaluation, summary: Summary, folder: Path, show: Show | None, page: bool
) -> None:
    """Write every file of the report."""
    evaluation.save(folder)
    with atomic_path(folder / SUMMARY) as temporary:
        text = json.dumps(summary.to_dict(), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    text = summary.to_markdown() + "\n## Figures\n"
    charts = []
    for name, (title, alt, plot) in _plots(evaluation, summary).items():
        path = save_figure(plot(evaluation), folder / f"{name}.png")
        charts.append(Chart(path, title, alt))
        text += f"\n![{title}]({path.name})\n"
    text += "\nEvery image by itself: [cases.csv](cases.csv).\n"
    if page:
        text += f"The same as one page: [{PAGE}]({PAGE}).\n"
        _write(folder / PAGE, render_page(evaluation, summary, charts, show))
    _write(folder / REPORT, text)


def write_comparison(
    comparisons: Sequence[Comparison],
    folder: str | Path,
    first: str,
    second: str,
    *,
    about: Mapping[str, Any] | None = None,
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
    about : mapping, optional
        As `Evaluation.about` of the first; says which images and decides on the warning.

    Returns
    -------
    Path
        ``comparison.md``.
    """
    folder = Path(folder)
    about = about or {}
    scores = [asdict(one) for one in comparisons]
    plain = {**preamble(about), "first": first, "second": second, "scores": scores}
    plain["about"] = dict(about)
    text = json.dumps(json_able(plain), indent=2, allow_nan=False)
    write_atomic(folder / _COMPARED, text + "\n")
    title = f"# {escape(first)} compared with {escape(second)}"
    counts = [
        f"{next((one.difference.n for one in comparisons if one.score in scores), 0)} {words}"
        for scores, words in (
            (OF_LESION_IMAGES, "lesion images"),
            (OF_NORMAL_IMAGES, "images without a lesion"),
        )
    ]
    images = escape(describe(about, *counts, model=False))
    blocks = [title, banner(about), images, comparison_markdown(comparisons, first, second)]
    return write_atomic(folder / COMPARISON, "\n\n".join(block for block in blocks if block))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        # A file name that is no UTF-8 cannot be shown as it is.
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _plots(
    evaluation: Evaluation, summary: Summary
) -> dict[str, tuple[str, str, Callable[[Evaluation], Figure]]]:
    """Give title, text in its place and function of every figure that there are numbers for."""
    pooled = summary.pooled[0]
    counts, where = pooled.counts, f"{pooled.label} ({pooled.images})"
    plots = {}
    if evaluation.histograms:
        plots["roc"] = (
            "ROC curve, pooled pixels",
            f"ROC curve of {where}: area {number(pooled.auc, 4)}; at the threshold recall "
            f"{number(counts.recall)}, false-positive rate {number(counts.false_positive_rate)}.",
            plot_roc,
        )
        plots["precision_recall"] = (
            "Precision-recall curve, pooled pixels",
            f"Precision-recall curve of {where}: average precision "
            f"{number(pooled.average_precision)}; at the threshold precision "
            f"{number(counts.precision)}, recall {number(counts.recall)}.",
            plot_precision_recall,
        )
        plots["calibration"] = (
            "Calibration, pooled pixels",
            f"Share of lesion pixels against predicted probability of {where}: expected "
            f"calibration error {number(pooled.ece)}, in the band around the true contours "
            f"{number(pooled.band_ece)}.",
            plot_calibration,
        )
    plots["confusion_matrix"] = (
        "Confusion matrix, pooled pixels",
        f"Pixels of {where}: {counts.tp:,} found, {counts.fn:,} missed, {counts.fp:,} false "
        f"alarms, {counts.tn:,} left alone.",
        plot_confusion_matrix,
    )
    if summary.per_image:
        row = summary.per_image[0]
        plots["dice_by_size"] = (
            "Dice against the size of the lesion, per image",
            f"One mark for each of {row.images} {row.label}: median Dice "
            f"{number(row.medians['dice'])}, {row.missed} missed at 0.",
            plot_dice_by_size,
        )
    return plots
