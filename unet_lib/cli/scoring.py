"""The commands evaluate and score: a model, or masks made by any program, by the same rules."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unet_lib.cli.models import add_data, add_mask_rule, add_model, check_out, load_model, open_data

_EVALUATE = """\
Score a model on one part of a fold, each image at its original size. --out gets report.md (also
printed), summary.json, cases.csv with one line for each image, and the curves. Give the --split and
--fold that the model was trained with: the report says when it has seen images that are scored.
"""

_SCORE = """\
Score masks that any program made, by the same code as evaluate, and write the same report. The
folder PREDICTIONS holds one mask for each image, called NAME, NAME_pred or NAME_mask like the image
(any picture; two values, or black where nothing was found), and perhaps one probability map for
each, called NAME_prob (8 or 16 bit image, float TIFF, or .npy); folders within are searched. With
--split or --fold only the part --part is scored. A missing prediction, one that belongs to no
image, one of another size (without --resize) and grey values that are no mask end the command with
exit code 2 and a message. --compare takes another folder of predictions of the same images, a
report folder of this library, or its cases.csv, and adds comparison.md: differences by image.
"""

_SITE = """\
Say how a model does on a scanner of yours, from twenty pictures or more that you have outlined
(docs/site.md), how sure that is, and whether a threshold or weights fitted to them are better: each
picture is then scored by a network that has not seen its patient. What is surely better is saved as
--out/site_model. Some minutes for fifty pictures on two cores; the same command again goes on after
an interruption. Fewer than ten patients give no interval, and nothing is fitted to them.
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    sub = command("evaluate", _evaluate, "Score a model and write the report.", _EVALUATE)
    add_data(sub)
    add_model(sub)
    sub.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
    parts = ("test", "validation", "train", "all")
    sub.add_argument("--part", choices=parts, default="test", help="part to score (test)")
    short = "Score masks made by any program and write the report."
    sub = command("score", _score, short, _SCORE)
    sub.add_argument("predictions", type=Path, help="folder with the predicted masks")
    sub.add_argument("folder", type=Path, help="data folder with images and true masks")
    sub.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
    add_mask_rule(sub)
    add_mask_rule(sub, "prediction")
    sub.add_argument("--split", type=Path, help="split CSV; left out: BUSI's committed folds")
    sub.add_argument("--fold", type=int, help="fold of the split; left out: 0 with --split")
    parts = ("test", "validation", "train")
    sub.add_argument("--part", choices=parts, default="test", help="part to score (test)")
    sub.add_argument("--compare", type=Path, metavar="OTHER", help="what to compare with")
    sub.add_argument("--name", help="name of the model in the report; left out: the folder's")
    sub.add_argument(
        "--resize",
        action="store_true",
        help="stretch predictions of another size to their image's: masks by the nearest pixel, "
        "probabilities bilinearly",
    )
    sub = command("site", _site, "Does it work on my scanner? Judge, and fit, a model.", _SITE)
    sub.add_argument("folder", type=Path, help="pictures with masks, of one scanner")
    sub.add_argument("--model", default="bus-best", help="name or folder of a model (bus-best)")
    sub.add_argument("--out", type=Path, help="folder for page and model (runs/site-FOLDER)")


def _site(options: argparse.Namespace) -> None:
    from unet_lib.site import judge_site

    out = options.out or Path("runs", f"site-{options.folder.resolve().name}")
    check_out(out)
    if options.folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"--out {out}: lies in the folder of the pictures. Choose another.")
    print(f"page: {judge_site(options.folder, out, options.model)}")


def _evaluate(options: argparse.Namespace) -> None:
    from unet_lib.files import folder_lock
    from unet_lib.inference import evaluate_cases, show_cases
    from unet_lib.report import write_report

    source = open_data(options, fold=options.fold)
    cases = source.cases if options.part == "all" else getattr(source.split, options.part)
    check_out(options.out, [case.image_path for case in cases])
    segmenter = load_model(options, source.split.validation)
    with folder_lock(options.out):
        provenance = source.provenance.but(part=options.part)
        evaluation = evaluate_cases(segmenter, cases, provenance=provenance)
        report = write_report(evaluation, options.out, show=show_cases(segmenter, cases))
    print(report.read_text(encoding="utf-8"))
    print(f"report and figures: {options.out}")


def _score(options: argparse.Namespace) -> None:
    from unet_lib.dataset import left_out
    from unet_lib.files import folder_lock
    from unet_lib.predictions import find_predictions
    from unet_lib.report import write_report

    provenance, cases, everything = _data(options)
    predictions = find_predictions(
        options.predictions,
        cases,
        unscored=everything,
        resize=options.resize,
        mask_rule=options.prediction_rule,
    )
    inputs = [case.image_path for case in everything]
    check_out(options.out, [*inputs, *predictions.masks.values()])
    provenance = provenance.but(model=options.name or options.predictions.resolve().name)
    if options.resize:
        resized = "predictions of another size were stretched to their image's"
        provenance = provenance.but(resized=resized)
    other = _other(options, cases, everything)  # before the long part: it may not be there
    with folder_lock(options.out):
        evaluation = predictions.evaluate(provenance)
        report = write_report(evaluation, options.out, show=predictions.show)
        print(report.read_text(encoding="utf-8"))
        if other is not None:
            print(_compare(evaluation, other, options).read_text("utf-8"))
    used = [*predictions.masks.values(), *predictions.probabilities.values()]
    print(left_out(options.predictions, used))
    print(f"report and figures: {options.out}")


def _data(options: argparse.Namespace) -> tuple[Any, Sequence[Any], Sequence[Any]]:
    """Return provenance, the cases to score and all cases of the folder."""
    from unet_lib.dataset import of_folder
    from unet_lib.source import open_folder

    if options.split is None and options.fold is None:
        cases, data = open_folder(options.folder, options.mask_rule)
        print(f"Data: {data.data}, all {len(cases)} images. Groups: {data.groups}.", flush=True)
        print(of_folder(Path(options.folder), cases))
        return data.but(split="none", part="all images"), cases, cases
    source = open_data(options, fold=options.fold or 0)
    cases = getattr(source.split, options.part)
    return source.provenance.but(part=options.part), cases, source.cases


def _other(options: argparse.Namespace, cases: Sequence[Any], everything: Sequence[Any]) -> Any:
    """Return the table or the predictions to compare with; refuse early what is neither."""
    from unet_lib.metrics import CaseTable
    from unet_lib.metrics.evaluation import CASES
    from unet_lib.predictions import find_predictions

    path = options.compare
    if path is None:
        return None
    table = path / CASES if path.is_dir() else path
    if table.is_file():
        return CaseTable.read_csv(table)
    if not path.is_dir():
        raise FileNotFoundError(
            f"--compare {path}: no such folder of predictions, report folder or {CASES}."
        )
    return find_predictions(path, cases, unscored=everything, resize=options.resize)


def _compare(evaluation: Any, other: Any, options: argparse.Namespace) -> Path:
    from unet_lib.metrics import CaseTable
    from unet_lib.report import compare, write_comparison

    theirs = other if isinstance(other, CaseTable) else other.evaluate().table
    names = {case.name for case in evaluation.table}
    chosen = theirs.subset(lambda case: case.name in names)
    if len(chosen) < len(theirs):
        print(
            f"{options.compare}: {len(theirs) - len(chosen)} images that are not scored here are "
            "left out of the comparison."
        )
    path = options.compare.resolve()
    second = path.parent.name if path.is_file() else path.name
    provenance = evaluation.provenance
    rows = compare(evaluation.table, chosen)
    return write_comparison(rows, options.out, provenance.model, second, provenance=provenance)
