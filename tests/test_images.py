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
DISC = np.hypot(*np.mgrid[-30:30, -40:40]) < 17.3


def save(path: Path, array: np.ndarray, mode: str | None = None, **options) -> Path:
    """Save with Pillow, converted to a mode where given."""
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def luminance(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, by hand."""
    return rgb.astype(float) @ np.array([0.299, 0.587, 0.114])


def turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array upright as EXIF orientation asks, with Pillow's own table."""
    channels = [Image.fromarray(c) for c in np.atleast_3d(values.astype(np.int32)).T]
    upright = []
    for channel in channels:
        channel = channel.transpose(Image.Transpose.TRANSPOSE)  # .T above swapped rows, columns
        channel.getexif()[0x0112] = orientation
        upright.append(np.asarray(ImageOps.exif_transpose(channel)))
    return np.stack(upright, -1).reshape(*upright[0].shape, *values.shape[2:])


# --- images ---------------------------------------------------------------------------------

BITS, SMOOTH = GREY > 127, cv2.GaussianBlur(GREY, (0, 0), 4)
DEEP_RGBA = RNG.integers(0, 65536, (31, 47, 4), np.uint16)
LA = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(RGB[..., 0].copy())])
PALETTE = Image.fromarray(RGB).convert("P")
PICTURES = {  # how it is saved, what is read, how far off it may be
    "equal.png": (lambda p: save(p, np.dstack([GREY] * 3)), GREY / 255, 1e-7),
    "bits.png": (lambda p: save(p, BITS), BITS, 0),
    "palette.png": (
        lambda p: PALETTE.save(p),
        luminance(np.asarray(PALETTE.convert("RGB"))) / 255,
        0.002,
    ),
    "rgba.png": (lambda p: save(p, np.dstack([RGB, GREY])), luminance(RGB) / 255, 0.002),
    "la.png": (lambda p: LA.save(p), GREY / 255, 1e-7),
    "one level.png": (lambda p: save(p, GREY, transparency=int(GREY[0, 0])), GREY / 255, 1e-7),
    "float.tif": (lambda p: save(p, np.float32(GREY / 255)), GREY / 255, 1e-7),
}
PICTURES |= {
    f"grey{s}": (lambda p: save(p, GREY), GREY / 255, 1e-7) for s in (".png", ".bmp", ".TIFF")
}
PICTURES |= {
    f"rgb{s}": (lambda p: save(p, RGB), luminance(RGB) / 255, 0.002) for s in (".png", ".tif")
}
PICTURES |= {
    f"{mode}.jpg": (lambda p, m=mode: save(p, SMOOTH, m, quality=98), SMOOTH / 255, 4 / 255)
    for mode in ("L", "RGB", "CMYK")
}
PICTURES |= {
    f"deep{s}": (lambda p: cv2.imwrite(str(p), DEEP), DEEP / 65535, 1e-7) for s in (".png", ".tif")
}
PICTURES |= {
    f"deep{c}{s}": (
        lambda p, c=c: cv2.imwrite(str(p), DEEP_RGBA[..., :c]),
        luminance(DEEP_RGBA[..., 2::-1]) / 65535,
        2 / 65535,
    )
    for s in (".png", ".tif")
    for c in (3, 4)
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_file_is_read(tmp_path, name):
    write, expected, tolerance = PICTURES[name]
    write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.float32 and image.shape == (31, 47, 1)
    np.testing.assert_allclose(image[..., 0], expected, atol=tolerance, rtol=0)


def test_drawing_held_by_transparency_alone_is_kept(tmp_path):
    white = np.full((60, 80, 4), 255, np.uint8)
    white[..., 3] = DISC * 255
    np.testing.assert_array_equal(read_masks(save(tmp_path / "m.png", white)), DISC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    picture = Image.fromarray(cv2.resize(GREY[:4, :6], (48, 32), interpolation=cv2.INTER_NEAREST))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    picture.save(path, exif=exif)
    expected = turn(np.asarray(picture), orientation)
    np.testing.assert_allclose(read_pixels(path), expected, atol=6 if suffix == ".jpg" else 0)
    assert read_size(path) == expected.shape


def tiff(
    path: Path, width: int, rows: list[bytes], bits: int, photometric: int, orientation: int = 1
) -> Path:
    """Write an uncompressed TIFF by hand: for kinds that no library here writes."""
    data, colour = b"".join(rows), photometric == 2
    after = 8 + len(data)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, len(rows)),
        (258, 3, 3, after) if colour else (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (274, 3, 1, orientation),
        (277, 3, 1, 3 if colour else 1),
        (278, 4, 1, len(rows)),
        (279, 4, 1, len(data)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    data += struct.pack("<3H", bits, bits, bits)
    path.write_bytes(b"II*\0" + struct.pack("<I", after + 6) + data + directory + b"\0\0\0\0")
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bit_colour_is_turned_upright_once(tmp_path, orientation):
    colour = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3) * 3000
    path = tiff(tmp_path / "a.tif", 3, [row.tobytes() for row in colour], 16, 2, orientation)
    turned = read_pixels(path)
    np.testing.assert_array_equal(turned, turn(colour, orientation))
    png = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    exif = Image.Exif()
    exif[0x0112] = orientation
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(png[:33] + chunk + png[33:])  # 33: signature and IHDR
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), turned)


