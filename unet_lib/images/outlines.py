"""Outlines of LabelMe (https://github.com/wkentaro/labelme), read as masks."""

from __future__ import annotations

import base64
from contextlib import suppress
from io import BytesIO
from math import dist
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unet_lib.files import read_json
from unet_lib.images.frames import MAX_PIXELS, ImageError, picture_name


def is_outline(path: Path) -> bool:
    """Whether a file is of LabelMe, by its content."""
    if path.name.startswith(".") or not path.is_file():
        return False
    with suppress(PermissionError), path.open("rb") as file:  # told where it is decoded
        head = file.read(4096).replace(b"\0", b"")  # of UTF-16; the picture may stand behind
        return head.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t").startswith(b"{") and b'"shapes"' in head
    return False


def outlines_in(folder: Path) -> dict[str, Path]:
    """Files of LabelMe in a folder, by stem; ImageError where not all outline the same."""
    files = {picture_name(path): path for path in sorted(folder.iterdir()) if is_outline(path)}
    labels = {str(s.get("label")).lower() for path in files.values() for s in _outline(path)[1]}
    if len(labels) > 1 and labels != {"benign", "malignant"}:
        raise ImageError(
            f"{folder}: the outlines have several labels, {', '.join(sorted(labels)[:5])}; which "
            "are lesions cannot be known. Keep those of lesions, under one label."
        )
    return files


def draw_outline(path: Path) -> np.ndarray:
    """Draw the shapes of a file: uint8 (H, W), 0 and 255."""
    size, shapes = _outline(path)
    mask = Image.new("L", size)
    for shape in shapes:
        try:
            _fill(mask, shape)
        except Exception as error:  # Pillow raises many unrelated types
            raise ImageError(
                f"{path}: a shape of type {shape.get('shape_type')!r} cannot be filled ({error}). "
                "Draw lesions as polygons of three points or more, rectangles, circles or masks."
            ) from error
    return np.asarray(mask)


def _outline(path: Path) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Return width and height of the picture, and the shapes."""
    try:
        data = read_json(path)
        size, shapes = (int(data["imageWidth"]), int(data["imageHeight"])), data["shapes"]
        if not 0 < size[0] * size[1] <= MAX_PIXELS or min(size) < 0:
            raise ValueError(f"a picture of {size[1]} x {size[0]} pixels")
        return size, [dict(shape) for shape in shapes]
    except (LookupError, TypeError, ValueError) as error:
        raise ImageError(
            f"{path}: no outlines of LabelMe ({error}); expected shapes, imageHeight, imageWidth. "
            "Save it again with LabelMe, or save the mask as PNG."
        ) from error


def _fill(mask: Image.Image, shape: dict[str, Any]) -> None:
    """Fill one shape as LabelMe's own export does, so that both give the same mask."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    kind, draw = shape.get("shape_type") or "polygon", ImageDraw.Draw(mask)
    if kind == "polygon" and len(points) > 2:
        draw.polygon(points, 255, 255)
    elif kind == "rectangle":
        corners = np.sort(points, axis=0)  # drawn from any corner
        draw.rectangle([*corners[0], *corners[1]], 255, 255)
    elif kind == "circle":
        draw.circle(points[0], dist(*points), 255, 255)
    elif kind == "mask":
        part = Image.open(BytesIO(base64.b64decode(shape["mask"])), formats=("PNG",))
        marked = part.convert("L").point([0] + [255] * 255)
        mask.paste(255, [round(side) for side in points[0]], marked)
    else:
        raise ValueError(f"{len(points)} points")
