r"""Publish a joint training: threshold of each fold, scores by set, model folders.

    python -m experiments.publish_joint joint runs experiments/joint BUSI=<BUSI> BUSBRA=<BUS-BRA>

Reads those runs `joint-f<k>` and `joint-all` of `experiments/train_joint.py` that there are. Each
set gets a folder that `load_crossvalidation` reads, `fold<k>/model` the compacted network with the
threshold of its own validation part. The scores are those of the compacted file. Finished folds
are kept.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.transfer import named
from lab.compact_weights import compact_folder
from unet_lib.dataset import COMMITTED_FOLDS, Folds, Split, find_cases
from unet_lib.dataset.cases import METHOD
from unet_lib.files import write_atomic, write_json
from unet_lib.inference import evaluate_cases
from unet_lib.provenance import Provenance
from unet_lib.shift import ShiftMonitor, fit_monitor
from unet_lib.training import Run, load_crossvalidation, load_run, tune_threshold
from unet_lib.training.folds import DESCRIPTION
from unet_lib.training.result import HISTORY, MODEL, RESULT, SETTINGS
from unet_lib.weights import load_segmenter, save_segmenter


def of(out: Path, name: str) -> Path:
    """Return the folder of the scores of one set."""
    return out / f"{out.name}-{name}"


def record(run: Run, parts: dict[str, Split], fold: int | None) -> Provenance:
    """Return what is known of a joint model: names, hashes, groups of each set; None: of all."""
    before = run.segmenter.provenance
    names = {
        part: sorted(f"{name}/{c.name}" for name in parts for c in getattr(parts[name], part))
        for part in ("train", "validation", "test")
    }
    used = {name: [*split.train, *split.validation] for name, split in parts.items()}
    images = {
        "method": METHOD,
        "hashes": sorted({*before.training_images["hashes"], *(before.tuned_on or ())}),
        "groups": [],
        "earlier": {n: sorted({c.group for c in used[n] if c.has_twins}) for n in used},
    }
    return Provenance(
        data=" + ".join(parts),
        data_kind="clinical",
        normals=True,
        fold=fold,
        split=" + ".join(split.name for split in parts.values()),
        parts={part: len(of_part) for part, of_part in names.items()},
        trained_on=names["train"],
        validated_on=names["validation"],
        training_images=images,
    )


def monitor(parts: dict[str, Split]) -> ShiftMonitor:
    """Take the statistics of each set."""
    training, validation = (
        [replace(case, data_set=name) for name in parts for case in getattr(parts[name], part)]
        for part in ("train", "validation")
    )
    return fit_monitor(training, validation)


def make_fold(run: Run, parts: dict[str, Split], fold: int, folder: Path) -> dict[str, Any]:
    """Choose the fold's threshold and write its model folder; returns the result of the run."""
    segmenter = run.segmenter
    cases = [case for split in parts.values() for case in split.validation]
    choice = tune_threshold(segmenter, cases, new_images=True, **run.recipe.training.candidates())
    segmenter.threshold, segmenter.cleaning = choice.chosen.threshold, choice.chosen.cleaning
    segmenter.monitor = monitor(parts)
    result = run.result | choice.to_dict()
    provenance = record(run, parts, fold)
    segmenter.provenance = provenance.but(name=run.folder.name, training=result)
    save_segmenter(segmenter, run.recipe.network, folder)
    compact_folder(folder)
    return result


def publish(run: Run, fold: int, out: Path, folders: dict[str, str]) -> None:
    """Make the model of a fold, then the scores of its validation and test parts by set."""
    folds = {name: Folds.read(COMMITTED_FOLDS[name]) for name in folders}
    parts = {
        name: folds[name].split(find_cases(folder, audit=None), fold)
        for name, folder in folders.items()
    }
    place = out / f"fold{fold}" / MODEL
    result = make_fold(run, parts, fold, place)
    segmenter = load_segmenter(place)
    for name, split in parts.items():
        of_set = Provenance(
            data=name, data_kind="clinical", split=folds[name].name, folds=5, normals=True
        )
        write_json(of(out, name) / DESCRIPTION, {"recipe": run.recipe.to_dict()} | of_set.to_dict())
        home = of(out, name) / f"fold{fold}"
        for part in ("validation", "test"):
            of_part = of_set.but(fold=fold, split=split.name, part=part)
            evaluate_cases(segmenter, getattr(split, part), provenance=of_part).save(home / part)
        for file in (SETTINGS, HISTORY):
            write_atomic(home / file, (run.folder / file).read_bytes())
        write_json(home / RESULT, result)


def publish_all(run: Run, out: Path, folders: dict[str, str]) -> None:
    """Make the model of all images; median threshold and commonest cleaning of the folds."""
    parts = {}
    for name, folder in folders.items():
        cases = find_cases(folder, audit=None)
        split = Folds.read(COMMITTED_FOLDS[name]).split(cases, 0)
        everything = (*split.train, *split.validation, *split.test)
        parts[name] = Split(everything, (), (), f"all of {name}")
    segmenter = run.segmenter
    segmenter.threshold, segmenter.cleaning = load_crossvalidation(
        of(out, next(iter(folders)))
    ).operating_point()
    segmenter.monitor = monitor(parts)
    point = {"threshold": segmenter.threshold, "cleaning": segmenter.cleaning.to_dict()}
    segmenter.provenance = record(run, parts, None).but(
        name=run.folder.name, training=run.result | point, operating_point_from=out.name
    )
    save_segmenter(segmenter, run.recipe.network, out / "all" / MODEL)
    compact_folder(out / "all" / MODEL)


def main() -> None:
    """Publish what is not published yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the runs, which are NAME-f<k> and NAME-all")
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs=2, metavar="SET=FOLDER")
    options = parser.parse_args()
    folders = named(options.sets)
    for fold in range(5):
        place = options.runs / f"{options.name}-f{fold}"
        scored = [of(options.out, name) / f"fold{fold}" / RESULT for name in folders]
        if (place / RESULT).is_file() and not all(path.is_file() for path in scored):
            publish(load_run(place), fold, options.out, folders)
    if (options.runs / f"{options.name}-all" / RESULT).is_file():
        publish_all(load_run(options.runs / f"{options.name}-all"), options.out, folders)


if __name__ == "__main__":
    main()
