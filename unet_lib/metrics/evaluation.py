"""Everything an evaluation leaves behind, in one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.files import atomic_path, write_atomic
from unet_lib.metrics.cases import CaseScore, score_case
from unet_lib.metrics.counts import NAN
from unet_lib.metrics.curves import ARRAYS, ProbabilityHistogram
from unet_lib.metrics.table import CaseTable

CASES, HISTOGRAMS, ABOUT = "cases.csv", "histograms.npz", "about.json"
FOLDS = "folds.json"  # only of merged folds
NO_LESION = " (no lesion)"
ALL_IMAGES, LESION_IMAGES = "all images", "lesion images"


@dataclass(frozen=True)
class FoldAreas:
    """Areas under the pooled curves of one fold.

    Parameters
    ----------
    fold : int
    auc, average_precision : dict of str to float
        For "all images", "lesion images" and each class (its images with a lesion); None where
        undefined.
    """

    fold: int
    auc: dict[str, float | None]
    average_precision: dict[str, float | None]

    @classmethod
    def of(cls, fold: int, evaluation: Evaluation) -> FoldAreas:
        """Work out the areas of one fold."""
        choices = {ALL_IMAGES: {}, LESION_IMAGES: {"lesion_only": True}}
        choices |= {label: {"label": label} for label in evaluation.table.lesion_cases.labels}
        areas = {name: evaluation.areas(**choice) for name, choice in choices.items()}
        defined = {k: tuple(None if np.isnan(v) else v for v in pair) for k, pair in areas.items()}
        auc, average = ({name: pair[i] for name, pair in defined.items()} for i in (0, 1))
        return cls(fold, auc, average)


@dataclass
class Evaluation:
    """Score cards and pooled histograms of one model on one set of images.

    Parameters
    ----------
    table : CaseTable
        One row for each image.
    histograms : dict of str to ProbabilityHistogram
        Pooled pixels by class. Images without a lesion are kept apart: under "normal", or under
        "<label> (no lesion)" for any other label. Empty when only masks were scored.
    about : dict
        JSON-able. Shown on figures and in the report: ``model``, ``data``, ``fold``, ``part``,
        ``threshold``. Decides on banners: ``data_kind`` ("phantoms" for synthetic images) and
        ``seen_in_training`` (True when the model was trained on these images). More keys may
        follow and are listed in the report.
    folds : tuple of FoldAreas
        Of the folds that were merged (`merge_evaluations`); empty for a single evaluation.
    """

    table: CaseTable = field(default_factory=CaseTable)
    histograms: dict[str, ProbabilityHistogram] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    folds: tuple[FoldAreas, ...] = ()

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

        Parameters
        ----------
        truth, prediction : np.ndarray
            bool (H, W) at the original size of the image.
        probabilities : np.ndarray, optional
            float (H, W) in [0, 1], before any cleaning of the mask.
        name, label, group : str
            As in `CaseScore`.
        spacing : (float, float), optional
            Height and width of a pixel in mm; for all images or for none.

        Returns
        -------
        CaseScore

        Raises
        ------
        ValueError
            As `score_case` and `ProbabilityHistogram.add`, or for a name that is there already.
        """
        score = score_case(truth, prediction, name=name, label=label, group=group, spacing=spacing)
        table = self.table.added(score)
        if probabilities is not None:
            key = label if score.has_lesion or label == "normal" else f"{label}{NO_LESION}"
            histogram = self.histograms.get(key, ProbabilityHistogram())
            try:
                pixels, band = histogram.add(truth, probabilities)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            self.histograms[key] = histogram
            score = replace(
                score,
                brier=pixels.brier,
                ece=pixels.ece,
                band_brier=band.brier,
                band_ece=band.ece,
            )
            table = self.table.added(score)
        self.table = table
        return score

    def histogram(
        self, *, lesion_only: bool = False, label: str | None = None
    ) -> ProbabilityHistogram:
        """Merge the histograms of all images, of those with a lesion, or of those of one class.

        Parameters
        ----------
        lesion_only : bool
            Leave out the images without a lesion.
        label : str, optional
            Take the images with a lesion of this class only.

        Returns
        -------
        ProbabilityHistogram
            Without pixels when no probabilities were added.

        Raises
        ------
        ValueError
            If the histograms hold other images than the table.
        """
        cases = self.table.lesion_cases if lesion_only or label is not None else self.table
        if label is not None:
            cases = cases.subset(labels=[label])
            chosen = [self.histograms[label]] if label in self.histograms and len(cases) else []
        else:
            chosen = [h for h in self.histograms.values() if h.lesion_pixels or not lesion_only]
        merged = sum(chosen, ProbabilityHistogram())
        pooled = cases.pooled()
        if merged.n and (merged.n, merged.lesion_pixels) != (pooled.n, pooled.tp + pooled.fn):
            raise ValueError(
                f"the histograms hold {merged.n} pixels ({merged.lesion_pixels} lesion), the table "
                f"{pooled.n} ({pooled.tp + pooled.fn}); fill both through Evaluation.add"
            )
        return merged

    def areas(self, *, lesion_only: bool = False, label: str | None = None) -> tuple[float, float]:
        """Return ROC AUC and average precision; of merged folds the mean of the folds' areas.

        Parameters
        ----------
        lesion_only, label
            As in `histogram`.

        Returns
        -------
        auc, average_precision : float
            nan where undefined; folds where it is undefined are left out of the mean.
        """
        if not self.folds:
            histogram = self.histogram(lesion_only=lesion_only, label=label)
            return histogram.auc, histogram.average_precision
        name = label or (LESION_IMAGES if lesion_only else ALL_IMAGES)
        pairs = [(fold.auc.get(name), fold.average_precision.get(name)) for fold in self.folds]
        columns = ([v for v in values if v is not None] for values in zip(*pairs, strict=True))
        auc, average = (float(np.mean(v)) if v else NAN for v in columns)
        return auc, average

    def save(self, folder: str | Path) -> Path:
        """Write cases.csv, histograms.npz and about.json into `folder` (made when absent).

        Of merged folds also folds.json.

        Returns
        -------
        Path
            `folder`.

        Raises
        ------
        TypeError, ValueError
            If `about` is not JSON-able; nothing is written then.
        """
        folder = Path(folder)
        about = json.dumps(self.about, indent=2, allow_nan=False)
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
            write_atomic(folder / FOLDS, json.dumps([vars(f) for f in self.folds], indent=2) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If one of the three files is absent; the message names it.
        ValueError
            If a file does not fit.
        """
        folder = Path(folder)
        for name in (CASES, HISTOGRAMS, ABOUT):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder / name} is missing; {folder} is not a folder of Evaluation.save"
                )
        with np.load(folder / HISTOGRAMS, allow_pickle=False) as arrays:
            absent = [f"{key}_{i}" for i in range(len(arrays["labels"])) for key in ARRAYS]
            absent = [name for name in absent if name not in arrays]
            if absent:
                raise ValueError(
                    f"{folder / HISTOGRAMS}: lacks {', '.join(absent)}; it was written by another "
                    "version of this library. Evaluate again."
                )
            histograms = {
                str(label): ProbabilityHistogram.from_arrays(
                    {key: arrays[f"{key}_{i}"] for key in ARRAYS}
                )
                for i, label in enumerate(arrays["labels"])
            }
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        folds = json.loads((folder / FOLDS).read_text()) if (folder / FOLDS).is_file() else ()
        table = CaseTable.read_csv(folder / CASES)
        return cls(table, histograms, about, tuple(FoldAreas(**fold) for fold in folds))
