"""The command segment: masks, overlays and one table for the user's own images."""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unet_lib.cli.commands import OK, check_out, load_model

_RESULT_OR_MASK = re.compile(r".+_(pred|overlay|mask(_\d+)?)", re.IGNORECASE)


def segment(options: argparse.Namespace) -> int:
    """Segment every image; see ``segment --help``."""
    from unet_lib.images import ImageError, write_image
    from unet_lib.plots.overlay import draw_overlay

    paths = _images(options.inputs)
    check_out(options.out, paths)
    segmenter = load_model(options)
    done: list[Path] = []
    rows: list[list[Any]] = []
    try:
        for path, found in segmenter.segment_files(paths):
            write_image(options.out / f"{path.stem}_pred.png", found.mask)
            overlay = draw_overlay(found.image, found.mask)
            write_image(options.out / f"{path.stem}_overlay.png", overlay)
            rows += _lesion_rows(path, found)
            done.append(path)
    except ImageError as error:
        raise ImageError(
            f"{error} Stopped here; {len(done)} of {len(paths)} images are done."
        ) from error
    finally:  # also on Ctrl-C: the table lists what lies in the folder
        if done:
            _write_lesions(options.out / "lesions.csv", rows)
    empty = sum(row[1] == 0 for row in rows)
    print(f"{len(paths)} images, {empty} without a lesion found; results in {options.out}")
    print("Not a medical device: no mask here replaces a radiologist.")
    return OK


def _lesion_rows(path: Path, found: Any) -> list[list[Any]]:
    rows = [
        [path.name, number, lesion.area, f"{lesion.area / found.mask.size:.6f}",
         lesion.left, lesion.top, lesion.width, lesion.height, f"{lesion.mean_probability:.4f}"]
        for number, lesion in enumerate(found.lesions, start=1)
    ]  # fmt: skip
    return rows or [[path.name, 0, 0, "0.000000", "", "", "", "", ""]]


def _write_lesions(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    from unet_lib.files import write_atomic

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["image", "lesion", "area_px", "area_fraction", "left", "top", "width", "height",
         "mean_probability"]
    )  # fmt: skip
    table.writerows(rows)
    write_atomic(path, text.getvalue())


def _images(inputs: Sequence[Path]) -> list[Path]:
    """List the images to segment; refuse two that would write the same result."""
    paths = [path for item in inputs for path in _images_of(item)]
    stems: dict[str, Path] = {}
    for path in paths:
        other = stems.setdefault(path.stem, path)
        if other.resolve() != path.resolve():
            raise ValueError(
                f"{path} and {other}: both would write {path.stem}_pred.png. Segment them into "
                "different folders."
            )
    return list(stems.values())


def _images_of(item: Path) -> list[Path]:
    from unet_lib.images import IMAGE_SUFFIXES

    if item.is_file():
        return [item]
    if not item.is_dir():
        raise FileNotFoundError(f"{item}: no such image or folder.")
    files = sorted(path for path in item.iterdir() if path.is_file())
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    images = [path for path in images if not path.name.startswith(".")]
    chosen = [path for path in images if not _RESULT_OR_MASK.fullmatch(path.stem)]
    if not chosen:
        raise ValueError(
            f"{item}: holds no image; expected files ending with "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} that are no masks or results (folders within "
            "are not searched)."
        )
    if len(chosen) < len(images):
        print(f"{item}: {len(images) - len(chosen)} masks or earlier results are passed over.")
    return chosen
