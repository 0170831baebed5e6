"""Figures that show images: examples, augmentation, predictions beside the truth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unet_lib.metrics import count_pixels, score_case
from unet_lib.metrics.scores import check_probabilities
from unet_lib.plots.figure import AMBER, SKY, new_figure
from unet_lib.provenance import Provenance

if TYPE_CHECKING:
    from unet_lib.augment import Augmentation

# Solid against dashed, so that a grey print keeps truth and prediction apart.
TRUTH = {"colors": SKY, "linestyles": "solid", "linewidths": 1.3}
PREDICTED = {"colors": AMBER, "linestyles": "dashed", "linewidths": 1.3}
HALO = [patheffects.Stroke(linewidth=2.2, foreground="black"), patheffects.Normal()]


def plot_examples(
    examples: Sequence[tuple[np.ndarray, np.ndarray, str]],
    *,
    columns: int = 3,
    title: str = "Images and their masks",
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Figure:
    """Show images, each with its mask on the right.

    Parameters
    ----------
    examples : sequence of (image, mask, title)
        float (H, W) or (H, W, 1) in [0, 1]; bool (H, W); a short text.
    columns : int
        Examples in a row.
    title : str
        Title of the figure.
    provenance : Provenance or mapping of its fields, optional
        Says which data and decides on the banner.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Without examples.
    """
    _require(examples, "example")
    columns = min(columns, len(examples))
    rows = -(-len(examples) // columns)
    words = (_count(len(examples)), "mask: white = lesion", "no scores")
    caption = Provenance.of(provenance).describe(*words, model=False)
    figure, panels = new_figure(3.4 * columns, 1.7 * rows, title, caption, provenance)
    axes = panels.subplots(rows, 2 * columns, squeeze=False).reshape(-1, 2)
    for (left, right), (image, mask, name) in zip(axes, examples, strict=False):
        _show(left, image)
        _show(right, mask)
        left.set_title(textwrap.shorten(name, 44, placeholder="…"), fontsize=9, loc="left")
    for left, right in axes[len(examples) :]:
        left.remove()
        right.remove()
    return figure


def plot_augmentation(
    image: np.ndarray,
    mask: np.ndarray,
    augmentation: Augmentation,
    seed: int = 0,
    *,
    count: int = 7,
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Figure:
    """Show one training pair and random changes of it, the mask as a contour.

    Parameters
    ----------
    image, mask : np.ndarray
        float32 (H, W, 1) in [0, 1] and bool (H, W).
    augmentation : Augmentation
        What is drawn from.
    seed : int
        Draw k uses ``numpy.random.default_rng([seed, k])``.
    count : int
        Number of draws.
    provenance
        As in `plot_examples`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = -(-(count + 1) // 4)
    caption = Provenance.of(provenance).describe(
        f"1 image, {count} changes of it, seed {seed}", "no scores", model=False
    )
    title = "One training image and random changes of it"
    legend = [_handle(TRUTH, "mask, moved by the same warp as the image")]
    figure, panels = new_figure(8.8, 2.2 * rows, title, caption, provenance, legend=legend)
    for k in range(count + 1):
        picture, outline = image, mask
        if k:
            picture, outline = augmentation.apply(image, mask, np.random.default_rng([seed, k]))
        axes = panels.add_subplot(rows, 4, k + 1)
        _show(axes, picture)
        _contour(axes, outline, TRUTH)
        axes.set_title(f"draw {k}" if k else "original", fontsize=9)
    return figure


def plot_predictions(
    rows: Sequence[tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray, str]],
    *,
    title: str = "Predictions",
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Figure:
    """Show input, true mask, predicted probability and both contours, one image a row.

    The whole image is shown at its own aspect ratio. The text on the left gives the scores of this
    one image by the rule of `unet_lib.metrics`.

    Parameters
    ----------
    rows : sequence of (image, truth, probabilities, mask, title)
        float (H, W) or (H, W, 1) in [0, 1]; bool (H, W), or None where no truth is known;
        float (H, W) in [0, 1]; bool (H, W), the final mask; a short text.
    title, provenance
        As in `plot_examples`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Without rows; when truth, mask and probabilities differ in shape, masks are not bool, or
        probabilities are not in [0, 1].
    """
    _require(rows, "prediction")
    for _, truth, probabilities, mask, name in rows:
        try:
            count_pixels(mask if truth is None else truth, mask)
            check_probabilities(mask, probabilities)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    words = ("scores on the left: per image, of this one", "probability: black 0, white 1")
    caption = Provenance.of(provenance).describe(_count(len(rows)), *words)
    legend = [_handle(TRUTH, "truth"), _handle(PREDICTED, "prediction (final mask)")]
    figure, panels = new_figure(9.2, 1.7 * len(rows), title, caption, provenance, legend=legend)
    grid = panels.subplots(len(rows), 5, squeeze=False, width_ratios=[1.35, 2, 2, 2, 2])
    for axes, (image, truth, probabilities, mask, name) in zip(grid, rows, strict=True):
        lines = [*textwrap.wrap(name, 20), "", *_scores(truth, mask)]
        axes[0].text(0, 0.5, "\n".join(lines), fontsize=8.5, va="center")
        axes[0].set_axis_off()
        for panel, picture in zip(axes[1:], (image, truth, probabilities, image), strict=True):
            _show(panel, picture)
        if truth is not None:
            _contour(axes[4], truth, TRUTH)
        _contour(axes[4], mask, PREDICTED)
    headers = ("input", "true mask", "predicted probability", "overlay")
    for panel, header in zip(grid[0, 1:], headers, strict=True):
        panel.set_title(header, fontsize=9)
    return figure


def _scores(truth: np.ndarray | None, mask: np.ndarray) -> list[str]:
    if truth is None:
        return []
    score = score_case(truth, mask, name="image")
    if score.has_lesion:
        missed = ["lesion missed"] if score.missed else []
        return [f"Dice {score.dice:.2f}", f"IoU {score.iou:.2f}", *missed]
    if score.predicted_empty:
        return ["no lesion:", "left empty"]
    return ["no lesion: false", f"area {score.false_positive_area:.1%} of image"]


def _show(axes: Axes, picture: np.ndarray | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        place = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no truth given", fontsize=8, **place)
        axes.set_frame_on(False)
        return
    if picture.ndim == 3:  # several input channels: the first is shown
        picture = picture[..., 0]
    nearest = "nearest" if picture.dtype == bool else None
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation=nearest, aspect="equal")


def _contour(axes: Axes, mask: np.ndarray, style: Mapping[str, Any]) -> None:
    if not mask.any():
        return
    height, width = mask.shape
    # A border of background closes the line of a lesion that touches the edge of the image.
    framed = np.pad(mask.astype(float), 1)
    x, y = np.arange(-1, width + 1), np.arange(-1, height + 1)
    lines = axes.contour(x, y, framed, levels=[0.5], **style)
    lines.set_path_effects(HALO)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _handle(style: Mapping[str, Any], label: str) -> Line2D:
    line = {"color": style["colors"], "linestyle": style["linestyles"]}
    return Line2D([], [], linewidth=style["linewidths"], path_effects=HALO, label=label, **line)


def _count(number: int) -> str:
    return f"{number} image" + ("" if number == 1 else "s")


def _require(rows: Sequence[Any], noun: str) -> None:
    if not len(rows):
        raise ValueError(f"nothing to show: expected at least one {noun}, got none")
