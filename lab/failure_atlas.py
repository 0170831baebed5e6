"""What the worst images have in common, in numbers: docs/failure_atlas.md.

    python -m lab.failure_atlas experiments/recipe data/Dataset_BUSI_with_GT

Reads the published test scores of a cross-validation, BUSI's audit list, and the images themselves
(for contrast, shadow and border). Only figures and ids are written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from lab.card import place
from unet_lib.dataset import Case, find_cases, load_case, read_audit
from unet_lib.files import write_atomic
from unet_lib.metrics import CaseScore, join_tables
from unet_lib.training import load_crossvalidation

ROOT = Path(__file__).parent.parent
WORST = 0.05
_PAGE = """\
# Failure atlas

The worst of the {scores} lesion images by Dice in the test parts of `{name}`: the \
{worst} that score no more than {limit:.3f}, the limit of the worst 5 % (those with the same score \
are taken too). Each was scored by a network that had not seen it; they are compared with the \
rest. Circumstances are measured on image and true mask, or come from `data/busi_audit.csv`. Made \
by `lab/failure_atlas.py`; an image can have several circumstances, and none of them is shown to \
be the cause.

| circumstance | n | among the worst {worst} | among the rest | mean Dice with | without | \
missed with |
|---|---|---|---|---|---|---|
{rows}

Of all {scores} lesion images {missed} are missed (no true pixel predicted). Spearman's \
correlation of Dice with lesion size is {share:+.2f}, with contrast {contrast:+.2f}, with shadow \
{shadow:+.2f}.

## The worst, one by one

| image | Dice | predicted / true area | lesion, % of image | circumstances |
|---|---|---|---|---|
{singles}
"""


def measure(image: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Measure one picture; image (H, W[, C]) from 0 to 1, truth (H, W) bool.

    share: lesion pixels by all pixels; contrast: mean grey value of a ring around the lesion less
    that inside; shadow: mean beside the column below the lesion less that in it; border: 1 where
    the lesion touches the edge of the image.
    """
    grey = image if image.ndim == 2 else image.mean(axis=2)
    rows, columns = np.nonzero(truth)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    width = max(5, (right - left + 1) // 3)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1,) * 2)
    ring = cv2.dilate(truth.astype(np.uint8), kernel).astype(bool) & ~truth
    below = slice(bottom + 1, bottom + 1 + max(10, (bottom - top + 1) // 2))
    sides = [grey[below, max(0, left - width) : left], grey[below, right + 1 : right + 1 + width]]
    beside = np.concatenate([side.ravel() for side in sides])
    column = grey[below, left : right + 1]
    shadow = beside.mean() - column.mean() if beside.size and column.size else np.nan
    return {
        "share": float(truth.mean()),
        "contrast": float(grey[ring].mean() - grey[truth].mean()) if ring.any() else np.nan,
        "shadow": float(shadow),
        "border": float(truth[[0, -1]].any() or truth[:, [0, -1]].any()),
    }


def factors(score: CaseScore, picture: dict[str, float], audit: dict[str, str]) -> dict[str, bool]:
    """Tell which circumstances hold for an image."""
    return {
        "malignant": score.label == "malignant",
        "lesion below 2 % of the image": picture["share"] < 0.02,
        "lesion above 15 % of the image": picture["share"] > 0.15,
        "little contrast (ring less than .05 brighter)": picture["contrast"] < 0.05,
        "shadow below (more than .1 darker than beside)": picture["shadow"] > 0.1,
        "brighter below (more than .1)": picture["shadow"] < -0.1,
        "touches the edge of the image": bool(picture["border"]),
        "several lesions": audit["several_masks"] == "1",
        "in a near-duplicate group": audit["group"] != audit["image"],
        "class differs within its group": audit["label_conflict"] == "1",
        "published as incongruent": audit["published_incongruent"] == "1",
        "axilla": audit["axilla"] == "1",
        "coloured overlay": audit["overlay"] == "1",
    }


def atlas(scores: list[CaseScore], pictures: dict[str, dict[str, float]], name: str) -> str:
    """Write the page."""
    audit = read_audit()
    scores = sorted(scores, key=lambda score: (score.dice, score.name))
    # Many are tied at 0: all that are as bad as the last of the worst 5 % belong to them.
    limit = scores[round(WORST * len(scores)) - 1].dice
    worst = {score.name for score in scores if score.dice <= limit}
    count = len(worst)
    held = {s.name: factors(s, pictures[s.name], audit[s.name]) for s in scores}
    rows = []
    for factor in next(iter(held.values())):
        having = [s for s in scores if held[s.name][factor]]
        others = [s for s in scores if not held[s.name][factor]]
        if having and others:
            inside = sum(s.name in worst for s in having)
            missed = sum(s.missed for s in having)
            cells = (
                *(factor, len(having), f"{inside} ({inside / count:.0%})"),
                f"{(len(having) - inside) / (len(scores) - count):.0%}",
                *(f"{np.mean([s.dice for s in some]):.3f}" for some in (having, others)),
                f"{missed} ({missed / len(having):.0%})",
            )
            rows.append(f"| {' | '.join(map(str, cells))} |")
    singles = []
    for score in scores[:count]:
        true = [factor for factor, holds in held[score.name].items() if holds]
        area = (score.tp + score.fp) / (score.tp + score.fn)
        singles.append(
            f"| {score.name} | {score.dice:.3f} | {area:.2f} | "
            f"{100 * pictures[score.name]['share']:.1f} | {', '.join(true) or 'none of them'} |"
        )
    dice = [score.dice for score in scores]
    rank = {
        what: spearmanr(dice, [pictures[s.name][what] for s in scores], nan_policy="omit").statistic
        for what in ("share", "contrast", "shadow")
    }
    return _PAGE.format(
        scores=len(scores),
        name=name,
        worst=count,
        limit=limit,
        rows="\n".join(rows),
        missed=sum(score.missed for score in scores),
        singles="\n".join(singles),
        **rank,
    )


def main() -> None:
    """Make the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("busi", type=Path)
    options = parser.parse_args()
    folds = load_crossvalidation(options.results)
    scores = list(join_tables(folds.scores["test"]).lesion_cases)
    cases: dict[str, Case] = {case.name: case for case in find_cases(options.busi)}
    pictures = {s.name: measure(*load_case(cases[s.name])) for s in tqdm(scores, "measuring")}
    path = write_atomic(ROOT / "docs" / "failure_atlas.md", atlas(scores, pictures, place(folds)))
    print(path)


if __name__ == "__main__":
    main()
