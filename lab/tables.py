"""Markdown tables of a cross-validation's scores, for cards and the README."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from unet_lib.dataset import read_audit
from unet_lib.metrics import (
    ALL_IMAGES,
    LESION_IMAGES,
    SCORES,
    SIZES,
    Evaluation,
    join_tables,
    number,
    of_kind,
)
from unet_lib.metrics.intervals import group_bootstrap, share_interval
from unet_lib.provenance import Provenance
from unet_lib.report.markdown import banner, escape, explained, table, with_interval

SURE = 0.95  # a second operating point, for those who want fewer false alarms

_SCORES = of_kind("overlap")
_POOLED = ("precision", "recall", "f1", "iou", "mean_iou")


def all_tables(evaluations: Mapping[int, Evaluation], *, name: str, audited: bool = False) -> str:
    """Return the tables of this module below each other, with what they are of."""
    provenance = Provenance.shared_by([e.provenance for e in evaluations.values()])
    provenance = provenance.but(model=name)
    images = sum(len(one.table) for one in evaluations.values())
    blocks = [
        *filter(None, [banner(provenance)]),
        escape(provenance.describe(f"{images} images")),
        "Per image, at original size, mean (95 % interval over near-duplicate groups):",
        per_image_table(evaluations, audited=audited),
        normals_line(evaluations),
        "Pooled pixels (another scale, not to be compared with the table above):",
        pooled_table(evaluations),
        "Per image, by the size of the lesion:",
        size_table(evaluations),
    ]
    return explained("\n\n".join(blocks)).rstrip() + "\n"


def questions(evaluations: Mapping[int, Evaluation]) -> str:
    """Answer two questions apart: outline the lesion that is there, and whether there is one."""
    cases = join_tables(evaluations)
    lesions, normals = cases.lesion_cases, cases.normal_cases
    dice = with_interval(group_bootstrap(lesions.column("dice"), lesions.groups))
    marked = ~lesions.column("predicted_empty")
    lines = [
        f"* There is a lesion, outline it: mean Dice {dice}; "
        f"{lesions.column('missed').sum()} of {len(lesions)} missed.",
        f"* Is there one? Something is marked on {marked.sum()} of {len(lesions)} images with a "
        f"lesion: sensitivity {with_interval(share_interval(marked, lesions.groups))}.",
    ]
    if len(normals):
        lines[1] += f" {normals_line(evaluations)}"
    found, empty = (
        (cases.column("image_score") >= SURE) == lesion
        for cases, lesion in ((lesions, True), (normals, False))
    )
    lines.append(
        f"* Only where it is sure: with `segmenter.cleaning = Cleaning(minimum_peak={SURE})` "
        f"something is marked on {found.sum()} of {len(lesions)}: sensitivity "
        + with_interval(share_interval(found, lesions.groups))
        + (
            f"; {empty.sum()} of {len(normals)} normals left empty, specificity "
            + with_interval(share_interval(empty, normals.groups))
            if len(normals)
            else ""
        )
        + "."
    )
    return "\n".join(lines)


def per_image_table(evaluations: Mapping[int, Evaluation], *, audited: bool = False) -> str:
    """Return scores of the lesion images by class; `audited` adds the rows of BUSI's audit list."""
    lesions = join_tables(evaluations).lesion_cases
    rows = {LESION_IMAGES: lesions}
    rows |= {label: lesions.subset(labels=[label]) for label in lesions.labels}
    if audited:
        audit = read_audit()

        def row(case: object) -> dict[str, str]:
            return audit[case.name.partition(", fold ")[0]]  # what `join_tables` has added

        rows["outside near-duplicate groups"] = lesions.subset(
            lambda case: row(case)["group"] == row(case)["image"]
        )
        rows["in near-duplicate groups"] = lesions.subset(
            lambda case: row(case)["group"] != row(case)["image"]
        )
        rows["kept by Curated BUSI"] = lesions.subset(
            lambda case: row(case)["curated_busi_450"] == "1"
        )
        rows["without the axilla"] = lesions.subset(lambda case: row(case)["axilla"] == "0")
    lines = []
    for name, cases in rows.items():
        if not len(cases):
            continue
        means = [with_interval(group_bootstrap(cases.column(s), cases.groups)) for s in _SCORES]
        missed = cases.column("missed")
        share = f"{missed.sum()} ({missed.mean():.1%})"
        median = f"{np.median(cases.column('dice')):.3f}"
        lines.append([name, str(len(cases)), *means, median, share])
    titles = (SCORES[score].title for score in _SCORES)
    return table(["images", "n", *titles, "median Dice", "missed"], lines)


def pooled_table(evaluations: Mapping[int, Evaluation]) -> str:
    """Return pooled scores of all images and of the lesion images; AUC: mean of the folds."""
    everything = join_tables(evaluations)
    lines = []
    for name, cases in ((LESION_IMAGES, everything.lesion_cases), (ALL_IMAGES, everything)):
        counts = cases.pooled()
        auc = np.mean([one.histogram(name).auc for one in evaluations.values()])
        values = (number(getattr(counts, score)) for score in _POOLED)
        lines.append([name, str(len(cases)), *values, number(auc, 4)])
    titles = (SCORES[score].title for score in _POOLED)
    return table(["pooled pixels of", "n", *titles, "AUC, mean of folds"], lines)


def normals_line(evaluations: Mapping[int, Evaluation]) -> str:
    """Say how many images without a lesion were left empty."""
    normals = join_tables(evaluations).normal_cases
    if not len(normals):
        return "No image without a lesion was scored."
    empty = normals.column("predicted_empty")
    area = 100 * normals.column("false_positive_area").mean()
    return (
        f"Images without a lesion: {empty.sum()} of {len(normals)} left empty, specificity "
        f"{with_interval(share_interval(empty, normals.groups))}; mean false-positive area "
        f"{area:.2f} % of the image."
    )


def size_table(evaluations: Mapping[int, Evaluation]) -> str:
    """Return Dice and misses by the size of the lesion."""
    lesions = join_tables(evaluations).lesion_cases
    lines = []
    for low, high in zip(SIZES[:-1], SIZES[1:], strict=True):
        cases = lesions.subset(_between(low, high))
        if len(cases):
            dice = with_interval(group_bootstrap(cases.column("dice"), cases.groups))
            size = f"{100 * low:g} to {100 * high:g}" if high <= 1 else f"above {100 * low:g}"
            lines.append([size, str(len(cases)), dice, str(cases.column("missed").sum())])
    return table(["lesion, % of the image", "n", "Dice", "missed"], lines)


def _between(low: float, high: float) -> Callable[..., bool]:
    return lambda case: low <= (case.tp + case.fn) / (case.height * case.width) < high
