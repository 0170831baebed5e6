"""Scoring a segmenter on cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, load_case
from unet_lib.inference.segmenter import Segmenter, read_ahead
from unet_lib.metrics import Evaluation

__all__ = ["evaluate_cases"]


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
        What to say of data and split; model, threshold and ``seen_in_training`` are added.
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
        "threshold": segmenter.threshold,
        "cleaning": segmenter.cleaning.to_dict(),
        "preprocessing": segmenter.preprocessing.to_dict(),
    }
    about = {**facts, **(about or {})}
    about["seen_in_training"] = _seen(segmenter, cases, about.get("data"))
    evaluation = Evaluation(about=about)
    truths: list[np.ndarray] = []

    def images() -> Iterator[np.ndarray]:
        for image, truth in read_ahead(load_case, cases, 2 * segmenter.batch_size):
            truths.append(truth)
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
        )
    return evaluation


def _seen(segmenter: Segmenter, cases: Sequence[Case], data: str | None) -> bool | None:
    """Tell whether cases were used to train the model or to choose its epoch; None: unknown."""
    known = segmenter.about.get("trained_on")
    if known is None:
        return None
    if segmenter.about.get("data") != data:
        return False
    used = {*known, *segmenter.about.get("validated_on", ())}
    return any(case.name in used for case in cases)
