"""The command segment: masks, overlays and one table for the user's own images."""

from __future__ import annotations

import argparse
import re
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from unet_lib.cli.models import add_model, check_out, load_model

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

_VIEW = """\
Serve a page on this machine only: drop images or a folder on it, see each with its mask, move the
threshold, accept or discard, and download masks, overlays and tables as one zip. Nothing leaves the
machine, and what was dropped is deleted at the end. Needs pip install -r requirements-viewer.txt.
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    sub = command("segment", segment, "Segment images: mask, overlay and a table.", _SEGMENT)
    sub.add_argument("inputs", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    add_model(sub)
    sub.add_argument(
        "--out", type=Path, required=True, help="folder for the results; holds no input image"
    )
    sub.add_argument(
        "--threshold", type=float, help="probability of a lesion's pixels (the model's)"
    )
    sub.add_argument(
        "--minimum-peak",
        type=float,
        metavar="P",
        help="only components in which a pixel reaches this probability (the model's); 0.95 marks "
        "fewer normals and misses more lesions, see the model's CARD.md",
    )
    sub = command("view", _view, "Open a local page to drop images on.", _VIEW)
    sub.add_argument("--model", help="as for segment; left out: the best that is installed")
    sub.add_argument("--port", type=int, default=8080, help="of the page's address")


def _view(options: argparse.Namespace) -> None:
    socket.create_server(("127.0.0.1", options.port)).close()  # before the seconds of loading
    try:
        from unet_lib.viewer import serve
    except ModuleNotFoundError as error:
        if error.name != "nicegui":
            raise
        raise ValueError("needs NiceGUI: pip install -r requirements-viewer.txt") from error
    from unet_lib.weights import load_segmenter, registered_models

    segmenter = load_segmenter(options.model or registered_models()[0])
    print(f"http://127.0.0.1:{options.port}/  Ctrl-C ends it. Not a medical device.", flush=True)
    serve(segmenter, options.port)


def segment(options: argparse.Namespace) -> int:
    """Segment every image; see ``segment --help``."""
    from unet_lib.files import folder_lock
    from unet_lib.inference.segmentation import check_threshold

    paths = _images(options.inputs)
    check_out(options.out, paths)
    segmenter = load_model(options, runtime="auto")
    if options.threshold is not None:
        segmenter.threshold = check_threshold(options.threshold)
    if options.minimum_peak is not None:
        segmenter.cleaning = replace(segmenter.cleaning, minimum_peak=options.minimum_peak)
    if not segmenter.monitor:
        print(
            "The model has no statistics of its training images (shift.json): nothing can be said"
            " on whether an image is unlike them."
        )
    with folder_lock(options.out):
        return _segment(segmenter, paths, options.out)


def _segment(segmenter: Any, paths: Sequence[Path], out: Path) -> int:
    from tqdm import tqdm

    from unet_lib.files import WriteError
    from unet_lib.inference import LESIONS, UnreadableImages, write_lesions

    bad: dict[Path, Any] = {}
    written: dict[str, Path] = {}
    unlike = 0
    rows: list[dict[str, Any]] = []
    try:
        for path, result in segmenter.segment_files(paths):
            if not written:  # a killed process shall not leave new masks beside an old table
                (out / LESIONS).unlink(missing_ok=True)
            _take_name(written, result.result_name, path)
            mask = result.save(out, table=False)
            rows += result.rows()
            if result.shift and result.shift.flagged:
                unlike += 1
                tqdm.write(f"warning: {path}, {mask.name}: {result.shift}", file=sys.stderr)
    except UnreadableImages as error:  # raised when all others are done
        bad, reason = error.reasons, str(error)
        rows += [{"image": path.name, "unreadable": bad[path]} for path in sorted(bad)]
    except BaseException:  # also on Ctrl-C: the table lists what lies in the folder
        if rows:
            with suppress(WriteError):
                write_lesions(out / LESIONS, rows)
        raise
    write_lesions(out / LESIONS, rows)
    empty = sum(row.get("lesion") == 0 for row in rows)
    count = len(paths) - len(bad)
    more = f" with {len(written)} frames" if len(written) > count else ""
    marked = f"a lesion marked in {len(written) - empty}, nothing in {empty}"
    print(f"images: {count}{more}; {marked}; masks, overlays and {LESIONS} in {out}")
    if unlike:
        print(
            f"{unlike} of {len(written)} are unlike the training images, see the warnings: "
            "their masks are not to be trusted."
        )
    print("Not a medical device: no mask here replaces a radiologist.")
    if bad:
        print(f"unet_lib segment: {reason}", file=sys.stderr)
    return int(bool(bad))


def _take_name(taken: dict[str, Path], name: str, path: Path) -> None:
    """Refuse a second file that would write the same results."""
    other = taken.setdefault(name, path)
    if other.resolve() != path.resolve():
        raise ValueError(
            f"{path} and {other}: both would write {name}_pred.png. Segment them into different "
            "folders."
        )


def _images(inputs: Sequence[Path]) -> list[Path]:
    """List the images to segment, each once; refuse two that would write the same result."""
    from unet_lib.images import picture_name

    named: dict[str, Path] = {}
    for path in (path for item in inputs for path in _images_of(item)):
        _take_name(named, picture_name(path), path)
    return list(named.values())


def _images_of(item: Path) -> list[Path]:
    from unet_lib.dataset import left_out
    from unet_lib.dataset.layouts import MASK, OUTPUT
    from unet_lib.images import IMAGE_SUFFIXES, is_picture, picture_name

    # The last: the masks of BrEaST, which lie among its images.
    unwanted = re.compile(
        rf"{OUTPUT.pattern}|{MASK.pattern}|case\d+_(tumor|other\d+)", re.IGNORECASE
    )
    if item.is_file():
        return [item]
    if not item.is_dir():
        raise FileNotFoundError(f"{item}: no such image or folder.")
    files = sorted(path for path in item.iterdir() if path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    images = [path for path in files if is_picture(path)]
    chosen = [path for path in images if not unwanted.fullmatch(picture_name(path))]
    left = left_out(item, chosen, unwanted)
    if not chosen:
        raise ValueError(
            f"{item}: holds no image; expected files ending with "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} (or pictures by their content) that are "
            f"no masks or results; folders within are not searched. {left.text}".rstrip()
        )
    replace(left, lost=[path for path in left.lost if path.parent == item]).refuse_half()
    print(left)
    return chosen
