"""Write a report folder: tables, figures, and the data they were made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from unet_lib.files import atomic_path, write_atomic
from unet_lib.metrics import Evaluation
from unet_lib.plots import (
    plot_confusion_matrix,
    plot_precision_recall,
    plot_roc,
    save_figure,
)
from unet_lib.report.comparison import Comparison, comparison_markdown
from unet_lib.report.markdown import escape
from unet_lib.report.summary import json_able, summarise

REPORT, SUMMARY, COMPARISON = "report.md", "summary.json", "comparison.md"


def write_report(evaluation: Evaluation, folder: str | Path, *, seed: int = 0) -> Path:
    """Write everything an evaluation gave into one folder.

    Parameters
    ----------
    evaluation : Evaluation
    folder : str or Path
        Made when absent; files of an earlier report are replaced.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Path
        The report, ``report.md``. Beside it: ``summary.json``, ``cases.csv`` (one line an image),
        ``histograms.npz``, ``about.json``, ``confusion_matrix.png``, and ``roc.png`` and
        ``precision_recall.png`` where probabilities are known.

    Raises
    ------
    ValueError
        If the evaluation holds no image.
    """
    folder = Path(folder)
    summary = summarise(evaluation, seed=seed)
    evaluation.save(folder)
    with atomic_path(folder / SUMMARY) as temporary:
        text = json.dumps(summary.to_dict(), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    plots = {"confusion_matrix": ("Confusion matrix", plot_confusion_matrix)}
    if evaluation.histograms:
        plots["roc"] = ("ROC curve", plot_roc)
        plots["precision_recall"] = ("Precision-recall curve", plot_precision_recall)
    text = summary.to_markdown() + "\n## Figures\n"
    for name, (words, plot) in plots.items():
        save_figure(plot(evaluation), folder / f"{name}.png")
        text += f"\n![{words}, pooled pixels]({name}.png)\n"
    text += "\nEvery image by itself: [cases.csv](cases.csv).\n"
    with atomic_path(folder / REPORT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / REPORT


def write_comparison(
    comparisons: Sequence[Comparison], folder: str | Path, first: str, second: str
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

    Returns
    -------
    Path
        ``comparison.md``.
    """
    folder = Path(folder)
    plain = {"first": first, "second": second, "scores": [asdict(one) for one in comparisons]}
    text = json.dumps(json_able(plain), indent=2, allow_nan=False)
    write_atomic(folder / Path(COMPARISON).with_suffix(".json"), text + "\n")
    title = f"# {escape(first)} compared with {escape(second)}\n\n"
    return write_atomic(
        folder / COMPARISON, title + comparison_markdown(comparisons, first, second)
    )
