"""Publish a cross-validation and add it to the ledger; nothing is left out.

    python -m lab.ledger runs/recipe --against experiments/lite0-128 --note "squeezed"
    python -m lab.ledger runs/recipe --part test --publish experiments/recipe --models

One row for each set of folds and part; the same folds of the same recipe again replace their row.
The test parts of a recipe are recorded under one name only: a second draw would let one choose.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lab.tables import all_tables
from unet_lib.files import folder_lock, write_atomic
from unet_lib.metrics import (
    LESION_IMAGES,
    CaseTable,
    Evaluation,
    join_tables,
    merge_evaluations,
)
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.report import compare, write_report
from unet_lib.report.markdown import NO_INTERVAL, number
from unet_lib.training import Recipe
from unet_lib.training.folds import (
    DESCRIPTION,
    PARTS,
    CrossValidation,
    load_crossvalidation,
)
from unet_lib.training.result import HISTORY, MODEL, RESULT, SETTINGS

LEDGER = Path("experiments/ledger.csv")
_KEY = ("name", "part", "folds", "digest")
_DIFFERENCE = ("difference", "difference_low", "difference_high", "p")


def scores(evaluations: Mapping[int, Evaluation]) -> dict[str, float]:
    """Score the images of several folds together; the AUC is the mean of the folds' AUCs."""
    table = join_tables(evaluations)
    lesions, normals = table.lesion_cases, table.normal_cases
    dice = group_bootstrap(lesions.column("dice"), lesions.groups)
    pooled = lesions.pooled()
    aucs = [one.histogram(LESION_IMAGES).auc for one in evaluations.values()]
    return {
        "images": len(table),
        "lesion_images": len(lesions),
        "dice": dice.mean,
        "dice_low": dice.low,
        "dice_high": dice.high,
        "benign": _mean(lesions.subset(labels=["benign"]), "dice"),
        "malignant": _mean(lesions.subset(labels=["malignant"]), "dice"),
        "missed": _mean(lesions, "missed"),
        "specificity": _mean(normals, "predicted_empty"),
        "mean_iou": pooled.mean_iou,
        "precision": pooled.precision,
        "recall": pooled.recall,
        "f1": pooled.f1,
        "auc": float(np.mean(aucs)),
    }


def _mean(table: CaseTable, column: str) -> float:
    return float(table.column(column).mean()) if len(table) else math.nan


def difference(mine: Mapping[int, Evaluation], other: Mapping[int, Evaluation]) -> dict[str, float]:
    """Compare the Dice of two recipes on the lesion images of the folds that both have."""
    common = sorted(set(mine) & set(other))
    if not common:
        raise ValueError(
            f"nothing to compare: one has the folds {sorted(mine)}, the other {sorted(other)}."
        )
    tables = [join_tables({fold: one[fold] for fold in common}) for one in (mine, other)]
    dice = next(row for row in compare(*tables) if row.score == "dice")
    values = (dice.first - dice.second, dice.difference.low, dice.difference.high, dice.p)
    return dict(zip(_DIFFERENCE, values, strict=True))


def row_of(
    folds: CrossValidation, part: str, against: CrossValidation | None = None, note: str = ""
) -> dict[str, Any]:
    """Return the ledger's row of one part of some folds."""
    evaluations = folds.scores[part]
    if not evaluations:
        raise ValueError(f"{folds.folder}: no fold has {part} scores.")
    paired: dict[str, float] = dict.fromkeys(_DIFFERENCE, math.nan)
    if against is not None:
        paired = difference(evaluations, against.scores[part])
    return {
        "name": folds.name,
        "part": part,
        "folds": " ".join(map(str, evaluations)),
        "digest": digest_of(folds),
        "changed": _changed(folds.recipe, folds.provenance.normals),
        "data": folds.provenance.data,
        "split": folds.provenance.split,
        **scores(evaluations),
        "against": against.name if against else "",
        **paired,
        "thresholds": " ".join(f"{result['threshold']:g}" for result in folds.results.values()),
        "hours": sum(result["hours"] for result in folds.results.values()),
        "hardware": folds.environment.get("hardware", ""),
        "commit": folds.environment.get("git") or "",
        "note": note,
    }


def recipe_digest(recipe: Recipe, data: str, split: str, normals: bool) -> str:
    """Tell a recipe on a split from any other: 12 hexadecimal digits.

    Only settings that differ from the default count, so that a setting added to the library later
    leaves the digits of earlier recipes as they were.
    """
    identity = {"recipe": recipe.changes(), "data": data, "split": split, "normals": normals}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def digest_of(folds: CrossValidation) -> str:
    """Return the `recipe_digest` of a cross-validation."""
    data = folds.provenance
    return recipe_digest(folds.recipe, data.data, data.split, data.normals)


