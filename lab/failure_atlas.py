"""What the worst images have in common, in numbers: docs/failure_atlas.md.

    python -m lab.failure_atlas experiments/recipe data/Dataset_BUSI_with_GT

Reads the published test scores of a cross-validation, BUSI's audit list, and the images themselves
(for contrast, shadow and border). Only figures and ids are written.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from unet_lib.dataset import Case, find_cases, load_case, read_audit
from unet_lib.files import write_atomic
from unet_lib.metrics import CaseScore, join_tables
from unet_lib.training import load_crossvalidation

ROOT = Path(__file__).parent.parent
WORST = 0.05


@dataclass(frozen=True)
class Picture:
    """What is measured on an image and its true mask."""

    share: float  # lesion pixels by all pixels
    contrast: float  # mean grey value (0 to 1) of a ring around the lesion less that inside
    shadow: float  # mean grey value beside the column below the lesion less that in it
    border: bool  # whether the lesion touches the edge of the image


def measure(image: np.ndarray, truth: np.ndarray) -> Picture:
    """Measure one picture; image (H, W[, C]) from 0 to 1, truth (H, W) bool."""
    grey = image if image.ndim == 2 else image.mean(axis=2)
    rows, columns = np.nonzero(truth)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    width = max(5, (right - left + 1) // 3)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1,) * 2)
    ring = cv2.dilate(truth.astype(np.uint8), kernel).astype(bool) & ~truth
    height = max(10, (bottom - top + 1) // 2)
    below = slice(bottom + 1, bottom + 1 + height)
    sides = [grey[below, max(0, left - width) : left], grey[below, right + 1 : right + 1 + width]]
    beside = np.concatenate([side.ravel() for side in sides])
    column = grey[below, left : right + 1]
    known = beside.size > 0 and column.size > 0
    return Picture(
        share=float(truth.mean()),
        contrast=float(grey[ring].mean() - grey[truth].mean()) if ring.any() else np.nan,
        shadow=float(beside.mean() - column.mean()) if known else np.nan,
        border=bool(
            top == 0 or left == 0 or bottom == truth.shape[0] - 1 or right == truth.shape[1] - 1
        ),
    )


def factors(score: CaseScore, picture: Picture, audit: dict[str, str]) -> dict[str, bool]:
    """Tell which circumstances hold for an image."""
    return {
        "malignant": score.label == "malignant",
        "lesion below 2 % of the image": picture.share < 0.02,
        "lesion above 15 % of the image": picture.share > 0.15,
        "little contrast (ring less than .05 brighter)": picture.contrast < 0.05,
        "shadow below (more than .1 darker than beside)": picture.shadow > 0.1,
        "brighter below (more than .1)": picture.shadow < -0.1,
        "touches the edge of the image": picture.border,
        "several lesions": audit["several_masks"] == "1",
        "in a near-duplicate group": audit["group"] != audit["image"],
        "class differs within its group": audit["label_conflict"] == "1",
        "published as incongruent": audit["published_incongruent"] == "1",
        "axilla": audit["axilla"] == "1",
        "coloured overlay": audit["overlay"] == "1",
    }


def atlas(scores: list[CaseScore], pictures: dict[str, Picture], name: str) -> str:
    """Write the page."""
    audit = read_audit()
    scores = sorted(scores, key=lambda score: (score.dice, score.name))
    # Many are tied at 0: all that are as bad as the last of the worst 5 % belong to them.
    limit = scores[round(WORST * len(scores)) - 1].dice
    worst = {score.name for score in scores if score.dice <= limit}
    count = len(worst)
    held = {s.name: factors(s, pictures[s.name], audit[s.name]) for s in scores}
    lines = [
        "# Failure atlas",
        "",
        f"The worst of the {len(scores)} lesion images by Dice in the test parts of "
        f"`experiments/{name}`: the {count} that score no more than {limit:.3f}, the limit of the "
        "worst 5 % (those with the same score are taken too). Each was scored by a network that "
        "had not seen it; they are compared with the rest. Circumstances are measured on image "
        "and true mask, or come from `data/busi_audit.csv`. "
        "Made by `lab/failure_atlas.py`; an image can have several circumstances, and none of "
        "them is shown to be the cause.",
        "",
        f"| circumstance | n | among the worst {count} | among the rest | mean Dice with | "
        "without | missed with |",
        "|---|---|---|---|---|---|---|",
    ]
    for factor in next(iter(held.values())):
        having = [s for s in scores if held[s.name][factor]]
        others = [s for s in scores if not held[s.name][factor]]
        if not (having and others):
            continue
        inside = sum(s.name in worst for s in having)
        share = f"{inside} ({inside / count:.0%})"
        rest = f"{(len(having) - inside) / (len(scores) - count):.0%}"
        missed = sum(s.missed for s in having)
        lines.append(
            f"| {factor} | {len(having)} | {share} | {rest} | "
            f"{np.mean([s.dice for s in having]):.3f} | {np.mean([s.dice for s in others]):.3f} | "
            f"{missed} ({missed / len(having):.0%}) |"
        )
    missed = sum(s.missed for s in scores)
    rank = {what: _rank(scores, pictures, what) for what in ("share", "contrast", "shadow")}
    lines += [
        "",
        f"Of all {len(scores)} lesion images {missed} are missed (no true pixel predicted). "
        f"Spearman's correlation of Dice with lesion size is {rank['share']:+.2f}, with contrast "
        f"{rank['contrast']:+.2f}, with shadow {rank['shadow']:+.2f}.",
        "",
        "## The worst, one by one",
        "",
        "| image | Dice | predicted / true area | lesion, % of image | circumstances |",
        "|---|---|---|---|---|",
    ]
    for score in scores[:count]:
        true = [factor for factor, holds in held[score.name].items() if holds]
        area = (score.tp + score.fp) / (score.tp + score.fn)
        lines.append(
            f"| {score.name} | {score.dice:.3f} | {area:.2f} | "
            f"{100 * pictures[score.name].share:.1f} | {', '.join(true) or 'none of them'} |"
        )
    return "\n".join(lines) + "\n"


def _rank(scores: list[CaseScore], pictures: dict[str, Picture], what: str) -> float:
    values = [getattr(pictures[s.name], what) for s in scores]
    return float(spearmanr([s.dice for s in scores], values, nan_policy="omit").statistic)


def main() -> None:
    """Make the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("busi", type=Path)
    options = parser.parse_args()
    done = load_crossvalidation(options.results)
    scores = list(join_tables(done.evaluations("test")).lesion_cases)
    cases: dict[str, Case] = {case.name: case for case in find_cases(options.busi)}
    pictures = {s.name: measure(*load_case(cases[s.name])) for s in tqdm(scores, "measuring")}
    path = write_atomic(ROOT / "docs" / "failure_atlas.md", atlas(scores, pictures, done.name))
    print(path)


if __name__ == "__main__":
    main()
