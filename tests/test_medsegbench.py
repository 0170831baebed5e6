"""The tool that unpacks MedSegBench's arrays to a folder and a split."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import forge_zip

from lab.medsegbench import unpack_npz
from unet_lib.dataset import DatasetError, find_cases, load_case
from unet_lib.files import WriteError
from unet_lib.source import open_dataset


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


def unpack(path: Path) -> list:
    return find_cases(unpack_npz(path, path.with_suffix(""), progress=False))


def test_a_file_becomes_a_folder_with_its_split(tmp_path):
    np.savez(tmp_path / "busi_32.npz", **npz_arrays())
    command = [sys.executable, "-m", "lab.medsegbench", str(tmp_path / "busi_32.npz")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    cases = find_cases(tmp_path / "busi_32")
    assert (len(cases), sum(c.label == "malignant" for c in cases)) == (22, 8)
    image = cv2.imread(str(tmp_path / "busi_32/malignant/images/malignant_test_0002.png"), -1)
    np.testing.assert_array_equal(image, npz_arrays()["test_images_C2"][1])
    assert load_case(cases[0])[1].sum() == 12 * 16
    split = open_dataset(tmp_path / "busi_32", split="own", progress=False).split
    assert [len(part) for part in (split.train, split.validation, split.test)] == [13, 3, 6]
    assert all("_test_" in case.name for case in split.test)
    with pytest.raises(DatasetError, match="busi_32: is there already"):
        unpack(tmp_path / "busi_32.npz")


def test_arrays_without_classes_or_with_an_axis_for_the_channel(tmp_path):
    arrays = {k: v[..., None] for k, v in npz_arrays().items() if "_C" not in k}
    np.savez(tmp_path / "x.npz", **arrays)
    cases = unpack(tmp_path / "x.npz")
    assert {c.label for c in cases} == {"unknown"} and load_case(cases[0])[0].shape == (32, 32, 1)


def replace_in(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def text_as_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in npz_arrays():
            file.writestr(f"{name}.npy", "text")


def saved(**changes):
    def change(path: Path) -> None:
        arrays = npz_arrays()
        arrays |= {key: make(arrays[key]) for key, make in changes.items() if make}
        np.savez(path, **{k: v for k, v in arrays.items() if changes.get(k, 1) is not None})

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (saved(val_label_C2=None), "array val_label_C2 is missing; it has .* Expected a file of"),
        (saved(test_label_C1=lambda a: a * 7), "values up to 7; expected 0 and 1"),
        (saved(val_images_C1=lambda a: a[:1]), "expected uint8 .N, H, W., both alike"),
        (saved(val_images_C1=lambda a: a / 255), "is float64 .*; expected uint8"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "is no whole .npz file"),
        (lambda path: replace_in(path, b"\1" * 16, b"\0" * 16), "array .* cannot be read .*CRC"),
        (lambda path: forge_zip(path, "test_images_C2.npy", flags=1), "C2 cannot .*encrypted"),
        (lambda path: forge_zip(path, "test_images_C2.npy", method=97), "C2 cannot .*not support"),
        (text_as_array, "train_images_C1 is no array"),
        (lambda path: np.save(path.open("wb"), np.ones((3, 3))), "is one array; expected a .npz"),
    ],
)
def test_other_or_damaged_files_leave_nothing(tmp_path, change, words):
    path = tmp_path / "x.npz"
    np.savez(path, **npz_arrays())
    change(path)
    with pytest.raises(DatasetError, match=rf"x\.npz: .*{words}"):
        unpack(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_where_nothing_can_be_written(tmp_path):
    np.savez(tmp_path / "x.npz", **npz_arrays())
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="x: cannot be written"):
        unpack_npz(tmp_path / "x.npz", tmp_path / "file" / "x", progress=False)
