"""Folder trees with something left out or misplaced: each is refused or told, by name."""

import numpy as np
import pytest
from conftest import write_png
from PIL import Image

from unet_lib.cli import main
from unet_lib.dataset import DatasetError, find_cases
from unet_lib.dataset.reading import of_folder
from unet_lib.source import open_dataset


def pair(rng, image, mask):
    """Write a picture and its mask."""
    values = rng.integers(0, 255, (40, 50), dtype=np.uint8)
    write_png(image, values)
    truth = np.zeros((40, 50), np.uint8)
    truth[10:30, 12:36] = 255
    write_png(mask, truth)


def class_folders(root, rng, count):
    for label in ("benign", "malignant"):
        for number in range(1, count + 1):
            name = f"{label} ({number})"
            pair(rng, root / label / f"{name}.png", root / label / f"{name}_mask.png")


def images_and_masks(root, rng, count):
    for number in range(1, 2 * count + 1):
        pair(rng, root / "images" / f"{number}.png", root / "masks" / f"{number}.png")


def classes_of_both(root, rng, count):
    for label in ("benign", "malignant"):
        images_and_masks(root / label, rng, (count + 1) // 2)


LAYOUTS = [class_folders, images_and_masks, classes_of_both]


def some(root, rng, number=1, masks=False):
    """Choose pictures, or masks, of a tree."""
    paths = sorted(root.rglob("*.png"))
    paths = [p for p in paths if (p.parent.name == "masks" or "_mask" in p.stem) == masks]
    return [paths[i] for i in rng.choice(len(paths), number, replace=False)]


def renamed(ending, masks=False):
    def spoil(root, rng):
        path = some(root, rng, masks=masks)[0]
        path.rename(path.with_suffix(ending))
        return [ending]

    return spoil


def moved(to):
    def spoil(root, rng):
        path = some(root, rng)[0]
        masks = [root / path.relative_to(root).parent / f"{path.stem}_mask.png"]
        masks += [path.parent.parent / "masks" / path.name]
        for file in [path, *(mask for mask in masks if mask.exists())]:
            place = file.parent / to
            place.mkdir(exist_ok=True)
            file.rename(place / file.name)
        return [to]

    return spoil


def a_folder_deeper(root, rng):
    folder = [path for path in sorted(root.iterdir()) if path.is_dir()][-1]
    folder.rename(root / "moved")
    folder.mkdir()
    (root / "moved").rename(folder / folder.name)
    return [folder.name]


def within_itself(root, rng):
    if (root / "images").exists():
        images_and_masks(root / root.name, rng, 3)
    else:
        class_folders(root / root.name, rng, 3)
    return [root.name]


def misspelt(root, rng):
    folder = [path for path in sorted(root.iterdir()) if path.is_dir()][0]
    folder.rename(root / f"{folder.name}_pictures")
    return [f"{folder.name}_pictures"]


def loose(root, rng):
    write_png(root / "lost and found.png", rng.integers(0, 255, (40, 50), dtype=np.uint8))
    return ["lost and found.png"]


def link(root, rng):
    path = some(root, rng)[0]
    path.with_name("elsewhere.png").symlink_to(root / "gone.png")
    return ["elsewhere.png"]


def deleted(masks):
    def spoil(root, rng):
        path = some(root, rng, masks=masks)[0]
        path.unlink()
        return [path.stem.removesuffix("_mask")]

    return spoil


def emptied(root, rng):
    (root / "normal").mkdir()
    return ["normal"]


def twice(root, rng):
    path = some(root, rng)[0]
    Image.open(path).save(path.with_suffix(".webp"))
    return [path.name, path.with_suffix(".webp").name]


SPOILT = {
    "heic": renamed(".heic"),
    "svg masks": renamed(".svg", masks=True),
    "one deeper": moved("more"),
    "folder deeper": a_folder_deeper,
    "within itself": within_itself,
    "misspelt": misspelt,
    "loose": loose,
    "link": link,
    "no mask": deleted(masks=True),
    "no image": deleted(masks=False),
    "empty class": emptied,
    "twice": twice,
}


def check_trees(number, folder, seed):
    rng = np.random.default_rng(seed)
    for tree in range(number):
        kind, layout = list(SPOILT)[tree % len(SPOILT)], LAYOUTS[(tree // 2 + tree) % 3]
        root = folder / f"tree {tree}"
        layout(root, rng, int(rng.integers(2, 5)))
        words = SPOILT[kind](root, rng)
        try:
            said = of_folder(root, find_cases(root)).text
        except DatasetError as error:
            said = str(error).split("Expected one of")[0]
        said = said.replace(str(root), "")
        assert all(word in said for word in words), (kind, layout.__name__, words, said)


@pytest.mark.parametrize("number", [12, pytest.param(48, marks=pytest.mark.slow)])
def test_what_is_left_out_is_told_by_name(tmp_path, number):
    check_trees(number, tmp_path, seed=number)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole_trees_leave_nothing_out(tmp_path, layout):
    layout(tmp_path, np.random.default_rng(0), 2)
    assert of_folder(tmp_path, find_cases(tmp_path)).text == ""


def test_half_a_data_set_left_out_is_an_error(tmp_path, capsys):
    rng = np.random.default_rng(0)
    class_folders(tmp_path, rng, 2)
    a_folder_deeper(tmp_path, rng)
    assert main(["check", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "4 files would be taken and 4 left" in said and "pictures in malignant/malignant" in said


def test_check_ends_with_what_it_took_and_left(tmp_path, capsys):
    rng = np.random.default_rng(0)
    class_folders(tmp_path, rng, 2)
    (tmp_path / "benign" / "scan.heic").write_bytes(b"x")
    assert main(["check", str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"Taken of {tmp_path}: 8 .png. Left out: 1 files ending with .heic, which is not read: "
        "save them as PNG under their image's name (scan.heic)."
    )


def test_data_say_what_was_left_of_them_unless_it_is_a_table(tmp_path):
    folder = tmp_path / "data set"  # beside it lies what was found of near-duplicates
    images_and_masks(folder, np.random.default_rng(0), 4)
    (folder / "notes.txt").write_text("x")
    assert not open_dataset(folder, progress=False).left_out
    (folder / "images" / "9.heic").write_bytes(b"x")
    source = open_dataset(folder, progress=False)
    assert "1 files ending with .heic, which is not read: save them" in source.message
