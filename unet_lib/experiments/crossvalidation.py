"""What is known of a recipe after its folds: read from its folder, copied for a repository."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.inference import Cleaning
from unet_lib.metrics import Evaluation
from unet_lib.training import Recipe
from unet_lib.training.run import RESULT, SETTINGS

__all__ = [
    "CrossValidation",
    "FoldScores",
    "load_crossvalidation",
    "recipe_digest",
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
        recipe, count = Recipe.from_dict(stored.pop("recipe")), int(stored["folds"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / DESCRIPTION}: cannot be read ({error}); expected a folder of crossvalidate."
        ) from error
    found = []
    for fold in range(count):
        place = folder / f"fold{fold}"
        if is_scored(place / "validation"):
            test = Evaluation.load(place / "test") if is_scored(place / "test") else None
            validation = Evaluation.load(place / "validation")
            found.append(FoldScores(fold, _json(place / RESULT), validation, test))
    if not found:
        raise ValueError(f"{folder}: no fold is finished yet; give the same command again.")
    environment = _json(folder / f"fold{found[0].fold}" / SETTINGS)
    return CrossValidation(folder, recipe, stored, tuple(found), environment)


def is_scored(folder: Path) -> bool:
    """Tell whether a part of a fold was scored."""
    return (folder / "about.json").is_file()  # written last


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
