"""Cross-validation of a recipe: folds trained, scored on validation, and once on the test parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.dataset import Case, Folds, Split
from unet_lib.experiments.tables import all_tables
from unet_lib.files import folder_lock, write_atomic
from unet_lib.inference import Cleaning, evaluate_cases
from unet_lib.metrics import Evaluation, merge_evaluations
from unet_lib.phantoms import phantom_kind
from unet_lib.report import write_report
from unet_lib.training import Recipe, Run, train
from unet_lib.training.run import HISTORY, RESULT, SETTINGS

__all__ = [
    "CrossValidation",
    "FoldScores",
    "crossvalidate",
    "load_crossvalidation",
    "publish",
    "recipe_digest",
    "train_on_all",
]

DESCRIPTION = "crossvalidation.json"
PARTS = ("validation", "test")


@dataclass(frozen=True)
class FoldScores:
    """One trained fold and its scores.

    Attributes
    ----------
    fold : int
    result : dict
        Of the run: best epoch, threshold, cleaning, hours.
    validation : Evaluation
    test : Evaluation or None
        None until the recipe is final.
    """

    fold: int
    result: dict[str, Any]
    validation: Evaluation
    test: Evaluation | None


@dataclass(frozen=True)
class CrossValidation:
    """The folds of one recipe that have been trained.

    Attributes
    ----------
    folder : Path
    recipe : Recipe
    about : dict
        Data, kind of data, split, number of folds, whether normals took part in training.
    folds : tuple of FoldScores
    environment : dict
        Of the first fold: hardware, versions, commit.
    """

    folder: Path
    recipe: Recipe
    about: dict[str, Any]
    folds: tuple[FoldScores, ...]
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def digest(self) -> str:
        """The `recipe_digest`."""
        return recipe_digest(
            self.recipe, self.about["data"], self.about["split"], self.about["normals"]
        )

    def evaluations(self, part: str) -> dict[int, Evaluation]:
        """Return the scores of one part by fold; folds that were not scored are left out."""
        scored = {fold.fold: getattr(fold, part) for fold in self.folds}
        return {fold: found for fold, found in scored.items() if found is not None}

    def operating_point(self) -> tuple[float, Cleaning]:
        """Return the median threshold of the folds and their commonest cleaning."""
        threshold = float(np.median([fold.result["threshold"] for fold in self.folds]))
        cleanings = [json.dumps(fold.result["cleaning"], sort_keys=True) for fold in self.folds]
        commonest = max(sorted(set(cleanings)), key=cleanings.count)
        return threshold, Cleaning.from_dict(json.loads(commonest))


def recipe_digest(recipe: Recipe, data: str, split: str, normals: bool) -> str:
    """Tell a recipe on a split from any other: 12 hexadecimal digits.

    Only settings that differ from the default count, so that a setting added to the library later
    leaves the digits of earlier recipes as they were.
    """
    changed = {
        part: {name: value for name, value in settings.items() if value != default[name]}
        for (part, settings), default in zip(
            recipe.to_dict().items(), Recipe().to_dict().values(), strict=True
        )
    }
    told = {"recipe": changed, "data": data, "split": split, "normals": normals}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


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
    facts = {key: facts[key] for key in ("data", "data_kind")} | phantom_kind(cases)
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


def load_crossvalidation(folder: str | Path) -> CrossValidation:
    """Read a cross-validation, or what was committed of it.

    Raises
    ------
    ValueError
        The folder holds none, or no fold of it is finished.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        recipe = Recipe.from_dict(stored.pop("recipe"))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder / DESCRIPTION}: cannot be read ({error}); expected a folder of crossvalidate."
        ) from error
    found = []
    for fold in range(stored["folds"]):
        place = folder / f"fold{fold}"
        if _scored(place / "validation"):
            test = Evaluation.load(place / "test") if _scored(place / "test") else None
            validation = Evaluation.load(place / "validation")
            found.append(FoldScores(fold, _json(place / RESULT), validation, test))
    if not found:
        raise ValueError(f"{folder}: no fold is finished yet; give the same command again.")
    environment = _json(folder / f"fold{found[0].fold}" / SETTINGS)
    return CrossValidation(folder, recipe, stored, tuple(found), environment)


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


def publish(done: CrossValidation, folder: str | Path) -> Path:
    """Copy everything but weights, for a repository, with tables and the report of the test.

    Settings, histories and the scores of every image by fold; ``validation/`` and ``test/`` hold
    the tables of all folds together, ``test/`` the report too.

    Parameters
    ----------
    done : CrossValidation
    folder : str or Path
        Made when absent; files of the same name are replaced. `load_crossvalidation` reads it.

    Returns
    -------
    Path
    """
    folder = Path(folder)
    names = [
        f"fold{fold.fold}/{name}" for fold in done.folds for name in (SETTINGS, RESULT, HISTORY)
    ]
    for name in [DESCRIPTION, *names]:
        write_atomic(folder / name, (done.folder / name).read_text(encoding="utf-8"))
    for part in PARTS:
        scores = done.evaluations(part)
        for fold, found in scores.items():
            found.save(folder / f"fold{fold}" / part)
        if scores:
            tables = all_tables(scores, name=done.name, audited=done.about["data"] == "BUSI")
            write_atomic(folder / part / "tables.md", tables)
        if scores and part == "test":
            merged = merge_evaluations(scores)
            merged.about["model"] = done.name
            write_report(merged, folder / part)
    return folder


def _claim(folder: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
    """Write what the folder holds, or check that it holds this."""
    wanted = {"recipe": recipe.to_dict(), **facts}
    path = folder / DESCRIPTION
    if path.is_file():
        stored = _json(path)
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


def _scored(folder: Path) -> bool:
    return (folder / "about.json").is_file()  # written last


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _score(run: Run, cases: Sequence[Case], about: dict[str, Any], progress: bool) -> None:
    """Score one part of a fold unless it was scored before."""
    folder = run.folder / about["part"]
    if not _scored(folder):
        with folder_lock(folder):
            evaluate_cases(run.segmenter, cases, about=about, progress=progress).save(folder)
