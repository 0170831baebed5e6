"""One phantom in memory: anatomy, lesions, scan, marks; and a folder of them in BUSI's layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.files import draft_folder
from unet_lib.phantoms.lesions import Lesion, add_lesion, draw_lesion
from unet_lib.phantoms.scanner import add_marks, draw_scanner, visible_part
from unet_lib.phantoms.tissue import breast
from unet_lib.settings import Settings

KINDS = ("benign", "malignant", "normal")
PHANTOM_MARKER = "PHANTOMS.json"
"""Lies beside the classes: the folder has BUSI's names and other pictures."""

_GENERATOR = 1  # raised when the same seed gives other pictures: stored folders are made anew
_WORKING_PIXELS = 115_000  # scans are computed at about this size, then enlarged
_WHAT = "synthetic ultrasound phantoms made by unet_lib; no image of a patient"
_KIND = "|".join(KINDS)
_OURS = re.compile(rf"PHANTOMS\.json|({_KIND})(/({_KIND}) \(\d+\)(_mask(_\d+)?)?\.\w+)?")


@dataclass(frozen=True)
class PhantomConfig(Settings):
    """What phantoms look like; ValueError when a share or a size is out of range."""

    benign: float = 0.56  # shares of the classes; BUSI has 56, 27 and 17 %
    malignant: float = 0.27
    second_lesion: float = 0.06  # how often a picture has another, in a mask file of its own
    heights: tuple[int, int] = (330, 600)  # smallest and largest, in pixels, as most of BUSI
    widths: tuple[int, int] = (350, 700)
    marks: bool = True  # whether some pictures carry text, callipers, a scale or black borders

    def __post_init__(self) -> None:
        self.check(benign=(0, 1), malignant=(0, 1 - self.benign + 1e-9), second_lesion=(0, 1))
        for name in ("heights", "widths"):
            value = tuple(getattr(self, name))
            if len(value) != 2 or not 64 <= value[0] <= value[1] <= 4096:
                expected = "must be (smallest, largest) within 64..4096 pixels"
                raise ValueError(f"PhantomConfig: {name} {expected}; received {value}.")
            object.__setattr__(self, name, value)  # a list, when it comes from JSON


@dataclass(frozen=True)
class Phantom:
    """One synthetic picture."""

    name: str  # as BUSI names its files, for example "benign (1)"
    kind: str
    image: np.ndarray  # uint8 (H, W)
    masks: list[np.ndarray]  # bool (H, W), one for each lesion


