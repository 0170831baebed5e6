"""An evaluation in numbers: per image, images without a lesion, pooled pixels; each on its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unet_lib.metrics import (
    ALL_IMAGES,
    LESION_IMAGES,
    CaseTable,
    Evaluation,
    PixelCounts,
)
from unet_lib.metrics.intervals import Interval, group_bootstrap, share_interval
from unet_lib.plots.frame import banner_for
from unet_lib.report import markdown
from unet_lib.report.texts import NO_LIMITS

PER_IMAGE_SCORES = (
    *("dice", "iou", "precision", "recall"),
    *("surface_dice", "hd95", "mean_surface_distance", "area_error", "absolute_area_error"),
    *("brier", "ece", "band_brier", "band_ece"),
)
QUANTILES = (0.05, 0.25, 0.75, 0.95)
POOLED_SCORES = (
    *("precision", "recall", "f1", "iou", "background_iou", "mean_iou", "accuracy"),
    *("prevalence", "false_positive_rate"),
)


@dataclass(frozen=True)
class PerImageSummary:
    """Scores of images with a lesion, one score an image.

    Parameters
    ----------
    label : str
        "lesion images" for all of them, else a class.
    images : int
        Number of images.
    missed : int
        Images of whose lesion no pixel was predicted.
    means : dict of str to Interval
        Mean of every score of `PER_IMAGE_SCORES`, with the interval of the mean; nan where a score
        is not known of every image.
    medians : dict of str to float
        Their medians.
    quantiles : dict of str to tuple of float
        Their 5, 25, 75 and 95 % quantiles.
    detected : Interval
        Share of the images with at least one true pixel predicted.
    components_found : Interval
        Share of the connected components of the truth with at least one pixel predicted; its `n`
        is the number of components.
    false_components : Interval
        Mean number, an image, of predicted components without a true pixel.
    """

    label: str
    images: int
    missed: int
    means: dict[str, Interval]
    medians: dict[str, float]
    quantiles: dict[str, tuple[float, ...]]
    detected: Interval
    components_found: Interval
    false_components: Interval


@dataclass(frozen=True)
class NormalSummary:
    """What was predicted on images without a lesion.

    Parameters
    ----------
    images, left_empty : int
        Number of images, and of those in which no pixel was predicted.
    specificity : Interval
        Share left empty.
    false_positive_area : Interval
        Mean share of the image that was predicted.
    false_components : Interval
        Mean number, an image, of predicted components.
    """

    images: int
    left_empty: int
    specificity: Interval
    false_positive_area: Interval
    false_components: Interval


@dataclass(frozen=True)
class PooledSummary:
    """Scores of the pixels of many images in one confusion matrix.

    Parameters
    ----------
    label : str
        Which images: "all images", "lesion images" or a class (its images with a lesion).
    images : int
        Number of images.
    counts : PixelCounts
        The confusion matrix.
    auc, average_precision : float
        Over all thresholds, of merged folds the mean of the folds' areas; nan where probabilities
        are not known or the score is undefined.
    brier, ece, band_brier, band_ece : float
        Calibration of all pixels and of those within 20 pixels of a true contour; nan as above.
    """

    label: str
    images: int
    counts: PixelCounts
    auc: float
    average_precision: float
    brier: float
    ece: float
    band_brier: float
    band_ece: float


@dataclass(frozen=True)
class Summary:
    """All numbers of a report.

    Parameters
    ----------
    about : dict
        As `Evaluation.about`.
    images : int
        Number of images.
    groups : int
        Number of near-duplicate groups, images that stand alone included.
    unit : str
        Unit of distances, "px" or "mm".
    folds : tuple of dict
        As `Evaluation.folds`.
    per_image : tuple of PerImageSummary
        All lesion images first, then each class. Empty without lesion images.
    normals : NormalSummary or None
        None without images that hold no lesion.
    pooled : tuple of PooledSummary
        All images, lesion images, each class.
    missed : tuple of str
        Names of the images whose lesion was missed, sorted.
    """

    about: dict[str, Any]
    images: int
    groups: int
    unit: str
    folds: tuple[dict[str, Any], ...]
    per_image: tuple[PerImageSummary, ...]
    normals: NormalSummary | None
    pooled: tuple[PooledSummary, ...]
    missed: tuple[str, ...]

    def to_markdown(self, *, level: int = 1) -> str:
        """Return the tables as Markdown.

        Parameters
        ----------
        level : int
            Depth of the first heading.

        Returns
        -------
        str
        """
        return markdown.render(self, level=level)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict for strict JSON; undefined numbers are None."""
        plain = {**preamble(self.about), **asdict(self)}
        for row, pooled in zip(plain["pooled"], self.pooled, strict=True):
            row["scores"] = {name: getattr(pooled.counts, name) for name in POOLED_SCORES}
        return json_able(plain)


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
    per_image = tuple(_per_image(label, chosen, seed) for label, chosen in tables.items())
    return Summary(
        about=evaluation.provenance.to_dict(),
        images=len(table),
        groups=len(set(table.groups)),
        unit=table.unit,
        folds=evaluation.folds,
        per_image=per_image,
        normals=_normals(normals, seed) if len(normals) else None,
        pooled=_pooled(evaluation, tables),
        missed=tuple(sorted(case.name for case in table if case.missed)),
    )


