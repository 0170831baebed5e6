"""Training on several processes: real ones, on JAX, whatever backend the tests run on.

Not marked "keras": a second run on JAX would do the same again.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from unet_lib.batches import Batches, PreparedCases
from unet_lib.cli import main, processes
from unet_lib.dataset import find_cases
from unet_lib.images import Preprocessing
from unet_lib.phantoms import make_phantoms
from unet_lib.training import TrainingConfig, load_run
from unet_lib.training.processes import SharedBatches, Team, join

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    make_phantoms(folder / "p", 26, seed=5, progress=False)
    (folder / "keep").mkdir()
    (folder / "keep" / "sitecustomize.py").write_text(KEEP)
    return folder


def start(folder, out, *more, devices=1, wait=0.0):
    arguments = ["train", str(folder / "p"), "--out", str(folder / out), "--size", "32"]
    arguments += ["--filters", "4", "--depth", "1", "--batch-size", "4", "--epochs", "3"]
    flags = f"--xla_force_host_platform_device_count={devices}"
    flags += " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    return subprocess.Popen(
        [sys.executable, "-m", "unet_lib", *arguments, "--precision", "float32", *more],
        cwd=ROOT,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": flags,
            "PYTHONPATH": str(folder / "keep"),
            "WAIT": str(wait),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def apart(folder, out, *more, **options):
    """Start two processes by a command each, as on two machines, with a run folder each."""
    together = ["--processes", "2", "--coordinator", f"127.0.0.1:{processes._free_port()}"]
    return [
        start(folder, name, *together, "--process-id", str(index), *more, **options)
        for index, name in enumerate((out, f"{out}-1"))
    ]


def finished(folder, out, *more, starter=start, **options):
    started = starter(folder, out, *more, **options)
    children = started if isinstance(started, list) else [started]
    told = [child.communicate(timeout=600) for child in children]
    assert not any(child.returncode for child in children), told
    assert str(told).count("constraint_met") == 1  # by process 0 alone
    assert not (folder / f"{out}-1").exists()
    return load_run(folder / out)


def wait_for_epoch(folder, out, *children):
    while not (folder / f"{out}-begun").exists():
        for child in children:
            assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)


def members(supervisor):
    """Process ids of the processes that train, by index."""
    found = {}
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        told = Path(f"/proc/{pid}/environ").read_bytes().split(b"UNET_LIB_PROCESS=")[1]
        found[json.loads(told.split(b"\0")[0])["index"]] = int(pid)
    return found


needs_jax = pytest.mark.skipif(
    find_spec("jax") is None or sys.platform != "linux", reason="needs jax, and /proc to kill by"
)


@pytest.fixture(scope="module")
def alone(folder):
    return finished(folder, "alone")


@pytest.fixture(scope="module")
def killed(folder, alone):
    """A run of two processes, of which the second is killed after the first epoch."""
    child = start(folder, "killed", "--processes", "2", wait=1.5)
    wait_for_epoch(folder, "killed", child)
    both = members(child.pid)
    os.kill(both[1], signal.SIGKILL)
    since = time.monotonic()
    _, errors = child.communicate(timeout=600)
    return child.returncode, errors, time.monotonic() - since, both


def state(path):
    """Weights, moving statistics, the optimiser's moments and averages."""
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files if name != "progress"}


def assert_same(path, other):
    ours, theirs = state(path), state(other)
    assert len(ours) == len(theirs) > 60
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-5, rtol=0, err_msg=name)


@needs_jax
def test_a_killed_process_ends_the_run_and_is_named(folder, killed):
    code, errors, seconds, both = killed
    last = errors.strip().splitlines()[-1]
    assert code == 1 and seconds < 30
    assert last.startswith("unet_lib train: process 1 of 2 was killed by SIGKILL")
    assert "--resume" in last and "Traceback" not in errors and "loo" not in errors
    for pid in both.values():
        assert not Path(f"/proc/{pid}").exists()
    settings = json.loads((folder / "killed" / "settings.json").read_text())
    assert settings["hardware"].endswith(", 2 processes")
    rows = np.load(folder / "killed" / "state.npz")["progress"]
    assert len(json.loads(str(rows))["history"]) < 3


