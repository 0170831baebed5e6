"""Which data a session works on: a folder that was found or named, or phantoms."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unet_lib.dataset import (
    BUSI_FOLDS,
    PARTS,
    Case,
    Folds,
    Split,
    find_cases,
    find_groups,
    locate_dataset,
    make_folds,
)
from unet_lib.dataset.cases import DATA_FOLDER
from unet_lib.dataset.layout import find_root
from unet_lib.dataset.own_split import cut_groups, leak, own_split
from unet_lib.phantoms import is_phantoms, make_phantoms
from unet_lib.provenance import Provenance

__all__ = ["DataSource", "open_dataset"]

PHANTOM_COUNT = 160


@dataclass(frozen=True, repr=False)
class DataSource:
    """Cases, one split of them, and what they are.

    Attributes
    ----------
    folder : Path
    cases : tuple of Case
    folds : Folds
        The whole split, of which `split` is one fold.
    split : Split
    fold : int
    kind : {"clinical", "phantoms"}
        Phantoms are synthetic: no result on them is a clinical one.
    name : str
        ``BUSI``, ``phantoms``, or the folder's name.
    groups : str
        Where the groups that a split keeps together come from.
    leaks : str
        How many test images the data set's own split exposes; empty for other splits, which never
        divide a group.
    """

    folder: Path
    cases: tuple[Case, ...]
    folds: Folds
    split: Split
    fold: int
    kind: str
    name: str
    groups: str
    leaks: str = ""

    @property
    def provenance(self) -> Provenance:
        """What is known of the data, kept with models and evaluations."""
        return Provenance(
            data=self.name,
            data_kind=self.kind,
            split=self.split.name,
            fold=self.fold,
            parts={part: len(getattr(self.split, part)) for part in PARTS},
            groups=self.groups,
            own_split=self.leaks or None,
        )

    @property
    def message(self) -> str:
        """What was taken, in a sentence or two."""
        parts = ", ".join(f"{len(getattr(self.split, part))} {part}" for part in PARTS)
        what = f"Data: {self.name}, {len(self.cases)} images; split {self.split.name}: {parts}."
        if self.leaks:
            what += f" The data set's own split: {self.leaks} ({self.groups})."
        else:
            what += f" Kept together: {self.groups}."
        if self.kind == "phantoms":
            what += (
                " These are PHANTOMS, synthetic images: nothing here is a clinical result. For "
                "real data see the README, section Data."
            )
        return what

    def __repr__(self) -> str:
        # Also the plain text of a notebook's output: not every case with its path on this machine.
        return self.message

    def _repr_html_(self) -> str:
        colour = "#b35900" if self.kind == "phantoms" else "#00594f"
        return (
            f'<div style="border:2px solid {colour}; border-radius:4px; padding:8px 12px; '
            f'color:{colour}; background:#fff">{html.escape(self.message)}</div>'
        )


def open_dataset(
    dataset: str | os.PathLike = "auto",
    *,
    fold: int = 0,
    split: str | os.PathLike | None = None,
    seed: int = 0,
    normals: bool = True,
    progress: bool = True,
) -> DataSource:
    """Find the data, its cases, what belongs together, and the parts of one fold.

    Near-duplicates are searched, once, in every folder that brings no list of them (`find_groups`).

    Parameters
    ----------
    dataset : path-like, "auto" or "phantoms"
        A folder; "auto" takes BUSI where it finds it (`locate_dataset`), else phantoms.
    fold : int
        Which fold of the split.
    split : path-like or "own", optional
        A split CSV, or "own": the one that the data set's authors made, which may leak (BUS-BRA,
        MedSegBench). Left out: the committed five folds for BUSI, else five by `make_folds`.
    seed : int
        Of phantoms and of a split that is made.
    normals : bool
        False leaves the images of class normal out.
    progress : bool
        Show progress bars while phantoms are made or near-duplicates searched.

    Returns
    -------
    DataSource

    Raises
    ------
    DatasetError
        The folder is absent or holds no cases.
    SplitError
        The split does not match the folder; the message says what differs.
    """
    found = locate_dataset(dataset)
    if found is None:
        found = make_phantoms(DATA_FOLDER / "phantoms", PHANTOM_COUNT, seed, progress)
    cases, groups = grouped_cases(found, progress=progress)
    name, kind = identify(found, cases)
    leaks = ""
    if str(split) == "own":
        folds = own_split(find_root(Path(found)), cases)
        leaking, tested = leak(cases, folds, fold)
        leaks = f"{leaking} of {tested} test images have a group mate in training or validation"
        cases, folds = cut_groups(cases, folds)
    elif split is not None:
        folds = Folds.read(split)
    else:
        folds = Folds.read(BUSI_FOLDS) if name == "BUSI" else make_folds(cases, seed=seed)
    parts = folds.split(cases, fold, normals=normals)
    return DataSource(Path(found), tuple(cases), folds, parts, fold, kind, name, groups, leaks)


def grouped_cases(
    folder: str | os.PathLike, *, progress: bool = True
) -> tuple[Sequence[Case], str]:
    """Return the cases of a folder with their groups, and where these come from (`find_groups`)."""
    cases = find_cases(folder, audit=None)
    return find_groups(cases, find_root(Path(folder)), progress=progress)


def identify(folder: str | os.PathLike, cases: Sequence[Case]) -> tuple[str, str]:
    """Return name and kind of the data in a folder, as `DataSource` has them."""
    if any(is_phantoms(case.image_path) for case in cases):
        return "phantoms", "phantoms"
    return "BUSI" if is_busi(cases) else Path(folder).name, "clinical"


def is_busi(cases: Sequence[Case]) -> bool:
    """Tell whether the cases have exactly the names of BUSI's 780 images."""
    return {case.name for case in cases} == {row.image for row in Folds.read(BUSI_FOLDS).rows}
