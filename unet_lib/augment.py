"""Random changes of one training pair: one warp for image and mask, then intensities.

The warp (flip, rotation, scale, shift, elastic) is one coordinate map and one resampling of image
and mask together, so that they cannot come apart. The intensity changes touch the image only.
They are additive where the physics is multiplicative, because a B-mode picture shows the logarithm
of the echo: a loss of so many decibels is a grey value subtracted. Pixels that are exactly 0 (the
padding, the black around the scan) stay 0, as they are when the network is used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from unet_lib.settings import Settings

__all__ = ["AUGMENTATIONS", "PROBABILITIES", "Augmentation"]

PROBABILITIES: dict[str, float] = {
    "affine": 0.8,  # rotation, scale and shift together
    "elastic": 0.4,
    "brightness": 0.5,
    "contrast": 0.5,
    "gamma": 0.5,
    "speckle": 0.3,
    "blur": 0.2,
    "attenuation": 0.3,
    "shadow": 0.15,
}
"""How often each effect takes part (the flip's probability is its own setting)."""

AUGMENTATIONS: dict[str, type[Augmentation]] = {}
"""Classes derived from `Augmentation`, by the name that a run's settings give as ``kind``."""

_GRID = 5  # control points of the elastic warp along each side


def _strength(default: float, *, limit: float) -> Any:
    """Declare a strength of an augmentation: from 0 (off) to its limit."""
    return dataclasses.field(default=default, metadata={"limit": limit})


@dataclasses.dataclass(frozen=True)
class Augmentation(Settings):
    """Strengths of the random changes; each may be 0, and all 0 is the exact identity.

    A strength is the largest change: the drawn one is uniform up to it, and takes part with the
    probability in `PROBABILITIES`. The same generator gives the same pair, and as every call draws
    equally many numbers, changing one strength leaves the other effects as they were. How to add
    one: ``docs/extending.md``. ValueError for a strength that is no number from 0 to its limit.

    Parameters
    ----------
    horizontal_flip : float
        Probability of a left-right flip. There is no vertical flip: shadows point down.
    rotation : float
        Degrees to either side, about the centre.
    scale : float
        Relative change of size: the factor lies in ``[1 / (1 + scale), 1 + scale]``.
    shift : float
        Fraction of the height (width) by which the picture moves.
    elastic : float
        Largest displacement of a 5 x 5 grid of control points, as a fraction of the shorter side;
        cubic in between (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801, with a coarse grid
        in place of the smoothed field).
    brightness, contrast, gamma : float
        Grey value added; relative change of the distance from the mean; logarithm of the exponent.
    speckle : float
        Standard deviation of additive, spatially correlated noise: the logarithm of a
        Rayleigh-distributed echo has a constant spread (Dutt & Greenleaf 1996,
        doi:10.1109/42.544498).
    blur : float
        Standard deviation of a Gaussian blur, as a fraction of the longer side.
    attenuation : float
        Grey value lost or gained at the bottom edge, growing linearly with depth (depth gain).
    shadow : float
        Grey value lost within one acoustic shadow that runs from some depth to the bottom edge.
    lesion_free : float
        Probability that the tissue left or right of the lesions, mirrored, takes their place, where
        it has a fifth of the scan's width: for a set without normal images.
    """

    horizontal_flip: float = _strength(0.5, limit=1.0)
    rotation: float = _strength(15.0, limit=45.0)  # more would point the shadows sideways
    scale: float = _strength(0.15, limit=0.5)
    shift: float = _strength(0.08, limit=0.5)
    elastic: float = _strength(0.02, limit=0.04)  # more would fold the picture over itself
    brightness: float = _strength(0.1, limit=0.5)
    contrast: float = _strength(0.25, limit=0.9)
    gamma: float = _strength(0.3, limit=1.0)
    speckle: float = _strength(0.06, limit=0.3)
    blur: float = _strength(0.006, limit=0.03)
    attenuation: float = _strength(0.2, limit=0.8)
    shadow: float = _strength(0.25, limit=0.8)
    lesion_free: float = _strength(0.0, limit=0.9)

    def __init_subclass__(cls) -> None:
        AUGMENTATIONS[cls.__name__] = cls

    def __post_init__(self) -> None:
        strengths = dataclasses.fields(Augmentation)
        self.check(**{field.name: (0, field.metadata["limit"]) for field in strengths})

    def to_dict(self) -> dict[str, Any]:
        """Return the strengths, and of a derived class its name."""
        kind = {} if type(self) is Augmentation else {"kind": type(self).__name__}
        return kind | super().to_dict()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Augmentation:
        """Build the class that the settings name, or this one."""
        if not isinstance(values, Mapping) or "kind" not in values:
            return super().from_dict(values)
        kind, values = values["kind"], {k: v for k, v in values.items() if k != "kind"}
        if not isinstance(kind, str) or kind not in AUGMENTATIONS:
            raise ValueError(
                f"Augmentation: no kind {kind!r} is known ({', '.join(AUGMENTATIONS) or 'none'}); "
                "import the module that defines it."
            )
        return AUGMENTATIONS[kind].from_dict(values)

    def apply(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Change one pair at random.

        Image, float32 (H, W, C) in [0, 1] with 1 to 3 channels, and mask, bool (H, W) or None, are
        left as they are, and come back themselves when this draw changes nothing; 0 where the warp
        shows what lies outside. `rng` is a generator, for example
        ``default_rng([seed, epoch, index])``. ValueError for other shapes or types.
        """
        shape = image.shape[:2]
        fits = image.ndim == 3 and 1 <= image.shape[2] <= 3 and image.dtype == np.float32
        if not fits or (mask is not None and (mask.dtype != bool or mask.shape != shape)):
            raise ValueError(
                "Augmentation.apply: expected an image float32 (H, W, C) with 1 to 3 channels and "
                f"a mask bool (H, W); received {image.dtype} {image.shape} and "
                f"{mask if mask is None else f'{mask.dtype} {mask.shape}'}."
            )
        draw = _Draw(rng)
        coordinates = self._coordinates(shape, draw)
        if mask is not None and draw.unit["lesion_free"] < self.lesion_free:
            coordinates = _beside(image, mask, coordinates, draw.unit["side"])
        image, mask = _warp(image, mask, coordinates)
        return self._intensities(image, draw), mask

    def _coordinates(self, shape: tuple[int, int], draw: _Draw) -> np.ndarray | None:
        """Where each output pixel is read: float32 (H, W, 2) of x, y; None if nothing moves."""
        height, width = shape
        flip = draw.unit["flip"] < self.horizontal_flip
        angle = math.radians(self.rotation * draw.signed("rotation", "affine"))
        factor = (1 + self.scale) ** draw.signed("scale", "affine")
        right = self.shift * width * draw.signed("right", "affine")
        down = self.shift * height * draw.signed("down", "affine")
        elastic = self.elastic * draw.amount("elastic") * min(shape)
        if not (flip or angle or factor != 1 or right or down or elastic):
            return None
        centre = np.float32([(width - 1) / 2, (height - 1) / 2])
        x = np.arange(width, dtype=np.float32)[None, :] - np.float32(centre[0] + right)
        y = np.arange(height, dtype=np.float32)[:, None] - np.float32(centre[1] + down)
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        source = np.empty((height, width, 2), np.float32)
        source[..., 0] = cos * x - sin * y
        source[..., 1] = sin * x + cos * y
        if elastic:
            grid = draw.noise("elastic").uniform(-1, 1, (_GRID, _GRID, 2)).astype(np.float32)
            source += elastic * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        if flip:
            source[..., 0] *= -1
        return source + centre

    def _intensities(self, image: np.ndarray, draw: _Draw) -> np.ndarray:
        """Change the grey values; 0 stays 0, the rest stays within [0, 1]."""
        changed = image
        if blur := self.blur * draw.amount("blur"):
            sigma = blur * max(image.shape[:2])
            changed = cv2.GaussianBlur(changed, (0, 0), sigma).reshape(image.shape)
        if gamma := self.gamma * draw.signed("gamma"):
            changed = changed ** np.float32(math.exp(gamma))
        if contrast := self.contrast * draw.signed("contrast"):
            mean = changed.mean()
            changed = mean + np.float32(1 + contrast) * (changed - mean)
        offset = self._offset(image.shape[:2], draw)
        if changed is image and offset is None:
            return image
        if offset is not None:
            changed = changed + offset[..., None]
        return np.where(image > 0, np.clip(changed, 0, 1), np.float32(0))

    def _offset(self, shape: tuple[int, int], draw: _Draw) -> np.ndarray | None:
        """Grey values to be added, float32 broadcastable to (H, W); None if there are none."""
        parts = []
        if brightness := self.brightness * draw.signed("brightness"):
            parts.append(np.full((1, 1), brightness, np.float32))
        if attenuation := self.attenuation * draw.signed("attenuation"):
            depth = np.linspace(0, 1, shape[0], dtype=np.float32)
            parts.append(np.float32(-attenuation) * depth[:, None])
        if speckle := self.speckle * draw.amount("speckle"):
            parts.append(np.float32(speckle) * _correlated_noise(shape, draw.noise("speckle")))
        if shadow := self.shadow * draw.amount("shadow"):
            parts.append(np.float32(-shadow) * _shadow(shape, draw))
        return sum(parts) if parts else None


class _Draw:
    """All numbers of one pair, drawn at once so that their count never depends on a strength."""

    _VALUES = (
        *("flip", "rotation", "scale", "right", "down", "elastic", "brightness", "contrast"),
        *("gamma", "speckle", "blur", "attenuation", "shadow", "place", "width", "start"),
    )

    def __init__(self, rng: np.random.Generator) -> None:
        names = (*self._VALUES, *(f"take {name}" for name in PROBABILITIES))
        self.unit = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
        elastic, speckle = rng.integers(2**63, size=2).tolist()
        self._seeds = {"elastic": elastic, "speckle": speckle}
        self.unit |= zip(("lesion_free", "side"), rng.random(2).tolist(), strict=True)

    def amount(self, name: str) -> float:
        """Return a number in (0, 1], or 0 when this effect sits this pair out."""
        return 1 - self.unit[name] if self._taken(name) else 0.0

    def signed(self, name: str, effect: str | None = None) -> float:
        """Return a number in [-1, 1), or 0 when this effect sits this pair out."""
        return 2 * self.unit[name] - 1 if self._taken(effect or name) else 0.0

    def noise(self, name: str) -> np.random.Generator:
        """Return a generator of the effect's own, for fields of any size."""
        return np.random.default_rng(self._seeds[name])

    def _taken(self, effect: str) -> bool:
        return self.unit[f"take {effect}"] < PROBABILITIES[effect]


def _beside(
    image: np.ndarray, mask: np.ndarray, coordinates: np.ndarray | None, side: float
) -> np.ndarray | None:
    """Let a map read within the columns left or right of all lesions, mirrored at their ends."""
    columns, scan = np.flatnonzero(mask.any(0)), np.flatnonzero(image.any((0, 2)))
    if not (columns.size and scan.size):
        return coordinates
    first, last, margin = scan[0], scan[-1], mask.shape[1] // 32
    strips = [(first, columns[0] - margin), (columns[-1] + margin, last)]
    strips = [ends for ends in strips if ends[1] - ends[0] >= 0.2 * (last - first)]
    if not strips:
        return coordinates
    low, high = strips[int(side * len(strips))]
    if coordinates is None:
        y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
        coordinates = np.dstack([x, y])
    x, width = coordinates[..., 0], high - low
    mirrored = low + width - np.abs((x - low) % (2 * width) - width)
    coordinates[..., 0] = np.where((x >= first) & (x <= last), mirrored, x)
    return coordinates


def _warp(
    image: np.ndarray, mask: np.ndarray | None, coordinates: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resample image and mask together, bilinearly; the mask is what is at least half lesion."""
    if coordinates is None:
        return image, mask
    layers = image if mask is None else np.dstack([image, mask.astype(np.float32)])
    warped = cv2.remap(
        layers, coordinates, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    ).reshape(layers.shape)
    if mask is None:
        return warped, None
    return np.ascontiguousarray(warped[..., :-1]), warped[..., -1] >= 0.5


def _correlated_noise(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise of unit spread with grains about twice as wide as high, like speckle; (H, W)."""
    coarse = (-(-shape[0] // 2) + 1, -(-shape[1] // 4) + 1)
    grains = rng.standard_normal(coarse, dtype=np.float32)
    field = cv2.resize(grains, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return field / max(float(field.std()), 1e-6)


def _shadow(shape: tuple[int, int], draw: _Draw) -> np.ndarray:
    """One shadow with soft edges, 0 outside and 1 in its core, float32 (H, W)."""
    across = np.linspace(0, 1, shape[1], dtype=np.float32)[None, :]
    down = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    half_width = 0.03 + 0.1 * draw.unit["width"]
    start = 0.7 * draw.unit["start"]
    profile = np.exp(-(((across - draw.unit["place"]) / half_width) ** 4))
    return profile * np.clip((down - start) / 0.1, 0, 1)
