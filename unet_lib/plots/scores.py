"""Figures of an evaluation: curves, confusion matrix, calibration, Dice by size of the lesion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullFormatter

from unet_lib.metrics import (
    ALL_IMAGES,
    BAND_PX,
    CONFUSION,
    LESION_IMAGES,
    SCORES,
    SIZES,
    Evaluation,
    number,
)
from unet_lib.metrics.curves import BINS
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.plots.figure import (
    BLUE,
    DOTTED,
    GREEN,
    NARROW,
    STYLES,
    VERMILION,
    add_legend,
    new_figure,
    score_axes,
)

# Marker and colour both differ; other classes share the last one.
CLASSES = {"benign": (BLUE, "o"), "malignant": (VERMILION, "^")}
OTHER = (GREEN, "s")
MEAN = {"fmt": "D", "color": "black", "capsize": 5, "linewidth": 1.5, "zorder": 3}
FOUND = "recall (share of lesion pixels)"
MARK = "dot: the final masks"


def plot_roc(evaluation: Evaluation) -> Figure:
    """Show the pooled ROC curve of all images and of those with a lesion, whole and enlarged.

    ValueError: the evaluation holds masks only.
    """
    pools, title = _pools(evaluation), "ROC curve, pooled over pixels"
    figure, panels = _frame(evaluation, 6.2, title, _pixels(evaluation), MARK, legend=3)
    names = {"whole curve": (-0.01, 1.01), "enlarged: false-positive rate up to 0.1": (-0.002, 0.1)}
    for axes, (name, limits) in zip(panels.subplots(2), names.items(), strict=True):
        for (images, label), style in zip(pools.items(), STYLES, strict=False):
            curve, counts = evaluation.histogram(images).roc(), evaluation.cases_of(images).pooled()
            area = number(evaluation.areas(images)[0], 4)
            axes.plot(curve.x, curve.y, label=f"{label} AUC {area}", **style)
            _mark(axes, counts.false_positive_rate, counts.recall, style)
        axes.plot([0, 1], [0, 1], label="chance: AUC 0.5", **DOTTED)
        score_axes(axes, "false-positive rate (share of background)", FOUND, xlim=limits)
        axes.set_title(name, fontsize=9)
    add_legend(panels)
    return figure


def plot_precision_recall(evaluation: Evaluation) -> Figure:
    """Show the pooled precision-recall curve of all images and of those with a lesion.

    ValueError: the evaluation holds masks only.
    """
    pools, title = _pools(evaluation), "Precision-recall curve, pooled over pixels"
    figure, panels = _frame(evaluation, 3.4, title, _pixels(evaluation), MARK, legend=4)
    axes = panels.subplots()
    for (images, label), style in zip(pools.items(), STYLES, strict=False):
        curve = evaluation.histogram(images).precision_recall()
        counts, area = evaluation.cases_of(images).pooled(), number(evaluation.areas(images)[1])
        axes.plot(curve.x, curve.y, label=f"{label} average precision {area}", **style)
        guess = f"guessing: {number(counts.prevalence)} (lesion share)"
        axes.axhline(counts.prevalence, label=guess, color=style["color"], linestyle=":")
        _mark(axes, counts.recall, counts.precision, style)
    score_axes(axes, FOUND, "precision (share of predicted pixels)")
    add_legend(panels)
    return figure


def plot_image_roc(evaluation: Evaluation) -> Figure:
    """Show how the highest probability of an image tells those with a lesion from those without.

    ValueError: images with, or without, a lesion are missing, or the probability of one is.
    """
    lesions, normals = evaluation.table.lesion_cases, evaluation.table.normal_cases
    if math.isnan(evaluation.image_auc):
        raise ValueError(
            f"{len(lesions)} images have a lesion and {len(normals)} none: a ROC curve of images "
            "needs both, and the probabilities of all; give them to Evaluation.add"
        )
    title = "Is there a lesion? ROC of the image score (per image)"
    words = f"{len(lesions)} with a lesion", "image score: highest probability", MARK
    figure, panels = _frame(evaluation, 3.0, title, *words, legend=2)
    axes, scores = panels.subplots(), evaluation.table.column("image_score")
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    x, y = (
        1 - np.searchsorted(np.sort(cases.column("image_score")), thresholds) / len(cases)
        for cases in (normals, lesions)
    )
    area = f"{_mean(evaluation)}AUC {number(evaluation.image_auc)}"
    axes.plot(x, y, label=f"{len(evaluation.table)} images: {area}", **STYLES[0])
    axes.plot([0, 1], [0, 1], label="chance: AUC 0.5", **DOTTED)
    marked = (1 - cases.column("predicted_empty").mean() for cases in (normals, lesions))
    _mark(axes, *marked, STYLES[0])
    score_axes(axes, "images without a lesion that are marked", "lesion images that are marked")
    add_legend(panels)
    return figure


def plot_confusion_matrix(evaluation: Evaluation) -> Figure:
    """Show the pooled confusion matrix of pixels: counts, and shares of each row."""
    counts = evaluation.table.pooled()
    scores = [f"{SCORES[name].title} {number(getattr(counts, name))}" for name in CONFUSION]
    title = f"Confusion matrix, pixels of {len(evaluation.table)} images pooled"
    words = (f"{counts.n:,} pixels", *scores)
    figure, panels = new_figure(NARROW, 2.6, title, evaluation.provenance, *words)
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

    ValueError: the evaluation holds masks only.
    """
    _pools(evaluation)
    whole, title = evaluation.histogram(), "Calibration, pooled over pixels"
    words = _pixels(evaluation), f"{BINS} bins of equal width"
    figure, panels = _frame(evaluation, 4.8, title, *words, legend=3)
    above, below = panels.subplots(2, height_ratios=[2, 1])
    above.plot([0, 1], [0, 1], label="perfect", **DOTTED)
    parts = {"all pixels": whole.calibration, f"at most {BAND_PX} px from a contour": whole.band}
    for (name, part), style in zip(parts.items(), STYLES, strict=True):
        if part.n:
            label = f"{name}: ECE {part.ece:.3f}, Brier {part.brier:.3f}"
            above.plot(*part.reliability(), marker="o", markersize=4, label=label, **style)
            below.stairs(part.sums[0] / part.n, np.linspace(0, 1, BINS + 1), **style)
    score_axes(above, "mean predicted probability", "share of lesion pixels")
    below.set(yscale="log", xlabel="predicted probability", ylabel="share of the pixels")
    below.grid(alpha=0.3)
    add_legend(panels)
    return figure