def test_twelve_bit_and_white_is_zero_tiff(tmp_path):
    rows = [bytes([0xFF, 0xF0, 0x00]), bytes([0x80, 0x04, 0x00])]
    path = tiff(tmp_path / "a.tif", 2, rows, 12, 1)
    np.testing.assert_allclose(
        read_image(path)[..., 0], np.array([[4095, 0], [0x800, 0x400]]) / 4095, atol=1e-5
    )
    rows = [struct.pack("<2H", 0, 65535), struct.pack("<2H", 16384, 1)]
    path = tiff(tmp_path / "b.tif", 2, rows, 16, 0)
    expected = 1 - np.array([[0, 65535], [16384, 1]]) / 65535
    np.testing.assert_allclose(read_image(path)[..., 0], expected, atol=1e-6)


# --- files that are refused ------------------------------------------------------------------


def with_one(value: float) -> np.ndarray:
    return np.where(np.eye(9), value, 0.5).astype(np.float32)


def floating(path: Path, kind: type) -> None:
    cv2.imwrite(str(path), RNG.random((5, 6, 3)).astype(kind), [cv2.IMWRITE_TIFF_COMPRESSION, 1])


def frames(path: Path) -> None:
    several = [Image.fromarray(a) for a in (GREY, np.flipud(GREY).copy(), 255 - GREY)]
    several[0].save(path, save_all=True, append_images=several[1:])


def cut(path: Path, array: np.ndarray) -> None:
    cv2.imwrite(str(path), array)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


REFUSED = {
    "text.png": (lambda p: p.write_text("no image"), "expected PNG, JPEG, BMP, TIFF, WebP, GIF or"),
    "empty.png": (lambda p: p.write_bytes(b""), "0 bytes"),
    "absent.png": (lambda p: None, "no such file"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "ints.tif": (lambda p: save(p, np.array([[0, 70000]], np.int32)), "from 0 to 70000; expected"),
    "wide.png": (lambda p: Image.new("1", (10_000, 8_500)).save(p), "8500 x 10000 pixels are more"),
    "long.png": (
        lambda p: os.truncate(save(p, GREY), 400_000_001),  # takes no room on the disk
        "400,000,001 bytes are more .*Save .* as PNG",
    ),
}
REFUSED |= {
    f"{v}.tif": (lambda p, v=v: save(p, with_one(v)), "float image.*expected 0 to 1")
    for v in (1.5, -0.25, np.nan, np.inf)
}
REFUSED |= {
    f"{k.__name__}.tif": (lambda p, k=k: floating(p, k), "floating point are not read.*as PNG")
    for k in (np.float32, np.float64)
}
REFUSED |= {f"frames.{s}": (frames, "holds 3 frames; expected one") for s in ("tif", "png")}
REFUSED |= {
    f"cut {name}.{s}": (lambda p, a=array: cut(p, a), "damaged|not an image")
    for name, array in (("grey", GREY), ("rgb", RGB))
    for s in ("png", "jpg", "bmp", "tif")
}
REFUSED |= {
    f"cut deep.{s}": (lambda p: cut(p, DEEP_RGBA[..., :3]), "decoded|not an image")
    for s in ("png", "tif")
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name):
    write, words = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_phone_jpeg_with_preview_is_its_first_picture(tmp_path):
    first, second = Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=98)
    image = read_image(tmp_path / "a.jpg")[..., 0]
    np.testing.assert_allclose(image, SMOOTH / 255, atol=4 / 255)


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


# --- masks ----------------------------------------------------------------------------------


