"""The outline of a mask drawn into the image itself, at its own size."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["draw_overlay"]

_ORANGE = (230, 159, 0)  # Okabe & Ito's colour-blind-safe palette


def draw_overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the contour of a mask, its outermost pixels, into a grey image (H, W, 1); RGB uint8.

    The line is about a 300th of the longer side wide, and at least one pixel.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"draw_overlay: image {image.shape[:2]} and mask {mask.shape} differ.")
    grey = np.round(np.clip(image[..., 0], 0, 1) * 255).astype(np.uint8)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(mask.shape) / 300))
    # Not anti-aliased: that leaves a lesion of one pixel as good as invisible.
    return cv2.drawContours(picture, contours, -1, _ORANGE, thickness, cv2.LINE_8)
