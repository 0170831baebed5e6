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

from unet_lib.metrics import score_case
from unet_lib.metrics.scores import check_mask, check_probabilities, check_same_shape
from unet_lib.plots.frame import AMBER, SKY, describe, new_figure

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
    about: Mapping[str, Any] | None = None,
    banner: str | None = None,
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
    about : mapping, optional
        As `Evaluation.about`; says which data and decides on the banner.
    banner : str, optional
        In place of the banner that `about` asks for.

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
    tall = [_row_height(examples[r * columns : (r + 1) * columns], 1.6) for r in range(rows)]
    counted = _count(len(examples), "image")
    caption = describe(about, counted, "mask: white = lesion", "no scores", model=False)
    figure = new_figure(
        3.4 * columns, sum(tall) + 0.3 * rows, title, caption, about=about, banner=banner
    )
    widths = [1, 1, 0.1] * columns  # image, mask, gap
    grid = figure.add_gridspec(rows, 3 * columns, height_ratios=tall, width_ratios=widths)
    for position, (image, mask, name) in enumerate(examples):
        row, column = divmod(position, columns)
        left, right = (figure.add_subplot(grid[row, 3 * column + side]) for side in (0, 1))
        _show(left, image)
        _show(right, mask)
        left.set_anchor("NW")
        right.set_anchor("NW")
        left.set_title(textwrap.shorten(name, 44, placeholder="…"), fontsize=9, loc="left")
    return figure


def plot_augmentation(
    image: np.ndarray,
    mask: np.ndarray,
    augmentation: Augmentation,
    seed: int = 0,
    *,
    count: int = 7,
    about: Mapping[str, Any] | None = None,
    banner: str | None = None,
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
    about, banner
        As in `plot_examples`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    draws = [("original", image, mask)]
    for k in range(1, count + 1):
        changed = augmentation.apply(image, mask, np.random.default_rng([seed, k]))
        draws.append((f"draw {k}", *changed))
    columns = min(4, len(draws))
    rows = -(-len(draws) // columns)
    height = rows * (_row_height([(image,)], 2.1) + 0.25)
    legend = [_handle(TRUTH, "mask, moved by the same warp as the image")]
    changes = f"1 image, {count} changes of it, seed {seed}"
    caption = describe(about, changes, "no scores", model=False)
    figure = new_figure(
        2.2 * columns, height, "One training image and random changes of it", caption,
        about=about, banner=banner, legend=legend,
    )  # fmt: skip
    for position, (name, picture, outline) in enumerate(draws):
        axes = figure.add_subplot(rows, columns, position + 1)
        _show(axes, picture)
        _contour(axes, outline, TRUTH)
        axes.set_title(name, fontsize=9)
    return figure


def plot_predictions(
    rows: Sequence[tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray, str]],
    *,
    title: str = "Predictions",
    about: Mapping[str, Any] | None = None,
    banner: str | None = None,
) -> Figure:
    """Show input, true mask, predicted probability and both contours, one image a row.

    The whole image is shown at its own aspect ratio. The text on the left gives the scores of this
    one image by the rule of `unet_lib.metrics`.

    Parameters
    ----------
    rows : sequence of (image, truth, probabilities, mask, title)
        float (H, W) or (H, W, 1) in [0, 1]; bool (H, W), or None where no truth is known;
        float (H, W) in [0, 1]; bool (H, W), the final mask; a short text.
    title, about, banner
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
            check_probabilities(check_mask(mask, "the predicted mask"), probabilities)
            if truth is not None:
                check_same_shape(check_mask(truth, "the true mask"), mask, "predicted mask")
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    side, text_width = 1.9, 1.35
    headers = ("input", "true mask", "predicted probability", "overlay")
    tall = [_row_height([row], side) for row in rows]
    legend = [_handle(TRUTH, "truth"), _handle(PREDICTED, "prediction (final mask)")]
    caption = describe(
        about,
        _count(len(rows), "image"),
        "scores on the left: per image, of this one",
        "probability: black 0, white 1",
    )
    figure = new_figure(
        text_width + 4 * side + 0.2, sum(tall) + 0.12 * len(rows) + 0.25, title, caption,
        about=about, banner=banner, legend=legend,
    )  # fmt: skip
    widths = [text_width, side, side, side, side]
    grid = figure.add_gridspec(len(rows), 5, height_ratios=tall, width_ratios=widths)
    for index, (image, truth, probabilities, mask, name) in enumerate(rows):
        panels = [figure.add_subplot(grid[index, column]) for column in range(5)]
        words = [*textwrap.wrap(name, 20), "", *_scores(truth, mask)]
        panels[0].text(0, 0.5, "\n".join(words), fontsize=8.5, va="center")
        panels[0].set_axis_off()
        _show(panels[1], image)
        _show(panels[2], truth, empty="no truth given")
        _show(panels[3], probabilities)
        _show(panels[4], image)
        if truth is not None:
            _contour(panels[4], truth, TRUTH)
        _contour(panels[4], mask, PREDICTED)
        for axes, header in zip(panels[1:], headers, strict=True):
            axes.set_title(header if index == 0 else "", fontsize=9)
    return figure


def _scores(truth: np.ndarray | None, mask: np.ndarray) -> list[str]:
    if truth is None:
        return []
    score = score_case(truth, mask, name="image")
    if score.has_lesion:
        found = ["lesion missed"] if score.missed else []
        return [f"Dice {score.dice:.2f}", f"IoU {score.iou:.2f}", *found]
    if score.predicted_empty:
        return ["no lesion:", "left empty"]
    return ["no lesion: false", f"area {score.false_positive_area:.1%} of image"]


def _show(axes: Axes, picture: np.ndarray | None, empty: str = "") -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        axes.text(0.5, 0.5, empty, ha="center", va="center", transform=axes.transAxes, fontsize=8)
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


def _row_height(rows: Sequence[Sequence[Any]], side: float) -> float:
    """Inches for a row of images of width `side`; very tall images become narrower instead."""
    ratios = [row[0].shape[0] / row[0].shape[1] for row in rows]
    return side * min(max(*ratios, 0.35), 1.3)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _require(rows: Sequence[Any], noun: str) -> None:
    if not len(rows):
        raise ValueError(f"nothing to show: expected at least one {noun}, got none")
