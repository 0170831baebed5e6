"""The command crossvalidate."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

__all__ = ["add_crossvalidate"]

_CROSSVALIDATE = """\
Train one recipe on the folds of a split, each in --out/fold<k>, and score each on its validation
images. Only these are scored while you search. --final also scores the test parts, once, for a
recipe that will not be changed any more. --all then trains on every image, all epochs, with the
folds' threshold. The same command again goes on after an interruption. python -m lab.ledger writes
the scores into a ledger and compares recipes.
"""


def add_crossvalidate(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command crossvalidate."""
    short = "Train a recipe on several folds, into a ledger."
    sub = command("crossvalidate", _crossvalidate, short, _CROSSVALIDATE)
    sub.add_argument("folder", nargs="?", default="auto", help="as in train")
    sub.add_argument("--out", type=Path, required=True, help="folder of this recipe")
    sub.add_argument("--split", type=Path, help="split CSV, as in train")
    sub.add_argument(
        "--random-split",
        type=int,
        metavar="SEED",
        help="ordinary random folds that part near-duplicates, to see what the split alone does",
    )
    sub.add_argument("--folds", type=int, nargs="+", help="folds to train now; all if left out")
    sub.add_argument("--recipe", type=Path, help="JSON with settings that differ from the default")
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.SETTING=VALUE",
        help="one setting, such as training.epochs=30 or network.encoder=EfficientNetLite0",
    )
    sub.add_argument("--no-normals", action="store_true", help="train without class normal")
    sub.add_argument("--final", action="store_true", help="score the test parts, once")
    sub.add_argument("--all", action="store_true", help="train on all images, into --out/all")


def read_recipe(path: Path | None, changes: list[str]) -> Any:
    """Read a recipe: the default, what a JSON file changes, what single settings change.

    Raises
    ------
    ValueError
        The file cannot be read, or a setting does not exist.
    """
    from unet_lib.training import Recipe

    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"--recipe {path}: cannot be read ({error}).") from error
        if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
            raise ValueError(f'--recipe {path}: expected {{"training": {{"epochs": 30}}, ...}}.')
    return Recipe.from_dict(values).but(*changes)


def _crossvalidate(options: argparse.Namespace) -> int:
    from unet_lib.dataset import make_folds
    from unet_lib.metrics import merge_evaluations
    from unet_lib.report import summarise
    from unet_lib.source import open_dataset
    from unet_lib.training import crossvalidate, train_on_all

    recipe = read_recipe(options.recipe, options.set)
    source = open_dataset(options.folder, split=options.split)
    print(source, flush=True)
    cases, folds = source.cases, source.folds
    if options.random_split is not None:
        cases = [replace(case, group=case.name) for case in cases]
        name = f"random split {options.random_split}, near-duplicates parted"
        folds = replace(make_folds(cases, seed=options.random_split), name=name)
    done = crossvalidate(
        cases,
        folds,
        options.out,
        recipe,
        provenance=source.provenance,
        which=options.folds,
        normals=not options.no_normals,
        final=options.final,
    )
    for part in ("validation", "test") if options.final else ("validation",):
        print(summarise(merge_evaluations(done.evaluations(part))).to_markdown(), flush=True)
    if options.all:
        run = train_on_all(cases, options.out / "all", done)
        print(f"trained on all images: {run.folder / 'model'}")
    return 0
