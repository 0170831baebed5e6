"""Randomly damaged weights files: refused with our error, or the very same arrays."""

import collections
import os
import random
import resource
import shutil
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


def cut(path, rng, places):
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def flip(path, rng, places):
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[int(places[rng.randrange(len(places))])] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def zeros(path, rng, places):
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    length = rng.choice([8, 64, 512])
    data[start : start + length] = bytes(len(data[start : start + length]))
    path.write_bytes(data)


def results_of(folder, count):
    """Damage `count` files; returns how many were refused, the same, or read as others."""
    whole = {path: arrays_of(path) for path in SOURCES}
    places = {path: structure_of(path) for path in SOURCES}
    results = collections.Counter()
    for seed in range(count):
        rng, source = random.Random(seed), SOURCES[seed % len(SOURCES)]
        damage = (cut, flip, flip, zeros)[seed // len(SOURCES) % 4]
        path = Path(shutil.copy(source, folder / "damaged.weights.h5"))
        damage(path, rng, places[source])
        start = time.process_time()
        try:
            arrays = arrays_of(path)
        except WeightsError:
            results["refused"] += 1
        else:
            before = whole[source]
            # Names and shapes are compared with the network's; values of zeros are no damage seen.
            renamed = {n: a[0] for n, a in arrays.items()} != {n: a[0] for n, a in before.items()}
            same = arrays == before or damage is zeros
            results["other names" if renamed else "same" if same else f"WRONG {seed}"] += 1
        assert time.process_time() - start < 5
    return results


def test_damaged_files_are_refused_or_the_same(tmp_path):
    results = results_of(tmp_path, 60)
    assert results["refused"] > 10 and results["same"] > 10
    assert set(results) <= {"refused", "same", "other names"}


@pytest.mark.slow
def test_many_damaged_files_in_bounded_memory(tmp_path):
    child = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(COUNT)],
        cwd=FOLDER.parents[2],
        env=os.environ | {"PYTHONPATH": str(FOLDER.parents[2])},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert "refused" in child.stdout and "WRONG" not in child.stdout, child.stdout


if __name__ == "__main__":
    # Libraries are mapped already; from here on 1 GiB more.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), mapped + (1 << 30)))
    print(dict(results_of(Path(sys.argv[1]), int(sys.argv[2]))))
