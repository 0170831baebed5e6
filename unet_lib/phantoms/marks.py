"""What a scanner puts over or around the picture: borders, text, callipers, scale."""

from __future__ import annotations

import cv2
import numpy as np

_TEXTS = ("RT", "LT", "RT BREAST", "LT BREAST", "RT 10 O'CLOCK", "LT 2 O'CLOCK", "LUOQ", "RUOQ")
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def visible_part(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Where the scan fills the picture, bool (H, W): all, or without strips or a sector's edges."""
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


def add_marks(image: np.ndarray, masks: list[np.ndarray], rng: np.random.Generator) -> None:
    """Draw what the scanner or its user may have left onto a picture, uint8 (H, W).

    Callipers measure a lesion on some pictures and something else on others, normal ones too, so
    that a cross does not say where a lesion is.
    """
    height, width = image.shape
    if rng.random() < 0.4:  # the probe's mark
        cv2.rectangle(image, (0, 0), (13, 15), 0, -1)
        cv2.circle(image, (6, 7), 4, 215, 1, cv2.LINE_AA)
        cv2.line(image, (7, 8), (10, 12), 215, 1, cv2.LINE_AA)
    if rng.random() < 0.25:
        size = rng.uniform(0.4, 0.6)
        text = _TEXTS[rng.integers(len(_TEXTS))]
        (wide, _), _ = cv2.getTextSize(text, _FONT, size, 1)
        left = int(rng.uniform(0.02, 0.98) * max(width - wide, 1))
        at = (left, int(rng.uniform(0.6, 0.96) * height))
        cv2.putText(image, text, at, _FONT, size, 230, 1, cv2.LINE_AA)
    if rng.random() < 0.12:  # the depth scale
        pitch = rng.uniform(0.08, 0.14) * height
        for index in range(int(height / pitch) + 1):
            row, long = int(index * pitch), 8 if index % 5 == 0 else 4
            cv2.line(image, (width - 1 - long, row), (width - 1, row), 190, 1)
    measured = rng.random()
    if masks and measured < 0.2:
        _callipers(image, *_ends(masks[0]))
    elif measured > 0.88:  # about as far apart as the ends of a lesion
        start = rng.uniform((0.15, 0.15), (0.85, 0.7)) * image.shape[::-1]
        angle, length = rng.uniform(0, np.pi), rng.uniform(0.1, 0.4) * min(image.shape)
        _callipers(image, start, start + length * np.array([np.cos(angle), np.sin(angle)]))
    if rng.random() < 0.05:  # a region that somebody chose
        left, right = np.sort(rng.uniform(0.05, 0.95, 2)) * width
        top, bottom = np.sort(rng.uniform(0.05, 0.7, 2)) * height
        cv2.rectangle(image, (int(left), int(top)), (int(right), int(bottom)), 120, 1)


def _ends(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of a lesion along its longest direction, as (x, y)."""
    points = np.argwhere(mask)[:, ::-1].astype(float)
    centred = points - points.mean(axis=0)
    along = centred @ np.linalg.svd(centred.T @ centred)[0][:, 0]
    return points[along.argmin()], points[along.argmax()]


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
