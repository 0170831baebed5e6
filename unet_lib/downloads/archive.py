"""Unpack a zip file that came from somewhere, or refuse it whole."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from unet_lib.downloads.fetch import DownloadError

__all__ = ["extract_zip"]

# What zipfile raises on archives that are damaged or of a kind it does not know.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip
_UNSAFE = re.compile(r'[\x00-\x1f\\:*?"<>|]')  # not in a file name on one system or another
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # Windows


def extract_zip(
    archive: str | Path,
    folder: str | Path,
    *,
    most_files: int,
    most_bytes: int,
    progress: bool = True,
) -> Path:
    """Unpack a zip file after checking the name, kind and size of everything in it.

    Refused before a byte is written: absolute names, ``..``, names that are no file names on some
    system, links and devices, encrypted files, two names that a file system may take for one
    (case, Unicode form), a file where a folder is needed, too many files, too many bytes. While
    unpacking, the lengths and checksums that the archive states must come true.

    Parameters
    ----------
    archive : str or Path
    folder : str or Path
        An empty folder. What was written stays in it on an error: give a temporary one.
    most_files, most_bytes : int
        Bounds of the contents, unpacked.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    DownloadError
        Not a zip file, damaged, or refused; the message names the archive and the member.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            _check(members, most_files, most_bytes)
            total = sum(member.file_size for member in members)
            bar = tqdm(total=total, desc="unpack", unit="B", unit_scale=True, disable=not progress)
            with bar:
                for member in members:
                    _write(file, member, folder)
                    bar.update(member.file_size)
    except _DAMAGED as error:
        reason = str(error).rstrip(".") or "cut"
        raise DownloadError(f"{archive}: {reason}. The archive is not used.") from error
    return folder


def _check(members: list[zipfile.ZipInfo], most_files: int, most_bytes: int) -> None:
    if len(members) > most_files:
        raise ValueError(f"holds {len(members):,} files, at most {most_files:,} are expected")
    total = sum(member.file_size for member in members)
    if total > most_bytes:
        raise ValueError(f"unpacks to {total:,} bytes, at most {most_bytes:,} are expected")
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for member in members:
        name = member.orig_filename  # ZipInfo.filename is cut at a NUL
        _check_member(member, name)
        path = PurePosixPath(name)
        for parent in (path, *path.parents) if member.is_dir() else path.parents:
            if folders.setdefault(_key(parent), str(parent)) != str(parent):
                raise ValueError(f"{str(parent)!r} and {folders[_key(parent)]!r} may be one folder")
        if not member.is_dir():
            if _key(path) in files:
                raise ValueError(f"{name!r} and {files[_key(path)]!r} may be one file")
            files[_key(path)] = name
    both = [files[key] for key in files if key in folders]
    if both:
        raise ValueError(f"{both[0]!r} is a file and a folder")


def _key(path: PurePosixPath) -> str:
    """Return what file systems that ignore case or Unicode form may take a name for."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _check_member(member: zipfile.ZipInfo, name: str) -> None:
    parts = name.rstrip("/").split("/")
    if not name.strip("/") or name.startswith("/") or _UNSAFE.search(name):
        raise ValueError(f"{name!r} is no relative file name")
    for part in parts:
        if part in ("", ".", "..") or part != part.rstrip(". ") or _DEVICES.match(part):
            raise ValueError(f"{name!r} leads out of the folder or is no file name")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"{name!r} is a link or a device")
    if member.flag_bits & 0x1:
        raise ValueError(f"{name!r} is encrypted")


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / member.orig_filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # zipfile stops at the stated length and compares the checksum at the end.
    with file.open(member) as source, open(target, "xb") as written:
        shutil.copyfileobj(source, written)
    if target.stat().st_size != member.file_size:
        raise ValueError(f"{member.orig_filename!r} is shorter than the archive states")
