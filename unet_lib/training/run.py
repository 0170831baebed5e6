"""A training run: from a split to a model folder, in one folder that can be resumed."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from unet_lib import backend
from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import Case, Folds, Split, TrainingImages, content_hash, load_case
from unet_lib.files import folder_lock, read_json, write_json
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.memory import keep_freed_memory
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import phantom_kind
from unet_lib.provenance import Provenance, package_versions
from unet_lib.training import distributed
from unet_lib.training.loop import STATE, compile_network, fit, remove_weights
from unet_lib.training.recipe import Recipe
from unet_lib.training.result import RESULT, SETTINGS, SPLIT, Run, check_lesions, finish, load_run
from unet_lib.weights import load_segmenter
from unet_lib.weights.folder import find_folder, read_settings


def train(
    split: Split,
    folder: str | Path,
    recipe: Recipe | None = None,
    *,
    provenance: Provenance | Mapping[str, Any] | None = None,
    operating_point: tuple[float, Cleaning] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
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
    callbacks : sequence of keras.callbacks.Callback
        Called after the epoch's scores, those of validation included, and after its state is
        saved. One that stops the training ends the run, with the best epoch so far.
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
    sizes = {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
    fits = sizes["validation"] if operating_point is None else sum(sizes.values()) == sizes["train"]
    if not (sizes["train"] and fits):
        raise ValueError(
            f"train: the parts of {split.name} have {sizes} images. Expected are images to train "
            "and to validate; with an operating_point, which may have been chosen on the others, "
            "images to train alone."
        )
    distributed.check(recipe.training)
    kind = phantom_kind(case.image_path for case in split.train)
    provenance = Provenance.of(provenance).but(**kind)
    # A finished run is returned as it is, whether the model it started from is still there or not.
    start = None if (folder / RESULT).is_file() else _starting_model(recipe, split, provenance.data)
    if start:
        model = start.provenance
        provenance = provenance.but(started_from=f"{model.name} (SHA-256 {model.weights_sha256})")
    first = distributed.is_first()
    progress = progress and first
    with folder_lock(folder) if first else contextlib.nullcontext():
        if first:
            _check_folder(folder, recipe, split, provenance, resume)
        finished = distributed.share(b"finished" if (folder / RESULT).is_file() else b"")
        if not finished:
            parts = _prepare(split, recipe, progress)
            network, *batches = _build(split, recipe, parts, start)
            if first and not (folder / SETTINGS).is_file():
                Folds.of_split(split).save(folder / SPLIT)
                settings = {"recipe": recipe.to_dict(), "about": provenance.to_dict()}
                write_json(folder / SETTINGS, settings | _environment())
            more = {"callbacks": callbacks, "show_progress": progress}
            epochs = fit(network, *batches, recipe.training, folder, **more)
        distributed.leave()
        if not first:
            return None
        if finished:
            run = load_run(folder)
        else:
            seen = _seen(provenance.data, parts, start)
            provenance = provenance.but(training_images=seen.to_dict() if seen else None)
            run = finish(folder, split, recipe, epochs, provenance, operating_point, progress)
        (folder / STATE).unlink(missing_ok=True)  # large, and of no use any more
        remove_weights(folder)
        return run


def settings_of(model: str) -> tuple[UNetConfig, Preprocessing]:
    """Return network and preprocessing of a model, for a recipe that starts from it."""
    stored = read_settings(find_folder(model))
    network = UNetConfig.from_dict(stored["network"])
    return replace(network, encoder_weights=None), Preprocessing.from_dict(stored["preprocessing"])


def _starting_model(recipe: Recipe, split: Split, data: str | None) -> Segmenter | None:
    """Load the model that a recipe starts from, if any.

    One that has seen images that are to choose or to test is refused; one that does not say what
    it was trained on passes, and the record of the run stays unknown.
    """
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
    start = load_segmenter(name, runtime="keras")
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
    return start


def _check_folder(
    folder: Path, recipe: Recipe, split: Split, provenance: Provenance, resume: bool
) -> None:
    """Refuse a folder that holds anything but this run, and a split with an image in two parts."""
    rows = Folds.of_split(split).rows
    if not (resume and (folder / SETTINGS).is_file()):
        # The settings are written last: a split alone is a run that was killed before it began.
        if {path.name for path in folder.iterdir()} - ({SPLIT} if resume else set()):
            raise FileExistsError(
                f"{folder}: is not empty. Resume the run in it with resume=True (--resume), or "
                "choose another folder."
            )
        return
    settings = read_json(folder / SETTINGS)
    # A setting that the library has got since has its default there.
    stored = Recipe.from_dict(settings["recipe"]).to_dict()
    differ = [
        f"{part}.{key}: {stored[part].get(key)!r} there, {values.get(key)!r} now"
        for part, values in recipe.to_dict().items()
        for key in dict.fromkeys([*values, *stored[part]])
        if stored[part].get(key) != values.get(key)
    ]
    if Folds.read(folder / SPLIT).rows != rows:
        differ.append("the split differs")
    for key in ("started_from", "mask_rule"):
        begun, now = settings["about"].get(key), getattr(provenance, key)
        if now != begun and (now or key == "mask_rule"):  # of a finished run the start is not asked
            differ.append(f"{key}: {begun} there, {now} now")
    if differ:
        raise ValueError(
            f"{folder}: holds a run of other settings ({'; '.join(differ)}). Resume with the "
            "same settings, or train into another folder."
        )


def _prepare(split: Split, recipe: Recipe, progress: bool) -> list[PreparedCases]:
    """Decode the images to train and, where there are any, to validate."""
    config, prepared = recipe.training, []
    for part in ("train", "validation")[: 2 if split.validation else 1]:
        ready = PreparedCases(
            getattr(split, part),
            recipe.preprocessing,
            workers=config.workers,
            memory_mb=config.memory_mb,
            progress=progress,
        )
        practice = bool(phantom_kind(case.image_path for case in split.train))
        check_lesions(ready.lesions, f"{part} part of {split.name}", practice=practice)
        prepared.append(ready)
    return prepared


def _build(
    split: Split, recipe: Recipe, parts: Sequence[PreparedCases], start: Segmenter | None
) -> tuple[keras.Model, Batches, Batches | None]:
    """Return the compiled network and its batches, to train and to validate."""
    config = recipe.training
    keep_freed_memory()
    if config.deterministic:
        backend.enable_determinism(config.seed)
    else:
        keras.utils.set_random_seed(config.seed)
    common = {"channels": recipe.network.input_channels, "workers": config.workers}
    batches = distributed.SharedBatches(
        parts[0],
        config.batch_size,
        augmentation=recipe.augmentation,
        shuffle=True,
        seed=config.seed,
        accumulate=config.accumulate,
        order=_order(split.train, config.repeat),
        **common,
    )
    images = config.batch_size // config.accumulate
    validation = [distributed.SharedBatches(part, images, **common) for part in parts[1:]]
    precision = config.precision
    if precision == "auto":
        precision = backend.recommended_precision(depthwise=recipe.network.depthwise)
    distributed.agree(
        settings=json.dumps([recipe.to_dict(), precision]),
        split=str(Folds.of_split(split).rows),
        images=str([part.fingerprints for part in parts]),
    )
    with distributed.scope():
        size = recipe.preprocessing.size
        network = build_unet(recipe.network, size, precision=precision, pretrained=not start)
        if start:
            network.set_weights(start.network.get_weights())
        compile_network(network, config, batches.updates)
    return network, batches, *(validation or [None])


def _seen(
    data: str | None, parts: Sequence[PreparedCases], start: Segmenter | None
) -> TrainingImages | None:
    """Return which images the network has seen by the end; None where nobody knows."""
    cases, hashes = ([x for part in parts for x in getattr(part, n)] for n in ("cases", "hashes"))
    seen = TrainingImages.of(data, cases, hashes)
    if start:
        before = TrainingImages.from_provenance(start.provenance)
        return before and seen.joined(before)
    return seen


def _order(cases: Sequence[Case], repeat: str) -> list[int]:
    """Positions of the cases in an epoch, those of each data set as often as `repeat` says."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, case in enumerate(cases):
        positions[case.data_set].append(position)
    times = dict(one.partition("=")[::2] for one in repeat.split(",") if one)
    for name, number in times.items():
        if name not in positions or not number.isdecimal() or int(number) < 1:
            raise ValueError(
                f"training.repeat {repeat!r}: expected SET=TIMES, from 1, with sets that are "
                f"joined ({', '.join(filter(None, positions)) or 'none here'})."
            )
    return [i for name, own in positions.items() for i in own * int(times.get(name, 1))]


def _environment() -> dict[str, Any]:
    """Return time, hardware, versions and commit (with "+changes" where files differ)."""
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        git = ""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": backend.describe_hardware(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": git or None,
    }
