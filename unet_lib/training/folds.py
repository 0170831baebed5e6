"""Cross-validation of a recipe: folds trained, scored on validation, and once on the test parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.dataset import Case, Folds, Split
from unet_lib.files import folder_lock, read_json, write_json
from unet_lib.inference import Cleaning, evaluate_cases
from unet_lib.metrics import Evaluation
from unet_lib.phantoms import phantom_kind
from unet_lib.provenance import Provenance
from unet_lib.training.recipe import Recipe
from unet_lib.training.result import RESULT, SETTINGS, Run
from unet_lib.training.run import train

DESCRIPTION = "crossvalidation.json"
PARTS = ("validation", "test")


@dataclass(frozen=True)
class CrossValidation:
    """The folds of one recipe that have been trained."""

    folder: Path
    recipe: Recipe
    provenance: Provenance  # data, kind of data, split, number of folds, whether normals trained
    results: dict[int, dict[str, Any]]  # by fold: best epoch, threshold, cleaning, hours
    scores: dict[str, dict[int, Evaluation]]  # by part and fold; of the test when it is final
    environment: dict[str, Any]  # of the first fold: hardware, versions, commit

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    def operating_point(self) -> tuple[float, Cleaning]:
        """Return the median threshold of the folds and their commonest cleaning."""
        threshold = float(np.median([result["threshold"] for result in self.results.values()]))
        cleanings = [Cleaning.from_dict(result["cleaning"]) for result in self.results.values()]
        return threshold, max(sorted(set(cleanings), key=astuple), key=cleanings.count)


def load_crossvalidation(folder: str | Path) -> CrossValidation:
    """Read a cross-validation, or what was committed of it; ValueError where there is none."""
    folder = Path(folder)
    try:
        stored = read_json(folder / DESCRIPTION)
        recipe, count = Recipe.from_dict(stored.pop("recipe")), int(stored["folds"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / DESCRIPTION}: cannot be read ({error}); expected a folder of crossvalidate."
        ) from error
    places = {fold: folder / f"fold{fold}" for fold in range(count)}
    places = {fold: place for fold, place in places.items() if _is_scored(place / PARTS[0])}
    if not places:
        raise ValueError(f"{folder}: no fold is finished yet; give the same command again.")
    scores = {
        part: {k: Evaluation.load(p / part) for k, p in places.items() if _is_scored(p / part)}
        for part in PARTS
    }
    results = {fold: read_json(place / RESULT) for fold, place in places.items()}
    environment = read_json(places[min(places)] / SETTINGS)
    return CrossValidation(folder, recipe, Provenance.of(stored), results, scores, environment)


def crossvalidate(
    cases: Sequence[Case],
    folds: Folds,
    folder: str | Path,
    recipe: Recipe | None = None,
    *,
    provenance: Provenance | Mapping[str, Any] | None = None,
    which: Iterable[int] | None = None,
    normals: bool = True,
    final: bool = False,
    progress: bool = True,
) -> CrossValidation:
    """Train a recipe on folds (all, or `which`) and score each on its validation part.

    Each fold is a run of `train` in ``fold<k>/``: an interrupted call goes on where it was, and
    finished folds are kept. Without `normals` images of that class do not train; they are scored in
    any case. `final` scores the test parts too: only for a recipe that will not be changed any
    more, since whoever chooses among recipes by their test scores reports the luckiest.
    """
    folder, recipe, given = Path(folder), recipe or Recipe(), Provenance.of(provenance)
    chosen = range(folds.count) if which is None else sorted(set(which))
    splits = {fold: folds.split(cases, fold) for fold in chosen}  # or refuses one that is not there
    kind = phantom_kind(case.image_path for case in cases)
    shared = Provenance(
        **({"data": given.data or "", "data_kind": given.data_kind or "clinical"} | kind),
        split=folds.name,
        sets=given.sets,
        folds=folds.count,
        normals=normals,
        own_split=given.own_split,
    )
    with folder_lock(folder, wait=True):  # its folds may be trained by several processes
        _claim(folder, recipe, shared)
    for fold, split in splits.items():
        leaks = folds.leaks[fold] if folds.leaks else given.own_split
        of_fold = shared.but(fold=fold, split=split.name, own_split=leaks)
        training = tuple(case for case in split.train if normals or case.label != "normal")
        run = train(
            replace(split, train=training),
            folder / f"fold{fold}",
            recipe,
            provenance=of_fold,
            resume=True,
            progress=progress,
        )
        for part in PARTS if final else PARTS[:1]:
            place, scored = run.folder / part, getattr(split, part)
            if not _is_scored(place):
                with folder_lock(place):
                    of_fold = of_fold.but(part=part)
                    evaluate_cases(
                        run.segmenter, scored, provenance=of_fold, progress=progress
                    ).save(place)
    return load_crossvalidation(folder)


def train_on_all(
    cases: Sequence[Case], folder: str | Path, folds: CrossValidation, *, progress: bool = True
) -> Run:
    """Train the recipe of a cross-validation on every case, for images of other people.

    There is nothing left to choose epoch and threshold on: all epochs of the recipe are trained,
    threshold and cleaning are those of the folds (`CrossValidation.operating_point`). An
    interrupted run goes on.
    """
    data = folds.provenance
    if len(folds.results) < data.folds:
        raise ValueError(
            f"{folds.folder}: {len(folds.results)} of {data.folds} folds are finished; train "
            "the others before a model on all images."
        )
    taken = tuple(case for case in cases if data.normals or case.label != "normal")
    return train(
        Split(taken, (), (), f"all of {data.data}"),
        folder,
        folds.recipe,
        provenance=data.but(
            split=None, folds=None, own_split=None, operating_point_from=folds.name
        ),
        operating_point=folds.operating_point(),
        resume=True,
        progress=progress,
    )


def _claim(folder: Path, recipe: Recipe, data: Provenance) -> None:
    """Write what the folder holds, or check that it holds this."""
    wanted = {"recipe": recipe.to_dict()} | data.to_dict()
    path = folder / DESCRIPTION
    if path.is_file():
        stored = read_json(path)
        # A setting that the library has got since has its default there.
        stored["recipe"] = Recipe.from_dict(stored["recipe"]).to_dict()
        if any(wanted.get(name) != value for name, value in stored.items()):
            raise ValueError(
                f"{path}: tells of another recipe, split or data. Take another folder, or the "
                "settings that it tells."
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is not empty and holds no {DESCRIPTION}. Take another.")
    write_json(path, wanted)


def _is_scored(folder: Path) -> bool:
    return (folder / "about.json").is_file()  # written last
