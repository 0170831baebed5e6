"""From tissue to a B-mode picture, and what a scanner puts over it: borders, text, callipers.

The model is the classical linear one (Bamber & Dickinson 1980, doi:10.1088/0031-9155/25/3/006):
the echo is the convolution of random scatterers with a pulse that is short along the beam and wide
across it. It is computed at baseband: a scatterer between two samples turns the phase of the
carrier by any angle, so it enters as a complex Gaussian number, and the modulus of the convolved
field is the envelope. With many scatterers to a resolution cell that is Rayleigh speckle.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from unet_lib.phantoms.tissue import Tissue

_TEXTS = ("RT", "LT", "RT BREAST", "LT BREAST", "RT 10 O'CLOCK", "LT 2 O'CLOCK", "LUOQ", "RUOQ")
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Scanner:
    """Settings of the simulated scanner; lengths in pixels."""

    axial: float  # standard deviation of the pulse along the beam
    lateral: float  # and across it, at the focus
    focus: float  # its depth as a fraction of the height; the beam is wider elsewhere
    spread: float  # how much wider it is one whole height away (1: twice as wide)
    looks: int  # independent pictures averaged (spatial compounding), which smooths the speckle
    noise: float  # electronic, in decibels at the bottom; falls towards the top with the gain
    range: float  # decibels between black and white
    gain: float  # grey value of average glandular tissue, in [0, 1]
    smoothing: float  # share of smoothed picture in the result (speckle reduction), below 1
    steer: float  # tangent of the outermost angle of the looks; softens the sides of shadows

    def image(self, tissue: Tissue, rng: np.random.Generator) -> np.ndarray:
        """Picture of some tissue: float32 (H, W), grey values in [0, 1]."""

        def white() -> np.ndarray:
            return rng.standard_normal(tissue.echo.shape, dtype=np.float32)

        depth = np.linspace(-1, 0, tissue.echo.shape[0], dtype=np.float32)[:, None]
        floor = 10 ** ((self.noise + 15 * depth) / 20)
        amplitude = np.zeros_like(tissue.echo)
        for slope in np.linspace(-self.steer, self.steer, self.looks):
            lost = cv2.GaussianBlur(_path_sum(tissue.loss, slope), (0, 0), 1.5 * self.lateral)
            strength = 10 ** ((tissue.echo - lost) / 20)
            parts = (self._received(strength * white()) + floor * white() for _ in range(2))
            amplitude += np.sqrt(sum(map(np.square, parts)) / 2) / self.looks
        grey = self.gain + 20 * np.log10(amplitude + 1e-4) / self.range
        soft = cv2.GaussianBlur(grey, (0, 0), sigmaX=1.3 * self.lateral, sigmaY=self.axial)
        return np.clip(grey + self.smoothing * (soft - grey), 0, 1)

    def _received(self, scatterers: np.ndarray) -> np.ndarray:
        """Scatterers through the pulse; lateral width grows away from the focus."""
        near, far = self.lateral, self.lateral * (1 + self.spread)
        depth = np.linspace(0, 1, scatterers.shape[0], dtype=np.float32)[:, None]
        share = np.abs(depth - self.focus)
        sharp, wide = (_pulse(scatterers, self.axial, lateral) for lateral in (near, far))
        # the two beams overlap, so their sum is scaled back to the power of each
        overlap = np.sqrt(2 * near * far / (near**2 + far**2))
        power = 1 + 2 * overlap * np.sqrt(share * (1 - share))
        return (sharp * np.sqrt(1 - share) + wide * np.sqrt(share)) / np.sqrt(power)


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw a scanner with settings that are seen in practice."""
    return Scanner(
        axial=rng.uniform(0.7, 1.0),
        lateral=rng.uniform(1.1, 1.8),
        focus=rng.uniform(0.2, 0.6),
        spread=rng.uniform(0.4, 1.2),
        looks=int(rng.integers(2, 5)),
        noise=rng.uniform(-39, -27),
        range=rng.uniform(46, 62),
        gain=rng.uniform(0.48, 0.67),
        smoothing=rng.uniform(0.1, 0.8),
        steer=rng.uniform(0.03, 0.18),
    )


def _path_sum(loss: np.ndarray, slope: float) -> np.ndarray:
    """Attenuation summed along the beam down to each point; the beam leans by `slope`."""
    height, width = loss.shape
    lean = np.float32([[1, slope, -slope * height / 2], [0, 1, 0]])
    back = np.float32([[1, -slope, slope * height / 2], [0, 1, 0]])
    flags = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    upright = cv2.warpAffine(loss, lean, (width, height), **flags)
    return cv2.warpAffine(np.cumsum(upright, axis=0), back, (width, height), **flags)


def _pulse(field: np.ndarray, axial: float, lateral: float) -> np.ndarray:
    """Convolve with a separable Gaussian pulse that keeps the power of white noise."""
    kernels = [_kernel(sigma) for sigma in (lateral, axial)]
    return cv2.sepFilter2D(field, cv2.CV_32F, *kernels, borderType=cv2.BORDER_REFLECT_101)


def _kernel(sigma: float) -> np.ndarray:
    radius = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return (kernel / np.sqrt(np.square(kernel).sum())).astype(np.float32)


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
