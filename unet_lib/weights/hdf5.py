"""Read a weights file that came from somewhere, and check it against a network."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from unet_lib.files import kind_of

if TYPE_CHECKING:
    import keras

MOST_BYTES = 1 << 30
"""Bound of all arrays of a file together, in bytes: 268 million float32 parameters."""

_MAGIC = b"\x89HDF\r\n\x1a\n"
_MOST_OBJECTS, _MOST_TEXT = 20_000, 16 << 20
_LEAST_HEADER = 16  # bytes
_MOST_EXPANSION = 200  # compressed chunks: zeros of a new layer shrink about a thousandfold
_FLOATS = (h5py.h5t.IEEE_F16LE, h5py.h5t.IEEE_F32LE, h5py.h5t.IEEE_F64LE)
_SAFE_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


class WeightsError(ValueError):
    """A model or weights file cannot be used; the message names it and says why."""


class _Unsafe(Exception):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True)
class Contents:
    """All that a weights file holds by its path in it, the optimiser's state left out."""

    groups: list[str] = field(default_factory=list)  # the root's is ""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # attributes, ``path@name``


def read_hdf5(path: str | Path, data: bytes | None = None) -> Contents:
    """Read every array of a weights file (of `data`, where given), or raise WeightsError.

    Refused, before memory is taken for it: soft and external links, external storage, virtual data
    sets, other types than standard floats and texts, arrays beyond the file's own size or
    `MOST_BYTES`, filters other than gzip, shuffle and Fletcher32, a compression of more than 200
    times, too many objects; and arrays that overlap or are not finite.
    """
    source = path if data is None else io.BytesIO(data)
    try:
        with open(path, "rb") if data is None else io.BytesIO(data) as raw:
            start, size = raw.read(64), raw.seek(0, 2)
        if not start.startswith(_MAGIC):
            raise WeightsError(
                f"{path}: expected a Keras weights file (HDF5), this is {kind_of(start)}. Give "
                "the file that Keras saved; download it again where this came in its place."
            )
        with h5py.File(source, "r") as file:
            return _read(file, size)
    except WeightsError:
        raise
    except _Unsafe as error:
        raise WeightsError(f"{path}: {error}. The file is not used.") from error
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # h5py raises whatever the library makes of a damaged file
        raise WeightsError(f"{path}: damaged HDF5 file ({error}). Fetch it again.") from error


def _read(file: h5py.File, size: int) -> Contents:
    contents, arrays = Contents(), {}
    total, most = 0, min(MOST_BYTES, _MOST_EXPANSION * size)
    extents = []  # start and end in the file, name
    for name, item in _objects(file).items():
        header = h5py.h5o.get_info(item.id).addr
        extents.append((header, header + _LEAST_HEADER, f"the header of {name!r}"))
        if isinstance(item, h5py.Group):
            contents.groups.append(name)
            contents.texts.update(_texts(name, item))
            continue
        total += _check_array(name, item, size)
        if total > most:
            raise _Unsafe(f"its arrays take {total:,} bytes, at most {most:,} are read")
        arrays[name] = item
        start = item.id.get_offset()
        if start is not None:
            extents.append((start, start + item.nbytes, repr(name)))
    # Also an object under two names. Headers have no checksum: an address with a wrong bit shows
    # other bytes of the right shape.
    end = 0
    for start, stop, name in sorted(extents):
        if start < end or stop > size:
            raise _Unsafe(f"{name} lies where something else is stored")
        end = max(end, stop)
    for name, item in arrays.items():
        contents.arrays[name] = item[()]
        if not np.isfinite(contents.arrays[name]).all():
            raise _Unsafe(f"{name!r} holds values that are not finite")
    return contents


