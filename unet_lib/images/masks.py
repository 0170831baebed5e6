"""The one rule by which masks are read, truths and predictions alike.

1. Black (0) is background and the one other value or colour is lesion, whatever it is, also where
   its luminance is lost (a label 1 in the blue channel). Black alone is an empty mask.
2. Values in between are those of JPEG and of smoothed edges: all within a fifth of the maximum from
   0 or from the maximum, or else within 3 pixels of both. The cut is at half the maximum,
   which is at least .8 of white: else it is a soft map, of which nobody knows the cut.
3. Of two colours without black, such as purple and yellow, the darker is background, where it is
   darker than a fifth of the other.
4. A mask is doubtful that has one value other than black, or that marks more than half of the
   border or three quarters of the picture: it may be a negative, or an empty one in colours. It is
   read as the other masks of its set are, when those hold the same values and fewer of them are
   doubtful than clear.
5. All else is refused: several labels, soft maps, pictures, what stays in doubt.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from unet_lib.images.frames import ImageError, PathLike
from unet_lib.images.outlines import read_mask_pixels
from unet_lib.images.reading import as_grey

_NEAR = 0.2  # near 0, or near the maximum: within this share of the maximum
_EDGE = 3  # pixels: how far from an edge a smoothed mask may hold values in between
_MOST_BETWEEN = 0.25  # of the pixels; more of them are a picture
_MIN_MAXIMUM = 0.8, 0.25  # of full scale: of many values, of two colours; below: map or labels
_MOST_OF_BORDER, _MOST_OF_PICTURE = 0.5, 0.75  # BUSI and BUS-BRA: at most .033 and .575
_FEW_VALUES, _PLATEAU = 8, 5  # values drawn by hand or program; side in pixels of a label's inside
_SAME = 16 / 255  # of full scale: one colour, saved as JPEG or not
_ONE_AT_A_TIME = threading.Lock()


def read_masks(
    paths: PathLike | Iterable[PathLike],
    shape: tuple[int, int] | None = None,
    *,
    image_path: PathLike | None = None,
    colour_coded: bool = False,
    mask_set: MaskSet | None = None,
) -> np.ndarray:
    """Read all masks of one image and join them with OR; what a mask is: docs/data.md.

    Black is background and the one other value or colour is lesion. A mask that could be a
    negative, or is of one single colour, is judged by the others of its set.

    Parameters
    ----------
    paths : path-like or iterable of path-like
        Mask files. Without any, `shape` gives an empty mask.
    shape : (int, int), optional
        Height and width that every mask must have.
    image_path : path-like, optional
        The image that the masks belong to, named in the message when the sizes differ.
    colour_coded : bool
        The masks tell the class by colour, as in BUS-UCLM: black background, (0, 255, 0) benign,
        (255, 0, 0) malignant; any other colour is refused.
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
    files = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(p) for p in paths]
    if not files and shape is None:
        raise ImageError("read_masks: no mask files and no shape were given; give one of them.")
    owner = "the image" if image_path is None else str(image_path)
    joined = None if shape is None else np.zeros(shape, bool)
    among = mask_set or MaskSet(files)
    for path in files:
        pixels = read_mask_pixels(path)
        mask = as_colour_mask(pixels, path) if colour_coded else among.mask(pixels, path)
        if joined is None:
            joined, owner = mask, str(path)
        elif mask.shape != joined.shape:
            raise ImageError(
                f"{path}: the mask is {mask.shape[0]} x {mask.shape[1]} (height x width) but "
                f"{owner} is {joined.shape[0]} x {joined.shape[1]}. A mask must have the size of "
                "its image: check that both belong together and that neither was resized."
            )
        else:
            joined = joined | mask
    return joined