def mask_files(folder: Path) -> dict[str, Path]:
    """The same disc in every way a mask is stored."""
    level = DISC.astype(np.uint8)
    rgba = np.dstack([level * 255] * 3 + [np.full_like(level, 255)])
    files = {
        "0-1": save(folder / "a.png", level),
        "0-255": save(folder / "b.png", level * 255),
        "0-37": save(folder / "c.bmp", level * 37),
        "1 bit": save(folder / "d.png", DISC),
        "1 bit tiff": save(folder / "d.tif", DISC),
        "rgb": save(folder / "e.png", level * 255, "RGB"),
        "rgba": save(folder / "f.png", rgba),
        "16 bit": folder / "g.png",
        "float": save(folder / "h.tif", level.astype(np.float32)),
        "jpeg": save(folder / "i.jpg", level * 255, quality=80),
        "red": save(folder / "j.png", np.dstack([level * 128, level * 0, level * 0])),
        "labels": folder / "k.png",
        "black palette": folder / "l.png",
        "smooth": folder / "m.png",
    }
    cv2.imwrite(str(files["16 bit"]), level.astype(np.uint16) * 65535)
    for name, second in (("labels", [128, 0, 0]), ("black palette", [0, 0, 0])):
        picture = Image.fromarray(level).convert("P")
        picture.putpalette([0, 0, 0, *second])
        picture.save(files[name])
    fine = cv2.resize(level * 255, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    save(files["smooth"], cv2.resize(fine, (80, 60), interpolation=cv2.INTER_AREA))
    return files


def test_every_way_of_storing_a_mask(tmp_path):
    for kind, path in mask_files(tmp_path).items():
        mask = read_masks(path)
        assert mask.dtype == bool, kind
        assert (mask != DISC).sum() <= (8 if kind == "smooth" else 0), kind


def test_masks_are_joined_with_or(tmp_path):
    left, right = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    left[3:9, 2:12], right[7:15, 10:25] = True, True
    paths = [save(tmp_path / "a.png", left), save(tmp_path / "b.png", right)]
    np.testing.assert_array_equal(read_masks(paths), left | right)
    np.testing.assert_array_equal(read_masks(paths, (20, 30)), left | right)
    np.testing.assert_array_equal(read_masks(paths[:1]), left)


def test_no_mask_files(tmp_path):
    assert not read_masks([], (4, 5)).any()
    assert read_masks([], (4, 5)).shape == (4, 5)
    with pytest.raises(ImageError, match="no mask files and no shape"):
        read_masks([])


def labels(low: int, middle: int, high: int) -> np.ndarray:
    """Three bands, each 20 pixels wide."""
    return np.repeat(np.array([low, middle, high], np.uint8), 20)[None].repeat(30, 0)


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 127, 255), (0, 100, 200), (0, 60, 255)])
def test_label_images_are_refused(tmp_path, values):
    path = save(tmp_path / "labels.png", labels(*values))
    with pytest.raises(ImageError, match=r"labels\.png: .*3 grey values: 0 \(600 px\)") as caught:
        read_masks(path)
    assert "one mask file per label" in str(caught.value)


@pytest.mark.parametrize("values", [(1, 2), (100, 200), (254, 255)])
def test_two_values_without_background_are_refused(tmp_path, values):
    with pytest.raises(ImageError, match="2 grey values"):
        read_masks(save(tmp_path / "a.png", labels(values[0], values[1], values[1])))


def test_an_ultrasound_image_is_not_a_mask(tmp_path):
    with pytest.raises(ImageError, match="not a mask"):
        read_masks(save(tmp_path / "a.png", GREY))


def test_sizes_that_differ_name_both_files(tmp_path):
    small = save(tmp_path / "small.png", DISC[:50])
    with pytest.raises(ImageError, match=r"small\.png: the mask is 50 x 80.*photo\.png is 60 x 80"):
        read_masks([small], (60, 80), image_path="photo.png")
    with pytest.raises(ImageError, match=r"small\.png: the mask is 50 x 80.*disc\.png is 60 x 80"):
        read_masks([save(tmp_path / "disc.png", DISC), small])


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
@pytest.mark.parametrize("size", [97, 128])
def test_restore_inverts_apply_for_every_size(size, keep_aspect):
    preprocessing = Preprocessing(size, keep_aspect)
    box = np.ones((3, 3), np.uint8)
    for height in range(17, 98):
        image = np.zeros((height, 97, 1), np.float32)
        for width in range(17, 98):
            truth = blob(height, width, height * 100 + width)
            prepared = preprocessing.apply(image[:, :width], truth)
            restored = preprocessing.restore(prepared.mask.astype(np.float32), prepared.geometry)
            assert restored.shape == (height, width)
            # At most one pixel off: inside the truth grown by one, outside the truth shrunk by one.
            shrunk, grown = (f(truth.astype(np.uint8), box) for f in (cv2.erode, cv2.dilate))
            found = restored >= 0.5
            assert not (found & (grown == 0)).any() and not (~found & (shrunk == 1)).any()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(8, 300), st.booleans())