def make_phantom(
    kind: str,
    seed: int | list[int],
    size: tuple[int, int] | None = None,
    config: PhantomConfig | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Make one picture, uint8 (H, W), and a mask, bool (H, W), for each lesion; never empty.

    `kind` is one of `KINDS`, `size` height and width of at least 64 pixels, drawn when left out.
    The same seed gives the same picture (with the same versions of NumPy and OpenCV).
    """
    if kind not in KINDS or (size is not None and min(size) < 64):
        raise ValueError(
            f"make_phantom: expected a kind among {', '.join(KINDS)} and a size of at least "
            f"(64, 64); received {kind!r} and {size}."
        )
    config = config or PhantomConfig()
    rng = np.random.default_rng(seed)
    drawn = _draw_size(config, rng)
    size = drawn if size is None else size
    shrink = min(1.0, (_WORKING_PIXELS / (size[0] * size[1])) ** 0.5)
    working = tuple(max(48, round(side * shrink)) for side in size)

    tissue = breast(rng, working)
    distances = [add_lesion(tissue, lesion, rng) for lesion in _lesions(kind, config, working, rng)]
    grey = _enlarged(draw_scanner(rng).image(tissue, rng), size)
    image = (np.clip(grey, 0, 1) * 255).astype(np.uint8)
    masks = [_enlarged(distance, size) > 0 for distance in distances]
    if config.marks:
        seen = visible_part(size, rng)
        if all((mask & seen).sum() > 0.6 * mask.sum() for mask in masks):  # no lesion cut away
            image[~seen] = 0
            masks = [mask & seen for mask in masks]
        add_marks(image, masks, rng)
    return image, masks


def phantom_pictures(
    count: int = 6, seed: int = 0, config: PhantomConfig | None = None
) -> Iterator[Phantom]:
    """Yield phantoms in memory: benign ones first, then malignant, then normal.

    ``benign (3)`` of one seed is the same picture whatever `count`, which is that of all classes.
    """
    if count < 1 or seed < 0:
        raise ValueError(
            f"phantoms: count must be 1 or more and seed 0 or more, got {count} and {seed}."
        )
    config = config or PhantomConfig()
    benign = round(count * config.benign)
    malignant = min(round(count * config.malignant), count - benign)
    counts = (benign, malignant, count - benign - malignant)
    for number_of_kind, (kind, of_kind) in enumerate(zip(KINDS, counts, strict=True)):
        for number in range(1, of_kind + 1):
            image, masks = make_phantom(kind, [seed, number_of_kind, number], config=config)
            yield Phantom(f"{kind} ({number})", kind, image, masks)


def _draw_size(config: PhantomConfig, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width; three quarters of the pictures are wider than high by a fifth or so."""
    low, high = config.widths
    width = int(np.clip(rng.normal(0.5 * low + 0.5 * high, 0.25 * (high - low)), low, high))
    height = int(np.clip(width * rng.normal(0.83, 0.09), *config.heights))
    return height, width


def _lesions(
    kind: str, config: PhantomConfig, shape: tuple[int, int], rng: np.random.Generator
) -> list[Lesion]:
    """Draw one or two lesions that do not touch; none for a normal breast."""
    if kind == "normal":
        return []
    first = draw_lesion(kind, rng, min(shape))
    if rng.random() < config.second_lesion:
        for _ in range(20):
            other = draw_lesion(kind, rng, min(shape))
            apart = np.hypot((other.x - first.x) * shape[1], (other.y - first.y) * shape[0])
            if apart > 1.7 * (other.radius + first.radius) * min(shape):
                return [first, other]
    return [first]


def _enlarged(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(field, size[::-1], interpolation=cv2.INTER_CUBIC)


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
    marker = {"what": _WHAT, "generator": _GENERATOR, "seed": int(seed), "count": int(count)}
    marker["config"] = config.to_dict()
    try:
        stored = json.loads((folder / PHANTOM_MARKER).read_text())
    except (OSError, ValueError):
        stored = None
    there = sum(1 for kind in KINDS for _ in folder.glob(f"{kind}/*"))
    if stored == marker | {"files": there}:
        return folder
    _refuse_strangers(folder, isinstance(stored, dict) and stored.get("what") == _WHAT)
    with draft_folder(folder.parent, folder.name) as draft:
        pictures = phantom_pictures(count, seed, config)
        with tqdm(pictures, "phantoms", total=count, unit="image", disable=not progress) as bar:
            marker["files"] = sum(_write(phantom, draft / phantom.kind) for phantom in bar)
        (draft / PHANTOM_MARKER).write_text(json.dumps(marker, indent=1) + "\n")
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
    """Return ``{"data_kind": "phantoms"}``, to join what is said of data, if any is a phantom."""
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


def _refuse_strangers(folder: Path, marked: bool) -> None:
    """Raise if the folder holds anything that this module has not written."""
    if folder.is_file() or folder.is_symlink():
        raise ValueError(f"{folder}: expected a folder for phantoms, received a file or a link.")
    strangers = [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if not marked
        or path.suffix not in ("", ".png", ".json")
        or not _OURS.fullmatch(path.relative_to(folder).as_posix())
    ]
    if strangers:
        raise ValueError(
            f"{folder}: phantoms are written into a new or empty folder or over other phantoms, "
            f"but this one holds {len(strangers)} other files or folders, first {strangers[0]}; "
            "name another folder or move them away"
        )
