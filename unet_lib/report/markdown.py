"""A summary as Markdown. Per-image and pooled scores never share a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unet_lib.metrics import (
    ALL_IMAGES,
    BAND_PX,
    CONFUSION,
    LESION_IMAGES,
    SCORES,
    TOLERANCE_MM,
    TOLERANCE_PX,
    number,
    of_kind,
)
from unet_lib.metrics.curves import BINS
from unet_lib.provenance import Provenance
from unet_lib.report.texts import (
    banner,
    escape,
    explained,
    leaks,
    listed,
    plain,
    table,
    with_interval,
)

Summary = Any  # of `unet_lib.report.summary`, which imports this module
CONTOURS = ("surface_dice", "hd95", "mean_surface_distance", "area_error", "absolute_area_error")
FIRST_README = {"mean_iou": 0.833, "precision": 0.871, "recall": 0.767, "f1": 0.815, "auc": 0.999}
"""Pooled scores of the project's first README, of one test split that is not known any more."""
AUC_BOUND = 0.9984
"""No ROC curve has more area whose precision, recall and Mean IoU round to these three: they fix
the share of lesion pixels and so one point of it, and left of a point it stays at or below."""

NOTHING = "No image has a lesion: there is nothing to average."
OVERLAP_NOTE = (
    "One score for each image at its original size, then the mean. A missed lesion scores 0, an "
    "empty prediction on a lesion has precision 0; images without a lesion are not in here. "
    "Intervals: bootstrap of the mean over near-duplicate groups."
)
MISSED_NOTE = (
    "Missed: no true pixel predicted. Components: connected pieces of the true mask (8 "
    "neighbours); found: at least one of its pixels predicted; false: a predicted piece that "
    "holds no true pixel."
)
NORMALS_NOTE = (
    "Specificity: share of these images in which no pixel is predicted. They have no Dice or IoU. "
    "Intervals of shares: Wilson's over groups, the exact binomial one where all or none are left "
    "empty."
)
POOLED_NOTE = (
    "All pixels in one confusion matrix, so large images and large lesions weigh more; no "
    "intervals. Mean IoU: mean of lesion and background IoU. Do not compare with the per-image "
    "tables or with papers that quote per-image Dice. AUC and average precision are taken before "
    'any cleaning of the masks. "-": undefined or not known.'
)
FOLDS_NOTE = (
    "Here AUC and average precision are means over the folds: probabilities of different networks "
    "do not share a scale."
)
CALIBRATION_NOTE = (
    f"Brier score and expected calibration error in {BINS} bins of equal width, of all pixels and "
    f"of those at most {BAND_PX} pixels from a true contour: far from it nearly every pixel is "
    "easy, which flatters the plain figures. 0 is best; taken before any cleaning."
)
FIRST_README_NOTE = (
    "Which images the first README was scored on is not known, so these columns are not a "
    "comparison on the same data. (1) On the same pixels its AUC cannot hold: precision "
    f"{FIRST_README['precision']:.3f}, recall {FIRST_README['recall']:.3f} and Mean IoU "
    f"{FIRST_README['mean_iou']:.3f} fix one point (FPR, TPR) of the ROC curve, and a curve "
    f"through it has AUC <= 1 - FPR (1 - TPR), at most {AUC_BOUND:.4f}."
)


def render(summary: Summary, parts: Sequence[tuple[str, str]], *, level: int = 1) -> str:
    """Write a summary with its `sections` as Markdown that ends with a line break."""
    mark = "#" * level
    lines = (f"- {escape(key)}: {escape(value)}" for key, value in facts(summary))
    heading = f"{mark} {escape(title(summary.provenance))}"
    body = [part for heading, text in parts for part in (f"{mark}# {heading}", text)]
    return _join(heading, banner(summary.provenance), "\n".join(lines), *body) + "\n"


