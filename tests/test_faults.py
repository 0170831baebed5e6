"""Kills, disk full, read-only folder, deleted files, Ctrl-C in a notebook: the real commands.

After each fault: one error that names the file, no traceback, everything under a final name whole,
and the same command again gives what an undisturbed process gives. Some of it runs with the slow
tests, all with `make faults`.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import faults
import pytest
from faults import COMMANDS, Command
from loopback import serving

from unet_lib.files import WriteError, write_atomic

minutes = pytest.mark.skipif("FAULTS" not in os.environ, reason="minutes: make faults")


def some(pairs, *also):
    """All pairs are for `make faults`; those named are tried by the slow tests too."""
    return [pytest.param(*pair, marks=[] if pair in also else minutes) for pair in pairs]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, with how to change its size or make it read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root mounts a file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")

    def change(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    yield place, change
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What gives a command by name and the folder that it leaves when nothing disturbs it."""
    place = tmp_path_factory.mktemp("faults")
    with serving() as server:
        listed, wholes = faults.commands(place, server), {}

        def find(name):
            if name not in wholes:
                started, wholes[name] = time.monotonic(), place / "whole" / name
                wholes[name].mkdir(parents=True)
                listed[name].works(wholes[name] / "out")
                find.seconds[name] = time.monotonic() - started
            return listed[name], wholes[name]

        find.seconds, find.place = {}, place
        yield find


def refused(name, result, expected, *words):
    code, errors = result
    last = errors.strip().splitlines()[-1]
    assert code == expected, errors
    assert "Traceback" not in errors and "Exception ignored" not in errors, errors
    assert last.startswith(f"unet_lib {name}: "), errors
    for word in words:
        assert word in last, last


def goes_on(command, whole, out):
    assert faults.unreadable(out.parent) == []
    command.works(out, again=True)
    assert faults.differences(whole, out.parent) == []


def new(tmp_path):
    out = tmp_path / "new" / "out"
    out.parent.mkdir()
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kills"), some([(name, 8) for name in COMMANDS]) + [("segment", 2), ("evaluate", 2)]
)
def test_killed_commands_lose_nothing_and_give_the_same_result(prepared, tmp_path, name, kills):
    command, whole = prepared(name)
    rng = random.Random(int(os.environ.get("FAULTS", "0") or 0))
    for trial in range(kills):
        out = tmp_path / str(trial) / "out"
        out.parent.mkdir()
        for attempt in range(rng.choice((1, 1, 2))):
            child = command.start(out, again=attempt > 0)
            # Starting up takes seconds in which nothing is written; most kills come after it.
            time.sleep(prepared.seconds[name] * rng.uniform(0.3, 1.0))
            child.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
            child.communicate(timeout=900)
        goes_on(command, whole, out)


@pytest.mark.slow
def test_termination_removes_what_was_being_written(tmp_path):
    child = Command(("phantoms", "OUT", "--count", "3000")).start(tmp_path / "phantoms")
    while not list(tmp_path.rglob("*.png")):
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("interrupted")
    assert list(tmp_path.iterdir()) == []


