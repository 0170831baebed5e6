"""Write a file whole or not at all: a reader sees the old content or the new."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_WRITING, _DRAFT = ".writing-", ".draft-"
_CELL = 1000  # characters
_HELD: ContextVar[frozenset[tuple[int, int]]] = ContextVar("held folders", default=frozenset())
_REMEDIES = {
    "Free some space, or choose a folder on another disk.": (
        errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)
    ),
    "Choose a folder that you may write to.": (errno.EACCES, errno.EPERM, errno.EROFS),
    "A file is where a folder is needed; choose another name.": (
        errno.ENOTDIR, errno.EEXIST, errno.EISDIR
    ),
}  # fmt: skip
_REMEDY = "Choose another folder."


class WriteError(OSError):
    """A file or folder cannot be written; the message names it, the reason and the remedy."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.strerror = reason


class FolderInUse(OSError):
    """Another process works in the folder; the message names it and says what to do."""


def why_not_written(error: OSError) -> tuple[str, str]:
    """Return the system's reason, without numbers and names, and what to do."""
    number = error.errno or 0
    reason = os.strerror(number) if number else " ".join(str(error).split())
    return reason, next((text for text, found in _REMEDIES.items() if number in found), _REMEDY)


@contextmanager
def write_errors(path: str | Path) -> Iterator[None]:
    """Turn the system's errors within the block into a `WriteError` that names `path`."""
    try:
        yield
    except (WriteError, FolderInUse):
        raise
    except OSError as error:
        reason, remedy = why_not_written(error)
        raise WriteError(f"{path}: cannot be written ({reason}). {remedy}", reason) from error


def make_folder(folder: str | Path) -> Path:
    """Make a folder and those above it, unless they are there.

    Raises
    ------
    WriteError
        That is not possible.
    """
    with write_errors(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


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

    Raises
    ------
    WriteError
        The disk is full, the folder read-only or the like; the old file stays as it was.
    """
    path = Path(path)
    make_folder(path.parent)
    with write_errors(path):
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
            with suppress(OSError):  # it would hide the reason
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


@contextmanager
def folder_lock(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a folder for this process until the end of the block; it is made when absent.

    The operating system lets go of it when the process ends, however it ends; no file is left
    behind. What a killed process was writing there (`atomic_path`) is removed. Within the block
    the same thread may ask for the same folder again. On Windows, and on file systems without
    locks, nothing is locked and nothing removed.

    Parameters
    ----------
    folder : str or Path
        A folder that is made here and stays empty is removed at the end.
    wait : bool
        Wait until another process has let go of it, instead of raising.

    Raises
    ------
    FolderInUse
        Another process holds it.
    WriteError
        It cannot be made.
    """
    folder = Path(folder)
    made = not folder.exists()
    make_folder(folder)
    found = folder.stat()
    key = found.st_dev, found.st_ino
    if key in _HELD.get():
        yield
        return
    with write_errors(folder):
        handle = _lock(folder, wait)
    token = _HELD.set(_HELD.get() | {key})
    try:
        if handle is not None:
            for left in folder.glob(f"{_WRITING}*"):
                with suppress(OSError):  # a read-only folder says so where it is written to
                    left.unlink()
        yield
    finally:
        _HELD.reset(token)
        if made:
            with suppress(OSError):
                folder.rmdir()
        if handle is not None:
            os.close(handle)


def _lock(folder: Path, wait: bool = False) -> int | None:
    """Lock a folder; returns the handle to close, None where there are no locks."""
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        os.close(handle)
        raise FolderInUse(
            f"{folder}: another process is working in this folder. Wait until it has ended, "
            "or take another folder."
        ) from error
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    except BaseException:  # interrupted while waiting
        os.close(handle)
        raise
    return handle


@contextmanager
def draft_folder(parent: str | Path, name: str) -> Iterator[Path]:
    """Give a new folder, hidden in `parent`, for what becomes `name`; removed at the end.

    What killed processes left there under the same name is removed: a draft is locked as long as
    its process lives.

    Parameters
    ----------
    parent : str or Path
        Made when absent.
    name : str

    Yields
    ------
    Path

    Raises
    ------
    WriteError
        The folder cannot be made.
    """
    parent, prefix = make_folder(parent), f"{_DRAFT}{name[:100]}-"
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):  # in use, or already gone
            handle = _lock(left)
            if handle is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(handle)
    handle = None
    while True:
        with write_errors(parent):
            draft = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            handle = _lock(draft, wait=True)
        except FileNotFoundError:
            continue
        if draft.exists():  # else another process took it for an abandoned one
            break
        if handle is not None:
            os.close(handle)
    try:
        with write_errors(parent):
            new = draft / "new"  # with the usual rights; mkdtemp makes private folders
            new.mkdir()
        yield new
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if handle is not None:
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
    """Read a CSV file; errors as of `read_text`, also for lines that are not CSV.

    Cells of more than 1,000 characters are refused: messages quote cells.
    """
    try:
        rows = list(csv.reader(read_text(path).splitlines()))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    for number, row in enumerate(rows, start=1):
        if any(len(cell) > _CELL for cell in row):
            raise ValueError(f"line {number} has a cell of more than {_CELL} characters")
    return rows


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
