"""A thousand randomly damaged weights files: refused with our error, or the very same network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = int(os.environ.get("DAMAGED_FILES", "500"))

CHILD = r"""
import collections, random, resource, shutil, sys, time
from pathlib import Path
import h5py, numpy as np
from unet_lib.foreign.layouts import read_layers
from unet_lib.foreign.matching import find_matches
from unet_lib.weights.hdf5 import WeightsError

# Keras' libraries are mapped already; from here on 1 GiB more.
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), mapped + (1 << 30)))
folder, count = Path(sys.argv[1]), int(sys.argv[2])
sources = [Path(path) for path in sys.argv[3:]]

def network(path):
    matches, reason = find_matches(read_layers(path))
    if not matches:
        raise WeightsError(reason)
    return [
        [(n.part, n.kind, n.inputs, [a.tobytes() for a in n.stored.arrays] if n.stored else [])
         for n in match.nodes]
        for match in matches
    ]

def structure(data, path):
    held = np.ones(len(data), bool)
    def visit(_, item):
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            held[item.id.get_offset():][:item.nbytes] = False
    with h5py.File(path) as file:
        file.visititems(visit)
    return np.flatnonzero(held)

def cut(path, rng, places):
    data = path.read_bytes()
    path.write_bytes(data[:rng.randrange(len(data))])

def flip(path, rng, places):
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[int(places[rng.randrange(len(places))])] ^= 1 << rng.randrange(8)
    path.write_bytes(data)

def layers_of(file):
    root = file["layers" if "layers" in file else "_layer_checkpoint_dependencies"]
    return root, [k for k in root if len(root[k]["vars"])]

def missing(path, rng, places):
    with h5py.File(path, "r+") as file:
        root, names = layers_of(file)
        name = rng.choice(names)
        del root[name if rng.random() < 0.5 else f"{name}/vars/0"]

def additional(path, rng, places):
    with h5py.File(path, "r+") as file:
        root, names = layers_of(file)
        place = rng.choice(["conv2d_99", "conv2d_11", "dense", "batch_normalization_10", names[0]])
        root[f"{place}/vars/{rng.randrange(4, 6)}"] = np.ones((3, 3, 4, 4), "float32")

def reshaped(path, rng, places):
    with h5py.File(path, "r+") as file:
        root, names = layers_of(file)
        group = root[rng.choice(names)]["vars"]
        key = rng.choice(list(group))
        values = group[key][()]
        shape = list(values.shape)
        axis = rng.randrange(len(shape))
        if rng.random() < 0.5 or len(shape) == 1:
            values = np.repeat(values, 2, axis)
        else:
            values = np.moveaxis(values, axis, (axis + 1) % len(shape))
            if values.shape == tuple(shape):
                values = values[..., None]
        del group[key]
        group[key] = values

def swapped(path, rng, places):
    with h5py.File(path, "r+") as file:
        root, names = layers_of(file)
        kind = rng.choice(["conv2d", *["batch_normalization"] * ("batch_normalization" in names)])
        a, b = rng.sample([n for n in names if n.rsplit("_", 1)[0] == kind or n == kind], 2)
        root.move(a, "kept"), root.move(b, a), root.move("kept", b)

damages = [cut, flip, flip, flip, missing, additional, reshaped, swapped]
known = {path: network(path) for path in sources}
places = {path: structure(path.read_bytes(), path) for path in sources}
results = collections.Counter()
slowest = 0.0
for seed in range(count):
    rng = random.Random(seed)
    source = sources[seed % len(sources)]
    damage = damages[seed // len(sources) % len(damages)]
    path = folder / "damaged.weights.h5"
    shutil.copyfile(source, path)
    damage(path, rng, places[source])
    start = time.process_time()
    try:
        same = network(path) == known[source]
        result = "same" if same else "WRONG"
        if not same:
            print("WRONG", seed, damage.__name__, source.name)
    except WeightsError:
        result = "refused"
    slowest = max(slowest, time.process_time() - start)
    results[damage.__name__, result] += 1
# Not ru_maxrss: a child begins with that of the process that started it.
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) / 1024
assert peak < 2048, peak
print(f"{sum(results.values())} files, slowest {slowest:.2f} s, peak {peak:.0f} MiB")
for key, number in sorted(results.items()):
    print(*key, number)
"""


@pytest.fixture(scope="module")
def sources():
    folder = Path(__file__).parent / "data" / "foreign"
    names = ("keras-2.13.1-norm", "keras-2.15.1-norm", "keras-3.0.0-norm", "keras-3.0.0-dropout")
    return [str(folder / f"{name}.weights.h5") for name in names]


def test_damaged_files_are_refused_or_the_same(tmp_path, sources):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(COUNT), *sources],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{COUNT} files" in done.stdout and "WRONG" not in done.stdout
    assert "refused" in done.stdout
