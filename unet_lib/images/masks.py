"""The one rule by which masks are read, truths and predictions alike.

1. Black (0) is background and the one other value or colour is lesion, whatever it is, also where
   its luminance is lost (a label 1 in the blue channel). Black alone is an empty mask.
2. Values in between are those of JPEG and smoothed edges: within a fifth of the maximum from 0 or
   from it, or else within 3 pixels of both. They are cut at half the maximum, which is at least .8
   of white: else it is a soft map, of which nobody knows the cut.
3. Of two colours without black, such as purple and yellow, the darker is background, where it is
   darker than a fifth of the other.
4. A mask is doubtful that has one value other than black, marks more than half of the border or
   three quarters of the picture, has large holes or fills a large rectangle. It is read as the
   others of its set where fewer are doubtful than clear, but not a negative by its four corners.
5. All else is refused, where no rule of the user's (`MaskSet`) says which values are lesion.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from unet_lib.images.decode import read_pixels
from unet_lib.images.frames import ImageError, PathLike, as_grey
from unet_lib.images.outlines import draw_outline, is_outline

_NEAR, _EDGE = 0.2, 3  # of the maximum, from 0 or from it; pixels from an edge, of values between
_MOST_BETWEEN = 0.25  # of the pixels; more of them are a picture
_MIN_MAXIMUM = 0.8, 0.25  # of full scale: of many values, of two colours; below: map or labels
_MOST_OF_BORDER, _MOST_OF_PICTURE = 0.5, 0.75  # BUSI and BUS-BRA: at most .033 and .575
_MOST_HOLES, _MOST_WITH_HOLES = (0.25, 0.01), 0.5  # of marked (BUSI: at most .0004), of picture
_FEW_VALUES, _PLATEAU = 8, 5  # values drawn by hand or program; side in pixels of a label's inside
_SAME = 16 / 255  # of full scale: one colour, saved as JPEG or not
_BY_RULE = (
    " by a rule such as 0,1:2, 0:#ff0000 (mask_rule, --mask-rule; of predictions --prediction-rule)"
)
_PART = r"(\d+(\.\d+)?(-\d+(\.\d+)?)?|#[\da-fA-F]{6})"
_RULE = re.compile(rf"{_PART}(,{_PART})*:{_PART}(,{_PART})*")
_ONE_AT_A_TIME = threading.Lock()  # of all sets: a set can be copied


def read_masks(
    paths: PathLike | Iterable[PathLike],
    shape: tuple[int, int] | None = None,
    *,
    image_path: PathLike | None = None,
    mask_set: MaskSet | None = None,
) -> np.ndarray:
    """Read all masks of one image and join them with OR; what a mask is: docs/data.md.

    Parameters
    ----------
    paths : path-like or iterable of path-like
        Mask files. Without any, `shape` gives an empty mask.
    shape : (int, int), optional
        Height and width that every mask must have.
    image_path : path-like, optional
        The image that the masks belong to, named in the message when the sizes differ.
    mask_set : MaskSet, optional
        All masks of the data set; left out: those of this image alone.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    ImageError
        Unreadable file, other size than `shape` or than the first mask, no mask or doubtful.
    """
    files = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(p) for p in paths]
    if not files and shape is None:
        raise ImageError("read_masks: no mask files and no shape were given; give one of them.")
    owner = "the image" if image_path is None else str(image_path)
    joined = None if shape is None else np.zeros(shape, bool)
    among = mask_set or MaskSet(files)
    for path in files:
        mask = among.mask(read_mask_pixels(path), path)
        if joined is None:
            joined, owner = mask, str(path)
        if mask.shape != joined.shape:
            raise ImageError(
                f"{path}: the mask is {mask.shape[0]} x {mask.shape[1]} (height x width) but "
                f"{owner} is {joined.shape[0]} x {joined.shape[1]}. A mask must have the size of "
                "its image: check that both belong together and that neither was resized."
            )
        joined = joined | mask
    return joined


def oddity_of(mask: np.ndarray) -> str:
    """Say what of a mask, bool (H, W), is unlike lesions: border, size, holes, corners."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    if border <= _MOST_OF_BORDER and mask.mean() <= _MOST_OF_PICTURE:
        holes = np.pad(np.uint8(~mask), 1, constant_values=1)
        cv2.floodFill(holes, None, (0, 0), 0)
        share = np.count_nonzero(holes) / max(1, np.count_nonzero(mask))
        large = mask.mean() * (1 + share) > _MOST_WITH_HOLES  # a negative in a frame, or a contour
        if share > (_MOST_HOLES[1] if large else _MOST_HOLES[0]):
            return f"has holes of {100 * share:.0f} % of what it marks"
        ends = [np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0)] if large else []
        return "is a rectangle with a gap" if large and mask[np.ix_(*ends)].sum() >= 3 else ""
    return f"marks {100 * border:.0f} % of the border and {100 * mask.mean():.0f} % of the picture"


