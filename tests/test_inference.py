"""From any picture to a mask at its own size; scores of many; what the model has seen."""

import io
import warnings
from dataclasses import replace
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
from conftest import write_png
from PIL import Image
from scipy import ndimage
from test_dicom import write_dicom

from unet_lib.dataset import TrainingImages, content_hash, find_cases, load_case
from unet_lib.images import ImageError, Preprocessing, read_image
from unet_lib.inference import (
    Cleaning,
    Segmenter,
    UnreadableImages,
    evaluate_cases,
    find_lesions,
    show_cases,
)
from unet_lib.metrics import score_case
from unet_lib.phantoms import make_phantoms
from unet_lib.shift import ShiftWarning

pytestmark = pytest.mark.keras


def dark_is_lesion(size, channels=1):
    """A network whose probability is 1 - grey value: its answer is known for every image."""
    inputs = keras.Input((size, size, channels))
    outputs = keras.layers.Conv2D(1, 1, kernel_initializer="zeros")(inputs)
    network = keras.Model(inputs, outputs)
    kernel = np.zeros((1, 1, channels, 1), "float32")
    kernel[0, 0, 0, 0] = -1.0
    network.set_weights([kernel, np.ones(1, "float32")])
    return network


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(dark_is_lesion(64), Preprocessing(64), batch_size=4)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "p"
    return find_cases(make_phantoms(folder, 6, seed=2, progress=False))


def image_with_disc(height, width, centre, radius):
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return np.where(inside, 0.1, 0.9).astype("float32")[..., None], inside


@pytest.mark.parametrize("shape", [(64, 64), (200, 150), (97, 301), (40, 33)])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_mask_comes_back_at_the_images_own_size_and_place(shape, keep_aspect):
    image, disc = image_with_disc(*shape, (shape[0] * 0.4, shape[1] * 0.6), min(shape) * 0.25)
    segmentation = Segmenter(dark_is_lesion(256), Preprocessing(256, keep_aspect)).segment(image)
    assert segmentation.mask.shape == segmentation.probabilities.shape == shape
    # The padding of the square is black, hence "lesion" to this network: none of it comes back.
    edge = ndimage.binary_dilation(disc, iterations=2) & ~ndimage.binary_erosion(disc, iterations=2)
    np.testing.assert_array_equal(segmentation.mask[~edge], disc[~edge])


def picture(kind, path):
    """Write a picture of a kind; returns the file and the arrays that hold the same pixels."""
    colour = np.random.default_rng(7).integers(0, 256, (50, 61, 3), dtype=np.uint8)
    grey, deep = colour[..., 0].copy(), colour[..., 0].astype(np.uint16) * 256 + colour[..., 1]
    if kind == "turned":
        image = Image.fromarray(colour)
        image.getexif()[0x0112] = 6
        image.save(path / "a.jpg", exif=image.getexif(), quality=100)
        return path / "a.jpg", []
    if kind == "dicom":
        return write_dicom(path / "a.dcm", grey[None]), [grey]
    written, arrays = {
        "grey": (grey, [grey, grey[..., None], grey / 255, (grey / np.float32(255))[..., None]]),
        "colour": (colour, [colour[..., ::-1]]),
        "16 bit": (deep, [deep, deep / 65535]),
    }[kind]
    return write_png(path / "a.png", written), arrays


@pytest.mark.parametrize("kind", ["grey", "colour", "16 bit", "turned", "dicom"])
def test_a_picture_gives_the_mask_of_its_file_whichever_way_it_is_given(kind, segmenter, tmp_path):
    path, arrays = picture(kind, tmp_path)
    expected = segmenter.segment(path)
    assert 0 < expected.mask.mean() < 1
    with open(path, "rb") as file:
        given = [str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), file, *arrays]
        if kind != "dicom":
            given.append(Image.open(path))
        for one in given:
            segmentation = segmenter.segment(one)
            np.testing.assert_array_equal(segmentation.mask, expected.mask)
            np.testing.assert_array_equal(segmentation.probabilities, expected.probabilities)


