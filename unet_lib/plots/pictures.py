"""Figures that show images: examples, augmentation, predictions beside the truth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from unet_lib.metrics import count_pixels, score_case
from unet_lib.metrics.scores import check_probabilities
from unet_lib.plots.figure import AMBER, SKY, add_legend, new_figure
from unet_lib.provenance import Provenance

if TYPE_CHECKING:
    from unet_lib.augment import Augmentation

# Solid against dashed, so that a grey print keeps truth and prediction apart.
TRUTH, PREDICTED = {"colors": SKY, "linestyles": "solid"}, {"colors": AMBER, "linestyles": "dashed"}
HALO = [patheffects.Stroke(linewidth=2.4, foreground="black"), patheffects.Normal()]


def plot_examples(
    examples: Sequence[tuple[np.ndarray, np.ndarray, str]],
    *,
    columns: int = 3,
    title: str = "Images and their masks",
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Figure:
    """Show images, each with its mask drawn into it on the right.

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

    Raises
    ------
    ValueError
        Without examples.
    """
    count, columns = _count(examples), min(columns, len(examples))
    rows, words = -(-len(examples) // columns), (count, "no scores")
    size = (3.6 * columns, 1.8 * rows)
    figure, panels = new_figure(*size, title, provenance, *words, model=False, legend=1)
    grid = panels.subplots(rows, 2 * columns, squeeze=False).reshape(-1, 2)
    for (left, right), (image, mask, name) in zip(grid, examples, strict=False):
        _show(left, image)
        _show(right, image)
        _draw(right, mask, TRUTH)
        left.set_title(textwrap.shorten(name, 44, placeholder="…"), fontsize=9, loc="left")
    for axes in grid[len(examples) :].flat:
        axes.remove()
    _add_legend(panels, {"mask": TRUTH})
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
    """Show one training pair and random changes of it.

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
    """
    rows, words = -(-(count + 1) // 4), (f"1 image, {count} changes of it, seed {seed}",)
    title = "One training image and random changes of it"
    size, words = (9.2, 2.3 * rows), (*words, "no scores")
    figure, panels = new_figure(*size, title, provenance, *words, model=False, legend=1)
    for k in range(count + 1):
        pair = image, mask
        if k:
            pair = augmentation.apply(image, mask, np.random.default_rng([seed, k]))
        axes = panels.add_subplot(rows, 4, k + 1)
        _show(axes, pair[0])
        _draw(axes, pair[1], TRUTH)
        axes.set_title(f"draw {k}" if k else "original", fontsize=9)
    _add_legend(panels, {"mask, moved by the same warp as the image": TRUTH})
    return figure


def plot_predictions(
    rows: Sequence[tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray, str]],
    *,
    title: str = "Predictions",
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Figure:
    """Show input, truth, predicted probability, and truth and prediction together, one image a row.

    The whole image is shown at its own aspect ratio. The text above it gives the scores of this
    one image by the rule of `unet_lib.metrics`.

    Parameters
    ----------
    rows : sequence of (image, truth, probabilities, mask, title)
        float (H, W) or (H, W, 1) in [0, 1]; bool (H, W), or None where no truth is known;
        float (H, W) in [0, 1]; bool (H, W), the final mask; a short text.
    title, provenance
        As in `plot_examples`.

    Raises
    ------
    ValueError
        Without rows; when truth, mask and probabilities differ in shape, masks are not bool, or
        probabilities are not in [0, 1].
    """
    words = _count(rows), "scores: per image, of this one"
    for _, truth, probabilities, mask, name in rows:
        try:
            count_pixels(mask if truth is None else truth, mask)
            check_probabilities(mask, probabilities)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    size, heights = (9.6, 2.3 * len(rows) + 0.3), [1] * len(rows) + [0.04]
    figure, panels = new_figure(*size, title, provenance, *words, legend=1)
    *grid, bar = panels.subplots(len(rows) + 1, 4, height_ratios=heights)
    for axes, (image, truth, probabilities, mask, name) in zip(grid, rows, strict=True):
        text = f"{textwrap.shorten(name, 40, placeholder='…')}\n{_scores(truth, mask)}"
        axes[0].set_title(text, fontsize=8.5, loc="left")
        for panel in axes[[0, 1, 3]]:
            _show(panel, image)
        shown = _show(axes[2], probabilities, cmap="inferno")
        for panel in axes[[1, 3]] if truth is not None else ():
            _draw(panel, truth, TRUTH)
        if truth is None:
            axes[1].text(0.5, 0.5, "no truth given", transform=axes[1].transAxes, ha="center")
            axes[1].images[0].remove()
        _draw(axes[3], mask, PREDICTED)
    for axes, header in zip(grid[0][1:], ("truth", "probability", "result"), strict=True):
        axes.set_title(header, fontsize=9)
    panels.colorbar(shown, cax=bar[2], orientation="horizontal").ax.tick_params(labelsize=8)
    for axes in bar[[0, 1, 3]]:
        axes.remove()
    _add_legend(panels, {"truth": TRUTH, "prediction (final mask)": PREDICTED})
    return figure


def _scores(truth: np.ndarray | None, mask: np.ndarray) -> str:
    if truth is None:
        return ""
    score = score_case(truth, mask, name="image")
    if score.has_lesion:
        return f"Dice {score.dice:.2f}, IoU {score.iou:.2f}{', missed' * score.missed}"
    area = f"false area {score.false_positive_area:.1%} of image"
    return f"no lesion: {'left empty' if score.predicted_empty else area}"


def _show(axes: Axes, picture: np.ndarray, cmap: str = "gray") -> AxesImage:
    axes.set_xticks([])
    axes.set_yticks([])
    if picture.ndim == 3:  # several input channels: the first is shown
        picture = picture[..., 0]
    return axes.imshow(picture, cmap=cmap, vmin=0, vmax=1, aspect="equal")


def _draw(axes: Axes, mask: np.ndarray, style: Mapping[str, Any]) -> None:
    """Draw a mask as an outline around a translucent fill."""
    height, width = mask.shape
    # A border of background closes the line of a lesion that touches the edge of the image.
    framed = np.pad(mask.astype(float), 1)
    grid = np.arange(-1, width + 1), np.arange(-1, height + 1), framed
    if mask.any():
        axes.contourf(*grid, levels=[0.5, 1.5], colors=style["colors"], alpha=0.25)
        axes.contour(*grid, levels=[0.5], linewidths=1.4, **style).set_path_effects(HALO)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _add_legend(panels: Any, styles: Mapping[str, Mapping[str, Any]]) -> None:
    for label, style in styles.items():
        line = {"color": style["colors"], "linestyle": style["linestyles"], "path_effects": HALO}
        panels.axes[0].plot([], [], label=label, scalex=False, scaley=False, **line)
    add_legend(panels, len(styles))


def _count(rows: Sequence[Any]) -> str:
    if not len(rows):
        raise ValueError("nothing to show: expected at least one image, got none")
    return f"{len(rows)} image{'s' * (len(rows) > 1)}"
