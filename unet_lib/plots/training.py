"""Figures of a training: its epochs, and the choice of its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unet_lib.plots.figure import DOTTED, STYLES, add_legend, new_figure, score_axes
from unet_lib.provenance import Provenance

FEW = 10  # images without a lesion


def plot_history(
    history: Sequence[Mapping[str, float]],
    *,
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Figure:
    """Show loss, accuracy and Dice of every epoch, on training and validation data.

    Parameters
    ----------
    history : sequence of mapping
        One row an epoch: ``epoch`` (from 1), ``loss``, ``accuracy``, ``dice`` and the same with
        ``val_`` in front. A value that is absent is left out.
    provenance : Provenance or mapping of its fields, optional
        Says which model and data, and how many images (``parts``); decides on the banner.

    Raises
    ------
    ValueError
        Without a row.
    """
    if not len(history):
        raise ValueError("no training history to show: expected at least one epoch")
    provenance = Provenance.of(provenance)
    epochs, validation = _series(history, "epoch"), _series(history, "val_loss")
    best = None if np.isnan(validation).all() else int(epochs[np.nanargmin(validation)])
    marked = "" if best is None else f"grey line: lowest validation loss, epoch {best}"
    parts = provenance.parts or {}
    counts = [f"{parts[part]} {part} images" for part in ("train", "validation") if part in parts]
    images = " and ".join(counts) or "number of images not given"
    title = "Training curves (scores of every epoch at the network's image size; no test)"
    words = images, f"{len(history)} epochs", marked
    figure, panels = new_figure(9.6, 2.8, title, provenance, *words, legend=1)
    names = {"loss": "loss, mean per image", "accuracy": "pixel accuracy, pooled"}
    names["dice"] = "mean Dice per lesion image"
    marker = "o" if len(history) < 15 else None  # a single epoch has no line to see
    for axes, (key, name) in zip(panels.subplots(1, 3), names.items(), strict=True):
        for part, style in zip(("training", "validation"), STYLES, strict=True):
            values = _series(history, f"{'val_' * (part == 'validation')}{key}")
            if not np.isnan(values).all():
                axes.plot(epochs, values, label=part, marker=marker, markersize=4, **style)
        if best is not None:
            axes.axvline(best, linewidth=1, **DOTTED)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.3)
    add_legend(panels, 2)
    return figure


def plot_threshold_curve(
    thresholds: Sequence[float],
    dice: Sequence[float],
    specificity: Sequence[float],
    *,
    lesions: int,
    normals: int,
    chosen: float | None = None,
    required: float | None = 0.8,
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Figure:
    """Show what a threshold costs: mean lesion Dice against the share of normals left empty.

    Parameters
    ----------
    thresholds, dice, specificity : sequence of float
        Same length. Mean Dice per lesion image and share of images without a lesion in which
        nothing is predicted, at each threshold; the latter is not drawn of fewer than 10 images.
    lesions, normals : int
        Number of images with and without a lesion.
    chosen, required : float, optional
        The threshold taken and the specificity that was asked for, shown as lines.
    provenance
        As in `plot_history`.
    """
    title = "Choice of the threshold on validation data (per image; no test)"
    figure, panels = new_figure(6.4, 3.2, title, provenance, legend=2)
    axes = panels.subplots()
    label = f"mean Dice, {lesions} lesion images"
    axes.plot(thresholds, dice, marker="o", markersize=4, label=label, **STYLES[0])
    label = f"share left empty, {normals} images without lesion"
    if normals < FEW:  # a curve would rest on single pictures
        axes.plot([], [], " ", label=f"{normals} images without lesion: too few for a curve")
    else:
        axes.plot(thresholds, specificity, marker="s", markersize=4, label=label, **STYLES[1])
    if required is not None and normals >= FEW:
        axes.axhline(required, label=f"share left empty asked for: {required:g}", **DOTTED)
    if chosen is not None:
        axes.axvline(chosen, color="black", linewidth=1, label=f"chosen threshold: {chosen:g}")
    score_axes(axes, "threshold on the probability", "score, 0 to 1")
    add_legend(panels, 2)
    return figure


def _series(history: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    values = (row.get(key) for row in history)
    return np.array([np.nan if value is None else value for value in values], dtype=float)
