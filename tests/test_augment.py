"""Augmentation: identity, alignment of image and mask, independence of the effects, intensities."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import ndimage

from unet_lib.augment import PROBABILITIES, Augmentation

GEOMETRY = ("horizontal_flip", "rotation", "scale", "shift", "elastic")
LIMITS = {field.name: field.metadata["limit"] for field in fields(Augmentation)}
INTENSITY = tuple(name for name in LIMITS if name not in (*GEOMETRY, "lesion_free"))


def only(**strengths: float) -> Augmentation:
    return Augmentation(**dict.fromkeys(LIMITS, 0.0) | strengths)


def picture(shape=(96, 112), seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((*shape, 1), dtype=np.float32)
    return ndimage.gaussian_filter(noise, (2, 2, 0)) * 0.8 + 0.1


def draws(augmentation, image, mask, count):
    """What becomes of a pair under the first seeds."""
    for seed in range(count):
        yield augmentation.apply(image, mask, np.random.default_rng(seed))


IMAGE, MASK = picture(), picture(seed=1)[..., 0] > 0.5


def disc(shape, centre, radius) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright disc with an anti-aliased edge, and the mask of the same circle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y - centre[0], x - centre[1])
    image = np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
    return image[..., None], distance <= radius


def test_all_zero_is_the_exact_identity():
    for out, out_mask in draws(only(), IMAGE, MASK, 50):
        assert np.array_equal(out, IMAGE) and np.array_equal(out_mask, MASK)


@pytest.mark.parametrize("factor", [0.5, 1.0, np.inf])
def test_disc_and_mask_stay_aligned(factor):
    """IoU of the thresholded disc with its mask is at least .98 over 400 draws a strength.

    The disc's edge is anti-aliased, so the image carries the circle more exactly than the mask: a
    displacement of one pixel between the two already fails at this radius.
    """
    image, mask = disc((192, 192), (95, 96), 50)
    late = ndimage.shift(image[..., 0], (1, 0), order=1) >= 0.5
    assert (late & mask).sum() / (late | mask).sum() < 0.98  # the measure has teeth
    default = Augmentation()
    strengths = {n: min(getattr(default, n) * factor, LIMITS[n]) for n in GEOMETRY}
    augmentation = only(**strengths | {"horizontal_flip": 0.5})
    overlaps = []
    for seed in range(400):
        rng = np.random.default_rng([7, seed])
        centre, radius = rng.uniform(80, 111, 2), rng.uniform(46, 54)
        image, mask = augmentation.apply(*disc((192, 192), centre, radius), rng)
        bright = image[..., 0] >= 0.5
        if bright.sum() >= 2500:  # else mostly shifted out of the frame: too little to compare
            overlaps.append((bright & mask).sum() / (bright | mask).sum())
    assert len(overlaps) > 340 and min(overlaps) >= 0.98


def test_warp_is_the_stated_similarity():
    """The disc lands where one similarity puts it, computed here by hand from the drawn mask."""
    shape, radius = (128, 160), 15.0
    augmentation = only(rotation=20.0, scale=0.2, shift=0.1)
    marks = [disc(shape, centre, radius)[1] for centre in ((50, 60), (50, 100), (80, 60))]
    for warped in zip(*(draws(augmentation, picture(shape), m, 40) for m in marks), strict=True):
        a, b, c = (np.array(ndimage.center_of_mass(mask)) for _, mask in warped)
        factor = np.linalg.norm(b - a) / 40
        assert 1 / 1.2 - 0.02 <= factor <= 1.2 + 0.02
        # right angles and proportions survive; areas grow with the square of the factor
        assert abs(np.dot(b - a, c - a)) < 0.03 * np.linalg.norm(b - a) * np.linalg.norm(c - a)
        assert np.linalg.norm(c - a) / 30 == pytest.approx(factor, rel=0.03)
        assert warped[0][1].sum() == pytest.approx(marks[0].sum() * factor**2, rel=0.04)
        assert abs(np.degrees(np.arctan2(*(b - a)))) <= 20.5


def test_flip_is_an_exact_mirror_at_its_probability():
    flipped = 0
    for out, out_mask in draws(only(horizontal_flip=0.3), IMAGE, MASK, 400):
        mirrored = not np.array_equal(out, IMAGE)
        flipped += mirrored
        np.testing.assert_allclose(out, IMAGE[:, ::-1] if mirrored else IMAGE, atol=1e-6)
        assert np.array_equal(out_mask, MASK[:, ::-1] if mirrored else MASK)
    assert 80 <= flipped <= 160  # 120 expected, 9 standard deviation


def test_elastic_never_folds_at_its_limit():
    """Ramps warped by the strongest elastic change still rise everywhere."""
    ramp = np.linspace(0.2, 1, 128, dtype=np.float32)
    image = np.dstack([np.tile(ramp, (128, 1)), np.tile(ramp[:, None], (1, 128))])
    moved = 0
    for out, _ in draws(only(elastic=LIMITS["elastic"]), image, None, 300):
        inner = out[12:-12, 12:-12].astype(float)
        (dxy, dxx), (dyy, dyx) = np.gradient(inner[..., 0]), np.gradient(inner[..., 1])
        assert (dxx * dyy - dxy * dyx).min() > 0
        moved += not np.array_equal(out, image)
    assert moved == pytest.approx(300 * PROBABILITIES["elastic"], abs=35)


@pytest.mark.parametrize("name", INTENSITY)
def test_each_intensity_change_works_alone_and_leaves_the_mask(name):
    image = IMAGE.copy()
    image[:10] = 0  # padding
    changed = 0
    for out, out_mask in draws(only(**{name: LIMITS[name]}), image, MASK, 300):
        assert out.dtype == np.float32 and out.shape == image.shape
        assert out.min() >= 0 and out.max() <= 1 and not out[:10].any()
        assert np.array_equal(out_mask, MASK)
        changed += not np.array_equal(out, image)
    assert changed == pytest.approx(300 * PROBABILITIES[name], abs=35)


def test_lesion_free_shows_only_tissue_beside_the_lesion():
    """Columns are told apart by their grey: none of the lesion's is shown, black stays black."""
    image = np.tile(np.linspace(0.2, 0.9, 112, dtype=np.float32), (96, 1))[..., None]
    image[:, :12] = image[:, 100:] = 0  # padding beside the scan
    mask = np.zeros((96, 112), bool)
    mask[30:60, 40:60] = True
    lesion, sides = image[0, 40:60, 0], set()
    empty = 0
    for out, out_mask in draws(only(lesion_free=0.5), image, mask, 200):
        if out_mask.any():
            assert np.array_equal(out, image) and np.array_equal(out_mask, mask)
            continue
        empty += 1
        shown = out[:, 12:100]
        assert not ((shown > lesion.min()) & (shown < lesion.max())).any()
        assert shown.min() > 0 and not out[:, :12].any() and not out[:, 100:].any()
        sides.add(bool(shown.max() < lesion.min()))
    assert empty == pytest.approx(100, abs=25) and sides == {True, False}
    wide = np.ones_like(mask)  # nothing is left beside it
    black = np.zeros_like(image)  # nothing is beside it
    for shown, truth in ((image, wide), (black, mask)):
        for out, _ in draws(only(lesion_free=0.9), shown, truth, 20):
            assert np.array_equal(out, shown)


