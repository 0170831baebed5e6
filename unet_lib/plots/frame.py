"""What all figures share: size, title, the line that says what is shown, banner, colours."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from unet_lib.files import atomic_path

PHANTOM_BANNER = "PHANTOMS (synthetic images): not a clinical result"
SEEN_BANNER = (
    "TRAINING IMAGES: not a test (used to train or to choose the model, or near-duplicates of such)"
)

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"  # on white paper
SKY, AMBER = "#56B4E9", "#E69F00"  # on dark ultrasound
LINE = 0.19  # inches a line of small text takes
DPI = 110
_FOLD = re.compile(r", fold \d+$")


class NotebookFigure(Figure):
    """A figure that a notebook displays without pyplot and without a magic command."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def banner_for(about: Mapping[str, Any] | None) -> str:
    """Return the warning that every number from this evaluation must carry, or "".

    Parameters
    ----------
    about : mapping or None
        `Evaluation.about`; its keys ``data_kind``, ``seen_in_training`` and ``own_split`` decide.

    Returns
    -------
    str
        One warning a line.
    """
    about = about or {}
    # Of merged folds the kinds are listed; one that is of phantoms is enough.
    lines = [PHANTOM_BANNER] if "phantoms" in str(about.get("data_kind")) else []
    if about.get("seen_in_training"):
        lines.append(SEEN_BANNER)
    leaks = str(about.get("own_split") or "0 of")
    if not leaks.startswith("0 of"):
        lines.append(f"LEAKING SPLIT of the data set's authors: {leaks}")
    return "\n".join(lines)


def describe(about: Mapping[str, Any] | None, *more: str, model: bool = True) -> str:
    """Say in one line which model, data, split, fold, part and threshold a figure shows.

    Model, data and fold are named as unknown where they are; parts that are no test say so.

    Parameters
    ----------
    about : mapping or None
        `Evaluation.about` or any mapping with some of these keys; others are left out.
    *more : str
        Further parts, for example "156 images".
    model : bool
        Whether a model has to do with it.

    Returns
    -------
    str
        For example "model: unet · data: BUSI · fold: 0 · part: test · 156 images".
    """
    known = {key: value for key, value in (about or {}).items() if value not in (None, "")}
    named = {"model": known.get("model", "not named")} if model else {}
    named["data"] = known.get("data", "not named")
    if "split" in known:  # of merged folds one name, and the folds by themselves
        names = (_FOLD.sub("", name) for name in str(known["split"]).split("; "))
        named["split"] = "; ".join(dict.fromkeys(names))
    if "fold" in known or "split" not in known:
        named["fold"] = known.get("fold", "not named")
    if "part" in known:
        no_test = known["part"] in ("train", "validation")
        named["part"] = f"{known['part']} (no test)" if no_test else known["part"]
    if model and "threshold" in known:
        named["threshold"] = known["threshold"]
    parts = [f"{key}: {value}" for key, value in named.items()]
    if model and "seen_in_training" in (about or {}) and "seen_in_training" not in known:
        parts.append("training images unknown")
    return " · ".join([*parts, *(part for part in more if part)])


def new_figure(
    width: float,
    height: float,
    title: str,
    caption: str = "",
    *,
    about: Mapping[str, Any] | None = None,
    banner: str | None = None,
    legend: Sequence[Artist] = (),
    legend_columns: int = 4,
) -> Figure:
    """Make an empty figure; the panels get `height`, the texts their own room around them.

    Parameters
    ----------
    width, height : float
        Inches of the panels.
    title, caption : str
        Wrapped to the width; the caption comes below the panels.
    about : mapping, optional
        As `Evaluation.about`; decides on the banner, which comes first, on yellow.
    banner : str, optional
        In place of the banner that `about` asks for.
    legend : sequence of Artist
        Handles with labels, shown between panels and caption: where they cannot hide a curve.
    legend_columns : int
        Handles in a row.

    Returns
    -------
    matplotlib.figure.Figure
        With a constrained layout that keeps panels clear of the texts.
    """
    title = textwrap.fill(title, int(width * 10.5))
    caption = _wrap_parts(caption, int(width * 14))
    warning = banner_for(about) if banner is None else banner
    banner = "\n".join(textwrap.fill(line, int(width * 11)) for line in warning.splitlines())
    banner_room = (_lines(banner) * 0.2 + 0.16) if banner else 0
    top = banner_room + _lines(title) * 0.22 + 0.1
    caption_room = _lines(caption) * LINE + 0.08
    bottom = caption_room + (0.21 * -(-len(legend) // legend_columns) + 0.1 if legend else 0)
    total = height + top + bottom
    figure = NotebookFigure(figsize=(width, total), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0, bottom / total, 1, height / total))
    if banner:
        box = {"boxstyle": "square,pad=0.35", "facecolor": "#FFF3BF", "edgecolor": "#7A5C00"}
        place = {"ha": "center", "va": "center", "fontsize": 10, "fontweight": "bold"}
        figure.text(0.5, 1 - banner_room / 2 / total, banner, bbox=box, **place)
    place = {"ha": "center", "va": "top", "fontsize": 11, "fontweight": "bold"}
    figure.text(0.5, 1 - (banner_room + 0.08) / total, title, **place)
    place = {"ha": "center", "va": "bottom", "fontsize": 8.5, "color": "#333333"}
    figure.text(0.5, 0.05 / total, caption, **place)
    if legend:
        figure.legend(
            handles=list(legend), loc="lower center", ncols=legend_columns, frameon=False,
            bbox_to_anchor=(0.5, caption_room / total), fontsize=9, borderaxespad=0.1,
        )  # fmt: skip
    return figure


def _wrap_parts(text: str, width: int) -> str:
    """Wrap a text of parts with " · " between them, at the parts where they are short enough."""
    parts = text.split(" · ")
    whole = [part.replace(" ", "\u00a0") if len(part) < width else part for part in parts]
    return textwrap.fill("\u00a0· ".join(whole), width, break_on_hyphens=False)


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


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
