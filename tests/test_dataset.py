"""Folders that are found or refused, groups from lists, checks, splits and folds."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_png, write_tiny_busi
from test_dicom import region, write_dicom

from unet_lib.dataset import (
    COMMITTED_FOLDS,
    Case,
    DatasetError,
    Folds,
    SplitError,
    check_cases,
    find_cases,
    load_case,
    locate_dataset,
    make_folds,
    make_split,
    pixel_sizes,
    read_audit,
    reading,
)
from unet_lib.dataset.groups import group_cases
from unet_lib.phantoms import PHANTOM_MARKER

PIXELS = np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)
MASK = np.zeros((48, 64), np.uint8)
MASK[10:30, 20:40] = 255
TREE = "(.|\n)*Dataset_BUSI_with_GT/benign(.|\n)*images/NAME.png"


def names(cases: list[Case]) -> list[str]:
    return [c.name for c in cases]


def pair(folder: Path, *, image: str = "images", mask: str = "masks", stem: str = "a") -> Path:
    """Write one image and one mask of the same stem into two sub-folders."""
    write_png(folder / image / f"{stem}.png", PIXELS)
    write_png(folder / mask / f"{stem}.png", MASK)
    return folder


# --- class folders, images beside masks ------------------------------------------------------


def test_layout_of_class_folders(tiny_busi):
    cases = find_cases(tiny_busi)
    assert Counter(c.label for c in cases) == {"benign": 4, "malignant": 3, "normal": 2}
    assert [len(c.mask_paths) for c in cases] == [1, 2, 1, 1, 1, 1, 1, 1, 1]
    assert all(c.group == c.name and not c.has_twins for c in cases)
    parts = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) > 0 for p in cases[1].mask_paths]
    np.testing.assert_array_equal(load_case(cases[1])[1], parts[0] | parts[1])
    for name in ("benign (1)_pred.png", "benign (1)_overlay.png", "._benign (9).png"):
        write_png(tiny_busi / "x.png", PIXELS).rename(tiny_busi / "benign" / name)
    (tiny_busi / "benign" / "notes.txt").write_text("mine")
    assert find_cases(tiny_busi) == cases  # results, texts, hidden files are passed over
    (tiny_busi / "normal" / "normal (1)_mask.png").unlink()
    bare = find_cases(tiny_busi)[-2]
    assert bare.mask_paths == () and not load_case(bare)[1].any()


@pytest.mark.parametrize("inside", ["Dataset_BUSI_with_GT", "archive/Dataset_BUSI_with_GT"])
def test_parent_folders_are_entered_and_the_order_is_numerical(tmp_path, inside):
    write_tiny_busi(tmp_path / inside, benign=11, malignant=1, normal=1)
    expected = [f"benign ({k})" for k in range(1, 12)] + ["malignant (1)", "normal (1)"]
    assert names(find_cases(tmp_path)) == expected


def test_equal_names_in_two_classes_stay_apart(tmp_path):
    pair(tmp_path / "benign", stem="1")
    pair(tmp_path / "normal", image="Images", mask="Mask", stem="1")
    write_png(tmp_path / "normal" / "Mask" / "1_mask_1.png", MASK)
    cases = find_cases(tmp_path)
    assert [(c.name, c.label, len(c.mask_paths)) for c in cases] == [
        ("benign (1)", "benign", 1),
        ("normal (1)", "normal", 2),
    ]
    assert not any(c.has_twins for c in cases)


def test_images_beside_masks_have_no_class_but_by_busis_names(tmp_path):
    write_png(pair(tmp_path / "x", stem="b10") / "images" / "b2.jpg", PIXELS)
    write_png(tmp_path / "x" / "masks" / "b2.tif", MASK)
    cases = find_cases(tmp_path / "x")
    assert [(c.name, c.label) for c in cases] == [("b2", "unknown"), ("b10", "unknown")]
    assert cases[0].mask_paths[0].name == "b2.tif"
    image, mask = load_case(cases[1])
    np.testing.assert_allclose(image[..., 0], PIXELS / 255, atol=1e-7)
    np.testing.assert_array_equal(mask, MASK > 0)
    for name in ("benign (10)", "malignant (3)"):  # as UNeXt and U-KAN prepare BUSI
        write_png(tmp_path / "y" / "images" / f"{name}.png", PIXELS)
        write_png(tmp_path / "y" / "masks" / "0" / f"{name}_mask.png", MASK)
    assert [(c.name, c.label) for c in find_cases(tmp_path / "y")] == [
        ("benign (10)", "benign"),
        ("malignant (3)", "malignant"),
    ]
    write_png(tmp_path / "y" / "masks" / "1" / "x1.png", MASK)
    refuse(tmp_path / "y", "image without a mask")  # two folders: which are lesions?


def test_sizes_of_pixels_are_known_where_every_image_agrees(tmp_path):
    values, left, right = np.zeros((1, 20, 30), np.uint8), (0, 0, 14, 19), (15, 0, 29, 19)
    cases = {}
    for name, more in {
        "a.dcm": {"PixelSpacing": [0.3, 0.2]},
        "b.DICOM": {"PixelSpacing": [0.1, 0.2]},
        "whole.dcm": {"SequenceOfUltrasoundRegions": [region(left), region(right)]},
        "halves.dcm": {"SequenceOfUltrasoundRegions": [region(left), region(right, (0.02, 0.02))]},
        "none.dcm": {},
    }.items():
        path = write_dicom(tmp_path / name, values, **more)
        cases[path.stem] = Case(path.stem, "benign", path, (), path.stem)
    png = Case("p", "benign", write_png(tmp_path / "p.png", PIXELS), (), "p")
    known = pixel_sizes([cases["a"], cases["b"], cases["whole"]])
    assert known == {"a": (0.3, 0.2), "b": (0.1, 0.2), "whole": (0.2, 0.1)}
    for other in (png, cases["halves"], cases["none"]):
        assert pixel_sizes([cases["a"], other]) == {}
    assert pixel_sizes([]) == {}


# --- folders that are refused ----------------------------------------------------------------


def refuse(folder: Path, words: str, **options) -> str:
    with pytest.raises(DatasetError, match=words) as caught:
        find_cases(folder, **options)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_wrong_folders_show_the_expected_tree(tmp_path):
    write_png(tmp_path / "picture.png", PIXELS)
    (tmp_path / "empty" / "benign").mkdir(parents=True)
    (tmp_path / "volumes" / "normal").mkdir(parents=True)
    (tmp_path / "volumes" / "normal" / "a.nii").write_bytes(b"x")
    refuse(tmp_path / "absent", f"absent: no such folder{TREE}")
    refuse(tmp_path / "picture.png", f"picture.png: is a file; a folder is needed{TREE}")
    refuse(tmp_path, f"no images found where they should be{TREE}")
    refuse(tmp_path / "empty", "hold no image")
    refuse(tmp_path / "volumes", r"ending with \.nii(.|\n)*Endings that are read: \.bmp")


def test_images_without_mask_masks_without_image_and_two_of_a_name(tiny_busi, tmp_path):
    for number in (1, 3):
        (tiny_busi / "benign" / f"benign ({number})_mask.png").unlink()
    bare = r"image without a mask \(only normal images may go without\)\. Add its mask"
    refuse(tiny_busi, rf"benign \(1\)\.png, .*benign \(3\)\.png: {bare}")
    cases = find_cases(tiny_busi, require_masks=False)
    with pytest.raises(DatasetError, match=r"benign \(1\)\.png: has no mask file"):
        load_case(cases[0])
    assert [f.cases for f in check_cases(cases).of_kind("no_mask")] == [
        ("benign (1)",),
        ("benign (3)",),
    ]
    (tiny_busi / "malignant" / "malignant (2).png").unlink()
    refuse(
        tiny_busi, r"malignant \(2\)_mask\.png: mask without an image of the same name \(images: "
    )
    pair(tmp_path / "x")
    for number in range(8):
        write_png(tmp_path / "x" / "images" / f"c{number}.png", PIXELS)
    refuse(tmp_path / "x", rf"c4\.png and 3 more: {bare}")
    for where in ("images/a.jpg", "masks/a.jpg"):
        folder = pair(tmp_path / where[:3])
        write_png(folder / where, PIXELS)
        refuse(folder, r"a\.jpg and a\.png have the same name before the ending; .* Remove or")


# --- groups from a list ----------------------------------------------------------------------


def test_a_named_list_gives_groups(tiny_busi, tmp_path):
    audit = tmp_path / "audit.csv"
    rows = [f"{c.name},{'twins' if c.label == 'normal' else c.name}" for c in find_cases(tiny_busi)]
    audit.write_text("\n".join(["image,group", *rows]))
    cases = find_cases(tiny_busi, audit=audit)
    assert [c.group for c in cases if c.has_twins] == ["twins", "twins"]
    assert group_cases(cases, tiny_busi, audit) == (cases, "audit.csv")
    assert group_cases(cases, tiny_busi, None) == (cases, "none")
    refused = {
        "\n".join(["image,group", *rows[1:]]): r"does not list 1 of the 9 images .*'benign \(1\)'",
        "\n".join(["image,group", rows[0], rows[0]]): r"benign \(1\) is listed twice",
        "image,class\n": "column group is missing; it has image, class",
        "image,group,group\n": "column group stands there twice; it has image, group, group",
        "image,group\na": "line 2 has 1 cells, expected 2",
    }
    for text, words in refused.items():
        audit.write_text(text)
        with pytest.raises(DatasetError, match=rf"audit\.csv: {words}"):
            find_cases(tiny_busi, audit=audit)
    with pytest.raises(DatasetError, match=r"absent\.csv: cannot be read as a table \(No such"):
        read_audit(tmp_path / "absent.csv")


def test_committed_audit_list_is_consistent():
    rows = read_audit().values()
    assert Counter(r["class"] for r in rows) == {"benign": 437, "malignant": 210, "normal": 133}
    assert all(r["image"] == f"{r['class']} ({r['id']})" for r in rows)
    groups = defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row)
    large = [g for g in groups.values() if len(g) > 1]
    assert len(large) == 152 and sum(map(len, large)) == 345
    assert all(g[0]["group"] == g[0]["image"] for g in groups.values() if len(g) == 1)
    lists = {"curated_busi_450": 450, "published_duplicate": 311, "published_incongruent": 19}
    published = lists | {"axilla": 27, "overlay": 10, "label_conflict": 20, "several_masks": 17}
    assert {name: sum(int(r[name]) for r in rows) for name in published} == published
    assert all(sum(int(r[name]) for name in lists) == 1 for r in rows)
    for group in groups.values():
        conflict = len({r["class"] for r in group}) > 1
        assert all(r["label_conflict"] == str(int(conflict)) for r in group)


def test_committed_folds_agree_with_the_audit_list_and_come_out_again(monkeypatch):
    """Older releases of scikit-learn divide otherwise: they are refused."""
    path = COMMITTED_FOLDS["BUSI"].with_name("busi_5fold.csv")
    folds, audit = Folds.read(path), read_audit()  # reading refuses separated groups
    assert folds.count == 5 and folds.name == "busi_5fold"
    listed = {r.image: (r.label, r.group) for r in folds.rows}
    assert listed == {n: (r["class"], r["group"]) for n, r in audit.items()}
    assert all(r.parts.count("test") == 1 for r in folds.rows)
    for fold in range(5):
        parts = Counter(row.parts[fold] for row in folds.rows)
        assert parts == pytest.approx({"train": 546, "validation": 78, "test": 156}, abs=2)
    cases = [Case(r.image, r.label, Path("x.png"), (), r.group) for r in folds.rows]
    assert make_folds(cases, seed=5) == folds
    monkeypatch.setattr("sklearn.__version__", "1.7.2")
    with pytest.raises(SplitError, match=r"scikit-learn 1\.7\.2 divides otherwise"):
        make_folds(cases)


def test_a_part_of_busi_keeps_its_groups_and_other_pictures_never_take_them(tmp_path, tiny_busi):
    for name, row in read_audit().items():  # empty pictures with names and sizes of BUSI
        if name in ("benign (42)", "malignant (51)", "benign (20)"):
            empty = np.zeros((int(row["height"]), int(row["width"])), np.uint8)
            for ending in ("", "_mask"):
                write_png(tmp_path / "x" / row["class"] / f"{name}{ending}.png", empty)
    cases = {c.name: c for c in find_cases(tmp_path / "x")}
    assert cases["benign (42)"].group == cases["malignant (51)"].group != "benign (42)"
    assert not cases["benign (20)"].has_twins
    assert not any(c.has_twins for c in find_cases(tmp_path / "x", audit=None))
    assert not any(c.has_twins for c in find_cases(tiny_busi))  # same names, other sizes
    (tmp_path / "x" / PHANTOM_MARKER).write_text("{}")
    assert not any(c.has_twins for c in find_cases(tmp_path / "x"))


# --- where the data lies ---------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> Path:
    """Make every place that "auto" looks at empty; return the working folder."""
    monkeypatch.delenv("BUSI_DIR", raising=False)
    for name in ("DATA_FOLDER", "_KAGGLE", "_COLAB"):
        monkeypatch.setattr(reading, name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_places_are_tried_in_order_and_a_named_folder_is_never_replaced(nowhere, monkeypatch):
    assert locate_dataset() is None
    for place in ("_COLAB/archive", "_KAGGLE", "data", "DATA_FOLDER"):
        write_tiny_busi(nowhere / place / "Dataset_BUSI_with_GT")
        found = locate_dataset()
        assert found.resolve() == nowhere / place / "Dataset_BUSI_with_GT"
        assert len(find_cases(found)) == 9
    monkeypatch.setenv("BUSI_DIR", str(nowhere / "data"))
    assert locate_dataset() == nowhere / "data" / "Dataset_BUSI_with_GT"
    assert locate_dataset(nowhere / "_KAGGLE") == nowhere / "_KAGGLE" / "Dataset_BUSI_with_GT"
    assert locate_dataset("phantoms") is None
    with pytest.raises(DatasetError, match=r"dataset='.*absent' names this folder.*not exist"):
        locate_dataset(nowhere / "absent")
    (nowhere / "hollow").mkdir()
    with pytest.raises(DatasetError, match="holds no cases"):
        locate_dataset(nowhere / "hollow")
    monkeypatch.setenv("BUSI_DIR", str(nowhere / "absent"))
    with pytest.raises(DatasetError, match="environment variable BUSI_DIR"):
        locate_dataset()


# --- check_cases -----------------------------------------------------------------------------


def spoil(folder: Path) -> None:
    """Put one of every fault into the tiny folder."""
    benign, malignant, normal = (folder / c for c in ("benign", "malignant", "normal"))
    colour = np.dstack([PIXELS] * 3)
    colour[5:9, 5:9] = [0, 255, 255]
    write_png(benign / "benign (1).png", colour)
    write_png(benign / "benign (1)_mask.png", MASK)
    (benign / "benign (3).png").write_bytes((benign / "benign (3).png").read_bytes()[:200])
    labels = cv2.imread(str(benign / "benign (4)_mask.png"), cv2.IMREAD_GRAYSCALE)
    labels[labels > 0] = 100
    labels[30:39, 30:50] = 200
    write_png(benign / "benign (4)_mask.png", labels)
    write_png(malignant / "malignant (1)_mask.png", MASK[:30])
    write_png(malignant / "malignant (2).png", PIXELS)
    write_png(malignant / "malignant (2)_mask.png", MASK * 0)
    write_png(malignant / "malignant (3).png", PIXELS // 20)
    write_png(malignant / "malignant (3)_mask.png", cv2.GaussianBlur(MASK, (3, 3), 0))
    write_png(normal / "normal (1).png", PIXELS)
    write_png(normal / "normal (1)_mask.png", MASK)


def test_check_finds_every_fault_and_nothing_else(tiny_busi, capsys):
    cases = find_cases(tiny_busi)
    report = check_cases(cases, progress=True)
    assert report.ok and [f.kind for f in report.problems] == ["several_masks"]
    assert "check: 100%" in capsys.readouterr().err
    sizes = np.array([load_case(c)[1].shape for c in cases])
    (low, _), (_, wide) = sizes.min(0), sizes.max(0)
    assert f"\n{len({tuple(s) for s in sizes})} sizes: height {low} to " in report.summary
    assert f" to {wide} (median {int(np.median(sizes[:, 1]))})." in report.summary
    assert "Every file can be used." in report.to_markdown()
    spoil(tiny_busi)
    report = check_cases(find_cases(tiny_busi))
    found = {(f.kind, f.cases) for f in report.problems}
    assert found == {
        ("unreadable", ("benign (3)",)),
        ("mask_values", ("benign (4)",)),
        ("size_mismatch", ("malignant (1)",)),
        ("empty_lesion_mask", ("malignant (2)",)),
        ("lesion_on_normal", ("normal (1)",)),
        ("dark", ("malignant (3)",)),
        ("smoothed_mask", ("malignant (3)",)),
        ("exact_duplicate", ("malignant (2)", "normal (1)")),
        ("colour_overlay", ("benign (1)",)),
        ("several_masks", ("benign (2)",)),
    }
    assert not report.ok
    assert report.of_kind("unreadable")[0].severity == "error"
    assert "in different classes" in report.of_kind("exact_duplicate")[0].message
    assert capsys.readouterr() == ("", "")  # no bar unless asked for
    text = report.to_markdown()
    assert "9 cases (4 benign, 3 malignant, 2 normal), 10 masks, 1 images with several" in text
    assert "| error | masks of another size than their image | 1 |" in text
    assert "warning: images that are nearly black (1)\n\n- " in text
    assert "malignant (1)_mask.png: 30 x 64, its image malignant (1).png is " in text
    assert text.endswith("\n\nMend the errors before using the data.\n")
    twins = [replace(c, group="g") for c in find_cases(tiny_busi)]
    for cases, words in ((find_cases(tiny_busi), True), (twins, False)):
        message = check_cases(cases).of_kind("exact_duplicate")[0].message
        assert ("a split may separate them" in message) == words
    for path in (tiny_busi / "benign").glob("*.png"):
        path.write_bytes(b"")
    report = check_cases(find_cases(tiny_busi))
    assert len(report.of_kind("unreadable")) == 9  # four images, five masks
    assert "- and 6 more" in report.to_markdown(most=3)


# --- splits and folds ------------------------------------------------------------------------


def imagine(benign: int, malignant: int, normal: int, twins: int = 0) -> list[Case]:
    """Cases without files; the first `twins` of each class come in pairs of one group."""
    cases = []
    for label, count in (("benign", benign), ("malignant", malignant), ("normal", normal)):
        for k in range(count):
            name, group = f"{label} ({k})", f"{label} pair {k // 2}"
            cases.append(Case(name, label, Path("x.png"), (), group if k < twins else name))
    return cases


def parts_of(folds: Folds, fold: int) -> dict[str, list[str]]:
    chosen = {"train": [], "validation": [], "test": []}
    for row in folds.rows:
        chosen[row.parts[fold]].append(row.image)
    return chosen


@pytest.mark.parametrize("shape", [(60, 40, 20, 20), (9, 6, 5, 4), (12, 0, 0, 0), (7, 3, 2, 0)])
@pytest.mark.parametrize("count", [2, 5])
def test_folds_partition_the_cases_by_group(shape, count):
    cases = imagine(*shape)
    folds = make_folds(cases, count=count)
    assert folds.count == count
    tested = [name for k in range(count) for name in parts_of(folds, k)["test"]]
    assert sorted(tested) == sorted(names(cases))
    for k in range(count):
        assert all(parts_of(folds, k).values()), "a part is empty"
        where = {}
        for case, row in zip(cases, folds.rows, strict=True):
            assert where.setdefault(case.group, row.parts[k]) == row.parts[k]


def test_folds_and_splits_are_stratified():
    cases = imagine(100, 60, 40, twins=20)
    folds = make_folds(cases, count=5)
    whole = Counter((c.label, c.has_twins) for c in cases)
    for k in range(5):
        chosen = parts_of(folds, k)
        for part, share in (("test", 0.2), ("validation", 0.1)):
            table = Counter((c.label, c.has_twins) for c in cases if c.name in chosen[part])
            assert len(chosen[part]) == pytest.approx(200 * share, abs=2)
            for stratum, total in whole.items():
                assert table[stratum] == pytest.approx(total * share, abs=2.5), (k, part, stratum)
    for test, validation in ((0.2, 0.1), (0.1, 0.1), (0.5, 0.25)):
        split = make_split(cases, test, validation).split(cases, 0)
        assert len(split.test) == pytest.approx(200 * test, abs=4)
        assert len(split.validation) == pytest.approx(200 * validation, abs=4)
        assert len(split.train) + len(split.validation) + len(split.test) == 200


def test_few_groups_fill_every_part():
    """scikit-learn leaves a part empty here, in every draw."""
    groups = {"unknown": (3, 3, 1), "benign": (1,), "malignant": (7, 1)}
    cases = [
        Case(f"{label} {group} ({k})", label, Path("x.png"), (), f"{label} {group}")
        for label, sizes in groups.items()
        for group, size in enumerate(sizes)
        for k in range(size)
    ]
    folds = make_folds(cases, 6)
    tested = [{c.group for c in folds.split(cases, fold).test} for fold in range(6)]
    assert sorted(map(list, tested)) == sorted([c] for c in {c.group for c in cases})


def test_what_cannot_be_divided_is_refused():
    cases = imagine(20, 10, 0)
    for make, wrong, words in (
        (make_folds, {"count": 1}, "count must be at least 2, not 1"),
        (make_folds, {"count": 31}, "30 images in 30 groups are too few to divide into 31 parts"),
        (make_folds, {"validation": 0.0}, "validation must be a share"),
        (make_folds, {"validation": 0.9}, "validation must be a share between 0 and 0.8, not 0.9"),
        (make_folds, {"seed": -1}, "seed must be a whole number from 0 to 999999, not -1"),
        (make_split, {"test": 1.0}, "test must be a share"),
        (make_split, {"cases": cases[:2]}, r"\.: 1 images in 1 groups are too few to divide"),
        (make_folds, {"cases": []}, "0 images in 0 groups"),
    ):
        with pytest.raises(SplitError, match=words):
            make(**{"cases": cases} | wrong)


def test_folds_are_saved_and_read(tmp_path):
    folds = make_folds(imagine(12, 8, 6, twins=4), count=3)
    path = folds.save(tmp_path / "new" / "three.csv")
    lines = path.read_text().splitlines()
    assert lines[0] == "image,class,group,fold0,fold1,fold2" and len(lines) == 27
    assert lines[1].startswith("benign (0),benign,benign pair 0,")
    again = Folds.read(path)
    assert again == folds and again.name == "three"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # saved again by a spreadsheet
    assert Folds.read(path) == folds
    path.write_text(path.read_text().replace(",", ";"))
    assert Folds.read(path) == folds


HEADER = "image,class,group,fold0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "column image, class, group, fold0 is missing; it has none"),
        ("image,class,fold0\na,benign,test", "column group is missing; it has image, class, fold0"),
        (f"{HEADER},fold2\na,benign,a,test,train", "column 'fold1' is missing"),
        (HEADER, "names no image"),
        (f"{HEADER}\na,benign,a", "line 2 has 3 cells, expected 4"),
        (f"{HEADER}\na,benign,a,tset", "'a' has the part 'tset'; expected train, validation"),
        (f"{HEADER}\na,benign,a,test\na,benign,a,test", "'a' is listed more than once"),
        (
            f"{HEADER}\na,benign,g,test\nb,benign,g,train",
            r"fold 0 has 'a' in test and 'b' in train, which are near-duplicates \(group g\)",
        ),
        (None, "cannot be read"),
    ],
)
def test_malformed_split_files_are_refused(tmp_path, text, words):
    path = tmp_path / "split.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SplitError, match=rf"split\.csv: .*{words}"):
        Folds.read(path)


def test_split_and_folder_that_differ_say_in_what():
    cases = imagine(10, 6, 4)
    folds = make_folds(cases, count=2)
    new, other = replace(cases[0], name="new"), replace(cases[0], label="malignant")
    three = r"\(benign \(0\), benign \(1\), benign \(2\)"
    for taken, fold, words in (
        (cases[2:], 0, "The split folds does not match the folder: 2 images of the split are not"),
        (cases[3:], 0, rf"3 images .*{three}\)\. Use the split made for this folder, or make"),
        (cases[4:], 0, rf"4 images .*{three}, \.\.\.\)"),
        ([*cases, new], 0, r"1 images of the folder are not in the split \(new\)"),
        ([other, *cases[1:]], 0, r"1 images have another class .*benign \(0\)"),
        (cases, 2, "no fold 2; it has folds 0 to 1"),
    ):
        with pytest.raises(SplitError, match=words):
            folds.split(taken, fold)


def test_groups_come_from_the_split_and_twins_of_the_folder_stay_together():
    cases = imagine(10, 6, 4, twins=4)
    folds = make_folds(cases, count=2)
    bare = [replace(c, group=c.name) for c in cases]
    assert {c.group for c in folds.split(bare, 0).train} <= {c.group for c in cases}
    apart = parts_of(folds, 0)
    twins = {apart["train"][0], apart["test"][0]}
    wrong = [replace(c, group="pair") if c.name in twins else c for c in bare]
    with pytest.raises(SplitError, match=r"near-duplicates \(group pair\)"):
        folds.split(wrong, 0)
