from dataclasses import replace

import keras
import numpy as np
import pytest
from scipy import ndimage

from unet_lib.dataset import TrainingImages, content_hash, find_cases, load_case
from unet_lib.images import Preprocessing, write_image
from unet_lib.inference import Cleaning, Segmenter, evaluate_cases, find_lesions
from unet_lib.metrics import score_case
from unet_lib.phantoms import make_phantoms

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


def image_with_disc(height, width, centre, radius):
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return np.where(inside, 0.1, 0.9).astype("float32")[..., None], inside


@pytest.mark.parametrize("shape", [(64, 64), (200, 150), (97, 301), (40, 33)])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_mask_comes_back_at_the_images_own_size_and_place(shape, keep_aspect):
    image, disc = image_with_disc(*shape, (shape[0] * 0.4, shape[1] * 0.6), min(shape) * 0.25)
    segmenter = Segmenter(dark_is_lesion(256), Preprocessing(256, keep_aspect))
    found = segmenter.segment(image)
    assert found.mask.shape == found.probabilities.shape == shape
    # The padding of the square is black, hence "lesion" to this network: none of it comes back.
    edge = ndimage.binary_dilation(disc, iterations=2) & ~ndimage.binary_erosion(disc, iterations=2)
    np.testing.assert_array_equal(found.mask[~edge], disc[~edge])


def test_one_image_and_many_agree(tmp_path):
    segmenter = Segmenter(dark_is_lesion(64), Preprocessing(64), batch_size=4)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(7):  # a full batch and a partial one
        pixels = rng.integers(0, 256, (30 + number, 50), dtype=np.uint8)
        paths.append(write_image(tmp_path / f"{number}.png", pixels))
    many = list(segmenter.segment_files(paths, progress=False))
    assert [path for path, _ in many] == paths
    for path, found in many:
        alone = segmenter.segment(path)
        np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-6)
        np.testing.assert_array_equal(found.image, alone.image)


def test_grey_image_for_a_network_of_three_channels():
    image, disc = image_with_disc(64, 64, (30, 30), 12)
    found = Segmenter(dark_is_lesion(64, channels=3), Preprocessing(64)).segment(image)
    np.testing.assert_array_equal(found.mask, disc)


def test_wrong_sizes_and_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"takes 64 x 64 pixels.*size=128"):
        Segmenter(dark_is_lesion(64), Preprocessing(128))
    with pytest.raises(ValueError, match="between 0 and 1; received 1.5"):
        Segmenter(dark_is_lesion(64), Preprocessing(64), threshold=1.5)
    with pytest.raises(ValueError, match="minimum_area must be between 0 and 1"):
        Cleaning(minimum_area=2)


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
    found = find_lesions(mask, probabilities)
    assert len(found) == count > 2
    expected = sorted(
        (
            (
                int((labels == i + 1).sum()),
                box[1].start, box[0].start, box[1].stop - box[1].start, box[0].stop - box[0].start,
                float(probabilities[labels == i + 1].mean()),
            )
            for i, box in enumerate(ndimage.find_objects(labels))
        ),
        reverse=True,
    )  # fmt: skip
    for lesion, row in zip(
        sorted(found, key=lambda x: (x.area, x.left), reverse=True), expected, strict=True
    ):
        assert tuple(vars(lesion).values())[:6] == pytest.approx(row, rel=1e-5)
        assert lesion.area_mm2 is lesion.width_mm is None


def test_evaluation_equals_one_case_at_a_time(tmp_path):
    cases = find_cases(make_phantoms(tmp_path / "p", 10, seed=2, progress=False))
    segmenter = Segmenter(dark_is_lesion(64), Preprocessing(64), threshold=0.8, batch_size=4)
    evaluation = evaluate_cases(segmenter, cases, about={"data": "phantoms"}, progress=False)
    assert [row.name for row in evaluation.table] == [case.name for case in cases]
    for case, row in zip(cases, evaluation.table, strict=True):
        image, truth = load_case(case)
        found = segmenter.segment(image)
        # batched and single predictions may differ in the last bit: allow one pixel
        expected = score_case(truth, found.mask, name=case.name)
        assert abs(row.tp - expected.tp) <= 1 and abs(row.fp - expected.fp) <= 1
    assert evaluation.histogram().n == evaluation.table.pooled().n
    assert evaluation.about["seen_in_training"] is None
    with pytest.raises(ValueError, match="received no cases"):
        evaluate_cases(segmenter, [], progress=False)


def test_images_seen_in_training_are_found_by_content(tmp_path):
    cases = find_cases(make_phantoms(tmp_path / "p", 6, seed=2, progress=False))
    hashes = [content_hash(load_case(case)[0]) for case in cases[:2]]
    record = TrainingImages.of("phantoms", cases[:2], hashes).to_dict()
    segmenter = Segmenter(
        dark_is_lesion(32), Preprocessing(32), about={"data": "phantoms", "training_images": record}
    )

    def found(chosen, data="phantoms"):
        about = evaluate_cases(segmenter, chosen, about={"data": data}, progress=False).about
        return about["seen_in_training"], about["training_overlap"]["in_training"]

    assert found(cases[:3]) == (True, [cases[0].name, cases[1].name])
    assert found(cases[2:]) == (False, [])
    renamed = [replace(cases[1], name="scan"), cases[3]]
    assert found(renamed, data="another set") == (True, ["scan"])
    # Other pictures under the names of training images, as phantoms of another seed, are a test.
    others = find_cases(make_phantoms(tmp_path / "q", 6, seed=3, progress=False))
    assert [case.name for case in others] == [case.name for case in cases]
    assert found(others) == (False, [])


def test_a_model_folder_without_hashes_warns_by_name_and_promises_nothing(tmp_path):
    cases = find_cases(make_phantoms(tmp_path / "p", 6, seed=2, progress=False))
    about = {"data": "phantoms", "trained_on": [cases[0].name], "validated_on": [cases[1].name]}
    segmenter = Segmenter(dark_is_lesion(32), Preprocessing(32), about=about)

    def seen(chosen, data="phantoms"):
        evaluation = evaluate_cases(segmenter, chosen, about={"data": data}, progress=False)
        return evaluation.about["seen_in_training"]

    assert seen(cases[:1]) and seen(cases[1:3])
    assert seen(cases[2:]) is None
    assert seen(cases[:1], data="another set") is None
