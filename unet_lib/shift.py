"""Whether an image is unlike the training images, and in what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case
from unet_lib.images import as_image, read_pixels
from unet_lib.settings import Settings

__all__ = ["FEATURES", "Shift", "ShiftMonitor", "ShiftWarning", "fit_monitor", "image_features"]

_WORDS = {  # feature: what a high value and what a low value look like
    "colour": ("coloured parts", "no colour"),
    "black": ("large black parts", "hardly any black"),
    "white": ("large white parts", "hardly any white"),
    "grey 5% quantile": ("bright where others are darkest", "very dark in its darkest parts"),
    "grey 25% quantile": ("bright dark parts", "very dark in its dark parts"),
    "grey 50% quantile": ("bright as a whole", "dark as a whole"),
    "grey 75% quantile": ("very bright in its bright parts", "dim bright parts"),
    "grey 95% quantile": ("very bright in its brightest parts", "dim where others are brightest"),
    "grey entropy": ("evenly used grey levels", "few grey levels"),
    "top to bottom brightness": ("bright top, dark bottom", "dark top, bright bottom"),
    "left to right brightness": ("bright left, dark right", "dark left, bright right"),
    "flat parts": ("large parts without texture", "hardly any part without texture"),
    "sharp edges": ("many sharp edges, as of text and lines", "hardly any sharp edge"),
    "gradient": ("hard contrast from pixel to pixel", "soft contrast from pixel to pixel"),
    "across to down gradient": ("upright structures", "structures lying across"),
    "fine detail": ("much fine detail", "little fine detail, as if blurred"),
    "middle detail": ("strong middle-sized structures", "weak middle-sized structures"),
    "coarse detail": ("strong large structures", "weak large structures"),
    "speckle contrast": ("strong speckle", "little speckle"),
    "speckle skewness": ("speckle of bright dots", "speckle of dark dots"),
    "bright to dark specks": ("bright specks", "dark specks, as if inverted"),
    "bright to dark spots": ("bright spots", "dark spots, as if inverted"),
    "dark border": ("a wide black border", "no black border"),
}
FEATURES = tuple(_WORDS)
"""What is measured of an image, in the order of `image_features`."""

_SIDE = 128  # pixels of the longer side, to which every image is brought
_QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_LEAST_SPREAD = 0.02  # of a feature that hardly varies in the training images, such as colour
_FEWEST = 20  # training or validation images
_HELD_OUT_SHARE = 0.95  # of the validation images lie within the limit


def image_features(
    pixels: np.ndarray, side: int = _SIDE, image: np.ndarray | None = None
) -> np.ndarray:
    """Measure stored pixels (as in `Frame`): FEATURES, each of order 1, whatever the size.

    `image`: the same pixels by `as_image`, where the caller has them.
    """
    grey = _resized((as_image(pixels, "image") if image is None else image)[..., 0], side)
    shown = grey[_seen(grey)]
    height, width = shown.shape
    ordered = np.sort(shown, axis=None)
    levels = np.searchsorted(ordered, np.linspace(0, 1, 65)[1:-1].astype(np.float32))
    histogram = np.diff(levels, prepend=0, append=shown.size) / shown.size
    entropy = -(histogram * np.log2(histogram + 1e-12)).sum() / 6
    top, bottom = shown[: height // 2 + 1].mean(), shown[height // 2 :].mean()
    left, right = shown[:, : width // 2 + 1].mean(), shown[:, width // 2 :].mean()
    # np.quantile of 65,000 sorted values, in a tenth of its time
    below, part = np.divmod(_QUANTILES * (shown.size - 1), 1)
    below = below.astype(int)
    quantiles = ordered[below] * (1 - part) + ordered[below + 1] * part
    values = [5 * _colour_share(pixels), (grey < 0.03).mean(), (grey > 0.97).mean()]
    values += [*quantiles, entropy, top - bottom, left - right]
    return np.array([*values, *_texture(shown), 1 - shown.size / grey.size])


def _colour_share(pixels: np.ndarray) -> float:
    """Share of pixels whose channels differ by more than JPEG makes them differ."""
    if pixels.ndim != 3:
        return 0.0
    top = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    step = max(1, max(pixels.shape) // 256)
    size = [max(1, side // step) for side in pixels.shape[:2]]
    some = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_NEAREST)
    one, two, three = cv2.split(some)
    spread = cv2.max(cv2.max(one, two), three) - cv2.min(cv2.min(one, two), three)
    return float((spread > spread.dtype.type(0.12 * top)).mean())


def _resized(grey: np.ndarray, longer: int) -> np.ndarray:
    scale = longer / max(grey.shape)
    size = [max(8, round(side * scale)) for side in grey.shape]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.clip(cv2.resize(grey, size[::-1], interpolation=way), 0, 1)


def _seen(grey: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns without the dark border."""
    bright = grey > 0.06
    rows, columns = (np.flatnonzero(bright.mean(axis) > 0.02) for axis in (1, 0))
    if len(rows) < 8 or len(columns) < 8:
        return slice(None), slice(None)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _texture(grey: np.ndarray) -> list[float]:
    down, across = cv2.absdiff(grey[1:], grey[:-1]), cv2.absdiff(grey[:, 1:], grey[:, :-1])
    gradient = down[:, :-1] + across[:-1]
    details, smooth = [], grey
    for _ in range(3):  # energy of each octave, in decades
        smoother = cv2.GaussianBlur(smooth, (0, 0), 2.0)
        details.append(np.log10((smooth - smoother).var() + 1e-7) / 2)
        smooth = smoother[::2, ::2]
    mean = cv2.blur(grey, (7, 7))
    rest = grey - mean
    spread = np.sqrt(np.maximum(cv2.blur(rest * rest, (7, 7)), 0))
    inside, contrast = np.flatnonzero((mean > 0.1) & (mean < 0.9)), 0.0
    if len(inside):
        contrast = np.median(spread.take(inside) / mean.take(inside))
        rest = rest.take(inside)
    third = (rest * rest * rest).mean()  # a power would take half the time of everything here
    skewness = np.tanh(third / (rest.std() ** 3 + 1e-6) / 2)
    edges = [(spread < 0.004).mean(), (gradient > 0.25).mean() * 5, 5 * gradient.mean()]
    ratio = np.log((across.mean() + 1e-4) / (down.mean() + 1e-4))
    stored = cv2.convertScaleAbs(grey, alpha=255)  # a fifth of the time of float
    spots = [_bright_to_dark(stored, size) for size in (5, 17)]
    return [*edges, ratio, *details, contrast, skewness, *spots]


