"""What a run trains, and on what: network and batches."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any

import keras

from unet_lib.backend import (
    enable_determinism,
    keep_freed_memory,
    recommended_precision,
)
from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import Folds, Split, TrainingImages
from unet_lib.inference import Segmenter
from unet_lib.model import build_unet
from unet_lib.training.loop import compile_network
from unet_lib.training.processes import SharedBatches, Team
from unet_lib.training.recipe import Recipe

__all__ = ["prepare", "training_images"]


def prepare(
    split: Split,
    recipe: Recipe,
    progress: bool,
    team: Team | None,
    start: Segmenter | None = None,
) -> tuple[keras.Model, Batches, Batches | None]:
    """Return the compiled network, the training batches and the validation batches, if any.

    The network has the weights of `start`, where that is given.
    """
    config = recipe.training
    keep_freed_memory()
    if config.deterministic:
        enable_determinism(config.seed)
    else:
        keras.utils.set_random_seed(config.seed)
    options = {"workers": config.workers, "memory_mb": config.memory_mb, "progress": progress}
    common = {"channels": recipe.network.input_channels, "workers": config.workers}
    make = functools.partial(SharedBatches, team=team) if team else Batches
    batches = make(
        PreparedCases(split.train, recipe.preprocessing, **options),
        config.batch_size,
        augmentation=recipe.augmentation,
        shuffle=True,
        seed=config.seed,
        accumulate=config.accumulate,
        **common,
    )
    validation = None
    if split.validation:
        prepared = PreparedCases(split.validation, recipe.preprocessing, **options)
        validation = make(prepared, config.batch_size // config.accumulate, **common)
    precision = config.precision
    if precision == "auto":
        precision = recommended_precision(depthwise=recipe.network.depthwise)
    if team:
        used = [part.prepared for part in (batches, validation) if part is not None]
        team.agree(
            settings=json.dumps([recipe.to_dict(), precision]),
            split=str(Folds.of_split(split).rows),
            images=json.dumps([[part.hashes, part.mask_hashes] for part in used]),
        )
    with team.scope() if team else contextlib.nullcontext():
        network = build_unet(
            recipe.network, recipe.preprocessing.size, precision=precision, pretrained=not start
        )
        if start:
            network.set_weights(start.network.get_weights())
        compile_network(network, config, batches.updates)
    return network, batches, validation


def training_images(
    batches: Batches, validation: Batches | None, about: dict[str, Any] | None
) -> TrainingImages:
    """Return what tells the images of a training again."""
    used = [part.prepared for part in (batches, validation) if part is not None]
    cases = [case for part in used for case in part.cases]
    hashes = [found for part in used for found in part.hashes]
    return TrainingImages.of((about or {}).get("data"), cases, hashes)