@needs_jax
@pytest.mark.parametrize(
    ("begun", "out", "more", "options"),
    [
        ("killed", "two", ["--processes", "2"], {}),
        ("killed", "fewer", [], {"devices": 2}),
        ("alone-begun", "more", [], {"starter": apart}),
    ],
    ids=["two", "fewer, two devices", "more, two commands"],
)
def test_two_processes_give_the_weights_of_one(folder, alone, killed, begun, out, more, options):
    """The first epoch by two processes, the others by two, or by one with two devices.

    Or the first by one, the others by two, each with a command of its own. Batches of 4 and of 3:
    the devices share the former, and each computes the latter whole.
    """
    shutil.copytree(folder / begun, folder / out)
    run = finished(folder, out, "--resume", *more, **options)
    assert_same(folder / f"{out}.npz", folder / "alone.npz")
    for a, b in zip(run.history, alone.history, strict=True):
        for key in a.keys() - {"seconds"}:
            assert a[key] == pytest.approx(b[key], abs=1e-5), key
    assert alone.history[0]["loss"] - alone.history[2]["loss"] > 0.01
    assert run.result["best_epoch"] == alone.result["best_epoch"]
    assert {p.name for p in run.folder.iterdir()} == {p.name for p in alone.folder.iterdir()}
    with open(run.folder / "history.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    train = json.loads((run.folder / "model" / "segmenter.json").read_text())["about"]["trained_on"]
    assert len(train) % 4 and len(train) > 12


@needs_jax
@pytest.mark.parametrize(
    ("lost", "whole"), [(1, True), (0, False)], ids=["command of 1", "process 0"]
)
def test_a_lost_process_ends_the_command_of_the_other(folder, alone, lost, whole):
    """Until then the two commands have the weights of one process."""
    out, left = f"lost{lost}", 1 - lost
    children = apart(folder, out, wait=1.5)
    wait_for_epoch(folder, out, *children)
    both = members(children[0].pid) | members(children[1].pid)
    os.kill(children[lost].pid if whole else both[lost], signal.SIGKILL)
    since = time.monotonic()
    told = [child.communicate(timeout=600)[1] for child in children]
    assert time.monotonic() - since < 30
    last = [errors.strip().splitlines()[-1:] for errors in told]
    assert children[left].returncode == 1
    assert last[left][0].startswith(f"unet_lib train: process {left} of 2 lost its connection")
    assert "own terminal tells more" in last[left][0] and "--resume" in last[left][0]
    assert children[lost].returncode == (-signal.SIGKILL if whole else 1)
    if not whole:
        named = f"unet_lib train: process {lost} of 2 was killed by SIGKILL"
        assert last[lost][0].startswith(named)
    assert "Traceback" not in str(told) and "loo" not in str(told)
    for pid in both.values():
        assert not Path(f"/proc/{pid}").exists()
    assert_same(folder / f"{out}-begun" / "state.npz", folder / "alone-begun" / "state.npz")
    assert not (folder / f"{out}-1").exists()


@needs_jax
def test_batches_in_parts_on_two_processes_give_the_weights_of_one(folder, alone):
    """Parts of 2, which the processes share, and of 1, which each computes whole."""
    finished(folder, "parts", "--accumulate", "2")
    finished(folder, "shared", "--accumulate", "2", "--processes", "2")
    assert_same(folder / "shared.npz", folder / "parts.npz")
    # Batch normalisation saw parts, and the sums of their gradients are kept.
    parts, batches = state(folder / "parts.npz"), state(folder / "alone.npz")
    assert len(parts) > len(batches)
    other = [name for name in batches if parts[name].shape == batches[name].shape]
    assert max(np.abs(parts[name] - batches[name]).max() for name in other) > 0.01


def test_shares_join_to_the_batch_and_an_odd_batch_is_whole(folder):
    prepared = PreparedCases(find_cases(folder / "p")[:11], Preprocessing(16))
    whole = Batches(prepared, 4, shuffle=True, seed=2)

    def team(index):
        return SimpleNamespace(
            index=index, count=2, devices=2, place=lambda arrays, shared: (*arrays, shared)
        )

    parts = [SharedBatches(prepared, 4, shuffle=True, seed=2, team=team(i)) for i in range(2)]
    for batch, even in enumerate([True, True, False]):
        (x0, y0, shared), (x1, y1, _) = (part[batch] for part in parts)
        assert shared is even
        x, y = whole[batch]
        np.testing.assert_array_equal(np.concatenate([x0, x1]) if even else x0, x)
        np.testing.assert_array_equal(np.concatenate([y0, y1]) if even else y1, y)


def test_batches_that_cannot_be_shared_are_refused():
    team = SimpleNamespace(count=2, devices=2)
    Team.check(team, TrainingConfig(batch_size=8, accumulate=4))
    with pytest.raises(ValueError, match=r"2 devices .* cannot share 1 images.*8 in 8 part"):
        Team.check(team, TrainingConfig(batch_size=8, accumulate=8))


def test_a_process_with_other_images_says_so():
    theirs = json.dumps({"settings": "a", "split": "b", "images": "c"}).encode()
    team = SimpleNamespace(index=1, count=2, share=lambda data: theirs)
    Team.agree(team, settings="a", split="b", images="c")
    with pytest.raises(ValueError, match="process 1 of 2 has other split, images .*the same files"):
        Team.agree(team, settings="a", split="d", images="e")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the error of other backends")
def test_another_backend_is_an_error():
    with pytest.raises(ValueError, match="--processes 2: several processes need Keras on JAX"):
        join("127.0.0.1:1", 0, 2, one_machine=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "--processes 0: expected at least 1"),
        (["--processes", "2", "--process-id", "0"], "belong together"),
        (["--processes", "2", "--coordinator", "node:1"], "belong together"),
        (["--processes", "2", "--coordinator", "node", "--process-id", "0"], "expected HOST:PORT"),
        (["--processes", "2", "--coordinator", "n:1", "--process-id", "2"], "expected 0 to 1"),
    ],
)
def test_options_that_do_not_fit_together(options, message, tmp_path, capsys):
    assert main(["train", "phantoms", "--out", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


GLOO = "Gloo all-reduce failed: Read error [10.0.0.7]:33690: Connection reset by peer"
REGISTER = "RPC: /xla.coordination.CoordinationService/RegisterTask"


@pytest.mark.parametrize(
    ("codes", "texts", "message"),
    [
        ({0: 75, 1: -9}, {0: GLOO}, "process 1 of 2 was killed by SIGKILL (by hand"),
        ({0: -6, 1: None}, {0: "coordination_service"}, "process 1 of 2 no longer answered"),
        ({0: 75}, {0: GLOO}, "process 0 of 2 lost its connection to another process at 10.0.0.7"),
        ({1: -6}, {1: REGISTER}, "process 1 of 2: the processes did not come together at h:1"),
        ({0: -6, 1: 75}, {0: "corrupted heap", 1: GLOO}, "process 0 of 2 was killed by SIGABRT"),
    ],
)
def test_the_process_that_failed_first_is_named(codes, texts, message, tmp_path):
    logs = {index: tmp_path / str(index) for index in codes}
    for index, log in logs.items():
        log.write_text(texts.get(index, ""))
    with pytest.raises(processes.ProcessLost) as caught:
        processes._judge(SimpleNamespace(processes=2), "h:1", codes, logs)
    assert str(caught.value).startswith(message)


def test_the_error_of_a_hidden_process_is_told(tmp_path, capsys):
    logs = {0: tmp_path / "0", 1: tmp_path / "1"}
    logs[0].write_text(GLOO)
    logs[1].write_text("reading\nunet_lib train: scan.png: not an image.\nbye\n")
    assert processes._judge(SimpleNamespace(processes=2), "h:1", {0: 75, 1: 2}, logs) == 2
    assert capsys.readouterr().err == "process 1 of 2: unet_lib train: scan.png: not an image.\n"
    assert processes._judge(SimpleNamespace(processes=2), "h:1", {0: 2, 1: 75}, logs) == 2
    assert capsys.readouterr().err == ""  # process 0 prints by itself
