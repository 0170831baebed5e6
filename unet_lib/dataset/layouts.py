"""Where images and masks lie in a data folder: one row of `LAYOUTS` for each way it may look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from unet_lib.dataset.cases import LABELS, Case, DatasetError, natural_key, read_table
from unet_lib.images import IMAGE_SUFFIXES, is_outline, is_picture, outlines_in, picture_name

BUSI_NAME = "Dataset_BUSI_with_GT"

OUTPUT = re.compile(r".+_(?:pred|overlay)", re.IGNORECASE)
"""Names, without ending, of our own results."""

_CLASSES = LABELS[:3]
_BUSI_NAMES = re.compile(r"(benign|malignant|normal) \(\d+\)")
_WORD = r"(?:masks?|seg|segmentation|gt|ground[ _-]?truth|label|annotation)"
MASK = re.compile(
    rf"{_WORD}[ _.-]+(?P<of>.+)|(?P<image>.+?)[ _.(-]+{_WORD}\)?(?:[ _-]?\(?\d+\)?)?", re.IGNORECASE
)
"""Names, without ending, of masks beside their images: ``NAME_mask_1``, ``mask_NAME``."""

_IMAGES = ("images", "image", "imgs", "jpegimages")  # also as of VOC, CVAT and labelme2voc
_MASKS = ("masks", "mask", "labels", "label", "gt", "segmentationclass", "segmentationclasspng")
_MANY = 5  # names shown in one message


class Layout(NamedTuple):
    """A way in which a data set lies in its folder."""

    name: str
    expected: str  # the tree, for messages
    recognise: Callable[[Path], bool]
    read: Callable[[Path], list[Case]]  # masks that it names and that are not there are reported
    unpacks_to: str = ""  # folder in the archive: one above it may be named too
    mask_rule: str | None = None  # of `MaskSet`


def expected() -> str:
    """Every tree that is read, for messages."""
    return "Expected one of:\n" + "\n".join(f"  {layout.expected}" for layout in LAYOUTS)


def recognised(root: Path) -> Layout | None:
    """Return the layout of a folder; images beside masks only where nothing else is marked."""
    marked = [layout for layout in LAYOUTS if layout.recognise(root)]
    for weak in (_ONE_FOLDER, _PAIR):
        if len(marked) > 1 and weak in marked:
            marked.remove(weak)
    if len(marked) > 1:
        raise DatasetError(
            f"{root}: has the marks of {' and of '.join(one.name for one in marked)}; which is "
            "meant cannot be known. Give each data set a folder of its own."
        )
    return marked[0] if marked else None


# --- what the layouts share ------------------------------------------------------------------


def subfolders(folder: Path) -> dict[str, Path]:
    """Folders in a folder by their name in lower case."""
    return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}


def pictures(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem, without our own results; a stem twice is an error."""
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: no such folder; it is a part of the data set. Unpack it whole."
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        stem = picture_name(path)
        if (
            stem.startswith(".")
            or OUTPUT.fullmatch(stem)
            or not path.is_file()
            or not is_picture(path)
        ):
            continue
        if stem in files:
            raise DatasetError(
                f"{folder}: {files[stem].name} and {path.name} have the same name before the "
                "ending; which one is meant cannot be known. Remove or rename one."
            )
        files[stem] = path
    return files


def refuse(names: Iterable[str | Path], what: str) -> None:
    """Raise where there are any names."""
    if names := list(names):
        more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
        raise DatasetError(f"{', '.join(map(str, names[:_MANY]))}{more}: {what}")


def _refuse_orphans(masks: Iterable[Path], images: Iterable[str]) -> None:
    named = ", ".join(map(repr, list(images)[:_MANY])) or "none"
    text = f"mask without an image of the same name (images: {named}). Add the image, rename, or "
    refuse(masks, f"{text}remove the mask.")


# --- class folders, images beside masks ------------------------------------------------------


def _class_folders(root: Path) -> list[Case]:
    children = subfolders(root)
    return [c for label in _CLASSES if label in children for c in _class(children[label], label)]


def _class(folder: Path, label: str) -> list[Case]:
    if _pair(folder):
        return _images_and_masks(folder, label)
    files = pictures(folder)
    masks = {stem: path for stem, path in files.items() if MASK.fullmatch(stem)}
    images = {stem: path for stem, path in files.items() if stem not in masks}
    return _matched(images, masks, outlines_in(folder), label)


def _pair(folder: Path) -> tuple[Path, Path] | None:
    children = subfolders(folder)
    images, masks = (
        next((children[name] for name in names if name in children), None)
        for names in (_IMAGES, _MASKS)
    )
    return (images, masks) if images and masks else None


def _images_and_masks(folder: Path, label: str = "") -> list[Case]:
    """Read ``images`` and ``masks``; the class is in the names where all are named as in BUSI."""
    images, masks = _pair(folder)
    numbered = [path for name, path in subfolders(masks).items() if name.isdecimal()]
    if len(numbered) == 1 and not pictures(masks):
        masks = numbered[0]  # that of the one class, as of UNeXt
    outlines = outlines_in(images) | outlines_in(masks)
    cases = _matched(pictures(images), pictures(masks), outlines, label or "unknown")
    named = [_BUSI_NAMES.fullmatch(case.name) for case in cases]
    if label or not all(named):
        return cases
    return [replace(case, label=name[1]) for case, name in zip(cases, named, strict=True)]


def _matched(
    images: dict[str, Path], masks: dict[str, Path], outlines: dict[str, Path], label: str
) -> list[Case]:
    """Give every image its masks, or else its outlines: ``NAME``, ``NAME.jpg``, ``NAME_mask_1``.

    Capitals are told apart only where two images differ in them alone; see `MASK`.
    """
    owned: dict[str, list[Path]] = {stem: [] for stem in images}
    lower = {stem.casefold(): stem for stem in images}
    orphans = [path for stem, path in outlines.items() if stem not in images]
    for stem, path in masks.items():
        match = MASK.fullmatch(stem)
        owner = match["image"] or match["of"] if match and stem not in images else stem
        if owner not in images and Path(owner).suffix.lower() in IMAGE_SUFFIXES:
            owner = Path(owner).stem
        if owner not in images and len(lower) == len(images):
            owner = lower.get(owner.casefold(), owner)
        owned.get(owner, orphans).append(path)
    _refuse_orphans(orphans, images)
    for stem in outlines.keys() - {stem for stem, paths in owned.items() if paths}:
        owned[stem].append(outlines[stem])
    return [Case(stem, label, path, tuple(owned[stem]), stem) for stem, path in images.items()]


# --- published sets: a table has one row for each image ---------------------------------------


def from_table(
    table: Path,
    columns: Sequence[str],
    folders: tuple[Path, Path],
    masks_of: Callable[[str, dict[str, str]], Iterable[str]],
    patient_of: Callable[[str, dict[str, str]], str],
) -> list[Case]:
    """Read images and masks that a table lists: its first column is the image, the last the class.

    Images and masks may lie in one folder; `masks_of` gives the stems of an image's masks.
    """
    rows = [{k: cell.strip() for k, cell in row.items()} for row in read_table(table, columns)]
    stems = [PureWindowsPath(row[columns[0]]).stem for row in rows]  # either slash
    owned = [list(masks_of(stem, row)) for stem, row in zip(stems, rows, strict=True)]
    used = {mask for masks in owned for mask in masks}
    images, masks = (pictures(folder) for folder in folders)
    if folders[0] == folders[1]:
        images = {stem: path for stem, path in images.items() if stem not in used}
        masks = {stem: path for stem, path in masks.items() if stem in used}
    repeated = [stem for stem, count in Counter(stems).items() if count > 1]
    refuse(repeated, f"listed more than once in {table}. Leave one row.")
    absent = [stem for stem in stems if stem not in images]
    refuse(absent, f"{table} has this row without its image. Add it, or remove the row.")
    extra = [path for stem, path in images.items() if stem not in stems]
    refuse(extra, f"image without a row in {table.name}. Add the row, or remove the image.")
    cases = []
    for stem, row, own in zip(stems, rows, owned, strict=True):
        label, patient = row[columns[-1]].lower(), patient_of(stem, row)
        if label not in _CLASSES or not patient:
            raise DatasetError(
                f"{table}: {stem}: class {row[columns[-1]]!r}, patient {patient!r}; expected a "
                f"class ({', '.join(_CLASSES)}) and the patient's number or name."
            )
        paths = tuple(masks.get(mask, folders[1] / f"{mask}.png") for mask in own)
        cases.append(Case(stem, label, images[stem], paths, stem, patient))
    _refuse_orphans((path for stem, path in masks.items() if stem not in used), images)
    return cases


def _folders(root: Path, *names: str) -> tuple[Path, ...]:
    return tuple(subfolders(root).get(name.lower(), root / name) for name in names)


