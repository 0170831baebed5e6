"""The weights that have a name: the folders under ``weights/`` and files elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_lib.files import write_atomic
from unet_lib.folders import USER_FOLDER, WEIGHTS_FOLDER

__all__ = ["WeightsEntry", "record_download", "weights_registry"]

_ELSEWHERE, _RECORD = "elsewhere.json", "weights/downloads.json"


@dataclass(frozen=True)
class WeightsEntry:
    """What is known of weights that have a name.

    Attributes
    ----------
    name : str
    where : str
        Where they come from: a folder of the repository or a link for a browser.
    path : Path
        Where the weights file lies, or goes.
    size : int or None
        Bytes; None: not known.
    sha256 : str or None
        Of the weights file; None: nobody has recorded it.
    licence, trained_on, results : str
        Claims that nobody could check are called claims.
    drive_id : str or None
        Of a file on Google Drive; None for a model of the repository.
    """

    name: str
    where: str
    path: Path
    size: int | None
    sha256: str | None
    licence: str
    trained_on: str
    results: str
    drive_id: str | None = None


def weights_registry() -> dict[str, WeightsEntry]:
    """Return every entry by name: the models of the repository first.

    A file elsewhere whose hash was not published takes size and hash from
    ``weights/downloads.json``, which the first download writes. Commit that file, and everybody's
    download is compared with yours.

    Raises
    ------
    ValueError
        A file of the registry cannot be read; the message names it.
    """
    entries = {path.parent.name: _ours(path) for path in WEIGHTS_FOLDER.glob("*/segmenter.json")}
    entries = dict(sorted(entries.items()))
    recorded = _read(USER_FOLDER / _RECORD)
    for name, facts in _read(WEIGHTS_FOLDER / _ELSEWHERE).items():
        known = facts if facts["sha256"] else recorded.get(name, facts)
        entries[name] = WeightsEntry(
            name=name,
            where=f"https://drive.google.com/file/d/{facts['drive_id']}/view",
            path=USER_FOLDER / facts["file"],
            size=known["size"],
            sha256=known["sha256"],
            licence=facts["licence"],
            trained_on=facts["trained_on"],
            results=facts["results"],
            drive_id=facts["drive_id"],
        )
    return entries


def record_download(name: str, size: int, sha256: str) -> Path:
    """Write down size and hash of the first download of a file."""
    path = USER_FOLDER / _RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    recorded = _read(path) | {name: {"size": size, "sha256": sha256}}
    return write_atomic(path, json.dumps(recorded, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, received {type(values).__name__}")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Restore it with git.") from error
    return values


def _ours(settings: Path) -> WeightsEntry:
    """Read an entry from the model's own folder."""
    stored = _read(settings)
    about, name = stored.get("about", {}), settings.parent.name
    path = settings.parent / "model.weights.h5"
    images = about.get("parts", {}).get("train", "?")
    return WeightsEntry(
        name=name,
        where=f"this repository, weights/{name}",
        path=path,
        size=path.stat().st_size if path.is_file() else None,
        sha256=stored.get("weights_sha256"),
        licence="MIT",
        trained_on=f"{about.get('data', '?')}, {about.get('split', '?')}: {images} images",
        results=about.get("results", "see CARD.md"),
    )
