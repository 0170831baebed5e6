"""What the network says of one picture: masks, lesions, how it is shown and saved."""

from __future__ import annotations

import base64
import csv
import io
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from unet_lib.files import folder_lock, read_rows, write_atomic
from unet_lib.images import Frame, picture_name, write_image
from unet_lib.inference.lesions import Cleaning, Lesion, find_lesions
from unet_lib.shift import Shift

LESIONS = "lesions.csv"
COLUMNS = {  # of lesions.csv, and how their values are written
    **dict.fromkeys(("image", "frame", "lesion", "area_px"), ""),
    "area_fraction": ".6f",
    **dict.fromkeys(("left", "top", "width", "height"), ""),
    "mean_probability": ".4f",
    **dict.fromkeys(("area_mm2", "width_mm", "height_mm", "shift_distance", "shift_limit"), ".2f"),
    "unreadable": "",
}
_MEASURES = list(COLUMNS)[5:13]  # named as in `Lesion`
_ORANGE = (230, 159, 0)  # Okabe & Ito's colour-blind-safe palette


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """What the network says of one picture; all arrays have the picture's own size.

    A notebook shows it as the picture with the mask in it, above its lesions.

    Parameters
    ----------
    image : ndarray of float32, shape (H, W, 1)
        In [0, 1], as read.
    probabilities : ndarray of float32, shape (H, W)
        Of lesion.
    mask : ndarray of bool, shape (H, W)
        After threshold and cleaning.
    frame : Frame
        What the file holds: stored values, frame number, pixel sizes.
    shift : Shift, optional
        How far the picture is from the training images; None where the model does not know them.
    name : str
        File name of the picture.
    threshold, cleaning
        What made the mask of the probabilities.
    """

    image: np.ndarray
    probabilities: np.ndarray
    mask: np.ndarray
    frame: Frame
    shift: Shift | None = None
    name: str = "image"
    threshold: float = 0.5
    cleaning: Cleaning = field(default_factory=Cleaning)

    @property
    def lesions(self) -> list[Lesion]:
        """The connected components of the mask, the largest first; in mm where that is known."""
        return find_lesions(self.mask, self.probabilities, self.frame.regions)

    @property
    def result_name(self) -> str:
        """What its results are called: the picture's name without ending, and the frame if many."""
        digits = max(3, len(str(self.frame.count)))
        frame = f"_frame{self.frame.number:0{digits}}" if self.frame.count > 1 else ""
        return picture_name(Path(self.name)) + frame

    def at(self, threshold: float) -> Segmentation:
        """Return the segmentation at another threshold, in (0, 1), of the same probabilities.

        Raises
        ------
        ValueError
            The threshold is out of range.
        """
        threshold = check_threshold(threshold)
        mask = self.cleaning.apply(self.probabilities >= threshold, self.probabilities)
        return replace(self, mask=mask, threshold=threshold)

    def rows(self) -> list[dict[str, Any]]:
        """Return the lines of ``lesions.csv``: one a lesion, or one of lesion 0; None: unknown."""
        common = dict.fromkeys(COLUMNS) | {"image": self.name, "frame": self.frame.number}
        if self.shift:
            common |= {"shift_distance": self.shift.distance, "shift_limit": self.shift.limit}
        rows = [
            common
            | {"lesion": number, "area_px": lesion.area}
            | {"area_fraction": lesion.area / self.mask.size}
            | {measure: getattr(lesion, measure) for measure in _MEASURES}
            for number, lesion in enumerate(self.lesions, start=1)
        ]
        return rows or [common | {"lesion": 0, "area_px": 0, "area_fraction": 0.0}]

    def overlay(self, fill: float = 0.25) -> np.ndarray:
        """Draw the mask into the picture; RGB, uint8 (H, W, 3).

        Parameters
        ----------
        fill : float
            Opacity of the area, 0 to 1. The outline, the outermost pixels of the mask, is opaque,
            about a 300th of the longer side wide and at least one pixel.
        """
        grey = np.round(self.image[..., 0] * 255).astype(np.uint8)
        picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
        if fill:
            mixed = picture[self.mask] * (1 - fill) + np.multiply(_ORANGE, fill)
            picture[self.mask] = np.round(mixed).astype(np.uint8)
        mask = self.mask.astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        thickness = max(1, round(max(mask.shape) / 300))
        # Not anti-aliased: that leaves a lesion of one pixel as good as invisible.
        return cv2.drawContours(picture, contours, -1, _ORANGE, thickness, cv2.LINE_8)

    def save(self, folder: str | Path, *, table: bool = True) -> Path:
        """Write what the command segment writes of this picture.

        Parameters
        ----------
        folder : str or Path
            Made when absent. Gets ``<result_name>_pred.png`` (0 and 255) and
            ``<result_name>_overlay.png`` (the outline); results of the same name are replaced.
        table : bool
            Also put the `rows` into the folder's ``lesions.csv``, instead of earlier ones of the
            same picture and frame.

        Returns
        -------
        Path
            The mask's file.

        Raises
        ------
        WriteError
            A file cannot be written.
        ValueError
            The picture lies in the folder, or the ``lesions.csv`` there is another table.
        """
        folder = Path(folder)
        if (folder / self.name).exists():
            raise ValueError(
                f"{folder}: holds the picture {self.name}; results are never written among inputs. "
                "Choose another folder."
            )
        with folder_lock(folder, wait=True):
            others = self._rows_of_others(folder / LESIONS) if table else []
            write_image(folder / f"{self.result_name}_overlay.png", self.overlay(fill=0))
            path = write_image(folder / f"{self.result_name}_pred.png", self.mask)
            if table:
                write_lesions(folder / LESIONS, [*others, *self.rows()])
        return path

    def _rows_of_others(self, path: Path) -> list[dict[str, Any]]:
        header, *lines = read_rows(path) if path.exists() else [list(COLUMNS)]
        if header != list(COLUMNS):
            raise ValueError(f"{path}: not a table of lesions; move it, or choose another folder.")
        rows = [dict(zip(header, line, strict=True)) for line in lines]
        own = (self.name, ""), (self.name, str(self.frame.number))
        return [row for row in rows if (row["image"], row["frame"]) not in own]

    def __repr__(self) -> str:
        height, width = self.mask.shape
        frame = f" frame {self.frame.number} of {self.frame.count}" * (self.frame.count > 1)
        unlike = "; unlike the training images" if self.shift and self.shift.flagged else ""
        count = len(self.lesions)
        return (
            f"<Segmentation of {self.name}{frame}: {height} x {width} pixels, "
            f"{count} lesion{'s' * (count != 1)} at threshold {self.threshold:g}{unlike}>"
        )

    def _repr_html_(self) -> str:
        rows = self.rows() if self.mask.any() else []
        shown = [
            c for c in ("lesion", "area_px", *_MEASURES) if any(r[c] is not None for r in rows)
        ]
        cells = [[_cell(row[c], COLUMNS[c]) for c in shown] for row in rows]
        lines = ["<th>".join(["<tr>", *shown]), *("<td>".join(["<tr>", *line]) for line in cells)]
        text = repr(self)[1:-1] + f"; {self.shift}" * bool(self.shift and self.shift.flagged)
        png = cv2.imencode(".png", cv2.cvtColor(self.overlay(), cv2.COLOR_RGB2BGR))[1]
        return (
            f'<figure><img alt="" src="data:image/png;base64,'
            f'{base64.b64encode(png).decode()}"><figcaption>'
            f"{escape(text.encode(errors='replace').decode())}. Not a medical device.</figcaption>"
            f"<table>{''.join(lines) if rows else ''}</table></figure>"
        )


def check_threshold(threshold: float) -> float:
    """Return a threshold as a float; ValueError where it does not lie between 0 and 1."""
    if not (isinstance(threshold, numbers.Real) and 0 < threshold < 1):
        raise ValueError(f"threshold must lie between 0 and 1; received {threshold!r}.")
    return float(threshold)


def write_lesions(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``lesions.csv`` whole or not at all."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([_cell(row.get(c), spec) for c, spec in COLUMNS.items()] for row in rows)
    write_atomic(path, text.getvalue())


def _cell(value: Any, spec: str) -> str:
    return "" if value is None else value if isinstance(value, str) else format(value, spec)
