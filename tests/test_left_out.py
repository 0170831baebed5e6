"""Folder trees with something left out or misplaced: each is refused or told, by name."""

import numpy as np
import pytest
from conftest import write_png
from PIL import Image

from unet_lib.cli import main
from unet_lib.dataset import DatasetError, find_cases, load_case
from unet_lib.dataset.reading import of_folder
from unet_lib.images import ImageError
from unet_lib.source import open_dataset

LAYOUTS = {  # image and mask of a number, of a class
    "class folders": ("{label}/{label} ({n}).png", "{label}/{label} ({n})_mask.png"),
    "images and masks": ("images/{label}{n}.png", "masks/{label}{n}.png"),
    "classes of both": ("{label}/images/{n}.png", "{label}/masks/{n}.png"),
}


def tree(root, layout="class folders", count=2):
    """Write pictures of noise with their masks; returns the paths of both."""
    rng, truth, written = np.random.default_rng(0), np.zeros((40, 50), np.uint8), []
    truth[10:30, 12:36] = 255
    for label in ("benign", "malignant"):
        for number in range(1, count + 1):
            image, mask = (root / name.format(label=label, n=number) for name in LAYOUTS[layout])
            write_png(image, rng.integers(0, 255, truth.shape, dtype=np.uint8))
            written.append((image, write_png(mask, truth)))
    return written


def moved(place, *files):
    place.mkdir()
    for file in files:
        file.rename(place / file.name)


def deeper(root, image, mask):
    for file in {image.parent: image, mask.parent: mask}.values():
        moved(file.parent / "more", *(f for f in (image, mask) if f.parent == file.parent))
    return "more"


def folder_deeper(root, *_):
    folder = [path for path in sorted(root.iterdir()) if path.is_dir()][-1]
    files = [*folder.iterdir()]
    moved(folder / folder.name, *files)
    return folder.name


def misspelt(root, *_):
    folder = min(path for path in root.iterdir() if path.is_dir())
    return folder.rename(root / f"{folder.name}_pictures").name


def link(root, image, _):
    (image.parent / "elsewhere.png").symlink_to(root / "gone.png")
    return "1 links that lead nowhere (elsewhere.png)"


def link_to_folder(root, image, _):
    (image.parent / "more of them").symlink_to(root.parent)
    return "1 links to folders, which are not followed (more of them)"


def twice(root, image, _):
    Image.open(image).save(image.with_suffix(".webp"))
    return image.with_suffix(".webp").name


def as_another(path, ending):
    """Put a file of a kind that is not read into a picture's place."""
    path.rename(path.with_suffix(ending)).write_bytes(b"of a kind that is not read")
    return ending


SPOILT = {  # what is done to a tree and what has to be said of it
    "heic": lambda root, image, mask: as_another(image, ".heic"),
    "svg masks": lambda root, image, mask: as_another(mask, ".svg"),
    "one deeper": deeper,
    "folder deeper": folder_deeper,
    "misspelt": misspelt,
    "loose": lambda root, image, _: write_png(root / "lost and found.png", np.eye(9) * 255).name,
    "link": link,
    "link to folder": link_to_folder,
    "no mask": lambda root, image, mask: mask.unlink() or image.stem,
    "no image": lambda root, image, mask: image.unlink() or mask.stem,
    "empty class": lambda root, *_: (root / "normal").mkdir() or "normal",
    "twice": twice,
}


def said_of(root):
    try:
        said = of_folder(root, find_cases(root)).text
    except DatasetError as error:
        said = str(error).split("Expected one of")[0]
    return said.replace(str(root), "")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_left_out_is_told_by_name(tmp_path, layout):
    for number, (kind, spoil) in enumerate(SPOILT.items()):
        root, count = tmp_path / f"tree {number}", 2 + number % 3
        written = tree(root, layout, count)
        word = spoil(root, *written[number % len(written)])
        assert word in said_of(root), kind
    root = tmp_path / "whole"
    tree(root, layout)
    assert said_of(root) == ""
    tree(root / root.name, layout, 3)  # within itself
    assert root.name in said_of(root)


