"""The card of a shipped model, written from its numbers."""

from __future__ import annotations

import json
from pathlib import Path

from unet_lib.experiments.crossvalidation import CrossValidation
from unet_lib.experiments.tables import all_tables
from unet_lib.files import write_atomic
from unet_lib.metrics import Evaluation, join_tables
from unet_lib.model import UNetConfig, build_unet
from unet_lib.plots import banner_for
from unet_lib.report import group_bootstrap
from unet_lib.report.texts import NO_INTERVAL, banner
from unet_lib.weights.folder import CARD, SETTINGS

__all__ = ["headline", "write_card"]


def write_card(folder: str | Path, done: CrossValidation) -> Path:
    """Write ``CARD.md`` into a model folder.

    Parameters
    ----------
    folder : str or Path
        A model folder of one fold of `done`, or of `train_on_all`.
    done : CrossValidation
        With test scores. A model of one fold gets that fold's, another gets those of all folds.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        There are no test scores.
    """
    folder = Path(folder)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    about, fold = settings["about"], settings["about"].get("fold")
    scores = _scores(done, fold)
    config = UNetConfig.from_dict(settings["network"])
    size = settings["preprocessing"]["size"]
    parameters = build_unet(config, size, pretrained=False).count_params()
    aspect = "kept, padded" if settings["preprocessing"]["keep_aspect"] else "not kept"
    facts = {
        "network": f"{_network(config)}; {parameters:,} parameters",
        "input": f"{size} x {size} pixels, grey, aspect ratio {aspect}",
        "trained on": _trained_on(done, about, fold),
        "training": f"{done.recipe.training.epochs} epochs, cross-entropy + Dice, AdamW, cosine, "
        "moving average of the weights; every setting: "
        f"`experiments/{done.name}/crossvalidation.json`",
        "chosen on": _chosen_on(settings, about, fold),
        "licence": "MIT; ImageNet weights of the encoder: Apache-2.0 (Google); BUSI is offered as "
        "CC0 on Kaggle: cite it",
    }
    own = f"outside the test part of fold {fold}: it was trained on them"
    text = _TEXT.format(
        name=about["name"],
        banner=f"\n{banner(done.about)}\n" if banner(done.about) else "",
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        images=f"the test part of fold {fold}" if fold is not None else _folds(scores),
        whose="" if fold is not None else _OTHERS,
        tables=all_tables(scores, name=about["name"], audited=about["data"] == "BUSI"),
        own=own if fold is not None else "images: it was trained on all of them",
    )
    return write_atomic(folder / CARD, text)


def headline(done: CrossValidation, fold: int | None) -> str:
    """Return the main score in a line, for a list of models; `fold` as in the model folder."""
    lesions = join_tables(_scores(done, fold)).lesion_cases
    dice = group_bootstrap(lesions.column("dice"), lesions.groups)
    where = f"test part of {done.about['split']}, fold {fold}"
    if fold is None:
        where = f"of the recipe, cross-validated on {done.about['split']}; not of this very network"
    sure = NO_INTERVAL
    if dice.known:
        sure = f"95 % interval {dice.low:.3f} to {dice.high:.3f}"
    warning = "".join(f"{line}: " for line in banner_for(done.about).splitlines())
    return (
        f"{warning}Dice {dice.mean:.3f} ({sure}) per image on {len(lesions)} lesion images, {where}"
    )


def _scores(done: CrossValidation, fold: int | None) -> dict[int, Evaluation]:
    scores = done.evaluations("test")
    scores = scores if fold is None else {k: v for k, v in scores.items() if k == fold}
    if not scores:
        raise ValueError(f"{done.folder}: no test scores to write a card from; give --final.")
    return scores


def _network(config: UNetConfig) -> str:
    if config.encoder == "plain":
        return f"plain U-Net, {config.filters} filters, depth {config.depth}"
    start = "ImageNet weights" if config.encoder_weights else "random weights"
    return (
        f"U-Net with {config.encoder} encoder ({start}), decoder of {config.filters} filters at "
        f"full size, depth {config.depth}"
    )


def _trained_on(done: CrossValidation, about: dict, fold: int | None) -> str:
    normals = "with" if done.about["normals"] else "without"
    part = f"all {len(about['trained_on'])} images" if fold is None else (
        f"fold {fold} of `data/splits/{done.about['split']}.csv`: {len(about['trained_on'])} images"
    )  # fmt: skip
    return f"{about['data']}, {part}, {normals} class normal; names in `segmenter.json`"


def _chosen_on(settings: dict, about: dict, fold: int | None) -> str:
    threshold = f"threshold {settings['threshold']:g}, {_cleaning(settings['cleaning'])}"
    if fold is None:
        return (
            f"nothing: all epochs of the recipe; {threshold} from the folds of "
            f"`experiments/{about['operating_point_from']}`"
        )
    result = about["training"]
    met = "" if result["constraint_met"] else (
        f" (the aim of 80 % of the {result['normals']} normals left empty was not reached within "
        f".03 Dice of the best: {result['validation_specificity']:.0%})"
    )  # fmt: skip
    return (
        f"its {len(about['validated_on'])} validation images: epoch {result['best_epoch']} of "
        f"{result['epochs']} by the loss, {threshold}{met}"
    )


def _cleaning(cleaning: dict[str, float]) -> str:
    words = {"minimum_area": "of the image", "minimum_peak": "probability"}
    kept = [f"{k.replace('_', ' ')} {v:g} {words[k]}" for k, v in cleaning.items() if v]
    return "cleaning: " + ", ".join(kept) if kept else "no cleaning"


def _folds(scores: dict) -> str:
    return f"the test parts of fold {', '.join(map(str, scores))}, each image once"


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
{facts}

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
