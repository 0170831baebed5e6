"""A segmentation shows, measures and saves itself, at any threshold."""

import base64
import csv
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import write_png
from IPython.core.formatters import DisplayFormatter
from scipy import ndimage

from unet_lib.images import Frame, Region
from unet_lib.inference import Cleaning, Segmentation
from unet_lib.shift import Shift


def segmentation(mask, image=None, **more):
    """A picture, black unless given, whose probabilities are .9 in the mask and .1 outside."""
    image = np.zeros((*mask.shape, 1), "float32") if image is None else image
    frame = Frame((image[..., 0] * 255).astype("uint8"), **more.pop("frame", {}))
    return Segmentation(image, np.where(mask, 0.9, 0.1).astype("float32"), mask, frame, **more)


@pytest.fixture
def two():
    """A lesion of 60 pixels and a weaker one of 9 that threshold and cleaning can take away."""
    mask = np.zeros((20, 30), bool)
    mask[2:8, 5:15] = mask[12:15, 20:23] = True
    regions = (Region(0, 0, 30, 10, 0.2, 0.1),)
    result = segmentation(mask, name="scan.png", frame={"regions": regions})
    result.probabilities[12:15, 20:23] = 0.6
    return replace(result, shift=Shift(9.5, 7.25, ("colour +3.0",)))


def coloured(picture):
    return (picture == (230, 159, 0)).all(axis=2)


@pytest.mark.parametrize("seed", range(3))
def test_overlay_is_a_line_along_the_outermost_pixels_and_a_fill(seed):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(120, 90)), 4)
    mask = field > np.quantile(field, 0.6)  # several components, some with holes, some at the edge
    assert (ndimage.binary_fill_holes(mask) & ~mask).any() or seed > 0  # seed 0 has a hole
    image = rng.random((*mask.shape, 1), dtype="float32")
    result = segmentation(mask, image)
    edge = mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(2, 1))
    grey = np.repeat(np.round(image * 255), 3, axis=2)
    for fill in (0, 0.25, 0.8):
        picture = result.overlay(fill)
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(coloured(picture), edge)
        np.testing.assert_array_equal(picture[~mask], grey[~mask])
        inside = grey * (1 - fill) + fill * np.array([230, 159, 0])
        np.testing.assert_allclose(picture[mask & ~edge], inside[mask & ~edge], atol=0.51)


def test_overlay_of_nothing_of_one_pixel_and_of_everything():
    point = np.zeros((20, 31), bool)
    half = np.full((20, 31, 1), 0.5, "float32")
    np.testing.assert_array_equal(segmentation(point, half).overlay(), 128)
    point[7, 9] = True
    np.testing.assert_array_equal(coloured(segmentation(point).overlay()), point)
    drawn = coloured(segmentation(np.ones((20, 31), bool)).overlay())
    assert drawn.sum() == 2 * 20 + 2 * 31 - 4 and drawn[0].all() and drawn[:, -1].all()


def test_the_line_grows_with_the_image():
    """It must still be seen when a large image is shown small."""
    widths = []
    for side in (100, 900, 1800):
        mask = np.zeros((side, side), bool)
        mask[side // 4 : side // 2, side // 4 : side // 2] = True
        labels, count = ndimage.label(coloured(segmentation(mask).overlay())[3 * side // 8])
        assert count == 2
        widths.append(int((labels == 1).sum()))
    assert widths[0] == 1 and widths[0] < widths[1] < widths[2] <= 9


def test_another_threshold_makes_mask_and_lesions_anew(two):
    assert [lesion.area for lesion in two.lesions] == [60, 9]
    strict = two.at(0.7)
    assert strict.threshold == 0.7 and strict.probabilities is two.probabilities
    np.testing.assert_array_equal(strict.mask, two.probabilities >= 0.7)
    assert [lesion.area for lesion in strict.lesions] == [60] and two.mask.sum() == 69
    assert replace(two, cleaning=Cleaning(0.02)).at(0.5).mask.sum() == 60
    assert two.at(np.float64(np.float32(0.6))).mask.sum() == 69  # compared in float32
    for wrong in (0, 1, float("nan"), "x", None, [0.5]):
        with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
            two.at(wrong)


def test_rows_are_the_lesions_with_what_is_unknown_as_none(two):
    large, small = two.rows()
    assert large | {"area_mm2": None} == {
        **{"image": "scan.png", "frame": 1, "lesion": 1, "area_px": 60, "area_fraction": 0.1},
        **{"left": 5, "top": 2, "width": 10, "height": 6, "area_mm2": None, "width_mm": 1.0},
        **{"height_mm": pytest.approx(1.2), "mean_probability": pytest.approx(0.9)},
        **{"shift_distance": 9.5, "shift_limit": 7.25, "unreadable": None},
    }
    assert large["area_mm2"] == pytest.approx(60 * 0.02)
    assert small["lesion"] == 2 and small["width_mm"] is None  # outside the region of known size
    (none,) = two.at(0.95).rows()
    assert (none["lesion"], none["area_px"], none["left"]) == (0, 0, None)


def test_saved_pictures_and_a_table_that_keeps_the_others(two, tmp_path):
    path = two.save(tmp_path)
    assert path == tmp_path / "scan_pred.png"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("lesions.csv", "scan_overlay.png", "scan_pred.png")
    ]
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), two.mask * 255)
    written = cv2.imread(str(tmp_path / "scan_overlay.png"))[..., ::-1]
    np.testing.assert_array_equal(written, two.overlay(fill=0))

    def table():
        rows = csv.DictReader((tmp_path / "lesions.csv").read_text().splitlines())
        return [tuple(row[c] for c in ("image", "frame", "area_px", "width_mm")) for row in rows]

    assert table() == [("scan.png", "1", "60", "1.00"), ("scan.png", "1", "9", "")]
    second = replace(two, frame=replace(two.frame, number=2, count=3), name="cine,1.dcm")
    assert second.save(tmp_path).name == "cine,1_frame002_pred.png"
    two.at(0.7).save(tmp_path)  # instead of its earlier rows, behind those of the other
    two.at(0.95).save(tmp_path, table=False)
    assert table() == [
        ("cine,1.dcm", "2", "60", "1.00"),
        ("cine,1.dcm", "2", "9", ""),
        ("scan.png", "1", "60", "1.00"),
    ]
    (tmp_path / "lesions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"lesions\.csv: not a table of lesions"):
        two.save(tmp_path)


def test_results_never_lie_among_pictures(two, tmp_path):
    picture = write_png(tmp_path / two.name, np.zeros((20, 30), np.uint8))
    with pytest.raises(ValueError, match=r"holds the picture scan\.png; .* another folder"):
        two.save(tmp_path)
    assert list(tmp_path.iterdir()) == [picture]


def test_it_shows_itself(two):
    assert repr(two) == (
        "<Segmentation of scan.png: 20 x 30 pixels, 2 lesions at threshold 0.5; unlike the "
        "training images>"
    )
    assert ": 20 x 30 pixels, 1 lesion at threshold 0.7;" in repr(two.at(0.7))
    data, _ = DisplayFormatter().format(two)  # what a notebook stores: the picture once
    assert sorted(data) == ["text/html", "text/plain"]
    (png,) = re.findall('base64,([^"]+)', data["text/html"])
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown[..., ::-1], two.overlay())
    html = replace(two, name="<b>\udcff.png")._repr_html_()
    assert "&lt;b&gt;?.png" in html and "<b>" not in html and "Not a medical device" in html
    assert html.count("<tr>") == 3 and "9.5" in html and "colour +3.0" in html
    assert "<tr>" not in two.at(0.95)._repr_html_()
