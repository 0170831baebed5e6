"""From tissue to a B-mode picture: scatterers, point-spread function, envelope, logarithm.

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
        depth = np.linspace(-1, 0, tissue.echo.shape[0], dtype=np.float32)[:, None]
        floor = 10 ** ((self.noise + 15 * depth) / 20)
        amplitude = np.zeros_like(tissue.echo)
        for slope in np.linspace(-self.steer, self.steer, self.looks):
            lost = cv2.GaussianBlur(_path_sum(tissue.loss, slope), (0, 0), 1.5 * self.lateral)
            strength = 10 ** ((tissue.echo - lost) / 20)
            amplitude += np.sqrt(self._power(strength, floor, rng)) / self.looks
        grey = self.gain + 20 * np.log10(amplitude + 1e-4) / self.range
        soft = cv2.GaussianBlur(grey, (0, 0), sigmaX=1.3 * self.lateral, sigmaY=self.axial)
        return np.clip(grey + self.smoothing * (soft - grey), 0, 1)

    def _power(
        self, strength: np.ndarray, floor: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Squared envelope of one look, float32 (H, W); mean `strength` squared plus noise."""
        parts = (self._received(strength * _normal(rng, strength.shape)) for _ in range(2))
        return sum(np.square(part + floor * _normal(rng, strength.shape)) for part in parts) / 2

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


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _pulse(field: np.ndarray, axial: float, lateral: float) -> np.ndarray:
    """Convolve with a separable Gaussian pulse that keeps the power of white noise."""
    kernels = [_kernel(sigma) for sigma in (lateral, axial)]
    return cv2.sepFilter2D(field, cv2.CV_32F, *kernels, borderType=cv2.BORDER_REFLECT_101)


def _kernel(sigma: float) -> np.ndarray:
    radius = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return (kernel / np.sqrt(np.square(kernel).sum())).astype(np.float32)
