"""Reading of every allowed file kind, refusal of every broken one, exact inverse geometry."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import ndimage

from unet_lib.images import (
    Geometry,
    ImageError,
    Preprocessing,
    read_frames,
    read_image,
    read_masks,
    read_pixels,
    read_size,
    write_image,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (31, 47), dtype=np.uint8)
RGB = RNG.integers(0, 256, (31, 47, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (31, 47), dtype=np.uint16)
DEEP_RGBA = RNG.integers(0, 65536, (31, 47, 4), np.uint16)
SMOOTH = cv2.GaussianBlur(GREY, (0, 0), 4)
DISC = np.hypot(*np.mgrid[-30:30, -40:40]) < 17.3


def save(array: np.ndarray, mode: str | None = None, **options):
    """Return what saves with Pillow, converted to a mode where given."""
    picture = Image.fromarray(array)
    return lambda path: (picture.convert(mode) if mode else picture).save(path, **options)


def opencv(array: np.ndarray, *options: int):
    return lambda path: cv2.imwrite(str(path), array, options)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, by hand."""
    return rgb.astype(float) @ np.array([0.299, 0.587, 0.114])


def frames(path: Path) -> None:
    several = [Image.fromarray(a) for a in (SMOOTH, np.flipud(GREY).copy(), 255 - GREY)]
    kind = "MPO" if path.suffix == ".mpo" else None
    several[0].save(path, kind, save_all=True, append_images=several[1:], quality=98)


MODES = ("L", "RGB", "CMYK")
LA = np.dstack([GREY, RGB[..., 0]])
PALETTE = Image.fromarray(RGB).convert("P")
PICTURES = {  # how it is saved, what is read, how far off it may be
    "equal.png": (save(np.dstack([GREY] * 3)), GREY / 255, 1e-7),
    "bits.png": (save(GREY > 127), GREY > 127, 0),
    "p.png": (PALETTE.save, luminance(np.asarray(PALETTE.convert("RGB"))) / 255, 0.002),
    "rgba.png": (save(np.dstack([RGB, GREY])), luminance(RGB) / 255, 0.002),
    "la.png": (save(LA), GREY / 255, 1e-7),
    "one level.png": (save(GREY, transparency=int(GREY[0, 0])), GREY / 255, 1e-7),
    "float.tif": (save(np.float32(GREY / 255)), GREY / 255, 1e-7),
    "phone.mpo": (frames, SMOOTH / 255, 4 / 255),  # previews follow: the first is meant
}
PICTURES |= {f"grey{s}": (save(GREY), GREY / 255, 1e-7) for s in (".png", ".bmp", ".TIFF")}
PICTURES |= {
    f"{mode}.jpg": (save(SMOOTH, mode, quality=98), SMOOTH / 255, 4 / 255) for mode in MODES
}
for s in (".png", ".tif"):
    PICTURES[f"rgb{s}"] = (save(RGB), luminance(RGB) / 255, 0.002)
    PICTURES[f"deep{s}"] = (opencv(DEEP), DEEP / 65535, 1e-7)
    for c in (3, 4):
        expected = luminance(DEEP_RGBA[..., 2::-1]) / 65535
        PICTURES[f"deep{c}{s}"] = (opencv(DEEP_RGBA[..., :c]), expected, 2 / 65535)


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_file_is_read(tmp_path, name):
    write, expected, tolerance = PICTURES[name]
    write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.float32 and image.shape == (31, 47, 1)
    np.testing.assert_allclose(image[..., 0], expected, atol=tolerance, rtol=0)


def tiff(path: Path, width: int, rows: list[bytes], bits: int, photometric: int, turned=1) -> Path:
    """Write an uncompressed TIFF by hand: for kinds that no library here writes."""
    data, colour = b"".join(rows), photometric == 2
    after = 8 + len(data)
    tags = [(256, 4, 1, width), (257, 4, 1, len(rows))]
    tags += [(258, 3, 3, after) if colour else (258, 3, 1, bits), (259, 3, 1, 1)]
    tags += [(262, 3, 1, photometric), (273, 4, 1, 8), (274, 3, 1, turned)]
    tags += [(277, 3, 1, 3 if colour else 1), (278, 4, 1, len(rows)), (279, 4, 1, len(data))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    data += struct.pack("<3H", bits, bits, bits)
    path.write_bytes(b"II*\0" + struct.pack("<I", after + 6) + data + directory + b"\0\0\0\0")
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_once(tmp_path, orientation):
    """As Pillow's own table asks, in 8 bits and in colours of 16, which Pillow cannot turn."""
    small = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3) * 40
    grey = cv2.resize(small, (48, 32), interpolation=cv2.INTER_NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation

    def upright(array: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(array)
        picture.getexif()[0x0112] = orientation
        return np.asarray(ImageOps.exif_transpose(picture))

    for suffix in (".png", ".tif", ".jpg"):
        path = tmp_path / f"a{suffix}"
        save(grey, exif=exif)(path)
        expected = upright(grey)
        np.testing.assert_allclose(read_pixels(path), expected, atol=6 if suffix == ".jpg" else 0)
        assert read_size(path) == expected.shape
    colour = np.dstack([small.astype(np.uint16) * 257 + 7 * c for c in range(3)])
    expected = np.dstack([upright(small).astype(np.uint16) * 257 + 7 * c for c in range(3)])
    path = tiff(tmp_path / "a.tif", 3, [row.tobytes() for row in colour], 16, 2, orientation)
    np.testing.assert_array_equal(read_pixels(path), expected)
    png = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(png[:33] + chunk + png[33:])  # 33: signature and IHDR
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), expected)


