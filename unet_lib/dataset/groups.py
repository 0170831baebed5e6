"""Which images a split must keep together: near-duplicates and pictures of one patient."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np

from unet_lib.dataset.cases import Case, DatasetError, read_table
from unet_lib.dataset.duplicates import duplicate_pairs
from unet_lib.folders import SHIPPED_FOLDER
from unet_lib.images import ImageError, read_size
from unet_lib.phantoms import is_phantoms

BUSI_AUDIT = SHIPPED_FOLDER / "data" / "busi_audit.csv"
"""One row per BUSI image; its columns and their sources: ``data/README.md``."""

GROUPS_FILE = "groups.csv"
"""In a data folder: the groups to take, columns ``image`` and ``group``; no search then."""


def read_audit(path: str | os.PathLike = BUSI_AUDIT) -> dict[str, dict[str, str]]:
    """Read a CSV with at least the columns ``image`` and ``group``: rows by image, in order."""
    lines = read_table(Path(path), ("image", "group"))
    rows = {normalize("NFC", line["image"]): line for line in lines}
    if len(rows) < len(lines):
        names = Counter(line["image"] for line in lines)
        raise DatasetError(f"{path}: {names.most_common(1)[0][0]} is listed twice.")
    return rows


def unlike_busi(cases: Sequence[Case], *, part: bool = False, sizes: bool = True) -> str:
    """Say in what cases differ from BUSI as published, or from a part of it; empty: in nothing."""
    rows, by_name = read_audit(), {case.name: case for case in cases}
    missing = [] if part else [name for name in rows if name not in by_name]
    extra = [name for name in by_name if name not in rows]
    if missing or extra:
        first = f"missing {missing[0]!r}" if missing else f"unknown {extra[0]!r}"
        return (
            f"is not BUSI as published ({len(rows)} images): {len(missing)} images are missing "
            f"and {len(extra)} are unknown, first: {first}"
        )
    for name, case in by_name.items():
        listed = rows[name]["class"], (int(rows[name]["height"]), int(rows[name]["width"]))
        try:
            size = read_size(case.image_path) if sizes else listed[1]
        except ImageError as error:
            return str(error)
        if (case.label, size) != listed:
            return (
                f"{case.image_path.name}: is of class {case.label} and {size} pixels (height, "
                f"width); in BUSI it is {listed[0]} and {listed[1]}"
            )
    return ""


def group_cases(
    cases: Sequence[Case],
    root: Path,
    audit: str | os.PathLike | None = "auto",
    *,
    search: bool = True,
    progress: bool = True,
) -> tuple[list[Case], str]:
    """Group cases by what is written down (see `find_cases`), else by what the pictures show.

    Phantoms, BUSI (audited) and a folder with a ``groups.csv`` are not searched. Returned with
    where the groups come from, to be shown.
    """
    if audit is None:
        return list(cases), "none"
    synthetic = [is_phantoms(case.image_path) for case in cases]
    group_of, origin = _listed(cases, root, audit, any(synthetic))
    origins = [origin] if group_of else []
    if group_of:
        cases = [replace(case, group=group_of[case.name]) for case in cases]
    elif all(synthetic):
        origins.append("none: phantoms are made one by one")
    if any(case.patient for case in cases):
        origins.append("patients")
    pairs = []
    if search and not group_of and not all(synthetic):
        pairs = duplicate_pairs(cases, progress=progress)
        alone = join_groups([replace(c, patient="", group=c.name) for c in cases], pairs)
        origins.append(f"near-duplicates found by the library ({_count(alone)})")
    return join_groups(cases, pairs), ", ".join(origins) or "none"


def _listed(
    cases: Sequence[Case], root: Path, audit: str | os.PathLike, phantoms: bool
) -> tuple[dict[str, str], str]:
    """Return the groups that a list gives, and what to call it; empty where there is none."""
    own = root / GROUPS_FILE
    if audit == "auto" and not own.is_file():
        whole = len(cases) == len(read_audit())  # names like "benign (1)" are common, so a part
        if phantoms or unlike_busi(cases, part=True, sizes=not whole):  # must agree in its sizes
            return {}, ""
        path, origin = BUSI_AUDIT, "audited list"
    else:
        path = own if audit == "auto" else Path(audit)
        origin = path.name
    rows = read_audit(path)
    files = {c.name + c.image_path.suffix: c.name for c in cases if c.name not in rows}
    rows = {files.get(image, image): row for image, row in rows.items()}  # also 1.png for 1
    absent = [c.name for c in cases if c.name not in rows]
    if absent:
        raise DatasetError(
            f"{path}: does not list {len(absent)} of the {len(cases)} images of {root}, "
            f"first {absent[0]!r}. Make it again (python -m unet_lib duplicates), or take it "
            "away."
        )
    return shared_names({name: row["group"] for name, row in rows.items()}), origin


def join_groups(cases: Sequence[Case], pairs: Iterable[Sequence] = ()) -> list[Case]:
    """Join groups, patients and pairs that share an image, so that a split divides none.

    A pair begins with two positions among the cases. A new group has the first listed group's
    name, else ``NAME + 2`` for an image with two others; an image alone carries its own name.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [(pair[0], pair[1]) for pair in pairs]
    for key in ("group", "patient"):
        first: dict[str, int] = {}
        for i, case in enumerate(cases):
            value = getattr(case, key)
            if value:
                links.append((first.setdefault(value, i), i))
    # int32: of int64, SciPy before 1.12 swallows an error and returns labels that mean nothing.
    rows, columns = np.array(links or np.zeros((0, 2)), np.int32).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(cases),) * 2)
    labels = connected_components(graph, directed=False)[1]
    members: dict[int, list[Case]] = {}
    for label, case in zip(labels, cases, strict=True):
        members.setdefault(label, []).append(case)
    names = {label: _group_name(together) for label, together in members.items()}
    return [replace(c, group=names[label]) for label, c in zip(labels, cases, strict=True)]


def _group_name(members: Sequence[Case]) -> str:
    names = {c.name for c in members}
    listed = next((c.group for c in members if c.group not in names), None)
    if listed or len(members) == 1:
        return listed or members[0].name
    return f"{members[0].name} + {len(members) - 1}"


def shared_names(group_of: Mapping[str, str]) -> dict[str, str]:
    """Rename the groups of images that are called like a member: its own name means alone."""
    size = Counter(group_of.values())
    taken = {group for group in size if size[group] > 1 and group_of.get(group) == group}
    return {
        image: f"{group} + {size[group] - 1}" if group in taken else group
        for image, group in group_of.items()
    }


def _count(cases: Sequence[Case]) -> str:
    """Say how many images lie in groups, and in how many."""
    groups = [case.group for case in cases if case.has_twins]
    return f"{len(groups)} images in {len(set(groups))} groups"
