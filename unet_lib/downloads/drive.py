"""A file on Google Drive, by gdown."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import h5py

from unet_lib.downloads.fetch import DownloadError, by_hand, web_page
from unet_lib.files import draft_folder

__all__ = ["fetch_drive", "refuse_other_than_hdf5"]

_TIMEOUT = (20, 60)  # seconds: to connect, between two bytes
_PATIENCE = 180.0  # seconds to the first byte: gdown follows Drive's pages without an end
_RETRIES = 2  # of a broken connection; quota and permission are not retried
_MAGIC = b"\x89HDF\r\n\x1a\n"


def fetch_drive(
    file_id: str, path: str | Path, *, accept: Callable[[Path], None], progress: bool = True
) -> Path:
    """Download a file from Google Drive into a folder of its own, check it, and move it in place.

    Parameters
    ----------
    file_id : str
        Of a file shared with everybody who has the link.
    path : str or Path
        Where the file is to end.
    accept : callable
        Takes the path of what has arrived and raises ValueError, with the reason, when it is not
        to be used.
    progress : bool
        Show gdown's progress bar.

    Returns
    -------
    Path

    Raises
    ------
    DownloadError
        Whatever goes wrong; with the browser's link and the folder. Nothing is left behind.
    """
    path = Path(path)
    link = f"https://drive.google.com/file/d/{file_id}/view"
    try:
        with draft_folder(path.parent, path.name) as draft:
            temporary = draft / path.name
            _run_gdown(file_id, temporary, progress)
            accept(temporary)
            os.replace(temporary, path)
    except Exception as error:  # gdown lets errors of many kinds through, KeyError among them
        raise DownloadError(
            f"Google Drive file {file_id}: {_explain(error)} {by_hand(link, path)}"
        ) from error
    return path


def _run_gdown(file_id: str, path: Path, progress: bool) -> None:
    import gdown

    cancel = threading.Event()
    patience = threading.Timer(_PATIENCE, cancel.set)
    patience.daemon = True
    patience.start()
    try:
        gdown.download(
            id=file_id,
            output=str(path),
            quiet=not progress,
            use_cookies=False,  # neither reads nor writes a file in the user's home
            timeout=_TIMEOUT,
            retries=_RETRIES,
            cancel=cancel,
            progress=lambda _done, _total: patience.cancel(),
        )
    finally:
        patience.cancel()


def _explain(error: Exception) -> str:
    """Say in one sentence what went wrong."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if kind == "FileURLRetrievalError":
        if "Too many users" in text or "quota" in text.lower():
            return (
                "Drive's download quota of this file is used up for now (Google: too many users "
                "have viewed or downloaded it). It is Google's limit and passes within 24 hours; "
                "a browser in which you are signed in may still get it."
            )
        return (
            "Drive gives no public link: the file is not shared with everybody, was removed, or "
            "was asked for too often (Drive does not tell which)."
        )
    if kind == "DownloadCancelled":
        return f"Drive's pages led to no file within {_PATIENCE:g} s."
    if isinstance(error, ValueError) and kind == "ValueError":
        return text
    if kind == "ModuleNotFoundError":
        return f"{text}: install it with pip install -r requirements.txt."
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be written ({error.strerror}). Free some space."
    return f"the download failed ({kind}: {text})."


def refuse_other_than_hdf5(path: Path) -> None:
    """Refuse a file that is not whole HDF5.

    Raises
    ------
    ValueError
        With what it is instead.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if not start.startswith(_MAGIC):
        kind = "a web page" if web_page(start) else "another file"
        raise ValueError(f"expected a Keras .weights.h5 file, received {kind}.")
    try:
        h5py.File(path, "r").close()  # compares the length with the one in the header
    except OSError as error:
        raise ValueError(f"the file is cut or damaged ({error}).") from error
