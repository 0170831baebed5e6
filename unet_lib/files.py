"""Where files lie; written whole or not at all: a reader sees the old content or the new."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows: there nothing is locked, and nothing abandoned removed
    fcntl = None

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = (_PACKAGE / "shipped").is_dir()  # pyproject.toml puts it into the wheel


def _cache() -> Path:
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unet_lib"


SHIPPED_FOLDER = _PACKAGE / "shipped" if _INSTALLED else _PACKAGE.parent
"""Holds ``data/`` (audit list, splits) and ``weights/`` as they come with the library."""
USER_FOLDER = _cache() if _INSTALLED else _PACKAGE.parent
"""What the library writes of its own accord or downloads: the checkout, or the user's cache."""
WEIGHTS_FOLDER = SHIPPED_FOLDER / "weights"
"""One folder for each model of ours, those of encoders, and what lists the files elsewhere."""

_DRAFT = ".draft-"
_CELL = 1000  # characters
_HELD: ContextVar[frozenset[Path]] = ContextVar("held folders", default=frozenset())
_KINDS = {
    b"version https://git-lfs.": "a Git LFS pointer (fetch the file itself by `git lfs pull`)",
    b"<": "a web page",
    b"{": "a JSON text",
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a pickle of Python, such as PyTorch writes",
}


class FolderInUse(OSError):
    """Another process works in the folder; the message names it and says what to do."""


class WriteError(OSError):
    """A file or folder cannot be written; the message names it and the system's reason."""

    def __init__(self, path: str | Path, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        super().__init__(
            f"{path}: cannot be written ({reason}). Free some space, move away what lies there, or "
            "choose another name or folder that you may write to."
        )
        self.strerror = reason


@contextmanager
def write_errors(path: str | Path) -> Iterator[None]:
    """Raise an OSError of the block as a WriteError that names `path`."""
    try:
        yield
    except (WriteError, FolderInUse):
        raise
    except OSError as error:
        raise WriteError(path, error) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path of the same name and move it onto `path` at the end, or leave nothing.

    The folder is made when absent; an OSError in the block is a WriteError.
    """
    path = Path(path)
    with write_errors(path), _draft(path.parent) as draft:
        yield draft / path.name
        os.replace(draft / path.name, path)


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write bytes, or text as UTF-8 (names that are none as they were), whole or not at all."""
    if isinstance(data, str):
        data = data.encode("utf-8", errors="surrogateescape")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


@contextmanager
def draft_folder(parent: str | Path, name: str) -> Iterator[Path]:
    """Give a new folder, hidden in `parent`, for what becomes `name`; removed at the end.

    What killed processes left in `parent` is removed; an OSError in the block is a WriteError.
    """
    with write_errors(Path(parent) / name), _draft(Path(parent)) as draft:
        _remove_abandoned(Path(parent))
        new = draft / "new"  # with the usual rights
        new.mkdir()
        yield new


@contextmanager
def _draft(parent: Path) -> Iterator[Path]:
    """Make a private folder that is locked as long as its process lives."""
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        draft = None
        while draft is None or not draft.exists():  # another process may take it for abandoned
            stack.close()
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=parent))
            with suppress(FileNotFoundError):
                stack.enter_context(_lock(draft, wait=True))
        stack.callback(shutil.rmtree, draft, ignore_errors=True)
        yield draft


def _remove_abandoned(folder: Path) -> None:
    """Remove the drafts of processes that were killed, and no others."""
    for left in folder.glob(f"{_DRAFT}*"):
        # An OSError: in use, already gone, or in a read-only folder.
        with suppress(OSError), _lock(left) as locked:
            if locked:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def folder_lock(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a folder for this process until the end of the block; it is made when absent.

    The lock ends with the process, however that ends; what killed processes were writing is
    removed. The same thread may ask again within the block. A folder made here that stays empty is
    removed. Another process that holds it is waited for, or FolderInUse is raised.
    """
    folder = Path(folder)
    with write_errors(folder):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        place = folder.resolve()
    if place in _HELD.get():
        yield
        return
    with ExitStack() as stack:
        with write_errors(folder):
            stack.enter_context(_lock(folder, wait))
        token = _HELD.set(_HELD.get() | {place})
        try:
            _remove_abandoned(folder)
            yield
        finally:
            _HELD.reset(token)
            if made:
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def _lock(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Lock a folder during the block; gives whether the system has locks."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        locked = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise FolderInUse(
                f"{folder}: another process is working in this folder. Wait until it has ended, "
                "or take another folder."
            ) from error
        except OSError:  # a file system without locks
            locked = False
        yield locked
    finally:
        os.close(handle)


def read_text(path: str | Path) -> str:
    """Read UTF-8, or UTF-16 with its mark (Excel); the message of a ValueError is the reason."""
    try:
        data = Path(path).read_bytes()
        marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        return data.decode("utf-16" if marked else "utf-8-sig")
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8 text; save it as UTF-8") from error


def read_rows(path: str | Path) -> list[list[str]]:
    """Read a CSV file (comma, semicolon or tab); cells too long for a message are refused."""
    try:
        lines = read_text(path).splitlines()
        between = next((mark for mark in ";\t" if lines and mark in lines[0]), ",")
        rows = list(csv.reader(lines, delimiter=between))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    for number, row in enumerate(rows, start=1):
        if any(len(cell) > _CELL for cell in row):
            raise ValueError(f"line {number} has a cell of more than {_CELL} characters")
    return rows


def read_json(path: str | Path) -> Any:
    """Read a JSON file; the ValueError names it."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Restore it.") from error


def write_json(path: str | Path, values: Any) -> Path:
    """Write values as indented JSON, whole or not at all."""
    return write_atomic(path, json.dumps(values, indent=2) + "\n")


def kind_of(start: bytes) -> str:
    """Say what a file is that often lies under another's name, by its first bytes."""
    kinds = (kind for begins, kind in _KINDS.items() if start.lstrip().startswith(begins))
    return next(kinds, "a file of another kind") if start else "an empty file"


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
