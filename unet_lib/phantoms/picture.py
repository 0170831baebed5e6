"""One phantom in memory: anatomy, lesions, scan, marks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from unet_lib.phantoms.lesions import Lesion, add_lesion, draw_lesion
from unet_lib.phantoms.marks import add_marks, visible_part
from unet_lib.phantoms.scanner import draw_scanner
from unet_lib.phantoms.tissue import breast
from unet_lib.settings import Settings

KINDS = ("benign", "malignant", "normal")
_WORKING_PIXELS = 115_000  # scans are computed at about this size, then enlarged


@dataclass(frozen=True)
class PhantomConfig(Settings):
    """What phantoms look like; ValueError when a share or a size is out of range."""

    benign: float = 0.56  # shares of the classes; BUSI has 56, 27 and 17 %
    malignant: float = 0.27
    second_lesion: float = 0.06  # how often a picture has another, in a mask file of its own
    heights: tuple[int, int] = (330, 600)  # smallest and largest, in pixels, as most of BUSI
    widths: tuple[int, int] = (350, 700)
    marks: bool = True  # whether some pictures carry text, callipers, a scale or black borders

    def __post_init__(self) -> None:
        """Check shares and sizes."""
        shares = (self.benign, self.malignant, self.second_lesion)
        if not all(0 <= share <= 1 for share in shares) or self.benign + self.malignant > 1 + 1e-9:
            raise ValueError(
                "PhantomConfig: benign, malignant and second_lesion must lie in [0, 1] and "
                f"benign + malignant must not exceed 1, got {shares}"
            )
        for name in ("heights", "widths"):
            value = tuple(getattr(self, name))
            if len(value) != 2 or not 64 <= value[0] <= value[1] <= 4096:
                expected = "must be (smallest, largest) within 64..4096 pixels"
                raise ValueError(f"PhantomConfig: {name} {expected}, got {value}")
            object.__setattr__(self, name, value)  # a list, when it comes from JSON


@dataclass(frozen=True)
class Phantom:
    """One synthetic picture."""

    name: str  # as BUSI names its files, for example "benign (1)"
    kind: str
    image: np.ndarray  # uint8 (H, W)
    masks: list[np.ndarray]  # bool (H, W), one for each lesion


def make_phantom(
    kind: str,
    seed: int | list[int],
    size: tuple[int, int] | None = None,
    config: PhantomConfig | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Make one picture, uint8 (H, W), and a mask, bool (H, W), for each lesion; never empty.

    `kind` is one of `KINDS`, `size` height and width of at least 64 pixels, drawn when left out.
    The same seed gives the same picture (with the same versions of NumPy and OpenCV).
    """
    if kind not in KINDS:
        raise ValueError(f"make_phantom: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if size is not None and min(size) < 64:
        raise ValueError(f"make_phantom: size must be at least (64, 64), got {tuple(size)}")
    config = config or PhantomConfig()
    rng = np.random.default_rng(seed)
    drawn = _draw_size(config, rng)
    size = drawn if size is None else size
    shrink = min(1.0, (_WORKING_PIXELS / (size[0] * size[1])) ** 0.5)
    working = tuple(max(48, round(side * shrink)) for side in size)

    tissue = breast(rng, working)
    distances = [add_lesion(tissue, lesion, rng) for lesion in _lesions(kind, config, working, rng)]
    grey = _enlarged(draw_scanner(rng).image(tissue, rng), size)
    image = (np.clip(grey, 0, 1) * 255).astype(np.uint8)
    masks = [_enlarged(distance, size) > 0 for distance in distances]
    if config.marks:
        seen = visible_part(size, rng)
        if all((mask & seen).sum() > 0.6 * mask.sum() for mask in masks):  # no lesion cut away
            image[~seen] = 0
            masks = [mask & seen for mask in masks]
        add_marks(image, masks, rng)
    return image, masks


def phantom_pictures(
    count: int = 6, seed: int = 0, config: PhantomConfig | None = None
) -> Iterator[Phantom]:
    """Yield phantoms in memory: benign ones first, then malignant, then normal.

    ``benign (3)`` of one seed is the same picture whatever `count`, which is that of all classes
    together; every class is there whose share allows it.
    """
    if count < 1:
        raise ValueError(f"phantoms: count must be 1 or more, got {count}")
    if seed < 0:
        raise ValueError(f"phantoms: seed must be 0 or more, got {seed}")
    config = config or PhantomConfig()
    benign = round(count * config.benign)
    malignant = min(round(count * config.malignant), count - benign)
    counts = (benign, malignant, count - benign - malignant)
    for number_of_kind, (kind, of_kind) in enumerate(zip(KINDS, counts, strict=True)):
        for number in range(1, of_kind + 1):
            image, masks = make_phantom(kind, [seed, number_of_kind, number], config=config)
            yield Phantom(f"{kind} ({number})", kind, image, masks)


def _draw_size(config: PhantomConfig, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width; three quarters of the pictures are wider than high by a fifth or so."""
    low, high = config.widths
    width = int(np.clip(rng.normal(0.5 * low + 0.5 * high, 0.25 * (high - low)), low, high))
    height = int(np.clip(width * rng.normal(0.83, 0.09), *config.heights))
    return height, width


def _lesions(
    kind: str, config: PhantomConfig, shape: tuple[int, int], rng: np.random.Generator
) -> list[Lesion]:
    """Draw one or two lesions that do not touch; none for a normal breast."""
    if kind == "normal":
        return []
    first = draw_lesion(kind, rng, min(shape))
    if rng.random() < config.second_lesion:
        for _ in range(20):
            other = draw_lesion(kind, rng, min(shape))
            apart = np.hypot((other.x - first.x) * shape[1], (other.y - first.y) * shape[0])
            if apart > 1.7 * (other.radius + first.radius) * min(shape):
                return [first, other]
    return [first]


def _enlarged(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(field, size[::-1], interpolation=cv2.INTER_CUBIC)
