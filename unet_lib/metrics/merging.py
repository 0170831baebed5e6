"""Evaluations of several folds put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unet_lib.metrics.curves import ProbabilityHistogram
from unet_lib.metrics.evaluation import Evaluation, FoldAreas
from unet_lib.metrics.table import CaseTable


def join_tables(evaluations: Mapping[int, Evaluation]) -> CaseTable:
    """Put the tables of folds below each other.

    An image may be a validation image of several folds; then each of its rows is kept and its
    name tells the fold.

    Parameters
    ----------
    evaluations : mapping of int to Evaluation
        By fold.

    Returns
    -------
    CaseTable
    """
    times = Counter(case.name for found in evaluations.values() for case in found.table)
    return CaseTable(
        tuple(
            replace(case, name=f"{case.name}, fold {fold}") if times[case.name] > 1 else case
            for fold, found in evaluations.items()
            for case in found.table
        )
    )


def merge_evaluations(evaluations: Mapping[int, Evaluation]) -> Evaluation:
    """Put the evaluations of several folds together, to be summarised and reported as one.

    One table, pooled counts. Probabilities of different networks do not share a scale, so the areas
    under the curves are kept for each fold and `Evaluation.areas` is their mean; the histograms are
    added up, for calibration and for a drawing of the curves.

    Parameters
    ----------
    evaluations : mapping of int to Evaluation
        By fold.

    Returns
    -------
    Evaluation
        Of `about`, what all folds agree on is kept; of the rest the values in order, as a text.

    Raises
    ------
    ValueError
        Without a fold, or when only some hold probabilities.
    """
    if not evaluations:
        raise ValueError("merge_evaluations: received no fold; expected at least one.")
    without = [fold for fold, found in evaluations.items() if not found.histograms]
    if 0 < len(without) < len(evaluations):
        raise ValueError(
            f"merge_evaluations: fold {without[0]} holds no probabilities and others do; evaluate "
            "all in the same way."
        )
    histograms: dict[str, ProbabilityHistogram] = {}
    for found in evaluations.values():
        for key, histogram in found.histograms.items():
            histograms[key] = histograms.get(key, ProbabilityHistogram()) + histogram
    areas = tuple(FoldAreas.of(f, e) for f, e in evaluations.items())
    if without or len(evaluations) == 1:  # nothing to average
        areas = ()
    about = common_about(evaluations)
    return Evaluation(join_tables(evaluations), histograms, about, areas)


def common_about(evaluations: Mapping[int, Evaluation]) -> dict[str, Any]:
    """Keep what all agree on, and list the values of the rest; one fold that saw is enough."""
    abouts = [found.about for found in evaluations.values()]
    about: dict[str, Any] = {}
    for key in dict.fromkeys(key for found in abouts for key in found):
        values = [found.get(key) for found in abouts]
        same = all(value == values[0] for value in values)
        about[key] = values[0] if same else "; ".join(map(str, values))
    seen = [found.get("seen_in_training") for found in abouts]
    about["seen_in_training"] = True if any(seen) else None if None in seen else False
    overlaps = [found.get("training_overlap") for found in abouts]
    if all(overlaps):  # each fold was compared with the images of its own network
        counts = sorted({overlap["compared_with"] for overlap in overlaps})
        about["training_overlap"] = {
            "compared_with": " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))),
            **{
                key: sorted({name for overlap in overlaps for name in overlap[key]})
                for key in ("in_training", "near_duplicates")
            },
        }
    else:
        about.pop("training_overlap", None)
    return about
