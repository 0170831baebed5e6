"""What all figures share: size, title, the line that says what is shown, banner, colours."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from unet_lib.files import atomic_path
from unet_lib.provenance import Provenance

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # on white paper
SKY, AMBER = "#56B4E9", "#E69F00"  # on dark ultrasound
# Training and validation, all images and lesion images: colour and line style both differ.
STYLES = ({"color": BLUE, "linestyle": "-"}, {"color": VERMILION, "linestyle": "--"})
_YELLOW = {"boxstyle": "square,pad=0.25", "facecolor": "#FFF3BF", "edgecolor": "#7A5C00"}


class NotebookFigure(Figure):
    """A figure that a notebook displays without pyplot and without a magic command."""

    def _repr_png_(self) -> bytes:
        return png(self, dpi=110)


def new_figure(
    width: float,
    height: float,
    title: str,
    caption: str,
    provenance: Provenance | Mapping[str, Any] | None,
    *,
    legend: Sequence[Artist] = (),
    columns: int = 4,
) -> tuple[Figure, SubFigure]:
    """Make a figure and, between banner and caption, the part for the panels of about this size.

    Its layout is constrained, so panels keep clear of title, legend, banner and caption.
    """
    banner = Provenance.of(provenance).banner
    tall = height + 1.1 + 0.25 * len(legend) / columns + 0.3 * len(banner.splitlines())
    figure = NotebookFigure(figsize=(width, tall), layout="constrained", facecolor="white")
    # A part of the caption that is short is not broken between two lines.
    parts = [p.replace(" ", "\u00a0") if len(p) < 60 else p for p in caption.split(" · ")]
    caption = textwrap.fill("\u00a0· ".join(parts), int(width * 14), break_on_hyphens=False)
    figure.supxlabel(caption, fontsize=8.5, color="#333333")
    if banner:
        figure.suptitle(banner, fontsize=10, fontweight="bold", wrap=True, bbox=_YELLOW)
    panels = figure.subfigures()
    panels.suptitle(title, fontsize=11, fontweight="bold", wrap=True)
    if legend:
        place = {"loc": "outside lower center", "ncols": columns}
        panels.legend(handles=list(legend), frameon=False, fontsize=9, **place)
    return figure, panels


def score_axes(axes: Axes, x: str, y: str, **limits: tuple[float, float]) -> None:
    """Label axes on which both directions go from 0 to 1, unless `limits` say otherwise."""
    axes.set(**{"xlabel": x, "ylabel": y, "xlim": (-0.01, 1.01), "ylim": (-0.02, 1.02)} | limits)
    axes.grid(alpha=0.3)


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure as a file, whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or Path
        The suffix decides on the format (.png, .pdf, .svg).
    dpi : int
        Pixels per inch.

    Returns
    -------
    Path
        `path`.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip("."), dpi=dpi)
    return path
