"""Scoring a segmenter on cases."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from unet_lib.inference.segmenter import Segmenter
from unet_lib.phantoms import phantom_kind
from unet_lib.provenance import Provenance, package_versions

if TYPE_CHECKING:
    from unet_lib.metrics import Evaluation


def evaluate_cases(
    segmenter: Segmenter,
    cases: Sequence[Case],
    *,
    provenance: Provenance | Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score a segmenter on cases, each at its original size, one map in memory at a time.

    Parameters
    ----------
    segmenter : Segmenter
    cases : sequence of Case
        Images with masks.
    provenance : Provenance or mapping, optional
        What to say of data and split. What the model says is added and cannot be overwritten:
        threshold and what it was chosen on, cleaning, preprocessing, SHA-256;
        ``seen_in_training`` (True, False, or None when the model does not say) and
        ``training_overlap``, see `TrainingImages.overlap`; phantoms are named as such.
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
    from unet_lib.metrics import Evaluation  # segment does not need it, and it is slow to import

    if not cases:
        raise ValueError("evaluate_cases: received no cases; expected at least one.")
    model, data = segmenter.provenance, Provenance.of(provenance)
    data = data.but(
        model=data.model or model.name or "unnamed",
        model_sha256=model.weights_sha256,
        not_settled=model.not_settled,
        threshold=segmenter.threshold,
        threshold_chosen=_threshold_chosen(segmenter),
        cleaning=segmenter.cleaning.to_dict(),
        preprocessing=segmenter.preprocessing.to_dict(),
        **phantom_kind(case.image_path for case in cases),
    )
    evaluation, sizes = Evaluation(), pixel_sizes(cases)
    hashes: list[str] = []
    masks: list[str] = []
    maps = segmenter.iter_items((item, item[1]) for item in map(_load, cases))
    steps = tqdm(maps, "evaluating", len(cases), disable=not progress, unit="image")
    for (case, _, truth, image_hash, mask_hash), probabilities in steps:
        hashes.append(image_hash)
        masks.append(mask_hash)
        evaluation.add(
            truth,
            segmenter.mask(probabilities),
            probabilities,
            name=case.name,
            label=case.label,
            group=case.group,
            spacing=sizes.get(case.name),
        )
    trained = TrainingImages.from_provenance(model)
    seen, overlap = _seen(trained, model, cases, hashes, data.data)
    runtime, versions = "keras", {"python": platform.python_version()}
    if segmenter.in_keras:
        import keras

        versions["backend"] = keras.backend.backend()
    else:
        runtime = segmenter.network.runtime
    evaluation.provenance = data.but(
        seen_in_training=seen,
        training_overlap=overlap,
        engine=f"{runtime}, float32",
        data_sha256=data_hash(cases, hashes, masks),
        versions=versions | package_versions(),
    )
    return evaluation


def show_cases(
    segmenter: Segmenter, cases: Sequence[Case]
) -> Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return what `write_report` shows cases with: from a name to image, true and predicted mask.

    Each case is segmented anew when it is asked for.
    """
    by_name = {case.name: case for case in cases}

    def show(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, truth = load_case(by_name[name])
        return image, truth, segmenter.mask(segmenter.probabilities(image))

    return show


def _load(case: Case) -> tuple[Case, np.ndarray, np.ndarray, str, str]:
    image, truth = load_case(case)
    return case, image, truth, content_hash(image), content_hash(truth[..., None])


def _threshold_chosen(segmenter: Segmenter) -> str:
    """Say on which images threshold and cleaning were chosen, as far as the model says."""
    model, run = segmenter.provenance, segmenter.provenance.training
    if not isinstance(run, Mapping) or "threshold" not in run:
        return "not recorded: nobody can tell on which images"
    now = {"threshold": segmenter.threshold, "cleaning": segmenter.cleaning.to_dict()}
    if any(run.get(key) != value for key, value in now.items()):
        return "changed after training: nobody can tell on which images"
    if run.get("fixed"):
        return "beforehand, by the recipe"
    if "validation_dice" in run:
        return f"on {run['lesions'] + run['normals']} validation images"
    return f"beforehand, by {model.operating_point_from or 'whoever trained it'}"


def _seen(
    trained: TrainingImages | None,
    model: Provenance,
    cases: Sequence[Case],
    hashes: Sequence[str],
    data: str | None,
) -> tuple[bool | None, dict[str, Any] | None]:
    """Say whether cases were used to train the model or to choose it (None: unknown), and which."""
    tuned = TrainingImages(None, frozenset(model.tuned_on or ()), frozenset())
    if trained is not None:
        trained = replace(trained, hashes=trained.hashes | tuned.hashes)
        overlap = trained.overlap(data, cases, hashes)
        return bool(overlap["in_training"] or overlap["near_duplicates"]), overlap
    overlap = tuned.overlap(data, cases, hashes)
    if overlap["in_training"]:
        return True, overlap
    # A model folder from before there were hashes: equal names of one data set are enough to warn,
    # but other names do not make a test.
    used = {*(model.trained_on or ()), *(model.validated_on or ())}
    names = [case.name for case in cases if case.name in used]
    if not names or model.data != data:
        return None, None
    return True, {"compared_with": len(used), "in_training": names, "near_duplicates": []}
