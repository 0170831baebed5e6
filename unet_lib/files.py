"""Write a file whole or not at all: a reader sees the old content or the new."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tempfile

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WRITING = ".writing-"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder and move it onto `path` at the end.

    A reader sees the old file or the new one, never half of it. The folder is made when absent.

    Parameters
    ----------
    path : str or Path
        Where the file is to end.

    Yields
    ------
    Path
        The temporary path to write to; its name ends like `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_WRITING, suffix=f"-{path.name}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give the result the usual rights of this user's files.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write bytes or text (as UTF-8, line ends as they are) whole or not at all.

    Parameters
    ----------
    path : str or Path
        Missing parent folders are made.
    data : bytes or str

    Returns
    -------
    Path
        The file written.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return path


class FolderInUse(OSError):
    """Another process works in the folder; the message names it and says what to do."""


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Keep a folder for this process, which must exist, until the end of the block.

    The operating system lets go of it when the process ends, however it ends; no file is left
    behind. What a killed process was writing (`atomic_path`) is removed. On Windows, and on file
    systems without locks, nothing is locked.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    FolderInUse
        Another process holds it.
    """
    folder = Path(folder)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUse(
                f"{folder}: another process is working in this folder. Wait until it has ended, "
                "or take another folder."
            ) from error
        except OSError:  # a file system without locks
            yield
            return
        for left in folder.glob(f"{_WRITING}*"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


def read_text(path: str | Path) -> str:
    """Read a text file as UTF-8, with or without byte order mark.

    Raises
    ------
    ValueError
        It cannot be read or is not UTF-8. The message is the reason alone: the caller names the
        file, what it should be, and the remedy.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8 text") from error


def read_rows(path: str | Path) -> list[list[str]]:
    """Read a CSV file; errors as of `read_text`, also for lines that are not CSV."""
    try:
        return list(csv.reader(read_text(path).splitlines()))
    except csv.Error as error:
        raise ValueError(str(error)) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file; errors as of `read_text`, also for what is not JSON or nested too deep."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
