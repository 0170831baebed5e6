"""What a training leaves: threshold and cleaning, chosen on validation images; model and run."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, Split, TrainingImages, content_hash, load_case
from unet_lib.files import read_json, sha256, write_atomic, write_json
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.inference.lesions import measure_components
from unet_lib.model import build_unet
from unet_lib.provenance import Provenance
from unet_lib.shift import fit_monitor
from unet_lib.training.loop import Progress
from unet_lib.training.recipe import Recipe
from unet_lib.weights import load_segmenter, load_weights_file, save_segmenter
from unet_lib.weights.folder import WEIGHTS

SETTINGS, SPLIT, HISTORY, RESULT = "settings.json", "split.csv", "history.csv", "result.json"
MODEL = "model"
FEW_LESIONS = 5  # images of a part

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 20))
CLEANINGS = tuple(Cleaning(area, peak) for area in (0.0, 0.002, 0.005) for peak in (0.0, 0.7, 0.9))
LEAST_SPECIFICITY = 0.8
# Cleaning adds two more choices made on few images: it must earn them.
CLEANING_GAIN = 0.005
# How much lesion Dice may be given up for specificity, which is known from few images only.
DICE_SLACK = 0.03


@dataclass(frozen=True)
class Candidate:
    """One setting and its scores on the validation images; nan where none can have them."""

    threshold: float
    cleaning: Cleaning
    dice: float  # mean of the images with a lesion
    specificity: float  # share of the images without a lesion that are left empty

    def to_dict(self) -> dict[str, Any]:
        """Return the candidate, JSON-able (nan becomes None)."""
        specificity = None if np.isnan(self.specificity) else self.specificity
        scores = {"dice": self.dice, "specificity": specificity}
        return {"threshold": self.threshold} | self.cleaning.to_dict() | scores


@dataclass(frozen=True)
class ThresholdChoice:
    """The chosen setting, and all that were tried."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    lesions: int  # validation images with a lesion
    normals: int  # and without
    met: bool  # whether the chosen one leaves at least 80 % of the normals empty

    def to_dict(self) -> dict[str, Any]:
        """Return the choice, JSON-able (nan becomes None)."""
        return {
            "threshold": self.chosen.threshold,
            "cleaning": self.chosen.cleaning.to_dict(),
            "validation_dice": self.chosen.dice,
            "validation_specificity": self.chosen.to_dict()["specificity"],
            "lesions": self.lesions,
            "normals": self.normals,
            "constraint_met": self.met,
        } | ({"fixed": True} if len(self.candidates) == 1 else {})


def tune_threshold(
    segmenter: Segmenter,
    cases: Sequence[Case],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    cleanings: Sequence[Cleaning] = CLEANINGS,
    new_images: bool = False,
    progress: bool = True,
) -> ThresholdChoice:
    """Choose threshold and cleaning on validation images.

    Maximises the mean Dice of the lesion images subject to at least 80 % of the normal images
    left empty, but gives up at most .03 Dice for it: a fold has about 13 normal validation images,
    so one of them moves the specificity by .08. Cleaning is used only where the constraint cannot
    be met without it or the Dice gains at least .005. Where nothing within .03 Dice of the best
    meets the constraint, the most specific of these is taken and `ThresholdChoice.met` is False.

    Parameters
    ----------
    segmenter : Segmenter
        Its own threshold and cleaning are not used.
    cases : sequence of Case
        Validation images with masks; never the test images. Their hashes are added to
        ``segmenter.provenance``, so that `evaluate_cases` calls them no test from now on.
    thresholds, cleanings : sequence of float, of Cleaning
        What there is to choose from; one each only scores it.
    new_images : bool
        Whether images are allowed that a model with a record of its images was neither trained
        nor validated on: for a threshold for your own images. They are no test afterwards.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ThresholdChoice

    Raises
    ------
    ValueError
        No case has a lesion, or one is new to the model and `new_images` is False: a threshold
        chosen on test images makes their scores too good.
    """
    record = TrainingImages.from_provenance(segmenter.provenance)
    hashes: list[str] = []

    def load(case: Case) -> tuple[np.ndarray, np.ndarray]:
        image, truth = load_case(case)
        hashes.append(content_hash(image))
        if record is not None and not new_images and hashes[-1] not in record.hashes:
            raise ValueError(
                f"tune_threshold: {case.name} is neither a training nor a validation image of "
                "this model. A threshold is never chosen on test images: give split.validation. "
                "For a threshold for images of your own, which are no test then, pass "
                "new_images=True."
            )
        return truth, image

    maps = segmenter.iter_items(map(load, cases))
    bar = tqdm(maps, "tuning threshold", len(cases), disable=not progress, unit="image")
    lesions: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    for truth, probabilities in bar:
        (lesions if truth.any() else normals).append(
            score_settings(truth, probabilities, thresholds, cleanings)
        )
    used = {*(segmenter.provenance.tuned_on or ()), *hashes} - (record.hashes if record else set())
    if used:
        segmenter.provenance = segmenter.provenance.but(tuned_on=sorted(used))
    if not lesions:
        raise ValueError(
            f"tune_threshold: none of the {len(cases)} validation images has a lesion; a threshold "
            "cannot be chosen. Give validation images with lesions."
        )
    dice = np.mean(lesions, axis=0)[..., 0]
    specificity = np.mean(normals, axis=0)[..., 1] if normals else np.full_like(dice, np.nan)
    candidates = tuple(
        Candidate(threshold, cleaning, float(dice[i, j]), float(specificity[i, j]))
        for i, cleaning in enumerate(cleanings)
        for j, threshold in enumerate(thresholds)
    )
    chosen = _choose(candidates)
    met = not chosen.specificity < LEAST_SPECIFICITY
    return ThresholdChoice(chosen, candidates, len(lesions), len(normals), met)


