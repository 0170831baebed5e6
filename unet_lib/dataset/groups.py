"""Which images a split must keep together: near-duplicates and pictures of one patient."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from unet_lib.dataset.audit import busi_audit, read_audit
from unet_lib.dataset.cases import DATA_FOLDER, Case, DatasetError
from unet_lib.dataset.duplicates import VERSION, DuplicateRule, find_duplicates
from unet_lib.files import sha256, write_atomic
from unet_lib.phantoms import is_phantoms

__all__ = ["GROUPS_FILE", "duplicate_pairs", "find_groups", "join_groups", "known_groups"]

GROUPS_FILE = "groups.csv"
"""In a data folder: the groups to take, columns ``image`` and ``group``; no search then."""

CACHE_FOLDER = DATA_FOLDER / "cache"
"""Pairs that were found, one file for each set of pictures; may be deleted at any time."""


def known_groups(
    cases: Sequence[Case], root: Path, audit: str | os.PathLike | None = "auto"
) -> tuple[list[Case], str]:
    """Give cases the groups that are written down, without looking at the pictures.

    Parameters
    ----------
    cases : sequence of Case
    root : Path
        The folder the cases come from.
    audit : path-like, "auto" or None
        See :func:`unet_lib.dataset.find_cases`.

    Returns
    -------
    cases : list of Case
        Grouped by the list and by patient.
    origin : str
        Where the groups come from: ``audited list``, the file's name, ``patients``, ``none``.

    Raises
    ------
    DatasetError
        A list was named, or lies in the folder, and does not hold every case.
    """
    if audit is None:
        return list(cases), "none"
    own = root / GROUPS_FILE
    listed, origin = None, ""
    if audit != "auto":
        listed, origin = Path(audit), Path(audit).name
    elif own.is_file():
        listed, origin = own, GROUPS_FILE
    if listed:
        rows = read_audit(listed)
        absent = [c.name for c in cases if c.name not in rows]
        if absent:
            raise DatasetError(
                f"{listed}: does not list {len(absent)} of the {len(cases)} images of {root}, "
                f"first {absent[0]!r}. Make it again (python -m unet_lib duplicates), or take it "
                "away."
            )
    else:
        rows = None if is_phantoms(root) else busi_audit(cases)
        origin = "audited list" if rows else ""
    if rows:
        groups = shared_names({name: row["group"] for name, row in rows.items()})
        cases = [replace(c, group=groups[c.name]) for c in cases]
    patients = any(c.patient for c in cases)
    text = ", ".join(part for part in (origin, "patients" if patients else "") if part)
    return join_groups(cases), text or "none"


def find_groups(
    cases: Sequence[Case], root: Path, *, progress: bool = True
) -> tuple[list[Case], str]:
    """Group cases by what is written down, else by what the pictures show.

    Phantoms, BUSI (audited) and a folder with a ``groups.csv`` are not searched.

    Returns
    -------
    cases : list of Case
    origin : str
        As in :func:`known_groups`, or ``found by the library (...)`` with the numbers.

    Raises
    ------
    DatasetError, ImageError
        Such a list is wrong; a picture cannot be read.
    """
    known, origin = known_groups(cases, root)
    if is_phantoms(root):
        return known, "none: phantoms are made one by one"
    if origin not in ("none", "patients"):
        return known, origin
    pairs = duplicate_pairs(cases, progress=progress)
    alone = join_groups([replace(c, patient="", group=c.name) for c in cases], pairs)
    twins = [c.group for c in alone if c.has_twins]
    found = (
        f"near-duplicates found by the library ({len(twins)} images in {len(set(twins))} groups)"
    )
    patients = "patients, " if origin == "patients" else ""
    return join_groups(cases, pairs), patients + found


def join_groups(cases: Sequence[Case], pairs: Iterable[tuple[int, int]] = ()) -> list[Case]:
    """Join groups, patients and pairs that share an image, so that a split divides none.

    Parameters
    ----------
    cases : sequence of Case
    pairs : iterable of (int, int)
        Positions of cases that belong together; more entries of a pair are ignored.

    Returns
    -------
    list of Case
        With new groups: the first listed group's name, else ``NAME + 2`` for an image with two
        others; an image alone carries its own name.
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
    names = {label: _group_name(found) for label, found in members.items()}
    return [replace(c, group=names[label]) for label, c in zip(labels, cases, strict=True)]


def shared_names(group_of: Mapping[str, str]) -> dict[str, str]:
    """Rename groups that are called like one of their images: its own name means that it is alone.

    Parameters
    ----------
    group_of : mapping of str to str
        From image to group, all of a data set.
    """
    size = Counter(group_of.values())
    return {
        image: f"{group} + {size[group] - 1}"
        if size[group] > 1 and group_of.get(group) == group
        else group
        for image, group in group_of.items()
    }


def _group_name(members: Sequence[Case]) -> str:
    names = {c.name for c in members}
    listed = next((c.group for c in members if c.group not in names), None)
    if listed or len(members) == 1:
        return listed or members[0].name
    return f"{members[0].name} + {len(members) - 1}"


def duplicate_pairs(
    cases: Sequence[Case], rule: DuplicateRule | None = None, *, progress: bool = True
) -> list[tuple[int, int, float]]:
    """Pairs of near-duplicates among cases, from the cache where the same files were searched.

    Parameters
    ----------
    cases : sequence of Case
    rule : DuplicateRule, optional
    progress : bool
        Show progress bars.

    Returns
    -------
    list of (int, int, float)
        Positions and correlation; equal files have 1. An interrupted search leaves nothing.

    Raises
    ------
    ImageError
        A picture cannot be read.
    """
    rule = rule or DuplicateRule()
    where: dict[str, list[int]] = {}
    bar = tqdm(cases, "near-duplicates: hashing", unit="image", disable=not progress, leave=False)
    for i, case in enumerate(bar):
        where.setdefault(sha256(case.image_path), []).append(i)
    same = [(m[0], other, 1.0) for m in where.values() for other in m[1:]]
    digests = sorted(where)
    facts = json.dumps([VERSION, cv2.__version__, rule.to_dict(), digests])
    cache = CACHE_FOLDER / f"duplicates-{hashlib.sha256(facts.encode()).hexdigest()[:24]}.json"
    found = _read_pairs(cache, len(digests))
    if found is None:
        paths = [cases[where[digest][0]].image_path for digest in digests]
        found = [tuple(pair) for pair in find_duplicates(paths, rule, progress=progress)]
        try:
            write_atomic(cache, json.dumps({"pictures": len(digests), "pairs": found}) + "\n")
        except OSError as error:
            warnings.warn(
                f"{error} Near-duplicates are searched again the next time.",
                stacklevel=2,
            )
    pairs = [(where[digests[a]][0], where[digests[b]][0], value) for a, b, value in found]
    return sorted(same + [(min(a, b), max(a, b), value) for a, b, value in pairs])


def _read_pairs(cache: Path, pictures: int) -> list[tuple[int, int, float]] | None:
    """Pairs by position among the sorted hashes; None: no such file, or a damaged one."""
    try:
        stored = json.loads(cache.read_text(encoding="utf-8"))
        pairs = [(int(a), int(b), float(value)) for a, b, value in stored["pairs"]]
        fits = stored["pictures"] == pictures and all(0 <= a < b < pictures for a, b, _ in pairs)
        return pairs if fits else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
