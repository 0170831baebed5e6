"""What a case is, how one is loaded, and which a model has seen (the leak guard)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from unet_lib.files import USER_FOLDER, read_rows
from unet_lib.images import MaskSet, is_dicom, read_frame, read_image, read_masks
from unet_lib.provenance import Provenance

LABELS = ("benign", "malignant", "normal", "unknown")
"""Classes of a case; ``unknown`` where the folder does not tell."""

DATA_FOLDER = USER_FOLDER / "data"
"""Where BUSI lies if the user puts it there; phantoms and found near-duplicates go there."""

TUNED_ON = "tuned_on"
"""Key of what a model says: images that chose a threshold or a reading after its training."""

METHOD = "first 64 bits of SHA-256 of height, width and grey values of 16 bit"


class DatasetError(ValueError):
    """A folder does not hold what is expected; the message names it and the expected tree."""


@dataclass(frozen=True)
class Case:
    """One image with its masks.

    Attributes
    ----------
    name : str
        Unique in the data set: the image's file name without ending, such as ``benign (1)``.
    label : str
        ``benign``, ``malignant``, ``normal`` or ``unknown``.
    image_path : Path
    mask_paths : tuple of Path
        All masks of the image, sorted; their union is the lesion.
    group : str
        Images that a split keeps together: near-duplicates and pictures of one patient. The
        case's own name when it stands alone; a shared group is never called like a member.
    patient : str
        Empty where the folder does not tell.
    data_set, own_group : str
        Where several data sets are joined: the one it is of, and its group there; else empty.
    mask_set : MaskSet, optional
        All masks of the data set, which judge a doubtful one.
    """

    name: str
    label: str
    image_path: Path
    mask_paths: tuple[Path, ...]
    group: str
    patient: str = ""
    data_set: str = ""
    own_group: str = ""
    mask_set: MaskSet | None = field(default=None, compare=False, repr=False)

    @property
    def has_twins(self) -> bool:
        """Whether the case is in a group with others."""
        return self.group != self.name


def load_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Read the image and the union of the masks at the original size.

    Returns
    -------
    image : ndarray of float32, shape (H, W, 1)
        Values in ``[0, 1]``.
    mask : ndarray of bool, shape (H, W)
        All False for a normal image without mask file.

    Raises
    ------
    ImageError
        A file is unreadable, or a mask has another size than its image.
    DatasetError
        The case needs a mask and has none.
    """
    image = read_image(case.image_path)
    if not case.mask_paths and case.label != "normal":
        raise DatasetError(
            f"{case.image_path}: has no mask file, and only images of class normal may go "
            "without. Add its mask, or use the image for segmentation only."
        )
    mask = read_masks(
        case.mask_paths,
        image.shape[:2],
        image_path=case.image_path,
        mask_set=case.mask_set,
    )
    return image, mask