@pytest.mark.parametrize(
    "given",
    [None, 3, io.StringIO("text"), [[0.5]]]
    + [np.zeros((5, 5), kind) for kind in (int, bool)]
    + [np.zeros(shape, np.uint8) for shape in ((5, 5, 4), (5,), (2, 5, 5, 1))],
)
def test_what_is_no_picture_is_a_type_error_that_names_what_is_taken(given, segmenter):
    with pytest.raises(TypeError, match="expected a path, bytes, an open binary file, a PIL image"):
        segmenter.segment(given)


def test_pictures_that_cannot_be_used_are_named(segmenter, tmp_path):
    pages = [Image.fromarray(np.full((8, 9), grey, np.uint8)) for grey in (10, 200)]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    takes_all = "holds 2 frames; expected one image. .*`Segmenter.segment_files` and the command"
    for two in (tmp_path / "two.tif", Image.open(tmp_path / "two.tif")):
        with pytest.raises(ImageError, match=takes_all):
            segmenter.segment(two)
    for bad, message in (
        (b"", "0 bytes"),
        (b"text", "not an image that can be read"),
        (np.full((8, 8), 2.0), "values from 2 to 2; expected 0 to 1"),
        (np.full((8, 8), np.nan), "values from nan to nan"),
        (np.zeros((0, 8), np.uint8), "has no pixels"),
        (tmp_path / "absent.png", "absent.png: no such file"),
    ):
        with pytest.raises(ImageError, match=message):
            segmenter.segment(bad)


def test_many_files_agree_with_one_and_unreadable_ones_come_last(segmenter, tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(9):  # full batches and a partial one
        pixels = rng.integers(0, 256, (30 + number, 50), dtype=np.uint8)
        paths.append(write_png(tmp_path / f"{number}.png", pixels))
    bad = [paths[1], paths[6]]
    for path in bad:
        path.write_bytes(path.read_bytes()[:300])
    threads, many = cv2.getNumThreads(), []
    with pytest.raises(UnreadableImages, match="2 of 9 files could not be read:\n") as error:
        for path, segmentation in segmenter.segment_files(paths, progress=False):
            many.append((path, segmentation))
    assert cv2.getNumThreads() == threads  # as before, for whoever uses OpenCV in this process
    assert [path for path, _ in many] == [path for path in paths if path not in bad]
    assert list(error.value.reasons) == bad
    assert all(f"{path}: cannot be decoded" in str(error.value) for path in bad)
    for path, segmentation in many:
        alone = segmenter.segment(path)
        np.testing.assert_allclose(segmentation.probabilities, alone.probabilities, atol=1e-6)
        np.testing.assert_array_equal(segmentation.image, read_image(path))


def test_wrong_sizes_and_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"takes 64 x 64 pixels.*size=128"):
        Segmenter(dark_is_lesion(64), Preprocessing(128))
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"between 0 and 1; received {wrong}"):
            Segmenter(dark_is_lesion(64), Preprocessing(64), threshold=wrong)
    with pytest.raises(ValueError, match="minimum_area must be a number from 0 to 1; received 2"):
        Cleaning(minimum_area=2)


def test_a_segmenter_shows_itself_in_a_line_not_its_training_images():
    names = [f"benign ({number})" for number in range(800)]
    about = {"name": "mine", "data": "BUSI", "trained_on": names}
    segmenter = Segmenter(dark_is_lesion(64), Preprocessing(64), 0.4, provenance=about)
    shown = "<Segmenter mine: input 64 x 64, threshold 0.4, trained on BUSI>"
    assert repr(segmenter) == shown


def test_cleaning_removes_small_and_weak_components():
    probabilities = np.full((20, 20), 0.1, "float32")
    probabilities[1:8, 1:8] = 0.95  # large and strong
    probabilities[1:8, 10:17] = 0.6  # large and weak
    probabilities[12, 12] = 0.95  # small and strong
    probabilities[8, 8] = 0.6  # touches the first by its corner: the same component
    mask = probabilities >= 0.5

    def areas(cleaned):
        labels, count = ndimage.label(cleaned, np.ones((3, 3)))
        return sorted(int((labels == i).sum()) for i in range(1, count + 1))

    assert areas(mask) == [1, 49, 50]
    assert areas(Cleaning(minimum_area=2 / 400).apply(mask, probabilities)) == [49, 50]
    assert areas(Cleaning(minimum_peak=0.7).apply(mask, probabilities)) == [1, 50]
    assert areas(Cleaning(2 / 400, 0.7).apply(mask, probabilities)) == [50]
    assert Cleaning().apply(mask, probabilities) is mask
    assert not Cleaning(0.01, 0.5).apply(np.zeros((5, 5), bool), np.zeros((5, 5), "f4")).any()


