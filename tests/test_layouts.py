"""Published sets in their own layouts: read, divided, refused when something does not fit."""

from __future__ import annotations

import resource
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import forge_zip, write_png, write_tiny_busi
from openpyxl import Workbook

from unet_lib.cli import main
from unet_lib.dataset import (
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

UCLM = ("ALWI", "BEBA", "CAWA", "DODO", "EVIL", "FUMA", "GOGA")
GREEN, RED = (0, 255, 0), (0, 0, 255)  # as OpenCV orders channels
SIZE = (40, 56)


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
    data, folds = ["ID,Case,Histology,Pathology,BIRADS"], ["ID,Pathology,kFold," + ",".join(
        f"valid_{k}" for k in range(1, 6))]  # fmt: skip
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


COLUMNS = ("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename",
           "Pixel_size", "Classification")  # fmt: skip


def breast_rows() -> list[tuple]:
    rows = []
    for n in range(1, 13):
        label = "normal" if n == 4 else "malignant" if n % 3 == 0 else "benign"
        other = f"case{n:03d}_other1.png&case{n:03d}_other2.png" if n == 2 else None
        tumor = None if n == 4 else f"case{n:03d}_tumor.png"
        rows.append((n, f"case{n:03d}.png", tumor, other, 0.007, label))
    return rows


def breast(folder: Path, excel: bool = True) -> Path:
    """Twelve cases; 4 is normal without a mask, 2 has two more masks; masks are RGBA."""
    inside = folder / "BrEaST-Lesions_USG-images_and_masks"
    for n, name, tumor, other, _, _ in breast_rows():
        write_png(inside / name, picture(n))
        for k, file in enumerate([tumor, *(other or "").split("&")]):
            if file:
                drawn = np.zeros((*SIZE, 4), np.uint8)
                drawn[..., 3] = 255
                drawn[10 : 22 - k, 12 + 9 * k : 20 + 9 * k, :3] = 255
                write_png(inside / file, drawn)
    if excel:
        book = Workbook()
        for row in (COLUMNS, *breast_rows()):
            book.active.append(row)
        book.save(folder / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx")
    else:
        text = [",".join("" if v is None else str(v) for v in row) for row in breast_rows()]
        table(folder / "clinical.csv", ",".join(COLUMNS), *text)
    return folder


def unext(folder: Path) -> Path:
    for number in range(1, 11):
        write_png(folder / "images" / f"x{number}.png", picture(number))
        write_png(folder / "masks" / "0" / f"x{number}.png", mask())
    return folder


def npz_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    arrays = {}
    for part, counts in (("train", (8, 5)), ("val", (2, 1)), ("test", (4, 2))):
        for ending, count in zip(("_C1", "_C2"), counts, strict=True):
            arrays[f"{part}_images{ending}"] = rng.integers(0, 256, (count, 32, 32), np.uint8)
            label = np.zeros((count, 32, 32), np.uint8)
            label[:, 8:20, 8:24] = 1
            arrays[f"{part}_label{ending}"] = label
        for what in ("images", "label"):
            both = [arrays[f"{part}_{what}{ending}"] for ending in ("_C1", "_C2")]
            arrays[f"{part}_{what}"] = np.concatenate(both)
    return arrays


def npz(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **npz_arrays())
    return path


BUILD = {
    "BUS-BRA": lambda place: bus_bra(place / "a"),
    "BUS-UCLM": lambda place: bus_uclm(place / "b"),
    "BrEaST": lambda place: breast(place / "c"),
    "UNeXt": lambda place: unext(place / "d"),
    "MedSegBench": lambda place: npz(place / "busi_32.npz"),
    "BUSI": lambda place: write_tiny_busi(place / "e", 9, 6, 5),
}


@pytest.mark.parametrize("name", BUILD)
def test_every_layout_is_found_checked_and_divided_by_patient(name, tmp_path, capsys, agreed):
    place = BUILD[name](tmp_path)
    cases = find_cases(place)
    agreed("\n".join(map(str, (*cases[:3], cases[-1]))))
    for case in cases:
        image, truth = load_case(case)
        assert image.shape[:2] == truth.shape and truth.any() == (case.label != "normal")
    assert check_cases(cases).ok
    assert main(["check", str(place)]) == 0 and f"{len(cases)} cases" in capsys.readouterr().out
    assert locate_dataset(place) is not None
    parts: dict[str, set] = {}
    source = open_dataset(place, fold=1, progress=False)
    assert "found by the library" in source.groups
    assert ("patients" in source.groups) == any(case.patient for case in cases)
    for part in ("train", "validation", "test"):
        held = getattr(source.split, part)
        assert held
        parts[part] = {case.patient or case.name for case in held}
    assert not parts["test"] & (parts["train"] | parts["validation"])
    assert not parts["validation"] & parts["train"]


def test_bus_bra(tmp_path):
    bus_bra(tmp_path / "data" / "BUSBRA")
    cases = find_cases(tmp_path / "data")  # as the archive unpacks
    assert len(cases) == 20 and {c.label for c in cases} == {"benign", "malignant"}
    first = next(c for c in cases if c.name == "bus_0001-l")
    assert first.mask_paths[0].name == "mask_0001-l.png"
    assert (first.patient, first.group) == ("case 1", "bus_0001-l + 1")


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
    with pytest.raises(ImageError, match=r"ALWI_000.png: .*\[0, 250, 0\].*black, \(0, 255, 0\)"):
        load_case(cases["ALWI_000"])
    write_png(path, mask(GREEN)[:-3])  # as the masks of one real patient are
    report = check_cases(list(cases.values()))
    assert [f.kind for f in report.problems] == ["size_mismatch"]
    write_png(path, mask(255))
    with pytest.raises(ImageError, match="grey values"):
        load_case(cases["ALWI_000"])


@pytest.mark.parametrize("excel", [True, False])
def test_breast(tmp_path, excel):
    cases = {c.name: c for c in find_cases(breast(tmp_path / "x", excel))}
    assert len(cases) == 12 and cases["case004"].label == "normal"
    assert cases["case004"].mask_paths == () and not load_case(cases["case004"])[1].any()
    assert [p.name for p in cases["case002"].mask_paths] == [
        "case002_tumor.png", "case002_other1.png", "case002_other2.png"]  # fmt: skip
    truth = load_case(cases["case002"])[1]
    assert truth[21, 12] and truth[20, 25] and truth[19, 33] and truth.sum() == 8 * (12 + 11 + 10)


def test_unext_folders(tmp_path):
    folder = unext(tmp_path / "x")
    assert {c.label for c in find_cases(folder)} == {"unknown"}
    write_png(folder / "masks" / "1" / "x1.png", mask())
    with pytest.raises(DatasetError, match="masks: holds 0/, 1/ .*Keep one folder"):
        find_cases(folder)


def test_names_tell_the_class(tmp_path):
    """As UNeXt and U-KAN prepare BUSI; then the audited groups hold too, where sizes agree."""
    for name in ("benign (10)", "malignant (3)"):
        write_png(tmp_path / "images" / f"{name}.png", picture(len(name)))
        write_png(tmp_path / "masks" / "0" / f"{name}_mask.png", mask())
    assert [(c.name, c.label) for c in find_cases(tmp_path)] == [
        ("benign (10)", "benign"), ("malignant (3)", "malignant")]  # fmt: skip


def test_busi_as_prepared_for_unext_keeps_its_audited_groups(busi_dir, tmp_path):
    for number in (1, 2, 54, 185):
        for folder, ending in (("images", ""), ("masks/0", "_mask")):
            source = busi_dir / "benign" / f"benign ({number}){ending}.png"
            target = tmp_path / folder / f"benign ({number}).png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    cases = {c.name: c.group for c in find_cases(tmp_path)}
    whole = {c.name: c.group for c in find_cases(busi_dir)}
    assert cases == {name: whole[name] for name in cases}


# --- MedSegBench -----------------------------------------------------------------------------


def test_medsegbench_is_unpacked_once_and_has_its_split(tmp_path):
    file = npz(tmp_path / "busi_32.npz")
    cases = find_cases(file)
    folder = tmp_path / "busi_32"
    assert (len(cases), sum(c.label == "malignant" for c in cases)) == (22, 8)
    image = cv2.imread(str(folder / "malignant/images/malignant_test_0002.png"), -1)
    np.testing.assert_array_equal(image, npz_arrays()["test_images_C2"][1])
    stamp = (folder / "MEDSEGBENCH.json").stat().st_mtime_ns
    assert find_cases(file) == cases == find_cases(folder)
    assert (folder / "MEDSEGBENCH.json").stat().st_mtime_ns == stamp
    split = open_dataset(file, split="own", progress=False).split
    assert [len(part) for part in (split.train, split.validation, split.test)] == [13, 3, 6]
    assert all("_test_" in case.name for case in split.test)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("val_label_C2"), "array val_label_C2 is missing"),
        (lambda a: a.update(test_label_C1=a["test_label_C1"] * 7), "values up to 7"),
        (lambda a: a.update(val_images_C1=a["val_images_C1"][:1]), "both alike"),
        (lambda a: a.update(val_images_C1=a["val_images_C1"] / 255), "expected uint8"),
    ],
)
def test_medsegbench_files_that_do_not_fit(tmp_path, change, words, agreed):
    arrays = npz_arrays()
    change(arrays)
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DatasetError, match=words) as caught:
        find_cases(tmp_path / "x.npz")
    agreed(str(caught.value))
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]  # nothing half-written


