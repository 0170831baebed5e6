"""The reader of weights files against files made to harm, and against damage at random."""

import collections
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from unet_lib.weights.hdf5 import WeightsError, read_hdf5

COUNT = int(os.environ.get("DAMAGED_FILES", "500"))
FOLDER = Path(__file__).parent / "data" / "foreign"
SOURCES = [
    FOLDER / f"keras-{name}.weights.h5"
    for name in ("2.13.1-norm", "2.15.1-norm", "3.0.0-norm", "3.0.0-dropout")
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.arange(36, dtype="float32").reshape(3, 3, 1, 4)
        file["layers/conv2d/vars/1"] = np.ones(4, "float32")
        file["layers/conv2d/vars"].attrs["name"] = "conv2d"
        file["optimizer/vars/0"] = np.int64(7)
    return path


def test_arrays_groups_and_texts(path):
    values = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    with h5py.File(path, "r+") as file:
        file.create_dataset("layers/x", data=values, compression="gzip", shuffle=True)
    contents = read_hdf5(path)
    names = ["layers/conv2d/vars/0", "layers/conv2d/vars/1", "layers/x"]
    assert sorted(contents.arrays) == names
    np.testing.assert_array_equal(contents.arrays["layers/conv2d/vars/1"], np.ones(4, "float32"))
    np.testing.assert_array_equal(contents.arrays["layers/x"], values)
    assert sorted(contents.groups) == ["", "layers", "layers/conv2d", "layers/conv2d/vars"]
    assert contents.texts == {"layers/conv2d/vars@name": ("conv2d",)}
    assert sorted(read_hdf5("inside.keras", path.read_bytes()).arrays) == names


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("layers/x", layout)


def a_gibibyte(file):
    """More than is read, all of it in the file: a hole, so that no disk is filled."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(((1 << 28) + 1,))
    h5py.h5d.create(file["layers"].id, b"x", h5py.h5t.IEEE_F32LE, space, plist)


def put(value, name="layers/x"):
    """Store one thing; what is made of the file is a function of it."""

    def harm(file):
        file[name] = value(file) if callable(value) else value

    return harm


def dataset(*arguments, **options):
    return lambda file: file.create_dataset("layers/x", *arguments, **options)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (put(h5py.SoftLink("/layers/conv2d")), "'layers/x' is a soft or external link"),
        (put(h5py.ExternalLink("other.h5", "/a")), "'layers/x' is a soft or external link"),
        (put(lambda f: f["layers/conv2d"]), "something else is stored"),
        (put(lambda f: f["layers"], "layers/conv2d/self"), "something else is stored"),
        (dataset((16,), "f4", external=[("raw.bin", 0, 64)]), "its values in another file"),
        (virtual, "'layers/x' keeps its values in another file"),
        (dataset((1 << 17, 1 << 17), "f4"), "takes 68,719,476,736 bytes, 0 are stored"),
        (dataset((1 << 17, 1 << 17), "f4", chunks=(9, 9)), "68,719,476,736 bytes, 0 are stored"),
        (dataset(data=np.zeros(1 << 22, "f4"), compression="gzip"), "takes 16,777,216 bytes"),
        (dataset(data=np.ones(4096, "f4"), compression="lzf"), "unknown filter"),
        (dataset((2,), h5py.string_dtype()), "expected floats"),
        (put(lambda f: np.array([f["layers"].ref], h5py.ref_dtype)), "expected floats"),
        (put(np.zeros(3, [("a", "f4"), ("b", "i4")])), "expected floats"),
        (put(np.dtype("f4")), "is a Datatype"),
        (put(h5py.Empty("f4")), "damaged"),
        (
            lambda file: file["layers"].attrs.create("names", [[b"a", b"b"]]),
            "attribute 'names' of 'layers' is too large or a table",
        ),
        (a_gibibyte, r"its arrays take 1,073,741,\d+ bytes, at most 1,073,741,824 are read"),
        (put(np.array([1, np.nan], "f4")), "not finite"),
    ],
)
def test_what_harms_is_refused(path, harm, message):
    with h5py.File(path, "r+") as file:
        harm(file)
    with pytest.raises(WeightsError, match=message) as error:
        read_hdf5(path)
    assert str(path) in str(error.value)


def test_many_objects_are_refused(path, monkeypatch):
    monkeypatch.setattr("unet_lib.weights.hdf5._MOST_OBJECTS", 4)
    with pytest.raises(WeightsError, match="holds more than 4 objects"):
        read_hdf5(path)


def test_an_address_that_shows_other_bytes_is_refused(path):
    """Old-style headers have no checksum: the array would read as four other numbers."""
    with h5py.File(path) as file:
        bias, kernel = (file[f"layers/conv2d/vars/{k}"].id.get_offset() for k in (1, 0))
        header = h5py.h5o.get_info(file["layers/conv2d/vars"].id).addr
    data = path.read_bytes()
    assert data.count(bias.to_bytes(8, "little")) == 1
    for where in (kernel + 16, header, len(data) - 8):
        path.write_bytes(data.replace(bias.to_bytes(8, "little"), where.to_bytes(8, "little")))
        with pytest.raises(WeightsError, match="something else is stored|damaged"):
            read_hdf5(path)


def test_what_is_no_weights_file_is_named(path):
    whole = path.read_bytes()
    for data, message in (
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "this is a web page"),
        (b"PK\x03\x04 zip", "this is a zip archive"),
        (whole[: len(whole) // 2], "damaged HDF5 file"),
    ):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=message):
            read_hdf5(path)
    path.unlink()
    with pytest.raises(WeightsError, match="No such file"):
        read_hdf5(path)


# Damage at random: refused with our error, or the very same arrays.


def arrays_of(path):
    return {name: (a.shape, a.tobytes()) for name, a in read_hdf5(path).arrays.items()}


def structure_of(path):
    """Places of all bytes that are no values."""
    held = np.ones(path.stat().st_size, bool)

    def visit(_, item):
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            held[item.id.get_offset() :][: item.nbytes] = False

    with h5py.File(path) as file:
        file.visititems(visit)
    return np.flatnonzero(held)


def damaged(data, kind, rng, places):
    if kind == "cut":
        return data[: rng.randrange(len(data))]
    data = bytearray(data)
    if kind == "zeros":
        start = rng.randrange(len(data))
        end = min(len(data), start + rng.choice([8, 64, 512]))
        data[start:end] = bytes(end - start)
    else:
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[int(places[rng.randrange(len(places))])] ^= 1 << rng.randrange(8)
    return data


def results_of(folder, count):
    """Damage `count` files; returns how many were refused, the same, or read as others."""
    whole = {path: arrays_of(path) for path in SOURCES}
    places = {path: structure_of(path) for path in SOURCES}
    results = collections.Counter()
    for seed in range(count):
        rng, source = random.Random(seed), SOURCES[seed % len(SOURCES)]
        kind = ("cut", "flip", "flip", "zeros")[seed // len(SOURCES) % 4]
        path = folder / "damaged.weights.h5"
        path.write_bytes(damaged(source.read_bytes(), kind, rng, places[source]))
        start = time.process_time()
        try:
            arrays = arrays_of(path)
        except WeightsError:
            results["refused"] += 1
        else:
            before = whole[source]
            # Names and shapes are compared with the network's; values of zeros are no damage seen.
            renamed = {n: a[0] for n, a in arrays.items()} != {n: a[0] for n, a in before.items()}
            same = arrays == before or kind == "zeros"
            results["other names" if renamed else "same" if same else f"WRONG {seed}"] += 1
        assert time.process_time() - start < 5
    return results


def test_damaged_files_are_refused_or_the_same(tmp_path):
    results = results_of(tmp_path, 60)
    assert results["refused"] > 10 and results["same"] > 10
    assert set(results) <= {"refused", "same", "other names"}


@pytest.mark.slow
def test_many_damaged_files_in_bounded_memory(tmp_path):
    root = FOLDER.parents[2]
    command = [sys.executable, __file__, str(tmp_path), str(COUNT)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    child = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    assert "refused" in child.stdout and "WRONG" not in child.stdout, child.stdout


if __name__ == "__main__":
    # Libraries are mapped already; from here on 1 GiB more.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), mapped + (1 << 30)))
    print(dict(results_of(Path(sys.argv[1]), int(sys.argv[2]))))
