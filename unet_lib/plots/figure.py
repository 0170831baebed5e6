"""One frame for all figures: size, title, the line that says what is shown, banner, colours."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from unet_lib.files import atomic_path
from unet_lib.provenance import Provenance

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # on white paper
SKY, AMBER = "#56B4E9", "#E69F00"  # on dark ultrasound
# Training and validation, all images and lesion images: colour and line style both differ.
STYLES = ({"color": BLUE, "linestyle": "-"}, {"color": VERMILION, "linestyle": "--"})
DOTTED = {"color": GREY, "linestyle": ":"}
YELLOW = {"boxstyle": "square,pad=0.25", "facecolor": "#FFF3BF", "edgecolor": "#7A5C00"}
NARROW = 4.6  # inches: the width of a figure that is readable on a phone


class NotebookFigure(Figure):
    """A figure that a notebook displays without pyplot and without a magic command."""

    def _repr_jpeg_(self) -> bytes:  # a third of a PNG: ultrasound is noise
        buffer = io.BytesIO()
        quality = {"quality": 70, "subsampling": 0, "optimize": True}
        self.savefig(buffer, format="jpeg", dpi=110, pil_kwargs=quality)
        return buffer.getvalue()


def new_figure(
    width: float,
    height: float,
    title: str,
    provenance: Provenance | Mapping[str, Any] | None,
    *details: str,
    model: bool = True,
    legend: int = 0,
) -> tuple[Figure, SubFigure]:
    """Make a figure and, between banner and caption, the part for panels of about this size.

    The caption says model (where `model`), data and `details`; `legend` is the number of lines that
    `add_legend` will take. The layout is constrained, so that panels keep clear of all of it.
    """
    provenance = Provenance.of(provenance)
    # A part of the caption that is short is not broken between two lines.
    parts = provenance.describe(*details, model=model).split(" · ")
    parts = [part.replace(" ", "\u00a0") if len(part) < 60 else part for part in parts]
    lines = textwrap.wrap("\u00a0· ".join(parts), int(width * 14), break_on_hyphens=False)
    rows = 3 + len(lines) + 1.4 * legend + 2 * len(provenance.banner.splitlines())
    size = (width, height + 0.17 * rows)
    figure = NotebookFigure(figsize=size, layout="constrained", facecolor="white")
    figure.supxlabel("\n".join(lines), fontsize=8.5, color="#333333")
    if provenance.banner:
        style = {"fontsize": 9, "fontweight": "bold", "bbox": YELLOW}
        figure.suptitle(provenance.banner, wrap=True, **style)
    panels = figure.subfigures()
    panels.suptitle(title, fontsize=11, fontweight="bold", wrap=True)
    return figure, panels


def add_legend(panels: SubFigure, columns: int = 1) -> None:
    """Explain below the panels what has a label in the first of them."""
    style = {"loc": "outside lower center", "frameon": False, "fontsize": 9, "ncols": columns}
    panels.legend(*panels.axes[0].get_legend_handles_labels(), **style)


def said(figure: Figure) -> str:
    """Return the title, the legend and the texts of the panels, in place of the figure."""
    panels = figure.subfigs[0]
    texts = [text for legend in panels.legends for text in legend.get_texts()]
    texts += [text for axes in panels.axes for text in axes.texts]
    parts = [panels.get_suptitle(), *(text.get_text() for text in texts)]
    return "; ".join(" ".join(part.split()) for part in parts)


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
    """Write a figure as a file, whole or not at all; return the path.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or Path
        The suffix decides on the format (.png, .pdf, .svg).
    dpi : int
        Pixels per inch.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip("."), dpi=dpi)
    return path
