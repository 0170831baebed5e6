"""Phantoms: what is on them, that they repeat, that they are neither trivial nor impossible."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_png
from PIL import Image
from scipy import ndimage, stats

from unet_lib.dataset import find_cases, load_case
from unet_lib.phantoms import (
    KINDS,
    PhantomConfig,
    is_phantoms,
    make_phantom,
    make_phantoms,
    phantom_kind,
    phantom_pictures,
)
from unet_lib.phantoms.scanner import Scanner
from unet_lib.phantoms.tissue import Tissue

SMALL = PhantomConfig(heights=(96, 130), widths=(110, 160), second_lesion=0.5)
PLAIN = PhantomConfig(marks=False, second_lesion=0)


def scanner(**settings) -> Scanner:
    plain = {
        "axial": 1.0,
        "lateral": 1.5,
        "focus": 0.5,
        "spread": 0.0,
        "looks": 1,
        "noise": -80,
        "range": 60,
        "gain": 0.7,
        "smoothing": 0.0,
        "steer": 0.0,
    }
    return Scanner(**plain | settings)


def flat(shape=(200, 200)) -> Tissue:
    echo, loss = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    return Tissue(echo, loss)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("data") / "ph", 30, 3, False, config=SMALL)


def test_speckle_of_one_look_is_rayleigh():
    """The envelope of uniform tissue has the Rayleigh distribution's mean over spread, 1.913."""
    grey = scanner().image(flat((400, 400)), np.random.default_rng(0))
    envelope = 10 ** ((grey - 0.7) * 60 / 20)
    assert (grey < 1).mean() > 0.9995  # hardly anything saturates, so the log can be undone
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    apart = envelope[::8, ::12].ravel()  # beyond the size of a grain: independent values
    assert stats.kstest(apart, "rayleigh", args=(0, np.sqrt((apart**2).mean() / 2))).pvalue > 0.01
    assert (envelope**2).mean() == pytest.approx(1, rel=0.05)


def test_averaged_looks_smooth_the_speckle_by_their_root():
    spread = [
        scanner(looks=looks, range=90).image(flat((300, 300)), np.random.default_rng(1)).std()
        for looks in (1, 4)
    ]
    assert 1.8 < spread[0] / spread[1] < 2.6  # logarithm of the mean of 4: a little over 2


def test_grains_are_wider_than_high_and_widen_away_from_the_focus():
    grey = scanner(focus=0.0, spread=3.0).image(flat((600, 300)), np.random.default_rng(2))
    near, far = grey[:150], grey[-150:]

    def kept(part: np.ndarray, axis: int) -> float:
        part = np.moveaxis(part, axis, 0)
        return np.corrcoef(part[2:].ravel(), part[:-2].ravel())[0, 1]

    assert kept(near, 1) > kept(near, 0) + 0.1
    assert kept(far, 1) > kept(near, 1) + 0.05


def test_attenuation_darkens_what_lies_behind():
    """6 dB lost in a slab take 6 / range from the grey value below it, and nothing above."""
    tissue = flat((240, 240))
    tissue.loss[100:120, 60:180] = 6 / 20
    grey = scanner(looks=4, range=60).image(tissue, np.random.default_rng(3))
    below, beside, above = grey[140:, 90:150], grey[140:, :40], grey[:90, 90:150]
    assert beside.mean() - below.mean() == pytest.approx(6 / 60, abs=0.015)
    assert above.mean() == pytest.approx(beside.mean(), abs=0.015)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [None, (64, 64), (97, 64), (70, 333), (400, 380)])
def test_shapes_types_and_masks(kind, size):
    for seed in range(3):
        image, masks = make_phantom(kind, seed, size)
        assert image.dtype == np.uint8 and image.ndim == 2
        assert size is None or image.shape == size
        assert bool(masks) == (kind != "normal")
        for mask in masks:
            assert mask.dtype == bool and mask.shape == image.shape
            assert 0.001 < mask.mean() < 0.6
        assert image.std() > 10


def test_count_does_not_change_the_pictures():
    few = {p.name: p for p in phantom_pictures(6, 1, SMALL)}
    many = {p.name: p for p in phantom_pictures(13, 1, SMALL)}
    assert set(few) <= set(many) and len(few) == 6 and len(many) == 13
    assert all(np.array_equal(few[name].image, many[name].image) for name in few)


