"""The commands train and crossvalidate, and the data and model that options name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from unet_lib.files import read_json

_TRAIN = """\
Train a U-Net on one fold, choose its threshold on the fold's validation images, and write the run
folder --out: settings, split, history.csv, result.json and model/, which evaluate and segment take.
The test part is not touched. The state is saved after every epoch: the same command with --resume
goes on after an interruption, and returns a finished run as it is. Every setting of the recipe can
be given with --set, such as --set preprocessing.keep_aspect=false; the other options are short for
the commonest. 100 epochs of one BUSI fold with the default network take about 70 minutes on two
processor cores.
"""

_CROSSVALIDATE = """\
Train one recipe on the folds of a split, each in --out/fold<k>, and score each on its validation
images. Only these are scored while you search. --final also scores the test parts, once, for a
recipe that will not be changed any more. --all then trains on every image, all epochs, with the
folds' threshold. The same command again goes on after an interruption. python -m lab.ledger writes
the scores into a ledger and compares recipes.
"""

_SHORT = {  # option -> setting that it is short for, what it is, default
    "--size": ("preprocessing.size", "side of the network's input in pixels", 128),
    "--filters": ("network.filters", "filters of the first level", 16),
    "--depth": ("network.depth", "down-samplings", 4),
    "--encoder": ("network.encoder", "EfficientNetLite0 or one of keras.applications", "plain"),
    "--epochs": ("training.epochs", "passes over the training images", 100),
    "--batch-size": ("training.batch_size", "images in a step", 8),
    "--accumulate": ("training.accumulate", "parts of a step, to save memory", 1),
    "--learning-rate": ("training.learning_rate", "peak rate of AdamW", 0.001),
    "--seed": ("training.seed", "of weights, order, augmentation", 0),
    "--precision": ("training.precision", "float32, mixed_bfloat16, ...", "auto"),
    "--repeat": ("training.repeat", "how often a joined set's images come: SET=2,OTHER=3", ""),
    "--workers": ("training.workers", "threads that prepare batches", 2),
}
_OF_A_FILE = ("--size", "--filters", "--depth", "--encoder")


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    sub = command("train", _train, "Train on one fold and save a model folder.", _TRAIN)
    add_data(sub)
    sub.add_argument("--out", type=Path, required=True, help="run folder")
    _add_settings(sub)
    for option, setting, value, text in (
        ("--imagenet", "network.encoder_weights", "imagenet", "start the encoder from ImageNet"),
        ("--deterministic", "training.deterministic", "true", "bit-for-bit repeatable, slower"),
    ):
        sub.add_argument(option, dest=setting, action="store_const", const=value, help=text)
    sub.add_argument(
        "--start-from",
        dest="training.start_from",
        metavar="MODEL",
        help="model whose network and weights the training starts from, such as bus-best",
    )
    sub.add_argument("--no-normals", action="store_true", help="leave class normal out")
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")
    sub.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes on JAX; see docs/several_machines.md",
    )
    short = "Train a recipe on several folds and score each."
    sub = command("crossvalidate", _crossvalidate, short, _CROSSVALIDATE)
    add_data(sub, fold=False)
    sub.add_argument("--out", type=Path, required=True, help="folder of this recipe")
    sub.add_argument(
        "--random-split",
        type=int,
        metavar="SEED",
        help="ordinary random folds that part near-duplicates, to see what the split alone does",
    )
    sub.add_argument("--folds", type=int, nargs="+", help="folds to train now; all if left out")
    _add_settings(sub)
    sub.add_argument("--no-normals", action="store_true", help="train without class normal")
    sub.add_argument("--final", action="store_true", help="score the test parts, once")
    sub.add_argument("--all", action="store_true", help="train on all images, into --out/all")


def add_data(sub: argparse.ArgumentParser, *, fold: bool = True) -> None:
    """Add the data folder and its split."""
    sub.add_argument(
        "folder",
        nargs="*",
        default="auto",
        help="data folder, or several that are joined; left out: BUSI where it is, else phantoms; "
        "'phantoms' takes them",
    )
    sub.add_argument(
        "--split",
        action="append",
        help="split CSV, given once for each folder; 'own': that of the data set's authors, which "
        "may leak; left out: BUSI's committed folds, else five new ones",
    )
    add_mask_rule(sub)
    if fold:
        sub.add_argument("--fold", type=int, default=0, help="fold of the split, from 0 (0)")


def add_mask_rule(sub: argparse.ArgumentParser, whose: str = "mask") -> None:
    """Add how masks are read that the library refuses."""
    sub.add_argument(
        f"--{whose}-rule",
        metavar="BACKGROUND:LESION",
        help=f"grey values of {whose}s that are refused without it: 255:0 (negatives), 0,1:2 "
        "(labels), 0-127:128-255 (soft maps), 0:#ff0000 (colours)",
    )


def add_model(sub: argparse.ArgumentParser) -> None:
    """Add the model, and what a bare weights file does not say."""
    sub.add_argument(
        "--model", required=True, help="registered name, model folder, run folder, or weights file"
    )
    bare = sub.add_argument_group(
        "for a weights file",
        "A model folder says these itself. A file (NAME.weights.h5) does not: give what it was "
        "trained with. Filters, depth and encoder are checked against the file; a wrong size "
        "cannot be seen and gives worse masks. The threshold is 0.5.",
    )
    _add_settings(bare, _OF_A_FILE)


def _add_settings(sub: Any, short: Iterable[str] = _SHORT) -> None:
    for option in short:
        setting, text, default = _SHORT[option]
        sub.add_argument(option, dest=setting, help=f"{text} ({default})")
    sub.add_argument(
        "--recipe", help="plain, pretrained (of the shipped models), or JSON with settings"
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.SETTING=VALUE",
        help="one setting, such as training.epochs=30 or network.encoder=EfficientNetLite0",
    )


def read_recipe(options: argparse.Namespace) -> Any:
    """Return the recipe of the options: --recipe, what is short for --set, --set."""
    from unet_lib.training import RECIPES, Recipe
    from unet_lib.training.recipe import change_settings
    from unet_lib.training.run import settings_of

    values: Any = {}
    if options.recipe in RECIPES:
        values = RECIPES[options.recipe].changes()
    elif options.recipe is not None:
        values = read_json(options.recipe)
        if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
            raise ValueError(
                f'--recipe {options.recipe}: expected {{"training": {{"epochs": 30}}, ...}}.'
            )
    short = [(n, value) for n, value in vars(options).items() if "." in n and value is not None]
    change_settings(values, [*(f"{name}={value}" for name, value in short), *options.set])
    if start := values.get("training", {}).get("start_from"):
        if own := values.get("network"):
            names = ", ".join(f"network.{name}" for name in own)
            raise ValueError(f"--start-from {start}: brings its network; leave {names} out.")
        network, preprocessing = settings_of(str(start))
        values["network"] = network.to_dict()
        values["preprocessing"] = preprocessing.to_dict() | values.get("preprocessing", {})
    return Recipe.from_dict(values)


def open_data(options: argparse.Namespace, **more: Any) -> Any:
    """Open the data that the options name, and say what was taken."""
    from unet_lib.source import open_dataset

    source = open_dataset(options.folder, split=options.split, mask_rule=options.mask_rule, **more)
    print(source, flush=True)
    return source


def _train(options: argparse.Namespace) -> None:
    from unet_lib.training.distributed import joined

    with joined() if options.distributed else nullcontext():
        _train_here(options)


def _train_here(options: argparse.Namespace) -> None:
    from unet_lib.training import train

    check_out(options.out)
    recipe = read_recipe(options)
    source = open_data(options, fold=options.fold, normals=not options.no_normals)
    run = train(
        source.split, options.out, recipe, provenance=source.provenance, resume=options.resume
    )
    if run is None:  # of several processes the first one has the run
        return
    _draw_curves(run)
    result = {key: value for key, value in run.result.items() if key != "candidates"}
    print(json.dumps(result, indent=2))
    print(f"model: {run.folder / 'model'}")


def _draw_curves(run: Any) -> None:
    from unet_lib.plots import plot_history, save_figure

    figure = plot_history(run.history, provenance=run.segmenter.provenance)
    save_figure(figure, run.folder / "curves.png")


def _crossvalidate(options: argparse.Namespace) -> None:
    from unet_lib.dataset import make_folds
    from unet_lib.metrics import merge_evaluations
    from unet_lib.report import summarise
    from unet_lib.training import crossvalidate, load_run, train_on_all

    check_out(options.out)
    recipe = read_recipe(options)
    source = open_data(options)
    cases, folds = source.cases, source.folds
    if options.random_split is not None:
        cases = [replace(case, group=case.name, own_group="") for case in cases]
        name = f"random split {options.random_split}, near-duplicates parted"
        folds = replace(make_folds(cases, seed=options.random_split), name=name)
    trained = crossvalidate(
        cases,
        folds,
        options.out,
        recipe,
        provenance=source.provenance,
        which=options.folds,
        normals=not options.no_normals,
        final=options.final,
    )
    for fold in trained.results:
        place = options.out / f"fold{fold}"
        if not (place / "curves.png").exists():
            _draw_curves(load_run(place))
    for part in ("validation", "test") if options.final else ("validation",):
        merged = merge_evaluations(trained.scores[part])
        print(summarise(merged).to_markdown(), flush=True)
    if options.all:
        run = train_on_all(cases, options.out / "all", trained)
        _draw_curves(run)
        print(f"trained on all images: {run.folder / 'model'}")


def load_model(
    options: argparse.Namespace,
    validation: Sequence[Any] | None = None,
    *,
    runtime: str = "keras",
) -> Any:
    """Load the segmenter that --model names, and say which; `runtime` as in `load_segmenter`.

    What a file trained elsewhere does not tell is settled on `validation` cases.
    """
    from unet_lib.weights import choose_model, load_segmenter
    from unet_lib.weights.choice import names_file

    given = [o for o, (setting, *_) in _SHORT.items() if getattr(options, setting, None)]
    given += [name for name in ("--set", "--recipe") if getattr(options, name[2:])]
    if names_file(options.model):
        recipe = read_recipe(options)
        segmenter, why = choose_model(
            options.model,
            data="",
            fold=0,
            config=recipe.network,
            preprocessing=recipe.preprocessing,
            validation=validation,
        )
        print(why)
    elif given:
        raise ValueError(
            f"{', '.join(given)}: only for a weights file (.weights.h5); {options.model} says "
            "this itself. Leave it out."
        )
    else:
        segmenter = load_segmenter(options.model, runtime=runtime)
    size = segmenter.preprocessing.size
    print(
        f"model: {segmenter.provenance.name}, threshold {segmenter.threshold:g}, input "
        f"{size} x {size}",
        flush=True,
    )
    return segmenter


def check_out(out: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse a folder for results that is a file or holds inputs."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out}: is a file; expected a folder.")
    # A link counts where it lies and where it leads to.
    holders = {path.parent.resolve() for path in inputs} | {p.resolve().parent for p in inputs}
    if out.resolve() in holders:
        raise ValueError(
            f"--out {out}: holds input images; results are never written among inputs. Choose "
            "another folder."
        )
