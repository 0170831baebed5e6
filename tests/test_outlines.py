"""Outlines of LabelMe are read as masks; names that annotation tools give are matched."""

import base64
import json
from io import BytesIO
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from conftest import write_png
from PIL import Image, ImageDraw

from unet_lib.dataset import DatasetError, check_cases, find_cases, load_case
from unet_lib.images import ImageError, read_masks

SIZE = (48, 64)
CORNERS = [[10.4, 8.0], [40.6, 12.2], [30.0, 36.9]]


def picture(path: Path, number: int = 1) -> Path:
    return write_png(path, np.random.default_rng(number).integers(0, 256, SIZE, np.uint8))


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.new("L", SIZE[::-1])
    ImageDraw.Draw(drawn).polygon([tuple(p) for p in CORNERS], fill=255, outline=255)
    drawn.save(path)
    return path


def outline(path: Path, *shapes, **changes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = shapes or ({"points": CORNERS},)
    drawn = [{"label": "lesion", "shape_type": "polygon", "flags": {}} | s for s in shapes]
    height, width = SIZE
    data = {"version": "5.2.1", "flags": {}, "shapes": drawn, "imagePath": "1.png"}
    data |= {"imageData": None, "imageHeight": height, "imageWidth": width} | changes
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("image", "drawn", "label"),
    [
        ("1.png", "1.json", "unknown"),
        ("benign/1.png", "benign/1.json", "benign"),
        ("images/1.png", "masks/1.json", "unknown"),
        ("1.png", "1_mask.png", "unknown"),  # Roboflow
        ("imgs/1.png", "masks/1.png", "unknown"),
        ("JPEGImages/1.png", "SegmentationClass/1.png", "unknown"),  # VOC, CVAT, labelme2voc
        ("images/1.png", "masks/1.png.png", "unknown"),  # Supervisely
        ("images/1.png", "masks/1_segmentation.png", "unknown"),  # ISIC
        ("images/IMG_1.png", "masks/img_1.png", "unknown"),
    ],
)
def test_what_annotation_tools_write_is_read(image, drawn, label, tmp_path):
    picture(tmp_path / image)
    (outline if drawn.endswith("json") else mask)(tmp_path / drawn)
    (case,) = find_cases(tmp_path)
    assert case.label == label
    expected = read_masks(mask(tmp_path / "expected" / "1.png"))
    np.testing.assert_array_equal(load_case(case)[1], expected)
    assert check_cases([case]).ok


def test_every_shape_that_has_an_area_is_filled(tmp_path):
    part = BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8)).save(part, "PNG")
    shapes = [
        {"shape_type": "rectangle", "points": [[20, 10], [12, 6]]},  # drawn from below
        {"shape_type": "circle", "points": [[40, 30], [40, 34]]},
        {
            "shape_type": "mask",
            "points": [[50, 40], [51, 41]],
            "mask": base64.b64encode(part.getvalue()).decode(),
        },
    ]
    drawn = read_masks(outline(tmp_path / "1.json", *shapes))
    assert drawn[6:11, 12:21].all() and drawn[30, 36:45].all()
    assert drawn[40:42, 50:52].tolist() == [[False, True], [True, True]]
    assert drawn.sum() == 5 * 9 + 3 + drawn[26:35, 36:45].sum()
    nothing = outline(tmp_path / "2.json", shapes=[])
    assert not read_masks(nothing).any()


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        ({"shape_type": "linestrip", "points": CORNERS}, {}, "linestrip"),
        ({"shape_type": "point", "points": [[3, 4]]}, {}, "point"),
        ({"points": CORNERS[:2]}, {}, "2 points"),
        ({"points": "far"}, {}, "cannot be filled"),
        ({"points": CORNERS}, {"imageHeight": None}, "no outlines of LabelMe"),
        ({"points": CORNERS}, {"imageHeight": 10**9}, "1000000000 x 64"),
        ({"points": CORNERS}, {"shapes": 3}, "no outlines of LabelMe"),
    ],
)
def test_what_is_no_area_is_refused_by_name(shape, changes, words, tmp_path):
    with pytest.raises(ImageError, match=words):
        read_masks(outline(tmp_path / "1.json", shape, **changes))


def test_labels_of_several_things_are_refused_and_a_mask_goes_before_its_outline(tmp_path):
    for number, label in enumerate(("Benign", "malignant", "malignant")):
        picture(tmp_path / f"{number}.png", number)
        outline(tmp_path / f"{number}.json", {"points": CORNERS, "label": label})
    mask(tmp_path / "0_mask.png")
    cases = find_cases(tmp_path)
    assert [c.mask_paths[0].name for c in cases] == ["0_mask.png", "1.json", "2.json"]
    outline(tmp_path / "2.json", {"points": CORNERS, "label": "rib"})
    with pytest.raises(ImageError, match="several labels, benign, malignant, rib"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("masks/1.seg.nrrd", b"NRRD0004", ".nrrd"),
        ("masks/1.nii.gz", b"", ".gz"),
        ("masks/1.roi", b"Iout", ".roi"),
        ("_annotations.coco.json", b'{"info": {}, "categories": [', "COCO"),
        ("via_region_data.json", b'{"1.png9": {"filename": "1.png", "regions": [', "VIA"),
        ("annotations.xml", b"<?xml version='1.0'?>\n<annotations>\n", "CVAT"),
        ("annotations/1.xml", b"<annotation>", "Pascal VOC"),
        ("labels/1.txt", b"0 .1 .2 .3 .4 .5 .6\n", "YOLO"),
    ],
)
def test_masks_of_other_tools_are_refused_by_name(name, content, words, tmp_path):
    picture(tmp_path / "images" / "1.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=rf"{words}\)?, which is not read: save them as PNG"):
        find_cases(tmp_path)


def test_accents_of_a_mac_and_tables_of_excel_are_matched(tmp_path):
    for number, form in enumerate(("NFD", "NFC", "NFD"), 1):
        picture(tmp_path / "images" / f"{normalize(form, 'Größe é')}{number}.png", number)
        mask(tmp_path / "masks" / f"{normalize('NFC', 'Größe é')}{number}.png")
    rows = [f"{normalize('NFD', 'Größe é')}{n}.png\tp{n // 3}" for n in (1, 2, 3)]
    (tmp_path / "groups.csv").write_bytes("\r\n".join(["image\tgroup", *rows]).encode("utf-16"))
    cases = find_cases(tmp_path)
    assert [c.group for c in cases] == ["p0", "p0", "p1"]
    (tmp_path / "groups.csv").write_bytes("image;group\nGröße;1\n".encode("cp1252"))
    with pytest.raises(DatasetError, match="byte 15 is not UTF-8 text; save it as UTF-8"):
        find_cases(tmp_path)


def test_a_picture_that_its_tag_turns_under_a_mask_without_tag_is_warned_of(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 3  # upside down: the size does not tell
    for name in ("images/1.jpg", "images/2.jpg", "masks/2.jpg"):
        mask(tmp_path / name)
        Image.open(tmp_path / name).save(tmp_path / name, exif=tag)
    mask(tmp_path / "masks" / "1.png")
    report = check_cases(find_cases(tmp_path))
    assert [f.cases for f in report.of_kind("turned")] == [("1",)]
    assert "images/1.jpg: is 1.png drawn on the picture as it is shown?" in report.to_markdown()
