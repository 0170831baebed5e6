"""A training run: from a split to a model folder, in one folder that can be resumed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_lib.dataset import Folds, Split
from unet_lib.files import folder_lock, write_atomic
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.model import build_unet
from unet_lib.phantoms import phantom_kind
from unet_lib.plots import banner_for, plot_history, save_figure
from unet_lib.shift import fit_monitor
from unet_lib.training.environment import environment
from unet_lib.training.loop import STATE, Progress, fit, remove_weights
from unet_lib.training.preparing import prepare, training_images
from unet_lib.training.processes import Team, find_team
from unet_lib.training.recipe import Recipe
from unet_lib.training.starting import (
    STARTED_FROM,
    join_images,
    refuse_seen,
    start_facts,
    starting_model,
)
from unet_lib.training.threshold import ThresholdChoice, tune_threshold
from unet_lib.weights import load_segmenter, load_weights_file, save_segmenter

__all__ = ["Run", "load_run", "train"]

SETTINGS, SPLIT, HISTORY, RESULT = "settings.json", "split.csv", "history.csv", "result.json"
CURVES, MODEL = "curves.png", "model"
FINISHED = b"finished"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    folder : Path
    recipe : Recipe
    history : list of dict
        One row an epoch: epoch, loss, accuracy, dice, val_loss, val_accuracy, val_dice,
        learning_rate, seconds.
    result : dict
        Best epoch, its validation loss and Dice, threshold, cleaning, hours; of phantoms a warning.
    segmenter : Segmenter
        With the weights of the best epoch, in float32.
    """

    folder: Path
    recipe: Recipe
    history: list[dict[str, float]]
    result: dict[str, Any]
    segmenter: Segmenter