def test_the_comparison_sees_damage(tmp_path):
    """What the harness calls readable and equal is what it should."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a.json").write_text('{"dice": 0.5, "hours": 1}')
        (folder / "b.csv").write_text("name,seconds\na,1\n")
    (two / "a.json").write_text('{"dice": 0.5, "hours": 2}')
    assert faults.differences(one, two) == faults.unreadable(two) == []
    (two / "a.json").write_text('{"dice": 0.6, "hours": 1}')
    (two / "c.txt").write_text("more")
    assert faults.differences(one, two) == ["c.txt: only in one", "a.json: differs"]
    (two / "a.json").write_text('{"dice": 0.')
    (two / "b.csv").write_text("name,seconds\na")
    (two / "d.png").write_bytes(b"\x89PNG")
    (two / ".writing-x").write_bytes(b"half")
    damaged = [line.partition(":")[0] for line in faults.unreadable(two)]
    assert damaged == ["a.json", "b.csv", "d.png"]


FAULTS = ["2 %", "40 %", "80 %", "read-only", "file size"]
TRIED = [("evaluate", "40 %"), ("segment", "file size"), ("phantoms", "read-only")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fault"), some([(name, fault) for name in COMMANDS for fault in FAULTS], *TRIED)
)
def test_a_disk_that_does_not_take_it(small_disk, prepared, name, fault):
    (command, whole), (disk, change) = prepared(name), small_disk
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    most, limit = max(sizes) * 2 // 3, {}
    if fault == "read-only":
        change("size=200m,ro")
        words = ("Read-only file system", "may write to")
    elif fault == "file size":
        if name in ("download", "phantoms"):
            pytest.skip("their files are small, or checked as they arrive")
        change("size=200m")
        limit["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        words = ("File too large",)
    else:
        change(f"size={max(8, int(sum(sizes) * float(fault[:-1]) / 100) // 1024)}k")
        words = ("No space left on device", "Free some space")
    refused(name, command.run(disk / "out", **limit), 1, str(disk), *words)
    assert faults.unreadable(disk) == []
    change("rw,size=200m")
    assert fault != "read-only" or list(disk.iterdir()) == []
    goes_on(command, whole, disk / "out")


DELETING = """
import importlib, os, sys
victim, module, name, calls = sys.argv[1:5]
place = importlib.import_module(module)
original, left = getattr(place, name), [int(calls)]

