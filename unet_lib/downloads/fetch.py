"""One file over HTTP whose hash is known: resumed after an interruption, whole or not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unet_lib.files import WriteError

__all__ = ["DownloadError", "by_hand", "fetch", "web_page"]

_TIMEOUT = (20, 60)  # seconds: to connect, between two bytes
_CHUNK = 1 << 18


class DownloadError(RuntimeError):
    """A file could not be had; the message says why and how to get it by hand."""


def by_hand(link: str, path: Path) -> str:
    """Return the sentence that tells how to get a file with a browser."""
    folder = path.parent.resolve()
    return f"By hand: open {link} in a browser and put the file into {folder} as {path.name}."


def fetch(
    url: str,
    path: str | Path,
    *,
    digest: str,
    most_bytes: int,
    link: str,
    advice: str = "",
    progress: bool = True,
) -> Path:
    """Download a file whose hash is known.

    What has arrived stays as ``<path>.part`` when the connection breaks or the user interrupts,
    and the next call goes on there (HTTP Range). That is safe because the hash of the whole is
    checked before the file takes its name. After any other failure nothing stays.

    Parameters
    ----------
    url : str
    path : str or Path
        Where the file is to end; an existing file is replaced.
    digest : str
        ``<algorithm>:<hexadecimal>``, an algorithm of :mod:`hashlib`.
    most_bytes : int
        A longer answer is refused.
    link : str
        What to open in a browser when it fails.
    advice : str
        What to do after a download by hand; ends the messages.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path

    Raises
    ------
    DownloadError
        No network, certificate not valid, refused, a web page, too long, cut, another hash, or
        the file cannot be written.
    """
    import requests

    path = Path(path)
    part = path.with_name(path.name + ".part")
    keep = False  # what has arrived
    hint = f"{by_hand(link, path)} {advice}".strip()

    def failure(reason: str) -> DownloadError:
        stays = " What has arrived is kept: the same command goes on there."
        kept = stays if keep and part.is_file() and part.stat().st_size else ""
        return DownloadError(f"{url}: {reason}{kept} {hint}")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _matches(part, digest):
            _receive(url, part, most_bytes, progress)
            if not _matches(part, digest):
                raise _Refused(
                    f"expected {digest}, received {_digest(part, digest)}: the file is damaged, "
                    "or another one than was published when this library was written. It is not "
                    "used."
                )
        os.replace(part, path)
    except KeyboardInterrupt:
        keep = True
        raise
    except _Refused as error:
        raise failure(str(error)) from error
    except requests.exceptions.SSLError as error:
        keep = True
        raise failure(
            f"the server's TLS certificate cannot be verified ({_reason(error)}). The check is not "
            "switched off here."
        ) from error
    except requests.exceptions.RequestException as error:
        keep = True
        raise failure(f"the download failed ({_reason(error)}).") from error
    except OSError as error:  # after requests' own errors, which are OSErrors too
        raise failure(str(WriteError(part, error))) from error
    finally:
        if not keep:
            part.unlink(missing_ok=True)
    return path


class _Refused(Exception):
    """What the server sent cannot be the file."""


def _receive(url: str, part: Path, most_bytes: int, progress: bool) -> None:
    """Write the answer to `part`, behind what is there when the server can go on."""
    import requests

    have = part.stat().st_size if part.is_file() else 0
    # Without compression, so that positions are those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if have and response.status_code == 416:  # no such position: what is there is no part of it
            part.unlink()
            return _receive(url, part, most_bytes, progress)
        response.raise_for_status()
        start = response.headers.get("Content-Range", "")
        resumed = response.status_code == 206 and start.startswith(f"bytes {have}-")
        have = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        if (total or 0) > most_bytes:
            raise _Refused(f"announces {total:,} bytes, at most {most_bytes:,} are expected.")
        if web_page(response.headers.get("Content-Type", "").encode(), b"text/html"):
            raise _Refused("the server sent a web page instead of the file.")
        bar = tqdm(
            total=total, initial=have, desc=part.stem, unit="B", unit_scale=True,
            disable=not progress,
        )  # fmt: skip
        with bar, open(part, "ab" if resumed else "wb") as file:
            _copy(response, file, most_bytes - have, bar)


def _copy(response: Any, file: Any, most_bytes: int, bar: tqdm) -> None:
    for chunk in response.iter_content(_CHUNK):
        most_bytes -= len(chunk)
        if most_bytes < 0:
            raise _Refused("the answer is longer than the file can be.")
        file.write(chunk)
        bar.update(len(chunk))


def _reason(error: Exception) -> str:
    """Return the innermost message: requests wraps it into two others."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner))


def web_page(start: bytes, sign: bytes = b"<") -> bool:
    """Whether bytes begin like a web page."""
    return start.lstrip().lower().startswith(sign)


def _digest(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _matches(path: Path, digest: str) -> bool:
    return path.is_file() and _digest(path, digest) == digest