class _Colours(NamedTuple):
    """What a mask looks like by itself; colours are float (3,) of full scale 1, None for none."""

    background: np.ndarray | None
    lesion: np.ndarray | None
    doubt: str  # empty: clear

    @classmethod
    def of(cls, pixels: np.ndarray, mask: np.ndarray, doubt: str) -> _Colours:
        """Take the median colours of background and lesion."""
        full = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1.0
        background, lesion = (
            np.broadcast_to(np.median(part.astype(np.float32), axis=0) / full, 3)
            if len(part)
            else None
            for part in (pixels[~mask], pixels[mask])
        )
        return cls(background, lesion, doubt)

    def is_background(self, clear: Sequence[_Colours]) -> bool:
        """Whether the one colour of this mask is background in clear ones, and never lesion."""
        return (
            self.background is None
            and any(_same(self.lesion, c.background) for c in clear)
            and not any(_same(self.lesion, c.lesion) for c in clear)
        )

    def is_like(self, clear: _Colours) -> bool:
        """Whether the lesion has the colour of a clear mask, and the background too."""
        background = self.background is None or _same(self.background, clear.background)
        return background and _same(self.lesion, clear.lesion)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((np.abs(one - other) <= _SAME).all())


class MaskSet:
    """The masks that are judged together: of a data set, or of a folder of predictions.

    `rule` says which grey values are background and which are lesion, where the files do not tell:
    ``255:0`` for negatives, ``0,1:2`` for labels, ``0-127:128-255`` for soft maps, ``0:#ff0000``
    for colours.
    """

    def __init__(self, paths: Iterable[PathLike], rule: str | None = None) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.rule, self._sides = rule, _sides_of(rule) if rule else []
        self._looked: list[_Colours] = []

    def mask(self, pixels: np.ndarray, path: PathLike) -> np.ndarray:
        """Turn stored pixels, (H, W) or (H, W, 3), to a mask, bool (H, W); see the module."""
        if self._sides and not is_outline(Path(path)):
            return self._by_rule(pixels, path)
        mask, doubt = _read(pixels, path)
        if not doubt:
            return mask
        own, every = _Colours.of(pixels, mask, doubt), self._every()
        clear = [c for c in every if not c.doubt and c.lesion is not None]
        doubtful = sum(bool(c.doubt) and not c.is_background(clear) for c in every)
        if own.is_background(clear):
            return ~mask
        negative = mask[np.ix_([0, -1], [0, -1])].all() and not mask.all()
        if len(clear) > doubtful and any(map(own.is_like, clear)) and not negative:
            return mask
        raise ImageError(
            f"{path}: {doubt}. Whether that is a lesion, a negative or an empty mask in colours, "
            f"its set does not say: of {len(self.paths)} masks {len(clear)} are clear, {doubtful} "
            "doubtful. Save the masks with a black background and one other value for the lesion "
            "(a negative: 255 less the mask; an empty mask: all black; an outline: filled), or say "
            f"which values are background and which lesion{_BY_RULE}, or take this one out."
        )

    def _by_rule(self, pixels: np.ndarray, path: PathLike) -> np.ndarray:
        """Read a mask as the user says; what its own pixels contradict is refused."""
        colours = np.broadcast_to(np.atleast_3d(pixels), (*pixels.shape[:2], 3))
        points = np.dstack([colours.max(axis=2), colours])
        background, lesion = (
            np.any([((points >= low) & (points <= high)).all(axis=2) for low, high in side], axis=0)
            for side in self._sides
        )
        clear, wrong, brightnesses = False, "", len(np.unique(points[..., 0]))
        with suppress(ImageError):
            clear = not _read(pixels, path)[1]
        if len(rest := pixels[~(background | lesion)]):
            wrong = f"{len(rest)} pixels have a value that it does not name, {rest[0].tolist()}"
        elif "#" not in self.rule and brightnesses < len(_first_colours(pixels, _FEW_VALUES + 1)):
            wrong = "several colours have one brightness; name colours, such as 0:#ff0000"
        elif clear and (odd := oddity_of(lesion)):
            wrong = f"read so it {odd}, and it is clear without a rule"
        if wrong:
            raise ImageError(
                f"{path}: the mask rule {self.rule} contradicts this mask: {wrong}. Mend the rule, "
                "or save this mask as it says."
            )
        return lesion

    def _every(self) -> list[_Colours]:
        """Look at every mask of the set, once, for what it says of a doubtful one."""
        with _ONE_AT_A_TIME:
            if not self._looked:
                with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                    self._looked = [colours for colours in pool.map(_look, self.paths) if colours]
            return self._looked