def test_twelve_bit_and_white_is_zero_tiff(tmp_path):
    rows = [bytes([0xFF, 0xF0, 0x00]), bytes([0x80, 0x04, 0x00])]
    image = read_image(tiff(tmp_path / "a.tif", 2, rows, 12, 1))[..., 0]
    np.testing.assert_allclose(image, np.array([[4095, 0], [2048, 1024]]) / 4095, atol=1e-5)
    rows = [struct.pack("<2H", 0, 65535), struct.pack("<2H", 16384, 1)]
    image = read_image(tiff(tmp_path / "b.tif", 2, rows, 16, 0))[..., 0]
    np.testing.assert_allclose(image, 1 - np.array([[0, 65535], [16384, 1]]) / 65535, atol=1e-6)


@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_stack_is_opened_once(tmp_path, deep, monkeypatch):
    """Opened anew for each page it was quadratic: 800 pages of 16 x 16 took 30 s."""
    path, shapes = tmp_path / "a.tif", [(16, 15 + i % 3) for i in range(800)]
    if deep:  # 16-bit colour, which Pillow cannot write
        pages = [RNG.integers(0, 65536, (*shape, 3), dtype=np.uint16) for shape in shapes]
        cv2.imwritemulti(str(path), [page[..., ::-1] for page in pages])
    else:
        pages = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
        first, *rest = (Image.fromarray(page) for page in pages)
        first.save(path, save_all=True, append_images=rest)
    opened = []
    for module, name in ((Image, "open"), (cv2, "imreadmulti"), (cv2, "imdecodemulti")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, f=original, **k: opened.append(0) or f(*a, **k)
        )
    read = list(read_frames(path))
    assert len(opened) <= 2
    assert [(f.number, f.count) for f in read] == [(n, 800) for n in range(1, 801)]
    assert all(np.array_equal(f.pixels, page) for f, page in zip(read, pages, strict=True))


# --- files that are refused ------------------------------------------------------------------


def cut(array: np.ndarray):
    def write(path: Path) -> None:
        cv2.imwrite(str(path), array)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write


def long(path: Path) -> None:
    save(GREY)(path)
    os.truncate(path, 400_000_001)  # takes no room on the disk


def with_one(value: float):
    return save(np.where(np.eye(9), value, 0.5).astype(np.float32))


REFUSED = {
    "text.png": (lambda p: p.write_text("no image"), "expected PNG, JPEG, BMP, TIFF, WebP, GIF or"),
    "empty.png": (lambda p: p.write_bytes(b""), "0 bytes"),
    "absent.png": (lambda p: None, "no such file"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "pipe.png": (os.mkfifo, "no regular file"),
    "null\0.png": (lambda p: None, "cannot be opened"),
    "x" * 300 + ".png": (lambda p: None, "cannot be opened .*Check its name"),
    "ints.tif": (save(np.array([[0, 70000]], np.int32)), "from 0 to 70000; expected"),
    "wide.png": (Image.new("1", (10_000, 8_500)).save, "8500 x 10000 pixels are more"),
    "long.png": (long, "more than 400,000,000 bytes.*save it as PNG"),
    "colours.tif": (
        opencv(RNG.random((5, 6, 3)).astype(np.float32), cv2.IMWRITE_TIFF_COMPRESSION, 1),
        "floating point are not read.*as PNG",
    ),
}
REFUSED |= {
    f"{v}.tif": (with_one(v), "float image.*expected 0 to 1") for v in (1.5, -0.25, np.nan, np.inf)
}
REFUSED |= {f"frames.{s}": (frames, "holds 3 frames; expected one") for s in ("tif", "png")}
CUT = dict.fromkeys(("png", "jpg", "bmp", "tif"), RGB)
CUT |= {"deep.png": DEEP_RGBA[..., :3], "deep.tif": DEEP_RGBA[..., :3], "grey.png": GREY}
REFUSED |= {f"cut.{name}": (cut(array), "damaged|not an image") for name, array in CUT.items()}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name):
    write, words = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


# --- geometry -------------------------------------------------------------------------------


