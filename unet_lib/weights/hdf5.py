"""Read a weights file that came from somewhere: HDF5 without links, bombs or surprises."""

from __future__ import annotations

import io
import math
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

__all__ = ["MOST_BYTES", "Contents", "WeightsError", "read_hdf5"]

MOST_BYTES = 1 << 30
"""Bound of all arrays of a file together, in bytes: 268 million float32 parameters."""

_MAGIC = b"\x89HDF\r\n\x1a\n"
_MOST_OBJECTS, _MOST_DEPTH, _MOST_TEXT, _MOST_PARTS = 20_000, 8, 16 << 20, 1_000
_MOST_EXPANSION = 200  # compressed chunks: zeros of a new layer shrink about a thousandfold
_FLOATS = {
    h5py.h5t.IEEE_F16LE: "float16", h5py.h5t.IEEE_F32LE: "float32", h5py.h5t.IEEE_F64LE: "float64"
}  # fmt: skip
_SAFE_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
# Structure of old-style files: signatures with their version, and the length of each node.
_SIGNATURES = re.compile(rb"(TREE\x00|SNOD\x01|HEAP\x00)")
_NODES = {b"TREE": 544, b"SNOD": 328, b"HEAP": 32}
_Extent = tuple[int, int, str]  # where, bytes, what


class WeightsError(ValueError):
    """A model or weights file cannot be used; the message names it and says why."""


class _Unsafe(Exception):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True)
class Contents:
    """All that a weights file holds, the optimiser's state left out.

    Attributes
    ----------
    groups : list of str
        Path of every group; the root's is "".
    arrays : dict of str to ndarray
        By path.
    addresses : dict of str to tuple of int
        Where the header and the values of each array lie in the file, by path: mostly in the order
        of writing, but for what fills holes.
    texts : dict of str to tuple of str
        Attributes that are texts, as ``path@name``.
    """

    groups: list[str] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    addresses: dict[str, tuple[int, int]] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_hdf5(path: str | Path, data: bytes | None = None) -> Contents:
    """Read every array of a weights file, or refuse the file whole.

    Refused, before memory is taken for it: soft and external links, external storage, virtual data
    sets, an object stored under two names, other types than standard floats and texts, arrays
    beyond the file's own size or `MOST_BYTES`, filters other than gzip, shuffle and Fletcher32, a
    compression of more than 200 times, too many or too deeply nested objects; and arrays whose
    bytes overlap each other or the file's own structure, or that are not finite.

    Parameters
    ----------
    path : str or Path
        Named in messages.
    data : bytes, optional
        The file's content, where it does not lie at `path` by itself (in a ``.keras`` archive).

    Raises
    ------
    WeightsError
        Not HDF5, damaged, or refused.
    """
    try:
        with open(path, "rb") if data is None else io.BytesIO(data) as raw:
            start = raw.read(len(_MAGIC))
            if start != _MAGIC:
                kind = "a web page" if start.lstrip()[:1] == b"<" else "not an HDF5 file"
                raise WeightsError(
                    f"{path}: expected a Keras weights file, this is {kind}. Download it again in "
                    "a browser and put it in this place."
                )
            return _read(raw, path if data is None else io.BytesIO(data))
    except WeightsError:
        raise
    except _Unsafe as error:
        raise WeightsError(f"{path}: {error}. The file is not used.") from error
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # h5py raises whatever the library makes of a damaged file
        raise WeightsError(f"{path}: damaged HDF5 file ({error}). Fetch it again.") from error


def _read(raw: BinaryIO, source: Any) -> Contents:
    contents = Contents()
    size = raw.seek(0, 2)
    arrays: list[_Extent] = []
    headers: list[_Extent] = []
    with h5py.File(source, "r") as file:
        total = 0
        waiting: list[tuple[str, h5py.Dataset]] = []
        for name, item in _walk(file):
            headers += _header(raw, _address(item))
            if isinstance(item, h5py.Group):
                contents.groups.append(name)
                contents.texts.update(_texts(name, item))
                continue
            total += _check_array(name, item, size)
            most = min(MOST_BYTES, _MOST_EXPANSION * size)
            if total > most:
                raise _Unsafe(f"its arrays take {total:,} bytes, at most {most:,} are read")
            waiting.append((name, item))
            contents.addresses[name] = _address(item), item.id.get_offset() or 0
            if item.id.get_offset() is not None:
                arrays.append((item.id.get_offset(), item.nbytes, repr(name)))
        _check_extents(arrays, headers, raw)
        for name, item in waiting:
            contents.arrays[name] = _finite(name, item[()])
    return contents


