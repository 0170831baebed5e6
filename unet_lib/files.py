"""Write a file whole or not at all: a reader sees the old content or the new."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    handle, name = tempfile.mkstemp(prefix=".writing-", suffix=f"-{path.name}", dir=path.parent)
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


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
