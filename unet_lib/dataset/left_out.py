"""Which files of a folder were not taken, and why: nothing is passed over in silence."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from unet_lib.dataset.cases import DatasetError
from unet_lib.images import is_picture, picture_name

OUTPUT = re.compile(r".+_(?:pred|overlay)$", re.IGNORECASE)
"""Names, without ending, of our own results."""

_NO_PICTURE = re.compile(
    r"(\.(csv|tsv|xlsx?|txt|md|rst|json|xml|html?|pdf|docx?|py|ipynb|ya?ml|ini|db|log|zip|h5|keras|lnk"
    r"|url))?"
)
TEXTS = "texts or tables, no pictures"
_SYSTEM = {"__MACOSX", "DICOMDIR"}
_TOOLS = {".nrrd": "3D Slicer", ".nii": "NIfTI", ".gz": "NIfTI", ".mha": "ITK", ".roi": "ImageJ"}
_TOOLS |= {".npy": "NumPy", ".mat": "MATLAB"}
_OUTLINES = {  # of other tools, by how their files begin
    "COCO": rb'"categories"|"annotations"',
    "VIA": rb'"regions"|_via_',
    "CVAT": rb"<annotations>",
    "Pascal VOC": rb"<annotation>",
    "YOLO": rb"\A\d+( -?[\d.]+){4}",
}
_MANY = 3  # names shown of each reason


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

    def refuse_half(self, classes: Collection[str] = ()) -> None:
        """Raise where as much is left as taken, or what lies in the folders of some classes."""
        tops = {path.relative_to(self.root).parts[0].lower() for path in self.lost}
        if len(self.lost) >= max(1, len(self.taken)) or not tops.isdisjoint(classes):
            raise DatasetError(
                f"{self.root}: {len(self.taken)} files would be taken and {len(self.lost)} left. "
                f"{self.text} Put the files where they are expected, save them as PNG, or take "
                "away what is not meant."
            )


def left_out(
    root: Path, taken: Collection[Path] = (), results: re.Pattern[str] = OUTPUT
) -> LeftOut:
    """Compare what lies in a folder and in folders within with what was taken of it."""
    taken, lost, reasons = set(taken), [], defaultdict(list)
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path in taken or any(p.startswith(".") or p in _SYSTEM for p in parts):
            continue
        if not path.is_file() and (path.exists() or not path.is_symlink()):
            continue
        ending, tool = path.suffix.lower(), _tool(path)
        if not path.is_file():
            reasons["links that lead nowhere"].append(path)
            lost.append(path)
        elif results.fullmatch(picture_name(path)):
            reasons["masks or earlier results"].append(path)
        elif is_picture(path):
            place = "/".join(parts[:-1]) or "the folder itself"
            reasons[f"pictures in {place} that make no case"].append(path)
            lost.append(path)
        elif tool:
            reason = f"files ending with {ending} ({tool}), which is not read: save them as PNG"
            reasons[f"{reason} under their image's name"].append(path)
            lost.append(path)
        elif _NO_PICTURE.fullmatch(ending):
            reasons[TEXTS].append(path)
        else:
            reasons[f"files ending with {ending}, which is not read"].append(path)
            lost.append(path)
    return LeftOut(root, taken, dict(reasons), lost)


def _tool(path: Path) -> str:
    """Name the tool whose masks or outlines a file holds that is not read."""
    if path.suffix.lower() not in (".json", ".xml", ".txt") or not path.is_file():
        return _TOOLS.get(path.suffix.lower(), "")
    with path.open("rb") as file:
        head = file.read(4096)
    return next((tool for tool, mark in _OUTLINES.items() if re.search(mark, head)), "")
