"""Figures of an evaluation: curves, confusion matrix, calibration, Dice against lesion size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from unet_lib.metrics import (
    BAND_PX,
    CONFUSION,
    LESION_IMAGES,
    SCORES,
    Evaluation,
    PixelCounts,
    ProbabilityHistogram,
    number,
)
from unet_lib.metrics.curves import BINS
from unet_lib.plots.figure import BLUE, GREEN, GREY, STYLES, VERMILION, new_figure, score_axes

# Marker and colour both differ; other classes share the last one.
CLASSES = {"benign": (BLUE, "o"), "malignant": (VERMILION, "^")}
OTHER = (GREEN, "s")
RUNNING = 15  # images in the running median
FOUND = "recall (share of lesion pixels found)"
Pool = tuple[str, ProbabilityHistogram, PixelCounts, tuple[float, float]]


def plot_roc(evaluation: Evaluation) -> Figure:
    """Show the pooled ROC curve of all images and of those with a lesion, whole and enlarged.

    Parameters
    ----------
    evaluation : Evaluation
        With histograms.

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
        Line2D([], [], label=f"{name}: {_of(evaluation)}AUC {number(auc, 4)}", **style)
        for (name, _, _, (auc, _)), style in zip(pools, STYLES, strict=False)
    ]
    legend.append(Line2D([], [], color=GREY, linestyle=":", label="chance: AUC 0.5"))
    title, caption = "ROC curve, pooled over pixels", _caption(evaluation)
    figure, panels = new_figure(9.0, 3.6, title, caption, evaluation.provenance, legend=legend)
    names = {"whole curve": (-0.01, 1.01), "enlarged: false-positive rate up to 0.1": (-0.002, 0.1)}
    for axes, (name, limits) in zip(panels.subplots(1, 2), names.items(), strict=True):
        for (_, histogram, counts, _), style in zip(pools, STYLES, strict=False):
            curve = histogram.roc()
            axes.plot(*_thin(curve.x, curve.y), **style)
            _mark(axes, counts.false_positive_rate, counts.recall, style)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        score_axes(axes, "false-positive rate (share of background pixels)", FOUND, xlim=limits)
        axes.set_title(name, fontsize=9)
    return figure


def plot_precision_recall(evaluation: Evaluation) -> Figure:
    """Show the pooled precision-recall curve of all images and of those with a lesion.

    Parameters
    ----------
    evaluation : Evaluation
        With histograms.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the evaluation holds no probabilities.
    """
    pools, legend = _pools(evaluation), []
    for (name, _, counts, (_, area)), style in zip(pools, STYLES, strict=False):
        average = f"{_of(evaluation)}average precision {number(area)}"
        legend.append(Line2D([], [], label=f"{name}: {average}", **style))
        share = f"guessing: {number(counts.prevalence)} (lesion share)"
        legend.append(Line2D([], [], color=style["color"], linestyle=":", label=share))
    title, caption = "Precision-recall curve, pooled over pixels", _caption(evaluation)
    more = {"legend": legend, "columns": 1}
    figure, panels = new_figure(6.4, 3.6, title, caption, evaluation.provenance, **more)
    axes = panels.subplots()
    for (_, histogram, counts, _), style in zip(pools, STYLES, strict=False):
        curve = histogram.precision_recall()
        axes.plot(*_thin(curve.x, curve.y), **style)
        _mark(axes, counts.recall, counts.precision, style)
        axes.axhline(counts.prevalence, color=style["color"], linestyle=":")
    score_axes(axes, FOUND, "precision (share of predicted pixels that are lesion)")
    return figure


def plot_confusion_matrix(evaluation: Evaluation, *, lesion_only: bool = False) -> Figure:
    """Show the pooled confusion matrix of pixels: counts, and shares of each row.

    Parameters
    ----------
    evaluation : Evaluation
        Its table is what is counted; histograms are not needed.
    lesion_only : bool
        Leave out the images without a lesion.

    Returns
    -------
    matplotlib.figure.Figure
    """
    table = evaluation.table.lesion_cases if lesion_only else evaluation.table
    counts = table.pooled()
    scores = [f"{SCORES[name].title} {number(getattr(counts, name))}" for name in CONFUSION]
    caption = evaluation.provenance.describe(f"{counts.n:,} pixels", *scores)
    images = f"{len(table)} {'lesion images' if lesion_only else 'images'}"
    title = f"Confusion matrix, pixels of {images} pooled"
    figure, panels = new_figure(5.6, 3.3, title, caption, evaluation.provenance)
    axes = panels.subplots()
    cells = np.array([[counts.tp, counts.fn], [counts.fp, counts.tn]], dtype=float)
    totals = cells.sum(axis=1, keepdims=True)
    shares = np.divide(cells, totals, out=np.full((2, 2), np.nan), where=totals > 0)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [["found (TP)", "missed (FN)"], ["false alarm (FP)", "left alone (TN)"]]
    for (row, column), share in np.ndenumerate(shares):
        of_row = "-" if np.isnan(share) else f"{share:.2%} of the row"
        text = f"{names[row][column]}\n{int(cells[row, column]):,}\n{of_row}"
        colour = "white" if share > 0.65 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    axes.set_xticks([0, 1], ["predicted lesion", "predicted background"])
    axes.set_yticks([0, 1], ["true\nlesion", "true\nbackground"])
    axes.tick_params(length=0)
    return figure