def _bus_bra(root: Path) -> list[Case]:
    """Gomez-Flores et al., Medical Physics 2024, doi:10.5281/zenodo.8231412."""
    return from_table(
        root / "bus_data.csv",
        ("ID", "Case", "Pathology"),
        _folders(root, "Images", "Masks"),
        lambda stem, row: [f"mask_{stem.removeprefix('bus_')}"],
        lambda stem, row: row["Case"] and f"case {row['Case']}",
    )


def _bus_uclm(root: Path) -> list[Case]:
    """Vallez et al., Scientific Data 2025, doi:10.17632/7fvgj4jsp7."""
    return from_table(
        root / "INFO.csv",
        ("Image", "Label"),
        _folders(root, "images", "masks"),
        lambda stem, row: [stem],
        lambda stem, row: stem.rpartition("_")[0],
    )


def _breast_tables(root: Path) -> list[Path]:
    """Tables of clinical data: by their name, or by a column that no other set has."""
    tables = []
    for path in sorted(root.iterdir()):
        named = path.name.lower().startswith("breast-lesions")
        if path.suffix.lower() == ".csv" and path.is_file() and not named:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                named = "image_filename" in file.readline().lower()
        if named and path.suffix.lower() in (".csv", ".xlsx"):
            tables.append(path)
    return tables


def _breast(root: Path) -> list[Case]:
    """BrEaST-Lesions-USG: Pawlowska et al., Scientific Data 2024, doi:10.7937/9WKK-Q141."""
    tables = _breast_tables(root)
    # The images lie beside the table or in a folder of their own.
    holders = [folder for folder in (root, *subfolders(root).values()) if pictures(folder)]
    for what, paths in (("table of BrEaST", tables), ("folder with images", holders)):
        if len(paths) != 1:
            names = ", ".join(map(str, paths)) or "none"
            raise DatasetError(f"{root}: must hold one {what}; it holds {names}. Leave one.")
    masks = ("Mask_tumor_filename", "Mask_other_filename")
    return from_table(
        tables[0],
        ("Image_filename", *masks, "Classification"),
        (holders[0], holders[0]),
        lambda stem, row: [
            PureWindowsPath(name.strip()).stem
            for column in masks
            for name in row[column].split("&")
            if name.strip()
        ],
        lambda stem, row: row.get("CaseID", stem),
    )


_PAIR = Layout(
    "images and masks",
    "images/NAME.png + masks/NAME.png, also masks/0/NAME.png",
    lambda root: _pair(root) is not None,
    _images_and_masks,
)
_ONE_FOLDER = Layout(
    "one folder",
    "NAME.png + NAME_mask.png, or + NAME.json of LabelMe, in the folder itself",
    lambda root: any(
        MASK.fullmatch(p.stem) or is_outline(p) for p in root.iterdir() if p.is_file()
    ),
    lambda root: _class(root, "unknown"),
)
LAYOUTS = [
    Layout(
        "class folders",
        f"{BUSI_NAME}/benign/benign (1).png + benign (1)_mask.png (+ benign (1)_mask_1.png), also\n"
        f"      malignant/ and normal/; or a folder that holds {BUSI_NAME} or archive/{BUSI_NAME}\n"
        "  benign/images/NAME.png + benign/masks/NAME.png, also malignant/ and normal/",
        lambda root: not subfolders(root).keys().isdisjoint(_CLASSES),
        _class_folders,
        BUSI_NAME,
    ),
    _PAIR,
    _ONE_FOLDER,
    Layout(
        "BUS-BRA",
        "bus_data.csv + Images/bus_NNNN-l.png + Masks/mask_NNNN-l.png (BUS-BRA)",
        lambda root: (root / "bus_data.csv").is_file(),
        _bus_bra,
        "BUSBRA",
    ),
    Layout(
        "BUS-UCLM",
        "INFO.csv + images/PATIENT_NNN.png + masks/PATIENT_NNN.png in green and red (BUS-UCLM)",
        lambda root: (root / "INFO.csv").is_file() and "images" in subfolders(root),
        _bus_uclm,
        "BUS-UCLM",
        "0:#00ff00,#ff0000",
    ),
    Layout(
        "BrEaST",
        "BrEaST-Lesions*.xlsx (or .csv) + caseNNN.png + caseNNN_tumor.png (BrEaST)",
        lambda root: bool(_breast_tables(root)),
        _breast,
    ),
]
"""The layouts that are read. One of your own: ``LAYOUTS.append(Layout(...))``."""
