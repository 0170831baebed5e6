"""The YAML header of a card that model hubs read: licence, tags, data sets, scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from unet_lib.metrics import Evaluation, join_tables

TAGS = ("medical", "ultrasound", "breast", "lesion-segmentation", "u-net")


def header(
    name: str, scores: Mapping[str, Mapping[int, Evaluation]], *, trained_on: Sequence[str]
) -> str:
    """Return the header of the card of model `name`, to stand before its first line.

    `scores` are evaluations by fold (as `all_tables` takes them) by what they are of, such as
    "BUSI, test part of fold 0"; `trained_on` names the data sets that the model has seen.
    """
    task = "image-segmentation"
    results = [
        {
            "task": {"type": task},
            "dataset": {"type": re.sub(r"\W+", "-", what.lower()), "name": what},
            "metrics": _metrics(folds),
        }
        for what, folds in scores.items()
    ]
    values = {
        "license": "mit",
        "library_name": "keras",
        "pipeline_tag": task,
        "tags": list(TAGS),
        "datasets": [re.sub(r"\W+", "-", data.lower()) for data in trained_on],
        "metrics": list(dict.fromkeys(m["type"] for one in results for m in one["metrics"])),
        "model-index": [{"name": name, "results": results}],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)}---\n\n"


def _metrics(folds: Mapping[int, Evaluation]) -> list[dict[str, Any]]:
    table = join_tables(folds)
    lesions, normals = table.lesion_cases, table.normal_cases
    scores = (
        ("dice", "Dice, mean per lesion image", lesions.column("dice")),
        ("iou", "IoU, mean per lesion image", lesions.column("iou")),
        ("missed", "share of lesions missed", lesions.column("missed")),
        ("specificity", "share of normal images left empty", normals.column("left_empty")),
        ("mean_iou", "Mean IoU, pooled pixels", [table.pooled().mean_iou]),
    )
    return [
        {"type": kind, "name": title, "value": round(float(np.mean(values)), 4)}
        for kind, title, values in scores
        if len(values) and not np.isnan(values).any()  # of what there is none, nothing is said
    ]
