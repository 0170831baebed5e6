"""Scoring a segmenter on cases."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from unet_lib.dataset import (
    Case,
    TrainingImages,
    content_hash,
    data_hash,
    load_case,
    pixel_sizes,
)
from unet_lib.dataset.training_images import TUNED_ON
from unet_lib.inference.ahead import read_ahead
from unet_lib.inference.segmenter import Segmenter
from unet_lib.metrics import Evaluation
from unet_lib.phantoms import phantom_kind
from unet_lib.versions import package_versions

__all__ = ["evaluate_cases", "show_cases"]


def evaluate_cases(
    segmenter: Segmenter,
    cases: Sequence[Case],
    *,
    about: dict[str, Any] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score a segmenter on cases, each at its original size, one map in memory at a time.

    Parameters
    ----------
    segmenter : Segmenter
    cases : sequence of Case
        Images with masks.
    about : dict, optional
        What to say of data and split. The model's facts are added and cannot be overwritten:
        threshold and what it was chosen on, cleaning, preprocessing, SHA-256;
        ``seen_in_training`` (True, False, or None when the model does not say) and
        ``training_overlap``, see `TrainingImages.overlap`; phantoms are told as such.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Evaluation
        Per-image scores and pooled histograms.

    Raises
    ------
    ImageError, DatasetError
        A file cannot be used; the message names it.
    ValueError
        No cases.
    """
    if not cases:
        raise ValueError("evaluate_cases: received no cases; expected at least one.")
    facts = {
        "model_sha256": segmenter.about.get("weights_sha256"),
        "threshold": segmenter.threshold,
        "threshold_chosen": _threshold_chosen(segmenter),
        "cleaning": segmenter.cleaning.to_dict(),
        "preprocessing": segmenter.preprocessing.to_dict(),
    }
    name = segmenter.about.get("name", "unnamed")
    about = {
        "model": name,
        **(about or {}),
        **facts,
        **phantom_kind(case.image_path for case in cases),
    }
    evaluation = Evaluation(about=about)
    known = TrainingImages.from_provenance(segmenter.about)
    sizes = pixel_sizes(cases)
    truths: list[np.ndarray] = []
    hashes: list[str] = []
    masks: list[str] = []

    def images() -> Iterator[np.ndarray]:
        for image, truth, found in read_ahead(_load, cases, 2 * segmenter.batch_size):
            truths.append(truth)
            hashes.append(found)
            masks.append(content_hash(truth[..., None]))
            yield image

    maps = segmenter.iter_probabilities(images())
    steps = tqdm(cases, "evaluating", disable=not progress, unit="image")
    for case, probabilities in zip(steps, maps, strict=True):
        evaluation.add(
            truths.pop(0),
            segmenter.mask(probabilities),
            probabilities,
            name=case.name,
            label=case.label,
            group=case.group,
            spacing=sizes.get(case.name),
        )
    about |= _seen(known, segmenter.about, cases, hashes, about.get("data"))
    about["engine"] = segmenter.engine_used
    about["data_sha256"] = data_hash(cases, hashes, masks)
    python, backend = platform.python_version(), keras.backend.backend()
    about["versions"] = {"python": python, "backend": backend, **package_versions()}
    return evaluation


def show_cases(
    segmenter: Segmenter, cases: Sequence[Case]
) -> Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return what `write_report` shows cases with.

    Parameters
    ----------
    segmenter : Segmenter
    cases : sequence of Case
        Those that were scored.

    Returns
    -------
    callable
        From a case's name to its image (H, W, 1), true mask and predicted mask (H, W), segmented
        anew.
    """
    by_name = {case.name: case for case in cases}

    def show(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, truth = load_case(by_name[name])
        return image, truth, segmenter.segment(image).mask

    return show


def _load(case: Case) -> tuple[np.ndarray, np.ndarray, str]:
    image, truth = load_case(case)
    return image, truth, content_hash(image)


def _threshold_chosen(segmenter: Segmenter) -> str:
    """Tell on which images threshold and cleaning were chosen, as far as the model says."""
    about, run = segmenter.about, segmenter.about.get("training")
    if not isinstance(run, Mapping) or "threshold" not in run:
        return "not recorded: nobody can tell on which images"
    now = {"threshold": segmenter.threshold, "cleaning": segmenter.cleaning.to_dict()}
    if any(run.get(key) != value for key, value in now.items()):
        return "changed after training: nobody can tell on which images"
    if "validation_dice" in run:
        return f"on {run['lesions'] + run['normals']} validation images"
    return f"beforehand, by {about.get('operating_point_from', 'whoever trained it')}"


def _seen(
    known: TrainingImages | None,
    model: Mapping[str, Any],
    cases: Sequence[Case],
    hashes: Sequence[str],
    data: str | None,
) -> dict[str, Any]:
    """Tell whether cases were used to train the model or to choose it, and which."""
    tuned = TrainingImages(None, frozenset(model.get(TUNED_ON, ())), frozenset())
    if known is not None:
        known = replace(known, hashes=known.hashes | tuned.hashes)
        overlap = known.overlap(data, cases, hashes)
        leaked = bool(overlap["in_training"] or overlap["near_duplicates"])
        return {"seen_in_training": leaked, "training_overlap": overlap}
    overlap = tuned.overlap(data, cases, hashes)
    if overlap["in_training"]:
        return {"seen_in_training": True, "training_overlap": overlap}
    # A model folder from before there were hashes: equal names of one data set are enough to warn,
    # but other names do not make a test.
    used = {*model.get("trained_on", ()), *model.get("validated_on", ())}
    names = [case.name for case in cases if case.name in used]
    if not names or model.get("data") != data:
        return {"seen_in_training": None}
    overlap = {"compared_with": len(used), "in_training": names, "near_duplicates": []}
    return {"seen_in_training": True, "training_overlap": overlap}
