"""The commands phantoms, check, train and evaluate."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

CURVES = "curves.png"
OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def phantoms(options: argparse.Namespace) -> int:
    """Write phantoms."""
    from unet_lib.phantoms import make_phantoms

    folder = make_phantoms(options.folder, options.count, options.seed)
    print(f"{options.count} phantoms in {folder}")
    return OK


def check(options: argparse.Namespace) -> int:
    """Report what is wrong with a data folder."""
    from unet_lib.dataset import check_cases, find_cases

    cases = find_cases(options.folder, require_masks=False)  # a missing mask is a finding here
    report = check_cases(cases, progress=True)
    print(report.to_markdown())
    return OK if report.ok else FAILED


def _open(options: argparse.Namespace, **more: Any) -> Any:
    from unet_lib.source import open_dataset

    source = open_dataset(options.folder, fold=options.fold, split=options.split, **more)
    print(source, flush=True)
    return source


def train(options: argparse.Namespace) -> int:
    """Train on one fold, on one process or several."""
    from unet_lib.training.distributed import joined

    with joined() if options.distributed else nullcontext():
        return _train(options)


def _train(options: argparse.Namespace) -> int:
    from unet_lib.images import Preprocessing
    from unet_lib.model import UNetConfig
    from unet_lib.plots import plot_history, save_figure
    from unet_lib.training import Recipe, TrainingConfig, train
    from unet_lib.training.start import settings_of

    preprocessing = Preprocessing(options.size)
    network = UNetConfig(
        filters=options.filters,
        depth=options.depth,
        encoder=options.encoder,
        encoder_weights="imagenet" if options.imagenet else None,
    )
    if options.start_from:
        if network != UNetConfig():
            raise ValueError(
                f"--start-from {options.start_from}: brings its network; leave --filters, --depth, "
                "--encoder and --imagenet out."
            )
        network, preprocessing = settings_of(options.start_from)
        preprocessing = replace(preprocessing, size=options.size)
    recipe = Recipe(
        network=network,
        preprocessing=preprocessing,
        training=TrainingConfig(
            epochs=options.epochs,
            warmup_epochs=min(3.0, options.epochs / 5),
            batch_size=options.batch_size,
            accumulate=options.accumulate,
            learning_rate=options.learning_rate,
            seed=options.seed,
            precision=options.precision,
            deterministic=options.deterministic,
            workers=options.workers,
            start_from=options.start_from,
        ),
    )
    source = _open(options, normals=not options.no_normals)
    run = train(
        source.split, options.out, recipe, provenance=source.provenance, resume=options.resume
    )
    if run is None:  # of several processes the first one has the run
        return OK
    save_figure(plot_history(run.history, about=run.segmenter.provenance), run.folder / CURVES)
    result = {k: v for k, v in run.result.items() if k != "candidates"}
    print(json.dumps(result, indent=2))
    print(f"model: {run.folder / 'model'}")
    return OK


def evaluate(options: argparse.Namespace) -> int:
    """Score a model on one part of a fold and write the report."""
    from unet_lib.files import folder_lock
    from unet_lib.inference import evaluate_cases, show_cases
    from unet_lib.report import write_report

    source = _open(options)
    cases = source.cases if options.part == "all" else getattr(source.split, options.part)
    check_out(options.out, [case.image_path for case in cases])
    segmenter = load_model(options, source.split.validation)
    about = {**source.provenance, "part": options.part}
    with folder_lock(options.out):
        evaluation = evaluate_cases(segmenter, cases, provenance=about)
        report = write_report(evaluation, options.out, show=show_cases(segmenter, cases))
    print(report.read_text(encoding="utf-8"))
    print(f"report and figures: {options.out}")
    return OK


def load_model(options: argparse.Namespace, validation: Sequence[Any] | None = None) -> Any:
    """Load the segmenter that ``--model`` names, and say which.

    What a file trained elsewhere does not tell is settled on `validation` cases.
    """
    from unet_lib.images import Preprocessing
    from unet_lib.model import UNetConfig
    from unet_lib.weights import choose_model, load_segmenter
    from unet_lib.weights.folder import check_engine

    names = ("size", "filters", "depth", "encoder")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.model.endswith((".h5", ".keras")):
        preprocessing = Preprocessing(given.pop("size", Preprocessing().size))
        network = UNetConfig(**given)
        segmenter, why = choose_model(
            options.model, data="", fold=0, config=network, preprocessing=preprocessing,
            validation=validation,
        )  # fmt: skip
        print(why)
    elif given:
        raise ValueError(
            f"--{', --'.join(given)}: only for a weights file (.weights.h5); {options.model} says "
            "this itself. Leave it out."
        )
    else:
        segmenter = load_segmenter(options.model)
    check_engine(options.engine)
    print(
        f"model: {segmenter.provenance.name}, threshold {segmenter.threshold:g}, input "
        f"{segmenter.preprocessing.size} x {segmenter.preprocessing.size}",
        flush=True,
    )
    return segmenter


def check_out(out: Path, inputs: Sequence[Path]) -> None:
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