def check_lesions(lesions: Sequence[bool], part: str, *, practice: bool = False) -> None:
    """Refuse, before the first epoch, a part without lesions; warn of few, but not in practice."""
    few = sum(lesions)
    text = (
        f"train: only {few} of the {len(lesions)} images of the {part} have a lesion: what is "
        "learned or chosen on them, such as the threshold, is hardly more than chance. Take "
        "another fold, divide the images otherwise (--split), or look at the masks (check)."
    )
    if not few:
        raise ValueError(text.replace("only 0", "none"))
    if few < FEW_LESIONS and not practice:
        warnings.warn(text, stacklevel=2)


def score_settings(
    truth: np.ndarray,
    probabilities: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
    cleanings: Sequence[Cleaning] = CLEANINGS,
) -> np.ndarray:
    """Return Dice and whether nothing is left, (cleanings, thresholds, 2), of one image.

    A cleaning keeps whole components, so their pixels are counted once a threshold.
    """
    scores = np.empty((len(cleanings), len(thresholds), 2))
    lesion = np.count_nonzero(truth)
    for j, threshold in enumerate(thresholds):
        labels, areas, peaks = measure_components(probabilities >= threshold, probabilities)
        overlaps = np.bincount(labels[truth], minlength=len(areas))
        for i, cleaning in enumerate(cleanings):
            keep = cleaning.keeps(areas, peaks, truth.size)
            predicted = areas[keep].sum()
            dice = 2 * overlaps[keep].sum() / (predicted + lesion) if lesion else np.nan
            scores[i, j] = dice, predicted == 0
    return scores


def _choose(candidates: Sequence[Candidate]) -> Candidate:
    best = max(c.dice for c in candidates)
    close = [c for c in candidates if c.dice >= best - DICE_SLACK]
    enough = [c for c in close if not c.specificity < LEAST_SPECIFICITY]  # nan: no normals
    if not enough:
        return max(close, key=lambda c: (c.specificity, c.dice))

    def worth(candidate: Candidate) -> float:  # what is cleaned must be better by CLEANING_GAIN
        return candidate.dice - CLEANING_GAIN * (candidate.cleaning != Cleaning())

    return max(enough, key=worth)


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    recipe: Recipe
    history: list[dict[str, float]]  # a row for each epoch: losses, scores, rate, seconds
    result: dict[str, Any]  # best epoch and its scores, threshold, hours; of phantoms a warning
    segmenter: Segmenter  # with the weights of the best epoch, in float32


def load_run(folder: str | Path) -> Run:
    """Read a finished run; ValueError where the folder holds none."""
    folder = Path(folder)
    if not (folder / RESULT).is_file():
        raise ValueError(
            f"{folder}: no finished run ({RESULT} is missing). Train, or resume an interrupted "
            "run with resume=True."
        )
    with open(folder / HISTORY, encoding="utf-8", newline="") as file:
        history = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    recipe = Recipe.from_dict(read_json(folder / SETTINGS)["recipe"])
    result = read_json(folder / RESULT)
    return Run(folder, recipe, history, result, load_segmenter(folder / MODEL, runtime="keras"))


def finish(
    folder: Path,
    split: Split,
    recipe: Recipe,
    epochs: Progress,
    provenance: Provenance,
    operating_point: tuple[float, Cleaning] | None,
    progress: bool,
) -> Run:
    """Write the history, the model folder of the best epoch, and, last, the result."""
    rows = [epochs.history[0].keys(), *(row.values() for row in epochs.history)]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    write_atomic(folder / HISTORY, text)
    # In float32: what is saved does not depend on the precision.
    network = build_unet(recipe.network, recipe.preprocessing.size, pretrained=False)
    load_weights_file(network, epochs.best_weights(folder))
    provenance = provenance.but(
        name=provenance.name or folder.name,
        split=split.name,
        parts={part: len(getattr(split, part)) for part in ("train", "validation", "test")},
        trained_on=sorted(case.name for case in split.train),
        validated_on=sorted(case.name for case in split.validation),
    )
    segmenter = Segmenter(network, recipe.preprocessing, provenance=provenance)
    result: dict[str, Any] = {"warning": provenance.banner} if provenance.banner else {}
    result |= {
        "epochs": epochs.epochs,
        "best_epoch": epochs.best_epoch,
        "hours": sum(row["seconds"] for row in epochs.history) / 3600,
    }
    candidates = {}
    if operating_point:
        segmenter.threshold, segmenter.cleaning = operating_point
        result |= {"threshold": segmenter.threshold, "cleaning": segmenter.cleaning.to_dict()}
    else:
        choice = tune_threshold(
            segmenter, split.validation, progress=progress, **recipe.training.candidates()
        )
        segmenter.threshold, segmenter.cleaning = choice.chosen.threshold, choice.chosen.cleaning
        best = epochs.history[epochs.best_epoch - 1]
        result["best_validation_loss"] = epochs.best_loss
        result["validation_dice_at_network_size"] = best["val_dice"]
        result |= choice.to_dict()
        candidates["candidates"] = [candidate.to_dict() for candidate in choice.candidates]
    segmenter.provenance = segmenter.provenance.but(training=result)
    segmenter.monitor = fit_monitor(split.train, split.validation, progress=progress)
    save_segmenter(segmenter, recipe.network, folder / MODEL)
    digest = sha256(folder / MODEL / WEIGHTS)
    segmenter.provenance = segmenter.provenance.but(weights_sha256=digest)
    write_json(folder / RESULT, result | candidates)
    return Run(folder, recipe, epochs.history, result | candidates, segmenter)