def test_lesions_agree_with_scipy():
    rng = np.random.default_rng(4)
    probabilities = ndimage.gaussian_filter(rng.random((60, 80)), 3).astype("float32")
    mask = probabilities > np.quantile(probabilities, 0.8)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    lesions = find_lesions(mask, probabilities)
    assert len(lesions) == count > 2
    assert [lesion.area for lesion in lesions] == sorted((x.area for x in lesions), reverse=True)
    expected = {}
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels == number
        size = columns.stop - columns.start, rows.stop - rows.start
        mean = probabilities[inside].mean()
        expected[columns.start, rows.start] = (inside.sum(), *size, pytest.approx(mean, rel=1e-5))
    for lesion in lesions:
        values = lesion.area, lesion.width, lesion.height, lesion.mean_probability
        assert values == expected.pop((lesion.left, lesion.top))
        assert lesion.area_mm2 is lesion.width_mm is None


def test_evaluation_equals_one_case_at_a_time(segmenter, cases):
    segmenter = replace(segmenter, threshold=0.8)
    evaluation = evaluate_cases(segmenter, cases, provenance={"data": "phantoms"}, progress=False)
    assert [row.name for row in evaluation.table] == [case.name for case in cases]
    for case, row in zip(cases, evaluation.table, strict=True):
        image, truth = load_case(case)
        expected = score_case(truth, segmenter.segment(image).mask, name=case.name)
        # batched and single predictions may differ in the last bit: allow one pixel
        assert abs(row.tp - expected.tp) <= 1 and abs(row.fp - expected.fp) <= 1
    assert evaluation.histogram().n == evaluation.table.pooled().n
    assert evaluation.provenance.seen_in_training is None
    assert evaluation.provenance.engine == "keras, float32"
    with pytest.raises(ValueError, match="received no cases"):
        evaluate_cases(segmenter, [], progress=False)


def seen(segmenter, cases, data="phantoms"):
    about = evaluate_cases(segmenter, cases, provenance={"data": data}, progress=False).provenance
    return about.seen_in_training, (about.training_overlap or {}).get("in_training")


def test_cases_are_shown_without_a_warning_that_names_no_image(cases):
    monitor = SimpleNamespace(measure=lambda *_: SimpleNamespace(flagged=True))
    unlike = Segmenter(dark_is_lesion(64), Preprocessing(64), monitor=monitor)
    with pytest.warns(ShiftWarning):
        mask = unlike.segment(cases[0].image_path).mask
    with warnings.catch_warnings(action="error"):
        shown = show_cases(unlike, cases)(cases[0].name)
    np.testing.assert_array_equal(shown[2], mask)


def test_images_seen_in_training_are_found_by_content(segmenter, cases, tmp_path):
    hashes = [content_hash(load_case(case)[0]) for case in cases[:2]]
    record = TrainingImages.of("phantoms", cases[:2], hashes).to_dict()
    trained = replace(segmenter, provenance={"data": "phantoms", "training_images": record})
    assert seen(trained, cases[:3]) == (True, [cases[0].name, cases[1].name])
    assert seen(trained, cases[2:]) == (False, [])
    renamed = [replace(cases[1], name="scan"), cases[3]]
    assert seen(trained, renamed, data="another set") == (True, ["scan"])
    # Other pictures under the names of training images, as phantoms of another seed, are a test.
    others = find_cases(make_phantoms(tmp_path / "q", 6, seed=3, progress=False))
    assert [case.name for case in others] == [case.name for case in cases]
    assert seen(trained, others) == (False, [])


def test_a_model_folder_without_hashes_warns_by_name_and_promises_nothing(segmenter, cases):
    names = {"trained_on": [cases[0].name], "validated_on": [cases[1].name]}
    old = replace(segmenter, provenance={"data": "phantoms", **names})
    assert seen(old, cases[:1]) == (True, [cases[0].name])
    assert seen(old, cases[1:3]) == (True, [cases[1].name])
    assert seen(old, cases[2:]) == (None, None)
    assert seen(old, cases[:1], data="another set") == (None, None)
