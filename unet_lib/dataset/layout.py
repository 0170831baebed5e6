"""Find the images and masks of a folder: BUSI's layout, its variants, and published sets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from unet_lib.dataset.cases import LABELS, Case, DatasetError
from unet_lib.dataset.groups import known_groups
from unet_lib.dataset.medsegbench import unpack_npz
from unet_lib.dataset.published import LAYOUTS, Layout
from unet_lib.images import IMAGE_SUFFIXES

BUSI_NAME = "Dataset_BUSI_with_GT"
EXPECTED = f"""Expected one of:
  {BUSI_NAME}/benign/benign (1).png + benign (1)_mask.png (+ benign (1)_mask_1.png), also
      malignant/ and normal/; or a folder that holds {BUSI_NAME} or archive/{BUSI_NAME}
  benign/images/NAME.png + benign/masks/NAME.png, also malignant/ and normal/
  images/NAME.png + masks/NAME.png, also masks/0/NAME.png
  MedSegBench's file busi_256.npz
""" + "\n".join(f"  {layout.expected}" for layout in LAYOUTS)

_CLASSES = LABELS[:3]
_INNER = (BUSI_NAME, f"archive/{BUSI_NAME}", "BUSBRA", "BUS-UCLM")  # as the archives unpack
_BUSI_NAMES = re.compile(r"(benign|malignant|normal) \(\d+\)")
_MASK = re.compile(r"(?P<image>.+)_mask(?:_\d+)?$", re.IGNORECASE)
_OUTPUT = re.compile(r".+_(?:pred|overlay)$", re.IGNORECASE)
_MANY = 5  # names shown in one message


@dataclass
class _Found:
    """Images and masks of one class, by stem."""

    label: str
    images: dict[str, Path]
    masks: dict[str, list[Path]]


def find_cases(
    folder: str | os.PathLike,
    *,
    audit: str | os.PathLike | None = "auto",
    require_masks: bool = True,
) -> list[Case]:
    """List the cases of a folder, in a fixed order.

    Parameters
    ----------
    folder : path-like
        BUSI in its own layout, a folder that holds it (also as ``archive/``), class folders with
        ``images`` and ``masks``, ``images`` and ``masks`` (or ``masks/0``) with equal stems,
        BUS-BRA, BUS-UCLM, BrEaST, or a .npz file of MedSegBench, which is unpacked beside itself.
        Files named ``*_pred`` and ``*_overlay`` (our own results) and hidden files are passed
        over.
    audit : path-like, "auto" or None
        CSV with the columns ``image`` and ``group``. "auto" takes the folder's ``groups.csv``,
        else the project's list when the folder is BUSI (all its names and classes) or a part of
        it (names, classes and sizes of the pictures agree). Pictures of one patient are joined
        with either. None: no groups. Near-duplicates are searched by `find_groups`.
    require_masks : bool
        Whether a lesion image without mask is an error. A normal image never needs one.

    Returns
    -------
    list of Case
        Sorted by class, then by name with numbers in numerical order.

    Raises
    ------
    DatasetError
        Wrong or empty folder, image without mask, mask without image, two files of one name,
        images and table of a published set that do not fit, marks of two sets in one folder.
    """
    root = find_root(Path(folder))
    layout = _published(root)
    if layout:
        cases = _ordered(layout.read(root, require_masks))
    else:
        found = _find(root)
        if not found:
            raise DatasetError(f"{folder}: no images found where they should be. {EXPECTED}")
        for part in found:
            _check_complete(part, require_masks)
        cases = _build(found)
    if not cases:
        raise DatasetError(f"{folder}: {_what_is_there(root)} {EXPECTED}")
    return known_groups(cases, root, audit)[0]


def _published(root: Path) -> Layout | None:
    """Return the published set that lies in the folder, if one does."""
    known = [layout for layout in LAYOUTS if layout.recognise(root)]
    names = [layout.name for layout in known]
    if known and any(label in _subfolders(root) for label in _CLASSES):
        names.append("class folders")
    if len(names) > 1:
        raise DatasetError(
            f"{root}: has the marks of {' and of '.join(names)}; which is meant cannot be known. "
            "Give each data set a folder of its own."
        )
    return known[0] if known else None


def _what_is_there(root: Path) -> str:
    endings = sorted({p.suffix.lower() for p in root.rglob("*") if p.is_file()} - {""})
    return (
        "the folders are there but hold no image (files there end with: "
        f"{', '.join(endings) or 'there are none'}; endings that are read: "
        f"{', '.join(sorted(IMAGE_SUFFIXES))})."
    )


def find_root(folder: Path) -> Path:
    """Return the folder that holds the images' folders: `folder` itself or a set inside it.

    A .npz file of MedSegBench is unpacked.

    Raises
    ------
    DatasetError
        `folder` is missing or is a file, or holds several sets.
    """
    if folder.suffix.lower() == ".npz" and folder.is_file():
        return unpack_npz(folder)
    if not folder.exists():
        raise DatasetError(f"{folder}: no such folder. {EXPECTED}")
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is a file; a folder is needed. {EXPECTED}")
    inner = [folder / name for name in _INNER if (folder / name).is_dir()]
    if len({path.name for path in inner}) > 1:
        raise DatasetError(
            f"{folder}: holds several data sets, {', '.join(p.name for p in inner)}; name one."
        )
    return inner[0] if inner else folder


def holds_cases(root: Path) -> bool:
    """Whether a folder has class folders, ``images`` and ``masks``, or a published set."""
    if not root.is_dir():
        return False
    children = _subfolders(root)
    return any(label in children for label in _CLASSES) or bool(_pair(children) or _published(root))


def _subfolders(folder: Path) -> dict[str, Path]:
    return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}


def _find(root: Path) -> list[_Found]:
    children = _subfolders(root)
    if any(label in children for label in _CLASSES):
        return [_find_class(children[c], c) for c in _CLASSES if c in children]
    pair = _pair(children)
    return _by_name(_find_pair("unknown", *pair)) if pair else []


def _by_name(found: _Found) -> list[_Found]:
    """Tell the classes by the names where every image is named as in BUSI."""
    named = {stem: _BUSI_NAMES.fullmatch(stem) for stem in (*found.images, *found.masks)}
    if not all(named.values()):
        return [found]

    def part(label: str) -> _Found:
        chosen = [
            {stem: value for stem, value in files.items() if named[stem][1] == label}
            for files in (found.images, found.masks)
        ]
        return _Found(label, *chosen)

    return [part(label) for label in _CLASSES]


def _pair(children: dict[str, Path]) -> tuple[Path, Path] | None:
    images = children.get("images") or children.get("image")
    masks = children.get("masks") or children.get("mask")
    return (images, masks) if images and masks else None


def _find_class(folder: Path, label: str) -> _Found:
    pair = _pair(_subfolders(folder))
    if pair:
        return _find_pair(label, *pair)
    files = _by_stem(folder)
    masks: dict[str, list[Path]] = {}
    images = {}
    for stem, path in files.items():
        match = _MASK.match(stem)
        if match:
            masks.setdefault(match["image"], []).append(path)
        else:
            images[stem] = path
    return _Found(label, images, masks)


def _find_pair(label: str, image_folder: Path, mask_folder: Path) -> _Found:
    images = _by_stem(image_folder)
    masks: dict[str, list[Path]] = {}
    for stem, path in _by_stem(_class_of_masks(mask_folder)).items():
        match = _MASK.match(stem)
        owner = match["image"] if match and stem not in images else stem
        masks.setdefault(owner, []).append(path)
    return _Found(label, images, masks)


def _class_of_masks(folder: Path) -> Path:
    """Return the folder itself, or the one class folder (``0``) in it, as of UNeXt."""
    numbered = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.isdecimal()]
    if not numbered:
        return folder
    if len(numbered) > 1 or _by_stem(folder):
        raise DatasetError(
            f"{folder}: holds {', '.join(p.name + '/' for p in numbered)} and "
            f"{len(_by_stem(folder))} images beside; which masks are the lesions cannot be known. "
            "Keep one folder of masks."
        )
    return numbered[0]


def _by_stem(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem, without our own results; a stem twice is an error."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        stem = path.stem
        if path.suffix.lower() not in IMAGE_SUFFIXES or stem.startswith("."):
            continue
        if _OUTPUT.match(stem) or not path.is_file():
            continue
        if stem in files:
            raise DatasetError(
                f"{folder}: {files[stem].name} and {path.name} have the same name before the "
                "ending; which one is meant cannot be known. Remove or rename one."
            )
        files[stem] = path
    return files


def _check_complete(found: _Found, require_masks: bool) -> None:
    orphans = [p for stem, paths in found.masks.items() if stem not in found.images for p in paths]
    if orphans:
        raise DatasetError(
            f"{_some(orphans)}: mask without an image of the same name. Add the image, or remove "
            f"the mask. {EXPECTED}"
        )
    if not require_masks or found.label == "normal":
        return
    bare = [path for stem, path in found.images.items() if stem not in found.masks]
    if bare:
        raise DatasetError(
            f"{_some(bare)}: image without a mask (only normal images may go without). Add "
            f"{bare[0].stem}_mask.png, or take the image out. {EXPECTED}"
        )


def _some(paths: list[Path]) -> str:
    text = ", ".join(str(p) for p in paths[:_MANY])
    return text + (f" and {len(paths) - _MANY} more" if len(paths) > _MANY else "")


def _build(found: Iterable[_Found]) -> list[Case]:
    cases = [
        Case(stem, part.label, path, tuple(part.masks.get(stem, ())), stem)
        for part in found
        for stem, path in part.images.items()
    ]
    if len({c.name for c in cases}) < len(cases):  # benign/1.png beside malignant/1.png
        cases = [replace(c, name=n, group=n) for c in cases for n in [f"{c.label} ({c.name})"]]
    return _ordered(cases)


def _ordered(cases: Iterable[Case]) -> list[Case]:
    return sorted(cases, key=lambda c: (LABELS.index(c.label), natural_key(c.name)))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that orders ``benign (2)`` before ``benign (10)``."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p.lower()) for p in parts] + [(0, 0, text)]
