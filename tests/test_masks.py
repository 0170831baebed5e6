"""Whatever way a mask is stored in, it is read as it was drawn or refused, alone and in its set."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import write_png
from PIL import Image

from unet_lib.cli import main
from unet_lib.dataset import check_cases, find_cases, load_case
from unet_lib.images import ImageError, MaskSet, read_masks, read_pixels
from unet_lib.metrics import CaseTable
from unet_lib.source import open_dataset

BLACK = (0, 0, 0)


def grey(low, high, ending="png", dtype=np.uint8, **more):
    """Return what saves a mask in two grey values or colours."""

    def write(path, mask, rng):
        where = mask[..., None] if np.ndim(low) else mask
        values = np.where(where, dtype(high), dtype(low))
        Image.fromarray(values).save(path.with_suffix(f".{ending}"), **more)

    return write


def jpeg(path, mask, rng):
    grey(0, 255, "jpg", quality=int(rng.integers(60, 101)))(path, mask, rng)


def palette(*colours):
    def write(path, mask, rng):
        picture = Image.fromarray(np.uint8(mask)).convert("P")
        picture.putpalette(sum(map(list, colours), []))
        picture.save(path.with_suffix(".png"))

    return write


def alpha(path, mask, rng):
    values = np.full((*mask.shape, 4), 255, np.uint8)
    values[..., 3] = np.uint8(mask) * 255
    Image.fromarray(values).save(path.with_suffix(".png"))


def soft(path, mask, rng):
    """Write a probability map, of which the truth is what is above half."""
    values = cv2.GaussianBlur(np.float32(mask), (0, 0), float(rng.uniform(4, 9)))
    Image.fromarray(np.uint8(values * 255)).save(path.with_suffix(".png"))


def faint(path, mask, rng):
    """Write a probability map that is sharp, but below half, or little above."""
    values = cv2.GaussianBlur(np.float32(mask), (0, 0), float(rng.uniform(0.5, 2)))
    picture = np.uint8(values * 255 * rng.uniform(0.4, 0.75))
    Image.fromarray(picture).save(path.with_suffix(".png"))


def smooth(path, mask, rng):
    fine = cv2.resize(np.uint8(mask) * 255, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(fine, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    Image.fromarray(small).save(path.with_suffix(".png"))


def with_another_label(*values, ring=False, rest=0):
    """Write the lesion beside a structure that is none, as label maps do."""

    def write(path, mask, rng):
        labels = np.zeros((*mask.shape, *np.shape(values[0])), np.uint8)
        labels[:2, :2] = np.multiply(rest, mask.any())
        if ring:
            other = cv2.dilate(np.uint8(mask), np.ones((5, 5), np.uint8)) > mask
        else:
            other = np.zeros_like(mask)
            other[-16:-2, 2:40] = mask.any()  # alone, it could be a lesion as well
        labels[other], labels[mask] = values
        Image.fromarray(labels).save(path.with_suffix(".png"))

    return write


def ring(value, width):
    """Write the lesion in white with a rim of another label, as thin as a smoothed edge."""

    def write(path, mask, rng):
        side = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
        values = np.where(cv2.dilate(np.uint8(mask), side) > mask, np.uint8(value), 0)
        Image.fromarray(np.where(mask, np.uint8(255), values)).save(path.with_suffix(".png"))

    return write


def contour(path, mask, rng):
    lines = np.zeros(mask.shape, np.uint8)
    width = int(rng.integers(1, 4))
    cv2.drawContours(lines, cv2.findContours(np.uint8(mask), 0, 2)[0], -1, 255, width)
    Image.fromarray(lines).save(path.with_suffix(".png"))


def framed_negative(path, mask, rng):
    """Write a negative with black borders, as of a picture that was padded."""
    values = np.pad(np.uint8(~mask)[5:-5, 5:-5] * 255, 5)
    Image.fromarray(values).save(path.with_suffix(".png"))


PURPLE, YELLOW = (68, 1, 84), (253, 231, 36)
WAYS = {
    "0 and 255": grey(0, 255),
    "0 and 1": grey(0, 1),
    "0 and 4": grey(0, 4),
    "0 and 128": grey(0, 128, "bmp"),
    "16 bit": grey(0, 65535, "tif", np.uint16),
    "16 bit, 0 and 1": grey(0, 1, "png", np.uint16),
    "float": grey(0, 1, "tif", np.float32),
    "1 bit": grey(False, True, dtype=np.bool_),
    "blue 1": grey(BLACK, (0, 0, 1)),
    "green 2": grey(BLACK, (0, 2, 0), "tif"),
    "red": grey(BLACK, (255, 0, 0)),
    "viridis": grey(PURPLE, YELLOW),
    "grey of three channels, JPEG": grey(BLACK, (255, 255, 255), "jpg", quality=75),
    "JPEG": jpeg,
    "GIF": grey(0, 255, "gif"),
    "WebP": grey(BLACK, (255, 255, 255), "webp", lossless=True),
    "WebP, lossy": grey(BLACK, (255, 255, 255), "webp", quality=80),
    "palette": palette(BLACK, (128, 0, 0)),
    "black palette": palette(BLACK, BLACK),
    "white on transparent": alpha,
    "smoothed": smooth,
    "soft": soft,
    "faint": faint,
    "inverted": grey(255, 0),
    "inverted, 0 and 1": grey(1, 0),
    "inverted JPEG": grey(255, 0, "jpg", quality=90),
    "inverted, 1 bit": grey(True, False, dtype=np.bool_),
    "inverted viridis": grey(YELLOW, PURPLE),
    "inverted palette": palette((255, 255, 255), BLACK),
    "1 and 2": grey(1, 2),
    "128 and 255": grey(128, 255),
    "labels 1 and 2": with_another_label(1, 2),
    "labels 100 and 255": with_another_label(100, 255),
    "labels 230 and 255": with_another_label(230, 255),
    "labels in colours": with_another_label((128, 0, 0), (0, 128, 0)),
    "labels in blue": with_another_label((0, 0, 1), (0, 0, 2)),
    "labels of three brightnesses": with_another_label((128, 0, 0), (0, 128, 0), rest=(0, 0, 9)),
    "void around": with_another_label(255, 1, ring=True),
    "all white": grey(255, 255),
    "rim of 128": ring(128, 1),
    "rim of 200": ring(200, 2),
    "contours": contour,
    "negative in a frame": framed_negative,
    "0 and 1, JPEG": grey(0, 1, "jpg", quality=75),
    "0 and 40, JPEG": grey(0, 40, "jpg", quality=60),
}
BLURRED = {"JPEG": 0, "smoothed": 0.03, "WebP, lossy": 0.03, "grey of three channels, JPEG": 0}
MUST_BE_READ = {*list(WAYS)[: list(WAYS).index("soft")]} - {"JPEG", "WebP, lossy"}


def draw_truth(rng, empty):
    y, x = np.mgrid[:96, :112]
    centre, radii = rng.uniform((36, 36), (60, 76)), rng.uniform((8, 8), (26, 34))
    return (((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1) & (not empty)


def wrong(read, truth, way):
    """Return the share of the truth by which a mask differs, above what blurring does."""
    if read is None:
        return 0
    return max(0, (read ^ truth).sum() / max(1, truth.sum()) - BLURRED.get(way, 0))


def read(paths, mask_set=None):
    try:
        return read_masks(paths, mask_set=mask_set)
    except ImageError as error:
        assert str(paths) in str(error)
        return None


def draws(number, folder, seed):
    rng = np.random.default_rng(seed)
    for draw in range(number):
        way = list(WAYS)[draw % len(WAYS)]
        truths = [draw_truth(rng, rng.random() < 0.25) for _ in range(rng.integers(2, 6))]
        place = folder / str(draw)
        place.mkdir()
        for index, truth in enumerate(truths):
            WAYS[way](place / f"{index}", truth, rng)
        yield way, truths, sorted(place.iterdir())


@pytest.mark.parametrize(
    ("number", "seed"),
    [(2 * len(WAYS), 1), pytest.param(12 * len(WAYS), 2, marks=pytest.mark.slow)],
)
def test_a_mask_is_read_as_it_was_drawn_or_refused(tmp_path, number, seed):
    for way, truths, paths in draws(number, tmp_path, seed):
        together = MaskSet(paths)
        for truth, path in zip(truths, paths, strict=True):
            alone, of_set = read(path), read(path, together)
            if way == "all white" or (way == "faint" and truth.any()):
                assert alone is None and of_set is None
            assert wrong(alone, truth, way) == wrong(of_set, truth, way) == 0, (way, path)
            if way in MUST_BE_READ and (truth.any() or way != "viridis"):
                assert alone is not None and of_set is not None, (way, path)


def test_masks_are_joined_with_or_and_have_one_size(tmp_path):
    paths, masks = [tmp_path / "a.png", tmp_path / "b.png"], np.zeros((2, 20, 30), bool)
    masks[0, 3:9, 2:12] = masks[1, 7:15, 10:25] = True
    for path, mask in zip(paths, masks, strict=True):
        Image.fromarray(mask).save(path)
    np.testing.assert_array_equal(read_masks(paths), masks.any(0))
    np.testing.assert_array_equal(read_masks(paths, (20, 30)), masks.any(0))
    np.testing.assert_array_equal(read_masks(paths[0]), masks[0])
    assert not read_masks([], (4, 5)).any() and read_masks([], (4, 5)).shape == (4, 5)
    with pytest.raises(ImageError, match="no mask files and no shape"):
        read_masks([])
    with pytest.raises(ImageError, match=r"a\.png: the mask is 20 x 30.*photo\.png is 60 x 80"):
        read_masks(paths, (60, 80), image_path="photo.png")
    Image.fromarray(masks[1, 1:]).save(paths[1])
    with pytest.raises(ImageError, match=r"b\.png: the mask is 19 x 30.*a\.png is 20 x 30"):
        read_masks(paths)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 1, 2), r"3 grey values: 0 \(600 px\), 1"),
        ((0, 127, 255), "3 grey values"),
        ([(0, 0, 0), (255, 0, 0), (0, 255, 0)], r"colours: .*\[255, 0, 0\], \[0, 255, 0\]"),
        ([(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 4, 0)], r"colours: .*\[0, 1, 0\]"),
        ((0, 100, 200), "3 grey values"),
        ((0, 60, 255), "one mask file per label"),
        ((1, 2, 2), "2 grey values"),
        ((254, 255, 255), "2 grey values"),
        (range(0, 250, 5), "50 grey values.*, ..."),
    ],
)
def test_what_is_no_mask_is_refused_with_what_it_holds(tmp_path, values, words):
    bands = np.repeat(np.array(values, np.uint8), 20, axis=0)[None].repeat(30, 0)
    Image.fromarray(bands).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=rf"a\.png: not a mask: it holds .*{words}"):
        read_masks(tmp_path / "a.png")


def test_a_thick_contour_of_a_small_lesion_is_no_filled_one(tmp_path):
    lines = np.zeros((40, 40), np.uint8)
    cv2.circle(lines, (20, 20), 8, 255, 3)
    with pytest.raises(ImageError, match="has holes of"):
        read_masks(write_png(tmp_path / "a.png", lines))


def write_set(folder, way, truths):
    rng = np.random.default_rng(0)
    (folder / "masks").mkdir()
    for index, truth in enumerate(truths):
        values = np.clip(rng.normal(90, 20, truth.shape), 0, 255).astype(np.uint8)
        write_png(folder / "images" / f"{index}.png", values)
        WAYS[way](folder / "masks" / f"{index}", truth, rng)
    return find_cases(folder)


def test_empty_masks_in_colours_are_read_by_their_set(tmp_path):
    rng = np.random.default_rng(3)
    truths = [draw_truth(rng, index in (1, 4)) for index in range(6)]
    for case, truth in zip(write_set(tmp_path, "viridis", truths), truths, strict=True):
        np.testing.assert_array_equal(load_case(case)[1], truth)


def test_a_large_lesion_is_read_where_the_set_is_clear_and_check_warns(tmp_path):
    rng = np.random.default_rng(4)
    truths = [draw_truth(rng, False) for _ in range(4)]
    truths[2] = truths[2] | True
    truths[2][:5] = False
    cases = write_set(tmp_path, "0 and 255", truths)
    np.testing.assert_array_equal(load_case(cases[2])[1], truths[2])
    report = check_cases(cases)
    assert report.ok and len(report.of_kind("mask_covers_most")) == 1
    assert "2.png: marks 71 % of the border" in report.to_markdown()


def test_a_negative_among_clear_masks_is_refused(tmp_path):
    rng = np.random.default_rng(6)
    truths = [draw_truth(rng, False) for _ in range(6)]
    cases = write_set(tmp_path, "0 and 255", [*truths[:2], ~truths[2], *truths[3:5], ~truths[5]])
    for index, (case, truth) in enumerate(zip(cases, truths, strict=True)):
        if index in (2, 5):
            with pytest.raises(ImageError, match="marks 100 % of the border"):
                load_case(case)
        else:
            np.testing.assert_array_equal(load_case(case)[1], truth)


@pytest.mark.parametrize("way", ["inverted", "all white"])
def test_a_set_of_negatives_is_refused_with_what_was_seen(tmp_path, way):
    rng = np.random.default_rng(5)
    report = check_cases(write_set(tmp_path, way, [draw_truth(rng, False) for _ in range(3)]))
    assert not report.ok and len(report.of_kind("mask_values")) == 3
    assert "of 3 masks 0 are clear, 3 doubtful" in report.to_markdown()


def test_a_set_that_marks_nothing_is_an_error(tmp_path):
    report = check_cases(write_set(tmp_path, "0 and 1", [np.zeros((20, 30), bool)] * 3))
    assert [finding.kind for finding in report.problems] == ["no_lesion"] and not report.ok


RULES = {
    "inverted": "255:0",
    "inverted JPEG": "128-255:0-127",
    "inverted, 0 and 1": "1:0",
    "inverted, 1 bit": "255:0",
    "inverted viridis": "200-255:0-127",
    "soft": "0-127:128-255",
    "1 and 2": "1:2",
    "labels 1 and 2": "0,1:2",
    "labels in colours": "0,#800000:#008000",
    "rim of 200": "0-200:201-255",
}


@pytest.mark.parametrize("way", RULES)
def test_a_rule_says_how_masks_are_read_that_are_refused(tmp_path, capsys, way):
    rng = np.random.default_rng(6)
    truths = [draw_truth(rng, False) for _ in range(8)]
    write_set(tmp_path, way, truths)
    for case, truth in zip(find_cases(tmp_path, mask_rule=RULES[way]), truths, strict=True):
        if way == "soft":
            truth = read_pixels(case.mask_paths[0]) > 127
        assert wrong(load_case(case)[1], truth, "smoothed") < 0.02
    source = open_dataset(tmp_path, mask_rule=RULES[way], progress=False)
    assert f"read as background:lesion {RULES[way]}." in source.message
    assert main(["check", str(tmp_path)]) == 1
    capsys.readouterr()
    assert main(["check", str(tmp_path), "--mask-rule", RULES[way]]) == 0
    assert "blurred edges, cut at half | 0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("way", "rule", "words"),
    [
        ("0 and 255", "255:0", "marks 100 % of the border.* clear without a rule"),
        ("0 and 255", "0:1", "pixels have a value that it does not name, 255"),
        ("labels 100 and 255", "0:255", "pixels have a value that it does not name, 100"),
        ("labels in colours", "0:128", "several colours have one brightness"),
        ("labels in colours", "0:#008000", r"does not name, \[128, 0, 0\]"),
        ("labels of three brightnesses", "0,9:128", "several colours have one brightness"),
    ],
)
def test_a_rule_that_contradicts_the_masks_is_refused(tmp_path, way, rule, words):
    write_set(tmp_path, way, [draw_truth(np.random.default_rng(7), False)] * 3)
    with pytest.raises(ImageError, match=rf"0\.\w+: the mask rule {rule} contradicts .*{words}"):
        load_case(find_cases(tmp_path, mask_rule=rule)[0])


@pytest.mark.parametrize(
    "rule",
    ["dark", "255", "0-9:5", "0:0", "0:1:2", "-1:3", "0,:1", "9-0:255", "0:#ff", "#ff0000:255"],
)
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(ValueError, match="expected BACKGROUND:LESION"):
        MaskSet([], rule)


def test_a_rule_holds_for_predictions_by_their_own_option(tmp_path):
    rng = np.random.default_rng(8)
    truths = [draw_truth(rng, False) for _ in range(4)]
    for name in ("data", "theirs"):
        (tmp_path / name).mkdir()
    write_set(tmp_path / "data", "0 and 255", truths)
    write_set(tmp_path / "theirs", "inverted", truths)
    given = ["score", tmp_path / "theirs" / "masks", tmp_path / "data", "--out", tmp_path / "out"]
    assert main([*map(str, given)]) == 2
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert main([*map(str, given), "--prediction-rule", "255:0"]) == 0
    assert list(CaseTable.read_csv(tmp_path / "out" / "cases.csv").column("dice")) == [1] * 4
    assert "\n- prediction rule: 255:0\n" in (tmp_path / "out" / "report.md").read_text("utf-8")
    for path in (tmp_path / "data" / "masks").iterdir():  # as of segment: what is white is lesion
        shutil.copy(path, tmp_path / "theirs" / "masks" / f"{path.stem}_pred.png")
        (tmp_path / "theirs" / "masks" / path.name).unlink()
    (tmp_path / "theirs" / "masks" / "lesions.csv").write_text("")
    assert main([*map(str, given)]) == 0
    assert main([*map(str, given), "--prediction-rule", "255:0"]) == 2
