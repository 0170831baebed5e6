"""Ship a trained model: copy its folder into weights/ with a card made of its figures.

    python -m lab.card runs/recipe/fold0 busi-fold0 --results experiments/recipe
    python -m lab.card runs/recipe/all busi-best --results experiments/recipe

Make it small before (`lab/compact_weights.py`), so that the scores are those of the shipped file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.tables import all_tables
from unet_lib.files import write_atomic
from unet_lib.metrics import Evaluation, join_tables
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.model import UNetConfig, build_unet
from unet_lib.provenance import Provenance
from unet_lib.report.texts import NO_INTERVAL
from unet_lib.training import CrossValidation, load_crossvalidation
from unet_lib.weights import load_segmenter
from unet_lib.weights.folder import CARD, MONITOR, SETTINGS, WEIGHTS, settings_digest

ROOT = Path(__file__).parent.parent


def write_card(folder: Path, folds: CrossValidation) -> Path:
    """Write the card of a model of one fold, or of one trained on everything."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    model = Provenance.of(settings["about"])
    evaluations = _test_scores(folds, model.fold)
    config = UNetConfig.from_dict(settings["network"])
    size = settings["preprocessing"]["size"]
    parameters = build_unet(config, size, pretrained=False).count_params()
    aspect = "kept, padded" if settings["preprocessing"]["keep_aspect"] else "not kept"
    rows = {
        "network": f"{_network(config)}; {parameters:,} parameters",
        "input": f"{size} x {size} pixels, grey, aspect ratio {aspect}",
        "trained on": _trained_on(folds, model),
        "training": f"{folds.recipe.training.epochs} epochs, cross-entropy + Dice, AdamW, cosine, "
        "moving average of the weights; every setting: "
        f"`experiments/{folds.name}/crossvalidation.json`",
        "chosen on": _chosen_on(settings, model),
        "licence": "MIT; ImageNet weights of the encoder: Apache-2.0 (Google); BUSI is offered as "
        "CC0 on Kaggle: cite it",
    }
    warning = "\n>\n".join(f"> **{line}**" for line in folds.provenance.banner.splitlines())
    one = model.fold is not None
    text = _TEXT.format(
        name=model.name,
        banner=f"\n{warning}\n" if warning else "",
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        images=f"the test part of fold {model.fold}"
        if one
        else f"the test parts of fold {', '.join(map(str, evaluations))}, each image once",
        whose="" if one else _OTHERS,
        tables=all_tables(evaluations, name=model.name, audited=model.data == "BUSI"),
        own=f"outside the test part of fold {model.fold}: it was trained on them"
        if one
        else "images: it was trained on all of them",
    )
    return write_atomic(folder / CARD, text)


def headline(folds: CrossValidation, fold: int | None) -> str:
    """Return the main score in a line, for a list of models; `fold` as in the model folder."""
    lesions = join_tables(_test_scores(folds, fold)).lesion_cases
    dice = group_bootstrap(lesions.column("dice"), lesions.groups)
    where = f"test part of {folds.provenance.split}, fold {fold}"
    if fold is None:
        where = (
            f"of the recipe, cross-validated on {folds.provenance.split}; not of this very network"
        )
    sure = f"95 % interval {dice.low:.3f} to {dice.high:.3f}" if dice.known else NO_INTERVAL
    warning = "".join(f"{line}: " for line in folds.provenance.banner.splitlines())
    return (
        f"{warning}Dice {dice.mean:.3f} ({sure}) per image on {len(lesions)} lesion images, {where}"
    )


def _test_scores(folds: CrossValidation, fold: int | str | None) -> dict[int, Evaluation]:
    evaluations = folds.evaluations("test")
    if fold is not None:
        evaluations = {k: v for k, v in evaluations.items() if k == fold}
    if not evaluations:
        raise ValueError(f"{folds.folder}: no test scores to write a card from; give --final.")
    return evaluations


def _network(config: UNetConfig) -> str:
    if config.encoder == "plain":
        return f"plain U-Net, {config.filters} filters, depth {config.depth}"
    start = "ImageNet weights" if config.encoder_weights else "random weights"
    return (
        f"U-Net with {config.encoder} encoder ({start}), decoder of {config.filters} filters at "
        f"full size, depth {config.depth}"
    )


def _trained_on(folds: CrossValidation, model: Provenance) -> str:
    normals = "with" if folds.provenance.normals else "without"
    part = f"all {len(model.trained_on)} images"
    if model.fold is not None:
        split = f"data/splits/{folds.provenance.split}.csv"
        part = f"fold {model.fold} of `{split}`: {len(model.trained_on)} images"
    return f"{model.data}, {part}, {normals} class normal; names in `segmenter.json`"


def _chosen_on(settings: dict, model: Provenance) -> str:
    words = {"minimum_area": "of the image", "minimum_peak": "probability"}
    kept = [f"{k.replace('_', ' ')} {v:g} {words[k]}" for k, v in settings["cleaning"].items() if v]
    cleaning = "cleaning: " + ", ".join(kept) if kept else "no cleaning"
    threshold = f"threshold {settings['threshold']:g}, {cleaning}"
    if model.fold is None:
        return (
            f"nothing: all epochs of the recipe; {threshold} from the folds of "
            f"`experiments/{model.operating_point_from}`"
        )
    result, met = model.training, ""
    if not result["constraint_met"]:
        met = (
            f" (the aim of 80 % of the {result['normals']} normals left empty was not reached "
            f"within .03 Dice of the best: {result['validation_specificity']:.0%})"
        )
    return (
        f"its {len(model.validated_on)} validation images: epoch {result['best_epoch']} of "
        f"{result['epochs']} by the loss, {threshold}{met}"
    )


def ship(run: Path, name: str, results: Path) -> Path:
    """Copy the model of a run below weights/ under a name, and write its card."""
    source, target = run / "model", ROOT / "weights" / name
    folds = load_crossvalidation(results)
    load_segmenter(source)  # refuses what is damaged
    settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
    settings["about"]["name"] = name
    settings["about"]["results"] = headline(folds, settings["about"].get("fold"))
    settings["settings_sha256"] = settings_digest(settings)
    for file in (WEIGHTS, MONITOR):
        if (source / file).is_file():
            write_atomic(target / file, (source / file).read_bytes())
    write_atomic(target / SETTINGS, json.dumps(settings, indent=2) + "\n")
    return write_card(target, folds)


_OTHERS = """
These are the scores of the recipe, of networks that had not seen the images. This very network was
trained on all of them, so no BUSI image can score it.
"""

_TEXT = """\
# {name}

U-Net for lesions in B-mode breast ultrasound; output: lesion probability of each pixel.
**Not a medical device.**
{banner}
| | |
|---|---|
{rows}

## Results on {images}
{whose}
{tables}
## Where it fails

What the worst images have in common, in numbers: `docs/failure_atlas.md`. It marks something on
some images without a lesion.

## Do not use it

for patients; to score BUSI {own}; on other organs, on Doppler or elastography. Expect much lower
scores on other scanners. BUSI comes from one hospital and has no patient identifiers:
near-duplicate pictures were kept apart, patients cannot be.

## Citation

The repository (`CITATION.cff`), and the data: Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of
breast ultrasound images. Data in Brief 28:104863, 2020, doi:10.1016/j.dib.2019.104863.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="name below weights/")
    parser.add_argument("--results", type=Path, required=True, help="published cross-validation")
    options = parser.parse_args()
    print(ship(options.run, options.name, options.results))
