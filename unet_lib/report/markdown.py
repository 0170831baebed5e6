"""A summary as Markdown. Per-image and pooled scores never share a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unet_lib.metrics import (
    BAND_PX,
    CONFUSION,
    SCORES,
    TOLERANCE_MM,
    TOLERANCE_PX,
    number,
    of_kind,
)
from unet_lib.metrics.curves import BINS
from unet_lib.metrics.intervals import MIN_GROUPS, MIN_GROUPS_SHARE, Interval
from unet_lib.provenance import Provenance

if TYPE_CHECKING:
    from unet_lib.report.summary import Summary

CONTOURS = ("surface_dice", "hd95", "mean_surface_distance", "area_error", "absolute_area_error")
FIRST_README = {"mean_iou": 0.833, "precision": 0.871, "recall": 0.767, "f1": 0.815, "auc": 0.999}
"""Pooled scores of the project's first README, of one test split that is not known any more."""
AUC_BOUND = 0.9984
"""No ROC curve has more area whose precision, recall and Mean IoU round to these three: they fix
the share of lesion pixels and so one point of it, and left of a point it stays at or below."""
NO_LIMITS = (
    f"fewer than {MIN_GROUPS} near-duplicate groups ({MIN_GROUPS_SHARE} for a share), or all equal"
)
NO_INTERVAL = f"no interval, too few images to tell: {NO_LIMITS}"

QUESTIONS = {
    "per_image": "There is a lesion: outline it (per image, images with a lesion)",
    "detection": "Is there a lesion? (per image, all images)",
}
OUTLINE_NOTE = (
    "One score for each image at its original size, then the mean; images without a lesion are not "
    "in here. Intervals: bootstrap of the mean over near-duplicate groups. Missed: no true pixel "
    "predicted; a missed lesion scores 0, and an empty prediction counts with the diagonal of the "
    "image. HD95: 95th percentile of the distances between both contours; surface Dice: share of "
    "them within {tolerance}. Area error: (predicted area - true area) / true area. Components: "
    "connected pieces of the true mask (8 neighbours), found where one pixel of them is predicted; "
    "false: a predicted piece without a true pixel."
)
DETECTION_NOTE = (
    "Marked: a pixel is predicted, wherever. Specificity: share of the images without a lesion in "
    "which no pixel is predicted. Image score: its highest probability, before any cleaning. "
    "Intervals of shares: Wilson's over groups, the exact binomial one where all images agree."
)
POOLED_NOTE = (
    "All pixels in one confusion matrix, so large images and large lesions weigh more; no "
    "intervals. Do not compare with the per-image tables or with papers that quote per-image Dice. "
    "Areas and calibration are taken before any cleaning of the masks. Brier score and expected "
    f"calibration error in {BINS} bins, 0 is best; the band: pixels at most {BAND_PX} from a true "
    'contour, as far from it nearly every pixel is easy. "-": undefined or not known.'
)
FOLDS_NOTE = (
    "Here AUC and average precision are means over the folds: probabilities of different networks "
    "do not share a scale."
)
FIRST_README_NOTE = (
    "(1) Which images the first README was scored on is not known: no comparison on the same data. "
    "On the same pixels its AUC cannot hold: precision, recall and Mean IoU fix one point (FPR, "
    "TPR) of the ROC curve, and a curve through it has AUC <= 1 - FPR (1 - TPR), at most "
    f"{AUC_BOUND:.4f}."
)


def render(summary: Summary, level: int = 1, answer: str = "") -> str:
    """Write a summary as Markdown that ends with a line break; `answer` stands on top."""
    mark, parts = "#" * level, sections(summary)
    lines = (f"- {escape(key)}: {escape(value)}" for key, value in facts(summary))
    heading = f"{mark} {escape(title(summary.provenance))}"
    body = [part for heading, text in parts for part in (f"{mark}# {heading}", text)]
    return _join(heading, banner(summary.provenance), answer, "\n".join(lines), *body) + "\n"


def title(provenance: Provenance) -> str:
    """Return the title of a report, as plain text."""
    words = " on ".join(filter(None, (provenance.model, provenance.data)))
    return f"Evaluation: {words}" if words else "Evaluation"