def test_one_strength_does_not_change_the_other_effects():
    """The mask of a pair is the same whatever the intensity strengths, and the generator too."""
    full = Augmentation()
    plain = replace(full, **dict.fromkeys(INTENSITY, 0.0))
    for seed in range(30):
        rngs = [np.random.default_rng(seed) for _ in range(3)]
        kinds = (plain, full, only())
        masks = [a.apply(IMAGE, MASK, r)[1] for a, r in zip(kinds, rngs, strict=True)]
        assert np.array_equal(*masks[:2]) and len({rng.random() for rng in rngs}) == 1


def test_same_generator_same_pair_and_inputs_untouched():
    image, mask = IMAGE.copy(), MASK.copy()
    seeds = ([1, 2, 3], [1, 2, 3], [1, 2, 4])
    pairs = [Augmentation().apply(image, mask, np.random.default_rng(seed)) for seed in seeds]
    assert np.array_equal(pairs[0][0], pairs[1][0]) and np.array_equal(pairs[0][1], pairs[1][1])
    assert not np.array_equal(pairs[0][0], pairs[2][0])
    assert np.array_equal(image, IMAGE) and np.array_equal(mask, MASK)


def test_speckle_is_correlated_and_a_shadow_darkens_downwards_only():
    flat, spreads = np.full((128, 128, 1), 0.5, np.float32), []
    for out, _ in draws(only(speckle=0.1), flat, None, 200):
        noise = out[..., 0] - 0.5
        if noise.any():
            spreads.append(noise.std())
            across = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
            down = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
            assert across > down > 0.3
    assert 0.08 < max(spreads) <= 0.1 + 1e-4
    for out, _ in draws(only(shadow=0.8), flat, None, 200):
        assert (np.diff(out[..., 0], axis=0) <= 1e-6).all() and out.max() <= 0.5 + 1e-6


@pytest.mark.parametrize("shape", [(64, 64), (17, 97), (97, 17), (3, 5), (1, 1)])
def test_any_size_and_nothing_outside_of_the_frame(shape):
    for out, mask in draws(Augmentation(), picture(shape), None, 30):
        assert out.shape == (*shape, 1) and mask is None and np.isfinite(out).all()
    image, mask = np.ones((*shape, 1), np.float32), np.ones(shape, bool)
    for out, out_mask in draws(only(shift=0.5, rotation=45.0), image, mask, 50):
        assert np.array_equal(out[..., 0] >= 0.5, out_mask)


def test_settings_round_trip_or_are_refused():
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


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (np.zeros((8, 8), np.float32), None),
        (np.zeros((8, 8, 4), np.float32), None),
        (np.zeros((8, 8, 1), np.uint8), None),
        (np.zeros((8, 8, 1), np.float32), np.zeros((8, 9), bool)),
        (np.zeros((8, 8, 1), np.float32), np.zeros((8, 8), np.uint8)),
    ],
)
def test_wrong_input_is_refused(image, mask):
    with pytest.raises(ValueError, match=r"image float32 \(H, W, C\).*mask bool.*received"):
        Augmentation().apply(image, mask, np.random.default_rng(0))
