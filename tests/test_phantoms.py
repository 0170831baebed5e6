"""Phantoms: what is on them, that they repeat, that they are neither trivial nor impossible."""

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


def scan(shape: tuple[int, int], seed: int, **settings) -> np.ndarray:
    """Image of uniform tissue by a plain scanner: one look, one width, no noise, no smoothing."""
    plain = {"axial": 1.0, "lateral": 1.5, "focus": 0.5, "spread": 0.0, "looks": 1, "noise": -80}
    plain |= {"range": 60, "gain": 0.7, "smoothing": 0.0, "steer": 0.0}
    tissue = Tissue(*np.zeros((2, *shape), np.float32))
    return Scanner(**plain | settings).image(tissue, np.random.default_rng(seed))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("data") / "ph", 30, 3, False, config=SMALL)


def test_speckle_of_one_look_is_rayleigh_and_looks_smooth_it():
    """The envelope of uniform tissue has the Rayleigh distribution's mean over spread, 1.913."""
    grey = scan((400, 400), 0)
    envelope = 10 ** ((grey - 0.7) * 60 / 20)
    assert (grey < 1).mean() > 0.9995  # hardly anything saturates, so the log can be undone
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    apart = envelope[::8, ::12].ravel()  # beyond the size of a grain: independent values
    assert stats.kstest(apart, "rayleigh", args=(0, np.sqrt((apart**2).mean() / 2))).pvalue > 0.01
    assert (envelope**2).mean() == pytest.approx(1, rel=0.05)
    one, four = (scan((300, 300), 1, looks=looks, range=90).std() for looks in (1, 4))
    assert 1.8 < one / four < 2.6  # logarithm of the mean of 4: a little over 2


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_types_and_masks(kind):
    for seed, size in enumerate([None, (64, 64), (97, 64), (70, 333)]):
        image, masks = make_phantom(kind, seed, size)
        assert image.dtype == np.uint8 and image.ndim == 2 and image.std() > 10
        assert size is None or image.shape == size
        assert bool(masks) == (kind != "normal")
        for mask in masks:
            assert mask.dtype == bool and mask.shape == image.shape
            assert 0.001 < mask.mean() < 0.6


def test_shares_of_the_classes_and_count_leave_the_pictures_alone():
    config = PhantomConfig(heights=(64, 64), widths=(64, 64))
    many = {p.name: p for p in phantom_pictures(100, 1, config)}
    kinds = [p.kind for p in many.values()]
    assert [kinds.count(kind) for kind in KINDS] == [56, 27, 17]  # as BUSI
    few = list(phantom_pictures(6, 1, config))
    assert len(few) == 6 and all(np.array_equal(p.image, many[p.name].image) for p in few)


@pytest.fixture(scope="module")
def plain():
    """Sixteen pictures of each kind without marks, with the mask of their lesion."""
    return {
        kind: [make_phantom(kind, seed, (200, 240), PLAIN) for seed in range(16)]
        for kind in ("benign", "malignant")
    }


