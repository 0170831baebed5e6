"""Training that goes on from the weights of a trained model instead of random ones."""

from __future__ import annotations

from dataclasses import replace

from unet_lib.dataset import Split, TrainingImages, content_hash, load_case
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig
from unet_lib.training.recipe import Recipe
from unet_lib.weights import load_segmenter
from unet_lib.weights.folder import SETTINGS, find_folder, read_settings

__all__ = ["refuse_seen", "settings_of", "starting_model"]


def settings_of(model: str) -> tuple[UNetConfig, Preprocessing]:
    """Return network and preprocessing of a model, for a recipe that starts from it."""
    path = find_folder(model) / SETTINGS
    stored = read_settings(path)
    network = UNetConfig.from_dict(stored["network"])
    return replace(network, encoder_weights=None), Preprocessing.from_dict(stored["preprocessing"])


def starting_model(recipe: Recipe) -> Segmenter | None:
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


def refuse_seen(start: Segmenter, split: Split, data: str | None) -> None:
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
