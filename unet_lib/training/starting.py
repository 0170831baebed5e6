"""Training that goes on from the weights of a trained model instead of random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unet_lib.dataset import Split, TrainingImages, content_hash, load_case
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig
from unet_lib.training.recipe import Recipe
from unet_lib.weights import load_segmenter
from unet_lib.weights.folder import SETTINGS, find_folder, read_settings

__all__ = [
    "STARTED_FROM",
    "join_images",
    "refuse_seen",
    "settings_of",
    "start_facts",
    "starting_model",
]

STARTED_FROM = "started_from"
"""Key of ``Segmenter.about`` and of a run's settings: name and SHA-256 of the starting model."""


def settings_of(model: str) -> tuple[UNetConfig, Preprocessing]:
    """Return network and preprocessing of a model, for a recipe that starts from it.

    Raises
    ------
    WeightsError
        As `load_segmenter`.
    """
    stored = read_settings(find_folder(model) / SETTINGS)
    network = UNetConfig.from_dict(stored["network"])
    return replace(network, encoder_weights=None), Preprocessing.from_dict(stored["preprocessing"])


def starting_model(recipe: Recipe) -> Segmenter | None:
    """Load the model that a recipe starts from; None when it starts from random weights.

    Raises
    ------
    WeightsError
        As `load_segmenter`.
    ValueError
        The model has another network than the recipe.
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
    return load_segmenter(name)


def refuse_seen(start: Segmenter, split: Split, data: str | None) -> None:
    """Raise ValueError when the starting model has seen images that are to choose or to test.

    Parameters
    ----------
    start : Segmenter
        One that does not say what it was trained on passes; its record stays unknown.
    split : Split
    data : str or None
        Name of the split's data set.
    """
    known = TrainingImages.from_provenance(start.provenance)
    for part in ("validation", "test") if known else ():
        cases = getattr(split, part)
        overlap = known.overlap(data, cases, [content_hash(load_case(case)[0]) for case in cases])
        seen = [*overlap["in_training"], *overlap["near_duplicates"]]
        if seen:
            raise ValueError(
                f"start_from {start.provenance.get('name')}: was trained on {len(seen)} of the "
                f"{len(cases)} {part} images or on near-duplicates of them (first {seen[0]!r}); "
                "their scores would be too good. Start from a model that has not seen them, or "
                "divide the images otherwise."
            )


def join_images(images: TrainingImages, start: Segmenter | None) -> TrainingImages | None:
    """Add what the starting model has seen; None where it does not say."""
    if start is None:
        return images
    known = TrainingImages.from_provenance(start.provenance)
    return None if known is None else images.joined(known)


def start_facts(start: Segmenter | None) -> dict[str, Any]:
    """Return what settings and model of a run say of its start."""
    if start is None:
        return {}
    name, digest = start.provenance.get("name"), start.provenance.get("weights_sha256")
    return {STARTED_FROM: f"{name} (SHA-256 {digest})"}
