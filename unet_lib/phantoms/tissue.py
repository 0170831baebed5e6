"""Breast anatomy of a phantom: echo strength and attenuation of every point, without lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unet_lib.phantoms.fields import lines, noise, step, stretched

__all__ = ["Tissue", "breast"]


@dataclass
class Tissue:
    """What the ultrasound meets on its way.

    Attributes
    ----------
    echo : ndarray, float32, (H, W)
        Strength of the scatterers in decibels, 0 for average glandular tissue.
    loss : ndarray, float32, (H, W)
        Attenuation beyond what the scanner's depth gain makes up for, in decibels per row
        (there and back); negative behind fluid.
    gland : ndarray, float32, (H, W)
        1 within the glandular layer, 0 elsewhere.
    """

    echo: np.ndarray
    loss: np.ndarray
    gland: np.ndarray


def breast(rng: np.random.Generator, shape: tuple[int, int]) -> Tissue:
    """Return layered breast tissue: skin, fat with lobules, gland, deep fat, muscle, perhaps ribs.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the anatomy.
    shape : tuple of int
        Height and width in pixels.

    Returns
    -------
    Tissue
        Echo strength and attenuation.
    """
    x, depth = _bent(rng, shape)
    skin = rng.uniform(0.02, 0.045)
    fat_end = skin + rng.uniform(0.03, 0.26)
    gland_end = fat_end + rng.uniform(0.22, 0.55)
    deep_end = gland_end + rng.uniform(0.02, 0.08)
    height = shape[0]
    tops = [
        edge * height + _wave(rng, shape, amount * height)
        for edge, amount in (
            (skin, 0.003),
            (fat_end, rng.uniform(0.008, 0.03)),
            (gland_end, 0.018),
            (deep_end, 0.01),
        )
    ]
    softness = rng.uniform(0.004, 0.02) * height
    inside = [step(depth - top, softness) for top in tops]
    gland = inside[1] * (1 - inside[2])

    echo = _fat(rng, shape, x, depth)
    echo += inside[1] * (_gland(rng, shape, x, depth) - echo)
    echo += inside[2] * (_fat(rng, shape, x, depth) - 2 - echo)
    echo += inside[3] * (_muscle(rng, shape, x, depth) - echo)
    for top, strength in zip(tops[1:], (9, 9, 13), strict=True):
        echo += _fascia(rng, shape, depth - top, rng.uniform(0.5, 1) * strength)
    echo += (1 - inside[0]) * (2 - echo) + _skin_lines(depth, tops[0])

    loss = np.full(shape, rng.uniform(-2, 22) / height, np.float32)
    loss += np.maximum(echo - 8, 0) * np.float32(rng.uniform(0, 0.06))  # septa shade a little
    tissue = Tissue(echo.astype(np.float32), loss, gland.astype(np.float32))
    if rng.random() < 0.25 and deep_end < 0.8:
        _ribs(rng, tissue, depth, deep_end)
    return tissue


def _bent(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the tissue before it was pressed and bent: x and depth in pixels, (H, W)."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    towards = np.clip(y / (0.3 * height), 0, 1)  # the probe keeps the skin flat
    tilt = rng.normal(0, 0.05) * (x / width - 0.5) * height
    bend = 0.022 * noise(rng, shape, (2, 3)) + 0.009 * noise(rng, shape, (6, 8))
    depth = y + towards * (bend * height + tilt)
    across = x + 0.03 * width * noise(rng, shape, (3, 3))
    return across.astype(np.float32), depth.astype(np.float32)


def _wave(rng: np.random.Generator, shape: tuple[int, int], amount: float) -> np.ndarray:
    """Return a wavy line across the picture, (1, W), in pixels."""
    return amount * (noise(rng, (1, shape[1]), (2, 4)) + 0.35 * noise(rng, (1, shape[1]), (2, 12)))


def _fat(
    rng: np.random.Generator, shape: tuple[int, int], x: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Dark lobules with thin bright septa between them (Cooper's ligaments)."""
    scale = rng.uniform(0.8, 1.4)
    cells = noise(rng, shape, (6 * scale, 3 * scale)), noise(rng, shape, (14 * scale, 5 * scale))
    septa = 0.8 * lines(cells[0], 1.0) + 0.5 * lines(cells[1], 0.8)
    septa = septa * np.clip(noise(rng, shape, (8, 6)) * 0.6 + 0.5, 0, 1.2)
    texture = 1.2 * noise(rng, shape, (30, 14)) + 1.5 * noise(rng, shape, (5, 4))
    return stretched(rng.uniform(-12, -6) + texture + 11 * septa, x, depth)


def _gland(
    rng: np.random.Generator, shape: tuple[int, int], x: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Bright fibrous tissue, mixed with darker lobules, ducts and strands of fat."""
    density, fibres = rng.uniform(0, 1), rng.uniform(1.5, 4.5)
    texture = fibres * (0.6 * noise(rng, shape, (20, 6)) + 0.8 * noise(rng, shape, (55, 14)))
    patches = 2.5 * noise(rng, shape, (4, 4)) + 1.5 * noise(rng, shape, (10, 8))
    strands = lines(noise(rng, shape, (14, 4)), 1.2) + 0.8 * lines(noise(rng, shape, (30, 6)), 0.9)
    strands = strands * np.clip(noise(rng, shape, (9, 6)) * 0.7 + rng.uniform(0.2, 0.7), 0, 1.3)
    lobules = step(noise(rng, shape, (9, 5)) - (0.5 + density), 0.12)
    ducts = step(noise(rng, shape, (26, 12)) - 1.5, 0.15)
    level = texture + patches + 9 * strands - rng.uniform(4, 9) * lobules - 7 * ducts
    return stretched(level, x, depth)


def _muscle(
    rng: np.random.Generator, shape: tuple[int, int], x: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Dark, with long parallel bright fibres."""
    fibres = lines(noise(rng, shape, (24, 2)), 0.9) * np.clip(
        noise(rng, shape, (20, 4)) + 0.3, 0, 1
    )
    texture = 2.0 * noise(rng, shape, (45, 6)) + 1.2 * noise(rng, shape, (6, 4))
    return stretched(rng.uniform(-12, -6) + texture + 10 * fibres, x, depth)


def _fascia(
    rng: np.random.Generator, shape: tuple[int, int], distance: np.ndarray, strength: float
) -> np.ndarray:
    """Return a bright line along a boundary, broken in places."""
    present = np.clip(0.6 + 0.6 * noise(rng, (1, shape[1]), (2, 8)), 0, 1.3)
    thickness = rng.uniform(1.0, 2.0)
    return strength * present * np.exp(-np.square(distance / thickness))


def _skin_lines(depth: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Bright entrance and exit echoes of the skin."""
    return 10 * np.exp(-np.square(depth / 1.6)) + 6 * np.exp(-np.square((depth - bottom) / 1.5))


def _ribs(rng: np.random.Generator, tissue: Tissue, depth: np.ndarray, start: float) -> None:
    """Add one or two ribs below the muscle: a bright cap and a shadow behind it."""
    height, width = depth.shape
    x = np.arange(width, dtype=np.float32)[None, :]
    for _ in range(rng.integers(1, 3)):
        centre, half = rng.uniform(0, 1) * width, rng.uniform(0.08, 0.18) * width
        top = rng.uniform(max(start, 0.68), 0.9) * height
        across = (x - centre) / half
        below = depth - top - 0.3 * half * np.square(across)
        within = step(1 - np.abs(across), 0.1)
        cap = np.exp(-np.square(below / 2.5)) * within
        tissue.echo += 16 * cap
        bone = step(below, 2.0) * step(12 - below, 3.0) * within
        tissue.loss += np.float32(rng.uniform(10, 25) / 12) * bone
