"""An evaluation in numbers: two questions per image, and pooled pixels; each on its own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.files import write_atomic
from unet_lib.metrics import (
    ALL_IMAGES,
    CONFUSION,
    LESION_IMAGES,
    CaseTable,
    Evaluation,
    of_kind,
)
from unet_lib.metrics.intervals import Interval, group_bootstrap, share_interval
from unet_lib.provenance import Provenance
from unet_lib.report import markdown

PER_IMAGE = (*of_kind("overlap"), *markdown.CONTOURS, *of_kind("calibration"))
POOLED = (*CONFUSION[:4], "background_iou", *CONFUSION[4:], "prevalence", "false_positive_rate")
QUANTILES = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True)
class Summary:
    """All numbers of a report.

    Parameters
    ----------
    provenance : Provenance
        Of the evaluation.
    images : int
        Number of images.
    groups : int
        Number of near-duplicate groups, images that stand alone included.
    unit : str
        Unit of distances, "px" or "mm".
    folds : tuple of dict
        As `Evaluation.folds`.
    per_image : tuple of dict
        One for "lesion images", then one for each class, its ``label``; empty without lesion
        images. ``images``, ``missed``: numbers. ``means``, ``medians``, ``quantiles`` (5, 25, 75,
        95 %): by score, an `Interval`, a float, floats; nan where a score is not known of every
        image. Intervals: ``detected``, the share of images with a true pixel predicted;
        ``components_found``, the share of the truth's components, its `n` their number;
        ``false_components``, their mean number an image.
    detection : dict
        ``images``, ``marked``: numbers of images, and of lesion images in which a pixel is
        predicted. Intervals: ``sensitivity`` (of lesion images), ``specificity`` (of the others),
        ``false_components`` (mean number an image, of all). ``auc``: `Evaluation.image_auc`.
    normals : dict or None
        None without images that hold no lesion. ``images``, ``left_empty``: numbers. Intervals:
        ``specificity``, ``false_positive_area`` and ``false_components``.
    pooled : tuple of dict
        One for "all images", "lesion images" and each class (its images with a lesion). ``counts``:
        `PixelCounts`; ``scores`` of them; areas under the curves and calibration, nan where
        probabilities are not known.
    missed : tuple of str
        Names of the images whose lesion was missed, sorted.
    sets : tuple of dict
        One for each of several data sets, its name ``set``: ``images``, ``groups``, ``per_image``
        (of its lesion images) and ``normals`` as above or None, ``pooled`` scores.
    """

    provenance: Provenance
    images: int
    groups: int
    unit: str
    folds: tuple[dict[str, Any], ...]
    per_image: tuple[dict[str, Any], ...]
    detection: dict[str, Any]
    normals: dict[str, Any] | None
    pooled: tuple[dict[str, Any], ...]
    missed: tuple[str, ...]
    sets: tuple[dict[str, Any], ...] = ()

    def to_markdown(self, *, level: int = 1) -> str:
        """Return the tables as Markdown; `level` is the depth of the first heading."""
        return markdown.render(self, level)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict for strict JSON; undefined numbers are None."""
        numbers = {key: value for key, value in vars(self).items() if key != "provenance"}
        if not self.sets:
            del numbers["sets"]
        head = {"about": self.provenance.to_dict(), "questions": markdown.QUESTIONS}
        return json_able(preamble(self.provenance) | head | numbers)


def summarise(evaluation: Evaluation, *, seed: int = 0) -> Summary:
    """Work out every number of a report.

    Parameters
    ----------
    evaluation : Evaluation
    seed : int
        Of the bootstrap.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        If there is no image.
    """
    table = evaluation.table
    if not len(table):
        raise ValueError("nothing to summarise: the evaluation holds no image")
    lesions, normals = table.lesion_cases, table.normal_cases
    tables = {LESION_IMAGES: lesions} if len(lesions) else {}
    if len(lesions.labels) > 1:
        tables |= {label: lesions.subset(labels=[label]) for label in lesions.labels}
    return Summary(
        provenance=evaluation.provenance,
        images=len(table),
        groups=len(set(table.groups)),
        unit=table.unit,
        folds=evaluation.folds,
        per_image=tuple(_per_image(label, chosen, seed) for label, chosen in tables.items()),
        detection=_detection(evaluation, seed),
        normals=_normals(normals, seed) if len(normals) else None,
        pooled=_pooled(evaluation, tables),
        missed=tuple(sorted(case.name for case in table if case.missed)),
        sets=tuple(_of_set(name, table, seed) for name in evaluation.provenance.sets or ()),
    )


