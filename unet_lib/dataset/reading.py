"""Which cases a data folder holds, which of its files were left out, and where data may lie."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unet_lib.dataset.cases import DATA_FOLDER, LABELS, Case, DatasetError, natural_key
from unet_lib.dataset.groups import group_cases
from unet_lib.dataset.layouts import (
    BUSI_NAME,
    LAYOUTS,
    OUTPUT,
    expected,
    recognised,
    refuse,
    subfolders,
)
from unet_lib.images import IMAGE_SUFFIXES, MaskSet, is_picture, picture_name

_VARIABLE = "BUSI_DIR"
_KAGGLE = Path("/kaggle/input/breast-ultrasound-images-dataset")
_COLAB = Path("/content")

TEXTS = "files that are no pictures"
_EMPTY = "class folders that give no case"
_NO_PICTURE = re.compile(
    r"(\.(csv|tsv|xlsx?|txt|md|rst|json|xml|html?|pdf|docx?|py|ipynb|ya?ml|ini|db|log|zip|h5|keras|lnk"
    r"|url))?"
)
_SYSTEM = {"__MACOSX", "DICOMDIR"}
_OUTLINES = {  # of other tools, by how their files begin
    "COCO": rb'"categories"|"annotations"',
    "VIA": rb'"regions"|_via_',
    "CVAT": rb"<annotations>",
    "Pascal VOC": rb"<annotation>",
    "YOLO": rb"\A\d+( -?[\d.]+){4}",
}
_MANY = 3  # names shown of each reason


def find_cases(
    folder: str | os.PathLike,
    *,
    audit: str | os.PathLike | None = "auto",
    require_masks: bool = True,
    mask_rule: str | None = None,
) -> list[Case]:
    """List the cases of a folder, in a fixed order.

    Parameters
    ----------
    folder : path-like
        A folder in one of the layouts of `LAYOUTS`, or one that holds it as its archive unpacks.
        Files named ``*_pred`` and ``*_overlay`` (our own results) and hidden files are passed
        over.
    audit : path-like, "auto" or None
        CSV with the columns ``image`` and ``group``. "auto" takes the folder's ``groups.csv``,
        else the project's list when the folder is BUSI (all its names and classes) or a part of
        it (names, classes and sizes of the pictures agree). Pictures of one patient are joined
        with either. None: no groups. Near-duplicates are searched by `group_cases`.
    require_masks : bool
        Whether a lesion image without mask is an error. A normal image never needs one.
    mask_rule : str, optional
        Which grey values of the masks are background and which lesion, only where the library
        refuses to tell: ``255:0`` (negatives), ``0,1:2`` (labels), ``0-127:128-255`` (soft maps),
        ``0:#ff0000`` (colours). Refused where a mask holds other values or contradicts it.

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
    return group_cases(read_folder(root, require_masks, mask_rule), root, audit, search=False)[0]


def read_folder(root: Path, require_masks: bool = True, mask_rule: str | None = None) -> list[Case]:
    """List the cases of a folder that `find_root` gave, each in a group of its own."""
    layout = recognised(root)
    if layout is None:
        raise DatasetError(
            f"{root}: no images found where they should be. {left_out(root).text} {expected()}"
        )
    try:
        cases = layout.read(root)
        absent = _masks_checked(cases, require_masks)
    except DatasetError as error:  # what is missing may be there with an ending that is not read
        raise DatasetError(f"{error} {_unread(root)}".rstrip()) from error
    if not cases:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError(
            f"{root}: the folders ({', '.join(subfolders(root))}) are there but hold no image as "
            f"{layout.name}. {left_out(root).text} Endings that are read: {endings}. {expected()}"
        )
    of_folder(root, cases).refuse_half()
    # Where only some of an image's masks are missing they are left in: `check_cases` names them.
    cases = [replace(c, mask_paths=()) if absent.issuperset(c.mask_paths) else c for c in cases]
    if len({c.name for c in cases}) < len(cases):  # benign/1.png beside malignant/1.png
        cases = [replace(c, name=n, group=n) for c in cases for n in [f"{c.label} ({c.name})"]]
    paths = (path for case in cases for path in case.mask_paths if path.is_file())
    together = MaskSet(paths, mask_rule or layout.mask_rule)
    cases = [replace(case, mask_set=together) for case in cases]
    return sorted(cases, key=lambda c: (LABELS.index(c.label), natural_key(c.name)))