def plot_calibration(evaluation: Evaluation) -> Figure:
    """Show the share of lesion pixels against the predicted probability, all pixels and band.

    Parameters
    ----------
    evaluation : Evaluation
        With histograms.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the evaluation holds no probabilities.
    """
    (_, whole, *_), *_ = _pools(evaluation)
    parts = {"all pixels": whole.calibration}
    if whole.band.n:
        parts[f"at most {BAND_PX} pixels from a true contour"] = whole.band
    legend = [
        Line2D([], [], label=f"{name}: ECE {part.ece:.3f}, Brier {part.brier:.3f}", **style)
        for (name, part), style in zip(parts.items(), STYLES, strict=False)
    ]
    legend.append(Line2D([], [], color=GREY, linestyle=":", label="perfect"))
    images, pixels = f"{len(evaluation.table)} images", f"{whole.n:,} pixels"
    caption = evaluation.provenance.describe(images, pixels, f"{BINS} bins of equal width")
    title, more = "Calibration, pooled over pixels", {"legend": legend, "columns": 1}
    figure, panels = new_figure(8.2, 3.2, title, caption, evaluation.provenance, **more)
    left, right = panels.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    for part, style in zip(parts.values(), STYLES, strict=False):
        left.plot(*part.reliability(), marker="o", markersize=4, **style)
        right.stairs(part.sums[0] / part.n, np.linspace(0, 1, BINS + 1), linewidth=1.5, **style)
    score_axes(left, "mean predicted probability", "share of lesion pixels", xlim=(-0.02, 1.02))
    right.set(yscale="log", xlabel="predicted probability", ylabel="share of the pixels")
    right.grid(alpha=0.3)
    return figure


def plot_dice_by_size(evaluation: Evaluation) -> Figure:
    """Show the Dice of every lesion image against the share of the image that the lesion covers.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If no image has a lesion.
    """
    lesions = evaluation.table.lesion_cases
    if not len(lesions):
        raise ValueError("no image has a lesion: there is no Dice to show")
    share = 100 * np.array([case.lesion_share for case in lesions])
    dice, labels = lesions.column("dice"), lesions.column("label")
    missed = f"{int(lesions.column('missed').sum())} missed: Dice 0"
    caption = evaluation.provenance.describe(f"{len(lesions)} lesion images", missed)
    title = "Dice of every lesion image against the size of its lesion (per image)"
    figure, panels = new_figure(8.2, 3.6, title, caption, evaluation.provenance)
    axes = panels.subplots()
    for label in lesions.labels:
        chosen, (colour, marker) = labels == label, CLASSES.get(label, OTHER)
        look = {"color": colour, "marker": marker, "alpha": 0.6}
        name = f"{label or 'no class'} ({chosen.sum()})"
        axes.scatter(share[chosen], dice[chosen], s=20, label=name, **look)
    if len(lesions) >= RUNNING:
        order = np.argsort(share, kind="stable")
        windows = np.lib.stride_tricks.sliding_window_view(order, RUNNING)
        middle = np.median(share[windows], axis=1), np.median(dice[windows], axis=1)
        name = f"median of {RUNNING} images of similar size"
        axes.plot(*middle, color="black", linewidth=1.5, label=name)
    axes.set(xscale="log", xlabel="lesion, % of the image (true mask)", ylabel="Dice")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    panels.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _of(evaluation: Evaluation) -> str:
    return "folds' mean " if evaluation.folds else ""


def _pools(evaluation: Evaluation) -> list[Pool]:
    """Give all images and, where it is another set, the lesion images; the areas come last."""
    if not evaluation.histograms:
        raise ValueError(
            "this evaluation holds masks only; curves and calibration need the probabilities: "
            "give them to Evaluation.add"
        )
    table, lesions = evaluation.table, evaluation.table.lesion_cases
    areas = evaluation.areas()
    pools = [(f"all {len(table)} images", evaluation.histogram(), table.pooled(), areas)]
    if 0 < len(lesions) < len(table):
        only, areas = evaluation.histogram(LESION_IMAGES), evaluation.areas(LESION_IMAGES)
        pools.append((f"{len(lesions)} lesion images", only, lesions.pooled(), areas))
    return pools


def _caption(evaluation: Evaluation) -> str:
    pixels = f"{evaluation.table.pooled().n:,} pixels"
    images = f"{len(evaluation.table)} images"
    return evaluation.provenance.describe(images, pixels, "dot: the final masks")


def _mark(axes: Axes, x: float, y: float, style: Mapping[str, Any]) -> None:
    axes.plot([x], [y], marker="o", markersize=7, color=style["color"], markeredgecolor="white")


def _thin(x: np.ndarray, y: np.ndarray, steps: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Leave out points that fall on the same spot of the figure."""
    spot = np.stack([np.floor(x * steps), np.floor(y * steps)])
    keep = np.any(np.diff(spot, axis=1, prepend=np.inf) != 0, axis=0)
    keep[-1:] = True
    return x[keep], y[keep]
