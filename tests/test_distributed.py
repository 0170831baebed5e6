"""Training on several processes and devices: real ones, on JAX, whatever the tests run on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import find_cases
from unet_lib.images import Preprocessing
from unet_lib.phantoms import make_phantoms
from unet_lib.training import TrainingConfig, distributed, load_run

ROOT = Path(__file__).parent.parent
# Keeps each state, which a run removes at its end, and the run folder as it is after the first
# epoch, and waits, so that a kill comes before the end.
KEEP = """
import os, shutil, time
replace = os.replace
def kept(a, b, **more):
    replace(a, b, **more)
    if str(b).endswith("state.npz"):
        out = os.path.dirname(b)
        shutil.copyfile(b, out + ".npz")
        if not os.path.exists(out + "-begun"):
            shutil.copytree(out, out + "-copy")
            os.rename(out + "-copy", out + "-begun")
        time.sleep(float(os.environ["WAIT"]))
os.replace = kept
"""
needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    make_phantoms(folder / "p", 26, seed=5, progress=False)
    (folder / "keep").mkdir()
    (folder / "keep" / "sitecustomize.py").write_text(KEEP)
    return folder


def start(folder, out, *more, devices=1, wait=0.0, **variables):
    arguments = ["train", str(folder / "p"), "--out", str(folder / out), "--size", "32"]
    arguments += ["--filters", "4", "--depth", "1", "--batch-size", "4", "--epochs", "3"]
    flags = f"--xla_force_host_platform_device_count={devices}"
    flags += " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    ours = {
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(folder / "keep"),
        "WAIT": str(wait),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "unet_lib", *arguments, "--precision", "float32", *more],
        cwd=ROOT,
        env={**os.environ, **ours, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(folder, out, *more, **options):
    """Start two processes by a command each, with a run folder each, as on two machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    children = []
    for number, name in (("0", out), ("1", f"{out}-1")):
        joining = {"JOB_ADDRESSES": address, "NUM_PROCESSES": "2", "PROCESS_ID": number}
        options |= {f"KERAS_DISTRIBUTION_{key}": value for key, value in joining.items()}
        children.append(start(folder, name, "--distributed", *more, **options))
    return children


def finished(folder, out, *children):
    texts = [child.communicate(timeout=600) for child in children]
    assert not any(child.returncode for child in children), texts
    assert str(texts).count("constraint_met") == 1  # by process 0 alone
    assert not (folder / f"{out}-1").exists()
    return load_run(folder / out)


@pytest.fixture(scope="module")
def alone(folder):
    return finished(folder, "alone", start(folder, "alone"))


def state(path):
    """Weights, moving statistics, the optimiser's moments and averages."""
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files if name != "progress"}


def assert_same(path, other):
    ours, theirs = state(path), state(other)
    assert len(ours) == len(theirs) > 60
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-5, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def lost(folder, alone):
    """Two processes, of which the second is killed after the first epoch."""
    children = start_two(folder, "lost", wait=2.0)
    while not (folder / "lost-begun").exists():
        assert all(child.poll() is None for child in children), children[0].stderr.read()
        time.sleep(0.02)
    children[1].send_signal(signal.SIGKILL)
    since = time.monotonic()
    errors = children[0].communicate(timeout=600)[1]
    children[1].communicate()
    return children[0].returncode, errors, time.monotonic() - since


