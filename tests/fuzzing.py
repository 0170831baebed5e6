"""Damaged and absurd input for every parser; `make fuzz` gives 20,000.

Hypothesis draws the input. An input fails when another error than the documented one comes out,
when it takes more than 5 s of processor time, or when the process grows by more than 1 GiB.
"""

from __future__ import annotations

import faulthandler
import json
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
SECONDS, BYTES, HANG = 5.0, 2**30, 120
NUMBERS = st.sampled_from([0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1])


@st.composite
def damaged(draw: Any, files: list[bytes]) -> bytes:
    """Bytes of a good file with bytes or 32-bit numbers changed, cut, doubled; or none of it."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=300))
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        # Headers lie at the beginning: half of the changes go there.
        end = min(len(content), 400) if draw(st.booleans()) else len(content)
        place = draw(st.integers(0, max(0, end - 1)))
        kind = draw(st.integers(0, 7))
        if kind <= 5:
            size = draw(st.sampled_from([1, 1, 1, 2, 4]))
            number = draw(NUMBERS | st.integers(0, 255)) % 2 ** (8 * size)
            order = draw(st.sampled_from(["big", "little"]))
            content[place : place + size] = number.to_bytes(size, order)
        elif kind == 6:
            del content[place:]
        else:
            content[place:place] = content[place : place + draw(st.integers(1, 64))]
    return bytes(content)


def damaged_text(texts: list[str]) -> st.SearchStrategy[bytes]:
    """Lines and cells of a text file mixed, or its bytes damaged."""
    odd = ["", "NaN", "-1", "1e999", "null", '"', ",", "\n", "\r", "\0", "\ufeff"]
    odd += ["x" * 200_000, "[" * 9000, "9" * 5000]
    words = st.text(max_size=8) | st.sampled_from(odd)

    @st.composite
    def mixed(draw: Any) -> bytes:
        text = draw(st.sampled_from(texts))
        for _ in range(draw(st.integers(1, 5))):
            place = draw(st.integers(0, len(text)))
            end = draw(st.integers(place, min(len(text), place + 60)))
            text = text[:place] + draw(words) + text[end:]
        return text.encode("utf-8", "surrogatepass")

    return mixed() | damaged([text.encode() for text in texts])


def image_files(folder: Path) -> list[bytes]:
    """Small files of every kind that is read."""
    import cv2
    from PIL import Image
    from pydicom.data import get_testdata_file
    from test_dicom import region, write_dicom

    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (13, 17), dtype=np.uint8)
    rgb = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    pictures = [Image.fromarray(grey), Image.fromarray(rgb), Image.fromarray(grey > 99)]
    pictures += [Image.fromarray(rgb).convert("P"), Image.fromarray(grey).convert("LA")]
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png", exif=exif)
        picture.save(folder / f"{number}.tif", compression="tiff_lzw" if number % 2 else None)
        if picture.mode != "LA":
            picture.convert("RGB").save(
                folder / f"{number}.jpg", exif=exif, progressive=number == 1
            )
            picture.save(folder / f"{number}.bmp")
    pictures[0].save(folder / "stack.tif", save_all=True, append_images=pictures[1:])
    deep = rng.integers(0, 65536, (9, 8, 3), np.uint16)
    floats = rng.random((9, 8, 3), np.float32)
    for name, values in (("a", deep), ("b", floats), ("c", floats[..., 0])):
        cv2.imwrite(str(folder / f"{name}.tif"), values)
    cv2.imwrite(str(folder / "deep.png"), deep)
    regions = [region((0, 0, 9, 9))]
    write_dicom(folder / "a.dcm", rgb[None], "RGB", SequenceOfUltrasoundRegions=regions)
    write_dicom(folder / "b.dcm", np.stack([grey] * 3), WindowCenter=100, WindowWidth=50)
    names = "SC_rgb_small_odd_jpeg MR_small_RLE MR_small_jpeg_ls_lossless MR_small_jp2klossless "
    for name in (names + "SC_rgb_gdcm_KY JPEGLSNearLossless_08 image_dfl").split():
        shutil.copy(get_testdata_file(f"{name}.dcm", download=False), folder)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def parsers(work: Path) -> dict[str, tuple[st.SearchStrategy, Callable[[Any], object], type]]:
    """Name every parser: what to give it, how to call it, which error it may raise."""
    from unet_lib.dataset import DatasetError, Folds, find_cases, read_audit
    from unet_lib.images import ImageError, as_image, read_frames, read_masks

    samples = work / "samples"
    samples.mkdir()
    files = image_files(samples)
    file = work / "file"

    def image(content: bytes) -> None:
        file.write_bytes(content)
        for frame in read_frames(file):
            values = as_image(frame.pixels, file)
            assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1

    def mask(content: bytes) -> None:
        file.write_bytes(content)
        assert read_masks(file).dtype == bool

    def split(content: bytes) -> None:
        file.write_bytes(content)
        assert Folds.read(file).count >= 1

    def audit(content: bytes) -> None:
        file.write_bytes(content)
        assert all(isinstance(row["group"], str) for row in read_audit(file).values())

    def tree(names: list[tuple[str, int]]) -> None:
        folder = work / "tree"
        shutil.rmtree(folder, ignore_errors=True)
        for name, kind in names:
            plant(folder / name, kind, files)
        find_cases(folder)

    splits = (ROOT / "data" / "splits" / "busi_5fold.csv").read_text().splitlines(True)
    audits = (ROOT / "data" / "busi_audit.csv").read_text().splitlines(True)
    return {
        "image": (damaged(files), image, ImageError),
        "mask": (damaged(files), mask, ImageError),
        "split": (damaged_text(["".join(splits[:9])]), split, DatasetError),
        "audit": (damaged_text(["".join(audits[:9])]), audit, DatasetError),
        "settings": (st.deferred(setting_texts), setting, ValueError),
        "tree": (trees(), tree, DatasetError),
        "model": model_parser(work),
    }


def model_parser(work: Path) -> tuple:
    """Model folders: their settings and their statistics (weights: `test_hdf5`)."""
    from unet_lib.images import Preprocessing
    from unet_lib.inference import Segmenter
    from unet_lib.model import UNetConfig, build_unet
    from unet_lib.weights import WeightsError, load_segmenter, save_segmenter

    config = UNetConfig(filters=2, depth=1)
    segmenter = Segmenter(build_unet(config, 16), Preprocessing(16))
    folder = save_segmenter(segmenter, config, work / "m")
    described = json.loads((folder / "segmenter.json").read_text())
    del described["settings_sha256"]  # or it would refuse every change before it is read
    monitor = (ROOT / "weights" / "busi-fold0" / "shift.json").read_text()
    texts = {"segmenter.json": json.dumps(described, indent=2), "shift.json": monitor}

    def model(given: tuple[str, bytes]) -> None:
        for name, content in ({k: v.encode() for k, v in texts.items()} | dict([given])).items():
            (folder / name).write_bytes(content)
        load_segmenter(folder)

    contents = [st.tuples(st.just(n), damaged_text([text])) for n, text in texts.items()]
    return st.one_of(contents), model, WeightsError


def setting_texts() -> st.SearchStrategy[tuple[str, Any]]:
    """Values of every JSON type for the fields of every settings class, and none of its fields."""
    numbers = st.integers(-(2**70), 2**70) | st.floats()
    values = st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=8,
    )
    fields = {name: list(kind.__dataclass_fields__) for name, kind in setting_classes().items()}
    return st.sampled_from(sorted(fields)).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.dictionaries(st.sampled_from(fields[name]) | st.text(max_size=5), values) | values,
        )
    )


def setting_classes() -> dict[str, type]:
    """Every settings class that is read from JSON."""
    import unet_lib
    from unet_lib.shift import ShiftMonitor

    names = ("Augmentation", "Preprocessing", "Cleaning", "UNetConfig", "Recipe", "TrainingConfig")
    return {"ShiftMonitor": ShiftMonitor} | {name: getattr(unet_lib, name) for name in names}


def setting(given: tuple[str, Any]) -> None:
    """Read settings as from a JSON file, and write what was accepted."""
    kind = setting_classes()[given[0]]
    json.dumps(kind.from_dict(json.loads(json.dumps(given[1]))).to_dict())


def trees() -> st.SearchStrategy[list[tuple[str, int]]]:
    """Folder trees with odd names: (path, kind of entry)."""
    odd = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
    folders = "benign Benign BENIGN normal malignant images Images masks mask archive ünï .hidden"
    folders = [*folders.split(), "a b (1)", "new\nline", "Dataset_BUSI_with_GT", "x" * 120]
    part = st.sampled_from(folders) | odd.filter(lambda text: text not in (".", ".."))
    names = ["a.PNG", "a_mask.png", "a.dcm", "_mask.png", ".png", "a.b.c.tif", "٣.png"]
    names += [f"benign (1){end}.png" for end in ("", "_mask", "_mask_1")] + ["x" * 200 + ".png"]
    name = st.sampled_from(names)
    path = st.tuples(st.lists(part, max_size=3), name | part).map(lambda p: "/".join([*p[0], p[1]]))
    return st.lists(st.tuples(path, st.integers(0, 5)), max_size=12)


def plant(path: Path, kind: int, files: list[bytes]) -> None:
    """Make a picture, a folder, a link to itself or to above, where that is possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind <= 2:
            path.write_bytes(files[hash(path.name) % 3])
        elif kind == 3:
            path.mkdir()
        elif kind == 4:
            path.symlink_to(path.parent)
        else:
            path.symlink_to(path)
    except OSError:  # the name is too long, or something else is there
        pass


