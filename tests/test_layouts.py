"""Published sets in their own layouts: read, divided, refused when something does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_png, write_tiny_busi
from openpyxl import Workbook

from unet_lib.cli import main
from unet_lib.dataset import (
    LAYOUTS,
    DatasetError,
    Folds,
    SplitError,
    check_cases,
    find_cases,
    load_case,
    locate_dataset,
)
from unet_lib.images import ImageError
from unet_lib.source import open_dataset

ROOT = Path(__file__).parents[1]
UCLM = ("ALWI", "BEBA", "CAWA", "DODO", "EVIL", "FUMA", "GOGA")
GREEN, RED = (0, 255, 0), (0, 0, 255)  # as OpenCV orders channels
SIZE = (40, 56)
INSIDE = "BrEaST-Lesions_USG-images_and_masks"


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)


def mask(value=255, empty: bool = False) -> np.ndarray:
    drawn = np.zeros((*SIZE, 3) if isinstance(value, tuple) else SIZE, np.uint8)
    if not empty:
        drawn[10:22, 12:30] = value
    return drawn


def table(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def bus_bra(folder: Path) -> Path:
    """Ten patients, two images each; fold k tests patients 2k-1 and 2k."""
    data, folds = (
        ["ID,Case,Histology,Pathology,BIRADS"],
        ["ID,Pathology,kFold," + ",".join(f"valid_{k}" for k in range(1, 6))],
    )
    for patient in range(1, 11):
        for side in "lr":
            name, label = f"bus_{patient:04d}-{side}", "malignant" if patient % 3 == 0 else "benign"
            write_png(folder / "Images" / f"{name}.png", picture(2 * patient + (side == "r")))
            write_png(folder / "Masks" / f"{name.replace('bus', 'mask')}.png", mask())
            data.append(f"{name},{patient},x,{label},3")
            own = (patient + 1) // 2
            valid = ["" if k == own else str(int(own == k % 5 + 1)) for k in range(1, 6)]
            folds.append(f"{name},{label},{own},{','.join(valid)}")
    table(folder / "bus_data.csv", *data)
    table(folder / "5-fold-cv.csv", *folds)
    return folder


def bus_uclm(folder: Path) -> Path:
    """Seven patients, four images each: two benign, one malignant, one normal."""
    rows = ["\ufeffImage;Resolution;Label;Doppler;Marks;Combined"]
    for p, patient in enumerate(UCLM):
        for number, label in enumerate(("Benign", "Benign", "Malignant", "Normal")):
            name = f"{patient}_{number:03d}.png"
            colour = RED if label == "Malignant" else GREEN
            write_png(folder / "images" / name, picture(10 * p + number))
            write_png(folder / "masks" / name, mask(colour, empty=label == "Normal"))
            rows.append(f"{name};40x56;{label};0;0;0")
    table(folder / "INFO.csv", *rows)
    return folder


COLUMNS = "CaseID,Image_filename,Mask_tumor_filename,Mask_other_filename,Pixel_size,Classification"


def breast(folder: Path, excel: bool = True) -> Path:
    """Twelve cases; 4 is normal without a mask, 2 has two more masks; masks are RGBA."""
    rows = [COLUMNS.split(",")]
    for n in range(1, 13):
        label = "normal" if n == 4 else "malignant" if n % 3 == 0 else "benign"
        masks = [f"case{n:03d}_tumor.png"] if n != 4 else []
        masks += ["case002_other1.png", "case002_other2.png"] if n == 2 else []
        write_png(folder / INSIDE / f"case{n:03d}.png", picture(n))
        for k, file in enumerate(masks):
            drawn = np.zeros((*SIZE, 4), np.uint8)
            drawn[..., 3] = 255
            drawn[10 : 22 - k, 12 + 9 * k : 20 + 9 * k, :3] = 255
            write_png(folder / INSIDE / file, drawn)
        others = "&".join(masks[1:])
        rows.append([n, f"case{n:03d}.png", "".join(masks[:1]), others, 0.007, label])
    if excel:
        book = Workbook()
        for row in rows:
            book.active.append([None if value == "" else value for value in row])
        book.save(folder / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx")
    else:
        table(folder / "clinical.csv", *(",".join(map(str, row)) for row in rows))
    return folder


def unext(folder: Path) -> Path:
    for number in range(1, 11):
        write_png(folder / "images" / f"x{number}.png", picture(number))
        write_png(folder / "masks" / "0" / f"x{number}.png", mask())
    return folder


BUILD = {
    "BUS-BRA": lambda place: bus_bra(place / "a"),
    "BUS-UCLM": lambda place: bus_uclm(place / "b"),
    "BrEaST": lambda place: breast(place / "c"),
    "UNeXt": lambda place: unext(place / "d"),
    "BUSI": lambda place: write_tiny_busi(place / "e", 9, 6, 5),
}


@pytest.mark.parametrize("name", BUILD)
def test_every_layout_is_found_checked_and_divided_by_patient(name, tmp_path, capsys):
    place = BUILD[name](tmp_path)
    cases = find_cases(place)
    for case in cases:
        image, truth = load_case(case)
        assert image.shape[:2] == truth.shape and truth.any() == (case.label != "normal")
    assert main(["check", str(place)]) == 0 and f"{len(cases)} cases" in capsys.readouterr().out
    assert locate_dataset(place) is not None
    parts: dict[str, set] = {}
    source = open_dataset(place, fold=1, progress=False)
    assert "found by the library" in source.provenance.groups
    assert ("patients" in source.provenance.groups) == any(case.patient for case in cases)
    for part in ("train", "validation", "test"):
        held = getattr(source.split, part)
        assert held
        parts[part] = {case.patient or case.name for case in held}
    assert not parts["test"] & (parts["train"] | parts["validation"])
    assert not parts["validation"] & parts["train"]


def test_bus_uclm(tmp_path):
    folder = bus_uclm(tmp_path / "x")
    cases = {c.name: c for c in find_cases(folder)}
    assert cases["BEBA_002"].label == "malignant" and cases["BEBA_003"].label == "normal"
    assert {c.patient for c in cases.values()} == set(UCLM)
    both = mask(GREEN)
    both[30:35, 40:50] = RED
    path = write_png(folder / "masks" / "ALWI_000.png", both)
    truth = load_case(cases["ALWI_000"])[1]
    assert truth.sum() == 12 * 18 + 5 * 10  # both colours are lesions
    both[0, 0] = (0, 250, 0)  # resized or saved as JPEG
    write_png(path, both)
    with pytest.raises(ImageError, match=r"ALWI_000.png: .*0:#00ff00,#ff0000 .*\[0, 250, 0\]"):
        load_case(cases["ALWI_000"])
    write_png(path, mask(GREEN)[:-3])  # as the masks of one real patient are
    report = check_cases(list(cases.values()))
    assert [f.kind for f in report.problems] == ["size_mismatch"]
    write_png(path, mask(255))
    with pytest.raises(ImageError, match="does not name, 255"):
        load_case(cases["ALWI_000"])


@pytest.mark.parametrize("excel", [True, False])
def test_breast(tmp_path, excel):
    cases = {c.name: c for c in find_cases(breast(tmp_path / "x", excel))}
    assert len(cases) == 12 and cases["case004"].label == "normal"
    assert cases["case004"].mask_paths == () and not load_case(cases["case004"])[1].any()
    assert [p.name for p in cases["case002"].mask_paths] == [
        "case002_tumor.png",
        "case002_other1.png",
        "case002_other2.png",
    ]
    truth = load_case(cases["case002"])[1]
    assert truth[21, 12] and truth[20, 25] and truth[19, 33] and truth.sum() == 8 * (12 + 11 + 10)


def test_a_layout_from_outside_is_used_like_ours(tmp_path):
    """docs/extending.md"""
    text = (ROOT / "docs" / "extending.md").read_text("utf-8").partition("## A data layout")[2]
    code = text.partition("```python\n")[2].partition("```")[0]
    assert code.count("\n") <= 20
    before = list(LAYOUTS)
    try:
        exec(code, {})
        for number in range(1, 13):
            write_png(tmp_path / "scans" / f"{number}.png", picture(number))
            if number % 3:
                write_png(tmp_path / "scans" / "lesions" / f"{number}.png", mask())
        rows = (f"{n},p{(n + 1) // 2},{'benign' if n % 3 else 'normal'}" for n in range(1, 13))
        table(tmp_path / "scans" / "patients.csv", "picture,patient,class", *rows)
        source = open_dataset(tmp_path / "scans", progress=False)
        assert len(source.cases) == 12 and source.cases[0].group == "1 + 1"
        assert check_cases(source.cases).ok
        (tmp_path / "scans" / "lesions" / "4.png").unlink()
        with pytest.raises(DatasetError, match=r"4\.png: this mask is not there"):
            find_cases(tmp_path / "scans")
        with pytest.raises(DatasetError, match=r"Expected one of:(.|\n)*patients\.csv"):
            find_cases(tmp_path)
    finally:
        LAYOUTS[:] = before


# --- the split of a data set's authors -------------------------------------------------------


def test_own_split_of_bus_bra(tmp_path):
    folder = bus_bra(tmp_path / "x")
    for k in range(5):
        source = open_dataset(folder, split="own", fold=k, progress=False)
        for part, fold in ((source.split.test, k), (source.split.validation, (k + 1) % 5)):
            assert {c.patient for c in part} == {f"case {2 * fold + 1}", f"case {2 * fold + 2}"}
        assert source.provenance.own_split.startswith("0 of 4 test images")
    # The two codes exchanged: still the smaller side is validation.
    path = folder / "5-fold-cv.csv"
    rows = path.read_text().splitlines()
    swap = str.maketrans("01", "10")
    split = (row.rsplit(",", 5) for row in rows[1:])
    table(path, rows[0], *(f"{own},{','.join(codes).translate(swap)}" for own, *codes in split))
    assert open_dataset(folder, split="own", fold=4, progress=False).split == source.split
    table(path, rows[0], *rows[2:])
    with pytest.raises(SplitError, match=r"no row for 1 of 20 images \(bus_0001-l\)"):
        open_dataset(folder, split="own", progress=False)
    table(path, *(row.replace("bus_0001-l,benign,1,,", "bus_0001-l,benign,2,,") for row in rows))
    words = r"5-fold-cv.csv: bus_0001-l is in fold '2' with valid_1 = ''; expected 0 or 1"
    with pytest.raises(SplitError, match=words):
        open_dataset(folder, split="own", progress=False)
    with pytest.raises(SplitError, match=r"has no split of its own \(own_split.csv or 5-fold-cv"):
        open_dataset(bus_uclm(tmp_path / "y"), split="own", progress=False)


def test_own_split_that_leaks_says_so_and_can_be_used(tmp_path):
    folder = unext(tmp_path / "x")
    (folder / "images" / "x9.png").write_bytes((folder / "images" / "x2.png").read_bytes())
    part = {n: "test" if n > 7 else "validation" if n == 7 else "train" for n in range(1, 11)}
    rows = (f"x{n},unknown,x{n},{part[n]},{part[11 - n]}" for n in part)
    table(folder / "own_split.csv", "image,class,group,fold0,fold1", *rows)
    source = open_dataset(folder, split="own", progress=False)
    said = source.provenance.own_split
    assert said == "1 of 3 test images have a group mate in training or validation"
    assert said in source.message
    assert source.provenance.split == "own split, fold 0" and len(source.split.test) == 3
    assert Folds.of_split(source.split).count == 1  # as a run folder keeps it
    kept = open_dataset(folder, progress=False)
    assert kept.provenance.own_split is None
    parts = (kept.split.train, kept.split.validation, kept.split.test)
    assert {"x2", "x9"} in [{"x2", "x9"} & {c.name for c in part} for part in parts]


# --- folders that are refused ----------------------------------------------------------------


def remove(path: str):
    return lambda folder: (folder / path).unlink()


def edit(path: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def add(path: str):
    return lambda folder: write_png(folder / path, picture(1))


def move_out(name: str):
    return lambda folder: (folder / name).rename(folder.parent / name)


def nameless(folder: Path) -> None:
    (folder / "images" / "ALWI_000.png").rename(folder / "images" / "ALWI.png")
    edit("INFO.csv", "ALWI_000", "ALWI")(folder)


def breast_csv(folder: Path) -> Path:
    return breast(folder, excel=False)


NOT_THERE = "this mask is not there. Add it, or take its image out"


@pytest.mark.parametrize(
    ("build", "change", "words"),
    [
        (bus_bra, remove("bus_data.csv"), r"mask_0001-l.png, .* and 15 more: mask without an"),
        (bus_bra, edit("bus_data.csv", "ID", "x" * 1001), "cell of more than 1000 characters"),
        (bus_bra, remove("Images/bus_0002-l.png"), r"bus_0002-l: .*data.csv has this row without"),
        (bus_bra, remove("Masks/mask_0002-l.png"), f"mask_0002-l.png: {NOT_THERE}"),
        (bus_bra, add("Images/bus_0099-l.png"), "0099-l.png: image without a row in bus_data.csv"),
        (bus_bra, add("Masks/mask_0099-l.png"), "mask_0099-l.png: mask without an image"),
        (bus_bra, edit("bus_data.csv", "Case", "Patient"), "column Case is missing; it has ID"),
        (bus_bra, edit("bus_data.csv", "benign", "B"), "bus_0001-l: class 'B'.*expected a class"),
        (bus_bra, edit("bus_data.csv", "-l,1,", "-l,,"), "bus_0001-l: .*patient ''; expected"),
        (bus_bra, edit("bus_data.csv", "bus_0001-r", "bus_0001-l"), "listed more than once in"),
        (bus_bra, move_out("Masks"), "Masks: no such folder; it is a part of the data set. Unpack"),
        (bus_uclm, nameless, "INFO.csv: ALWI: .*patient ''; expected"),
        (breast, remove(f"{INSIDE}/case002_other1.png"), f"_other1.png: {NOT_THERE}"),
        (breast_csv, edit("clinical.csv", "case003_tumor.png", ""), "case003_tumor.png: image wit"),
        (breast, breast_csv, "must hold one table of BrEaST; it holds .*xlsx, .*clinical.csv"),
        (breast, add("more/case099.png"), r"one folder with images; it holds .*masks, .*more\. L"),
        (breast, move_out(INSIDE), "folder with images; it holds none"),
        (bus_bra, bus_uclm, "marks of BUS-BRA and of BUS-UCLM"),
    ],
)
def test_faults_are_named(tmp_path, build, change, words):
    folder = build(tmp_path / "x")
    change(folder)
    with pytest.raises(DatasetError, match=words):
        find_cases(folder)


def test_a_table_may_name_paths_of_windows(tmp_path):
    folder = bus_bra(tmp_path / "x")
    before = [(case.name, case.mask_paths) for case in find_cases(folder)]
    table = folder / "bus_data.csv"
    table.write_text(
        table.read_text().replace("bus_", r"C:\set\Images\bus_").replace("-l,", "-l.png,")
    )
    assert [(case.name, case.mask_paths) for case in find_cases(folder)] == before


def test_several_sets_and_an_npz_are_no_folder(tmp_path):
    bus_bra(tmp_path / "BUSBRA"), bus_uclm(tmp_path / "BUS-UCLM")
    with pytest.raises(DatasetError, match="several data sets, BUSBRA, BUS-UCLM; name one"):
        find_cases(tmp_path)
    file = table(tmp_path / "busi_256.npz", "x")
    words = r"busi_256.npz: is a file of arrays; .* python -m lab.medsegbench .*busi_256.npz"
    for take in (find_cases, open_dataset):
        with pytest.raises(DatasetError, match=words):
            take(file)


def test_check_reports_missing_masks_instead_of_stopping(tmp_path, capsys):
    inside = breast(tmp_path / "breast") / INSIDE
    (inside / "case003_tumor.png").unlink()
    assert main(["check", str(tmp_path / "breast")]) == 1
    assert "lesion images without a mask (1)" in capsys.readouterr().out
    (inside / "case002_other1.png").unlink()  # one of its three
    assert main(["check", str(tmp_path / "breast")]) == 1
    assert "case002_other1.png: " in capsys.readouterr().out
