"""Weights that have a name: the folders under ``weights/``, and files on Google Drive, by gdown.

A download is whole and checked, or not there; an interrupted one begins anew.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from unet_lib.files import USER_FOLDER, WEIGHTS_FOLDER, draft_folder, read_json, sha256, write_json

_ELSEWHERE, _RECORD = "elsewhere.json", "weights/downloads.json"
TIMEOUT = (20, 60)  # seconds: to connect, between two bytes
_PATIENCE = 180.0  # seconds to the first byte: gdown follows Drive's pages without an end


class DownloadError(RuntimeError):
    """A file could not be had; the message says why and how to get it by hand."""


@dataclass(frozen=True)
class WeightsEntry:
    """What is stated of weights that have a name; claims that nobody could check are so called."""

    name: str
    where: str  # a folder of the repository or a link for a browser
    path: Path  # where the weights file lies, or goes
    size: int | None  # bytes; None: nobody has recorded it
    sha256: str | None  # of the weights file; None: nobody has recorded it
    licence: str
    trained_on: str
    results: str
    drive_id: str | None = None  # of a file on Google Drive


def weights_registry() -> dict[str, WeightsEntry]:
    """Return every entry by name: the models of the repository first.

    A file elsewhere whose hash was not published takes size and hash from
    ``weights/downloads.json``, which the first download writes. Commit that file, and everybody's
    download is compared with yours. ValueError: a file of the registry cannot be read.
    """
    entries = {}
    for settings in sorted(WEIGHTS_FOLDER.glob("*/segmenter.json")):
        name, path = settings.parent.name, settings.with_name("model.weights.h5")
        stored = _read(settings)
        model = stored.get("about", {})
        images = model.get("parts", {}).get("train", "?")
        entries[name] = WeightsEntry(
            name=name,
            where=f"this repository, weights/{name}",
            path=path,
            size=path.stat().st_size if path.is_file() else None,
            sha256=stored.get("weights_sha256"),
            licence="MIT",
            trained_on=f"{model.get('data', '?')}, {model.get('split', '?')}: {images} images",
            results=model.get("results", "see CARD.md"),
        )
    recorded = _read(USER_FOLDER / _RECORD)
    for name, entry in _read(WEIGHTS_FOLDER / _ELSEWHERE).items():
        path = USER_FOLDER / entry.pop("file")
        if not entry["sha256"]:
            entry |= recorded.get(name, {})
        entries[name] = WeightsEntry(
            name=name, where=_drive_link(entry["drive_id"]), path=path, **entry
        )
    return entries


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object, received {type(values).__name__}.")
    return values


def download_model(name: str, *, progress: bool = True) -> tuple[Path, str]:
    """Get registered weights and check them.

    Parameters
    ----------
    name : str
        A name of `weights_registry`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    path : Path
        The weights file.
    checked : str
        One sentence: what was checked.

    Raises
    ------
    ValueError
        No such name.
    DownloadError
        The file could not be had, is not the registered one, or another file is in its place;
        nothing is overwritten and nothing half-written stays.
    """
    entries = weights_registry()
    if name not in entries:
        raise ValueError(f"{name}: no such weights. Registered: {', '.join(entries)}.")
    entry = entries[name]
    there = entry.path.is_file()
    if not there and entry.drive_id is None:
        raise DownloadError(
            f"{entry.path}: missing; it comes with the repository. Restore it with git."
        )
    if not there:
        _fetch_drive(entry.drive_id, entry.path, lambda path: _accept(path, entry), progress)
    digest = sha256(entry.path)
    if there and digest != entry.sha256:
        remedy = "Move it away to download the registered file, or use it as it is."
        raise DownloadError(
            f"{entry.path}: there is a file already; its SHA-256 is {digest}, the registered one "
            f"is {entry.sha256 or 'not recorded yet'}. It is not overwritten. "
            f"{remedy if entry.drive_id else 'Restore it with git.'}"
        )
    if entry.sha256:
        return entry.path, f"{'Already there; ' * there}SHA-256 as registered: {digest}."
    return entry.path, (
        f"First download: SHA-256 {digest} is recorded in weights/downloads.json and checked from "
        "now on. Nobody published it, so this one could not be compared."
    )


def _accept(path: Path, entry: WeightsEntry) -> None:
    """Raise ValueError for a file of no use; record the hash of the first."""
    try:
        h5py.File(path, "r").close()  # compares the length with the one in the header
    except OSError as error:
        raise ValueError(f"expected a whole Keras .weights.h5 file ({error})") from error
    digest = sha256(path)
    if entry.sha256 is None:
        record = {entry.name: {"size": path.stat().st_size, "sha256": digest}}
        recorded = _read(USER_FOLDER / _RECORD) | record
        write_json(USER_FOLDER / _RECORD, recorded)
    elif digest != entry.sha256:
        raise ValueError(
            f"its SHA-256 is {digest}, expected {entry.sha256}: the file is damaged or was "
            "replaced since; it is not used"
        )


def _drive_link(file_id: str) -> str:
    """Return what to open in a browser for a file on Google Drive."""
    return f"https://drive.google.com/file/d/{file_id}/view"


def _fetch_drive(file_id: str, path: Path, accept: Callable[[Path], None], progress: bool) -> None:
    """Download a shared file from Google Drive; `accept` raises ValueError for one of no use."""
    import gdown

    cancel = threading.Event()
    patience = threading.Timer(_PATIENCE, cancel.set)
    patience.daemon = True
    with draft_folder(path.parent, path.name) as draft:
        try:
            patience.start()
            gdown.download(
                id=file_id,
                output=str(draft / path.name),
                quiet=not progress,
                use_cookies=False,  # neither reads nor writes a file in the user's home
                timeout=TIMEOUT,
                retries=2,  # of a broken connection
                cancel=cancel,
                progress=lambda _bytes, _total: patience.cancel(),
            )
            accept(draft / path.name)
            os.replace(draft / path.name, path)
        except Exception as error:  # gdown lets errors of many kinds through, KeyError among them
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            advice = by_hand(_drive_link(file_id), path)
            raise DownloadError(f"Google Drive file {file_id}: {text}. {advice}") from error
        finally:
            patience.cancel()


def by_hand(link: str, path: Path) -> str:
    """Say how to get a file with a browser."""
    folder = path.parent.resolve()
    return f"By hand: open {link} in a browser and put the file into {folder} as {path.name}."
