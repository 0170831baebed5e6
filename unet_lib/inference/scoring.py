"""Scoring a segmenter on cases."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from unet_lib.backend import package_versions
from unet_lib.dataset import Case, TrainingImages, content_hash, load_case, pixel_sizes
from unet_lib.inference.ahead import read_ahead
from unet_lib.inference.segmenter import Segmenter
from unet_lib.metrics import Evaluation

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
        What to say of data and split; the model's facts are added, ``seen_in_training`` (True,
        False, or None when the model does not say) and ``training_overlap``, see
        `TrainingImages.overlap`.
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
        "model": segmenter.about.get("name", "unnamed"),
        "model_sha256": segmenter.about.get("weights_sha256"),
        "threshold": segmenter.threshold,
        "cleaning": segmenter.cleaning.to_dict(),
        "preprocessing": segmenter.preprocessing.to_dict(),
    }
    about = {**facts, **(about or {})}
    evaluation = Evaluation(about=about)
    known = TrainingImages.from_about(segmenter.about)
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
    about["data_sha256"] = _data_hash(cases, hashes, masks)
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


def _data_hash(cases: Sequence[Case], images: Sequence[str], masks: Sequence[str]) -> str:
    """Hash names, pictures and masks: the same for the same data in any order of files."""
    lines = sorted(
        f"{case.name}\t{image}\t{mask}\n"
        for case, image, mask in zip(cases, images, masks, strict=True)
    )
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _seen(
    known: TrainingImages | None,
    model: Mapping[str, Any],
    cases: Sequence[Case],
    hashes: Sequence[str],
    data: str | None,
) -> dict[str, Any]:
    """Tell whether cases were used to train the model or to choose it, and which."""
    if known is not None:
        overlap = known.overlap(data, cases, hashes)
        leaked = bool(overlap["in_training"] or overlap["near_duplicates"])
        return {"seen_in_training": leaked, "training_overlap": overlap}
    # A model folder from before there were hashes: equal names of one data set are enough to warn,
    # but other names do not make a test.
    used = {*model.get("trained_on", ()), *model.get("validated_on", ())}
    names = [case.name for case in cases if case.name in used]
    if not names or model.get("data") != data:
        return {"seen_in_training": None}
    overlap = {"compared_with": len(used), "in_training": names, "near_duplicates": []}
    return {"seen_in_training": True, "training_overlap": overlap}
