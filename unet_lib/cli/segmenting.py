"""The command segment: masks, overlays and one table for the user's own images."""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from unet_lib.cli.models import add_model, check_out, load_model

# The last: the masks of BrEaST, which lie among its images.
_RESULT_OR_MASK = re.compile(
    r".+_(pred|overlay|(masks?|segmentation)(_\d+)?)|case\d+_(tumor|other\d+)", re.IGNORECASE
)

_HEADER = (
    "image,frame,lesion,area_px,area_fraction,left,top,width,height,mean_probability,"
    "area_mm2,width_mm,height_mm,shift_distance,shift_limit,unreadable\n"
)

_SEGMENT = """\
Segment images of any size (PNG, JPEG, BMP, TIFF, WebP, GIF, DICOM). For each, --out gets
NAME_pred.png (0 and 255) and NAME_overlay.png (the outline drawn into the image), both at the size
of the image, and lesions.csv lists the lesions of all images of this call: area, box and mean
probability, and millimetres where a DICOM file says how large its pixels are; lesion 0 stands for
an image in which nothing was found. Of a file with several frames every frame is segmented:
NAME_frame001_pred.png and so on. An image unlike the training images (no ultrasound, inverted,
colour overlay, mostly text) is segmented with a warning and its distance from them. Nothing of a
DICOM header goes into the results, but their names are those of the files. Of a folder, the images
lying in it are taken, not those of folders within; masks (*_mask) and earlier results (*_pred,
*_overlay) are passed over.
An image that cannot be read is named at the end and in lesions.csv, with the reason; all others are
done. The exit code is 1 then.
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    sub = command("segment", segment, "Segment images: mask, overlay and a table.", _SEGMENT)
    sub.add_argument("inputs", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    add_model(sub)
    sub.add_argument(
        "--out", type=Path, required=True, help="folder for the results; holds no input image"
    )


def segment(options: argparse.Namespace) -> int:
    """Segment every image; see ``segment --help``."""
    from unet_lib.files import folder_lock

    paths = _images(options.inputs)
    check_out(options.out, paths)
    segmenter = load_model(options)
    if not segmenter.monitor:
        print(
            "The model has no statistics of its training images (shift.json): nothing can be said"
            " on whether an image is unlike them."
        )
    with folder_lock(options.out):
        return _segment(segmenter, paths, options)


def _segment(segmenter: Any, paths: Sequence[Path], options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from unet_lib.files import WriteError
    from unet_lib.images import write_image
    from unet_lib.inference import UnreadableImages
    from unet_lib.plots.overlay import draw_overlay

    out: Path = options.out
    unreadable: UnreadableImages | None = None
    written: dict[str, Path] = {}
    unlike = 0
    rows: list[list[Any]] = []
    try:
        for path, result in segmenter.segment_files(paths):
            if not written:  # a killed process shall not leave new masks beside an old table
                (out / "lesions.csv").unlink(missing_ok=True)
            name = _result_name(path, result.frame, written)
            write_image(out / f"{name}_pred.png", result.mask)
            overlay = draw_overlay(result.image, result.mask)
            write_image(out / f"{name}_overlay.png", overlay)
            rows += _lesion_rows(path, result)
            if result.shift and result.shift.flagged:
                unlike += 1
                tqdm.write(f"warning: {path}, {name}_pred.png: {result.shift}", file=sys.stderr)
    except UnreadableImages as error:  # raised when all others are done
        unreadable = error
        rows += [[path.name, *[""] * 14, reason] for path, reason in sorted(error.reasons.items())]
    except BaseException:  # also on Ctrl-C: the table lists what lies in the folder
        if rows:
            with suppress(WriteError):
                _write_lesions(out / "lesions.csv", rows)
        raise
    _write_lesions(out / "lesions.csv", rows)
    empty = sum(row[2] == 0 for row in rows)
    count = len(paths) - (len(unreadable.reasons) if unreadable else 0)
    more = f" with {len(written)} frames" if len(written) > count else ""
    print(f"{count} images{more}, {empty} without a lesion found; results in {out}")
    if unlike:
        print(
            f"{unlike} of {len(written)} are unlike the training images, see the warnings: "
            "their masks are not to be trusted."
        )
    print("Not a medical device: no mask here replaces a radiologist.")
    if unreadable:
        print(f"unet_lib segment: {unreadable}", file=sys.stderr)
        return 1
    return 0


def _result_name(path: Path, frame: Any, written: dict[str, Path]) -> str:
    """Name the results of one frame; refuse a name that another file's frame already has."""
    from unet_lib.images import picture_name

    digits = max(3, len(str(frame.count)))
    name = picture_name(path) + (f"_frame{frame.number:0{digits}}" if frame.count > 1 else "")
    if name in written:
        raise ValueError(
            f"{path} and {written[name]}: both would write {name}_pred.png. Segment them into "
            "different folders."
        )
    written[name] = path
    return name


def _lesion_rows(path: Path, result: Any) -> list[list[Any]]:
    number, shift = result.frame.number, ["", ""]
    if result.shift:
        shift = [f"{result.shift.distance:.2f}", f"{result.shift.limit:.2f}"]
    rows = [
        [
            path.name,
            *(number, index, lesion.area, f"{lesion.area / result.mask.size:.6f}"),
            *(lesion.left, lesion.top, lesion.width, lesion.height),
            f"{lesion.mean_probability:.4f}",
            *map(_millimetres, (lesion.area_mm2, lesion.width_mm, lesion.height_mm)),
            *shift,
            "",
        ]
        for index, lesion in enumerate(result.lesions, start=1)
    ]
    return rows or [[path.name, number, 0, 0, "0.000000", *[""] * 8, *shift, ""]]


def _millimetres(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _write_lesions(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    from unet_lib.files import write_atomic

    text = io.StringIO()
    text.write(_HEADER)
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(path, text.getvalue())


def _images(inputs: Sequence[Path]) -> list[Path]:
    """List the images to segment; refuse two that would write the same result."""
    paths = [path for item in inputs for path in _images_of(item)]
    from unet_lib.images import picture_name

    stems: dict[str, Path] = {}
    for path in paths:
        name = picture_name(path)
        other = stems.setdefault(name, path)
        if other.resolve() != path.resolve():
            raise ValueError(
                f"{path} and {other}: both would write {name}_pred.png. Segment them into "
                "different folders."
            )
    return list(stems.values())


def _images_of(item: Path) -> list[Path]:
    from unet_lib.dataset import left_out
    from unet_lib.images import IMAGE_SUFFIXES, is_picture, picture_name

    if item.is_file():
        return [item]
    if not item.is_dir():
        raise FileNotFoundError(f"{item}: no such image or folder.")
    files = sorted(path for path in item.iterdir() if path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    images = [path for path in files if is_picture(path)]
    chosen = [path for path in images if not _RESULT_OR_MASK.fullmatch(picture_name(path))]
    left = left_out(item, chosen, _RESULT_OR_MASK)
    if not chosen:
        raise ValueError(
            f"{item}: holds no image; expected files ending with "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} (DICOM also without) that are no masks or "
            f"results; folders within are not searched. {left.text}".rstrip()
        )
    replace(left, lost=[path for path in left.lost if path.parent == item]).refuse_half()
    print(left)
    return chosen