def test_classes_have_the_shares_of_busi():
    config = PhantomConfig(heights=(64, 64), widths=(64, 64))
    kinds = [p.kind for p in phantom_pictures(100, 0, config)]
    assert [kinds.count(kind) for kind in KINDS] == [56, 27, 17]


def test_malignant_outlines_are_rougher_and_stand_taller():
    """Solidity (area over convex hull) and height over width differ as the lexicon says."""

    def shape_of(mask: np.ndarray) -> tuple[float, float]:
        contour = max(cv2.findContours(mask.astype(np.uint8), 0, 2)[0], key=cv2.contourArea)
        box = cv2.boundingRect(contour)
        return cv2.contourArea(contour) / cv2.contourArea(cv2.convexHull(contour)), box[3] / box[2]

    values = {
        kind: np.array(
            [shape_of(make_phantom(kind, s, (200, 240), PLAIN)[1][0]) for s in range(16)]
        )
        for kind in ("benign", "malignant")
    }
    benign, malignant = (np.median(values[kind], axis=0) for kind in ("benign", "malignant"))
    assert benign[0] > 0.95 > malignant[0]
    assert malignant[1] > benign[1]
    assert (values["malignant"][:, 1] > 1).any()  # some taller than wide


def test_behind_benign_is_brighter_than_behind_malignant():
    differences = {}
    for kind in ("benign", "malignant"):
        differences[kind] = []
        for seed in range(16):
            image, (mask,) = make_phantom(kind, seed, (200, 240), PLAIN)
            rows, columns = np.nonzero(mask)
            left, right = np.percentile(columns, [25, 75]).astype(int)
            bottom = rows.max() + 3
            strip = image[bottom : bottom + 30].astype(float)
            beside = np.delete(strip, np.s_[columns.min() : columns.max()], axis=1)
            if strip.size and beside.size:
                differences[kind].append(strip[:, left:right].mean() - beside.mean())
    assert np.median(differences["benign"]) > 3
    assert np.median(differences["malignant"]) < -5


def test_lesions_range_from_obvious_to_subtle_and_stay_visible():
    """Darker than their surroundings by 5 to 100 grey values; Otsu's threshold finds few."""
    contrast, dice = [], []
    for kind in ("benign", "malignant"):
        for seed in range(16):
            image, (mask,) = make_phantom(kind, [1, seed], (200, 240), PLAIN)
            ring = ndimage.binary_dilation(mask, iterations=12) & ~mask
            contrast.append(image[ring].mean() - image[mask].mean())
            smooth = cv2.GaussianBlur(image, (0, 0), image.shape[1] / 60)
            found = cv2.threshold(255 - smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] > 0
            dice.append(2 * (found & mask).sum() / (found.sum() + mask.sum()))
    assert np.mean(dice) < 0.45
    assert np.mean(np.array(contrast) > 5) > 0.9
    assert np.percentile(contrast, 15) < 30 and np.percentile(contrast, 85) > 50


def test_marks_do_not_tell_where_the_lesion_is():
    """Callipers (their grey value, 235) are on normal pictures too."""
    pictures = [make_phantom("normal", seed, (128, 150))[0] for seed in range(40)]
    plain = [make_phantom("normal", seed, (128, 150), PLAIN)[0] for seed in range(40)]
    line = np.full((1, 9), 1, np.uint8)
    crosses = sum(bool(cv2.erode((p == 235).astype(np.uint8), line).any()) for p in pictures)
    assert 1 <= crosses <= 15
    assert sum(np.array_equal(a, b) for a, b in zip(pictures, plain, strict=True)) < 35


def test_folder_has_busis_layout(stored):
    names = set(contents(stored))
    assert {"benign/benign (1).png", "malignant/malignant (8)_mask.png", "PHANTOMS.json"} <= names
    assert any(name.endswith("_mask_1.png") for name in names)
    cases = find_cases(stored)
    assert [sum(c.label == kind for c in cases) for kind in KINDS] == [17, 8, 5]
    memory = {p.name: p for p in phantom_pictures(30, 3, SMALL)}
    for case in cases:
        image, mask = load_case(case)
        phantom = memory[case.name]
        assert np.array_equal(np.rint(image[..., 0] * 255), phantom.image)
        union = np.any(phantom.masks, axis=0) if phantom.masks else np.zeros(mask.shape, bool)
        assert np.array_equal(mask, union)
        for path in case.mask_paths:
            with Image.open(path) as file:
                assert file.mode == "1"


