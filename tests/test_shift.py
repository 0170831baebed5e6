"""The shift monitor: what is unlike the training images is flagged, held-out images are not."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import strange_pictures as strange
from conftest import write_png, write_tiny_busi

from unet_lib.cli import main
from unet_lib.dataset import find_cases
from unet_lib.images import as_image, read_pixels
from unet_lib.model import UNetConfig
from unet_lib.phantoms import make_phantoms
from unet_lib.shift import FEATURES, ShiftMonitor, ShiftWarning, fit_monitor, image_features
from unet_lib.source import open_dataset
from unet_lib.weights import WeightsError, load_segmenter, save_segmenter
from unet_lib.weights.folder import MONITOR, read_monitor

SHIPPED = Path(__file__).parent.parent / "weights" / "busi-fold0"


@pytest.fixture(scope="module")
def shipped():
    """Statistics of BUSI without the test part of fold 0."""
    return read_monitor(SHIPPED)


@pytest.mark.parametrize("kind", strange.KINDS)
def test_pictures_that_are_no_ultrasound_are_flagged(shipped, kind):
    pictures = list(strange.KINDS[kind](20, np.random.default_rng(11)))
    flagged = sum(shipped.measure(pixels).flagged for pixels in pictures)
    assert flagged >= 18, f"{flagged} of 20"  # noise is the nearest to speckle


def test_rates_on_busi(shipped, busi_dir):
    """Images that neither the statistics nor the limit have seen, and the same ones changed."""
    tests = [read_pixels(case.image_path) for case in open_dataset(busi_dir, fold=0).split.test]
    rng = np.random.default_rng(0)
    assert np.mean([shipped.measure(pixels).flagged for pixels in tests]) <= 0.05
    some = tests[::4]
    assert len(some) >= 39
    for change in (
        strange.inverted,
        lambda pixels: strange.with_doppler(pixels, rng),
        lambda pixels: strange.with_text(pixels, rng),
    ):
        assert np.mean([shipped.measure(change(pixels)).flagged for pixels in some]) >= 0.95


def test_each_of_several_data_sets_has_its_own_statistics(shipped, tmp_path):
    """The middle of two scanners is like neither of them."""
    cases = find_cases(make_phantoms(tmp_path, 60, seed=3, progress=False))
    two = [replace(case, data_set="ab"[number % 2]) for number, case in enumerate(cases)]
    joint = fit_monitor(two, two, progress=False)
    assert len(joint.others) == 1 and joint.trained_on == joint.others[0].trained_on == 30
    read = ShiftMonitor.from_dict(json.loads(json.dumps(joint.to_dict())))
    pixels = read_pixels(cases[0].image_path)
    both = [replace(joint, others=()).measure(pixels), joint.others[0].measure(pixels)]
    assert read.measure(pixels) in both
    assert read.measure(pixels).distance == min(both, key=lambda x: x.distance / x.limit).distance


@pytest.mark.parametrize("side", [128, 256])
def test_features_are_finite_and_do_not_depend_on_how_a_picture_is_stored(side):
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 900), (2, 3), (700, 5), (50, 60)):
        for pixels in (
            np.zeros(shape, np.uint8),
            np.full(shape, 255, np.uint8),
            rng.integers(0, 256, shape, dtype=np.uint8),
            rng.random((*shape, 3), np.float32),
        ):
            measured = image_features(pixels, side)
            assert measured.shape == (len(FEATURES),) and np.isfinite(measured).all()
    grey = rng.integers(0, 256, (90, 120), dtype=np.uint8)
    expected = image_features(grey, side)
    for pixels in (np.stack([grey] * 3, -1), grey.astype(np.uint16) * 257, grey / np.float32(255)):
        np.testing.assert_allclose(image_features(pixels, side), expected, atol=1e-4)
    assert np.array_equal(image_features(grey, side, as_image(grey, "")), expected)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = write_tiny_busi(tmp_path_factory.mktemp("d") / "Dataset_BUSI_with_GT", 70, 60, 0)
    return find_cases(folder)


def test_limit_comes_from_held_out_images(cases):
    monitor = fit_monitor(cases[:80], cases[80:], progress=False)
    assert (monitor.trained_on, monitor.validated_on, monitor.side) == (80, 50, 128)
    distances = [monitor.measure(read_pixels(case.image_path)).distance for case in cases[80:]]
    assert np.mean(np.array(distances) <= monitor.limit) == pytest.approx(0.95, abs=0.025)
    # JSON keeps six digits of the numbers that it holds already rounded: nothing is lost.
    assert ShiftMonitor.from_dict(json.loads(json.dumps(monitor.to_dict()))) == monitor
    # Without validation images a fifth of the groups is held out of the statistics.
    alone = fit_monitor(cases, progress=False)
    assert (alone.trained_on, alone.validated_on) == (104, 26)
    assert fit_monitor(cases[:19], cases[80:], progress=False) is None
    assert fit_monitor(cases[:80], cases[:19], progress=False) is None


def test_the_message_says_in_words_what_is_unusual(shipped):
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[..., 0] = np.arange(120)
    shift = shipped.measure(picture)
    assert shift.flagged and len(shift.unusual) == 3
    assert any(one.startswith("coloured parts (+") for one in shift.unusual)
    numbers = f"distance {shift.distance:.1f}, limit {shipped.limit:.1f}"
    assert str(shift) == f"unlike the training images: {', '.join(shift.unusual)}; {numbers}"
    inverted = shipped.measure(
        strange.inverted(next(strange.text_pages(1, np.random.default_rng(0))))
    )
    assert inverted.flagged and "colour" not in str(inverted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": -1.0}, "must be positive"),
        ({"limit": float("nan")}, "must be positive"),
        ({"middle": [0.0]}, "middle must be"),
        ({"precision": [[float("nan")] * len(FEATURES)] * len(FEATURES)}, "precision must be"),
        ({"features": ["other"]}, "other features"),
        ({"side": 0}, "side must be a whole number from 16 to 1024"),
        ({"more": 1}, "unknown setting"),
        ({"spread": "x"}, "cannot be used"),
    ],
)
def test_damaged_statistics_are_refused(tmp_path, change, words):
    values = json.loads((SHIPPED / MONITOR).read_text()) | change
    (tmp_path / MONITOR).write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=r"shift\.json: cannot be used") as caught:
        read_monitor(tmp_path)
    assert words in str(caught.value)


def test_segmenter_warns_and_keeps_the_statistics(tmp_path):
    segmenter = load_segmenter(SHIPPED, runtime="keras")
    path = write_png(tmp_path / "a.png", np.full((60, 70), 255, np.uint8))
    with pytest.warns(ShiftWarning, match=r"a\.png: unlike the training images: "):
        result = segmenter.segment(path)
    assert result.shift.flagged and result.mask.shape == (60, 70)
    config = UNetConfig.from_dict(json.loads((SHIPPED / "segmenter.json").read_text())["network"])
    folder = save_segmenter(segmenter, config, tmp_path / "m")
    assert load_segmenter(folder).monitor == segmenter.monitor
    segmenter.monitor = None
    save_segmenter(segmenter, config, folder)
    assert not (folder / "shift.json").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_segmenter(folder).segment(path).shift is None


def test_segment_command_warns_with_the_measure(tmp_path, capsys):
    write_png(tmp_path / "in" / "page.png", next(strange.text_pages(1, np.random.default_rng(0))))
    arguments = ["--out", str(tmp_path / "o"), str(tmp_path / "in")]
    assert main(["segment", "--model", str(SHIPPED), *arguments]) == 0
    said = capsys.readouterr()
    assert "page_pred.png: unlike the training images: " in said.err
    assert "1 of 1 are unlike the training images" in said.out
    line = (tmp_path / "o" / "lesions.csv").read_text().splitlines()[1].split(",")
    assert float(line[-3]) > float(line[-2]) > 0
    folder = shutil.copytree(SHIPPED, tmp_path / "old")
    (folder / "shift.json").unlink()
    assert main(["segment", "--model", str(folder), *arguments]) == 0
    said = capsys.readouterr()
    assert "no statistics of its training images" in said.out and "unlike the" not in said.err