def _objects(file: h5py.File) -> dict[str, Any]:
    """Return every object by its name, the root's group "" first; optimiser left out."""
    links: dict[str, Any] = {}

    def add(name: str, link: Any) -> bool | None:  # an error in here would not come through
        links[name] = link
        return len(links) > _MOST_OBJECTS or None

    if file.visititems_links(add):
        raise _Unsafe(f"it holds more than {_MOST_OBJECTS:,} objects")
    objects: dict[str, Any] = {"": file}
    for name, link in links.items():
        if name.split("/")[0] == "optimizer":
            continue
        if not isinstance(link, h5py.HardLink):
            raise _Unsafe(f"{name!r} is a soft or external link")
        item = objects[name] = file[name]
        if not isinstance(item, h5py.Group | h5py.Dataset):
            raise _Unsafe(f"{name!r} is a {type(item).__name__}, no group and no array")
    return objects


def _check_array(name: str, item: h5py.Dataset, size: int) -> int:
    """Check type, length and storage of an array without reading it; returns its bytes."""
    if item.is_virtual or item.external:
        raise _Unsafe(f"{name!r} keeps its values in another file")
    kind = item.id.get_type()
    counter = isinstance(kind, h5py.h5t.TypeIntegerID) and item.ndim == 0  # of random layers
    if not counter and not any(kind.equal(one) for one in _FLOATS):
        raise _Unsafe(f"{name!r} holds values of type {item.dtype}, expected floats")
    plist, stored = item.id.get_create_plist(), item.id.get_storage_size()
    if {plist.get_filter(i)[0] for i in range(plist.get_nfilters())} - _SAFE_FILTERS:
        raise _Unsafe(f"{name!r} is packed by an unknown filter")
    needed, chunk, most = item.nbytes, 0, min(stored, size)
    if item.chunks:
        chunk, most = math.prod(item.chunks) * kind.get_size(), _MOST_EXPANSION * max(stored, 1)
    if max(needed, chunk) > most:
        raise _Unsafe(f"{name!r} {item.shape} takes {needed:,} bytes, {stored:,} are stored")
    return needed


def _texts(name: str, group: h5py.Group) -> dict[str, tuple[str, ...]]:
    texts = {}
    for key in group.attrs:
        attribute = h5py.h5a.open(group.id, key.encode())
        if not isinstance(attribute.get_type(), h5py.h5t.TypeStringID):
            continue
        if len(attribute.shape) > 1 or attribute.get_storage_size() > _MOST_TEXT:
            raise _Unsafe(f"attribute {key!r} of {name!r} is too large or a table")
        values = np.atleast_1d(group.attrs[key])
        texts[f"{name}@{key}"] = tuple(
            value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values
        )
    return texts


def load_weights_file(network: keras.Model, path: str | Path) -> None:
    """Load a ``.weights.h5`` file if, and only if, it holds this network's arrays; WeightsError.

    The values come from `read_hdf5`, so that no second reader opens the file. Keras itself loads
    one with more layers than the network without a word.
    """
    arrays, groups = read_hdf5(path).arrays, _groups(network)
    stored = {f"{name} {values.shape}" for name, values in arrays.items()}
    expected = set()
    for group, layer in groups.items():
        store: dict[str, np.ndarray] = {}
        layer.save_own_variables(store)
        expected |= {f"{group}{key} {tuple(value.shape)}" for key, value in store.items()}
    if stored != expected:
        raise WeightsError(
            f"{path}: these weights are of another network than the configured one "
            f"({network.count_params():,} parameters). Expected but not in the file: "
            f"{_first(expected - stored)}. In the file but not expected: "
            f"{_first(stored - expected)}. Configure the network that the file was trained with."
        )
    for group, layer in groups.items():
        own = {name.removeprefix(group): name for name in arrays if name.startswith(group)}
        if own:
            layer.load_own_variables({key: arrays[name] for key, name in own.items()})


def _first(arrays: set[str]) -> str:
    more = f" and {len(arrays) - 3} more" if len(arrays) > 3 else ""
    return (", ".join(sorted(arrays)[:3]) or "nothing") + more


def _groups(network: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return where Keras stores each layer: by class, numbered in the order of the layers."""
    counts: dict[str, int] = {}
    groups = {}
    for layer in network.layers:
        kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
        count = counts[kind] = counts.get(kind, -1) + 1
        groups[f"layers/{kind}{f'_{count}' if count else ''}/vars/"] = layer
    return groups