def title(provenance: Provenance) -> str:
    """Return the title of a report, as plain text."""
    words = " on ".join(filter(None, (provenance.model, provenance.data)))
    return f"Evaluation: {words}" if words else "Evaluation"


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Return the parts of a report, each with its heading (plain text) and Markdown."""
    provenance = summary.provenance
    suffix = " (training images: not a test)" if provenance.seen_in_training else ""
    scored = [
        ("Per image, images with a lesion", _means(summary, of_kind("overlap"), OVERLAP_NOTE)),
        ("Contours and areas, per image with a lesion", _contours(summary)),
        ("Missed lesions", _misses(summary)),
        ("Images without a lesion", _normals(summary)),
        *([("By data set", _sets(summary))] if summary.sets else []),
        ("Pooled pixels", _pooled(summary)),
        ("Calibration, pooled pixels", _calibration(summary)),
        ("Beside the figures of the first README (pooled pixels)", _beside(summary)),
    ]
    seen = ("Training images among these", leaks(provenance, summary.images))
    return [seen, *((f"{heading}{suffix}", explained(body)) for heading, body in scored)]


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Return what was scored, by name, as plain text."""
    first = ("model", "data", "fold", "part", "threshold")
    entries = summary.provenance.but(training_overlap=None).to_dict()
    keys = [*(k for k in first if k in entries), *sorted(k for k in entries if k not in first)]
    lesions = summary.per_image[0]["images"] if summary.per_image else 0
    without = summary.images - lesions
    return [
        *((key.replace("_", " "), plain(entries[key])) for key in keys),
        ("images", f"{summary.images} ({lesions} with a lesion, {without} without)"),
        ("groups (near-duplicates count as one)", str(summary.groups)),
    ]


def _titles(names: Sequence[str]) -> list[str]:
    return [SCORES[name].title for name in names]


def _means(summary: Summary, names: Sequence[str], note: str) -> str:
    """Write the means and the medians of some scores, one row for each class."""
    if not summary.per_image:
        return NOTHING
    means, medians = [], []
    for row in summary.per_image:
        label, images = escape(row["label"]), str(row["images"])
        groups = str(row["means"]["dice"].groups)
        cells = [with_interval(row["means"][name], SCORES[name].digits) for name in names]
        means.append([label, images, groups, *cells])
        medians.append([label, images, *(_median(row, name) for name in names)])
    header = ["mean (95 % interval)", "images", "groups", *_titles(names)]
    middle = ["median (quartiles)", "images", *_titles(names)]
    return _join(table(header, means), table(middle, medians), note)


def _median(row: dict[str, Any], name: str) -> str:
    values = (row["medians"][name], *row["quantiles"][name][1:3])
    median, low, high = (number(value, SCORES[name].digits) for value in values)
    return median if median == "-" else f"{median} ({low} to {high})"


def _contours(summary: Summary) -> str:
    unit = summary.unit
    tolerance = TOLERANCE_MM if unit == "mm" else TOLERANCE_PX
    note = (
        f"Distances in {unit} between the contours of truth and prediction: the 95th percentile "
        f"(HD95) and the mean; surface Dice is the share of both contours within {tolerance:g} "
        f"{unit} of each other. An image in which nothing was predicted counts with its diagonal "
        "and surface Dice 0. Area error: (predicted area - true area) / true area."
    )
    return _means(summary, CONTOURS, note)


def _misses(summary: Summary) -> str:
    if not summary.per_image:
        return "No image has a lesion."
    header = ["per image", "images", "missed", "share", "detected (95 % interval)", "components"]
    header += ["components found (95 % interval)", "false components an image"]
    rows = []
    for row in summary.per_image:
        pieces = row["components_found"]
        rows.append(
            [
                escape(row["label"]),
                str(row["images"]),
                str(row["missed"]),
                f"{row['missed'] / row['images']:.1%}",
                with_interval(row["detected"]),
                "-" if math.isnan(pieces.mean) else str(pieces.n),
                with_interval(pieces),
                with_interval(row["false_components"], 2),
            ]
        )
    names = f"No true pixel predicted: {listed(summary.missed)}." if summary.missed else ""
    return _join(table(header, rows), names, MISSED_NOTE)