def _bright_to_dark(grey: np.ndarray, size: int) -> float:
    """Compare bright structures narrower than `size` with dark ones; inversion turns the sign."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    bright = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, disc).mean()
    dark = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, disc).mean()
    return float(np.log((bright + 0.255) / (dark + 0.255)))


class ShiftWarning(UserWarning):
    """An image is unlike the images that the model was trained on."""


@dataclass(frozen=True)
class Shift:
    """How far an image is from the training images."""

    distance: float  # Mahalanobis distance of its features' arcsinh in robust spreads
    limit: float  # beyond it the image counts as unlike the training images
    unusual: tuple[str, ...]  # in words: the three features farthest from the middle, in spreads

    @property
    def flagged(self) -> bool:
        """Whether the image is unlike the training images."""
        return not self.distance <= self.limit

    def __str__(self) -> str:
        return (
            f"unlike the training images: {', '.join(self.unusual)}; distance {self.distance:.1f}, "
            f"limit {self.limit:.1f}"
        )


@dataclass(frozen=True)
class ShiftMonitor(Settings):
    """Statistics of a model's training images."""

    middle: tuple[float, ...]  # median of each feature
    spread: tuple[float, ...]  # its robust standard deviation, 1.48 MAD
    precision: tuple[tuple[float, ...], ...]  # inverse covariance of their arcsinh in spreads
    limit: float  # distance within which 95 % of the validation images lie
    trained_on: int
    validated_on: int
    features: tuple[str, ...] = FEATURES  # to refuse statistics of other features
    side: int = 256  # of the pictures that were measured, pixels
    others: tuple[ShiftMonitor, ...] = ()  # of further data sets; the nearest of all counts

    def __post_init__(self) -> None:
        count = len(FEATURES)
        if tuple(self.features) != FEATURES:
            raise ValueError("ShiftMonitor: statistics of other features; fit them again.")
        shapes = {"middle": (count,), "spread": (count,), "precision": (count, count)}
        for name, shape in shapes.items():
            values = np.asarray(getattr(self, name), float)
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"ShiftMonitor: {name} must be {shape} finite numbers.")
            object.__setattr__(self, name, _tuples(values))
        if not min(self.spread) > 0 or not 0 < self.limit < np.inf:
            raise ValueError("ShiftMonitor: spread and limit must be positive.")
        self.check(side=(16, 1024))
        object.__setattr__(self, "features", FEATURES)
        others = (
            o if isinstance(o, ShiftMonitor) else type(self).from_dict(o) for o in self.others
        )
        object.__setattr__(self, "others", tuple(others))

    def measure(self, pixels: np.ndarray, image: np.ndarray | None = None) -> Shift:
        """Return how far an image is; arguments as of `image_features`."""
        values = image_features(pixels, self.side, image)
        shifts = [monitor._shift(values) for monitor in (self, *self.others)]
        return min(shifts, key=lambda shift: shift.distance / shift.limit)

    def _shift(self, values: np.ndarray) -> Shift:
        spreads = (values - self.middle) / self.spread
        far = np.arcsinh(spreads)
        distance = float(np.sqrt(far @ np.asarray(self.precision) @ far))
        order = np.argsort(-np.abs(spreads))[:3]
        words = (_WORDS[FEATURES[i]][int(spreads[i] < 0)] for i in order)
        return Shift(
            distance,
            self.limit,
            tuple(f"{one} ({spreads[i]:+.1f})" for i, one in zip(order, words, strict=True)),
        )


