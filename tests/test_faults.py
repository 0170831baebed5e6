"""Kills, a full or read-only disk, deleted files: the real commands, in processes of their own.

After each fault: one error that names the file, no traceback, everything under a final name whole,
and the same command again gives what an undisturbed process gives. Some of it runs with the slow
tests, all with `make faults`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from unet_lib.batches import PreparedCases
from unet_lib.dataset import find_cases, load_case
from unet_lib.files import WriteError, write_atomic
from unet_lib.images import Preprocessing
from unet_lib.weights.hdf5 import read_hdf5

ROOT = Path(__file__).parent.parent
UNET_LIB = ("-m", "unet_lib")
# Times, machines and commits differ from run to run; a weights file holds times too.
VARYING = {"seconds", "hours", "started", "git", "weights_sha256"}
COMMANDS = ("train", "evaluate", "segment", "score", "crossvalidate", "phantoms")
minutes = pytest.mark.skipif("FAULTS" not in os.environ, reason="minutes: make faults")


def some(pairs, *also):
    """All pairs are for `make faults`; those named are tried by the slow tests too."""
    return [pytest.param(*pair, marks=[] if pair in also else minutes) for pair in pairs]


def start(arguments, out, *more, program=UNET_LIB, **options):
    """Start a command line in which OUT stands for the folder that it writes."""
    words = [str(word).replace("OUT", str(out)) for word in (*program, *arguments, *more)]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, **streams, **options
    )


def run(*arguments, **options):
    child = start(*arguments, **options)
    errors = child.communicate(timeout=900)[1]
    return child.returncode, errors


def works(*arguments):
    code, errors = run(*arguments)
    assert code == 0, errors


def content(path):
    """Return what a file says, without what varies; raises when it cannot be read."""
    if path.suffix == ".json":
        return steady(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".png":
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tobytes()  # AttributeError of None
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.suffix == ".h5":
        return {name: array.tobytes() for name, array in read_hdf5(path).arrays.items()}
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".csv":
        head, *rows = [line.split(",") for line in lines]
        if any(len(row) < len(head) for row in rows):
            raise ValueError("a line is cut")
        return [[c for c, name in zip(r, head, strict=False) if name not in VARYING] for r in rows]
    return lines


def steady(value):
    if isinstance(value, dict):
        return {k: steady(v) for k, v in value.items() if k not in VARYING}
    return [steady(item) for item in value] if isinstance(value, list) else value


def unreadable(folder):
    """Name the files that lie under a final name and cannot be read."""
    damaged = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            try:
                content(path)
            except Exception:  # whatever a damaged file gives
                damaged.append(path.name)
    return damaged


def differences(expected, received):
    """Compare two folders file by file, hidden ones too."""
    names, others = (
        {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() or p.name[0] == "."}
        for folder in (expected, received)
    )
    changed = (n for n in sorted(names & others) if content(expected / n) != content(received / n))
    return [
        *(f"{n}: only in one" for n in sorted(names ^ others)),
        *(f"{n}: differs" for n in changed),
    ]


def test_the_comparison_sees_damage(tmp_path):
    """What is called readable and equal here is what it should be."""
    one, two = tmp_path / "one", tmp_path / "two"
    for number, folder in enumerate((one, two)):
        folder.mkdir()
        (folder / "a.json").write_text(f'{{"dice": 0.5, "hours": {number}}}')
        (folder / "b.csv").write_text("name,seconds\na,1\n")
    assert differences(one, two) == unreadable(two) == []
    (two / "a.json").write_text('{"dice": 0.6, "hours": 1}')
    (two / "c.txt").write_text("more")
    assert differences(one, two) == ["c.txt: only in one", "a.json: differs"]
    (two / "a.json").write_text('{"dice": 0.')
    (two / "b.csv").write_text("name,seconds\na")
    (two / "d.png").write_bytes(b"\x89PNG")
    (two / ".writing-x").write_bytes(b"half")
    assert unreadable(two) == ["a.json", "b.csv", "d.png"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What gives a command by name and the folder that it leaves when nothing disturbs it."""
    place = tmp_path_factory.mktemp("faults")
    data, model, pictures, theirs = (place / n for n in ("data", "model", "pictures", "theirs"))
    tiny = ("--size", "32", "--filters", "4", "--depth", "2", "--batch-size", "4")
    works(("phantoms", "OUT", "--count", "18", "--seed", "4"), data)
    works(("train", data, "--out", "OUT", *tiny, "--epochs", "1"), model)
    pictures.mkdir()
    theirs.mkdir()
    for case in find_cases(data):  # masks as another program may give them: shifted
        shutil.copyfile(case.image_path, pictures / case.image_path.name)
        mask = np.roll(load_case(case)[1], 5, axis=1)
        cv2.imwrite(str(theirs / f"{case.name}.png"), mask.astype(np.uint8) * 255)
    changes = ("training.epochs=3", "training.warmup_epochs=1", "training.deterministic=true")
    changes += ("network.filters=4", "network.depth=2", "preprocessing.size=32")
    recipe = [word for change in changes for word in ("--set", change)]
    commands = {
        "phantoms": ("phantoms", "OUT", "--count", "60", "--seed", "9"),
        "train": ("train", data, "--out", "OUT", *tiny, "--epochs", "6", "--deterministic"),
        "evaluate": ("evaluate", "--model", model, data, "--out", "OUT"),
        "score": ("score", theirs, data, "--out", "OUT"),
        "segment": ("segment", "--model", model, "--out", "OUT", pictures),
        "crossvalidate": ("crossvalidate", data, "--out", "OUT/cv", *recipe, "--folds", "1"),
    }
    wholes = {}

    def find(name):
        if name not in wholes:
            began, wholes[name] = time.monotonic(), place / "whole" / name
            wholes[name].mkdir(parents=True)
            works(commands[name], wholes[name] / "out")
            find.seconds[name] = time.monotonic() - began
        return commands[name], wholes[name]

    find.seconds, find.place = {}, place
    yield find