@needs_jax
@pytest.mark.slow
def test_a_lost_process_ends_the_other_with_advice(folder, alone, lost):
    """Until then the two have the weights of one."""
    code, errors, seconds = lost
    assert code == 1 and seconds < 60
    last = errors.strip().splitlines()[-1]
    assert last.startswith("unet_lib train: this process lost its connection to another one (")
    assert "--resume goes on after the last whole epoch" in last and "Traceback" not in errors
    assert_same(folder / "lost-begun" / "state.npz", folder / "alone-begun" / "state.npz")
    settings = json.loads((folder / "lost" / "settings.json").read_text())
    assert settings["hardware"].endswith(", 2 processes")
    assert not (folder / "lost-1").exists()
    progress = json.loads(str(np.load(folder / "lost" / "state.npz")["progress"]))
    assert len(progress["history"]) < 3


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2], ids=["two", "one with two devices"])
def test_two_processes_give_the_weights_of_one(folder, alone, lost, devices):
    """Batches of 4 and of 3: the devices share the former, and each computes the latter whole."""
    out = f"again{devices}"
    shutil.copytree(folder / "lost", folder / out)
    two = start_two if devices == 1 else lambda *given: [start(*given, devices=devices)]
    run = finished(folder, out, *two(folder, out, "--resume"))
    assert_same(folder / f"{out}.npz", folder / "alone.npz")
    for a, b in zip(run.history, alone.history, strict=True):
        assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, abs=1e-5)
    assert alone.history[0]["loss"] - alone.history[2]["loss"] > 0.01
    assert run.result["best_epoch"] == alone.result["best_epoch"]
    assert {p.name for p in run.folder.iterdir()} == {p.name for p in alone.folder.iterdir()}
    trained = run.segmenter.provenance.trained_on
    assert len(trained) % 4 and len(trained) > 12


@needs_jax
@pytest.mark.slow
def test_batches_in_parts_on_two_processes_give_the_weights_of_one(folder, alone):
    """Parts of 2, which the processes share, and of 1, which each computes whole."""
    finished(folder, "parts", start(folder, "parts", "--accumulate", "2"))
    finished(folder, "shared", *start_two(folder, "shared", "--accumulate", "2"))
    assert_same(folder / "shared.npz", folder / "parts.npz")
    parts, batches = state(folder / "parts.npz"), state(folder / "alone.npz")
    assert len(parts) > len(batches)  # the sums of the gradients


class FakeJax:
    """Two processes of a device each, of which this is one."""

    def __init__(self, index):
        self.process_index = lambda: index

    def process_count(self):
        return 2

    device_count = process_count


def test_shares_join_to_the_batch_and_an_odd_batch_is_whole(folder, monkeypatch):
    prepared = PreparedCases(find_cases(folder / "p")[:11], Preprocessing(16))
    whole = Batches(prepared, 4, shuffle=True, seed=2)
    monkeypatch.setattr(distributed, "place", lambda arrays, shared: (*arrays, shared))
    shares = distributed.SharedBatches(prepared, 4, shuffle=True, seed=2)
    for batch, even in enumerate([True, True, False]):
        parts = []
        for index in range(2):
            monkeypatch.setattr(distributed, "_jax", lambda index=index: FakeJax(index))
            *arrays, shared = shares[batch]
            assert shared is even
            parts.append(arrays)
        for mine, other, expected in zip(*parts, whole[batch], strict=True):
            joined = np.concatenate([mine, other]) if even else other
            np.testing.assert_array_equal(joined, expected)


def test_what_processes_cannot_share_or_do_not_agree_on_is_refused(monkeypatch):
    first = {"settings": "a", "split": "b", "images": "c"}
    sent = []
    monkeypatch.setattr(distributed, "share", lambda data: sent.append(data) or sent[0])
    distributed.agree(**first)
    monkeypatch.setattr(distributed, "_jax", lambda: FakeJax(1))
    distributed.agree(**first)
    with pytest.raises(ValueError, match="process 1 has other split, images than .*the same files"):
        distributed.agree(settings="a", split="d", images="e")
    distributed.check(TrainingConfig(batch_size=8, accumulate=4))
    with pytest.raises(ValueError, match=r"2 devices .* cannot share 1 images.*8 in 8 part"):
        distributed.check(TrainingConfig(batch_size=8, accumulate=8))


def test_what_joining_needs_is_named(monkeypatch):
    for backend, missing in (("tensorflow", ""), ("jax", "KERAS_DISTRIBUTION_JOB_ADDRESSES, ")):
        monkeypatch.setattr(keras.backend, "backend", lambda backend=backend: backend)
        monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
        message = f"need Keras on JAX .this is Keras on {backend}.*Not set: {missing}"
        with pytest.raises(ValueError, match=message), distributed.joined():
            pass
