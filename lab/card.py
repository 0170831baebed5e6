"""Ship a trained model: copy its folder into weights/ with a card made of its figures.

    python -m lab.card experiments/joint/fold0/model busi-fold0 --results experiments/joint/joint-*
    python -m lab.card runs/joint-all/model bus-best --results experiments/joint/joint-*

`--results`: published cross-validations of the recipe, one for each data set. Make the model small
before (`lab/compact_weights.py`), so that the scores are those of the shipped file. The file for
ONNX Runtime is written at the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lab.hub import header
from lab.tables import all_tables, questions
from unet_lib.files import write_atomic
from unet_lib.metrics import Evaluation, join_tables
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.model import UNetConfig, build_unet
from unet_lib.provenance import Provenance
from unet_lib.report.markdown import NO_INTERVAL
from unet_lib.training import CrossValidation, TrainingConfig, load_crossvalidation
from unet_lib.weights import export_into_model, load_segmenter
from unet_lib.weights.folder import CARD, IN_ONNX, MONITOR, SETTINGS, WEIGHTS, settings_digest

ROOT = Path(__file__).parent.parent
TRANSFER = ROOT / "experiments" / "transfer" / "table.md"
CITATIONS = {
    "BUSI": "Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. Data "
    "in Brief 28:104863, 2020, doi:10.1016/j.dib.2019.104863 (offered as CC0 on Kaggle).",
    "BUSBRA": "Gómez-Flores W, Gregorio-Calas MJ, Pereira WCA. BUS-BRA: A breast ultrasound "
    "dataset for assessing computer-aided diagnosis systems. Medical Physics 51(4):3110-3123, "
    "2024, doi:10.1002/mp.16812 (free with this citation).",
}


def write_card(folder: Path, results: Sequence[CrossValidation]) -> Path:
    """Write the card of a model of one fold, or of one trained on everything."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    model = Provenance.of(settings["about"])
    fold = model.fold
    scores = {folds.provenance.data: _test_scores(folds, fold) for folds in results}
    config = UNetConfig.from_dict(settings["network"])
    size = settings["preprocessing"]["size"]
    parameters = build_unet(config, size, pretrained=False).count_params()
    aspect = "kept, padded" if settings["preprocessing"]["keep_aspect"] else "not kept"
    recipe = results[0].recipe.training
    rows = {
        "network": f"{_network(config)}; {parameters:,} parameters",
        "input": f"{size} x {size} pixels, grey, aspect ratio {aspect}",
        "trained on": f"{len(model.trained_on)} images of {model.data}, {model.split}; names in "
        "`segmenter.json`",
        "training": f"{recipe.epochs} epochs, cross-entropy + Dice, AdamW, cosine, moving average "
        f"of the weights; every setting: `{place(results[0])}/crossvalidation.json`",
        "chosen on": _chosen_on(settings, model, recipe),
        "licence": "MIT; ImageNet weights of the encoder: Apache-2.0 (Google); data: see Citation",
    }
    one = fold is not None
    tested = ", ".join(map(str, next(iter(scores.values()))))
    heading = f"test part of fold {tested}"
    parts = [
        f"## {name}: {heading}\n\n{questions(scored)}\n\n"
        + all_tables(scored, name=model.name, audited=name == "BUSI")
        for name, scored in scores.items()
    ]
    which = _ONE_FOLD
    if "," in tested:
        which = _FIXED if recipe.threshold else _CHOSEN
    warnings = dict.fromkeys(line for f in results for line in f.provenance.banner.splitlines())
    text = _TEXT.format(
        name=model.name,
        banner="".join(f"\n> **{line}**\n" for line in warnings),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        whose="" if one else _OTHERS.format(which=which),
        tables="\n".join(parts),
        transfer=TRANSFER.read_text(encoding="utf-8") if TRANSFER.is_file() else "not measured\n",
        own=f"outside the test part of fold {fold}: it was trained on them"
        if one
        else "images: it was trained on all of them",
        data=", ".join(scores),
        citations="\n".join(f"* {CITATIONS[name]}" for name in scores if name in CITATIONS),
    )
    what = "cross-validated" if "," in tested else f"fold {tested}"
    named = {f"{name}, {what}": scored for name, scored in scores.items()}
    return write_atomic(folder / CARD, header(model.name, named, trained_on=list(scores)) + text)


