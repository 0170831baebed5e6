"""What a scanner puts over or around the picture: frame, text, callipers, scale."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["decorate", "visible_part"]

_TEXTS = ("RT", "LT", "RT BREAST", "LT BREAST", "RT 10 O'CLOCK", "LT 2 O'CLOCK", "LUOQ", "RUOQ")
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def visible_part(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return which part of the picture the scan fills; the rest is black.

    Parameters
    ----------
    shape : tuple of int
        Height and width in pixels.
    rng : numpy.random.Generator
        Decides between the full frame, black strips and the slanted edges of a sector.

    Returns
    -------
    ndarray, bool, (H, W)
        True inside the scan.
    """
    height, width = shape
    y, x = np.mgrid[:height, :width]
    seen = np.ones(shape, bool)
    if rng.random() < 0.2:
        seen &= x < width * (1 - rng.uniform(0.005, 0.05))
    if rng.random() < 0.2:
        seen &= y < height * (1 - rng.uniform(0.005, 0.08))
    if rng.random() < 0.15:
        slant, corner = rng.uniform(0.1, 0.35), rng.uniform(0.03, 0.1) * width
        side = np.minimum(x, width - 1 - x)
        seen &= side >= corner - slant * y
        arc = rng.uniform(0.03, 0.1) * height * np.square(2 * x / width - 1)
        seen &= y < height - arc
    return seen


def decorate(image: np.ndarray, masks: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return the picture with the marks that a scanner or its user may have left.

    Parameters
    ----------
    image : ndarray, uint8, (H, W)
        The scan.
    masks : list of ndarray, bool, (H, W)
        Its lesions; callipers measure one of them on some pictures, and something else on others,
        normal ones too, so that a cross does not say where a lesion is.
    rng : numpy.random.Generator
        Which marks.

    Returns
    -------
    ndarray, uint8, (H, W)
        A changed copy.
    """
    image = image.copy()
    if rng.random() < 0.4:
        _probe_mark(image)
    if rng.random() < 0.25:
        _text(image, rng)
    if rng.random() < 0.12:
        _scale(image, rng)
    measured = rng.random()
    if masks and measured < 0.2:
        _callipers(image, *_ends(masks[0]))
    elif measured > 0.88:
        _callipers(image, *_anywhere(image.shape, rng))
    if rng.random() < 0.05:
        _box(image, rng)
    return image


def _probe_mark(image: np.ndarray) -> None:
    cv2.rectangle(image, (0, 0), (13, 15), 0, -1)
    cv2.circle(image, (6, 7), 4, 215, 1, cv2.LINE_AA)
    cv2.line(image, (7, 8), (10, 12), 215, 1, cv2.LINE_AA)


def _text(image: np.ndarray, rng: np.random.Generator) -> None:
    height, width = image.shape
    size = rng.uniform(0.4, 0.6)
    text = _TEXTS[rng.integers(len(_TEXTS))]
    (wide, _), _ = cv2.getTextSize(text, _FONT, size, 1)
    left = int(rng.uniform(0.02, 0.98) * max(width - wide, 1))
    at = (left, int(rng.uniform(0.6, 0.96) * height))
    cv2.putText(image, text, at, _FONT, size, 230, 1, cv2.LINE_AA)


def _scale(image: np.ndarray, rng: np.random.Generator) -> None:
    height, width = image.shape
    pitch = rng.uniform(0.08, 0.14) * height
    for index in range(int(height / pitch) + 1):
        row, long = int(index * pitch), 8 if index % 5 == 0 else 4
        cv2.line(image, (width - 1 - long, row), (width - 1, row), 190, 1)


def _box(image: np.ndarray, rng: np.random.Generator) -> None:
    height, width = image.shape
    left, right = np.sort(rng.uniform(0.05, 0.95, 2)) * width
    top, bottom = np.sort(rng.uniform(0.05, 0.7, 2)) * height
    cv2.rectangle(image, (int(left), int(top)), (int(right), int(bottom)), 120, 1)


def _ends(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of a lesion along its longest direction, as (x, y)."""
    points = np.argwhere(mask)[:, ::-1].astype(float)
    centred = points - points.mean(axis=0)
    along = centred @ np.linalg.svd(centred.T @ centred)[0][:, 0]
    return points[along.argmin()], points[along.argmax()]


def _anywhere(shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two points about as far apart as the ends of a lesion."""
    start = rng.uniform((0.15, 0.15), (0.85, 0.7)) * shape[::-1]
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.1, 0.4) * min(shape)
    return start, start + length * np.array([np.cos(angle), np.sin(angle)])


def _callipers(image: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Draw two crosses and a dotted line between them."""
    for point in (start, end):
        x, y = (int(value) for value in point)
        cv2.line(image, (x - 5, y), (x + 5, y), 235, 1)
        cv2.line(image, (x, y - 5), (x, y + 5), 235, 1)
    for share in np.arange(0, 1, 7 / max(float(np.linalg.norm(end - start)), 7.0)):
        x, y = (start + share * (end - start)).astype(int)
        if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
            image[y, x] = 225