def test_same_seed_same_bytes_other_seed_others(stored, tmp_path):
    again = make_phantoms(tmp_path / "again", 30, 3, False, config=SMALL)
    assert contents(again) == contents(stored)
    other = contents(make_phantoms(tmp_path / "other", 30, 4, False, config=SMALL))
    assert other["benign/benign (1).png"] != contents(stored)["benign/benign (1).png"]


def test_finished_folder_is_taken_as_it_is_and_others_are_made_anew(tmp_path):
    (tmp_path / "p").mkdir()  # an empty folder may be there
    folder = make_phantoms(tmp_path / "p", 6, 0, False, config=SMALL)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_phantoms(folder, 6, 0, False, config=SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    before = contents(folder)
    (folder / "benign" / "benign (1).png").unlink()  # damaged: made whole again
    make_phantoms(folder, 6, 0, False, config=SMALL)
    assert contents(folder) == before
    make_phantoms(folder, 4, 1, False, config=SMALL)  # other settings: replaced
    marker = json.loads((folder / "PHANTOMS.json").read_text())
    assert (marker["count"], marker["seed"]) == (4, 1)
    assert len(find_cases(folder)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("name", ["photo.png", "benign/benign (1).jpg", "model/benign (1).png"])
def test_folders_with_other_files_are_refused(tmp_path, name):
    foreign = tmp_path / "mine" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"precious")
    with pytest.raises(ValueError, match="another folder"):
        make_phantoms(tmp_path / "mine", 3, progress=False, config=SMALL)
    own = make_phantoms(tmp_path / "own", 3, 0, False, config=SMALL)
    stray = own / name
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"precious")
    with pytest.raises(ValueError, match="1 other files|2 other files"):
        make_phantoms(own, 3, 1, False, config=SMALL)
    with pytest.raises(ValueError, match="found a file"):
        make_phantoms(stray, 1, 0, False, config=SMALL)
    assert foreign.read_bytes() == stray.read_bytes() == b"precious"


def test_nothing_half_written_stays_after_an_interruption(tmp_path, monkeypatch):
    def interrupted(*args):
        yield from list(phantom_pictures(2, 0, SMALL))
        raise KeyboardInterrupt

    monkeypatch.setattr("unet_lib.phantoms.writing.phantom_pictures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_phantoms(tmp_path / "p", 5, 0, False, config=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_is_phantoms(stored, tmp_path):
    case = find_cases(stored)[0]
    assert is_phantoms(stored) and is_phantoms(stored / "benign") and is_phantoms(case.image_path)
    assert phantom_kind(case.image_path for case in find_cases(stored)[:1])
    (tmp_path / "else").mkdir()
    assert not is_phantoms(tmp_path / "else" / "a" / "b")


@pytest.mark.parametrize("name", ["mine/benign/benign (1).png", "mine/a.png", "benign/mine.png"])
def test_own_pictures_inside_a_folder_of_phantoms_are_none(tmp_path, name):
    folder = make_phantoms(tmp_path / "ph", 1, 0, False, config=SMALL)
    own = write_png(folder / name, np.zeros((9, 9), np.uint8))
    assert not is_phantoms(own) and not phantom_kind([own])
    assert is_phantoms(folder) and not is_phantoms(folder / "mine")


def test_wrong_arguments_say_what_is_allowed():
    with pytest.raises(ValueError, match="benign, malignant, normal"):
        make_phantom("cyst", 0)
    with pytest.raises(ValueError, match="at least"):
        make_phantom("benign", 0, (63, 200))
    with pytest.raises(ValueError, match="count"):
        list(phantom_pictures(0))
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        list(phantom_pictures(1, -1))
    for bad in ({"benign": 0.8, "malignant": 0.3}, {"second_lesion": 2}, {"benign": float("nan")}):
        with pytest.raises(ValueError, match="must lie in"):
            PhantomConfig(**bad)
    for bad in ((10, 100), (300, 200), (100,)):
        with pytest.raises(ValueError, match="heights"):
            PhantomConfig(heights=bad)
    assert PhantomConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL
