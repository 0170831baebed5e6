"""Figures of numbers: training, threshold, ROC, precision-recall, confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from unet_lib.metrics import Evaluation, PixelCounts, ProbabilityHistogram
from unet_lib.plots.frame import BLUE, GREY, VERMILION, describe, new_figure

# Training and validation, all images and lesion images: colour and line style both differ.
STYLES = ({"color": BLUE, "linestyle": "-"}, {"color": VERMILION, "linestyle": "--"})


def plot_history(
    history: Sequence[Mapping[str, float]],
    *,
    about: Mapping[str, Any] | None = None,
    banner: str | None = None,
) -> Figure:
    """Show loss, accuracy and Dice of every epoch, on training and validation data.

    Parameters
    ----------
    history : sequence of mapping
        One row an epoch: ``epoch`` (from 1), ``loss``, ``accuracy``, ``dice`` and the same with
        ``val_`` in front. A value that is absent is left out.
    about : mapping, optional
        As `Evaluation.about`; says which model and data and decides on the banner. ``parts``:
        numbers of images by part, as `DataSource.provenance` has them.
    banner : str, optional
        In place of the banner that `about` asks for.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Without a row.
    """
    if not len(history):
        raise ValueError("no training history to show: expected at least one epoch")
    epochs = _series(history, "epoch")
    validation = _series(history, "val_loss")
    best = None if np.isnan(validation).all() else int(epochs[np.nanargmin(validation)])
    marked = "" if best is None else f"grey line: lowest validation loss, epoch {best}"
    parts = (about or {}).get("parts") or {}
    counts = [f"{parts[part]} {part} images" for part in ("train", "validation") if part in parts]
    images = " and ".join(counts) or "number of images not given"
    caption = describe(about, images, f"{len(history)} epochs", marked)
    title = "Training curves (scores of every epoch at the network's image size; no test)"
    figure = new_figure(9.6, 2.8, title, caption, about=about, banner=banner)
    panels = {"loss": "loss, mean per image", "accuracy": "pixel accuracy, pooled"}
    panels["dice"] = "mean Dice per lesion image"
    for position, (key, name) in enumerate(panels.items()):
        axes = figure.add_subplot(1, 3, position + 1)
        _draw_epochs(axes, epochs, history, key)
        if best is not None:
            axes.axvline(best, color=GREY, linewidth=1, linestyle=":")
        axes.set_title(name, fontsize=10)
    return figure


def _draw_epochs(
    axes: Axes, epochs: np.ndarray, history: Sequence[Mapping[str, float]], key: str
) -> None:
    marker = "o" if len(history) < 15 else None  # a single epoch has no line to see
    for part, prefix, style in zip(("training", "validation"), ("", "val_"), STYLES, strict=True):
        values = _series(history, prefix + key)
        if not np.isnan(values).all():
            axes.plot(epochs, values, label=part, marker=marker, markersize=4, **style)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)


def plot_threshold_curve(
    thresholds: Sequence[float],
    dice: Sequence[float],
    specificity: Sequence[float],
    *,
    lesions: int,
    normals: int,
    chosen: float | None = None,
    required: float | None = 0.8,
    about: Mapping[str, Any] | None = None,
    banner: str | None = None,
) -> Figure:
    """Show what a threshold costs: mean lesion Dice against the share of normals left empty.

    Parameters
    ----------
    thresholds, dice, specificity : sequence of float
        Same length. Mean Dice per lesion image and share of images without a lesion in which
        nothing is predicted, at each threshold; nan where there is no such image.
    lesions, normals : int
        Number of images with and without a lesion.
    chosen, required : float, optional
        The threshold taken and the specificity that was asked for, shown as lines.
    about, banner
        As in `plot_history`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with_lesion, without = f"{lesions} lesion images", f"{normals} images without lesion"
    title = "Choice of the threshold on validation data (per image; no test)"
    figure = new_figure(8.6, 3.6, title, describe(about), about=about, banner=banner)
    axes = figure.add_subplot()
    axes.plot(thresholds, dice, marker="o", markersize=4, **STYLES[0],
              label=f"mean Dice, {with_lesion}")  # fmt: skip
    axes.plot(thresholds, specificity, marker="s", markersize=4, **STYLES[1],
              label=f"share left empty, {without}")  # fmt: skip
    if required is not None:
        label = f"share left empty asked for: {required:g}"
        axes.axhline(required, color=GREY, linestyle=":", label=label)
    if chosen is not None:
        axes.axvline(chosen, color="black", linewidth=1, label=f"chosen threshold: {chosen:g}")
    axes.set(xlabel="threshold on the probability", ylabel="score, 0 to 1", xlim=(0, 1))
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    return figure


