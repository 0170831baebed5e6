"""Figures of scores: Dice against the size of the lesion, probabilities against what they say."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from unet_lib.metrics import BAND_PX, Evaluation
from unet_lib.metrics.curves import BINS
from unet_lib.plots.curves import STYLES
from unet_lib.plots.frame import BLUE, GREY, VERMILION, describe, new_figure

GREEN = "#009E73"
# Marker and colour both differ; other classes share the last one.
CLASSES = {"benign": (BLUE, "o"), "malignant": (VERMILION, "^")}
OTHER = (GREEN, "s")
RUNNING = 15  # images in the running median


def plot_dice_by_size(evaluation: Evaluation, *, banner: str | None = None) -> Figure:
    """Show the Dice of every lesion image against the share of the image that the lesion covers.

    Parameters
    ----------
    evaluation : Evaluation
    banner : str, optional
        In place of the banner that ``evaluation.provenance`` asks for.

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
    pixels = lesions.column("tp") + lesions.column("fn")
    share = 100 * pixels / (lesions.column("height") * lesions.column("width"))
    dice, labels = lesions.column("dice"), lesions.column("label")
    missed = f"{int(lesions.column('missed').sum())} missed: Dice 0"
    caption = describe(evaluation.provenance, f"{len(lesions)} lesion images", missed)
    legend = []
    for label in lesions.labels:
        colour, marker = CLASSES.get(label, OTHER)
        name = f"{label or 'no class'} ({int((labels == label).sum())})"
        look = {"color": colour, "marker": marker, "linestyle": "", "alpha": 0.6}
        legend.append(Line2D([], [], label=name, **look))
    if len(lesions) >= RUNNING:
        name = f"median of {RUNNING} images of similar size"
        legend.append(Line2D([], [], color="black", label=name))
    title = "Dice of every lesion image against the size of its lesion (per image)"
    figure = new_figure(
        8.2, 3.6, title, caption, about=evaluation.provenance, banner=banner, legend=legend
    )
    axes = figure.add_subplot()
    for label in lesions.labels:
        chosen, (colour, marker) = labels == label, CLASSES.get(label, OTHER)
        axes.scatter(share[chosen], dice[chosen], s=20, color=colour, marker=marker, alpha=0.6)
    if len(lesions) >= RUNNING:
        order = np.argsort(share, kind="stable")
        windows = np.lib.stride_tricks.sliding_window_view(order, RUNNING)
        middle = np.median(share[windows], axis=1), np.median(dice[windows], axis=1)
        axes.plot(*middle, color="black", linewidth=1.5)
    axes.set(xscale="log", xlabel="lesion, % of the image (true mask)", ylabel="Dice")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    return figure


def plot_calibration(evaluation: Evaluation, *, banner: str | None = None) -> Figure:
    """Show the share of lesion pixels against the predicted probability, all pixels and band.

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
    whole = evaluation.histogram()
    if not whole.n:
        raise ValueError(
            "this evaluation holds masks only; calibration needs the probabilities: give them to "
            "Evaluation.add"
        )
    parts = {"all pixels": whole.calibration}
    if whole.band.n:
        parts[f"at most {BAND_PX} pixels from a true contour"] = whole.band
    legend = [
        Line2D([], [], label=f"{name}: ECE {part.ece:.3f}, Brier {part.brier:.3f}", **style)
        for (name, part), style in zip(parts.items(), STYLES, strict=False)
    ]
    legend.append(Line2D([], [], color=GREY, linestyle=":", label="perfect"))
    images, pixels = f"{len(evaluation.table)} images", f"{whole.n:,} pixels"
    caption = describe(evaluation.provenance, images, pixels, f"{BINS} bins of equal width")
    figure = new_figure(
        8.2, 3.6, "Calibration, pooled over pixels", caption, about=evaluation.provenance,
        banner=banner, legend=legend, legend_columns=1,
    )  # fmt: skip
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    for part, style in zip(parts.values(), STYLES, strict=False):
        probability, lesion = part.reliability()
        left.plot(probability, lesion, marker="o", markersize=4, **style)
        edges = np.linspace(0, 1, BINS + 1)
        right.stairs(part.pixels / part.n, edges, linewidth=1.5, **style)
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    left.set(xlabel="mean predicted probability", ylabel="share of lesion pixels")
    right.set(yscale="log", xlabel="predicted probability", ylabel="share of the pixels")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure
