"""Published breast-ultrasound sets in their own layouts: BUS-BRA, BUS-UCLM, BrEaST."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_lib.dataset.cases import Case, DatasetError
from unet_lib.images import IMAGE_SUFFIXES

__all__ = ["LAYOUTS", "Layout", "read_table"]

_LABELS = ("benign", "malignant", "normal")
_MANY = 5  # names shown in one message


class Layout(NamedTuple):
    """A published set: what it is called, how its folder is known, how it is read."""

    name: str
    expected: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, bool], list[Case]]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV (comma or semicolon) or the first sheet of an Excel file.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Columns that must be there; names are compared without case.

    Returns
    -------
    list of dict
        One per row that is not empty, by the names in `columns`; cells are stripped text, empty
        where there is nothing. Other columns keep their own names.

    Raises
    ------
    DatasetError
        The file cannot be read, or a column is missing.
    """
    try:
        lines = _excel(path) if path.suffix.lower() == ".xlsx" else _csv(path)
    except Exception as error:  # a damaged Excel file makes openpyxl raise many unrelated types
        raise DatasetError(f"{path}: cannot be read as a table ({error}).") from error
    header = lines[0] if lines else []
    by_lower = {name.lower(): name for name in columns}
    names = [by_lower.get(cell.lower(), cell) for cell in header]
    missing = [name for name in columns if name not in names]
    if missing:
        raise DatasetError(
            f"{path}: column {', '.join(missing)} is missing; it has {', '.join(header) or 'none'}."
        )
    full = ([*line, *[""] * len(names)] for line in lines[1:] if any(line))
    return [dict(zip(names, line, strict=False)) for line in full]


def _csv(path: Path) -> list[list[str]]:
    text = path.read_text(encoding="utf-8-sig")
    first = text.partition("\n")[0]
    rows = csv.reader(text.splitlines(), delimiter=";" if ";" in first else ",")
    return [[cell.strip() for cell in row] for row in rows]


def _excel(path: Path) -> list[list[str]]:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        return [["" if cell is None else str(cell).strip() for cell in row] for row in rows]
    finally:
        book.close()


def _files(folder: Path) -> dict[str, Path]:
    """Image files of a folder by name."""
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: no such folder; it is a part of the data set. Unpack it whole."
        )
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    }


def _child(root: Path, name: str) -> Path:
    """Return the folder of this name, whatever its capitals."""
    found = [p for p in sorted(root.iterdir()) if p.is_dir() and p.name.lower() == name.lower()]
    return found[0] if found else root / name


def _label(value: str, where: str) -> str:
    if value.lower() not in _LABELS:
        raise DatasetError(f"{where}: class {value!r}; expected {', '.join(_LABELS)}.")
    return value.lower()


def _refuse(names: Iterable[str], what: str) -> None:
    """Raise if there are any names."""
    names = list(names)
    if names:
        more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
        raise DatasetError(f"{what}: {', '.join(names[:_MANY])}{more}.")


