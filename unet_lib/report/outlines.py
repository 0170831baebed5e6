"""Which images a report shows, and their outlines as vectors over a small picture."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from unet_lib.metrics import CaseScore, CaseTable

Show = Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""From the name of an image to the image (H, W, 1), its true and its predicted mask (H, W)."""

SHOWN = 6  # images of each kind
LONGEST = 560  # pixels of the longer side of a picture on the page
QUALITY = 85  # of its JPEG; only for looking at, scores are made before


MISSED = "lesion images without a true pixel predicted; largest first"
ALARMS = "images without a lesion that are marked all the same; largest area first"
WORST = "found lesions; those with the lowest Dice"
MEDIAN = "lesion images; those with a Dice nearest to the median of"


class Kind(NamedTuple):
    """Images of one kind: what they are and in which order, and whether all are to be named."""

    title: str
    words: str
    complete: bool
    cases: Sequence[CaseScore]


def kinds_of_cases(table: CaseTable) -> list[Kind]:
    """Choose the images to look at; a kind without images is left out."""
    lesions, normals = table.lesion_cases, table.normal_cases
    middle = float(np.median(lesions.column("dice"))) if len(lesions) else 0.0
    missed = [case for case in lesions if case.missed]
    missed.sort(key=lambda case: (-case.lesion_share, case.name))
    alarms = normals.subset(lambda case: not case.predicted_empty)
    alarms = alarms.sorted("false_positive_area", descending=True)
    worst = lesions.subset(lambda case: not case.missed).sorted("dice")
    median = sorted(lesions, key=lambda case: (abs(case.dice - middle), case.name))
    kinds = [
        Kind("Missed lesions", MISSED, True, missed),
        Kind("False alarms", ALARMS, True, list(alarms)),
        Kind("Worst found lesions", WORST, False, list(worst)),
        Kind("Median cases", f"{MEDIAN} {middle:.3f}", False, median),
    ]
    return [kind for kind in kinds if kind.cases]


def draw_outline(case: CaseScore, show: Show) -> dict[str, Any]:
    """Return height, width, picture (a data address), and truth and prediction as SVG paths."""
    image, truth, prediction = show(case.name)
    sizes = {image.shape[:2], truth.shape, prediction.shape, (case.height, case.width)}
    if len(sizes) > 1:
        raise ValueError(
            f"{case.name}: image {image.shape[:2]}, true mask {truth.shape}, prediction "
            f"{prediction.shape} and score card {(case.height, case.width)} differ in size"
        )
    paths = {"truth": svg_path(truth), "prediction": svg_path(prediction)}
    size = {"height": case.height, "width": case.width}
    return {"picture": _data_address(image)} | size | paths


def _data_address(image: np.ndarray) -> str:
    grey = np.round(np.clip(image[..., 0], 0, 1) * 255).astype(np.uint8)
    factor = LONGEST / max(grey.shape)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()


def svg_path(mask: np.ndarray) -> str:
    """Return the outlines of a mask, around holes too, as an SVG path through pixel centres."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = [f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour[:, 0].tolist()]
        parts.append(f"M{'L'.join(points)}Z")
    return "".join(parts)
