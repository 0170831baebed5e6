"""Phantoms on disk, in the layout and with the names of BUSI."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.files import draft_folder
from unet_lib.phantoms.picture import KINDS, Phantom, PhantomConfig, phantom_pictures

PHANTOM_MARKER = "PHANTOMS.json"
"""Lies beside the classes: the folder has BUSI's names and other pictures."""

GENERATOR = 1
"""Raised whenever the same seed gives other pictures, so that a stored folder is made anew."""

_WHAT = "synthetic ultrasound phantoms made by unet_lib; no image of a patient"
_KIND = "|".join(KINDS)
_OURS = re.compile(rf"PHANTOMS\.json|({_KIND})(/({_KIND}) \(\d+\)(_mask(_\d+)?)?\.\w+)?")


def make_phantoms(
    folder: str | os.PathLike,
    count: int = 120,
    seed: int = 0,
    progress: bool = True,
    *,
    config: PhantomConfig | None = None,
) -> Path:
    """Write a folder of phantoms that reads like BUSI.

    ``FOLDER/benign/benign (1).png`` with ``benign (1)_mask.png`` (and ``benign (1)_mask_1.png``
    for a second lesion), the same for ``malignant`` and ``normal``; masks are 1-bit, those of
    normal breasts all black. `PHANTOMS.json` beside the classes says what the folder is, so that
    no result on it passes for a clinical one. The folder appears whole or not at all. One that
    holds these very phantoms is taken as it is; one that holds other phantoms is replaced.

    Parameters
    ----------
    folder : path-like
        Where to write; new, empty, or written by this function.
    count : int
        How many pictures, of all classes together. About a tenth of a second each.
    seed : int
        The same seed writes the same bytes (with the same versions of NumPy and OpenCV).
    progress : bool
        Whether to show a progress bar.
    config : PhantomConfig, optional
        What phantoms look like.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the folder holds anything that is not a phantom, or `count` is below 1.
    """
    folder, config = Path(folder), config or PhantomConfig()
    wanted = {"what": _WHAT, "generator": GENERATOR, "seed": int(seed), "count": int(count)}
    wanted["config"] = config.to_dict()
    if _is_finished(folder, wanted):
        return folder
    _refuse_strangers(folder)
    with draft_folder(folder.parent, folder.name) as draft:
        pictures = phantom_pictures(count, seed, config)
        with tqdm(pictures, "phantoms", total=count, unit="image", disable=not progress) as bar:
            files = sum(_write(phantom, draft / phantom.kind) for phantom in bar)
        (draft / PHANTOM_MARKER).write_text(json.dumps(wanted | {"files": files}, indent=1) + "\n")
        if folder.exists():
            os.replace(folder, draft.with_name("old"))
        os.replace(draft, folder)
    return folder


def is_phantoms(path: str | os.PathLike) -> bool:
    """Whether `make_phantoms` wrote this folder, class folder or picture."""
    path = Path(path).absolute()
    roots = [place for place in (path, *path.parents[:2]) if (place / PHANTOM_MARKER).is_file()]
    return any(r == path or _OURS.fullmatch(path.relative_to(r).as_posix()) for r in roots)


def phantom_kind(images: Iterable[str | os.PathLike]) -> dict[str, str]:
    """Return ``{"data_kind": "phantoms"}`` if any image is a phantom, else nothing.

    Whoever scores or trains adds this to what is said of the data, so that the banner of phantoms
    does not rest on a caller who says so.
    """
    return {"data_kind": "phantoms"} if any(map(is_phantoms, images)) else {}


def _write(phantom: Phantom, folder: Path) -> int:
    """Write picture and masks of one phantom, masks with one bit; return the number of files."""
    folder.mkdir(parents=True, exist_ok=True)
    masks = phantom.masks or [np.zeros(phantom.image.shape, bool)]
    files = {"": (phantom.image, [])}
    for index, mask in enumerate(masks):
        one_bit = (mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
        files[f"_mask_{index}" if index else "_mask"] = one_bit
    for ending, (grey, options) in files.items():
        code = cv2.imencode(".png", grey, options)[1].tobytes()
        (folder / f"{phantom.name}{ending}.png").write_bytes(code)
    return len(files)


def _marker(folder: Path) -> dict[str, Any]:
    """Read the marker file; empty if there is none of ours."""
    try:
        marker = json.loads((folder / PHANTOM_MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) and marker.get("what") == _WHAT else {}


def _is_finished(folder: Path, wanted: dict[str, Any]) -> bool:
    marker = _marker(folder)
    files = marker.pop("files", None)
    return marker == wanted and files == sum(1 for kind in KINDS for _ in folder.glob(f"{kind}/*"))


def _refuse_strangers(folder: Path) -> None:
    """Raise if the folder holds anything that this module has not written."""
    if folder.is_file() or folder.is_symlink():
        raise ValueError(f"{folder}: expected a folder for phantoms, found a file or a link")
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*"))]
    if _marker(folder):
        ours = (p for p in inside if _OURS.fullmatch(p.as_posix()))
        inside = sorted({*inside} - {p for p in ours if p.suffix in ("", ".png", ".json")})
    if inside:
        raise ValueError(
            f"{folder}: phantoms are written into a new or empty folder or over other phantoms, "
            f"but this one holds {len(inside)} other files or folders, first {inside[0]}; "
            "name another folder or move them away"
        )
