"""Which data a session works on: folders that were found or named, or phantoms."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unet_lib.dataset.cases import DATA_FOLDER, Case, DatasetError
from unet_lib.dataset.dividing import join_data_sets, make_folds
from unet_lib.dataset.groups import GROUPS_FILE, group_cases
from unet_lib.dataset.reading import TEXTS, find_root, locate_dataset, of_folder, read_folder
from unet_lib.dataset.splits import (
    COMMITTED_FOLDS,
    PARTS,
    Folds,
    Split,
    SplitError,
    committed_folds,
    own_split,
)
from unet_lib.phantoms import is_phantoms, make_phantoms
from unet_lib.provenance import Provenance

__all__ = ["DataSource", "open_dataset", "open_folder"]

PHANTOM_COUNT = 160
Places = str | os.PathLike | Sequence[str | os.PathLike]


@dataclass(frozen=True, repr=False)
class DataSource:
    """Cases, one split of them, and what they are.

    Attributes
    ----------
    folder : Path
        Of several data sets the first one's.
    cases : tuple of Case
    folds : Folds
        The whole split, of which `split` is one fold.
    split : Split
    provenance : Provenance
        What is known of the data, kept with models and evaluations. Where ``data_kind`` is
        ``phantoms`` the pictures are synthetic: no result on them is a clinical one.
    left_out : str
        Files of the folder that belong to no case, by reason.
    """

    folder: Path
    cases: tuple[Case, ...]
    folds: Folds
    split: Split
    provenance: Provenance
    left_out: str = ""

    @property
    def message(self) -> str:
        """What was taken, in a sentence or two."""
        of = self.provenance
        parts = ", ".join(f"{number} {part}" for part, number in of.parts.items())
        what = f"Data: {of.data}, {len(self.cases)} images; split {of.split}: {parts}."
        if of.own_split:
            what += f" The data set's own split: {of.own_split} ({of.groups})."
        else:
            what += f" Kept together: {of.groups}."
        if of.mask_rule:
            what += f" Masks are read as background:lesion {of.mask_rule}."
        if of.is_phantoms:
            what += (
                " These are PHANTOMS, synthetic images: nothing here is a clinical result. For "
                "real data see the README, section Data."
            )
        return " ".join(filter(None, (what, self.left_out)))

    def __repr__(self) -> str:
        # Also the plain text of a notebook's output: not every case with its path on this machine.
        return self.message

    def _repr_html_(self) -> str:
        colour = "#b35900" if self.provenance.is_phantoms else "#00594f"
        return (
            f'<div style="border:2px solid {colour}; border-radius:4px; padding:8px 12px; '
            f'color:{colour}; background:#fff">{html.escape(self.message)}</div>'
        )


def open_dataset(
    dataset: Places = "auto",
    *,
    fold: int = 0,
    split: Places | None = None,
    seed: int = 0,
    normals: bool = True,
    mask_rule: str | None = None,
    progress: bool = True,
) -> DataSource:
    """Find the data, its cases, what belongs together, and the parts of one fold.

    Near-duplicates are searched, once, in every folder that brings no list of them.

    Parameters
    ----------
    dataset : path-like, "auto" or "phantoms", or a sequence of them
        A folder; "auto" takes BUSI where it finds it (`locate_dataset`), else phantoms. Several
        are joined: an image is called SET/NAME, fold k is fold k of each.
    fold : int
        Which fold of the split.
    split : path-like or "own", or a sequence of them, optional
        A split CSV, or "own": the one that the data set's authors made, which may leak (BUS-BRA,
        MedSegBench). One for each data set. Left out: the committed five folds for BUSI and
        BUS-BRA, else five by `make_folds`.
    seed : int
        Of phantoms and of a split that is made.
    normals : bool
        False leaves the images of class normal out.
    mask_rule : str, optional
        How masks of one data set are read, where the library refuses; see `find_cases`.
    progress : bool
        Show progress bars while phantoms are made or near-duplicates searched.

    Returns
    -------
    DataSource

    Raises
    ------
    DatasetError
        The folder is absent or holds no cases; two data sets have one name.
    SplitError
        The split does not match the folder; the message says what differs. Not as many splits as
        data sets, or splits of different numbers of folds.
    """
    places, splits = _listed(dataset), _listed(split)
    if splits and len(splits) != len(places):
        raise SplitError(
            f"{len(splits)} splits for {len(places)} data sets ({', '.join(map(str, places))}). "
            "Give one for each, in the order of the folders, or none."
        )
    if mask_rule and len(places) > 1:
        raise DatasetError(
            f"mask rule {mask_rule}: is for one data set, and {len(places)} are joined. Save the "
            "masks of the one that needs it with 0 and 255."
        )
    pairs = zip(places, splits or [None] * len(places), strict=True)
    opened = [_Opened.of(place, own, seed, mask_rule, progress) for place, own in pairs]
    one = opened[0] if len(opened) == 1 else _join(opened, seed, progress)
    folds = one.folds or make_folds(one.cases, seed=seed)
    chosen = folds.split(one.cases, fold, normals=normals)
    provenance = one.provenance.but(
        split=chosen.name,
        fold=fold,
        parts={part: len(getattr(chosen, part)) for part in PARTS},
        own_split=folds.leaks[fold] if folds.leaks else None,
    )
    return DataSource(one.folder, tuple(one.cases), folds, chosen, provenance, one.left_out)


def open_folder(
    folder: str | os.PathLike, mask_rule: str | None = None, *, progress: bool = True
) -> tuple[Sequence[Case], Provenance]:
    """Return the cases of a folder with their groups, undivided, and what is known of them."""
    root = find_root(Path(folder))
    cases = read_folder(root, mask_rule=mask_rule)
    committed = committed_folds(cases)
    # The search over BUS-BRA takes minutes, and its committed folds hold what was found.
    whole = committed and committed[0] == "BUSBRA" and not (root / GROUPS_FILE).is_file()
    listed = COMMITTED_FOLDS["BUSBRA"] if whole else "auto"
    cases, groups = group_cases(cases, root, listed, progress=progress)
    if any(is_phantoms(case.image_path) for case in cases):
        return cases, Provenance(data="phantoms", data_kind="phantoms", groups=groups)
    name = committed[0] if committed else _name(root)
    return cases, Provenance(data=name, data_kind="clinical", groups=groups, mask_rule=mask_rule)


def _name(folder: Path) -> str:
    return Path(os.path.abspath(folder)).name  # also of "."


def _listed(places: Places | None) -> list[str | os.PathLike]:
    return [places] if isinstance(places, str | os.PathLike) else list(places or ())


@dataclass(frozen=True)
class _Opened:
    """A data set, or several; without folds where they are to be made."""

    folder: Path
    cases: Sequence[Case]
    folds: Folds | None
    provenance: Provenance
    left_out: str

    @classmethod
    def of(
        cls,
        place: str | os.PathLike,
        split: str | os.PathLike | None,
        seed: int,
        mask_rule: str | None,
        progress: bool,
    ) -> _Opened:
        folder = locate_dataset(place)
        if folder is None:
            folder = make_phantoms(DATA_FOLDER / "phantoms", PHANTOM_COUNT, seed, progress)
        cases, provenance = open_folder(folder, mask_rule, progress=progress)
        folds = None
        if str(split) == "own":
            cases, folds = own_split(folder, cases)
        elif split is not None:
            folds = Folds.read(split)
        elif not provenance.is_phantoms and (committed := committed_folds(cases)):
            folds = committed[1]
        left = of_folder(folder, cases)
        text = left.text if left.reasons.keys() - {TEXTS} else ""
        return cls(folder, cases, folds, provenance, text)


def _join(opened: Sequence[_Opened], seed: int, progress: bool) -> _Opened:
    """Put data sets together, each under its name."""
    sets: dict[str, _Opened] = {}
    for one in opened:
        name = _name(one.folder) if one.provenance.is_phantoms else one.provenance.data
        if name in sets:
            raise DatasetError(
                f"{sets[name].folder}, {one.folder}: are both called {name}, and images are told "
                "apart by the name of their data set. Leave one out, or rename its folder."
            )
        sets[name] = one
    pairs = {name: (one.cases, one.folds) for name, one in sets.items()}
    cases, folds, across = join_data_sets(pairs, seed, progress=progress)
    groups = [f"{name}: {one.provenance.groups}" for name, one in sets.items()]
    provenance = Provenance(
        data=" + ".join(sets),
        data_kind="; ".join(dict.fromkeys(one.provenance.data_kind for one in opened)),
        sets=list(sets),
        groups="; ".join([*groups, across]),
    )
    left = " ".join(filter(None, (one.left_out for one in opened)))
    return _Opened(opened[0].folder, cases, folds, provenance, left)
