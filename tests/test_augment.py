"""Augmentation: identity, alignment of image and mask, independence of the effects, intensities."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import ndimage

from unet_lib.augment import PROBABILITIES, Augmentation

GEOMETRY = ("horizontal_flip", "rotation", "scale", "shift", "elastic")
NAMES = tuple(field.name for field in fields(Augmentation))
INTENSITY = tuple(name for name in NAMES if name not in GEOMETRY)
LIMITS = Augmentation.limits()


def only(**strengths: float) -> Augmentation:
    return replace(Augmentation.none(), **strengths)


def picture(shape=(96, 112), seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((*shape, 1), dtype=np.float32)
    return ndimage.gaussian_filter(noise, (2, 2, 0)) * 0.8 + 0.1


def disc(shape, centre, radius) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright disc with an anti-aliased edge, and the mask of the same circle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y - centre[0], x - centre[1])
    image = np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
    return image[..., None], distance <= radius


def test_all_zero_is_the_exact_identity():
    image, mask = picture(), picture(seed=1)[..., 0] > 0.5
    for seed in range(50):
        out, out_mask = Augmentation.none().apply(image, mask, np.random.default_rng(seed))
        assert np.array_equal(out, image) and np.array_equal(out_mask, mask)
    assert Augmentation().scaled(0) == Augmentation.none()


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0, np.inf])
def test_disc_and_mask_stay_aligned(factor):
    """IoU of the thresholded disc with its mask is at least .98 over 400 draws a strength.

    The disc's edge is anti-aliased, so the image carries the circle more exactly than the mask: a
    displacement of one pixel between the two already fails at this radius.
    """
    strengths = {name: getattr(Augmentation(), name) for name in GEOMETRY}
    if factor == np.inf:
        strengths = {name: LIMITS[name] for name in GEOMETRY}
    else:
        strengths = {n: min(value * factor, LIMITS[n]) for n, value in strengths.items()}
    augmentation = only(**strengths | {"horizontal_flip": 0.5})
    seen, worst = 0, 1.0
    for seed in range(400):
        rng = np.random.default_rng([7, seed])
        centre, radius = rng.uniform(80, 111, 2), rng.uniform(46, 54)
        image, mask = augmentation.apply(*disc((192, 192), centre, radius), rng)
        bright = image[..., 0] >= 0.5
        if bright.sum() < 2500:  # mostly shifted out of the frame: too little left to compare
            continue
        seen += 1
        worst = min(worst, (bright & mask).sum() / (bright | mask).sum())
    assert seen > 340
    assert worst >= 0.98


def test_one_pixel_of_displacement_would_be_seen():
    """The alignment test above has teeth: its comparison fails when the mask is a pixel late."""
    image, mask = disc((192, 192), (95, 96), 50)
    late = ndimage.shift(image[..., 0], (1, 0), order=1) >= 0.5
    assert (late & mask).sum() / (late | mask).sum() < 0.98


def test_warp_is_the_stated_similarity():
    """The disc lands where one similarity puts it, computed here by hand from the drawn mask."""
    shape, radius = (128, 160), 15.0
    augmentation = only(rotation=20.0, scale=0.2, shift=0.1)
    marks = [disc(shape, centre, radius)[1] for centre in ((50, 60), (50, 100), (80, 60))]
    for seed in range(40):
        warped = [
            augmentation.apply(picture(shape), mark, np.random.default_rng(seed))[1]
            for mark in marks
        ]
        a, b, c = (np.array(ndimage.center_of_mass(mask)) for mask in warped)
        factor = np.linalg.norm(b - a) / 40
        assert 1 / 1.2 - 0.02 <= factor <= 1.2 + 0.02
        # right angles and proportions survive; areas grow with the square of the factor
        assert abs(np.dot(b - a, c - a)) < 0.03 * np.linalg.norm(b - a) * np.linalg.norm(c - a)
        assert np.linalg.norm(c - a) / 30 == pytest.approx(factor, rel=0.03)
        assert warped[0].sum() == pytest.approx(marks[0].sum() * factor**2, rel=0.04)
        angle = np.degrees(np.arctan2((b - a)[0], (b - a)[1]))
        assert abs(angle) <= 20.5


def test_flip_is_an_exact_mirror_at_its_probability():
    image, mask = picture(), picture(seed=1)[..., 0] > 0.5
    flipped = 0
    for seed in range(400):
        out, out_mask = only(horizontal_flip=0.3).apply(image, mask, np.random.default_rng(seed))
        if np.array_equal(out, image):
            assert np.array_equal(out_mask, mask)
            continue
        flipped += 1
        np.testing.assert_allclose(out, image[:, ::-1], atol=1e-6)
        assert np.array_equal(out_mask, mask[:, ::-1])
    assert 80 <= flipped <= 160  # 120 expected, 9 standard deviation


def test_elastic_never_folds_at_its_limit():
    """Ramps warped by the strongest elastic change still rise everywhere."""
    ramp = np.linspace(0.2, 1, 128, dtype=np.float32)
    across, down = np.tile(ramp, (128, 1)), np.tile(ramp[:, None], (1, 128))
    image = np.dstack([across, down])
    moved = 0
    for seed in range(300):
        out, _ = only(elastic=LIMITS["elastic"]).apply(image, None, np.random.default_rng(seed))
        inner = out[12:-12, 12:-12].astype(float)
        dxx, dxy = np.gradient(inner[..., 0], axis=1), np.gradient(inner[..., 0], axis=0)
        dyx, dyy = np.gradient(inner[..., 1], axis=1), np.gradient(inner[..., 1], axis=0)
        assert (dxx * dyy - dxy * dyx).min() > 0
        moved += not np.array_equal(out, image)
    assert moved == pytest.approx(300 * PROBABILITIES["elastic"], abs=35)


@pytest.mark.parametrize("name", INTENSITY)
def test_each_intensity_change_works_alone_and_leaves_the_mask(name):
    image, mask = picture(), picture(seed=1)[..., 0] > 0.5
    image[:10] = 0  # padding
    changed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        out, out_mask = only(**{name: LIMITS[name]}).apply(image, mask, rng)
        assert out.dtype == np.float32 and out.shape == image.shape
        assert out.min() >= 0 and out.max() <= 1
        assert not out[:10].any()
        assert np.array_equal(out_mask, mask)
        changed += not np.array_equal(out, image)
    assert changed == pytest.approx(300 * PROBABILITIES[name], abs=35)


def test_one_strength_does_not_change_the_other_effects():
    """The mask of a pair is the same whatever the intensity strengths, and the generator too."""
    image, mask = picture(), picture(seed=1)[..., 0] > 0.5
    plain, full = Augmentation(), Augmentation()
    for name in INTENSITY:
        plain = replace(plain, **{name: 0.0})
    for seed in range(30):
        rngs = [np.random.default_rng(seed) for _ in range(3)]
        masks = [a.apply(image, mask, r)[1] for a, r in zip((plain, full), rngs[:2], strict=True)]
        Augmentation.none().apply(image, mask, rngs[2])
        assert np.array_equal(*masks)
        assert len({rng.random() for rng in rngs}) == 1


def test_same_generator_same_pair_and_inputs_untouched():
    image, mask = picture(), picture(seed=1)[..., 0] > 0.5
    before = image.copy(), mask.copy()
    pairs = [Augmentation().apply(image, mask, np.random.default_rng([1, 2, 3])) for _ in range(2)]
    assert np.array_equal(pairs[0][0], pairs[1][0]) and np.array_equal(pairs[0][1], pairs[1][1])
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])
    other = Augmentation().apply(image, mask, np.random.default_rng([1, 2, 4]))
    assert not np.array_equal(pairs[0][0], other[0])


def test_speckle_is_correlated_and_of_the_stated_strength():
    image = np.full((128, 128, 1), 0.5, np.float32)
    spreads = []
    for seed in range(200):
        out = only(speckle=0.1).apply(image, None, np.random.default_rng(seed))[0][..., 0] - 0.5
        if not out.any():
            continue
        spreads.append(out.std())
        across = np.corrcoef(out[:, 1:].ravel(), out[:, :-1].ravel())[0, 1]
        down = np.corrcoef(out[1:].ravel(), out[:-1].ravel())[0, 1]
        assert across > down > 0.3
    assert max(spreads) <= 0.1 + 1e-4 and max(spreads) > 0.08


def test_shadow_darkens_downwards_only():
    image = np.full((128, 128, 1), 0.9, np.float32)
    for seed in range(200):
        out = only(shadow=0.8).apply(image, None, np.random.default_rng(seed))[0][..., 0]
        assert (np.diff(out, axis=0) <= 1e-6).all()
        assert (out <= 0.9 + 1e-6).all()


def test_outside_of_the_frame_is_black_and_empty():
    image, mask = np.ones((64, 64, 1), np.float32), np.ones((64, 64), bool)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        out, out_mask = only(shift=0.5, rotation=45.0).apply(image, mask, rng)
        assert np.array_equal(out[..., 0] >= 0.5, out_mask)


@pytest.mark.parametrize("shape", [(17, 97), (97, 17), (3, 5), (1, 1)])
def test_any_size_and_no_mask(shape):
    image = picture(shape)
    for seed in range(30):
        out, mask = Augmentation().apply(image, None, np.random.default_rng(seed))
        assert out.shape == image.shape and mask is None and np.isfinite(out).all()


def test_settings_round_trip_and_refuse():
    settings = Augmentation(rotation=3)
    assert Augmentation.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert Augmentation.from_dict({}) == Augmentation()
    with pytest.raises(ValueError, match=r"'rotatoin'.*Allowed.*rotation"):
        Augmentation.from_dict({"rotatoin": 1})
    for name, limit in LIMITS.items():
        for bad in (-0.1, limit * 1.01, float("nan"), "1", True, None):
            with pytest.raises(ValueError, match=name):
                replace(Augmentation(), **{name: bad})
        replace(Augmentation(), **{name: limit})


def test_scaled():
    half, double = Augmentation().scaled(0.5), Augmentation().scaled(2)
    assert half.rotation == 7.5 and half.horizontal_flip == 0.25
    assert double.rotation == 30 and double.horizontal_flip == 0.5
    assert Augmentation().scaled(1e6).rotation == 45
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="factor"):
            Augmentation().scaled(bad)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((8, 8), np.float32), None, "image must be"),
        (np.zeros((8, 8, 4), np.float32), None, "image must be"),
        (np.zeros((8, 8, 1), np.uint8), None, "image must be"),
        (np.zeros((8, 8, 1), np.float32), np.zeros((8, 9), bool), "mask must be"),
        (np.zeros((8, 8, 1), np.float32), np.zeros((8, 8), np.uint8), "mask must be"),
    ],
)
def test_wrong_input_is_refused(image, mask, message):
    with pytest.raises(ValueError, match=message):
        Augmentation().apply(image, mask, np.random.default_rng(0))
