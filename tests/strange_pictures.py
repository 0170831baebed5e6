"""Pictures that are no plain B-mode ultrasound, made in code or taken from installed packages.

Rates: `python tests/strange_pictures.py data/Dataset_BUSI_with_GT [MODEL OF FOLD 0, 1, ...]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

_TEXT = "the patient was examined lying on her back no lesion report"
WORDS = _TEXT.split()


def text_pages(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Black on white, white on black, of any letter size and length."""
    for number in range(count):
        page = np.full((int(rng.integers(300, 700)), int(rng.integers(300, 700))), 255, np.uint8)
        scale = rng.uniform(0.4, 1.2)
        step = int(30 * scale) + 4
        for y in range(step, len(page) - step, step):
            line = " ".join(rng.choice(WORDS, rng.integers(2, 12)))
            cv2.putText(page, line, (12, y), 0, scale, 0, 1 + int(scale > 0.8), cv2.LINE_AA)
        yield page if number % 2 else 255 - page


def drawings(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Shapes and lines of flat grey or colour."""
    for number in range(count):
        shape = (int(rng.integers(250, 600)), int(rng.integers(250, 600)), 3)
        page = np.full(shape, rng.integers(0, 256), np.uint8)
        for _ in range(rng.integers(3, 25)):
            a, b = (tuple(int(v) for v in rng.integers(0, shape[:2][::-1])) for _ in range(2))
            ink = rng.integers(0, 256, 3) if number % 2 else [rng.integers(0, 256)] * 3
            ink = tuple(int(v) for v in ink)
            kind = rng.integers(3)
            if kind == 0:
                cv2.line(page, a, b, ink, int(rng.integers(1, 9)), cv2.LINE_AA)
            elif kind == 1:
                cv2.rectangle(page, a, b, ink, -1)
            else:
                cv2.circle(page, a, int(rng.integers(5, 120)), ink, -1, cv2.LINE_AA)
        yield page


def gradients(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Smooth ramps in any direction, straight and round."""
    for _ in range(count):
        y, x = np.mgrid[: rng.integers(200, 600), : rng.integers(200, 600)].astype(float)
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * x + np.sin(angle) * y
        ramp = ramp if rng.random() < 0.5 else np.hypot(x - x.mean(), y - y.mean())
        ramp = (ramp - ramp.min()) / np.ptp(ramp)
        yield np.rint(255 * ramp ** rng.uniform(0.5, 2)).astype(np.uint8)


def noises(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """White noise, uniform or normal, and noise as on photographs (1/f) of any steepness."""
    for number in range(count):
        shape = int(rng.integers(200, 600)), int(rng.integers(200, 600))
        if number % 3 == 0:
            yield rng.integers(0, 256, shape, dtype=np.uint8)
            continue
        frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")) + 1 / 300
        field = np.fft.fft2(rng.normal(size=shape)) / frequency ** rng.uniform(0, 1.6)
        field = np.fft.ifft2(field).real
        field = field / field.std() * rng.uniform(30, 70) + rng.uniform(90, 160)
        yield np.clip(np.rint(field), 0, 255).astype(np.uint8)


def textures(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Bricks, waves, spots: repeated patterns with noise."""
    for number in range(count):
        y, x = np.mgrid[: rng.integers(250, 500), : rng.integers(250, 500)].astype(float)
        period = rng.uniform(6, 50)
        waves = np.sin(2 * np.pi * (x * np.cos(number) + y * np.sin(number)) / period)
        bricks = ((x + (y // period % 2) * period) % (2 * period) < 3) | (y % period < 3)
        spots = np.sin(x / period * 4) * np.sin(y / period * 4)
        field = (waves, 1.0 - 2.0 * bricks, spots)[number % 3]
        field = 128 + rng.uniform(40, 110) * field + rng.normal(0, rng.uniform(0, 15), field.shape)
        yield np.clip(np.rint(field), 0, 255).astype(np.uint8)


def photographs(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Parts of the two photographs of scikit-learn, in colour and in grey."""
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    for number in range(count):
        picture = pictures[number % 2]
        side = int(rng.integers(180, 427))
        top, left = rng.integers(0, 427 - side + 1), rng.integers(0, 640 - side + 1)
        part = picture[top : top + side, left : left + side]
        yield part if number % 4 < 2 else cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)


def empties(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """One grey value, or hardly more."""
    for number in range(count):
        value = (0, 255, int(rng.integers(1, 255)))[number % 3]
        page = np.full((int(rng.integers(100, 600)), int(rng.integers(100, 600))), value, np.uint8)
        if number % 2:
            page[:: int(rng.integers(20, 90)), ::37] ^= 3
        yield page


KINDS = {
    "text pages": text_pages,
    "drawings": drawings,
    "gradients": gradients,
    "noise": noises,
    "textures": textures,
    "photographs": photographs,
    "empty": empties,
}


def inverted(pixels: np.ndarray) -> np.ndarray:
    """White for black."""
    return 255 - pixels


def with_doppler(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A red and blue flow field in a box, and its colour bar, over an ultrasound image."""
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    picture = np.stack([grey] * 3, -1).astype(np.float32)
    height, width = grey.shape
    h, w = int(height * rng.uniform(0.25, 0.6)), int(width * rng.uniform(0.25, 0.6))
    top, left = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
    flow = cv2.GaussianBlur(rng.normal(size=(h, w)), (0, 0), max(3.0, w / 15))
    flow /= np.abs(flow).max()
    box = picture[top : top + h, left : left + w]
    box[flow > 0.2] = box[flow > 0.2] * 0.2 + (220, 40, 20)
    box[flow < -0.2] = box[flow < -0.2] * 0.2 + (20, 60, 230)
    bar = np.linspace(-1, 1, height // 3)
    colours = np.stack([np.maximum(bar, 0), np.abs(bar) * 0.3, np.maximum(-bar, 0)], -1) * 255
    picture[10 : 10 + len(bar), -max(8, width // 40) :] = colours[:, None]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def with_text(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ultrasound image small on a screen full of text."""
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    page = next(text_pages(1, rng))
    h, w = page.shape[0] // 3, page.shape[1] // 3
    page[-h - 5 : -5, -w - 5 : -5] = cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA)
    return page


def rates(folder: str, *models: str) -> dict[str, list[tuple[int, int]]]:
    """Count what is flagged, by kind: (flagged, images) of each fold, by its own statistics.

    The test part of each fold, which neither statistics nor limit have seen, as it is and changed;
    the other pictures anew in every fold. The statistics are those of the folds' model folders;
    without models, of the data set alone.
    """
    from unet_lib.images import read_pixels
    from unet_lib.phantoms import phantom_pictures
    from unet_lib.shift import fit_features, image_features
    from unet_lib.source import open_dataset
    from unet_lib.weights.folder import read_monitor

    counts: dict[str, list[tuple[int, int]]] = {}
    known: dict[str, np.ndarray] = {}

    def features(case):
        if case.name not in known:
            known[case.name] = image_features(read_pixels(case.image_path))
        return known[case.name]

    for fold in range(len(models) or 5):
        split = open_dataset(folder, fold=fold).split
        parts = (split.train, split.validation)
        if models:
            monitor = read_monitor(Path(models[fold]))
        else:
            monitor = fit_features(*(np.array([*map(features, part)]) for part in parts))
        rng = np.random.default_rng(fold)

        def count(kind, pictures, monitor=monitor):
            flagged = [monitor.measure(pixels).flagged for pixels in pictures]
            counts.setdefault(kind, []).append((sum(flagged), len(flagged)))

        tests = [read_pixels(case.image_path) for case in split.test]
        count("held-out images", tests)
        for name, make in KINDS.items():
            count(name, make(40, rng))
        count("held-out, inverted", map(inverted, tests))
        count("held-out, colour flow", (with_doppler(pixels, rng) for pixels in tests))
        count("held-out, small among text", (with_text(pixels, rng) for pixels in tests))
        count("phantoms", (p.image for p in phantom_pictures(20, seed=fold)))
    return counts


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    for name, counts in rates(*sys.argv[1:]).items():
        flagged, images = map(sum, zip(*counts, strict=True))
        by_fold = ", ".join(f"{one / all_of_it:.1%}" for one, all_of_it in counts)
        print(f"| {name} | {images} | {flagged} | {flagged / images:.1%} | {by_fold} |")