def _refuse_repeated(names: Sequence[str], table: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    _refuse(repeated, f"{table}: listed more than once")


def _check_files(
    table: Path,
    listed: Sequence[str],
    images: dict[str, Path],
    folder: Path,
) -> None:
    """Refuse a row without its image and an image without its row."""
    _refuse_repeated(listed, table)
    _refuse(
        [n for n in listed if n not in images],
        f"{table}: has rows without their image in {folder} (add it, or remove the row)",
    )
    known = set(listed)
    _refuse(
        [n for n in images if n not in known],
        f"{folder}: holds images without a row in {table.name} (add it, or remove the image)",
    )


def _check_masks(
    cases: Sequence[Case], masks: dict[str, Path], folder: Path, require_masks: bool
) -> None:
    """Refuse a mask without image, and a lesion image without mask."""
    used = {path.name for case in cases for path in case.mask_paths}
    _refuse([n for n in masks if n not in used], f"{folder}: holds masks without their image")
    if require_masks:
        bare = [c.name for c in cases if not c.mask_paths and c.label != "normal"]
        _refuse(bare, f"{folder}: holds no mask of these lesion images")


# --- BUS-BRA: Gomez-Flores et al., Medical Physics 2024, doi:10.5281/zenodo.8231412 ----------


def _is_bus_bra(root: Path) -> bool:
    if (root / "bus_data.csv").is_file():
        return True
    images, masks = _child(root, "Images"), _child(root, "Masks")
    return any(images.glob("bus_*.png")) and any(masks.glob("mask_*.png"))


def _bus_bra(root: Path, require_masks: bool) -> list[Case]:
    table = root / "bus_data.csv"
    rows = read_table(table, ("ID", "Case", "Pathology"))
    images, masks = _files(_child(root, "Images")), _files(_child(root, "Masks"))
    listed = [f"{row['ID']}.png" for row in rows]
    _check_files(table, listed, images, root / "Images")
    cases = []
    for row in rows:
        mask = masks.get(f"mask_{row['ID'].removeprefix('bus_')}.png")
        label = _label(row["Pathology"], f"{table}: {row['ID']}")
        if not row["Case"]:
            raise DatasetError(f"{table}: {row['ID']} has no Case (patient number).")
        path = images[f"{row['ID']}.png"]
        cases.append(
            Case(row["ID"], label, path, (mask,) if mask else (), row["ID"], f"case {row['Case']}")
        )
    _check_masks(cases, masks, root / "Masks", require_masks)
    return cases


# --- BUS-UCLM: Vallez et al., Scientific Data 2025, doi:10.17632/7fvgj4jsp7 ------------------


def _is_bus_uclm(root: Path) -> bool:
    return (root / "INFO.csv").is_file() and _child(root, "images").is_dir()


def _bus_uclm(root: Path, require_masks: bool) -> list[Case]:
    table = root / "INFO.csv"
    rows = read_table(table, ("Image", "Label"))
    images, masks = _files(_child(root, "images")), _files(_child(root, "masks"))
    _check_files(table, [row["Image"] for row in rows], images, root / "images")
    cases = []
    for row in rows:
        name, label = row["Image"], _label(row["Label"], f"{table}: {row['Image']}")
        stem, own = Path(name).stem, (masks[name],) if name in masks else ()
        patient = stem.rpartition("_")[0]
        if not patient:
            raise DatasetError(
                f"{table}: {name} does not tell the patient; expected PATIENT_NUMBER.png."
            )
        cases.append(Case(stem, label, images[name], own, stem, patient, colour_coded=True))
    _check_masks(cases, masks, root / "masks", require_masks)
    return cases


# --- BrEaST-Lesions-USG: Pawlowska et al., Scientific Data 2024, doi:10.7937/9WKK-Q141 -------

_BREAST = ("Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Classification")


def _breast_table(root: Path) -> Path | None:
    """Return the table of clinical data: by its name, or by a column that no other set has."""
    found = []
    for path in sorted(root.iterdir()):
        named = path.name.lower().startswith("breast-lesions")
        if path.suffix.lower() == ".csv" and path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                named = named or "image_filename" in file.readline().lower()
        elif path.suffix.lower() != ".xlsx":
            continue
        if named:
            found.append(path)
    if len(found) > 1:
        raise DatasetError(
            f"{root}: holds several tables of BrEaST, {', '.join(p.name for p in found)}; leave "
            "one."
        )
    return found[0] if found else None


def _breast(root: Path, require_masks: bool) -> list[Case]:
    table = _breast_table(root)
    assert table is not None  # recognised by it
    rows = read_table(table, _BREAST)
    # The images lie beside the table or in a folder of their own.
    folders = [root, *(p for p in sorted(root.iterdir()) if p.is_dir())]
    holders = [folder for folder in folders if _files(folder)]
    if len(holders) != 1:
        names = ", ".join(str(p) for p in holders) or "none"
        raise DatasetError(f"{root}: the images must lie in one folder; found in: {names}.")
    files = _files(holders[0])
    masks_of = [
        [n.strip() for key in _BREAST[1:3] for n in row[key].split("&") if n.strip()]
        for row in rows
    ]
    _refuse(
        [n for names in masks_of for n in names if n not in files] if require_masks else (),
        f"{table}: names masks that are not in {holders[0]}",
    )
    masks = {n: files[n] for names in masks_of for n in names if n in files}
    images = {n: path for n, path in files.items() if n not in masks}
    _check_files(table, [row["Image_filename"] for row in rows], images, holders[0])
    cases = []
    for row, names in zip(rows, masks_of, strict=True):
        name = row["Image_filename"]
        label = _label(row["Classification"], f"{table}: {name}")
        stem, own = Path(name).stem, tuple(masks[n] for n in names if n in masks)
        cases.append(Case(stem, label, images[name], own, stem, row.get("CaseID", "")))
    _check_masks(cases, masks, holders[0], require_masks)
    return cases


LAYOUTS = (
    Layout(
        "BUS-BRA",
        "bus_data.csv + Images/bus_NNNN-l.png + Masks/mask_NNNN-l.png (BUS-BRA)",
        _is_bus_bra,
        _bus_bra,
    ),
    Layout(
        "BUS-UCLM",
        "INFO.csv + images/PATIENT_NNN.png + masks/PATIENT_NNN.png in green and red (BUS-UCLM)",
        _is_bus_uclm,
        _bus_uclm,
    ),
    Layout(
        "BrEaST",
        "BrEaST-Lesions*.xlsx (or .csv) + caseNNN.png + caseNNN_tumor.png (BrEaST)",
        lambda root: _breast_table(root) is not None,
        _breast,
    ),
)
"""The published sets that are known by their files."""
