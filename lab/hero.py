"""The README's picture: four scans of BUS-BRA that a model never saw, from easy to missed.

    python -m lab.hero BUSBRA --model busi-fold0

Scores the test part of fold 0 of data/splits/busbra_5fold.csv, orders its lesions by Dice, and
draws those at fixed places in that order, so nobody chooses. BUS-BRA's licence
(docs/busbra_licence.txt) allows copies; the README names the source.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from unet_lib.dataset import Case, Folds, find_cases, load_case
from unet_lib.files import write_atomic
from unet_lib.inference import Segmenter, evaluate_cases
from unet_lib.metrics import CaseScore, CaseTable
from unet_lib.plots import plot_predictions
from unet_lib.provenance import Provenance
from unet_lib.weights import load_segmenter

ROOT = Path(__file__).parent.parent
SPLIT, PICTURE = ROOT / "data/splits/busbra_5fold.csv", ROOT / "docs/hero.jpg"
PLACES = {"easy": 0.9, "middling": 0.5, "hard": 0.1}  # of the lesions that were not missed, by Dice


def chosen(table: CaseTable) -> dict[str, CaseScore]:
    """Return the lesions to show by what they are called; the missed one is of median size."""
    lesions = table.lesion_cases
    seen = lesions.subset(lambda case: not case.missed).sorted("dice")
    missed = sorted(lesions.subset(lambda case: case.missed), key=lambda case: case.lesion_share)
    picked = {name: seen[int(place * (len(seen) - 1))] for name, place in PLACES.items()}
    return picked | ({"missed": missed[len(missed) // 2]} if missed else {})


def draw(segmenter: Segmenter, cases: tuple[Case, ...], split: str) -> bytes:
    """Return the figure as JPEG."""
    data = Provenance(data="BUS-BRA", data_kind="clinical", split=split, fold=0, part="test")
    evaluation = evaluate_cases(segmenter, cases, provenance=data)
    by_name, rows = {case.name: case for case in cases}, []
    for name, score in chosen(evaluation.table).items():
        image, truth = load_case(by_name[score.name])
        result = segmenter.segment(image)
        title = f"{name} ({score.label}), {score.name}"
        rows.append((image, truth, result.probabilities, result.mask, title))
    lesions = evaluation.table.lesion_cases
    missed = int(lesions.column("missed").sum())
    title = f"Four of {len(lesions)} lesions in BUS-BRA's test part, of which {missed} are missed"
    figure = plot_predictions(rows, title=title, provenance=evaluation.provenance)
    png, jpeg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    Image.open(png).convert("RGB").save(jpeg, "JPEG", quality=85, optimize=True)
    return jpeg.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="BUS-BRA as downloaded")
    parser.add_argument("--model", default="busi-fold0", help="one that never saw the test part")
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    folds = Folds.read(SPLIT)
    listed = {row.image for row in folds.rows}
    cases = [case for case in find_cases(options.folder) if case.name in listed]
    split = folds.split(cases, 0)
    print(write_atomic(options.out, draw(load_segmenter(options.model), split.test, folds.name)))
