"""Write a report folder: tables, figures, one HTML page, and the data they were made from."""

from __future__ import annotations

import math
import os
from pathlib import Path

from unet_lib import plots
from unet_lib.files import draft_folder, folder_lock, write_atomic
from unet_lib.metrics import CaseTable, Evaluation
from unet_lib.metrics.evaluation import CASES, FOLDS
from unet_lib.plots.figure import png, said
from unet_lib.report import markdown
from unet_lib.report.comparison import COMPARED, COMPARISON
from unet_lib.report.page import Show, render_page
from unet_lib.report.summary import summarise, write_json

REPORT, SUMMARY, PAGE = "report.md", "summary.json", "report.html"
FIGURES = {  # each with what it needs
    "dice_by_size.png": (plots.plot_dice_by_size, lambda e: len(e.table.lesion_cases) > 0),
    "image_roc.png": (plots.plot_image_roc, lambda e: not math.isnan(e.image_auc)),
    "roc.png": (plots.plot_roc, lambda e: e.histograms),
    "precision_recall.png": (plots.plot_precision_recall, lambda e: e.histograms),
    "calibration.png": (plots.plot_calibration, lambda e: e.histograms),
    "confusion_matrix.png": (plots.plot_confusion_matrix, lambda e: True),
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
    answer: str = "",
    after: tuple[CaseTable, Show] | None = None,
) -> Path:
    """Write everything an evaluation gave into one folder.

    Parameters
    ----------
    evaluation : Evaluation
    folder : str or Path
        Made when absent; files of an earlier report are replaced.
    seed : int
        Of the bootstrap, and of the images drawn at random.
    show : callable, optional
        From the name of an image to the image (H, W, 1) in [0, 1], its true and its predicted mask
        (H, W), for example `show_cases`: the page then begins with pictures.
    page : bool
        Write ``report.html``.
    answer : str
        Markdown that stands on top, below what warns of the numbers.
    after : tuple of CaseTable and callable, optional
        The same images by another model, and how to show them: the page shows where it differs.

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
        evaluation.save(draft)
        write_json(draft / SUMMARY, summary.to_dict())
        text, charts = markdown.render(summary, answer=answer) + "\n## Figures\n", []
        for name, (plot, has_numbers) in FIGURES.items():
            if not has_numbers(evaluation):
                continue
            figure = plot(evaluation)
            write_atomic(draft / name, png(figure))
            text += f"\n![{figure.subfigs[0].get_suptitle()}]({name})\n"
            if page:
                figure.supxlabel("")  # the page says it once, at its head
                charts.append((said(figure), png(figure, dpi=200)))
        text += f"\nEvery image by itself: [{CASES}]({CASES}).\n"
        if page:
            text += f"The same as one page: [{PAGE}]({PAGE}).\n"
            page_text = render_page(evaluation, summary, charts, show, seed, answer, after)
            _write_text(draft / PAGE, page_text)
        _write_text(draft / REPORT, text)
        for name in OPTIONAL:
            (folder / name).unlink(missing_ok=True)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == REPORT):
            os.replace(path, folder / path.name)
    return folder / REPORT


def _write_text(path: Path, text: str) -> None:
    # A file name that is no UTF-8 cannot be shown as it is.
    write_atomic(path, text.encode("utf-8", errors="replace"))