def covers_most(mask: np.ndarray) -> str:
    """Say what a mask, bool (H, W), marks too much of; empty: of nothing."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    if border <= _MOST_OF_BORDER and mask.mean() <= _MOST_OF_PICTURE:
        return ""
    return f"marks {100 * border:.0f} % of the border and {100 * mask.mean():.0f} % of the picture"


class _Colours(NamedTuple):
    """What a mask looks like by itself."""

    background: np.ndarray | None  # colours, float (3,), of full scale 1; None: no such pixel
    lesion: np.ndarray | None
    doubt: str  # empty: clear

    @property
    def constant(self) -> bool:
        return bool(self.doubt) and self.background is None

    def like(self, other: _Colours) -> bool:
        """Whether the lesion has the colour of another clear mask, and the background too."""
        same = _same(self.lesion, other.lesion)
        return same and (self.constant or _same(self.background, other.background))


class MaskSet:
    """The masks that are judged together: of a data set, or of a folder of predictions."""

    def __init__(self, paths: Iterable[PathLike]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self._seen: list[_Colours] = []

    def mask(self, pixels: np.ndarray, path: PathLike) -> np.ndarray:
        """Turn stored pixels, (H, W) or (H, W, 3), to a mask, bool (H, W); see the module."""
        mask, doubt = _read(pixels, path)
        if not doubt:
            return mask
        own = _seen(pixels, mask, doubt)
        every = self._every()
        clear = [c for c in every if not c.doubt and c.lesion is not None]
        empty = [c for c in every if c.constant and _background_of(c, clear)]
        doubtful = sum(bool(c.doubt) for c in every) - len(empty)
        if own.constant and _background_of(own, clear):
            return np.zeros_like(mask)
        if len(clear) > doubtful and any(own.like(c) for c in clear):
            return mask
        raise ImageError(
            f"{path}: {doubt}. Whether that is a lesion, a negative or an empty mask in colours, "
            f"its set does not say: of {len(self.paths)} masks {len(clear)} are clear, {doubtful} "
            "doubtful. Expected black background and one other value for the lesion. Save the "
            "masks so (a negative: 255 less the mask; an empty mask: all black), or take out those "
            "that say nothing."
        )

    def _every(self) -> list[_Colours]:
        """Look at every mask of the set, once, for what it says of a doubtful one."""
        with _ONE_AT_A_TIME:
            if not self._seen:
                with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                    self._seen = [seen for seen in pool.map(_glance, self.paths) if seen]
            return self._seen


def _glance(path: Path) -> _Colours | None:
    try:
        pixels = read_mask_pixels(path)
        return _seen(pixels, *_read(pixels, path))
    except ImageError:  # refused where it is read itself
        return None


def _seen(pixels: np.ndarray, mask: np.ndarray, doubt: str) -> _Colours:
    return _Colours(_typical(pixels, ~mask), _typical(pixels, mask), doubt)


def _background_of(one: _Colours, clear: Sequence[_Colours]) -> bool:
    """Whether the one colour of a mask is background in the clear ones, and never lesion."""
    return any(_same(one.lesion, c.background) for c in clear) and not any(
        _same(one.lesion, c.lesion) for c in clear
    )


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((np.abs(one - other) <= _SAME).all())


def _read(pixels: np.ndarray, path: PathLike) -> tuple[np.ndarray, str]:
    """Read a mask by its own pixels; returned with what is doubtful, empty for nothing."""
    grey, colours = as_grey(pixels), _colours(pixels)
    marked = grey > 0 if pixels.ndim == 2 else pixels.any(axis=2)
    if len(colours) == 1 and marked.all():
        return marked, f"is of one single value, {colours[0].tolist()}"
    if len(colours) == 1 or (len(colours) == 2 and not marked.all()):
        mask = marked
    elif colours.ndim == 2 and len(np.unique(grey)) < 3 <= len(colours):
        raise _no_mask(path, colours.tolist(), [], "colours or more")
    elif grey.dtype != bool and _is_smoothed(grey, len(colours)) and not _has_labels(grey):
        mask = grey > float(grey.max()) / 2
    else:
        raise _no_mask(path, *np.unique(grey, return_counts=True), "grey values")
    return mask, covers_most(mask)


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Return up to three different values (n,) or colours (n, 3) of a picture."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    rows = pixels.reshape(-1, *pixels.shape[2:])
    values = []
    while len(rows) and len(values) < 3:
        values.append(rows[0])
        other = rows != rows[0]
        rows = rows[other if other.ndim == 1 else other.any(axis=1)]
    return np.array(values)


def _typical(pixels: np.ndarray, where: np.ndarray) -> np.ndarray | None:
    """Return the median colour of some pixels, (3,), of full scale 1; None where there are none."""
    if not where.any():
        return None
    full = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1.0
    return np.broadcast_to(np.median(pixels[where].astype(np.float32), axis=0) / full, 3)


def _no_mask(path: PathLike, values: Sequence, counts: Sequence[int], what: str) -> ImageError:
    pixels = [f" ({c} px)" for c in counts[:8]] or [""] * len(values)
    shown = ", ".join(f"{v}{c}" for v, c in zip(values[:8], pixels, strict=True))
    more = ", ..." if len(values) > 8 else ""
    return ImageError(
        f"{path}: not a mask: it holds {len(values)} {what}: {shown}{more}. Expected two, "
        "0 for background and one other value for the lesion. Save it as PNG with 0 and 255; "
        "if it holds several labels, save one mask file per label."
    )


def as_colour_mask(pixels: np.ndarray, path: PathLike) -> np.ndarray:
    """Turn the pixels of a colour-coded mask to a mask of any lesion; see `read_masks`."""
    if pixels.ndim == 2:
        if not pixels.any():
            return pixels > 0
        shown = "grey values"
    else:
        green, red = (pixels == (0, 255, 0)).all(2), (pixels == (255, 0, 0)).all(2)
        strange = pixels[pixels.any(2) & ~green & ~red]
        if pixels.dtype == np.uint8 and not len(strange):
            return green | red
        shown = f"{len(strange)} pixels of other colours, such as {strange[:1].tolist()}"
    raise ImageError(
        f"{path}: not a colour-coded mask: it holds {shown}. Expected black, (0, 255, 0) for "
        "benign and (255, 0, 0) for malignant, saved as 8-bit RGB PNG."
    )


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
    near_dark = cv2.dilate(dark.astype(np.uint8), reach)
    near_bright = cv2.dilate(bright.astype(np.uint8), reach)
    return not (between & ~((near_dark & near_bright).astype(bool))).any()


def _has_labels(grey: np.ndarray) -> bool:
    """Whether a value in between stands in a plateau, of few values: labels, not smoothed edges."""
    values = np.unique(grey)
    side = np.ones((_PLATEAU, _PLATEAU), np.uint8)
    return len(values) <= _FEW_VALUES and any(
        cv2.erode((grey == value).astype(np.uint8), side).any() for value in values[1:-1]
    )
