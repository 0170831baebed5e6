"""Lesions of a phantom: outline, echo, margin, and what they do to the sound behind them.

The signs follow the BI-RADS lexicon for breast ultrasound (ACR BI-RADS Atlas, 5th edition, 2013):
shape, orientation, margin, echo pattern, posterior features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from unet_lib.phantoms.tissue import Tissue, noise, step

_SKIN = 0.05  # fraction of the height that no lesion enters
_TURNS = 1024  # directions around a lesion that are told apart


@dataclass(frozen=True)
class Lesion:
    """One lesion; echoes in decibels."""

    x: float  # centre, as fractions of width and height
    y: float
    radius: float  # of the disc of equal area, as a fraction of the shorter side
    aspect: float  # height divided by width; above 1 is "taller than wide"
    angle: float  # rotation in radians
    bumps: list[tuple[int, float, float]]  # waves of the outline: number, amplitude, phase
    ragged: float = 0.0  # irregular in- and outgrowths of the outline, relative to the radius
    spikes: int = 0  # spicules: strands that radiate from the margin; not part of the mask
    contrast: float = -10.0  # echo against the tissue around it; negative is darker
    uneven: float = 1.0  # spread of the echo inside
    softness: float = 1.0  # width of the margin in pixels
    capsule: float = 0.0  # echo of a thin bright line around it
    halo: float = 0.0  # echo of a broad bright rim
    posterior: float = 0.0  # change behind its thickest part: enhancement, negative for shadow
    calcifications: int = 0  # bright points inside


def draw_lesion(kind: str, rng: np.random.Generator, side: float) -> Lesion:
    """Draw a "benign" or "malignant" lesion; `side`: the picture's shorter side in pixels."""
    signs = _benign(rng, side) if kind == "benign" else _malignant(rng, side)
    top = signs["radius"] * signs["aspect"] ** 0.5 + _SKIN + 0.02  # side is about the height
    return Lesion(x=rng.uniform(0.2, 0.8), y=max(top, rng.beta(3, 6)), **signs)


def _benign(rng: np.random.Generator, side: float) -> dict:
    """Oval, smooth, thin capsule; a fifth are cysts: no echo inside, strong enhancement."""
    cyst = rng.random() < 0.2
    lobes = rng.uniform(0.005, 0.04)
    return {
        "radius": float(np.clip(0.115 * np.exp(rng.normal(0, 0.5)), 0.05, 0.32)),
        "aspect": float(np.clip(rng.normal(0.6, 0.13), 0.35, 0.95)),
        "angle": rng.normal(0, 0.2),
        "bumps": [(k, rng.normal(0, lobes) * 2 / k, rng.uniform(0, 6.3)) for k in (2, 3, 4, 5)],
        "contrast": -rng.uniform(20, 30) if cyst else -rng.gamma(4, 2.2) - 2,
        "uneven": rng.uniform(0.3, 2.0),
        "softness": rng.uniform(0.5, 0.5 + 0.006 * side),
        "capsule": max(0.0, rng.normal(6, 4)),
        "posterior": rng.uniform(6, 12) if cyst else rng.normal(4, 3),
    }


def _malignant(rng: np.random.Generator, side: float) -> dict:
    """Irregular, angular or spiculated, uneven, with a halo; most throw a shadow."""
    return {
        "radius": float(np.clip(0.205 * np.exp(rng.normal(0, 0.36)), 0.08, 0.38)),
        "aspect": float(np.clip(rng.normal(0.72, 0.2), 0.42, 1.4)),
        "angle": rng.normal(0, 0.3),
        "bumps": [(k, rng.normal(0, 0.06), rng.uniform(0, 6.3)) for k in (2, 3, 4, 5)],
        "ragged": rng.uniform(0.05, 0.2),
        "spikes": int(rng.integers(8, 22)) if rng.random() < 0.45 else 0,
        "contrast": -rng.gamma(5, 1.5) - 2.5,
        "uneven": rng.uniform(1.5, 4.0),
        "softness": rng.uniform(1.0, 1.0 + 0.018 * side),
        "halo": max(0.0, rng.normal(2.5, 2.5)),
        "posterior": rng.normal(2, 2) if rng.random() < 0.25 else -rng.gamma(4, 3),
        "calcifications": int(rng.integers(4, 20)) if rng.random() < 0.25 else 0,
    }