def test_malignant_lesions_are_rougher_taller_and_throw_shadows(plain):
    """Solidity, height over width and what lies behind differ as the lexicon says."""
    solidity, upright, behind = ({kind: [] for kind in plain} for _ in range(3))
    for kind, pictures in plain.items():
        for image, (mask,) in pictures:
            contour = max(cv2.findContours(mask.astype(np.uint8), 0, 2)[0], key=cv2.contourArea)
            left, top, width, height = cv2.boundingRect(contour)
            hull = cv2.contourArea(cv2.convexHull(contour))
            solidity[kind].append(cv2.contourArea(contour) / hull)
            upright[kind].append(height / width)
            strip = image[top + height + 2 : top + height + 32].astype(float)
            beside = np.delete(strip, np.s_[left : left + width], axis=1)
            if strip.size and beside.size:
                inner = strip[:, left + width // 4 : left + 3 * width // 4]
                behind[kind].append(inner.mean() - beside.mean())
    assert np.median(solidity["benign"]) > 0.95 > np.median(solidity["malignant"])
    assert np.median(upright["malignant"]) > np.median(upright["benign"])
    assert max(upright["malignant"]) > 1  # some taller than wide
    assert np.median(behind["benign"]) > 3 and np.median(behind["malignant"]) < -5


def test_lesions_range_from_obvious_to_subtle_and_stay_visible(plain):
    """Darker than their surroundings by 5 to 100 grey values; Otsu's threshold finds few."""
    contrast, dice = [], []
    for image, (mask,) in plain["benign"] + plain["malignant"]:
        ring = ndimage.binary_dilation(mask, iterations=12) & ~mask
        contrast.append(image[ring].mean() - image[mask].mean())
        smooth = cv2.GaussianBlur(image, (0, 0), image.shape[1] / 60)
        dark = cv2.threshold(255 - smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] > 0
        dice.append(2 * (dark & mask).sum() / (dark.sum() + mask.sum()))
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


def test_a_folder_has_busis_layout_and_repeats_byte_by_byte(stored, tmp_path):
    names = set(contents(stored))
    assert {"benign/benign (1).png", "malignant/malignant (8)_mask.png", "PHANTOMS.json"} <= names
    assert any(name.endswith("_mask_1.png") for name in names)
    cases, memory = find_cases(stored), {p.name: p for p in phantom_pictures(30, 3, SMALL)}
    assert len(cases) == 30 and phantom_kind(case.image_path for case in cases[:1])
    for case in cases:
        image, mask = load_case(case)
        phantom = memory[case.name]
        assert np.array_equal(np.rint(image[..., 0] * 255), phantom.image)
        assert np.array_equal(mask, np.any([mask & False, *phantom.masks], axis=0))
        assert all(Image.open(path).mode == "1" for path in case.mask_paths)
    again = make_phantoms(tmp_path / "again", 30, 3, False, config=SMALL)
    assert contents(again) == contents(stored)
    other = contents(make_phantoms(tmp_path / "other", 3, 4, False, config=SMALL))
    assert other["benign/benign (1).png"] != contents(stored)["benign/benign (1).png"]


def test_finished_folder_is_taken_as_it_is_and_others_are_made_anew(tmp_path):
    (tmp_path / "p").mkdir()  # an empty folder may be there
    folder = make_phantoms(tmp_path / "p", 6, 0, False, config=SMALL)
    before, time = contents(folder), folder.stat().st_mtime_ns
    assert make_phantoms(folder, 6, 0, False, config=SMALL) == folder
    assert folder.stat().st_mtime_ns == time
    (folder / "benign" / "benign (1).png").unlink()  # damaged: made whole again
    make_phantoms(folder, 6, 0, False, config=SMALL)
    assert contents(folder) == before
    make_phantoms(folder, 4, 1, False, config=SMALL)  # other settings: replaced
    marker = json.loads((folder / "PHANTOMS.json").read_text())
    assert (marker["count"], marker["seed"], len(find_cases(folder))) == (4, 1, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("name", ["photo.png", "benign/benign (1).jpg", "model/benign (1).png"])
def test_folders_with_other_files_are_refused(tmp_path, name):
    own = make_phantoms(tmp_path / "own", 3, 0, False, config=SMALL)
    for folder in (tmp_path / "mine", own):
        stray = folder / name
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"precious")
        with pytest.raises(ValueError, match=r"holds \d other files.*name another folder"):
            make_phantoms(folder, 3, 1, False, config=SMALL)
        with pytest.raises(ValueError, match="received a file"):
            make_phantoms(stray, 1, 0, False, config=SMALL)
        assert stray.read_bytes() == b"precious"


def test_nothing_half_written_stays_after_an_interruption(tmp_path, monkeypatch):
    def interrupted(*args):
        yield from list(phantom_pictures(2, 0, SMALL))
        raise KeyboardInterrupt

    monkeypatch.setattr("unet_lib.phantoms.pictures.phantom_pictures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_phantoms(tmp_path / "p", 5, 0, False, config=SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mine/benign/benign (1).png", "mine/a.png", "benign/mine.png"])
def test_own_pictures_inside_a_folder_of_phantoms_are_none(tmp_path, name):
    folder = make_phantoms(tmp_path / "ph", 1, 0, False, config=SMALL)
    own = write_png(folder / name, np.zeros((9, 9), np.uint8))
    assert not is_phantoms(own) and not phantom_kind([own]) and not is_phantoms(folder / "mine")
    assert is_phantoms(folder) and is_phantoms(folder / "benign" / "benign (1).png")


def test_wrong_arguments_say_what_is_allowed():
    for wrong in (("cyst", 0), ("benign", 0, (63, 200))):
        with pytest.raises(ValueError, match=r"benign, malignant, normal.*at least \(64, 64\)"):
            make_phantom(*wrong)
    for count, seed in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="seed 0 or more, got"):
            list(phantom_pictures(count, seed))
    for bad in ({"benign": 0.8, "malignant": 0.3}, {"second_lesion": 2}, {"benign": float("nan")}):
        with pytest.raises(ValueError, match="must be a number from 0 to"):
            PhantomConfig(**bad)
    for bad in ((10, 100), (300, 200), (100,)):
        with pytest.raises(ValueError, match="heights"):
            PhantomConfig(heights=bad)
    assert PhantomConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL
