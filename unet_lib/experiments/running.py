"""Cross-validation of a recipe: folds trained, scored on validation, and once on the test parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unet_lib.dataset import Case, Folds, Split
from unet_lib.experiments.crossvalidation import (
    DESCRIPTION,
    PARTS,
    CrossValidation,
    is_scored,
    load_crossvalidation,
)
from unet_lib.files import folder_lock, write_atomic
from unet_lib.inference import evaluate_cases
from unet_lib.phantoms import phantom_kind
from unet_lib.training import Recipe, Run, train

__all__ = ["crossvalidate", "train_on_all"]


def crossvalidate(
    cases: Sequence[Case],
    folds: Folds,
    folder: str | Path,
    recipe: Recipe | None = None,
    *,
    about: dict[str, Any] | None = None,
    which: Iterable[int] | None = None,
    normals: bool = True,
    final: bool = False,
    progress: bool = True,
) -> CrossValidation:
    """Train a recipe on folds and score each on its validation part.

    Each fold is a run of `train` in ``fold<k>/``: an interrupted call goes on where it was, and
    finished folds are kept.

    Parameters
    ----------
    cases : sequence of Case
        All cases of the data set.
    folds : Folds
    folder : str or Path
        Holds one recipe on one split.
    recipe : Recipe, optional
        The default one when left out.
    about : dict, optional
        ``data`` and ``data_kind``, as `open_dataset` tells them.
    which : iterable of int, optional
        Folds to train now; all when left out.
    normals : bool
        Whether images of class normal take part in training. They are scored in any case.
    final : bool
        Score the test parts too. Only for a recipe that will not be changed any more: whoever
        chooses among recipes by their test scores reports the luckiest.
    progress : bool
        Show progress bars.

    Returns
    -------
    CrossValidation
        All folds that are finished, also those of earlier calls.

    Raises
    ------
    ValueError
        The folder holds another recipe, or a fold does not exist.
    """
    folder, recipe = Path(folder), recipe or Recipe()
    chosen = range(folds.count) if which is None else sorted(set(which))
    facts = {"data": "", "data_kind": "clinical", **(about or {})}
    facts = {key: facts[key] for key in ("data", "data_kind")} | phantom_kind(
        case.image_path for case in cases
    )
    facts |= {"split": folds.name, "folds": folds.count, "normals": normals}
    with folder_lock(folder, wait=True):  # its folds may be trained by several processes
        _claim(folder, recipe, facts)
    for fold in chosen:
        split = folds.split(cases, fold)
        trained = folds.split(cases, fold, normals=normals)
        told = {**facts, "fold": fold}
        run = train(
            Split(trained.train, split.validation, split.test, split.name),
            folder / f"fold{fold}",
            recipe,
            about={**told, "split": split.name},
            resume=True,
            progress=progress,
        )
        for part in PARTS if final else PARTS[:1]:
            _score(run, getattr(split, part), {**told, "split": split.name, "part": part}, progress)
    return load_crossvalidation(folder)


def train_on_all(
    cases: Sequence[Case],
    folder: str | Path,
    done: CrossValidation,
    *,
    progress: bool = True,
) -> Run:
    """Train the recipe of a cross-validation on every case, for images of other people.

    There is nothing left to choose epoch and threshold on: all epochs of the recipe are trained,
    threshold and cleaning are those of the folds (`CrossValidation.operating_point`).

    Parameters
    ----------
    cases : sequence of Case
    folder : str or Path
        The run folder; an interrupted run goes on.
    done : CrossValidation
        With all its folds.
    progress : bool
        Show progress bars.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        Folds are missing.
    """
    if len(done.folds) < done.about["folds"]:
        raise ValueError(
            f"{done.folder}: {len(done.folds)} of {done.about['folds']} folds are finished; train "
            "the others before a model on all images."
        )
    taken = tuple(c for c in cases if done.about["normals"] or c.label != "normal")
    facts = {key: done.about[key] for key in ("data", "data_kind", "normals")}
    facts["operating_point_from"] = done.name
    return train(
        Split(taken, (), (), f"all of {done.about['data']}"),
        folder,
        done.recipe,
        about=facts,
        operating_point=done.operating_point(),
        resume=True,
        progress=progress,
    )


def _claim(folder: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
    """Write what the folder holds, or check that it holds this."""
    wanted = {"recipe": recipe.to_dict(), **facts}
    path = folder / DESCRIPTION
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        # A setting that the library has got since has its default there.
        stored["recipe"] = Recipe.from_dict(stored["recipe"]).to_dict()
        if stored != wanted:
            raise ValueError(
                f"{path}: tells of another recipe, split or data. Take another folder, or the "
                "settings that it tells."
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is not empty and holds no {DESCRIPTION}. Take another.")
    write_atomic(path, json.dumps(wanted, indent=2) + "\n")


def _score(run: Run, cases: Sequence[Case], about: dict[str, Any], progress: bool) -> None:
    """Score one part of a fold unless it was scored before."""
    folder = run.folder / about["part"]
    if not is_scored(folder):
        with folder_lock(folder):
            evaluate_cases(run.segmenter, cases, provenance=about, progress=progress).save(folder)