def add_lesion(tissue: Tissue, lesion: Lesion, rng: np.random.Generator) -> np.ndarray:
    """Put a lesion into tissue, in place.

    Returns the distance to its outline in pixels, float32 (H, W); positive inside.
    """
    shape = tissue.echo.shape
    reach, turn = _polar(lesion, shape)
    angle = np.arange(_TURNS, dtype=np.float32) * (2 * np.pi / _TURNS)
    outline = 1 + sum(a * np.cos(k * angle + phase) for k, a, phase in lesion.bumps)
    outline = outline.astype(np.float32)[turn]
    if lesion.ragged:
        grain = 0.45 / lesion.radius
        growth = noise(rng, shape, (2.6 * grain, 2.6 * grain * shape[1] / shape[0]))
        growth += 0.5 * noise(rng, shape, (6 * grain, 6 * grain * shape[1] / shape[0]))
        outline = outline + lesion.ragged * growth
    inner = reach <= np.maximum(outline, 0.35)
    inner[: round(_SKIN * shape[0])] = False
    distance = _distance_to_outline(inner)
    inside = step(distance, lesion.softness)
    rim = np.clip(0.6 + 0.5 * noise(rng, shape, (6, 6)), 0, 1.4)
    around = (distance < 0) & (distance > -0.06 * min(shape))
    level = float(np.median(tissue.echo[around])) if around.any() else 0.0
    texture = lesion.uneven * (
        0.7 * noise(rng, shape, (16, 12)) + 0.6 * noise(rng, shape, (40, 24))
    )
    own = level + lesion.contrast + texture
    if lesion.spikes:
        tissue.echo += _spicules(lesion, rng, distance, turn)
    if lesion.halo:
        width = rng.uniform(0.12, 0.3) * lesion.radius * min(shape)
        tissue.echo += lesion.halo * rim * np.exp(-np.square((distance + width) / width))
    tissue.echo += inside * (own - tissue.echo)
    tissue.echo += lesion.capsule * rim * np.exp(-np.square((distance + 1) / 1.4))
    if lesion.calcifications and (distance > 3).any():
        tissue.echo += _calcifications(lesion.calcifications, rng, distance)
    _change_loss(tissue, lesion, inside, distance)
    return distance


def _polar(lesion: Lesion, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the centre in units of the ellipse, and direction in 0.._TURNS-1; (H, W)."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - lesion.x * width, y - lesion.y * height
    cos, sin = math.cos(lesion.angle), math.sin(lesion.angle)
    radius, root = lesion.radius * min(shape), math.sqrt(lesion.aspect)
    across, down = (cos * x + sin * y) * root / radius, (cos * y - sin * x) / (root * radius)
    reach, angle = cv2.cartToPolar(across, down)
    return reach, (angle * np.float32(_TURNS / (2 * np.pi))).astype(np.int32) % _TURNS


def _distance_to_outline(mask: np.ndarray) -> np.ndarray:
    """Of the largest connected part of a mask, holes filled; positive inside, float32 (H, W)."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    inner, outer = (cv2.distanceTransform(m, cv2.DIST_L2, 5) for m in (filled, 1 - filled))
    return cv2.GaussianBlur(inner - outer, (0, 0), 0.8)


def _spicules(
    lesion: Lesion, rng: np.random.Generator, distance: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """Strands that radiate from the margin, dark or bright, fading with distance."""
    length = rng.uniform(0.25, 0.7) * lesion.radius * min(distance.shape)
    strands = np.zeros(_TURNS)
    for _ in range(lesion.spikes):
        away = (np.arange(_TURNS) - rng.integers(_TURNS) + _TURNS / 2) % _TURNS - _TURNS / 2
        width = rng.uniform(0.02, 0.06) * _TURNS / (2 * np.pi)
        strands += rng.choice((-7.0, 6.0)) * np.exp(-np.square(away / width))
    fade = np.exp(-np.maximum(-distance, 0) / length) * step(-distance, 1.0)
    return strands.astype(np.float32)[turn] * fade


def _calcifications(count: int, rng: np.random.Generator, distance: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(distance > 3)
    spots = np.zeros(distance.shape, np.float32)
    for index in rng.integers(0, rows.size, count):
        centre = (int(columns[index]), int(rows[index]))
        cv2.circle(spots, centre, 1, float(rng.uniform(8, 16)), -1)
    return cv2.GaussianBlur(spots, (0, 0), 0.7)


def _change_loss(tissue: Tissue, lesion: Lesion, inside: np.ndarray, distance: np.ndarray) -> None:
    """Posterior shadow or enhancement: attenuation of the path through the lesion."""
    thickest = max(float(inside.sum(axis=0).max()), 1.0)
    tissue.loss -= np.float32(lesion.posterior / thickest) * inside
    columns = np.nonzero((distance > 0).any(axis=0))[0]
    if lesion.capsule and columns.size:
        # sound is bent away at the sides of a smooth lesion: thin edge shadows
        x = np.arange(distance.shape[1], dtype=np.float32)[None, :]
        sides = sum(np.exp(-np.square((x - edge) / 2.5)) for edge in columns[[0, -1]])
        rows = inside.max(axis=1, keepdims=True)
        tissue.loss += np.float32(0.36 * lesion.capsule / thickest) * sides * rows