def _normals(summary: Summary) -> str:
    row = summary.normals
    if row is None:
        return "There are none: specificity is not known from this evaluation."
    cells = {
        "per image": "without a lesion",
        "images": str(row["images"]),
        "groups": str(row["specificity"].groups),
        "left empty": str(row["left_empty"]),
        "specificity (95 % interval)": with_interval(row["specificity"]),
        "mean false-positive area, % of the image (95 % interval)": with_interval(
            row["false_positive_area"], 2, 100
        ),
        "false components an image": with_interval(row["false_components"], 2),
    }
    return _join(table(list(cells), [list(cells.values())]), NORMALS_NOTE)


def _sets(summary: Summary) -> str:
    """Write the scores of each data set, per image and pooled."""
    names = of_kind("overlap")
    header = ["per image", "images", "with a lesion", *_titles(names), "missed", "specificity"]
    scores, pooled = [], []
    for row in summary.sets:
        lesions, normals = row["per_image"], row["normals"]
        number_of = str(lesions["images"] if lesions else 0)
        cells = [with_interval(lesions["means"][n], SCORES[n].digits) for n in names if lesions]
        missed = str(lesions["missed"]) if lesions else "-"
        specificity = with_interval(normals["specificity"]) if normals else "-"
        cells = cells or ["-"] * len(names)
        name, images = escape(row["set"]), str(row["images"])
        scores.append([name, images, number_of, *cells, missed, specificity])
        pooled.append([name, images, *(number(row["pooled"][n]) for n in CONFUSION)])
    below = table(["pooled pixels of", "images", *_titles(CONFUSION)], pooled)
    return _join(table(header, scores), below)


def _pooled(summary: Summary) -> str:
    header = ["pooled pixels of", "images", "pixels", *_titles(("prevalence", *CONFUSION))]
    header += _titles(("auc", "average_precision"))
    cells = [
        [
            escape(row["label"]),
            str(row["images"]),
            f"{row['counts'].n:,}",
            *(number(row["scores"][name]) for name in ("prevalence", *CONFUSION)),
            number(row["auc"], 4),
            number(row["average_precision"]),
        ]
        for row in summary.pooled
    ]
    return _join(table(header, cells), POOLED_NOTE, _by_fold(summary))


def _by_fold(summary: Summary) -> str:
    if not summary.folds:
        return ""
    header = ["ROC AUC, pooled pixels of", *(f"fold {areas['fold']}" for areas in summary.folds)]
    cells = []
    for row in summary.pooled:
        areas = (fold["auc"].get(row["label"]) for fold in summary.folds)
        cells.append([escape(row["label"]), *("-" if a is None else number(a, 4) for a in areas)])
    return _join(table(header, cells), FOLDS_NOTE)


def _calibration(summary: Summary) -> str:
    if all(math.isnan(row["brier"]) for row in summary.pooled):
        return "The probabilities are not known."
    names = of_kind("calibration")
    cells = [
        [escape(row["label"]), str(row["images"]), *(number(row[name], 4) for name in names)]
        for row in summary.pooled
    ]
    return _join(table(["pooled pixels of", "images", *_titles(names)], cells), CALIBRATION_NOTE)


def _beside(summary: Summary) -> str:
    run = "phantoms" if summary.provenance.is_phantoms else "this run"
    rows = [row for row in summary.pooled if row["label"] in (ALL_IMAGES, LESION_IMAGES)]
    columns = (f"{run}: {row['label']} ({row['images']})" for row in rows)
    cells = [
        [SCORES[name].title, number(value), *(number(row["scores"][name]) for row in rows)]
        for name, value in FIRST_README.items()
        if name != "auc"
    ]
    area = f"{number(FIRST_README['auc'])} (1)"
    cells.append([SCORES["auc"].title, area, *(number(row["auc"], 4) for row in rows)])
    shown = table(["score", "first README", *columns], cells)
    return _join(banner(summary.provenance), shown, FIRST_README_NOTE)


def _join(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block)
