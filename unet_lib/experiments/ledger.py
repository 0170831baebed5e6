"""The ledger: one row a cross-validation, what it scored and against what; nothing is left out."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unet_lib.experiments.crossvalidation import CrossValidation, recipe_digest
from unet_lib.experiments.scores import PairedDifference, compare_folds, summarise_folds
from unet_lib.files import folder_lock, write_atomic
from unet_lib.report.texts import NO_INTERVAL, number
from unet_lib.training import Recipe

__all__ = ["LedgerRow", "check_final", "read_ledger", "record"]


@dataclass(frozen=True)
class LedgerRow:
    """One recipe on one part of some folds.

    Attributes
    ----------
    name, part : str
        Folder of the cross-validation; ``validation`` or ``test``.
    folds : str
        Such as ``0 1 2``.
    digest : str
        `CrossValidation.digest`.
    changed : str
        What differs from the default recipe.
    data, split : str
    dice, dice_low, dice_high : float
        Per image, lesion images, with the 95 % interval over near-duplicate groups.
    benign, malignant : float
        The same by class, as far as the classes exist.
    missed, specificity : float
        Share of lesion images of whose lesion nothing was predicted; share of the images without
        a lesion that were left empty.
    mean_iou, precision, recall, f1, auc : float
        Pooled pixels of the lesion images; the AUC is the mean of the folds' AUCs.
    against : str
        Name of the cross-validation it is compared with; empty for none.
    difference, difference_low, difference_high, p : float
        Mean difference of Dice on the same images of the same folds, its 95 % interval, and the
        p value of Wilcoxon's test.
    thresholds : str
    hours : float
        Of training, all folds.
    hardware, commit, note : str
    """

    name: str
    part: str
    folds: str
    digest: str
    changed: str
    data: str
    split: str
    images: int
    lesion_images: int
    dice: float
    dice_low: float
    dice_high: float
    benign: float
    malignant: float
    missed: float
    specificity: float
    mean_iou: float
    precision: float
    recall: float
    f1: float
    auc: float
    against: str
    difference: float
    difference_low: float
    difference_high: float
    p: float
    thresholds: str
    hours: float
    hardware: str
    commit: str
    note: str

    def to_text(self) -> str:
        """Return the main scores in a few lines."""
        lines = [
            f"{self.name}, {self.part} images of fold {self.folds} of {self.split} ({self.data}): "
            f"{self.lesion_images} with a lesion (an image counts in each fold that it is in)",
            f"Dice per image {number(self.dice)} ({_limits(self.dice_low, self.dice_high)}), "
            f"benign {number(self.benign)}, malignant {number(self.malignant)}; lesions missed "
            f"{number(100 * self.missed, 1)} %; images without a lesion left empty "
            f"{number(100 * self.specificity, 1)} %",
            f"pooled pixels of lesion images: Mean IoU {number(self.mean_iou)}, precision "
            f"{number(self.precision)}, recall {number(self.recall)}, F1 {number(self.f1)}; AUC "
            f"{number(self.auc, 4)}",
        ]
        if self.against:
            limits = _limits(self.difference_low, self.difference_high)
            lines.append(
                f"Dice less {self.against}'s on the same images: {number(self.difference)} "
                f"({limits}), p = {number(self.p)}"
            )
        return "\n".join(lines)


_NAMES = tuple(field.name for field in fields(LedgerRow))
_KEY = ("name", "part", "folds", "digest")


def read_ledger(path: str | Path) -> list[LedgerRow]:
    """Read a ledger; an absent file is an empty one.

    Raises
    ------
    ValueError
        The columns or a number are not what a ledger has; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        return []
    reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    if tuple(reader.fieldnames or ()) != _NAMES:
        raise ValueError(f"{path}: expected the columns {','.join(_NAMES)}.")
    rows = []
    for line in reader:
        values = {}
        for field in fields(LedgerRow):
            try:
                values[field.name] = _read(field.type, line[field.name])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: {field.name} is {line[field.name]!r}, "
                    "expected a number. Restore the line, or remove it and score again."
                ) from error
        rows.append(LedgerRow(**values))
    return rows


def check_final(
    path: str | Path, name: str, recipe: Recipe, data: str, split: str, normals: bool
) -> None:
    """Refuse to score the test parts of a recipe that was scored under another name.

    Parameters
    ----------
    path : str or Path
        The ledger.
    name : str
        Of the folder that is about to be scored.
    recipe, data, split, normals
        As in `recipe_digest`.

    Raises
    ------
    ValueError
        The ledger holds test scores of this recipe from another folder.
    """
    digest = recipe_digest(recipe, data, split, normals)
    for row in read_ledger(path):
        if row.part == "test" and row.digest == digest and row.name != name:
            raise ValueError(
                f"{path}: the test parts were scored for this recipe already, as {row.name!r}. "
                "Test scores are made once for a recipe; a second draw would let one choose."
            )


def record(
    done: CrossValidation,
    path: str | Path,
    part: str,
    *,
    against: CrossValidation | None = None,
    note: str = "",
) -> LedgerRow:
    """Add a row to the ledger; the same folds of the same recipe again replace their row.

    Parameters
    ----------
    done : CrossValidation
    path : str or Path
        The CSV, made when absent.
    part : {"validation", "test"}
    against : CrossValidation, optional
        Compared image by image on the folds that both have.
    note : str

    Returns
    -------
    LedgerRow

    Raises
    ------
    ValueError
        No fold has scores of this part, or the two have no fold in common.
    """
    row = _row(done, part, against, note)
    with folder_lock(Path(path).parent, wait=True):  # two processes may end at the same time
        rows = read_ledger(path)
        key = [getattr(row, name) for name in _KEY]
        kept = [r for r in rows if [getattr(r, name) for name in _KEY] != key]
        text = io.StringIO()
        writer = csv.DictWriter(text, _NAMES, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _shown(v) for k, v in asdict(r).items()} for r in [*kept, row])
        write_atomic(path, text.getvalue())
    return row


def _row(done: CrossValidation, part: str, against: CrossValidation | None, note: str) -> LedgerRow:
    evaluations = done.evaluations(part)
    if not evaluations:
        raise ValueError(f"{done.folder}: no fold has {part} scores.")
    scores = summarise_folds(evaluations)
    difference = PairedDifference()
    if against is not None:
        difference = compare_folds(evaluations, against.evaluations(part))
    return LedgerRow(
        name=done.name,
        part=part,
        folds=" ".join(map(str, evaluations)),
        digest=done.digest,
        changed=_changed(done.recipe, done.about["normals"]),
        data=done.about["data"],
        split=done.about["split"],
        **asdict(scores),
        against=against.name if against else "",
        **asdict(difference),
        thresholds=" ".join(f"{fold.result['threshold']:g}" for fold in done.folds),
        hours=sum(fold.result["hours"] for fold in done.folds),
        hardware=done.environment.get("hardware", ""),
        commit=done.environment.get("git") or "",
        note=note,
    )


def _changed(recipe: Recipe, normals: bool) -> str:
    """Name the settings that differ from the default recipe."""
    plain, words = Recipe().to_dict(), []
    for part, values in recipe.to_dict().items():
        words += [f"{part}.{k}={v}" for k, v in values.items() if v != plain[part][k]]
    return "; ".join(words if normals else [*words, "normals=no"]) or "default"


def _limits(low: float, high: float) -> str:
    return NO_INTERVAL if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _read(kind: Any, text: str) -> Any:
    if kind == "float":
        return float(text) if text else math.nan
    return int(text) if kind == "int" else text


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return value
