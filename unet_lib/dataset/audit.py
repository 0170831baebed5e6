"""The audit list of BUSI: near-duplicate groups and flags of every image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from unet_lib.dataset.cases import Case, DatasetError
from unet_lib.files import read_rows
from unet_lib.folders import SHIPPED_FOLDER
from unet_lib.images import ImageError, read_size

BUSI_AUDIT = SHIPPED_FOLDER / "data" / "busi_audit.csv"
"""One row per BUSI image; its columns and their sources: ``data/README.md``."""


def read_audit(path: str | os.PathLike = BUSI_AUDIT) -> dict[str, dict[str, str]]:
    """Read an audit list.

    Parameters
    ----------
    path : path-like
        CSV with at least the columns ``image`` and ``group``.

    Returns
    -------
    dict
        From image name to its row, in file order.

    Raises
    ------
    DatasetError
        File missing or no CSV, column or cell missing, or an image listed twice.
    """
    path = Path(path)
    try:
        header, *lines = read_rows(path) or [[]]
    except ValueError as error:
        raise DatasetError(f"{path}: the audit list cannot be read ({error}).") from error
    missing = {"image", "group"} - set(header)
    if missing:
        raise DatasetError(f"{path}: column {', '.join(sorted(missing))} is missing.")
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise DatasetError(
                f"{path}: line {number} has {len(line)} cells, expected {len(header)}."
            )
        row = dict(zip(header, line, strict=True))
        if row["image"] in rows:
            raise DatasetError(f"{path}: {row['image']} is listed twice.")
        rows[row["image"]] = row
    return rows


def busi_audit(cases: Sequence[Case]) -> dict[str, dict[str, str]] | None:
    """Return the rows of BUSI's audit list if the cases are BUSI or a part of it, else None."""
    rows = read_audit()
    return rows if _is_busi(cases, rows) else None


def _is_busi(cases: Sequence[Case], rows: dict[str, dict[str, str]]) -> bool:
    """Whether the cases are BUSI or a part of it."""
    if any(c.name not in rows or rows[c.name]["class"] != c.label for c in cases):
        return False
    if len(cases) == len(rows):
        return True
    try:  # names like "benign (1)" are common, so a part must agree in its sizes too
        return all(
            read_size(c.image_path) == (int(rows[c.name]["height"]), int(rows[c.name]["width"]))
            for c in cases
        )
    except ImageError:
        return False