def plot_dice_by_size(evaluation: Evaluation) -> Figure:
    """Show the Dice of every lesion image by the size of its lesion, and the means of `SIZES`.

    ValueError: no image has a lesion.
    """
    lesions = evaluation.table.lesion_cases
    if not len(lesions):
        raise ValueError("no image has a lesion: there is no Dice to show")
    share = 100 * np.array([case.lesion_share for case in lesions])
    dice, labels = lesions.column("dice"), lesions.column("label")
    words = f"{len(lesions)} lesion images", f"{lesions.column('missed').sum()} missed: Dice 0"
    title, height = "Dice by the size of the lesion (per image)", 3.4
    lines = 1 + len(lesions.labels)
    figure, panels = new_figure(NARROW, height, title, evaluation.provenance, *words, legend=lines)
    axes = panels.subplots()
    for label in lesions.labels:
        chosen, (colour, marker) = labels == label, CLASSES.get(label, OTHER)
        look = {"color": colour, "marker": marker, "alpha": 0.4}
        name = f"{label or 'no class'} ({chosen.sum()})"
        axes.scatter(share[chosen], dice[chosen], s=14, label=name, **look)
    name = "mean of a size, 95 % interval where it is known"
    for low, high in zip(SIZES[:-1], SIZES[1:], strict=True):
        inside = (100 * low <= share) & (share < 100 * high)
        if inside.any():
            mean = group_bootstrap(dice[inside], lesions.groups[inside])
            error = [[mean.mean - mean.low], [mean.high - mean.mean]]
            axes.errorbar(np.median(share[inside]), mean.mean, error, label=name, **MEAN)
            name = ""
    axes.set(xscale="log", xlabel="lesion, % of the image (true mask)", ylabel="Dice")
    for low in SIZES[1:-1]:
        axes.axvline(100 * low, **DOTTED)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    add_legend(panels)
    return figure


def _frame(
    evaluation: Evaluation, height: float, title: str, *words: str, legend: int
) -> tuple[Figure, SubFigure]:
    words = (f"{len(evaluation.table)} images", *words)
    return new_figure(NARROW, height, title, evaluation.provenance, *words, legend=legend)


def _pixels(evaluation: Evaluation) -> str:
    return f"{evaluation.table.pooled().n:,} pixels"


def _mean(evaluation: Evaluation) -> str:
    return "folds' mean " if evaluation.folds else ""


def _pools(evaluation: Evaluation) -> dict[str, str]:
    """Name all images and, where it is another set, the lesion images, with their numbers."""
    if not evaluation.histograms:
        raise ValueError(
            "this evaluation holds masks only; curves and calibration need the probabilities: "
            "give them to Evaluation.add"
        )
    images, lesions = len(evaluation.table), len(evaluation.table.lesion_cases)
    pools = {ALL_IMAGES: f"all {images} images: {_mean(evaluation)}".rstrip()}
    if 0 < lesions < images:
        pools[LESION_IMAGES] = f"{lesions} lesion images: {_mean(evaluation)}".rstrip()
    return pools


def _mark(axes: Axes, x: float, y: float, style: Mapping[str, Any]) -> None:
    axes.plot([x], [y], marker="o", markersize=7, color=style["color"], markeredgecolor="white")