def _masks_checked(cases: Sequence[Case], require_masks: bool) -> set[Path]:
    """Return the masks that a table names and that are not there, or refuse them."""
    absent = {path for case in cases for path in case.mask_paths if not path.is_file()}
    if require_masks:
        lesions = [case for case in cases if case.label != "normal"]
        lost = {path for case in lesions for path in case.mask_paths} & absent
        refuse(sorted(lost), "this mask is not there. Add it, or take its image out.")
        refuse(
            [case.image_path for case in lesions if not case.mask_paths],
            "image without a mask (only normal images may go without). Add its mask, or take the "
            "image out.",
        )
    return absent


def _unread(root: Path) -> str:
    """Say what in a folder has endings that are not read, or lies at different depths."""
    left = left_out(root)
    uneven = len({len(path.relative_to(root).parts) for path in left.lost}) > 1
    wanted = ("files ending", "pictures in") if uneven else ("files ending",)
    reasons = {reason: paths for reason, paths in left.reasons.items() if reason.startswith(wanted)}
    return replace(left, reasons=reasons).text


def find_root(folder: Path) -> Path:
    """Return the folder that holds the images' folders: `folder` itself or a set inside it."""
    if folder.suffix.lower() == ".npz" and folder.is_file():
        raise DatasetError(
            f"{folder}: is a file of arrays; a folder is needed. Unpack MedSegBench's BUSI with "
            f"python -m lab.medsegbench {folder}"
        )
    if not folder.is_dir():
        here = "is a file; a folder is needed (unpack an archive)"
        what = here if folder.exists() else "no such folder"
        raise DatasetError(f"{folder}: {what}. {expected()}")
    inner = [
        place / layout.unpacks_to
        for layout in LAYOUTS
        for place in (folder, folder / "archive")
        if layout.unpacks_to and (place / layout.unpacks_to).is_dir()
    ]
    if len({path.name for path in inner}) > 1:
        raise DatasetError(
            f"{folder}: holds several data sets, {', '.join(p.name for p in inner)}; name one."
        )
    return find_root(inner[0]) if inner and not recognised(folder) else folder


def locate_dataset(dataset: str | os.PathLike = "auto") -> Path | None:
    """Find the data set to work on.

    Parameters
    ----------
    dataset : path-like, "auto" or "phantoms"
        A folder is taken as it is. "auto" looks at the environment variable ``BUSI_DIR``, then
        at ``data/Dataset_BUSI_with_GT`` of the project and of the working folder, at Kaggle's
        mount and under Colab's ``/content``, and takes the first that holds images.

    Returns
    -------
    Path or None
        A folder for :func:`unet_lib.dataset.find_cases`. None: there is no data set (or
        "phantoms" was asked for); use phantoms.

    Raises
    ------
    DatasetError
        The folder that was named, here or in ``BUSI_DIR``, is not there or holds no images. A
        named folder is never replaced by another one.
    """
    if dataset == "phantoms":
        return None
    variable = os.environ.get(_VARIABLE, "").strip() if dataset == "auto" else ""
    if dataset == "auto" and not variable:
        mounted = sorted(_KAGGLE.parent.glob("datasets/*/*"))  # by owner and name, since 2026
        for place in (DATA_FOLDER, Path("data"), _KAGGLE, *mounted, _COLAB):
            for folder in (place / BUSI_NAME, place / "archive" / BUSI_NAME):
                if folder.is_dir() and recognised(find_root(folder)):
                    return find_root(folder)
        return None
    folder = Path(variable or dataset).expanduser()
    named = f"the environment variable {_VARIABLE}" if variable else f"dataset={str(dataset)!r}"
    if not folder.exists():
        raise DatasetError(
            f"{folder}: {named} names this folder, but it does not exist. Correct the path, or "
            "leave it out to use the built-in phantoms."
        )
    root = find_root(folder)
    if not recognised(root):
        raise DatasetError(f"{folder}: {named} names this folder, it holds no cases. {expected()}")
    return root


