"""Breast anatomy of a phantom: echo strength and attenuation of every point, without lesions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Shape = tuple[int, int]


@dataclass
class Tissue:
    """What the ultrasound meets on its way; float32 (H, W)."""

    echo: np.ndarray  # strength of the scatterers in decibels, 0 for average glandular tissue
    loss: np.ndarray  # decibels a row (there and back) beyond the depth gain; negative behind fluid


def noise(rng: np.random.Generator, shape: Shape, cells: tuple[float, float]) -> np.ndarray:
    """Smooth noise of unit spread with about so many cells down and across; float32 (H, W)."""
    rows, columns = (min(max(round(n), 2), 2 * side) for n, side in zip(cells, shape, strict=True))
    grid = rng.standard_normal((rows + 2, columns + 2), dtype=np.float32)
    # drawn a little larger and cropped at random, so that no cell is ever tied to the border
    tall, wide = shape[0] * (rows + 2) // rows + 1, shape[1] * (columns + 2) // columns + 1
    field = cv2.resize(grid, (wide, tall), interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(0, (tall - shape[0] + 1, wide - shape[1] + 1))
    return field[top : top + shape[0], left : left + shape[1]] * np.float32(1.25)


def step(distance: np.ndarray, softness: float) -> np.ndarray:
    """Soft step: 0 for negative distances, 1 for positive ones, over `softness`."""
    return 1 / (1 + np.exp(np.clip(-distance / max(softness, 1e-3), -30, 30)))


def _lines(field: np.ndarray, thickness: float) -> np.ndarray:
    """Curved lines, 1 where a smooth field crosses zero; equally thick however steep it is."""
    down, across = cv2.Sobel(field, -1, 0, 1, scale=0.125), cv2.Sobel(field, -1, 1, 0, scale=0.125)
    slope = cv2.magnitude(down, across) + np.float32(0.004)
    return np.exp(-np.square(field / (slope * np.float32(thickness))))


def _stretched(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read a field at other coordinates (pixels); mirrored beyond its border."""
    return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def breast(rng: np.random.Generator, shape: Shape) -> Tissue:
    """Layers of skin, fat with lobules, gland, deep fat, muscle, perhaps ribs."""
    x, depth = _bent(rng, shape)
    skin = rng.uniform(0.02, 0.045)
    fat_end = skin + rng.uniform(0.03, 0.26)
    gland_end = fat_end + rng.uniform(0.22, 0.55)
    deep_end = gland_end + rng.uniform(0.02, 0.08)
    height = shape[0]
    tops = [
        edge * height + _wave(rng, shape[1], amount * height)
        for edge, amount in (
            (skin, 0.003),
            (fat_end, rng.uniform(0.008, 0.03)),
            (gland_end, 0.018),
            (deep_end, 0.01),
        )
    ]
    softness = rng.uniform(0.004, 0.02) * height
    inside = [step(depth - top, softness) for top in tops]

    echo = _fat(rng, x, depth)
    echo += inside[1] * (_gland(rng, x, depth) - echo)
    echo += inside[2] * (_fat(rng, x, depth) - 2 - echo)
    echo += inside[3] * (_muscle(rng, x, depth) - echo)
    for top, strength in zip(tops[1:], (9, 9, 13), strict=True):
        echo += _fascia(rng, depth - top, rng.uniform(0.5, 1) * strength)
    # bright entrance and exit echoes of the skin
    entrance, leaving = np.square(depth / 1.6), np.square((depth - tops[0]) / 1.5)
    echo += (1 - inside[0]) * (2 - echo) + (10 * np.exp(-entrance) + 6 * np.exp(-leaving))

    loss = np.full(shape, rng.uniform(-2, 22) / height, np.float32)
    loss += np.maximum(echo - 8, 0) * np.float32(rng.uniform(0, 0.06))  # septa shade a little
    tissue = Tissue(echo.astype(np.float32), loss)
    if rng.random() < 0.25 and deep_end < 0.8:
        _ribs(rng, tissue, depth, deep_end)
    return tissue