def test_medsegbench_arrays_with_an_axis_for_the_channel(tmp_path):
    arrays = {k: v[..., None] for k, v in npz_arrays().items()}
    np.savez(tmp_path / "x.npz", **arrays)
    assert load_case(find_cases(tmp_path / "x.npz")[0])[0].shape == (32, 32, 1)


def test_many_faults_are_counted(tmp_path, agreed):
    folder = bus_uclm(tmp_path / "x")
    for number in range(10):
        write_png(folder / "images" / f"ZZ_{number:03}.png", picture(number))
    with pytest.raises(DatasetError) as many:
        find_cases(folder)
    (folder / "INFO.csv").write_text("")
    with pytest.raises(DatasetError) as empty:
        find_cases(folder)
    agreed(str(many.value), str(empty.value))


def test_medsegbench_file_without_classes_cut_or_in_the_way(tmp_path):
    arrays = {k: v for k, v in npz_arrays().items() if "_C" not in k}
    np.savez(tmp_path / "x.npz", **arrays)
    assert {c.label for c in find_cases(tmp_path / "x.npz")} == {"unknown"}
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:3000])
    with pytest.raises(DatasetError, match=r"cut.npz: is no whole .npz file"):
        find_cases(tmp_path / "cut.npz")
    (tmp_path / "y").mkdir()
    (tmp_path / "x.npz").rename(tmp_path / "y.npz")
    with pytest.raises(DatasetError, match="y: is in the way"):
        find_cases(tmp_path / "y.npz")


