"""Everything an evaluation leaves behind, in one folder; several folds put together."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.files import atomic_path, read_json, write_atomic, write_json
from unet_lib.metrics.cases import CaseScore, CaseTable, score_case
from unet_lib.metrics.curves import ARRAYS, ProbabilityHistogram
from unet_lib.provenance import Provenance

CASES, HISTOGRAMS, ABOUT = "cases.csv", "histograms.npz", "about.json"
FOLDS = "folds.json"  # only of merged folds
NO_LESION = " (no lesion)"
ALL_IMAGES, LESION_IMAGES = "all images", "lesion images"
AREAS = ("auc", "average_precision")


@dataclass
class Evaluation:
    """Score cards and pooled histograms of one model on one set of images.

    Parameters
    ----------
    table : CaseTable
        One row for each image.
    histograms : dict of str to ProbabilityHistogram
        Pooled pixels by class, of images with a lesion; of those without by
        "<class> (no lesion)". Empty when only masks were scored.
    provenance : Provenance or mapping of its fields
        What is known of data, model and evaluation; shown on figures and in the report, decides
        on their banners.
    folds : tuple of dict
        Of folds that were merged (`merge_evaluations`): ``fold``, ``auc`` and
        ``average_precision``, both areas by "all images", "lesion images" and class (its images
        with a lesion), and ``image_auc``; None where undefined. Empty for a single evaluation.
    """

    table: CaseTable = field(default_factory=CaseTable)
    histograms: dict[str, ProbabilityHistogram] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    folds: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Take a mapping for what is known."""
        self.provenance = Provenance.of(self.provenance)

    def add(
        self,
        truth: np.ndarray,
        prediction: np.ndarray,
        probabilities: np.ndarray | None = None,
        *,
        name: str,
        label: str = "",
        group: str = "",
        spacing: tuple[float, float] | None = None,
    ) -> CaseScore:
        """Score one image and add it to the table and to the histogram of its class.

        Masks are bool (H, W) at the original size of the image, probabilities float (H, W) in
        [0, 1] before any cleaning; `spacing` is the height and width of a pixel in mm, for all
        images or for none. ValueError: masks or probabilities that are none, sizes that differ, a
        name that is there already; nothing is added then.
        """
        score = score_case(truth, prediction, name=name, label=label, group=group, spacing=spacing)
        if probabilities is None:
            self.table.add(score)
            return score
        try:
            pixels = ProbabilityHistogram.of(truth, probabilities)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        whole, band = pixels.calibration, pixels.band
        score = replace(
            score,
            image_score=float(np.float32(np.max(probabilities))),
            brier=whole.brier,
            ece=whole.ece,
            band_brier=band.brier,
            band_ece=band.ece,
        )
        self.table.add(score)
        key = label if score.has_lesion else f"{label}{NO_LESION}"
        if key in self.histograms:
            self.histograms[key] += pixels
        else:
            self.histograms[key] = pixels
        return score

    def cases_of(self, images: str = ALL_IMAGES) -> CaseTable:
        """Return the score cards of "all images", "lesion images", or a class (with a lesion)."""
        if images == ALL_IMAGES:
            return self.table
        lesions = self.table.lesion_cases
        return lesions if images == LESION_IMAGES else lesions.subset(labels=[images])

    def histogram(self, images: str = ALL_IMAGES) -> ProbabilityHistogram:
        """Merge the histograms of some images, named as in `cases_of`; empty without probabilities.

        ValueError: the histograms hold other images than the table.
        """
        # In folders of earlier versions "normal" holds the images without a lesion.
        chosen = (
            one
            for key, one in self.histograms.items()
            if images == ALL_IMAGES or (one.lesion_pixels and images in (LESION_IMAGES, key))
        )
        merged, pooled = sum(chosen, ProbabilityHistogram()), self.cases_of(images).pooled()
        if merged.n and (merged.n, merged.lesion_pixels) != (pooled.n, pooled.tp + pooled.fn):
            raise ValueError(
                f"the histograms hold {merged.n} pixels ({merged.lesion_pixels} lesion), the table "
                f"{pooled.n} ({pooled.tp + pooled.fn}); fill both through Evaluation.add"
            )
        return merged

    def areas(self, images: str = ALL_IMAGES) -> tuple[float, float]:
        """Return ROC AUC and average precision; of merged folds the mean of the folds' areas.

        `images` is as in `cases_of`. nan where undefined; folds where an area is undefined are left
        out of its mean.
        """
        if not self.folds:
            histogram = self.histogram(images)
            return histogram.auc, histogram.average_precision
        values = ([fold[key].get(images) for fold in self.folds] for key in AREAS)
        defined = ([value for value in some if value is not None] for some in values)
        auc, average = (float(np.mean(some)) if some else math.nan for some in defined)
        return auc, average

    @property
    def image_auc(self) -> float:
        """Area under the ROC curve of the image score; of merged folds the folds' mean.

        nan where a fold lacks images with, or without, a lesion, or the score of one.
        """
        if self.folds:
            areas = [fold.get("image_auc") for fold in self.folds]
            return math.nan if None in areas else float(np.mean(areas))
        scores, lesion = self.table.column("image_score"), self.table.column("has_lesion")
        if np.isnan(scores).any() or len(set(lesion)) < 2:
            return math.nan
        from scipy.stats import mannwhitneyu  # importing this package is cheap

        pairs = lesion.sum() * (~lesion).sum()
        return float(mannwhitneyu(scores[lesion], scores[~lesion]).statistic / pairs)

    def save(self, folder: str | Path) -> Path:
        """Write cases.csv, histograms.npz, about.json, of merged folds folds.json; return `folder`.

        TypeError or ValueError: `provenance` is not JSON-able; nothing is written then.
        """
        folder = Path(folder)
        about = json.dumps(self.provenance.to_dict(), indent=2, allow_nan=False)
        arrays = {"labels": np.array(list(self.histograms), dtype=str)}
        for position, histogram in enumerate(self.histograms.values()):
            for key, value in histogram.to_arrays().items():
                arrays[f"{key}_{position}"] = value
        self.table.to_csv(folder / CASES)
        with atomic_path(folder / HISTOGRAMS) as temporary:
            np.savez_compressed(temporary, **arrays)
        write_atomic(folder / ABOUT, about + "\n")
        (folder / FOLDS).unlink(missing_ok=True)
        if self.folds:
            write_json(folder / FOLDS, self.folds)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Read what `save` wrote; FileNotFoundError or ValueError: a file is absent or unfit."""
        folder = Path(folder)
        for name in (CASES, HISTOGRAMS, ABOUT):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder / name} is missing; {folder} is not a folder of Evaluation.save"
                )
        with np.load(folder / HISTOGRAMS, allow_pickle=False) as arrays:
            labels = arrays["labels"].tolist()
            needed = [f"{key}_{i}" for i in range(len(labels)) for key in ARRAYS]
            if absent := [name for name in needed if name not in arrays]:
                raise ValueError(
                    f"{folder / HISTOGRAMS}: lacks {', '.join(absent)}; it was written by another "
                    "version of this library. Evaluate again."
                )
            histograms = {
                label: ProbabilityHistogram(*(arrays[f"{key}_{i}"] for key in ARRAYS))
                for i, label in enumerate(labels)
            }
        folds = read_json(folder / FOLDS) if (folder / FOLDS).is_file() else ()
        about = read_json(folder / ABOUT)
        return cls(CaseTable.read_csv(folder / CASES), histograms, about, tuple(folds))


def join_tables(evaluations: Mapping[int, Evaluation]) -> CaseTable:
    """Put the tables of folds below each other.

    An image may be a validation image of several folds; then each of its rows is kept, its name
    tells the fold, and all of them are one group.
    """
    rows = [(fold, case) for fold, one in evaluations.items() for case in one.table]
    times = Counter(case.name for _, case in rows)
    return CaseTable(
        replace(case, name=f"{case.name}, fold {fold}", group=case.group or case.name)
        if times[case.name] > 1
        else case
        for fold, case in rows
    )


def merge_evaluations(evaluations: Mapping[int, Evaluation]) -> Evaluation:
    """Put the evaluations of several folds together, to be summarised and reported as one.

    One table, pooled counts. Probabilities of different networks do not share a scale, so the areas
    under the curves are kept for each fold and `Evaluation.areas` is their mean; the histograms are
    added up, for calibration and for a drawing of the curves.

    Parameters
    ----------
    evaluations : mapping of int to Evaluation
        By fold.

    Returns
    -------
    Evaluation
        Its provenance is that of all folds, see `Provenance.shared_by`.

    Raises
    ------
    ValueError
        Without a fold, or when only some hold probabilities.
    """
    if not evaluations:
        raise ValueError("merge_evaluations: received no fold; expected at least one.")
    without = [fold for fold, one in evaluations.items() if not one.histograms]
    if 0 < len(without) < len(evaluations):
        raise ValueError(
            f"merge_evaluations: fold {without[0]} holds no probabilities and others do; evaluate "
            "all in the same way."
        )
    histograms: dict[str, ProbabilityHistogram] = {}
    for one in evaluations.values():
        for key, histogram in one.histograms.items():
            histograms[key] = histograms.get(key, ProbabilityHistogram()) + histogram
    averaged = not without and len(evaluations) > 1
    areas = tuple(_areas(fold, one) for fold, one in evaluations.items()) if averaged else ()
    provenance = Provenance.shared_by([one.provenance for one in evaluations.values()])
    return Evaluation(join_tables(evaluations), histograms, provenance, areas)


def _areas(fold: int, evaluation: Evaluation) -> dict[str, Any]:
    """Work out the areas under the curves of one fold, see `Evaluation.folds`."""
    names = (ALL_IMAGES, LESION_IMAGES, *evaluation.table.lesion_cases.labels)
    pairs = {name: evaluation.areas(name) for name in names}
    areas = {
        key: {name: None if math.isnan(pair[i]) else pair[i] for name, pair in pairs.items()}
        for i, key in enumerate(AREAS)
    }
    area = evaluation.image_auc
    return {"fold": fold, **areas, "image_auc": None if math.isnan(area) else area}