def memory(key: str, forget_peak: bool = False) -> int:
    """Return this process's memory now (VmRSS) or at its peak (VmHWM), in bytes.

    Not from getrusage: its peak cannot be forgotten, and a child begins with its parent's.
    """
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":") for line in lines)[key].split()[0]) * 1024


def run(name: str, parser: tuple, count: int, derandomize: bool = False) -> None:
    """Give a parser `count` inputs; raises the first failure, shrunk."""
    strategy, call, documented = parser

    checks = {"suppress_health_check": list(HealthCheck), "deadline": None, "database": None}

    @settings(max_examples=count, derandomize=derandomize, **checks)
    @given(strategy)
    def one(given_input: Any) -> None:
        before = memory("VmRSS", forget_peak=True)
        started = time.process_time()
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            call(given_input)
        except documented as error:
            assert len(str(error)) < 20_000
            if documented is ValueError:  # the settings: their own messages, not Python's
                assert not isinstance(error, UnicodeError | json.JSONDecodeError), error
        finally:
            faulthandler.cancel_dump_traceback_later()
        used = time.process_time() - started
        assert used < SECONDS, f"{used:.1f} s"
        grown = memory("VmHWM") - before
        assert grown < BYTES, f"grew by {grown / 2**20:.0f} MiB"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one()


SHARES = {"image": 0.36, "mask": 0.15, "split": 0.1, "audit": 0.1, "settings": 0.15, "tree": 0.1}
SHARES["model"] = 0.04