# --- what was left out: nothing is passed over in silence -----------------------------------------


@dataclass(frozen=True)
class LeftOut:
    """Files of a folder that were not taken."""

    root: Path
    taken: Collection[Path]
    reasons: dict[str, list[Path]]
    lost: list[Path]  # those that may belong to the data: no texts, no results

    def __str__(self) -> str:
        """Say what was taken, by ending, and what was left, by reason."""
        kinds = Counter(path.suffix.lower() or "no ending" for path in self.taken)
        taken = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return f"Taken of {self.root}: {taken or 'nothing'}. {self.text or 'Nothing is left out.'}"

    @property
    def text(self) -> str:
        """What was left, and why; empty where nothing was."""
        texts = []
        for reason, paths in self.reasons.items():
            names = ", ".join(path.name for path in paths[:_MANY])
            texts.append(f"{len(paths)} {reason} ({names}{', ...' * (len(paths) > _MANY)})")
        return f"Left out: {'; '.join(texts)}." if texts else ""

    def refuse_half(self) -> None:
        """Raise where as much is left as taken, or what lies in the folders of empty classes."""
        empty = self.reasons.get(_EMPTY, ())
        hidden = any(path.is_relative_to(folder) for path in self.lost for folder in empty)
        if len(self.lost) >= max(1, len(self.taken)) or hidden:
            raise DatasetError(
                f"{self.root}: {len(self.taken)} files would be taken and {len(self.lost)} left. "
                f"{self.text} Put the files where they are expected, save them as PNG, or take "
                "away what is not meant."
            )


def of_folder(folder: Path, cases: Sequence[Case]) -> LeftOut:
    """Compare what lies in a data folder with its cases."""
    root, labels = find_root(folder), {case.label for case in cases}
    left = left_out(root, [p for case in cases for p in (case.image_path, *case.mask_paths)])
    classes = set(LABELS[:3]) - labels
    empty = [path for name, path in subfolders(root).items() if name in classes]
    return replace(left, reasons=left.reasons | {_EMPTY: empty}) if empty else left


def left_out(
    root: Path, taken: Collection[Path] = (), results: re.Pattern[str] = OUTPUT
) -> LeftOut:
    """Compare what lies in a folder and in folders within with what was taken of it."""
    taken, lost, reasons = set(taken), [], defaultdict(list)
    holders = {folder for path in taken for folder in path.parents}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path in taken or any(p.startswith(".") or p in _SYSTEM for p in parts):
            continue
        if path in holders or not (path.is_file() or path.is_symlink()):
            continue
        reason, may_be_data = _why(path, "/".join(parts[:-1]), results)
        reasons[reason].append(path)
        if may_be_data:
            lost.append(path)
    return LeftOut(root, taken, dict(reasons), lost)


def _why(path: Path, place: str, results: re.Pattern[str]) -> tuple[str, bool]:
    """Say why a file was not taken, and whether it may belong to the data."""
    ending = path.suffix.lower()
    if not path.is_file():
        where = "to folders, which are not followed" if path.is_dir() else "that lead nowhere"
        return f"links {where}", True
    if results.fullmatch(picture_name(path)):
        return "masks or earlier results", False
    if is_picture(path):
        return f"pictures in {place or 'the folder itself'} that make no case", True
    tool = ""
    if ending in (".json", ".xml", ".txt"):
        with path.open("rb") as file:
            head = file.read(4096)
        tool = next((f" ({tool})" for tool, of in _OUTLINES.items() if re.search(of, head)), "")
    if _NO_PICTURE.fullmatch(ending) and not tool:
        return TEXTS, False
    reason = f"files ending with {ending}{tool}, which is not read: save them as PNG"
    return f"{reason} under their image's name", True