def _bent(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the tissue before it was pressed and bent: x and depth in pixels, (H, W)."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    towards = np.clip(y / (0.3 * height), 0, 1)  # the probe keeps the skin flat
    tilt = rng.normal(0, 0.05) * (x / width - 0.5) * height
    bend = 0.022 * noise(rng, shape, (2, 3)) + 0.009 * noise(rng, shape, (6, 8))
    depth = y + towards * (bend * height + tilt)
    across = x + 0.03 * width * noise(rng, shape, (3, 3))
    return across.astype(np.float32), depth.astype(np.float32)


def _wave(rng: np.random.Generator, width: int, amount: float) -> np.ndarray:
    """Bend a line across the picture, (1, W), in pixels."""
    return amount * (noise(rng, (1, width), (2, 4)) + 0.35 * noise(rng, (1, width), (2, 12)))


def _fat(rng: np.random.Generator, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Dark lobules with thin bright septa between them (Cooper's ligaments)."""
    scale = rng.uniform(0.8, 1.4)
    large = noise(rng, x.shape, (6 * scale, 3 * scale))
    small = noise(rng, x.shape, (14 * scale, 5 * scale))
    septa = 0.8 * _lines(large, 1.0) + 0.5 * _lines(small, 0.8)
    septa = septa * np.clip(noise(rng, x.shape, (8, 6)) * 0.6 + 0.5, 0, 1.2)
    texture = 1.2 * noise(rng, x.shape, (30, 14)) + 1.5 * noise(rng, x.shape, (5, 4))
    return _stretched(rng.uniform(-12, -6) + texture + 11 * septa, x, depth)


def _gland(rng: np.random.Generator, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Bright fibrous tissue, mixed with darker lobules, ducts and strands of fat."""
    density, fibres = rng.uniform(0, 1), rng.uniform(1.5, 4.5)
    texture = fibres * (0.6 * noise(rng, x.shape, (20, 6)) + 0.8 * noise(rng, x.shape, (55, 14)))
    patches = 2.5 * noise(rng, x.shape, (4, 4)) + 1.5 * noise(rng, x.shape, (10, 8))
    strands = _lines(noise(rng, x.shape, (14, 4)), 1.2)
    strands = strands + 0.8 * _lines(noise(rng, x.shape, (30, 6)), 0.9)
    strands = strands * np.clip(noise(rng, x.shape, (9, 6)) * 0.7 + rng.uniform(0.2, 0.7), 0, 1.3)
    lobules = step(noise(rng, x.shape, (9, 5)) - (0.5 + density), 0.12)
    ducts = step(noise(rng, x.shape, (26, 12)) - 1.5, 0.15)
    level = texture + patches + 9 * strands - rng.uniform(4, 9) * lobules - 7 * ducts
    return _stretched(level, x, depth)


def _muscle(rng: np.random.Generator, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Dark, with long parallel bright fibres."""
    fibres = _lines(noise(rng, x.shape, (24, 2)), 0.9)
    fibres = fibres * np.clip(noise(rng, x.shape, (20, 4)) + 0.3, 0, 1)
    texture = 2.0 * noise(rng, x.shape, (45, 6)) + 1.2 * noise(rng, x.shape, (6, 4))
    return _stretched(rng.uniform(-12, -6) + texture + 10 * fibres, x, depth)


def _fascia(rng: np.random.Generator, distance: np.ndarray, strength: float) -> np.ndarray:
    """Draw a bright line along a boundary, broken in places."""
    present = np.clip(0.6 + 0.6 * noise(rng, (1, distance.shape[1]), (2, 8)), 0, 1.3)
    thickness = rng.uniform(1.0, 2.0)
    return strength * present * np.exp(-np.square(distance / thickness))


def _ribs(rng: np.random.Generator, tissue: Tissue, depth: np.ndarray, start: float) -> None:
    """One or two ribs below the muscle: a bright cap and a shadow behind it."""
    height, width = depth.shape
    x = np.arange(width, dtype=np.float32)[None, :]
    for _ in range(rng.integers(1, 3)):
        centre, half = rng.uniform(0, 1) * width, rng.uniform(0.08, 0.18) * width
        top = rng.uniform(max(start, 0.68), 0.9) * height
        across = (x - centre) / half
        below = depth - top - 0.3 * half * np.square(across)
        within = step(1 - np.abs(across), 0.1)
        tissue.echo += 16 * (np.exp(-np.square(below / 2.5)) * within)
        bone = step(below, 2.0) * step(12 - below, 3.0) * within
        tissue.loss += np.float32(rng.uniform(10, 25) / 12) * bone