def _sides_of(rule: str) -> list[list[np.ndarray]]:
    """Return the boxes of background and of lesion that a rule names."""
    sides = [
        [_box(part) for part in side.split(",")]
        for side in (rule.split(":") if _RULE.fullmatch(rule) else "")
    ]
    turned = any((low > high).any() for side in sides for low, high in side)
    shared = ((np.maximum(b[0], w[0]) <= np.minimum(b[1], w[1])).all() for b, w in product(*sides))
    if not sides or turned or any(shared):
        raise ValueError(
            f"mask rule {rule!r}: expected BACKGROUND:LESION in grey values, ranges or colours "
            "that share none: 255:0 (negatives), 0,1:2 (labels), 0-127:128-255 (soft maps), "
            "0:#ff0000 (colours)."
        )
    return sides


def _box(part: str) -> np.ndarray:
    """Return the least and the greatest brightness, red, green and blue of a part of a rule."""
    if part[0] == "#":
        colour = bytes.fromhex(part[1:])
        return np.array([[max(colour), *colour]] * 2)
    ends = [float(end) for end in part.split("-")]
    return np.array([[ends[0], 0, 0, 0], [ends[-1], *[np.inf] * 3]])


def _look(path: Path) -> _Colours | None:
    try:
        pixels = read_mask_pixels(path)
        return _Colours.of(pixels, *_read(pixels, path))
    except ImageError:  # refused where it is read itself
        return None


def _read(pixels: np.ndarray, path: PathLike) -> tuple[np.ndarray, str]:
    """Read a mask by its own pixels; returned with what is doubtful, empty for nothing."""
    grey, colours = as_grey(pixels), _first_colours(pixels)
    marked = grey > 0 if pixels.ndim == 2 else pixels.any(axis=2)
    if len(colours) == 1 and marked.all():
        return marked, f"is of one single value, {colours[0].tolist()}"
    if len(colours) == 1 or (len(colours) == 2 and not marked.all()):
        return marked, oddity_of(marked)
    alike = len(np.unique(grey)) < 3 <= len(colours)  # colours of one luminance
    if not alike and _is_smoothed(grey, len(colours)) and not _has_labels(grey):
        mask = grey > float(grey.max()) / 2
        return mask, oddity_of(mask)
    if colours.ndim == 2:
        held = f"colours: {colours.tolist()}{', ...' if len(colours) > 2 else ''}"
    else:
        values, counts = np.unique(grey, return_counts=True)
        shown = ", ".join(f"{v} ({c} px)" for v, c in zip(values[:8], counts[:8], strict=True))
        held = f"{len(values)} grey values: {shown}{', ...' if len(values) > 8 else ''}"
    raise ImageError(
        f"{path}: not a mask: it holds {held}. Expected two, 0 for background and one other value "
        "for the lesion. Save it as PNG with 0 and 255, or say which values are background and "
        f"which lesion{_BY_RULE}; if it holds several labels, save one mask file per label."
    )


def _first_colours(pixels: np.ndarray, most: int = 3) -> np.ndarray:
    """Return the first different values (n,) or colours (n, 3) of a picture."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    rows = pixels.reshape(-1, *pixels.shape[2:])
    values = []
    while len(rows) and len(values) < most:
        values.append(rows[0])
        other = rows != rows[0]
        rows = rows[other if other.ndim == 1 else other.any(axis=1)]
    return np.array(values)


def _is_smoothed(grey: np.ndarray, colours: int) -> bool:
    """Whether values in between come from JPEG or smoothed edges and not from labels."""
    full = np.iinfo(grey.dtype).max if grey.dtype.kind in "iu" else 1.0
    high = float(grey.max())
    if not high >= full * _MIN_MAXIMUM[colours < 3] or not float(grey.min()) >= 0:  # also NaN
        return False
    dark, bright = grey <= _NEAR * high, grey >= (1 - _NEAR) * high
    between = ~(dark | bright)
    if not dark.any() or between.mean() > _MOST_BETWEEN:
        return False
    reach = np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8)
    near_dark, near_bright = (cv2.dilate(part.astype(np.uint8), reach) for part in (dark, bright))
    return not (between & ~((near_dark & near_bright).astype(bool))).any()


def _has_labels(grey: np.ndarray) -> bool:
    """Whether few values in between stand in a plateau, or are one: labels, not smoothed edges."""
    values = np.unique(grey)
    side = np.ones((_PLATEAU, _PLATEAU), np.uint8)
    return (
        len(values) == 3
        or len(values) <= _FEW_VALUES
        and any(cv2.erode((grey == value).astype(np.uint8), side).any() for value in values[1:-1])
    )


def read_mask_pixels(path: PathLike) -> np.ndarray:
    """Decode a mask as `read_pixels`, or draw LabelMe's outlines: uint8 (H, W), 0 and 255."""
    if is_outline(Path(path)):
        return draw_outline(Path(path))
    pixels = read_pixels(path)
    with open(path, "rb") as file:
        jpeg = file.read(3) == b"\xff\xd8\xff"
    if jpeg and 0 < pixels.max() < 255 * _MIN_MAXIMUM[1]:
        raise ImageError(
            f"{path}: not a mask: its brightest value is {pixels.max()}, and JPEG, which blurs "
            "values, spoils labels. Save it as PNG from where it was made."
        )
    return pixels