def test_any_size_goes_in_and_comes_back(height, width, size, keep_aspect):
    preprocessing = Preprocessing(size, keep_aspect)
    prepared = preprocessing.apply(np.ones((height, width, 1), np.float32))
    geometry = prepared.geometry
    assert prepared.image.shape == (size, size, 1) and prepared.image.dtype == np.float32
    inside = np.zeros((size, size), bool)
    inside[geometry.window] = True
    np.testing.assert_allclose(prepared.image[..., 0], inside, atol=1e-5)  # padding is 0
    restored = preprocessing.restore(inside.astype(np.float32), geometry)
    assert restored.shape == (height, width) and restored.dtype == np.float32
    np.testing.assert_allclose(restored, 1, atol=1e-5)


def test_aspect_is_kept_and_the_image_centred():
    geometry = Preprocessing(128).geometry(471, 562)
    assert geometry == Geometry(471, 562, 107, 128, 10, 0)
    assert Preprocessing(128, keep_aspect=False).geometry(471, 562).resized_height == 128


def test_a_mask_stays_on_its_object():
    rows, columns = np.mgrid[:300, :211]
    truth = np.hypot(rows - 190, columns - 60) < 40
    prepared = Preprocessing(64).apply(truth.astype(np.float32)[..., None], truth)
    np.testing.assert_array_equal(prepared.mask, prepared.image[..., 0] >= 0.5)
    geometry = prepared.geometry
    scale = geometry.resized_height / 300
    centre = np.array(ndimage.center_of_mass(prepared.mask))
    expected = (np.array([190, 60]) + 0.5) * scale - 0.5 + [geometry.top, geometry.left]
    np.testing.assert_allclose(centre, expected, atol=0.3)


def test_shrinking_takes_the_mean_and_restoring_refuses_what_is_no_probability():
    checks = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)[..., None]
    prepared = Preprocessing(32).apply(checks)
    np.testing.assert_allclose(prepared.image, 0.5, atol=1e-6)
    restored = Preprocessing(32).restore(np.full((32, 32, 1), 1.0000001), prepared.geometry)
    assert restored.max() == 1.0  # rounding
    for wrong in (1.7, -0.1):
        with pytest.raises(ValueError, match=f"to {wrong:g}.*End it with a sigmoid"):
            Preprocessing(32).restore(np.full((32, 32, 1), wrong), prepared.geometry)


def test_apply_leaves_its_input_alone():
    image, mask = np.full((64, 64, 1), 0.5, np.float32), np.ones((64, 64), bool)
    prepared = Preprocessing(64).apply(image, mask)
    prepared.image[:], prepared.mask[:] = 0, False
    assert (image == 0.5).all() and mask.all()


def test_settings_go_to_json_and_back_or_are_refused():
    preprocessing = Preprocessing(96, keep_aspect=False)
    text = json.dumps(preprocessing.to_dict())
    assert Preprocessing.from_dict(json.loads(text)) == preprocessing
    for name, value in (("size", 4), ("size", 128.0), ("size", True), ("keep_aspect", "yes")):
        with pytest.raises(ValueError, match=f"Preprocessing.{name} must be"):
            Preprocessing(**{name: value})


def test_wrong_arrays_are_refused():
    preprocessing, good = Preprocessing(16), np.zeros((20, 20, 1), np.float32)
    empty = np.zeros((0, 5, 1))
    for wrong in (GREY, GREY[..., None], good[..., 0], empty, good + 2, good * np.nan):
        with pytest.raises(ValueError, match="The image must|no content"):
            preprocessing.apply(wrong)
    for mask in (np.zeros((20, 20)), np.zeros((20, 21), bool), [[True]]):
        with pytest.raises(ValueError, match="mask must be a bool array"):
            preprocessing.apply(good, mask)
    geometry = preprocessing.geometry(20, 20)
    with pytest.raises(ValueError, match="shape"):
        preprocessing.restore(np.zeros((20, 20)), geometry)
    with pytest.raises(ValueError, match="NaN"):
        preprocessing.restore(np.full((16, 16), np.nan), geometry)
    with pytest.raises(ValueError, match="does not fit"):
        preprocessing.restore(np.zeros((16, 16)), Preprocessing(32).geometry(20, 20))
    with pytest.raises(ValueError, match="no content"):
        preprocessing.geometry(0, 5)


# --- writing --------------------------------------------------------------------------------


def test_written_images_read_back(tmp_path):
    for array in (GREY, RGB, DISC):
        path = write_image(tmp_path / "new" / "a.png", array)
        expected = array * np.uint8(255) if array.dtype == bool else array
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    np.testing.assert_array_equal(read_masks(write_image(tmp_path / "m.png", DISC)), DISC)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]  # nothing temporary left


def test_what_cannot_be_written_is_refused(tmp_path):
    for path, array in (("a.jpg", GREY), ("a.png", GREY / 255), ("a.png", RGB[..., :2])):
        with pytest.raises(ValueError, match="PNG|expected bool"):
            write_image(tmp_path / path, array)
