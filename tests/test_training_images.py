"""The leak guard: a picture is known under any name, and what is unknown is not called a test."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from unet_lib.dataset import (
    Case,
    FoldRow,
    Folds,
    TrainingImages,
    content_hash,
    data_hash,
    find_cases,
    join_groups,
)
from unet_lib.images import read_image

RNG = np.random.default_rng(0)


def case(name, group=None):
    return Case(name, "benign", Path(f"{name}.png"), (), group or name)


def test_the_hash_is_that_of_the_picture_not_of_the_file(tmp_path):
    pixels = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
    files = {
        "a.png": (pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0]),
        "b.png": (pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9]),
        "c.bmp": (pixels, []),
        "d.tif": (pixels, []),
        "sixteen.png": (pixels.astype(np.uint16) * 257, []),
        "colours.png": (np.repeat(pixels[..., None], 3, axis=2), []),
    }
    found = set()
    for name, (values, options) in files.items():
        assert cv2.imwrite(str(tmp_path / name), values, options)
        found.add(content_hash(read_image(tmp_path / name)))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == len(files)
    assert len(found) == 1 and len(found.pop()) == 16
    image = pixels[..., None] / np.float32(255)
    other = image.copy()
    other[3, 4, 0] = (int(pixels[3, 4]) + 1) % 256 / 255
    shapes = image, other, image.reshape(50, 40, 1), image[:, ::-1]
    assert len({content_hash(x) for x in shapes}) == 4


def test_the_hash_of_the_data_is_that_of_every_name_picture_and_mask_in_any_order():
    cases = [case("b"), case("a"), case("c\udcff")]  # the last is no UTF-8 on the disk
    found = data_hash(cases, ["1", "2", "3"], ["x", "y", "z"])
    lines = b"a\t2\ty\nb\t1\tx\nc\xff\t3\tz\n"
    assert found == hashlib.sha256(lines).hexdigest()
    assert found == data_hash(cases[::-1], ["3", "2", "1"], ["z", "y", "x"])
    with pytest.raises(ValueError, match="shorter"):
        data_hash(cases, ["1", "2", "3"], ["x", "y"])


KNOWN = TrainingImages.of(
    "BUSI", [case("t1"), case("t2", "g1"), case("t3", "g2")], ["h1", "h2", "h3"]
)


def test_overlap_by_content_and_by_group():
    cases = [case("renamed"), case("twin", "g1"), case("t1"), case("new", "g9")]
    found = KNOWN.overlap("BUSI", cases, ["h1", "x", "y", "z"])
    assert found == {"compared_with": 3, "in_training": ["renamed"], "near_duplicates": ["twin"]}


def test_groups_of_another_data_set_mean_nothing_unless_a_member_was_seen():
    cases = [case("one", "g1"), case("two", "g1"), case("three", "g2")]
    assert KNOWN.overlap("other", cases, ["x", "y", "z"])["near_duplicates"] == []
    assert KNOWN.overlap(None, cases, ["x", "y", "z"])["near_duplicates"] == []
    found = KNOWN.overlap("other", cases, ["h2", "y", "z"])
    assert (found["in_training"], found["near_duplicates"]) == (["one"], ["two"])
    nameless = TrainingImages.of(None, [case("t", "g1")], ["h"])
    assert nameless.overlap(None, cases, ["x", "y", "z"])["near_duplicates"] == []


def test_groups_are_remembered_through_several_trainings():
    mine = TrainingImages.of("mine", [case("a", "g5")], ["m1"]).joined(KNOWN)
    later = TrainingImages.of("BUSI", [case("b", "g7")], ["b1"]).joined(mine)
    nameless = TrainingImages.of(None, [case("c", "g8")], ["n1"]).joined(later)
    cases = [
        case(name, group) for name, group in zip("rstu", ("g1", "g5", "g7", "g8"), strict=True)
    ]
    for images, busi, own in ((mine, "r", "s"), (later, "rt", "s"), (nameless, "rt", "s")):
        images = TrainingImages.from_provenance(
            {"data": images.data, "training_images": images.to_dict()}
        )
        for data, names in (("BUSI", busi), ("mine", own), ("third", ""), (None, "")):
            found = images.overlap(data, cases, ["x"] * 4)
            assert (found["in_training"], found["near_duplicates"]) == ([], list(names)), data
    assert nameless.hashes == {*KNOWN.hashes, "m1", "b1", "n1"}


def test_the_record_survives_and_a_damaged_one_is_refused():
    about = {"name": "m", "data": "BUSI", "training_images": KNOWN.to_dict()}
    assert TrainingImages.from_provenance(about) == KNOWN
    assert KNOWN.to_dict()["groups"] == ["g1", "g2"]  # an image that stands alone has no group
    assert TrainingImages.from_provenance({"name": "m"}) is None
    other = {**KNOWN.to_dict(), "method": "a later one"}
    assert TrainingImages.from_provenance({"training_images": other}) is None
    wrong = {"hashes": "h1"}, {"groups": [1]}, {"earlier": 3}, {"earlier": {"other": "g1"}}
    for damaged in ([], {"hashes": []}, *(KNOWN.to_dict() | one for one in wrong)):
        with pytest.raises(ValueError, match="model m: its record training_images is damaged"):
            TrainingImages.from_provenance({"name": "m", "training_images": damaged})


def test_a_group_called_like_one_of_its_images_is_a_group(tmp_path):
    """In a list of groups and in a split; the leak guard forgets none of them."""
    for name in "abc":
        for kind in ("images", "masks"):
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            assert cv2.imwrite(str(path), RNG.integers(0, 2, (20, 30), np.uint8) * 255)
    (tmp_path / "groups.csv").write_text("image,group\na,a\nb,a\nc,c\n")
    a, b, c = find_cases(tmp_path)
    assert a.has_twins and b.has_twins and a.group == b.group and not c.has_twins
    rows = [
        FoldRow(name, "unknown", group, ("test" if name == "c" else "train",))
        for name, group in ("aa", "ba", "cc")
    ]
    bare = find_cases(tmp_path, audit=None)
    first, second = Folds(tuple(rows)).split(bare, 0).train
    assert first.has_twins and first.group == second.group
    assert all(one.has_twins for one in join_groups([case("a"), case("b", "a")]))
    for seen, other in ((a, b), (b, a)):
        known = TrainingImages.of("mine", [seen, c], ["h1", "h2"])
        found = known.overlap("mine", [other], ["h3"])
        assert found["near_duplicates"] == [other.name]