def plot_roc(evaluation: Evaluation, *, banner: str | None = None) -> Figure:
    """Show the pooled ROC curve of all images and of those with a lesion, whole and enlarged.

    Parameters
    ----------
    evaluation : Evaluation
        With histograms.
    banner : str, optional
        In place of the banner that ``evaluation.provenance`` asks for.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the evaluation holds no probabilities.
    """
    pools = _pools(evaluation)
    legend = [
        Line2D([], [], label=f"{name}: {_of(evaluation)}AUC {_number(areas[0], 4)}", **style)
        for (name, _, _, areas), style in zip(pools, STYLES, strict=False)
    ]
    legend.append(Line2D([], [], color=GREY, linestyle=":", label="chance: AUC 0.5"))
    figure = _pixel_figure(evaluation, "ROC curve, pooled over pixels", banner, legend)
    whole, close = figure.subplots(1, 2)
    for axes in (whole, close):
        for (_, histogram, counts, _), style in zip(pools, STYLES, strict=False):
            curve = histogram.roc()
            axes.plot(*_thin(curve.x, curve.y), **style)
            _mark(axes, counts.false_positive_rate, counts.recall, style)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        _decorate(axes, "false-positive rate (share of background pixels)")
        axes.set_ylabel("recall (share of lesion pixels found)")
    close.set_xlim(-0.002, 0.1)
    close.set_title("enlarged: false-positive rate up to 0.1", fontsize=9)
    whole.set_title("whole curve", fontsize=9)
    return figure


def plot_precision_recall(evaluation: Evaluation, *, banner: str | None = None) -> Figure:
    """Show the pooled precision-recall curve of all images and of those with a lesion.

    Parameters
    ----------
    evaluation, banner
        As in `plot_roc`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the evaluation holds no probabilities.
    """
    pools = _pools(evaluation)
    legend = []
    for (name, _, counts, areas), style in zip(pools, STYLES, strict=False):
        average = f"{_of(evaluation)}average precision {_number(areas[1], 3)}"
        legend.append(Line2D([], [], label=f"{name}: {average}", **style))
        share = f"guessing: {_number(counts.prevalence, 3)} (lesion share)"
        legend.append(Line2D([], [], color=style["color"], linestyle=":", label=share))
    title = "Precision-recall curve, pooled over pixels"
    figure = _pixel_figure(evaluation, title, banner, legend, width=6.4, columns=1)
    axes = figure.add_subplot()
    for (_, histogram, counts, _), style in zip(pools, STYLES, strict=False):
        curve = histogram.precision_recall()
        axes.plot(*_thin(curve.x, curve.y), **style)
        _mark(axes, counts.recall, counts.precision, style)
        axes.axhline(counts.prevalence, color=style["color"], linestyle=":")
    _decorate(axes, "recall (share of lesion pixels found)")
    axes.set_ylabel("precision (share of predicted pixels that are lesion)")
    return figure