def again(name):
    return ("--resume",) if name == "train" else ()


def refused(name, result, expected, *words):
    code, errors = result
    last = errors.strip().splitlines()[-1]
    assert code == expected, errors
    assert "Traceback" not in errors and "Exception ignored" not in errors, errors
    assert last.startswith(f"unet_lib {name}: ") and all(word in last for word in words), last


def goes_on(name, command, whole, out):
    assert unreadable(out.parent) == []
    works(command, out, *again(name))
    assert differences(whole, out.parent) == []


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
            child = start(command, out, *(again(name) if attempt else ()))
            # Starting up takes seconds in which nothing is written; most kills come after it.
            time.sleep(prepared.seconds[name] * rng.uniform(0.3, 1.0))
            child.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
            child.communicate(timeout=900)
        goes_on(name, command, whole, out)


@pytest.mark.slow
def test_termination_removes_what_was_being_written(tmp_path):
    child = start(("phantoms", "OUT", "--count", "3000"), tmp_path / "phantoms")
    while not list(tmp_path.rglob("*.png")):
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("interrupted")
    assert list(tmp_path.iterdir()) == []


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
        if name == "phantoms":
            pytest.skip("its files are small")
        change("size=200m")
        limit["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        words = ("File too large",)
    else:
        change(f"size={max(8, int(sum(sizes) * float(fault[:-1]) / 100) // 1024)}k")
        words = ("No space left on device", "Free some space")
    refused(name, run(command, disk / "out", **limit), 1, str(disk), *words)
    assert unreadable(disk) == []
    change("rw,size=200m")
    assert fault != "read-only" or list(disk.iterdir()) == []
    goes_on(name, command, whole, disk / "out")


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
        return sorted((place / {"segment": "pictures", "score": "theirs"}[name]).iterdir())[-1]
    out = place / "whole" / name / "out"
    if name == "evaluate":
        names = [row.split(",")[0] for row in (out / "cases.csv").read_text().splitlines()]
        # The page shows images with a lesion, and reads them once more for it.
        listed = [name for name in names if not name.startswith("normal")][-1]
    else:
        rows = [row.split(",") for row in (out / "split.csv").read_text().splitlines()]
        listed = [row[0] for row in rows if row[-1] == "validation"][-1]
    return next((place / "data").rglob(f"{listed}.png"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module", "function", "calls"), some(MOMENTS, MOMENTS[0], MOMENTS[3])
)
def test_a_file_is_deleted_in_the_middle(tmp_path, prepared, name, module, function, calls):
    (command, whole), out = prepared(name), tmp_path / "new" / "out"
    out.parent.mkdir()
    path = victim(name, prepared.place)
    kept = path.read_bytes()
    program = ("-c", DELETING, path, module, function, calls)
    try:
        expected = 1 if name == "segment" else 2
        refused(name, run(command, out, program=program), expected, path.name)
        assert not (out / "report.md").exists() and not (out / "model").exists()
    finally:
        path.write_bytes(kept)
    goes_on(name, command, whole, out)


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
    code, errors = run(("OUT",), small_disk[0] / "a.weights.h5", program=("-c", code))
    assert code == 1 and errors.strip().splitlines()[-1].startswith("unet_lib.files.WriteError: ")
    assert list(small_disk[0].iterdir()) == []


def test_decoded_images_on_a_full_disk(small_disk, phantoms, monkeypatch):
    (disk, change), cases = small_disk, find_cases(phantoms)[:6]
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    change("size=1m")
    assert PreparedCases(cases, Preprocessing(64), memory_mb=0).on_disk
    with pytest.raises(WriteError, match="decoded images of 2 MB: cannot be written"):
        PreparedCases(cases, Preprocessing(256), memory_mb=0)
    assert list(disk.iterdir()) == []
