"""A training run: from a split to a model folder, in one folder that can be resumed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from unet_lib.backend import (
    enable_determinism,
    keep_freed_memory,
    recommended_precision,
)
from unet_lib.batches import PreparedCases
from unet_lib.dataset import Folds, Split, TrainingImages, content_hash, load_case
from unet_lib.files import folder_lock, sha256, write_atomic
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import phantom_kind
from unet_lib.provenance import Provenance
from unet_lib.shift import fit_monitor
from unet_lib.training import distributed
from unet_lib.training.folder import (
    HISTORY,
    MODEL,
    RESULT,
    Run,
    check_room,
    claim_folder,
    load_run,
    release_folder,
    write_json,
)
from unet_lib.training.loop import STATE, Progress, compile_network, fit, remove_weights
from unet_lib.training.recipe import Recipe
from unet_lib.training.threshold import tune_threshold
from unet_lib.weights import load_segmenter, load_weights_file, save_segmenter
from unet_lib.weights.folder import SETTINGS as MODEL_SETTINGS
from unet_lib.weights.folder import WEIGHTS, find_folder, read_settings

__all__ = ["settings_of", "train"]


def train(
    split: Split,
    folder: str | Path,
    recipe: Recipe | None = None,
    *,
    provenance: Provenance | Mapping[str, Any] | None = None,
    operating_point: tuple[float, Cleaning] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run | None:
    """Train on a split, choose the threshold on its validation part, save the model folder.

    On JAX, all devices that it shows train together, those of other processes included.

    Parameters
    ----------
    split : Split
        Its test part is not touched.
    folder : str or Path
        The run folder. Empty or absent, unless `resume`.
    recipe : Recipe, optional
        The default one when left out.
    provenance : Provenance or mapping, optional
        What is known of the data, kept with the model: ``data``, ``data_kind``, ``fold``.
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
    FileExistsError, FolderInUse
        The folder holds something and `resume` is False, or another process trains in it.
    ValueError
        The folder holds a run of other settings, split or images; a part is empty or does not go
        with the operating point; devices cannot share a batch evenly; the model to start from has
        another network, or has seen validation or test images.
    WeightsError, ImageError, DatasetError
        The model to start from or a file cannot be used; the message names it.
    WriteError, TrainingError
        The disk is full or the like; the loss is not a number. The last whole epoch is kept.
    """
    folder, recipe = Path(folder), recipe or Recipe()
    _check_parts(split, operating_point)
    distributed.check(recipe.training)
    kind = phantom_kind(case.image_path for case in split.train)
    provenance = Provenance.of(provenance).but(**kind)
    # A finished run is returned as it is, whether the model it started from is still there or not.
    start = None if (folder / RESULT).is_file() else _starting_model(recipe)
    if start:
        _refuse_seen(start, split, provenance.data)
        model = start.provenance
        provenance = provenance.but(started_from=f"{model.name} (SHA-256 {model.weights_sha256})")
    first = distributed.is_first()
    with folder_lock(folder) if first else contextlib.nullcontext():
        if first:
            claim_folder(folder, recipe, split, provenance, resume)
        finished = distributed.share(b"finished" if (folder / RESULT).is_file() else b"")
        if not finished:
            try:
                epochs, images = _train(split, folder, recipe, start, first and progress)
            except ValueError:  # refused, so before the first epoch: the folder is free again
                if first and not (folder / STATE).exists():
                    release_folder(folder)
                raise
        distributed.leave()
        if not first:
            return None
        if not finished:
            seen = TrainingImages.of(provenance.data, images.keys(), images.values())
            if start:
                before = TrainingImages.from_provenance(start.provenance)
                seen = before and seen.joined(before)  # where it does not say, nobody knows
            provenance = provenance.but(training_images=seen.to_dict() if seen else None)
            run = _finish(split, folder, recipe, epochs, provenance, operating_point, progress)
        (folder / STATE).unlink(missing_ok=True)  # large, and of no use any more
        remove_weights(folder)
        return load_run(folder) if finished else run


def settings_of(model: str) -> tuple[UNetConfig, Preprocessing]:
    """Return network and preprocessing of a model, for a recipe that starts from it."""
    stored = read_settings(find_folder(model) / MODEL_SETTINGS)
    network = UNetConfig.from_dict(stored["network"])
    return replace(network, encoder_weights=None), Preprocessing.from_dict(stored["preprocessing"])


def _starting_model(recipe: Recipe) -> Segmenter | None:
    """Load the model that a recipe starts from; None when it starts from random weights."""
    name = recipe.training.start_from
    if not name:
        return None
    theirs = settings_of(name)[0].to_dict()
    ours = replace(recipe.network, encoder_weights=None).to_dict()
    differ = [f"{k}: {theirs[k]!r} there, {v!r} here" for k, v in ours.items() if theirs[k] != v]
    if differ:
        raise ValueError(
            f"start_from {name}: has another network ({'; '.join(differ)}). Take its settings, or "
            "start without it."
        )
    return load_segmenter(name)


def _refuse_seen(start: Segmenter, split: Split, data: str | None) -> None:
    """Refuse a starting model that has seen images that are to choose or to test.

    One that does not say what it was trained on passes; its record stays unknown.
    """
    record = TrainingImages.from_provenance(start.provenance)
    for part in ("validation", "test") if record else ():
        cases = getattr(split, part)
        overlap = record.overlap(data, cases, [content_hash(load_case(case)[0]) for case in cases])
        seen = [*overlap["in_training"], *overlap["near_duplicates"]]
        if seen:
            raise ValueError(
                f"start_from {start.provenance.name}: was trained on {len(seen)} of the "
                f"{len(cases)} {part} images or on near-duplicates of them (first {seen[0]!r}); "
                "their scores would be too good. Start from a model that has not seen them, or "
                "divide the images otherwise."
            )


def _check_parts(split: Split, operating_point: tuple[float, Cleaning] | None) -> None:
    reason = None
    if not split.train:
        reason = f"the train part of {split.name} is empty."
    elif not split.validation and operating_point is None:
        reason = (
            f"the validation part of {split.name} is empty. Give validation images, or an "
            "operating_point from a cross-validation."
        )
    elif split.validation and operating_point is not None:
        reason = (
            f"{split.name} has validation images, so the threshold is chosen on them; leave "
            "operating_point out."
        )
    elif split.test and operating_point is not None:
        reason = (
            f"{split.name} has test images, and an operating_point may have been chosen on them. "
            "Give validation images, or a split without a test part."
        )
    if reason:
        raise ValueError(f"train: {reason}")


def _train(
    split: Split, folder: Path, recipe: Recipe, start: Segmenter | None, progress: bool
) -> tuple[Progress, dict[Any, str]]:
    """Do the epochs that are left; returns them and the hash of each image that was used."""
    config = recipe.training
    keep_freed_memory()
    if config.deterministic:
        enable_determinism(config.seed)
    else:
        keras.utils.set_random_seed(config.seed)
    prepared = [
        PreparedCases(
            cases,
            recipe.preprocessing,
            workers=config.workers,
            memory_mb=config.memory_mb,
            progress=progress,
        )
        for cases in (split.train, split.validation)
        if cases
    ]
    for part, ready in zip(("train", "validation"), prepared, strict=False):
        if not any(ready.lesions):
            raise ValueError(
                f"train: none of the {len(ready)} images of the {part} part of {split.name} has a "
                "lesion: nothing could be learned, or no threshold chosen, after all epochs. Take "
                "another fold, divide the images otherwise (--split), or look at the masks (the "
                "command check)."
            )
    common = {"channels": recipe.network.input_channels, "workers": config.workers}
    batches = distributed.SharedBatches(
        prepared[0],
        config.batch_size,
        augmentation=recipe.augmentation,
        shuffle=True,
        seed=config.seed,
        accumulate=config.accumulate,
        **common,
    )
    validation = None
    if split.validation:
        part = config.batch_size // config.accumulate
        validation = distributed.SharedBatches(prepared[1], part, **common)
    precision = config.precision
    if precision == "auto":
        precision = recommended_precision(depthwise=recipe.network.depthwise)
    distributed.agree(
        settings=json.dumps([recipe.to_dict(), precision]),
        split=str(Folds.of_split(split).rows),
        images=str([part.fingerprints for part in prepared]),
    )
    with distributed.scope():
        size = recipe.preprocessing.size
        network = build_unet(recipe.network, size, precision=precision, pretrained=not start)
        if start:
            network.set_weights(start.network.get_weights())
        compile_network(network, config, batches.updates)
    if distributed.is_first():
        check_room(folder, network)
    epochs = fit(network, batches, validation, config, folder, show_progress=progress)
    return epochs, {c: h for part in prepared for c, h in zip(part.cases, part.hashes, strict=True)}


def _finish(
    split: Split,
    folder: Path,
    recipe: Recipe,
    epochs: Progress,
    provenance: Provenance,
    operating_point: tuple[float, Cleaning] | None,
    progress: bool,
) -> Run:
    """Make the model of the best epoch: threshold, statistics of the images, model folder."""
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
    choice = None
    if operating_point is None:
        choice = tune_threshold(segmenter, split.validation, progress=progress)
        operating_point = choice.chosen.threshold, choice.chosen.cleaning
    segmenter.threshold, segmenter.cleaning = operating_point
    result: dict[str, Any] = {"warning": provenance.banner} if provenance.banner else {}
    result |= {
        "epochs": epochs.epochs,
        "best_epoch": epochs.best_epoch,
        "hours": sum(row["seconds"] for row in epochs.history) / 3600,
    }
    if choice:
        best = epochs.history[epochs.best_epoch - 1]
        result["best_validation_loss"] = epochs.best_loss
        result["validation_dice_at_network_size"] = best["val_dice"]
        result |= choice.to_dict()
    else:
        result |= {"threshold": segmenter.threshold, "cleaning": segmenter.cleaning.to_dict()}
    segmenter.provenance = segmenter.provenance.but(training=result)
    segmenter.monitor = fit_monitor(split.train, split.validation, progress=progress)
    save_segmenter(segmenter, recipe.network, folder / MODEL)
    digest = sha256(folder / MODEL / WEIGHTS)
    segmenter.provenance = segmenter.provenance.but(weights_sha256=digest)
    if choice:
        result = result | {"candidates": [c.to_dict() for c in choice.candidates]}
    write_json(folder / RESULT, result)
    return Run(folder, recipe, epochs.history, result, segmenter)