@pytest.mark.parametrize("ending", ["", ".img", ".json", ".txt", ".png_"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_are_known_by_their_content(tmp_path, layout, ending):
    written = tree(tmp_path, layout)
    before = [load_case(case) for case in find_cases(tmp_path)]
    for path in (path for pair in written for path in pair):
        path.rename(path.with_suffix(ending))
    assert said_of(tmp_path) == ""
    for case, pair in zip(find_cases(tmp_path), before, strict=True):
        np.testing.assert_array_equal(np.dstack(load_case(case)), np.dstack(pair))


MASK_NAMES = (
    "{}-mask", "{}_Mask", "{} mask", "{}.mask", "{} (mask)", "{}_mask (1)", "{}_mask1", "{}_gt",
    "{}-GT", "{}_seg_2", "{}_segmentation", "{}_groundtruth", "{}_label", "{}_annotation",
    "mask_{}", "GT-{}",
)  # fmt: skip


@pytest.mark.parametrize("name", MASK_NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_known_by_their_names(tmp_path, layout, name):
    for image, mask in tree(tmp_path, layout):
        mask.rename(mask.with_stem(name.format(image.stem)))
    if (tmp_path / "malignant").is_dir():
        (tmp_path / "malignant").rename(tmp_path / "normal")  # where an image needs no mask
    cases = find_cases(tmp_path)
    assert len(cases) == 4 and all(load_case(case)[1].any() for case in cases)


def test_spaces_of_other_kinds_are_spaces(tmp_path):
    for image, mask in tree(tmp_path, "images and masks"):
        image.rename(image.with_stem(f"scan {image.stem}"))
        mask.rename(mask.with_stem(f"scan\N{NO-BREAK SPACE} {mask.stem} "))
    assert [len(case.mask_paths) for case in find_cases(tmp_path)] == [1] * 4


def test_masks_without_image_are_told_with_the_names_of_images(tmp_path):
    for _, mask in tree(tmp_path, "images and masks"):
        mask.rename(mask.with_stem(f"m0{mask.stem}"))
    with pytest.raises(DatasetError, match=r"m0benign1\.png.*images: 'benign1', 'b"):
        find_cases(tmp_path)


def test_a_file_that_may_not_be_read_is_one_of_the_errors(tmp_path, monkeypatch, capsys):
    closed = tree(tmp_path)[0][0]
    for where in ("builtins.open", "io.open"):
        real = open

        def refusing(path, *rest, real=real, **more):
            if str(path) == str(closed):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **more)

        monkeypatch.setattr(where, refusing)
    assert main(["check", str(tmp_path)]) == 1
    assert f"{closed}: cannot be opened (Permission denied)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><p>404", "a web page"),
        (b"PK\x03\x04data", "a zip archive"),
    ],
)
def test_what_is_no_picture_is_named_as_what_it_is(tmp_path, content, words):
    image, _ = tree(tmp_path)[0]
    image.write_bytes(content)
    with pytest.raises(ImageError, match=f"{words}.* not an image that can be read"):
        load_case(find_cases(tmp_path)[0])


def test_half_a_data_set_left_out_is_an_error(tmp_path, capsys):
    tree(tmp_path)
    folder_deeper(tmp_path)
    assert main(["check", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "4 files would be taken and 4 left" in said and "pictures in malignant/malignant" in said


def test_check_ends_with_what_it_took_and_left(tmp_path, capsys):
    tree(tmp_path)
    (tmp_path / "benign" / "scan.heic").write_bytes(b"x")
    assert main(["check", str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"Taken of {tmp_path}: 8 .png. Left out: 1 files ending with .heic, which is not read: "
        "save them as PNG under their image's name (scan.heic)."
    )


def test_data_say_what_was_left_of_them_unless_it_is_a_table(tmp_path):
    folder = tmp_path / "data set"  # beside it lies what was found of near-duplicates
    tree(folder, "images and masks", 4)
    (folder / "notes.txt").write_text("x")
    assert not open_dataset(folder, progress=False).left_out
    (folder / "images" / "9.heic").write_bytes(b"x")
    source = open_dataset(folder, progress=False)
    assert "1 files ending with .heic, which is not read: save them" in source.message