def train(
    split: Split,
    folder: str | Path,
    recipe: Recipe | None = None,
    *,
    about: dict[str, Any] | None = None,
    operating_point: tuple[float, Cleaning] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run | None:
    """Train on a split, choose the threshold on its validation part, save the model folder.

    On JAX, all devices that it shows train together, those of other processes (`join`) included.

    Parameters
    ----------
    split : Split
        Its test part is not touched.
    folder : str or Path
        The run folder. Empty or absent, unless `resume`.
    recipe : Recipe, optional
        The default one when left out.
    about : dict, optional
        JSON-able facts on the data, kept with the model: ``data``, ``data_kind``, ``fold``.
    operating_point : tuple of float and Cleaning, optional
        Threshold and cleaning, known beforehand (from a cross-validation): for a split without a
        validation part and without a test part, of which all epochs are trained and the last one
        is taken.
    resume : bool
        Go on with an interrupted run of the same settings and split; start where there is none;
        return a finished one as it is.
    progress : bool
        Show progress bars.

    Returns
    -------
    Run
        None in all but the first of several processes, which alone has a run folder.

    Raises
    ------
    FileExistsError
        The folder holds something and `resume` is False.
    FolderInUse
        Another process trains in the folder.
    ValueError
        The folder holds a run of other settings or another split, the training part is empty,
        there are validation images and an operating point, or neither, or test images and an
        operating point, or devices cannot share a batch evenly; the model to start from has another
        network, or has seen validation or test images.
    WeightsError
        The model to start from cannot be used.
    ImageError, DatasetError
        A file cannot be used, or was changed during the training; the message names it.
    WriteError
        The disk is full or the like; the state of the last whole epoch is kept.
    TrainingError
        The loss is not a number.
    """
    folder, recipe = Path(folder), recipe or Recipe()
    if not split.train:
        raise ValueError(f"train: the train part of {split.name} is empty.")
    if not split.validation and operating_point is None:
        raise ValueError(
            f"train: the validation part of {split.name} is empty. Give validation images, or an "
            "operating_point from a cross-validation."
        )
    if split.validation and operating_point is not None:
        raise ValueError(
            f"train: {split.name} has validation images, so the threshold is chosen on them; "
            "leave operating_point out."
        )
    if split.test and operating_point is not None:
        raise ValueError(
            f"train: {split.name} has test images, and an operating_point may have been chosen on "
            "them. Give validation images, or a split without a test part."
        )
    about = {**(about or {}), **phantom_kind(case.image_path for case in split.train)}
    team = find_team()
    if team:
        team.check(recipe.training)
    # A finished run is returned as it is, whether the model it started from is still there or not.
    start = None if (folder / RESULT).is_file() else starting_model(recipe)
    if start:
        refuse_seen(start, split, about.get("data"))
        about |= start_facts(start)
    if team and team.index > 0:
        _follow(split, folder, recipe, team, start)
        return None
    with folder_lock(folder):
        _claim(folder, recipe, split, about, resume)
        finished = (folder / RESULT).is_file()
        if team:
            team.share(FINISHED if finished else b"")
        if not finished:
            _train(split, folder, recipe, about, operating_point, progress, team, start)
        elif team:
            team.leave()
        (folder / STATE).unlink(missing_ok=True)  # large, and of no use any more
        remove_weights(folder)
        return load_run(folder)


def _train(
    split: Split,
    folder: Path,
    recipe: Recipe,
    about: dict[str, Any],
    operating_point: tuple[float, Cleaning] | None,
    progress: bool,
    team: Team | None,
    start: Segmenter | None,
) -> None:
    """Do what is left of a run."""
    network, batches, validation = prepare(split, recipe, progress, team, start)
    done = fit(
        network, batches, validation, recipe.training, folder, show_progress=progress, team=team
    )
    if team:
        team.leave()
    _write_history(folder / HISTORY, done.history)
    seen = join_images(training_images(batches, validation, about), start)
    facts = {
        "name": folder.name,
        **about,
        "split": split.name,
        "parts": {part: len(getattr(split, part)) for part in ("train", "validation", "test")},
        "trained_on": sorted(case.name for case in split.train),
        "validated_on": sorted(case.name for case in split.validation),
    }
    if seen:
        facts["training_images"] = seen.to_dict()
    segmenter = _final_segmenter(recipe, done.best_weights(folder), facts)
    choice = None
    if operating_point is None:
        choice = tune_threshold(segmenter, split.validation, progress=progress)
        operating_point = choice.chosen.threshold, choice.chosen.cleaning
    segmenter.threshold, segmenter.cleaning = operating_point
    result = _result(done, segmenter, choice)
    if warning := banner_for(about):
        result = {"warning": warning, **result}
    segmenter.provenance = segmenter.provenance.but(training=result)
    segmenter.monitor = fit_monitor(split.train, split.validation, progress=progress)
    save_segmenter(segmenter, recipe.network, folder / MODEL)
    about_figure = {**about, "parts": facts["parts"], "model": folder.name}
    save_figure(plot_history(done.history, about=about_figure), folder / CURVES)
    candidates = {"candidates": _candidates(choice)} if choice else {}
    _write_json(folder / RESULT, {**result, **candidates})


def _follow(
    split: Split, folder: Path, recipe: Recipe, team: Team, start: Segmenter | None
) -> None:
    """Train as one of several processes, without a run folder."""
    if team.share(b"") != FINISHED:
        parts = prepare(split, recipe, False, team, start)
        fit(*parts, recipe.training, folder, show_progress=False, team=team)
    team.leave()


def load_run(folder: str | Path) -> Run:
    """Read a finished run.

    Raises
    ------
    ValueError
        The folder holds no finished run.
    """
    folder = Path(folder)
    if not (folder / RESULT).is_file():
        raise ValueError(
            f"{folder}: no finished run ({RESULT} is missing). Train, or resume an interrupted "
            "run with resume=True."
        )
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    with open(folder / HISTORY, encoding="utf-8", newline="") as file:
        history = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return Run(
        folder,
        Recipe.from_dict(settings["recipe"]),
        history,
        json.loads((folder / RESULT).read_text(encoding="utf-8")),
        load_segmenter(folder / MODEL),
    )


def _claim(folder: Path, recipe: Recipe, split: Split, about: dict[str, Any], resume: bool) -> None:
    """Take an empty folder for this run, or check that the one in it is the same run."""
    split_csv = Folds.of_split(split)
    if (folder / SETTINGS).is_file() and resume:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        # A setting that the library has got since has its default there.
        stored = Recipe.from_dict(settings["recipe"]).to_dict()
        differ = [
            f"{part}.{key}: {stored[part][key]!r} there, {value!r} now"
            for part, values in recipe.to_dict().items()
            for key, value in values.items()
            if stored[part][key] != value
        ]
        if Folds.read(folder / SPLIT).rows != split_csv.rows:
            differ.append("the split differs")
        begun, now = (told.get(STARTED_FROM) for told in (settings["about"], about))
        if now not in (None, begun):  # of a finished run it is not asked
            differ.append(f"{STARTED_FROM}: {begun} there, {now} now")
        if differ:
            raise ValueError(
                f"{folder}: holds a run of other settings ({'; '.join(differ)}). Resume with the "
                "same settings, or train into another folder."
            )
        return
    there = {path.name for path in folder.iterdir()}
    # The settings are written last: a split alone is a run that was killed before it began.
    if there and not (resume and there == {SPLIT}):
        raise FileExistsError(
            f"{folder}: is not empty. Resume the run in it with resume=True (--resume), or "
            "choose another folder."
        )
    split_csv.save(folder / SPLIT)
    _write_json(folder / SETTINGS, {"recipe": recipe.to_dict(), "about": about, **environment()})


def _final_segmenter(recipe: Recipe, weights: Path, facts: dict[str, Any]) -> Segmenter:
    """Build the network again in float32: what is saved does not depend on the precision."""
    network = build_unet(recipe.network, recipe.preprocessing.size, pretrained=False)
    load_weights_file(network, weights)
    return Segmenter(network, recipe.preprocessing, provenance=facts)


def _result(done: Progress, segmenter: Segmenter, choice: ThresholdChoice | None) -> dict[str, Any]:
    result = {
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "hours": sum(row["seconds"] for row in done.history) / 3600,
    }
    if choice is None:
        cleaning = segmenter.cleaning.to_dict()
        return {**result, "threshold": segmenter.threshold, "cleaning": cleaning}
    row = done.history[done.best_epoch - 1]
    best = {"best_validation_loss": done.best_loss}
    best["validation_dice_at_network_size"] = row["val_dice"]
    return {**result, **best, **choice.to_dict()}


def _candidates(choice: ThresholdChoice) -> list[dict[str, Any]]:
    return [
        {
            "threshold": c.threshold,
            **c.cleaning.to_dict(),
            "dice": c.dice,
            "specificity": None if c.specificity != c.specificity else c.specificity,
        }
        for c in choice.candidates
    ]


def _write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomic(path, text.getvalue())


def _write_json(path: Path, values: Any) -> None:
    write_atomic(path, json.dumps(values, indent=2) + "\n")