def replace_in(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def text_as_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in npz_arrays():
            file.writestr(f"{name}.npy", "text")


LAST = "test_images_C2.npy"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda path: replace_in(path, b"\1" * 16, b"\0" * 16),
            r"array .*C\d cannot be read .*CRC",
        ),
        (lambda path: forge_zip(path, LAST, flags=1), r"test_images_C2 cannot .*encrypted"),
        (lambda path: forge_zip(path, LAST, method=97), r"test_images_C2 cannot .*not supported"),
        (text_as_array, "train_images_C1 is no array"),
        (lambda path: np.save(path.open("wb"), np.ones((3, 3))), "is one array; expected a .npz"),
    ],
)
def test_damaged_or_other_medsegbench_files(tmp_path, change, words):
    path = tmp_path / "x.npz"
    np.savez(path, **npz_arrays())
    change(path)
    with pytest.raises(DatasetError, match=rf"x\.npz: .*{words}"):
        find_cases(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]  # nothing half-written


def test_medsegbench_where_nothing_can_be_written(tmp_path, capsys):
    """The system refuses files of more than 1 kB; `capsys` keeps the progress in memory."""
    path = npz(tmp_path / "x.npz")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        code = main(["check", str(path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and str(path.with_suffix("")) in last
    assert "x.npz cannot be written there (File too large). Copy the file into a folder" in last
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


# --- the split of a data set's authors -------------------------------------------------------


def test_own_split_of_bus_bra(tmp_path):
    folder = bus_bra(tmp_path / "x")
    for k in range(5):
        source = open_dataset(folder, split="own", fold=k, progress=False)
        patients = [sorted({c.patient for c in part}) for part in
                    (source.split.test, source.split.validation)]  # fmt: skip
        following = (k + 1) % 5
        assert patients[0] == sorted([f"case {2 * k + 1}", f"case {2 * k + 2}"])
        assert patients[1] == sorted([f"case {2 * following + 1}", f"case {2 * following + 2}"])
        assert source.leaks.startswith("0 of 4 test images")
    # The two codes exchanged: still the smaller side is validation.
    path = folder / "5-fold-cv.csv"
    rows = path.read_text().splitlines()
    swap = str.maketrans("01", "10")
    changed = [r.rsplit(",", 5)[0] + "," + ",".join(r.rsplit(",", 5)[1:]).translate(swap)
               for r in rows[1:]]  # fmt: skip
    table(path, rows[0], *changed)
    assert open_dataset(folder, split="own", fold=4, progress=False).split == source.split
    table(path, rows[0], *rows[2:])
    with pytest.raises(SplitError, match=r"no row for 1 images, first 'bus_0001-l'"):
        open_dataset(folder, split="own", progress=False)
    table(path, *(row.replace("bus_0001-l,benign,1,,", "bus_0001-l,benign,2,,") for row in rows))
    with pytest.raises(SplitError, match=r"5-fold-cv.csv: bus_0001-l is in fold '2' with valid_1 "
                       "= ''; expected 0 or 1"):  # fmt: skip
        open_dataset(folder, split="own", progress=False)


def test_own_split_that_leaks_says_so_and_can_be_used(tmp_path):
    arrays = npz_arrays()
    arrays["test_images_C2"][0] = arrays["train_images_C1"][3]  # one picture in two classes
    np.savez(tmp_path / "x.npz", **arrays)
    source = open_dataset(tmp_path / "x.npz", split="own", progress=False)
    assert source.leaks == "1 of 6 test images have a group mate in training or validation"
    assert source.provenance.split.startswith("own split")
    assert source.provenance.own_split == source.leaks and source.leaks in source.message
    assert Folds.of_split(source.split).count == 1  # as a run folder keeps it
    kept = open_dataset(tmp_path / "x.npz", progress=False)
    assert not kept.leaks and kept.provenance.own_split is None
    names = {"malignant_test_0001", "benign_train_0004"}
    held = [names & {c.name for c in getattr(kept.split, part)} for part in
            ("train", "validation", "test")]  # fmt: skip
    assert names in held


def test_a_folder_without_own_split_says_so(tmp_path, agreed):
    with pytest.raises(SplitError, match="has no split of its own") as caught:
        open_dataset(bus_uclm(tmp_path / "x"), split="own", progress=False)
    agreed(str(caught.value))


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


def rename(old: str, new: str, table: str):
    def change(folder: Path) -> None:
        (folder / old).rename(folder / new)
        edit(table, Path(old).name, Path(new).name)(folder)

    return change


INSIDE = "BrEaST-Lesions_USG-images_and_masks"


@pytest.mark.parametrize(
    ("build", "change", "words"),
    [
        (bus_bra, remove("bus_data.csv"), r"bus_data.csv: cannot be read"),
        (bus_bra, remove("Images/bus_0002-l.png"), r"rows without their image.*bus_0002-l.png"),
        (bus_bra, remove("Masks/mask_0002-l.png"), r"Masks: holds no mask .*bus_0002-l"),
        (bus_bra, add("Images/bus_0099-l.png"), r"images without a row in bus_data.csv.*0099"),
        (bus_bra, add("Masks/mask_0099-l.png"), r"Masks: holds masks without their image.*0099"),
        (bus_bra, edit("bus_data.csv", "Case", "Patient"), r"column Case is missing; it has ID"),
        (bus_bra, edit("bus_data.csv", "benign", "B"), r"bus_0001-l: class 'B'; expected benign"),
        (bus_bra, edit("bus_data.csv", "-l,1,", "-l,,"), r"bus_0001-l has no Case"),
        (bus_bra, edit("bus_data.csv", "bus_0001-r", "bus_0001-l"), r"more than once: bus_0001-l"),
        (bus_uclm, edit("INFO.csv", ";Label", ";Class"), r"column Label is missing"),
        (bus_uclm, remove("images/ALWI_000.png"), r"INFO.csv: has rows without their image"),
        (bus_uclm, remove("masks/ALWI_000.png"), r"holds no mask of these lesion images: ALWI_000"),
        (bus_uclm, add("images/ZZ_000.png"), r"images without a row in INFO.csv.*ZZ_000"),
        (bus_uclm, add("masks/ZZ_000.png"), r"holds masks without their image: ZZ_000"),
        (lambda f: breast(f, False), edit("clinical.csv", "Mask_other_filename", "Other"),
         r"clinical.csv: column Mask_other_filename is missing"),
        (breast, remove(f"{INSIDE}/case002_other1.png"), r"names masks that are not in .*_other1"),
        (breast, remove(f"{INSIDE}/case003.png"), r"rows without their image.*case003"),
        (breast, add(f"{INSIDE}/case099.png"), r"images without a row in BrEaST.*case099"),
        (lambda f: breast(f, False), edit("clinical.csv", "case003_tumor.png", ""),
         r"images without a row in .*case003_tumor"),
        (bus_bra, lambda f: (f / "Masks").rename(f.parent / "Masks"),
         r"Masks: no such folder; it is a part of the data set. Unpack it whole"),
        (bus_uclm, rename("images/ALWI_000.png", "images/ALWI.png", "INFO.csv"),
         r"INFO.csv: ALWI.png does not tell the patient; expected PATIENT_NUMBER.png"),
        (breast, lambda f: breast(f, False),
         r"x: holds several tables of BrEaST, BrEaST-Lesions-.*xlsx, clinical.csv; leave one"),
        (breast, add("more/case099.png"), r"must lie in one folder; found in: .*masks, .*more\."),
        (breast, lambda f: (f / INSIDE).rename(f.parent / INSIDE), r"one folder; found in: none"),
        (lambda f: bus_bra(bus_uclm(f)), lambda f: None, r"marks of BUS-BRA and of BUS-UCLM"),
        (lambda f: bus_uclm(write_tiny_busi(f)), lambda f: None,
         r"marks of BUS-UCLM and of class folders"),
        (lambda f: (bus_bra(f / "BUSBRA"), bus_uclm(f / "BUS-UCLM")) and f, lambda f: None,
         r"holds several data sets, BUSBRA, BUS-UCLM; name one"),
    ],
)  # fmt: skip
def test_faults_are_named(tmp_path, build, change, words, agreed):
    folder = build(tmp_path / "x")
    change(folder)
    with pytest.raises(DatasetError, match=words) as caught:
        find_cases(folder)
    agreed(str(caught.value))


def test_check_reports_missing_masks_instead_of_stopping(tmp_path, capsys):
    for build, path in (
        (bus_bra, "Masks/mask_0002-l.png"),
        (bus_uclm, "masks/ALWI_000.png"),
        (breast, f"{INSIDE}/case003_tumor.png"),
    ):
        folder = build(tmp_path / build.__name__)
        (folder / path).unlink()
        assert main(["check", str(folder)]) == 1
        assert "lesion images without a mask (1)" in capsys.readouterr().out


def test_a_published_set_is_trained_on_evaluated_and_segmented(tmp_path, capsys):
    """Of all, BUS-UCLM is read most differently from BUSI; BrEaST mixes images and masks."""
    folder, run, report = bus_uclm(tmp_path / "x"), tmp_path / "run", tmp_path / "report"
    network = ["--size", "32", "--filters", "4", "--depth", "2", "--batch-size", "4"]
    assert main(["train", str(folder), "--epochs", "1", "--out", str(run), *network]) == 0
    options = ["--model", str(run), "--part", "all", "--out", str(report)]
    assert main(["evaluate", str(folder), *options]) == 0
    said = capsys.readouterr().out
    assert "patients, near-duplicates found by the library" in said
    assert (report / "cases.csv").read_text().count("\n") >= 1 + 28
    images = breast(tmp_path / "y") / INSIDE
    assert main(["segment", str(images), "--model", str(run), "--out", str(tmp_path / "m")]) == 0
    assert len(list((tmp_path / "m").glob("*_pred.png"))) == 12