def _of_set(name: str, table: CaseTable, seed: int) -> dict[str, Any]:
    table = table.subset(lambda case: case.name.startswith(f"{name}/"))
    lesions, normals = table.lesion_cases, table.normal_cases
    counts = table.pooled()
    return {
        "set": name,
        "images": len(table),
        "groups": len(set(table.groups)),
        "per_image": _per_image(LESION_IMAGES, lesions, seed) if len(lesions) else None,
        "normals": _normals(normals, seed) if len(normals) else None,
        "pooled": {score: getattr(counts, score) for score in POOLED},
    }


def _per_image(label: str, table: CaseTable, seed: int) -> dict[str, Any]:
    columns = {name: table.column(name) for name in PER_IMAGE}
    groups, hits = table.groups, ~table.column("missed")
    quantiles = {name: np.quantile(v, (0.5, *QUANTILES)).tolist() for name, v in columns.items()}
    return {
        "label": label,
        "images": len(table),
        "missed": int((~hits).sum()),
        "means": {name: _mean(values, groups, seed) for name, values in columns.items()},
        "medians": {name: values[0] for name, values in quantiles.items()},
        "quantiles": {name: values[1:] for name, values in quantiles.items()},
        "detected": share_interval(hits, groups),
        "components_found": _components_found(table, groups, seed),
        "false_components": _mean(table.column("false_components"), groups, seed),
    }


def _mean(values: np.ndarray, groups: np.ndarray, seed: int) -> Interval:
    if np.isnan(values).any():  # a table without contours, masks without probabilities
        return Interval(math.nan, math.nan, math.nan, len(values), len(set(groups)))
    return group_bootstrap(values, groups, seed=seed)


def _components_found(table: CaseTable, groups: np.ndarray, seed: int) -> Interval:
    counts, touched = table.column("components"), table.column("components_found")
    if np.isnan(counts).any():
        return _mean(counts, groups, seed)
    hits = [np.arange(n) < hit for n, hit in zip(counts.astype(int), touched, strict=True)]
    return share_interval(np.concatenate(hits), np.repeat(groups, counts.astype(int)))


def _detection(evaluation: Evaluation, seed: int) -> dict[str, Any]:
    table = evaluation.table
    lesions, normals = table.lesion_cases, table.normal_cases
    marked = ~lesions.column("predicted_empty")
    return {
        "images": len(table),
        "marked": int(marked.sum()),
        "sensitivity": share_interval(marked, lesions.groups),
        "specificity": share_interval(normals.column("predicted_empty"), normals.groups),
        "false_components": _mean(table.column("false_components"), table.groups, seed),
        "auc": evaluation.image_auc,
    }


def _normals(table: CaseTable, seed: int) -> dict[str, Any]:
    empty, groups = table.column("predicted_empty"), table.groups
    means = {
        name: _mean(table.column(name), groups, seed)
        for name in ("false_positive_area", "false_components")
    }
    shares = {"left_empty": int(empty.sum()), "specificity": share_interval(empty, groups)}
    return {"images": len(table)} | shares | means


def _pooled(evaluation: Evaluation, tables: Mapping[str, CaseTable]) -> tuple[dict[str, Any], ...]:
    rows = []
    for label, table in {ALL_IMAGES: evaluation.table, **tables}.items():
        if label == LESION_IMAGES and len(table) == len(evaluation.table):
            continue  # the same images as in the first row
        histogram, counts = evaluation.histogram(label), table.pooled()
        auc, average = evaluation.areas(label)
        rows.append(
            {
                "label": label,
                "images": len(table),
                "counts": counts,
                "auc": auc,
                "average_precision": average,
                "brier": histogram.calibration.brier,
                "ece": histogram.calibration.ece,
                "band_brier": histogram.band.brier,
                "band_ece": histogram.band.ece,
                "scores": {name: getattr(counts, name) for name in POOLED},
            }
        )
    return tuple(rows)


def preamble(provenance: Provenance) -> dict[str, str]:
    """Return what a JSON file says before its numbers: the warning, and what None limits mean."""
    warning = {"warning": provenance.banner} if provenance.banner else {}
    text = f"95 %; low and high are null where nothing is known: {markdown.NO_LIMITS}"
    return warning | {"intervals": text}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of strict JSON; undefined numbers are null."""
    write_atomic(path, json.dumps(json_able(content), indent=2, allow_nan=False) + "\n")


def json_able(value: Any) -> Any:
    """Replace what strict JSON does not have: nan becomes None, a record of ours a dict."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {key: json_able(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_able(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
