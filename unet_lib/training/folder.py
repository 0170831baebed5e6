"""The folder of a run: what lies in it, whose it is, what a finished one holds."""

from __future__ import annotations

import csv
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unet_lib.backend import describe_hardware
from unet_lib.dataset import Folds, Split
from unet_lib.files import WriteError, read_json, write_atomic
from unet_lib.inference import Segmenter
from unet_lib.provenance import Provenance, package_versions
from unet_lib.training.recipe import Recipe
from unet_lib.weights import load_segmenter

__all__ = ["Run", "check_room", "claim_folder", "load_run", "read_settings", "write_json"]

SETTINGS, SPLIT, HISTORY, RESULT = "settings.json", "split.csv", "history.csv", "result.json"
MODEL = "model"
_BYTES = 44  # a parameter: state with moments and mean, twice while it is written; best, model


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    recipe: Recipe
    history: list[dict[str, float]]  # a row for each epoch: losses, scores, rate, seconds
    result: dict[str, Any]  # best epoch and its scores, threshold, hours; of phantoms a warning
    segmenter: Segmenter  # with the weights of the best epoch, in float32


def load_run(folder: str | Path) -> Run:
    """Read a finished run; ValueError where the folder holds none."""
    folder = Path(folder)
    if not (folder / RESULT).is_file():
        raise ValueError(
            f"{folder}: no finished run ({RESULT} is missing). Train, or resume an interrupted "
            "run with resume=True."
        )
    with open(folder / HISTORY, encoding="utf-8", newline="") as file:
        history = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    recipe = Recipe.from_dict(read_settings(folder / SETTINGS)["recipe"])
    result = read_settings(folder / RESULT)
    return Run(folder, recipe, history, result, load_segmenter(folder / MODEL))


def claim_folder(
    folder: Path, recipe: Recipe, split: Split, provenance: Provenance, resume: bool
) -> None:
    """Take an empty folder for this run, or check that the one in it is the same run."""
    split_csv = Folds.of_split(split)
    if (folder / SETTINGS).is_file() and resume:
        settings = read_settings(folder / SETTINGS)
        # A setting that the library has got since has its default there.
        stored = Recipe.from_dict(settings["recipe"]).to_dict()
        differ = [
            f"{part}.{key}: {stored[part].get(key)!r} there, {values.get(key)!r} now"
            for part, values in recipe.to_dict().items()
            for key in dict.fromkeys([*values, *stored[part]])
            if stored[part].get(key) != values.get(key)
        ]
        if Folds.read(folder / SPLIT).rows != split_csv.rows:
            differ.append("the split differs")
        begun, now = settings["about"].get("started_from"), provenance.started_from
        if now not in (None, begun):  # of a finished run it is not asked
            differ.append(f"started_from: {begun} there, {now} now")
        if differ:
            raise ValueError(
                f"{folder}: holds a run of other settings ({'; '.join(differ)}). Resume with the "
                "same settings, or train into another folder."
            )
        return
    there = {path.name for path in folder.iterdir()}
    # The settings are written last: a split alone is a run that was killed before it began.
    if there and not (resume and there == {SPLIT}):
        raise FileExistsError(
            f"{folder}: is not empty. Resume the run in it with resume=True (--resume), or "
            "choose another folder."
        )
    split_csv.save(folder / SPLIT)
    settings = {"recipe": recipe.to_dict(), "about": provenance.to_dict()}
    write_json(folder / SETTINGS, settings | _environment())


def check_room(folder: Path, network: Any) -> None:
    """Refuse a disk that has no room for what a run writes, before the first epoch."""
    needed = _BYTES * network.count_params()
    free = shutil.disk_usage(folder).free
    if free < needed:
        text = f"a run needs {needed / 1e6:.0f} MB there, {free / 1e6:.0f} MB are free"
        raise WriteError(folder, OSError(text))


def release_folder(folder: Path) -> None:
    """Take back `claim_folder`: the run was refused before its first epoch."""
    for name in (SETTINGS, SPLIT):
        (folder / name).unlink(missing_ok=True)


def _environment() -> dict[str, Any]:
    """Return time, hardware, versions and commit (with "+changes" where files differ)."""
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        git = ""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": describe_hardware(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": git or None,
    }


def read_settings(path: Path) -> Any:
    """Read a JSON file of a run; ValueError names it."""
    try:
        return read_json(path)
    except ValueError as error:
        raise ValueError(
            f"{path}: cannot be read ({error}). Restore it, or train into another folder."
        ) from error


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON, whole or not at all."""
    write_atomic(path, json.dumps(values, indent=2) + "\n")
