"""The outline that `segment --overlay` draws into a picture."""

import numpy as np
import pytest
from scipy import ndimage

from unet_lib.plots.overlay import draw_overlay


def coloured(picture):
    return (picture == (230, 159, 0)).all(axis=2)


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_the_outermost_pixels_of_the_mask(seed):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(120, 90)), 4)
    mask = field > np.quantile(field, 0.6)  # several components, some with holes, some at the edge
    assert (ndimage.binary_fill_holes(mask) & ~mask).any() or seed > 0  # seed 0 has a hole
    image = rng.random((*mask.shape, 1), dtype="float32")
    kept = mask.copy(), image.copy()
    picture = draw_overlay(image, mask)
    assert picture.dtype == np.uint8 and picture.shape == (*mask.shape, 3)
    edge = mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(2, 1))
    np.testing.assert_array_equal(coloured(picture), edge)
    grey = np.round(image * 255).astype(np.uint8)
    np.testing.assert_array_equal(picture[~edge], np.repeat(grey, 3, axis=2)[~edge])
    assert np.array_equal(mask, kept[0]) and np.array_equal(image, kept[1])


def test_nothing_one_pixel_and_all_of_the_image():
    image, point = np.zeros((20, 31, 1), "float32"), np.zeros((20, 31), bool)
    np.testing.assert_array_equal(draw_overlay(image + 0.5, point), 128)
    point[7, 9] = True
    np.testing.assert_array_equal(coloured(draw_overlay(image, point)), point)
    drawn = coloured(draw_overlay(image, np.ones((20, 31), bool)))
    assert drawn.sum() == 2 * 20 + 2 * 31 - 4 and drawn[0].all() and drawn[:, -1].all()
    values = np.array([[[-1.0], [0.0], [1.0], [7.0]]], "float32")  # clipped
    picture = draw_overlay(values, np.zeros((1, 4), bool))
    assert picture[0, :, 0].tolist() == [0, 0, 255, 255]


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


def test_other_size_is_refused():
    with pytest.raises(ValueError, match=r"image \(4, 5\) and mask \(5, 4\) differ"):
        draw_overlay(np.zeros((4, 5, 1), "float32"), np.zeros((5, 4), bool))
