import numpy as np
import pytest
from scipy import ndimage

from unet_lib.plots.overlay import draw_overlay

ORANGE = (230, 159, 0)


def blobs(seed, shape=(120, 90)):
    """Several components, some with holes, some touching the border of the image."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    return field > np.quantile(field, 0.6)


def coloured(picture):
    return (picture == ORANGE).all(axis=2)


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_the_outermost_pixels_of_the_mask(seed):
    mask = blobs(seed)
    assert (ndimage.binary_fill_holes(mask) & ~mask).any() or seed > 0  # seed 0 has a hole
    image = np.random.default_rng(seed).random((*mask.shape, 1), dtype="float32")
    picture = draw_overlay(image, mask)
    assert picture.dtype == np.uint8 and picture.shape == (*mask.shape, 3)
    edge = mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(2, 1))
    np.testing.assert_array_equal(coloured(picture), edge)
    grey = np.round(image * 255).astype(np.uint8)
    np.testing.assert_array_equal(picture[~edge], np.repeat(grey, 3, axis=2)[~edge])


def test_inputs_stay_as_they_are():
    mask = blobs(0)
    image = np.random.default_rng(0).random((*mask.shape, 1), dtype="float32")
    kept = mask.copy(), image.copy()
    draw_overlay(image, mask)
    np.testing.assert_array_equal(mask, kept[0])
    np.testing.assert_array_equal(image, kept[1])


def test_nothing_found_leaves_the_image():
    image = np.full((20, 31, 1), 0.5, "float32")
    np.testing.assert_array_equal(draw_overlay(image, np.zeros((20, 31), bool)), 128)


def test_a_lesion_of_one_pixel_and_one_that_fills_the_image_are_seen():
    image = np.zeros((20, 31, 1), "float32")
    point = np.zeros((20, 31), bool)
    point[7, 9] = True
    np.testing.assert_array_equal(coloured(draw_overlay(image, point)), point)
    drawn = coloured(draw_overlay(image, np.ones((20, 31), bool)))
    assert drawn.sum() == 2 * 20 + 2 * 31 - 4 and drawn[0].all() and drawn[:, -1].all()


def test_the_line_grows_with_the_image():
    """It must still be seen when a large image is shown small."""
    widths = []
    for side in (100, 900, 1800):
        mask = np.zeros((side, side), bool)
        mask[side // 4 : side // 2, side // 4 : side // 2] = True
        row = coloured(draw_overlay(np.zeros((side, side, 1), "float32"), mask))[3 * side // 8]
        labels, count = ndimage.label(row)
        assert count == 2
        widths.append(int((labels == 1).sum()))
    assert widths[0] == 1 and widths[0] < widths[1] < widths[2] <= 9


def test_values_outside_the_range_are_clipped():
    image = np.array([[[-1.0], [0.0], [1.0], [7.0]]], "float32")
    picture = draw_overlay(image, np.zeros((1, 4), bool))
    assert picture[0, :, 0].tolist() == [0, 0, 255, 255]


def test_other_size_is_refused():
    with pytest.raises(ValueError, match=r"image \(4, 5\) and mask \(5, 4\) differ"):
        draw_overlay(np.zeros((4, 5, 1), "float32"), np.zeros((5, 4), bool))
