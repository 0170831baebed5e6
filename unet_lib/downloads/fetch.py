"""One file from the web, by pooch, or from Google Drive, by gdown: whole and checked, or not there.

pooch compares the hash, shows progress and takes a file that is there already; it neither goes on
with what arrived of an interrupted download nor bounds its length, and so neither do we.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from unet_lib.files import draft_folder

_TIMEOUT = (20, 60)  # seconds: to connect, between two bytes
_PATIENCE = 180.0  # seconds to the first byte: gdown follows Drive's pages without an end


class DownloadError(RuntimeError):
    """A file could not be had; the message says why and how to get it by hand."""


def fetch(
    url: str, path: Path, digest: str, *, link: str, advice: str = "", progress: bool = True
) -> Path:
    """Download a file whose hash is known, as ``algorithm:hexadecimal``; one with it stays.

    `link` is what to open in a browser when it fails, `advice` what to do then.
    """
    import pooch
    import requests

    algorithm, _, expected = digest.partition(":")
    if path.is_file():
        if pooch.file_hash(path, algorithm) == expected:
            return path
        raise DownloadError(f"{path}: another file is there already; move it away.")
    pooch.get_logger().setLevel("WARNING")
    get = pooch.HTTPDownloader(progressbar=progress, timeout=_TIMEOUT)
    with draft_folder(path.parent, path.name) as draft:
        try:
            pooch.retrieve(url, digest, path.name, draft, downloader=get)
        except (requests.RequestException, ValueError) as error:
            text = " ".join(str(error).split())
            raise DownloadError(f"{url}: {text}. {_by_hand(link, path)} {advice}") from error
        os.replace(draft / path.name, path)
    return path


def drive_link(file_id: str) -> str:
    """Return what to open in a browser for a file on Google Drive."""
    return f"https://drive.google.com/file/d/{file_id}/view"


def fetch_drive(file_id: str, path: Path, accept: Callable[[Path], None], progress: bool) -> None:
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
                timeout=_TIMEOUT,
                retries=2,  # of a broken connection
                cancel=cancel,
                progress=lambda _bytes, _total: patience.cancel(),
            )
            accept(draft / path.name)
            os.replace(draft / path.name, path)
        except Exception as error:  # gdown lets errors of many kinds through, KeyError among them
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            by_hand = _by_hand(drive_link(file_id), path)
            raise DownloadError(f"Google Drive file {file_id}: {text}. {by_hand}") from error
        finally:
            patience.cancel()


def _by_hand(link: str, path: Path) -> str:
    folder = path.parent.resolve()
    return f"By hand: open {link} in a browser and put the file into {folder} as {path.name}."