def fit_monitor(
    training: Sequence[Case], validation: Sequence[Case] = (), *, progress: bool = True
) -> ShiftMonitor | None:
    """Take the statistics from the training images and the limit from the validation images.

    Of several data sets each has its own: the middle of two scanners is like neither of them.
    Features in robust spreads from the median, drawn together by arcsinh so that a few odd
    training images do not widen the statistics; covariance by Ledoit and Wolf (2004). Without
    validation images the limit comes from every fifth group of the training images, left out of
    the statistics. None with fewer than 20 images in either part: nothing can be said then.
    """
    sets = dict.fromkeys(case.data_set for case in training)
    if len(sets) > 1:
        parts = (
            [[case for case in part if case.data_set == name] for part in (training, validation)]
            for name in sets
        )
        fitted = [one for part in parts if (one := fit_monitor(*part, progress=progress))]
        return replace(fitted[0], others=tuple(fitted[1:])) if fitted else None
    if not validation:
        groups = set(sorted({case.group for case in training})[::5])
        validation = [case for case in training if case.group in groups]
        training = [case for case in training if case.group not in groups]
    if min(len(training), len(validation)) < _FEWEST:
        return None
    bar = tqdm([*training, *validation], "image statistics", disable=not progress, unit="image")
    measured = np.array([image_features(read_pixels(case.image_path)) for case in bar])
    return fit_features(measured[: len(training)], measured[len(training) :])


def fit_features(train: np.ndarray, held_out: np.ndarray, side: int = _SIDE) -> ShiftMonitor:
    """Make the monitor from features, (N, F) of each part."""
    from sklearn.covariance import LedoitWolf  # slow to import

    middle = np.median(train, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(train - middle), axis=0), _LEAST_SPREAD)
    scaled, far = (np.arcsinh((values - middle) / spread) for values in (train, held_out))
    precision = LedoitWolf(assume_centered=True).fit(scaled).precision_
    limit = float(np.quantile(np.sqrt(((far @ precision) * far).sum(1)), _HELD_OUT_SHARE))
    return ShiftMonitor(middle, spread, precision, limit, len(train), len(held_out), side=side)


def _tuples(values: np.ndarray) -> tuple:
    """Turn an array to nested tuples of numbers of six significant digits."""
    if np.ndim(values):
        return tuple(_tuples(part) for part in values)
    return float(f"{values:.6g}")
