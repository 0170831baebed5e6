"""Markdown tables of a cross-validation's test scores, for cards and the README."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from unet_lib.dataset import read_audit
from unet_lib.metrics import Evaluation, join_tables
from unet_lib.metrics.merging import common_about
from unet_lib.plots import describe
from unet_lib.report import group_bootstrap, share_interval
from unet_lib.report.texts import banner, escape, explained, number, with_interval

__all__ = ["all_tables", "normals_line", "per_image_table", "pooled_table", "size_table"]

_SIZES = ((0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 1.01))


def all_tables(evaluations: Mapping[int, Evaluation], *, name: str, audited: bool = False) -> str:
    """Return the tables of this module below each other, with what they are of.

    Parameters
    ----------
    evaluations, audited
        As `per_image_table`.
    name : str
        Of the model or recipe.
    """
    about = {**common_about(evaluations), "model": name}
    images = sum(len(found.table) for found in evaluations.values())
    warning = f"{banner(about)}\n\n" if banner(about) else ""
    tables = f"""\
Per image, at original size, mean (95 % interval over near-duplicate groups):

{per_image_table(evaluations, audited=audited)}

{normals_line(evaluations)}

Pooled pixels (another scale, not to be compared with the table above):

{pooled_table(evaluations)}

Per image, by the size of the lesion:

{size_table(evaluations)}
"""
    told = f"{describe(about, f'{images} images')}"
    return f"{warning}{escape(told)}\n\n{explained(tables).rstrip()}\n"


def per_image_table(evaluations: Mapping[int, Evaluation], *, audited: bool = False) -> str:
    """Return per-image scores of the lesion images, one row for each kind of image.

    Parameters
    ----------
    evaluations : mapping of int to Evaluation
        Test scores by fold.
    audited : bool
        Add rows that need BUSI's audit list: images outside near-duplicate groups, those that
        Curated BUSI keeps, and those that do not show the axilla.

    Returns
    -------
    str
        Markdown: number of images, mean Dice, IoU, precision and recall with 95 % intervals over
        near-duplicate groups, median Dice, lesions missed.
    """
    lesions = join_tables(evaluations).lesion_cases
    rows = {"lesion images": lesions}
    rows |= {label: lesions.subset(labels=[label]) for label in lesions.labels}
    if audited:
        audit = read_audit()
        rows["outside near-duplicate groups"] = lesions.subset(
            lambda case: audit[_image(case.name)]["group"] == _image(case.name)
        )
        rows["in near-duplicate groups"] = lesions.subset(
            lambda case: audit[_image(case.name)]["group"] != _image(case.name)
        )
        rows["kept by Curated BUSI"] = lesions.subset(
            lambda case: audit[_image(case.name)]["curated_busi_450"] == "1"
        )
        rows["without the axilla"] = lesions.subset(
            lambda case: audit[_image(case.name)]["axilla"] == "0"
        )
    lines = [
        "| images | n | Dice | IoU | precision | recall | median Dice | missed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, table in rows.items():
        groups = [case.group or case.name for case in table]
        means = [
            with_interval(group_bootstrap(table.column(score), groups))
            for score in ("dice", "iou", "precision", "recall")
        ]
        missed = table.column("missed")
        lines.append(
            f"| {name} | {len(table)} | {' | '.join(means)} | "
            f"{np.median(table.column('dice')):.3f} | {missed.sum()} ({missed.mean():.1%}) |"
        )
    return "\n".join(lines)


def pooled_table(evaluations: Mapping[int, Evaluation]) -> str:
    """Return pooled scores of all images and of the lesion images; AUC: mean of the folds."""
    table = join_tables(evaluations)
    lines = [
        "| pooled pixels of | n | precision | recall | F1 | lesion IoU | Mean IoU | AUC, mean of "
        "folds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, cases, only in (
        ("lesion images", table.lesion_cases, True),
        ("all images", table, False),
    ):
        c = cases.pooled()
        auc = np.mean([found.histogram(lesion_only=only).auc for found in evaluations.values()])
        shown = (c.precision, c.recall, c.f1, c.iou, c.mean_iou)
        scores = " | ".join(map(number, shown))
        lines.append(f"| {name} | {len(cases)} | {scores} | {number(auc, 4)} |")
    return "\n".join(lines)


def normals_line(evaluations: Mapping[int, Evaluation]) -> str:
    """Say how many images without a lesion were left empty."""
    normals = join_tables(evaluations).normal_cases
    if not len(normals):
        return "No image without a lesion was scored."
    groups = [case.group or case.name for case in normals]
    empty = normals.column("predicted_empty")
    area = 100 * normals.column("false_positive_area").mean()
    return (
        f"Images without a lesion: {empty.sum()} of {len(normals)} left empty, specificity "
        f"{with_interval(share_interval(empty, groups))}; mean false-positive area {area:.2f} % of "
        "the image."
    )


def size_table(evaluations: Mapping[int, Evaluation]) -> str:
    """Return Dice and misses by the size of the lesion."""
    lesions = join_tables(evaluations).lesion_cases
    lines = ["| lesion, % of the image | n | Dice | missed |", "|---|---|---|---|"]
    for low, high in _SIZES:
        table = lesions.subset(_between(low, high))
        if len(table):
            groups = [case.group or case.name for case in table]
            dice = with_interval(group_bootstrap(table.column("dice"), groups))
            missed = table.column("missed")
            size = f"{100 * low:g} to {100 * high:g}" if high <= 1 else f"above {100 * low:g}"
            lines.append(f"| {size} | {len(table)} | {dice} | {missed.sum()} |")
    return "\n".join(lines)


def _image(name: str) -> str:
    """Undo what `join_tables` adds to an image that several folds have validated."""
    return name.partition(", fold ")[0]


def _between(low: float, high: float) -> Callable[..., bool]:
    return lambda case: low <= (case.tp + case.fn) / (case.height * case.width) < high