def _per_image(label: str, table: CaseTable, seed: int) -> PerImageSummary:
    columns = {name: table.column(name) for name in PER_IMAGE_SCORES}
    groups, hits = table.groups, ~table.column("missed")
    quantiles = {name: np.quantile(v, (0.5, *QUANTILES)).tolist() for name, v in columns.items()}
    return PerImageSummary(
        label=label,
        images=len(table),
        missed=int((~hits).sum()),
        means={name: _mean(values, groups, seed) for name, values in columns.items()},
        medians={name: values[0] for name, values in quantiles.items()},
        quantiles={name: tuple(values[1:]) for name, values in quantiles.items()},
        detected=share_interval(hits, groups),
        components_found=_components_found(table, groups, seed),
        false_components=_mean(table.column("false_components"), groups, seed),
    )


def _mean(values: np.ndarray, groups: np.ndarray, seed: int) -> Interval:
    if np.isnan(values).any():  # a table without contours, masks without probabilities
        return Interval(math.nan, math.nan, math.nan, len(values), len(set(groups)))
    return group_bootstrap(values, groups, seed=seed)


def _components_found(table: CaseTable, groups: np.ndarray, seed: int) -> Interval:
    counts, found = table.column("components"), table.column("components_found")
    if np.isnan(counts).any():
        return _mean(counts, groups, seed)
    hits = [np.arange(n) < hit for n, hit in zip(counts.astype(int), found, strict=True)]
    return share_interval(np.concatenate(hits), np.repeat(groups, counts.astype(int)))


def _normals(table: CaseTable, seed: int) -> NormalSummary:
    empty, groups = table.column("predicted_empty"), table.groups
    return NormalSummary(
        images=len(table),
        left_empty=int(empty.sum()),
        specificity=share_interval(empty, groups),
        false_positive_area=group_bootstrap(table.column("false_positive_area"), groups, seed=seed),
        false_components=_mean(table.column("false_components"), groups, seed),
    )


def _pooled(evaluation: Evaluation, tables: Mapping[str, CaseTable]) -> tuple[PooledSummary, ...]:
    rows = []
    for label, table in {ALL_IMAGES: evaluation.table, **tables}.items():
        if label == LESION_IMAGES and len(table) == len(evaluation.table):
            continue  # the same images as in the first row
        chosen = {"label": label} if label not in (ALL_IMAGES, LESION_IMAGES) else {}
        chosen |= {"lesion_only": label == LESION_IMAGES}
        histogram = evaluation.histogram(**chosen)
        scores = [*evaluation.areas(**chosen)]
        for part in (histogram.calibration, histogram.band):
            scores += [part.brier, part.ece]
        rows.append(PooledSummary(label, len(table), table.pooled(), *scores))
    return tuple(rows)


def preamble(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what a JSON file says before its numbers: the warning, and what None limits mean."""
    warning = {"warning": text} if (text := banner_for(about)) else {}
    return {
        **warning,
        "intervals": f"95 %; low and high are null where nothing is known: {NO_LIMITS}",
    }


def json_able(value: Any) -> Any:
    """Replace what strict JSON does not have: nan becomes None, a tuple a list."""
    if isinstance(value, Mapping):
        return {key: json_able(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_able(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