def _changed(recipe: Recipe, normals: bool) -> str:
    """Name the settings that differ from the default recipe."""
    words = [
        f"{part}.{name}={value}"
        for part, values in recipe.changes().items()
        for name, value in values.items()
    ]
    return "; ".join(words if normals else [*words, "normals=no"]) or "default"


def read_ledger(path: Path) -> list[dict[str, str]]:
    """Read the rows as they are written; an absent file is an empty ledger."""
    if not path.is_file():
        return []
    reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    rows = list(reader)
    if not {*_KEY, "dice"} <= set(reader.fieldnames or ()) or any(None in r.values() for r in rows):
        raise ValueError(f"{path}: is no whole ledger; restore it from the repository.")
    return rows


def record(row: Mapping[str, Any], path: Path = LEDGER) -> None:
    """Write a row; the same folds of the same recipe again replace theirs."""
    shown = {name: _shown(value) for name, value in row.items()}
    with folder_lock(path.parent, wait=True):  # two processes may end at the same time
        rows = read_ledger(path)
        for other in rows:
            same = (other["part"], other["digest"]) == ("test", row["digest"])
            if row["part"] == "test" and same and other["name"] != row["name"]:
                raise ValueError(
                    f"{path}: the test parts were scored for this recipe already, as "
                    f"{other['name']!r}. Test scores are made once for a recipe."
                )
        kept = [r for r in rows if any(r[name] != shown[name] for name in _KEY)]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(shown), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, shown])
        write_atomic(path, text.getvalue())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return str(value)


def to_text(row: Mapping[str, Any]) -> str:
    """Say the main scores of a row in a few lines."""
    lines = [
        f"{row['name']}, {row['part']} images of fold {row['folds']} of {row['split']} "
        f"({row['data']}): {row['lesion_images']} with a lesion (an image counts in each fold "
        "that it is in)",
        f"Dice per image {number(row['dice'])} ({_limits(row, 'dice')}), benign "
        f"{number(row['benign'])}, malignant {number(row['malignant'])}; lesions missed "
        f"{number(100 * row['missed'], 1)} %; images without a lesion left empty "
        f"{number(100 * row['specificity'], 1)} %",
        f"pooled pixels of lesion images: Mean IoU {number(row['mean_iou'])}, precision "
        f"{number(row['precision'])}, recall {number(row['recall'])}, F1 {number(row['f1'])}; AUC "
        f"{number(row['auc'], 4)}",
    ]
    if row["against"]:
        lines.append(
            f"Dice less {row['against']}'s on the same images: {number(row['difference'])} "
            f"({_limits(row, 'difference')}), p = {number(row['p'])}"
        )
    return "\n".join(lines)


def _limits(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return NO_INTERVAL if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def publish(folds: CrossValidation, folder: Path, *, models: bool = False) -> Path:
    """Copy what tells the results, with the tables of all folds and the report of the test."""
    names = [DESCRIPTION]
    for fold in folds.results:
        names += [f"fold{fold}/{name}" for name in (SETTINGS, RESULT, HISTORY)]
        if models:
            inside = sorted((folds.folder / f"fold{fold}" / MODEL).iterdir())
            names += [path.relative_to(folds.folder).as_posix() for path in inside]
    for name in names:
        write_atomic(folder / name, (folds.folder / name).read_bytes())
    for part in PARTS:
        evaluations = folds.scores[part]
        for fold, evaluation in evaluations.items():
            evaluation.save(folder / f"fold{fold}" / part)
        if evaluations:
            audited = folds.provenance.data == "BUSI"
            tables = all_tables(evaluations, name=folds.name, audited=audited)
            write_atomic(folder / part / "tables.md", tables)
        if evaluations and part == "test":
            merged = merge_evaluations(evaluations)
            merged.provenance = merged.provenance.but(model=folds.name)
            write_report(merged, folder / part, page=False)  # half the page is alike everywhere
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Record, and publish where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of crossvalidate")
    parser.add_argument("--part", choices=PARTS, default=PARTS[0])
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    parser.add_argument("--against", type=Path, help="folder of the recipe to compare with")
    parser.add_argument("--note", default="", help="a remark")
    parser.add_argument("--publish", type=Path, help="copy the results there, to be committed")
    parser.add_argument("--models", action="store_true", help="publish the folds' models too")
    options = parser.parse_args(arguments)
    folds = load_crossvalidation(options.run)
    against = load_crossvalidation(options.against) if options.against else None
    row = row_of(folds, options.part, against, options.note)
    record(row, options.ledger)
    warning = folds.provenance.banner
    print(f"{warning}\n" * bool(warning) + to_text(row))
    if options.publish:
        print(publish(folds, options.publish, models=options.models))


if __name__ == "__main__":
    main()