def plot_confusion_matrix(
    evaluation: Evaluation, *, lesion_only: bool = False, banner: str | None = None
) -> Figure:
    """Show the pooled confusion matrix of pixels: counts, and shares of each row.

    Parameters
    ----------
    evaluation : Evaluation
        Its table is what is counted; histograms are not needed.
    lesion_only : bool
        Leave out the images without a lesion.
    banner : str, optional
        In place of the banner that ``evaluation.provenance`` asks for.

    Returns
    -------
    matplotlib.figure.Figure
    """
    table = evaluation.table.lesion_cases if lesion_only else evaluation.table
    counts = table.pooled()
    images = f"{len(table)} {'lesion images' if lesion_only else 'images'}"
    names = ("precision", "recall", "f1", "iou", "mean_iou", "accuracy")
    shown = ("precision", "recall", "F1", "lesion IoU", "Mean IoU", "accuracy")
    pairs = zip(shown, names, strict=True)
    scores = [f"{word} {_number(getattr(counts, name), 3)}" for word, name in pairs]
    caption = describe(evaluation.provenance, f"{counts.n:,} pixels", *scores)
    title = f"Confusion matrix, pixels of {images} pooled"
    figure = new_figure(5.6, 3.3, title, caption, about=evaluation.provenance, banner=banner)
    _draw_matrix(figure.add_subplot(), counts)
    return figure


def _draw_matrix(axes: Axes, counts: PixelCounts) -> None:
    cells = np.array([[counts.tp, counts.fn], [counts.fp, counts.tn]], dtype=float)
    totals = cells.sum(axis=1, keepdims=True)
    shares = np.divide(cells, totals, out=np.full((2, 2), np.nan), where=totals > 0)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    kinds = [["found (TP)", "missed (FN)"], ["false alarm (FP)", "left alone (TN)"]]
    for row in range(2):
        for column in range(2):
            share = shares[row, column]
            text = f"{kinds[row][column]}\n{int(cells[row, column]):,}\n"
            text += "-" if np.isnan(share) else f"{share:.2%} of the row"
            colour = "white" if share > 0.65 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    axes.set_xticks([0, 1], ["predicted lesion", "predicted background"])
    axes.set_yticks([0, 1], ["true\nlesion", "true\nbackground"])
    axes.tick_params(length=0)


def _of(evaluation: Evaluation) -> str:
    return "folds' mean " if evaluation.folds else ""


def _pools(
    evaluation: Evaluation,
) -> list[tuple[str, ProbabilityHistogram, PixelCounts, tuple[float, float]]]:
    """Give all images and, where it is another set, the lesion images; the areas come last."""
    if not evaluation.histograms:
        raise ValueError(
            "this evaluation holds masks only; curves need the probabilities: "
            "give them to Evaluation.add"
        )
    table, lesions = evaluation.table, evaluation.table.lesion_cases
    every = (evaluation.histogram(), table.pooled(), evaluation.areas())
    pools = [(f"all {len(table)} images", *every)]
    if 0 < len(lesions) < len(table):
        only = evaluation.histogram(lesion_only=True)
        areas = evaluation.areas(lesion_only=True)
        pools.append((f"{len(lesions)} lesion images", only, lesions.pooled(), areas))
    return pools


def _pixel_figure(
    evaluation: Evaluation,
    title: str,
    banner: str | None,
    legend: list[Line2D],
    *,
    width: float = 9.0,
    columns: int = 4,
) -> Figure:
    about = evaluation.provenance
    images = f"{len(evaluation.table)} images"
    pixels = f"{evaluation.table.pooled().n:,} pixels"
    caption = describe(about, images, pixels, "dot: the final masks")
    return new_figure(
        width, 4.2, title, caption, about=about, banner=banner,
        legend=legend, legend_columns=columns,
    )  # fmt: skip


def _mark(axes: Axes, x: float, y: float, style: Mapping[str, Any]) -> None:
    axes.plot([x], [y], marker="o", markersize=7, color=style["color"], markeredgecolor="white")


def _decorate(axes: Axes, xlabel: str) -> None:
    axes.set(xlabel=xlabel, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(alpha=0.3)


def _thin(x: np.ndarray, y: np.ndarray, steps: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Leave out points that fall on the same spot of the figure."""
    spot = np.stack([np.floor(x * steps), np.floor(y * steps)])
    keep = np.any(np.diff(spot, axis=1, prepend=np.inf) != 0, axis=0)
    keep[-1:] = True
    return x[keep], y[keep]


def _series(history: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    values = (row.get(key) for row in history)
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