def headline(results: Sequence[CrossValidation], fold: int | None) -> str:
    """Return the main score in a line, for a list of models; `fold` as in the model folder."""
    tested = _test_scores(results[0], fold)
    where = "cross-validation" if len(tested) > 1 else f"test part of fold {next(iter(tested))}"
    if fold is None:
        where += " of the recipe, not of this very network"
    shown = []
    for folds in results:
        lesions = join_tables(_test_scores(folds, fold)).lesion_cases
        dice = group_bootstrap(lesions.column("dice"), lesions.groups)
        sure = f"95 % interval {dice.low:.3f} to {dice.high:.3f}" if dice.known else NO_INTERVAL
        warning = "".join(f"{line}: " for line in folds.provenance.banner.splitlines())
        shown.append(
            f"{warning}{folds.provenance.data}: Dice {dice.mean:.3f} ({sure}) per image on "
            f"{len(lesions)} lesion images"
        )
    return f"{'; '.join(shown)}; {where}"


def place(folds: CrossValidation) -> str:
    """Name the folder of results as it lies in the repository."""
    whole = folds.folder.resolve()
    return str(whole.relative_to(ROOT)) if whole.is_relative_to(ROOT) else folds.name


def _test_scores(folds: CrossValidation, fold: int | str | None) -> dict[int, Evaluation]:
    evaluations = folds.scores["test"]
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


def _chosen_on(settings: dict, model: Provenance, recipe: TrainingConfig) -> str:
    words = {"minimum_area": "of the image", "minimum_peak": "probability"}
    kept = [f"{k.replace('_', ' ')} {v:g} {words[k]}" for k, v in settings["cleaning"].items() if v]
    cleaning = "cleaning: " + ", ".join(kept) if kept else "no cleaning"
    threshold = f"threshold {settings['threshold']:g}, {cleaning}"
    if recipe.threshold:
        return f"nothing: {recipe.epochs} epochs, {threshold}, as the recipe fixes them"
    if model.fold is None:
        return (
            f"nothing: all epochs of the recipe; {threshold} from the validation parts in "
            f"`experiments/{model.operating_point_from}`"
        )
    result, met = model.training, ""
    if not result["constraint_met"]:
        met = (
            f" (the aim of 80 % of the {result['normals']} normals left empty was not reached "
            f"within .03 Dice of the best: {result['validation_specificity']:.0%})"
        )
    return (
        f"its {len(model.validated_on)} validation images: {threshold}{met}; all "
        f"{result['epochs']} epochs of the recipe"
    )


def ship(source: Path, name: str, results: Sequence[Path]) -> Path:
    """Copy a model folder below weights/ under a name, and write its card."""
    target = ROOT / "weights" / name
    published = [load_crossvalidation(folder) for folder in results]
    load_segmenter(source)  # refuses what is damaged
    settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
    settings.pop(IN_ONNX, None)  # written anew
    settings["about"]["name"] = name
    settings["about"]["results"] = headline(published, settings["about"].get("fold"))
    settings["settings_sha256"] = settings_digest(settings)
    for file in (WEIGHTS, MONITOR):
        if (source / file).is_file():
            write_atomic(target / file, (source / file).read_bytes())
    write_atomic(target / SETTINGS, json.dumps(settings, indent=2) + "\n")
    return write_card(target, published)


_OTHERS = """
The scores below are those of the recipe: of networks that had not seen the images. This very
network was trained on all of them, so no image of these sets can score it. {which}
"""
_FIXED = "In the five folds each\npicture is tested once."
_CHOSEN = """In the five folds each
picture is tested once and chose a threshold in another fold, so they too are a little flattered."""
_ONE_FOLD = """Only one fold
was trained: one network on one part of each set; another training may differ by some hundredths."""

_TEXT = """\
# {name}

U-Net for lesions in B-mode breast ultrasound; output: lesion probability of each pixel.
**Not a medical device.**
{banner}
| | |
|---|---|
{rows}
{whose}
{tables}
## On a scanner that it has not seen

Networks of `bus-best`'s recipe, trained on one set and tested on the other; network k on the test
part of fold k. Only rows of the same images can be compared:

{transfer}
## Where it fails

What the worst images have in common, in numbers: `docs/failure_atlas.md`. How often it
marks something on an image without a lesion stands above.

## Do not use it

for patients; to score {data} {own}; on other organs, on Doppler or elastography. Expect lower
scores on other scanners: judge it on twenty outlined pictures of yours first (`unet site`).
BUSI comes from one hospital and has no patient identifiers: near-duplicate pictures were kept
apart, patients cannot be.

## Citation

The repository (`CITATION.cff`), and the data:

{citations}
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("name", help="name below weights/")
    parser.add_argument(
        "--results", type=Path, nargs="+", required=True, help="published cross-validations"
    )
    options = parser.parse_args()
    print(ship(options.model, options.name, options.results))
    print(export_into_model(ROOT / "weights" / options.name))