def suffix(provenance: Provenance) -> str:
    """Return what a heading says of images that the model has seen."""
    return " (training images: not a test)" if provenance.seen_in_training else ""


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Return the parts of a report, each with its heading (plain text) and Markdown."""
    scored = {
        QUESTIONS["per_image"]: _outline(summary),
        QUESTIONS["detection"]: _detection(summary),
        **({"By data set": _sets(summary)} if summary.sets else {}),
        "Pooled pixels": _pooled(summary),
    }
    after, seen = suffix(summary.provenance), leaks(summary.provenance, summary.images)
    parts = [(f"{heading}{after}", explained(body)) for heading, body in scored.items()]
    return [*parts, ("Training images among these", seen)]


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


def _outline(summary: Summary) -> str:
    rows = summary.per_image
    if not rows:
        return "No image has a lesion: there is nothing to average."
    means, medians = [], []
    for name in (*of_kind("overlap"), *CONTOURS):
        title, digits = SCORES[name].title, SCORES[name].digits
        title += f" ({summary.unit})" if SCORES[name].unit == "length" else ""
        means.append([title, *(with_interval(row["means"][name], digits) for row in rows)])
        medians.append([title, *(_median(row, name, digits) for row in rows)])
    means += [
        ["missed", *(f"{row['missed']} ({row['missed'] / row['images']:.1%})" for row in rows)],
        ["share not missed", *(with_interval(row["detected"]) for row in rows)],
        ["share of components found", *(with_interval(row["components_found"]) for row in rows)],
        ["false components an image", *(with_interval(row["false_components"], 2) for row in rows)],
    ]
    labels = [f"{escape(row['label'])} ({row['images']})" for row in rows]
    tolerance = f"{TOLERANCE_MM:g} mm" if summary.unit == "mm" else f"{TOLERANCE_PX:g} px"
    return _join(
        table(["per image: mean (95 % interval)", *labels], means),
        table(["per image: median (quartiles)", *labels], medians),
        f"Missed: {listed(summary.missed)}." if summary.missed else "",
        OUTLINE_NOTE.format(tolerance=tolerance),
    )


def _median(row: dict[str, Any], name: str, digits: int) -> str:
    values = (row["medians"][name], *row["quantiles"][name][1:3])
    median, low, high = (number(value, digits) for value in values)
    return median if median == "-" else f"{median} ({low} to {high})"


def _detection(summary: Summary) -> str:
    scores, normals, every = summary.detection, summary.normals, f"{summary.images} images"
    lesions = f"{scores['marked']} of {scores['sensitivity'].n} lesion images marked"
    cells = [["sensitivity", lesions, with_interval(scores["sensitivity"])]]
    if normals:
        without = f"{normals['images']} without a lesion"
        empty = f"{normals['left_empty']} of {without} left empty"
        area = with_interval(normals["false_positive_area"], 2, 100)
        cells.append(["specificity", empty, with_interval(scores["specificity"])])
        cells.append(["false-positive area, % of the image", without, area])
    false = with_interval(scores["false_components"], 2)
    cells.append(["false components an image", every, false])
    cells.append(["ROC AUC of the image score", every, number(scores["auc"])])
    unknown = "No image is without a lesion: specificity is not known from this evaluation."
    shown = table(["per image", "of", "value (95 % interval)"], cells)
    return _join(shown, "" if normals else unknown, DETECTION_NOTE)


def _sets(summary: Summary) -> str:
    """Write the scores of each data set, per image and pooled."""
    sets, lesions = summary.sets, [row["per_image"] for row in summary.sets]
    names = [f"{escape(row['set'])} ({row['images']})" for row in sets]
    cells = [["images with a lesion", *(str(row["images"] if row else 0) for row in lesions)]]
    for name in of_kind("overlap"):
        means = (with_interval(row["means"][name]) if row else "-" for row in lesions)
        cells.append([SCORES[name].title, *means])
    cells.append(["missed", *(str(row["missed"]) if row else "-" for row in lesions)])
    normals = (row["normals"] for row in sets)
    shares = (with_interval(row["specificity"]) if row else "-" for row in normals)
    cells.append(["specificity", *shares])
    pooled = [[SCORES[n].title, *(number(row["pooled"][n]) for row in sets)] for n in CONFUSION]
    return _join(table(["per image", *names], cells), table(["pooled pixels", *names], pooled))


def _pooled(summary: Summary) -> str:
    rows, phantoms = summary.pooled, "phantoms: " * summary.provenance.is_phantoms
    names = ("prevalence", *CONFUSION, "auc", "average_precision", *of_kind("calibration"))
    cells = [["pixels", *(f"{row['counts'].n:,}" for row in rows), "-"]]
    for name in names:
        digits = 4 if name in of_kind("calibration") else SCORES[name].digits
        values = [number((row | row["scores"])[name], digits) for row in rows]
        cells.append([SCORES[name].title, *values, number(FIRST_README.get(name, math.nan))])
    labels = [f"{phantoms}{escape(row['label'])} ({row['images']})" for row in rows]
    shown = table(["pooled pixels of", *labels, "first README (1)"], cells)
    return _join(shown, POOLED_NOTE, FIRST_README_NOTE, _by_fold(summary))


def _by_fold(summary: Summary) -> str:
    if not summary.folds:
        return ""
    header = ["ROC AUC, pooled pixels of", *(f"fold {areas['fold']}" for areas in summary.folds)]
    cells = []
    for row in summary.pooled:
        areas = (fold["auc"].get(row["label"]) for fold in summary.folds)
        cells.append([escape(row["label"]), *("-" if a is None else number(a, 4) for a in areas)])
    return _join(table(header, cells), FOLDS_NOTE)


def _join(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block)


def with_interval(interval: Interval, digits: int = 3, scale: float = 1.0) -> str:
    """Write "mean (low to high)"; "mean (-)" where there are too few groups for an interval."""
    values = (interval.mean, interval.low, interval.high)
    mean, low, high = (number(value * scale, digits) for value in values)
    return f"{mean} ({low} to {high})" if interval.known else f"{mean} (-)"


def explained(text: str) -> str:
    """Say below a text what "(-)" means, where it holds one."""
    return f'{text.rstrip()}\n\n"(-)": {NO_INTERVAL}.' if "(-)" in text else text


def escape(text: object) -> str:
    """Make a text safe inside a table cell and plain in a paragraph."""
    escaped = "".join(f"\\{c}" if c in "\\|*_`<>[]#~&" else c for c in str(text))
    return " ".join(escaped.split())


def listed(names: Sequence[str]) -> str:
    """Write the first 30 names and how many more there are."""
    more = len(names) - 30
    shown = ", ".join(escape(name) for name in names[:30])
    return shown + (f" and {more} more" if more > 0 else "")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; the first column to the left, the others to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def banner(provenance: Provenance) -> str:
    """Return the warning of an evaluation as a Markdown quote, or ""."""
    return "\n>\n".join(f"> **{line}**" for line in provenance.banner.splitlines())


def leaks(provenance: Provenance, images: int) -> str:
    """Say in sentences which of the scored images the model has seen, or that it is not known."""
    overlap = provenance.training_overlap
    if provenance.seen_in_training is None:
        return (
            "Training images unknown: which images these weights were trained on is not recorded, "
            "so nobody can tell whether this is a test."
        )
    if overlap is None:
        return "Compared by name only: " + ("some are." if provenance.seen_in_training else "none.")
    lines = [
        f"Compared with {overlap['compared_with']} pictures that trained the model or chose its "
        f"epoch and threshold: {len(overlap['in_training'])} of {images} scored images are among "
        f"them, {len(overlap['near_duplicates'])} more are near-duplicates of one."
    ]
    for words, key in (("Seen", "in_training"), ("Near-duplicates", "near_duplicates")):
        if overlap[key]:
            lines.append(f"{words}: {listed(overlap[key])}.")
    return "\n\n".join(lines)


def plain(value: Any) -> str:
    """Write a JSON-able value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)
