"""A summary as Markdown. Per-image and pooled scores never share a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unet_lib.metrics import BAND_PX, TOLERANCE_MM, TOLERANCE_PX
from unet_lib.metrics.curves import BINS
from unet_lib.report.first_readme import FIRST_README, first_readme_auc_bound
from unet_lib.report.texts import (
    banner,
    escape,
    explained,
    leaks,
    listed,
    number,
    plain,
    table,
    with_interval,
)

if TYPE_CHECKING:
    from unet_lib.report.summary import PerImageSummary, PooledSummary, Summary

PER_IMAGE = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall"}
CONTOURS = {
    **{"surface_dice": "surface Dice", "hd95": "HD95", "mean_surface_distance": "mean distance"},
    **{"area_error": "area error", "absolute_area_error": "absolute area error"},
}
DIGITS = {"hd95": 1, "mean_surface_distance": 1}
CALIBRATION = {
    **{"brier": "Brier", "ece": "ECE", "band_brier": "Brier in the band"},
    **{"band_ece": "ECE in the band"},
}
POOLED = {
    **{"precision": "precision", "recall": "recall", "f1": "F1", "iou": "lesion IoU"},
    **{"mean_iou": "Mean IoU", "accuracy": "pixel accuracy"},
}
BESIDE = {"mean_iou": "Mean IoU", "precision": "precision", "recall": "recall", "f1": "F1"}


def render(summary: Summary, *, level: int = 1) -> str:
    """Write a summary as Markdown.

    Parameters
    ----------
    summary : Summary
    level : int
        Depth of the first heading; the others are one deeper.

    Returns
    -------
    str
        Ends with a line break.
    """
    mark = "#" * level
    blocks = [f"{mark} {escape(title(summary.about))}", _what(summary)]
    for heading, body in sections(summary):
        blocks += [f"{mark}# {heading}", body]
    return "\n\n".join(blocks) + "\n"


def title(about: Mapping[str, Any]) -> str:
    """Return the title of a report, as plain text."""
    words = [str(part) for part in (about.get("model"), about.get("data")) if part]
    return f"Evaluation{': ' if words else ''}{' on '.join(words)}"


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Return the parts of a report, each with its heading (plain text) and Markdown."""
    about = summary.about
    suffix = " (training images: not a test)" if about.get("seen_in_training") else ""
    scored = [
        ("Per image, images with a lesion", _per_image(summary.per_image)),
        ("Contours and areas, per image with a lesion", _contours(summary)),
        ("Missed lesions", _misses(summary)),
        ("Images without a lesion", _normals(summary)),
        ("Pooled pixels", _pooled(summary)),
        ("Calibration, pooled pixels", _calibration(summary.pooled)),
        ("Beside the figures of the first README (pooled pixels)", _beside(summary)),
    ]
    seen = ("Training images among these", leaks(about, summary.images))
    return [seen, *((f"{heading}{suffix}", explained(body)) for heading, body in scored)]


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Return what was scored, by name, as plain text."""
    first = ("model", "data", "fold", "part", "threshold")
    about = {key: value for key, value in summary.about.items() if key != "training_overlap"}
    keys = [*(k for k in first if k in about), *sorted(k for k in about if k not in first)]
    found = [(key.replace("_", " "), plain(about[key])) for key in keys]
    lesions = summary.per_image[0].images if summary.per_image else 0
    without = summary.images - lesions
    found.append(("images", f"{summary.images} ({lesions} with a lesion, {without} without)"))
    found.append(("groups (near-duplicates count as one)", str(summary.groups)))
    return found


def _what(summary: Summary) -> str:
    lines = (f"- {escape(key)}: {escape(value)}" for key, value in facts(summary))
    return _join(banner(summary.about), "\n".join(lines))


def _per_image(rows: Sequence[PerImageSummary]) -> str:
    if not rows:
        return "No image has a lesion: there is nothing to average."
    note = (
        "One score for each image at its original size, then the mean. A missed lesion scores 0, "
        "an empty prediction on a lesion has precision 0; images without a lesion are not in here. "
        "Intervals: bootstrap of the mean over near-duplicate groups."
    )
    return _join(*_means_and_medians(rows, PER_IMAGE), note)


def _contours(summary: Summary) -> str:
    if not summary.per_image:
        return "No image has a lesion: there is nothing to average."
    unit = summary.unit
    tolerance = TOLERANCE_MM if unit == "mm" else TOLERANCE_PX
    note = (
        f"Distances in {unit} between the contours of truth and prediction: the 95th percentile "
        f"(HD95) and the mean; surface Dice is the share of both contours within {tolerance:g} "
        f"{unit} of each other. An image in which nothing was predicted counts with its diagonal "
        "and surface Dice 0. Area error: (predicted area - true area) / true area."
    )
    return _join(*_means_and_medians(summary.per_image, CONTOURS), note)


def _means_and_medians(rows: Sequence[PerImageSummary], names: Mapping[str, str]) -> list[str]:
    header = ("mean (95 % interval)", "images", "groups", *names.values())
    means = [
        (escape(row.label), str(row.images), str(row.means["dice"].groups),
         *(with_interval(row.means[name], DIGITS.get(name, 3)) for name in names))
        for row in rows
    ]  # fmt: skip
    medians = [
        (escape(row.label), str(row.images), *(_median(row, name) for name in names))
        for row in rows
    ]
    return [table(header, means), table(("median (quartiles)", "images", *names.values()), medians)]


def _median(row: PerImageSummary, name: str) -> str:
    digits = DIGITS.get(name, 3)
    _, low, high, _ = (number(value, digits) for value in row.quantiles[name])
    median = number(row.medians[name], digits)
    return median if median == "-" else f"{median} ({low} to {high})"


def _misses(summary: Summary) -> str:
    if not summary.per_image:
        return "No image has a lesion."
    header = ("per image", "images", "missed", "share", "detected (95 % interval)", "components",
              "components found (95 % interval)", "false components an image")  # fmt: skip
    rows = [
        (
            escape(row.label),
            str(row.images),
            str(row.missed),
            f"{row.missed / row.images:.1%}",
            with_interval(row.detected),
            "-" if math.isnan(row.components_found.mean) else str(row.components_found.n),
            with_interval(row.components_found),
            with_interval(row.false_components, 2),
        )
        for row in summary.per_image
    ]
    note = (
        "Missed: no true pixel predicted. Components: connected pieces of the true mask (8 "
        "neighbours); found: at least one of its pixels predicted; false: a predicted piece that "
        "holds no true pixel."
    )
    names = f"No true pixel predicted: {listed(summary.missed)}." if summary.missed else ""
    return _join(table(header, rows), names, note)


def _normals(summary: Summary) -> str:
    normals = summary.normals
    if normals is None:
        return "There are none: specificity is not known from this evaluation."
    header = ("per image", "images", "groups", "left empty", "specificity (95 % interval)",
              "mean false-positive area, % of the image (95 % interval)",
              "false components an image")  # fmt: skip
    row = (
        "without a lesion",
        str(normals.images),
        str(normals.specificity.groups),
        str(normals.left_empty),
        with_interval(normals.specificity),
        with_interval(normals.false_positive_area, 2, 100),
        with_interval(normals.false_components, 2),
    )
    note = (
        "Specificity: share of these images in which no pixel is predicted. They have no Dice "
        "or IoU. Intervals of shares: Wilson's over groups, the exact binomial one where all or "
        "none are left empty."
    )
    return _join(table(header, [row]), note)


def _pooled(summary: Summary) -> str:
    rows = summary.pooled
    header = ("pooled pixels of", "images", "pixels", "lesion share", *POOLED.values(),
              "ROC AUC", "average precision")  # fmt: skip
    cells = [
        (
            escape(row.label),
            str(row.images),
            f"{row.counts.n:,}",
            number(row.counts.prevalence),
            *(number(getattr(row.counts, name)) for name in POOLED),
            number(row.auc, 4),
            number(row.average_precision),
        )
        for row in rows
    ]
    note = (
        "All pixels in one confusion matrix, so large images and large lesions weigh more; no "
        "intervals. Mean IoU: mean of lesion and background IoU. Do not compare with the per-image "
        "tables or with papers that quote per-image Dice. AUC and average precision are "
        'taken before any cleaning of the masks. "-": undefined or not known.'
    )
    return _join(table(header, cells), note, _by_fold(summary))


def _by_fold(summary: Summary) -> str:
    if not summary.folds:
        return ""
    header = ("ROC AUC, pooled pixels of", *(f"fold {areas['fold']}" for areas in summary.folds))
    cells = [
        (escape(row.label), *(_area(areas["auc"].get(row.label)) for areas in summary.folds))
        for row in summary.pooled
    ]
    note = (
        "Here AUC and average precision are means over the folds: probabilities of different "
        "networks do not share a scale."
    )
    return _join(table(header, cells), note)


def _area(value: float | None) -> str:
    return "-" if value is None else number(value, 4)


def _calibration(rows: Sequence[PooledSummary]) -> str:
    if all(math.isnan(row.brier) for row in rows):
        return "The probabilities are not known."
    cells = [
        (escape(row.label), str(row.images), *(number(getattr(row, n), 4) for n in CALIBRATION))
        for row in rows
    ]
    note = (
        f"Brier score and expected calibration error in {BINS} bins of equal width, of all pixels "
        f"and of those at most {BAND_PX} pixels from a true contour: far from it nearly every "
        "pixel is easy, which flatters the plain figures. 0 is best; taken before any cleaning."
    )
    return _join(table(("pooled pixels of", "images", *CALIBRATION.values()), cells), note)


def _beside(summary: Summary) -> str:
    phantoms = summary.about.get("data_kind") == "phantoms"
    run = "phantoms" if phantoms else "this run"
    rows = summary.pooled[:2] if len(summary.pooled) > 1 else summary.pooled
    rows = [row for row in rows if row.label in ("all images", "lesion images")]
    header = ("score", "first README", *(f"{run}: {row.label} ({row.images})" for row in rows))
    cells = [
        (word, number(FIRST_README[name]), *(number(getattr(row.counts, name)) for row in rows))
        for name, word in BESIDE.items()
    ]
    cells.append(
        ("ROC AUC", f"{number(FIRST_README['auc'])} (1)", *(number(r.auc, 4) for r in rows))
    )
    # rounded up, so that "at most" stays true
    bound = math.ceil(first_readme_auc_bound() * 1e4) / 1e4
    note = (
        "Which images the first README was scored on is not known, so these columns are not a "
        "comparison on the same data. (1) On the same pixels its AUC cannot hold: precision "
        f"{FIRST_README['precision']:.3f}, recall {FIRST_README['recall']:.3f} and Mean IoU "
        f"{FIRST_README['mean_iou']:.3f} fix one point (FPR, TPR) of the ROC curve, and a curve "
        f"through it has AUC <= 1 - FPR (1 - TPR), at most {bound:.4f}."
    )
    return _join(banner(summary.about), table(header, cells), note)


def _join(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block)
