"""Which images a report shows, and their outlines as vectors over a small picture."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from unet_lib.metrics import CaseScore, CaseTable

Show = Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""From the name of an image to the image (H, W, 1), its true and its predicted mask (H, W)."""

SHOWN = 6  # images of each kind
LONGEST = 560  # pixels of the longer side of a picture on the page
QUALITY = 85  # of its JPEG; only for looking at, scores are made before


@dataclass(frozen=True)
class Outline:
    """One image of a report with both outlines.

    Attributes
    ----------
    case : CaseScore
    height, width : int
        Of the image; the paths are in its pixels.
    picture : str
        The image, made smaller, as a data address.
    truth, prediction : str
        Outlines as SVG paths; "" for an empty mask.
    """

    case: CaseScore
    height: int
    width: int
    picture: str
    truth: str
    prediction: str


@dataclass(frozen=True)
class Kind:
    """Images of one kind.

    Attributes
    ----------
    title, words : str
        What they are, and in which order.
    complete : bool
        Whether all of them are to be named, not only those shown.
    cases, shown : tuple of CaseScore
        All of this kind, and the first few.
    """

    title: str
    words: str
    complete: bool
    cases: tuple[CaseScore, ...]
    shown: tuple[CaseScore, ...]


def kinds_of_cases(table: CaseTable, shown: int = SHOWN) -> list[Kind]:
    """Choose the images to look at: misses, false alarms, worst and median cases.

    Parameters
    ----------
    table : CaseTable
    shown : int
        Images of each kind at most.

    Returns
    -------
    list of Kind
        A kind without images is left out.
    """
    found = table.subset(lambda case: case.has_lesion and not case.missed).sorted("dice")
    missed = table.subset(lambda case: case.missed)
    missed = sorted(missed, key=lambda case: (-case.fn / (case.height * case.width), case.name))
    alarms = table.normal_cases.subset(lambda case: not case.predicted_empty)
    alarms = alarms.sorted("false_positive_area", descending=True)
    lesions = table.lesion_cases
    middle = float(np.median(lesions.column("dice"))) if len(lesions) else 0.0
    median = sorted(lesions, key=lambda case: (abs(case.dice - middle), case.name))
    misses = "lesion images without a true pixel predicted; largest first"
    false = "images without a lesion that are marked all the same; largest area first"
    order = f"lesion images; those with a Dice nearest to the median of {middle:.3f}"
    kinds = (
        ("Missed lesions", misses, True, missed),
        ("False alarms", false, True, alarms),
        ("Worst found lesions", "found lesions; those with the lowest Dice", False, found),
        ("Median cases", order, False, median),
    )
    return [Kind(*about, tuple(c), tuple(c)[:shown]) for *about, c in kinds if len(c)]


def draw_outline(case: CaseScore, show: Show) -> Outline:
    """Get an image and its masks and turn them into a picture and two paths.

    Raises
    ------
    ValueError
        If image, masks and score card are not of one size.
    """
    image, truth, prediction = show(case.name)
    sizes = {image.shape[:2], truth.shape, prediction.shape, (case.height, case.width)}
    if len(sizes) > 1:
        raise ValueError(
            f"{case.name}: image {image.shape[:2]}, true mask {truth.shape}, prediction "
            f"{prediction.shape} and score card {(case.height, case.width)} differ in size"
        )
    return Outline(case, *truth.shape, _data_address(image), svg_path(truth), svg_path(prediction))


def _data_address(image: np.ndarray) -> str:
    grey = np.round(np.clip(image[..., 0], 0, 1) * 255).astype(np.uint8)
    factor = LONGEST / max(grey.shape)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()


def svg_path(mask: np.ndarray) -> str:
    """Return the outlines of a mask, around holes too, as an SVG path through pixel centres.

    Parameters
    ----------
    mask : np.ndarray
        bool (H, W).

    Returns
    -------
    str
        Empty for an empty mask.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = [f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour[:, 0].tolist()]
        parts.append(f"M{'L'.join(points)}Z")
    return "".join(parts)