def disturbed(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.unlink(victim)
    return original(*arguments, **options)

setattr(place, name, disturbed)
from unet_lib.cli import main
sys.exit(main(sys.argv[5:]))
"""
# Where and at which call the file is deleted: before it is read, and between two readings.
MOMENTS = [
    ("evaluate", "unet_lib.inference.scoring", "load_case", 1),
    ("evaluate", "unet_lib.report", "write_report", 1),
    ("score", "unet_lib.predictions", "load_case", 1),
    ("score", "unet_lib.predictions", "tqdm", 1),
    ("segment", "unet_lib.inference.segmenter", "read_frames", 3),
    ("train", "unet_lib.batches", "load_case", 1),
    ("train", "unet_lib.training.result", "tune_threshold", 1),
]


def victim(name, place):
    """One of the last files that the command reads."""
    if name in ("segment", "score"):
        return sorted((place / {"segment": "pictures", "score": "predictions"}[name]).iterdir())[-1]
    out = place / "whole" / name / "out"
    if name == "evaluate":
        names = [row.split(",")[0] for row in (out / "cases.csv").read_text().splitlines()]
        # The page shows images with a lesion, and reads them once more for it.
        listed = [name for name in names if not name.startswith("normal")][-1]
    else:
        rows = [row.split(",") for row in (out / "split.csv").read_text().splitlines()]
        listed = [row[0] for row in rows if row[-1] == "validation"][-1]
    return next((place / "phantoms").rglob(f"{listed}.png"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module", "function", "calls"), some(MOMENTS, MOMENTS[0], MOMENTS[3])
)
def test_a_file_is_deleted_in_the_middle(tmp_path, prepared, name, module, function, calls):
    (command, whole), out = prepared(name), new(tmp_path)
    path = victim(name, prepared.place)
    kept = path.read_bytes()
    program = ("-c", DELETING, str(path), module, function, str(calls))
    try:
        expected = 1 if name == "segment" else 2
        refused(name, replace(command, program=program).run(out), expected, path.name)
        assert not (out / "report.md").exists() and not (out / "model").exists()
    finally:
        path.write_bytes(kept)
    goes_on(command, whole, out)


@minutes
def test_an_image_changed_between_two_parts_of_a_training(tmp_path, prepared):
    (command, whole), out = prepared("train"), new(tmp_path)
    child = command.start(out)
    while not (out / "state.npz").exists():
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    child.kill()
    child.communicate()
    path = victim("train", prepared.place)
    other = next(p for p in sorted(path.parent.glob("*).png")) if p != path)
    changed = [(p, p.read_bytes()) for p in (path, path.with_name(f"{path.stem}_mask.png"))]
    try:
        shutil.copyfile(other, path)
        shutil.copyfile(other.with_name(f"{other.stem}_mask.png"), changed[1][0])
        words = (path.stem, "not what they were when this run was begun")
        refused("train", command.run(out, again=True), 2, *words)
    finally:
        for file, content in changed:
            file.write_bytes(content)
    goes_on(command, whole, out)


CELL = """
from unet_lib import Preprocessing, Recipe, TrainingConfig, UNetConfig, open_dataset, train
training = TrainingConfig(epochs=6, warmup_epochs=1, deterministic=True)
recipe = Recipe(UNetConfig(filters=4, depth=2), Preprocessing(32), training=training)
run = train(open_dataset({data!r}).split, {folder!r}, recipe, resume=True)
print("whole", run.result["epochs"])
"""


@minutes
def test_interrupt_in_a_notebook_cell(tmp_path, phantoms):
    """The kernel stays, and the same cell again gives what it gives undisturbed."""
    from jupyter_client.manager import start_new_kernel

    runs = [tmp_path / name / "run" for name in ("whole", "interrupted")]
    cells = [CELL.format(data=str(phantoms), folder=str(run)) for run in runs]
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(faults.ROOT))

    def execute(cell, until=None):
        said, stopped = "", False
        client.execute(cell)
        while True:
            message = client.get_iopub_msg(timeout=300)
            content = message["content"]
            said += content.get("text", "") + content.get("ename", "")
            if until and not stopped and until():
                manager.interrupt_kernel()
                stopped = True
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return said

    try:
        assert "whole 6" in execute(cells[0])
        said = execute(cells[1], lambda: (runs[1] / "state.npz").exists())
        assert said.endswith("KeyboardInterrupt"), said
        assert faults.unreadable(runs[1]) == [] and not list(runs[1].rglob(".writing-*"))
        assert "whole 6" in execute(cells[1])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert faults.differences(runs[0], runs[1]) == []


def test_an_error_of_the_disk_names_the_file_and_keeps_the_old_one(small_disk):
    disk, change = small_disk
    path = write_atomic(disk / "a.txt", "old")
    with pytest.raises(WriteError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_atomic(path, b"x" * 200_000)
    change("ro")
    with pytest.raises(WriteError, match=r"Read-only file system\)\. Free .* you may write"):
        write_atomic(path, "new")
    assert [p.name for p in disk.iterdir()] == ["a.txt"] and path.read_text() == "old"


@pytest.mark.slow
def test_weights_on_a_full_disk(small_disk):
    """HDF5 that fails in the middle of a file lets Python crash at its end."""
    code = (
        "import sys, keras\n"
        "from pathlib import Path\n"
        "from unet_lib.weights import save_weights_file\n"
        "network = keras.Sequential([keras.Input((200,)), keras.layers.Dense(200)])\n"
        "save_weights_file(network, Path(sys.argv[1]))\n"
    )
    path = small_disk[0] / "a.weights.h5"
    code, errors = Command((str(path),), program=("-c", code)).run(path)
    assert code == 1 and errors.strip().splitlines()[-1].startswith("unet_lib.files.WriteError: ")
    assert list(small_disk[0].iterdir()) == []


def test_decoded_images_on_a_full_disk(small_disk, phantoms, monkeypatch):
    from unet_lib.batches import PreparedCases
    from unet_lib.dataset import find_cases
    from unet_lib.images import Preprocessing

    (disk, change), cases = small_disk, find_cases(phantoms)[:6]
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    change("size=1m")
    with pytest.raises(WriteError, match="decoded images of 2 MB: cannot be written"):
        PreparedCases(cases, Preprocessing(256), memory_mb=0)
    assert PreparedCases(cases, Preprocessing(64), memory_mb=0).on_disk
    assert list(disk.iterdir()) == []