def blob(height: int, width: int, seed: int) -> np.ndarray:
    """An ellipse and a rectangle that touches the border."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    cv2.ellipse(mask, centre, (max(3, width // 4), max(3, height // 5)), seed % 180, 0, 360, 1, -1)
    mask[: height // 3, width // 2 : width // 2 + 5] = 1
    return mask.astype(bool)


@pytest.mark.parametrize("keep_aspect", [True, False])
def test_restore_inverts_apply_for_every_size(keep_aspect):
    preprocessing = Preprocessing(97, keep_aspect)
    box = np.ones((3, 3), np.uint8)
    for height in range(17, 98, 2):
        image = np.zeros((height, 97, 1), np.float32)
        for width in range(17, 98):
            truth = blob(height, width, height * 100 + width)
            prepared = preprocessing.apply(image[:, :width], truth)
            restored = preprocessing.restore(prepared.mask.astype(np.float32), prepared.geometry)
            assert restored.shape == (height, width)
            # At most one pixel off: inside the truth grown by one, outside the truth shrunk by one.
            shrunk, grown = (f(truth.astype(np.uint8), box) for f in (cv2.erode, cv2.dilate))
            marked = restored >= 0.5
            assert not (marked & (grown == 0)).any() and not (~marked & (shrunk == 1)).any()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(8, 300), st.booleans())
def test_any_size_goes_in_and_comes_back(height, width, size, keep_aspect):
    preprocessing = Preprocessing(size, keep_aspect)
    prepared = preprocessing.apply(np.ones((height, width, 1), np.float32))
    assert prepared.image.shape == (size, size, 1) and prepared.image.dtype == np.float32
    inside = np.zeros((size, size), bool)
    inside[prepared.geometry.window] = True
    np.testing.assert_allclose(prepared.image[..., 0], inside, atol=1e-5)  # padding is 0
    restored = preprocessing.restore(inside.astype(np.float32), prepared.geometry)
    assert restored.shape == (height, width) and restored.dtype == np.float32
    np.testing.assert_allclose(restored, 1, atol=1e-5)


def test_a_mask_stays_on_its_object_and_the_image_is_centred():
    assert Preprocessing(128).geometry(471, 562) == Geometry(471, 562, 107, 128, 10, 0)
    rows, columns = np.mgrid[:300, :211]
    truth = np.hypot(rows - 190, columns - 60) < 40
    image = truth.astype(np.float32)[..., None]
    prepared = Preprocessing(64).apply(image, truth)
    np.testing.assert_array_equal(prepared.mask, prepared.image[..., 0] >= 0.5)
    geometry = prepared.geometry
    scale = geometry.resized_height / 300
    centre = np.array(ndimage.center_of_mass(prepared.mask))
    expected = (np.array([190, 60]) + 0.5) * scale - 0.5 + [geometry.top, geometry.left]
    np.testing.assert_allclose(centre, expected, atol=0.3)
    same = Preprocessing(300, keep_aspect=False).apply(image, truth)
    same.image[:], same.mask[:] = 0, False
    assert image.sum() == truth.sum() > 4000  # the input is left alone
    checks = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)[..., None]
    np.testing.assert_allclose(Preprocessing(32).apply(checks).image, 0.5, atol=1e-6)


def test_settings_go_to_json_and_back_or_are_refused():
    preprocessing = Preprocessing(96, keep_aspect=False)
    text = json.dumps(preprocessing.to_dict())
    assert Preprocessing.from_dict(json.loads(text)) == preprocessing
    for name, value in (("size", 4), ("size", 128.0), ("size", True), ("keep_aspect", "yes")):
        with pytest.raises(ValueError, match=f"Preprocessing: {name} must be"):
            Preprocessing(**{name: value})


def test_wrong_arrays_are_refused():
    preprocessing, good = Preprocessing(16), np.zeros((20, 20, 1), np.float32)
    empty = np.zeros((0, 5, 1))
    for wrong in (GREY, GREY[..., None], good[..., 0], empty, good + 2, good * np.nan, None):
        with pytest.raises(ValueError, match="The image must"):
            preprocessing.apply(wrong)
    for mask in (np.zeros((20, 20)), np.zeros((20, 21), bool), [[True]]):
        with pytest.raises(ValueError, match="mask must be a bool array"):
            preprocessing.apply(good, mask)
    geometry = preprocessing.geometry(20, 20)
    for value, reason in ((np.nan, "network is broken"), (1.7, "End it"), (-0.1, "sigmoid")):
        with pytest.raises(ValueError, match=rf"values from {value:g} to .*{reason}"):
            preprocessing.restore(np.full((16, 16, 1), value), geometry)
    assert preprocessing.restore(np.full((16, 16), 1.0000001), geometry).max() == 1  # rounding
    for wrong in (((20, 20), geometry), ((16, 16), Preprocessing(32).geometry(20, 20))):
        with pytest.raises(ValueError, match=r"of shape \(16, 16\) and Geometry.*; received"):
            preprocessing.restore(np.zeros(wrong[0]), wrong[1])


# --- writing --------------------------------------------------------------------------------


def test_written_images_read_back_or_are_refused(tmp_path):
    for array in (GREY, RGB, DISC):
        path = write_image(tmp_path / "new" / "a.png", array)
        expected = array * np.uint8(255) if array.dtype == bool else array
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    np.testing.assert_array_equal(read_masks(path), DISC)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]  # nothing temporary left
    for name, array in (("a.jpg", GREY), ("a.png", GREY / 255), ("a.png", RGB[..., :2])):
        with pytest.raises(ValueError, match="ends with .png and bool"):
            write_image(tmp_path / name, array)