def pixel_sizes(cases: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Millimetres from row to row and column to column, by case; all or none: never mixed with px.

    Empty unless every case is a DICOM image whose calibrated regions agree to 1 %.
    """
    sizes: dict[str, tuple[float, float]] = {}
    for case in cases:
        if not is_dicom(case.image_path):
            return {}
        regions = [(r.row_mm, r.column_mm) for r in read_frame(case.image_path).regions]
        if not regions or not np.allclose(regions, regions[0], rtol=0.01, atol=0):
            return {}
        sizes[case.name] = regions[0]
    return sizes


def natural_key(text: str) -> tuple[list[Any], str]:
    """Sort key that orders ``benign (2)`` before ``benign (10)``."""
    parts = re.split(r"(\d+)", text)  # words and numbers by turns
    return [(int(p), p) if i % 2 else p.lower() for i, p in enumerate(parts)], text


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV (comma, semicolon, tab) or the first sheet of an Excel file: one dict a full row.

    Keys are the names in `columns`, compared without case.
    """
    try:
        lines = _excel(path) if is_zipfile(path) else read_rows(path)
    except Exception as error:  # a damaged Excel file makes openpyxl raise many unrelated types
        raise DatasetError(f"{path}: cannot be read as a table ({error}).") from error
    header, *lines = lines or [[]]
    by_lower = {name.lower(): name for name in columns}
    names = [by_lower.get(cell.strip().lower(), cell.strip()) for cell in header]
    for what, wrong in (
        ("is missing", [name for name in columns if name not in names]),
        ("stands there twice", [name for name in columns if names.count(name) > 1]),
    ):
        if wrong:
            has = ", ".join(names)[:300] or "none"
            raise DatasetError(f"{path}: column {', '.join(wrong)} {what}; it has {has}.")
    rows = []
    for number, line in enumerate(lines, start=2):
        if len(line) != len(names) and any(line):
            raise DatasetError(
                f"{path}: line {number} has {len(line)} cells, expected {len(names)}."
            )
        if any(line):
            rows.append(dict(zip(names, line, strict=True)))
    return rows


def _excel(path: Path) -> list[list[str]]:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        return [["" if cell is None else str(cell) for cell in row] for row in rows]
    finally:
        book.close()


# --- the leak guard --------------------------------------------------------------------------


def content_hash(image: np.ndarray) -> str:
    """Return a short hash, 16 hexadecimal digits, of a picture (H, W, 1) in [0, 1].

    Of the decoded pixels, not of the file: the same picture under another name, as PNG, BMP or
    TIFF, compressed anew, or with 16 bits instead of 8, has the same hash. A picture that was
    changed (JPEG, crop, other size) has another one; near-duplicate groups are for those. Of
    100,000 training and 1,000 other pictures the chance of one equal hash is 5e-12.
    """
    values = np.rint(image.astype(np.float32) * np.float32(65535)).astype("<u2")
    size = f"{image.shape[0]} x {image.shape[1]};".encode()
    return hashlib.sha256(size + values.tobytes()).hexdigest()[:16]


def data_hash(cases: Sequence[Case], images: Sequence[str], masks: Sequence[str]) -> str:
    """SHA-256 of names and `content_hash` of pictures and masks, the same in any order."""
    rows = zip(cases, images, masks, strict=True)
    lines = sorted(f"{case.name}\t{image}\t{mask}\n" for case, image, mask in rows)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _groups(data: str | None, case: Case) -> set[tuple[str, str]]:
    """Give data and group of a case with group mates, also those of its own set if joined."""
    pairs = {(data or "", case.group)} if case.has_twins else set()
    return pairs | ({(case.data_set, case.own_group)} if case.own_group else set())


@dataclass(frozen=True)
class TrainingImages:
    """The images that a model was trained on or chosen with."""

    data: str | None  # name of their data set; group names mean nothing in another one
    hashes: frozenset[str]  # `content_hash` of each
    groups: frozenset[tuple[str, str]]  # data set and group of those that do not stand alone

    @classmethod
    def of(cls, data: str | None, cases: Sequence[Case], hashes: Sequence[str]) -> TrainingImages:
        """Record cases, each with its hash."""
        groups = (pair for case in cases for pair in _groups(data, case) if pair[0])
        return cls(data, frozenset(hashes), frozenset(groups))

    def joined(self, before: TrainingImages) -> TrainingImages:
        """Return these and the images of the model that the training started from."""
        return replace(self, hashes=self.hashes | before.hashes, groups=self.groups | before.groups)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_provenance` reads; JSON-able."""
        groups: dict[str | None, list[str]] = {self.data: []}
        for data, group in sorted(self.groups):
            groups.setdefault(data, []).append(group)
        record = {"method": METHOD, "hashes": sorted(self.hashes), "groups": groups.pop(self.data)}
        return record | ({"earlier": groups} if groups else {})

    @classmethod
    def from_provenance(
        cls, provenance: Provenance | Mapping[str, Any] | None
    ) -> TrainingImages | None:
        """Read the record of a model; None where its training images are not known."""
        provenance = Provenance.of(provenance)
        record = provenance.training_images
        if record is None:
            return None
        try:
            if record["method"] != METHOD:
                return None
            groups = {provenance.data: record["groups"]} | dict(record.get("earlier", {}))
            lists = [record["hashes"], *groups.values()]
        except (TypeError, KeyError, ValueError, AttributeError):
            lists = [None]
        if not all(isinstance(x, list) and all(isinstance(i, str) for i in x) for x in lists):
            raise ValueError(
                f"model {provenance.name or 'unnamed'}: its record training_images is damaged; "
                "expected method, hashes and groups. Fetch the model folder again."
            )
        pairs = ((data, group) for data, names in groups.items() if data for group in names)
        return cls(provenance.data, frozenset(record["hashes"]), frozenset(pairs))

    def overlap(
        self, data: str | None, cases: Sequence[Case], hashes: Sequence[str]
    ) -> dict[str, Any]:
        """Tell which cases are among the training images or near-duplicates of one; JSON-able.

        ``compared_with`` is the number of training images known, the others are names of cases.
        """
        seen = [case for case, own in zip(cases, hashes, strict=True) if own in self.hashes]
        groups = self.groups.union(*(_groups(data, case) for case in seen))
        names = [case.name for case in seen]
        near = [c.name for c in cases if groups & _groups(data, c) and c.name not in set(names)]
        return {"compared_with": len(self.hashes), "in_training": names, "near_duplicates": near}
