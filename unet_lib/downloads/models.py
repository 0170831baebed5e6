"""Weights by their registered name."""

from __future__ import annotations

from pathlib import Path

from unet_lib.downloads.drive import fetch_drive, refuse_other_than_hdf5
from unet_lib.downloads.fetch import DownloadError
from unet_lib.downloads.registry import WeightsEntry, record_download, weights_registry
from unet_lib.files import sha256

__all__ = ["download_model"]


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
    facts : str
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
    if entry.path.exists() or entry.drive_id is None:
        return entry.path, _verify_present(entry)

    def accept(path: Path) -> None:
        refuse_other_than_hdf5(path)
        found = sha256(path)
        if entry.sha256 is None:
            record_download(name, path.stat().st_size, found)
        elif found != entry.sha256:
            raise ValueError(
                f"its SHA-256 is {found}, expected {entry.sha256}: the file is damaged or was "
                "replaced since. It is not used."
            )

    fetch_drive(entry.drive_id, entry.path, accept=accept, progress=progress)
    if entry.sha256:
        return entry.path, f"SHA-256 as registered: {entry.sha256}."
    return entry.path, (
        f"First download: SHA-256 {sha256(entry.path)} is recorded in weights/downloads.json and "
        "checked from now on. Nobody published it, so this one could not be compared."
    )


def _verify_present(entry: WeightsEntry) -> str:
    """Compare a file that is there with the registry."""
    if not entry.path.is_file():
        raise DownloadError(
            f"{entry.path}: missing; it comes with the repository. Restore it with git."
        )
    found = sha256(entry.path)
    if found == entry.sha256:
        return f"Already there; SHA-256 as registered: {found}."
    known = f"the registered SHA-256 is {entry.sha256}" if entry.sha256 else "no hash is known yet"
    remedy = (
        "Move it away to download the registered file, or use it as it is."
        if entry.drive_id
        else "Restore it with git."
    )
    raise DownloadError(
        f"{entry.path}: there is a file already; its SHA-256 is {found}, {known}. It is not "
        f"overwritten. {remedy}"
    )