def _walk(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Yield every object under its only name, the root's group "" first; optimiser left out."""
    yield "", file
    seen = {_address(file)}
    stack: list[tuple[str, Any]] = [("", file)]
    while stack:
        name, group = stack.pop()
        keys = list(group)
        if len(keys) != len(set(keys)):
            raise _Unsafe(f"group {name!r} has the same name twice")
        for key in keys:
            path = f"{name}/{key}" if name else key
            if path == "optimizer":
                continue
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise _Unsafe(f"{path!r} is a soft or external link")
            item = group[key]
            if not isinstance(item, h5py.Group | h5py.Dataset):
                raise _Unsafe(f"{path!r} is a {type(item).__name__}, no group and no array")
            if _address(item) in seen:
                raise _Unsafe(f"{path!r} is stored under two names")
            seen.add(_address(item))
            if len(seen) > _MOST_OBJECTS or path.count("/") >= _MOST_DEPTH:
                raise _Unsafe(f"{path!r}: too many or too deeply nested objects")
            yield path, item
            if isinstance(item, h5py.Group):
                stack.append((path, item))


def _address(item: Any) -> int:
    return h5py.h5o.get_info(item.id).addr


def _check_array(name: str, item: h5py.Dataset, size: int) -> int:
    """Check type, length and storage of an array without reading it; returns its bytes."""
    if item.is_virtual or item.external:
        raise _Unsafe(f"{name!r} keeps its values in another file")
    kind = item.id.get_type()
    if not any(kind.equal(known) for known in _FLOATS):
        integer = isinstance(kind, h5py.h5t.TypeIntegerID)
        if not (integer and item.ndim == 0):  # counters of random layers
            raise _Unsafe(f"{name!r} holds values of type {item.dtype}, expected floats")
    if item.shape is None or item.ndim > 6:
        raise _Unsafe(f"{name!r} has the shape {item.shape}")
    needed = math.prod(item.shape) * kind.get_size()
    plist = item.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    stored = item.id.get_storage_size()
    if filters - _SAFE_FILTERS:
        raise _Unsafe(f"{name!r} is packed by an unknown filter")
    if plist.get_layout() == h5py.h5d.CHUNKED:
        chunk = math.prod(item.chunks) * kind.get_size()
        if max(needed, chunk) > _MOST_EXPANSION * max(stored, 1):
            raise _Unsafe(f"{name!r} {item.shape} takes {needed:,} bytes, {stored:,} are stored")
    elif stored != needed or needed > size:
        raise _Unsafe(f"{name!r} {item.shape} needs {needed:,} bytes, {stored:,} are stored")
    return needed


def _texts(name: str, group: h5py.Group) -> dict[str, tuple[str, ...]]:
    found = {}
    for key in group.attrs:
        attribute = h5py.h5a.open(group.id, key.encode())
        kind = attribute.get_type()
        if not isinstance(kind, h5py.h5t.TypeStringID):
            continue
        if len(attribute.shape) > 1 or attribute.get_storage_size() > _MOST_TEXT:
            raise _Unsafe(f"attribute {key!r} of {name!r} is too large or a table")
        values = np.atleast_1d(group.attrs[key])
        texts = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]
        found[f"{name}@{key}"] = tuple(texts)
    return found


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise _Unsafe(f"{name!r} holds values that are not finite")
    return values


def _check_extents(arrays: list[_Extent], headers: list[_Extent], raw: BinaryIO) -> None:
    """Refuse arrays that overlap one another or the structure of the file.

    The headers of old-style files, which Keras writes, have no checksum: an address with a wrong
    bit shows other bytes of the file as an array of the right shape.
    """
    size = raw.seek(0, 2)
    structure = [*headers, *_structure(raw)]
    marked = sorted([(e, True) for e in arrays if e[1]] + [(e, False) for e in structure])
    end_of_arrays = end = 0
    for (start, length, name), is_array in marked:
        if start < (end if is_array else end_of_arrays) or (is_array and start + length > size):
            raise _Unsafe(f"{name} lies where something else is stored")
        end = max(end, start + length)
        end_of_arrays = end if is_array else end_of_arrays


def _header(raw: BinaryIO, where: int) -> Iterator[_Extent]:
    """Return where the parts of an object's header lie; of a new-style one, only the start."""
    waiting = [(where, 16)]
    for _ in range(_MOST_PARTS):  # a damaged header may lead in a circle
        if not waiting:
            return
        part, length = waiting.pop()
        if length > _MOST_TEXT:
            raise _Unsafe(f"an object's header takes {length:,} bytes")
        yield part, length, "an object's header"
        raw.seek(part)
        messages = raw.read(length)
        if part == where:
            if messages[:2] != b"\x01\x00":
                return
            waiting.append((where + 16, int.from_bytes(messages[8:12], "little")))
            continue
        position = 0
        while position + 8 <= len(messages):
            kind, size = struct.unpack("<HH", messages[position : position + 4])
            if kind == 0x10 and size >= 16:  # the header goes on elsewhere
                body = messages[position + 8 : position + 24]
                waiting.append(struct.unpack("<QQ", body.ljust(16, b"\0")))
            position += 8 + size


def _structure(raw: BinaryIO) -> Iterator[_Extent]:
    """Find the superblock, the nodes of groups and the heaps of names in the bytes of a file."""
    yield 0, 96, "the start of the file"
    if hasattr(raw, "getbuffer"):
        yield from _nodes(raw.getbuffer())
        return
    with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield from _nodes(data)


def _nodes(data: Any) -> Iterator[_Extent]:
    for found in _SIGNATURES.finditer(data):
        where = found.start()
        if where % 8 == 0:
            yield where, _NODES[found.group()[:4]], "a node of the file's index"
            if found.group()[:4] == b"HEAP" and where + 32 <= len(data):
                length, _, segment = struct.unpack("<QQQ", data[where + 8 : where + 32])
                yield segment, length, "the names of a group"
