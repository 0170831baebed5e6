"""Disk full, read-only folder, files changed in the middle, Ctrl-C in a notebook: real commands.

After each fault: one error that names the file, no traceback, everything under a final name whole,
and the same command again gives what an undisturbed process gives. Some of it runs with the slow
tests, all with `make faults`.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import faults
import pytest
from loopback import serving

from unet_lib.files import WriteError, write_atomic

pytestmark = pytest.mark.slow
COMMANDS = ("train", "evaluate", "segment", "score", "crossvalidate", "download", "phantoms")
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
    """Commands by name, and what each leaves when nothing disturbs it."""
    place = tmp_path_factory.mktemp("faults")
    with serving() as server:
        known = {command.name: command for command in faults.commands(place, server)}
        wholes = {}

        def whole(name):
            if name not in wholes:
                wholes[name] = place / "whole" / name
                wholes[name].mkdir(parents=True)
                arguments = faults._filled(known[name].arguments, wholes[name] / "out")
                faults._run(*arguments, program=known[name].program)
            return wholes[name]

        yield known, whole, place


def run(command, out, again=False, **more):
    words = (*command.arguments, *(command.again if again else ()))
    child = faults._start(*faults._filled(words, out), program=command.program, **more)
    _, errors = child.communicate(timeout=600)
    return child.returncode, errors


def refused(command, errors, code, expected, *words):
    last = errors.strip().splitlines()[-1]
    assert code == expected, errors
    assert "Traceback" not in errors and "Exception ignored" not in errors, errors
    assert last.startswith(f"unet_lib {command.name}: "), errors
    for word in words:
        assert word in last, last


def check_again(command, whole, out, **more):
    code, errors = run(command, out, again=True, **more)
    assert code == 0, errors
    assert faults.differences(whole, out.parent) == []


FAULTS = ["2 %", "40 %", "80 %", "read-only", "file size"]


@pytest.mark.parametrize(
    ("name", "fault"),
    some(
        [(name, fault) for name in COMMANDS for fault in FAULTS],
        *[("evaluate", "40 %"), ("segment", "file size"), ("phantoms", "read-only")],
    ),
)
def test_a_disk_that_does_not_take_it(small_disk, prepared, name, fault):
    (known, find, _), (disk, change) = prepared, small_disk
    command, whole, out = known[name], find(name), disk / "out"
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
    code, errors = run(command, out, **limit)
    assert code, "the disk was large enough"
    refused(command, errors, code, 1, str(disk), *words)
    assert faults.unreadable(disk) == []
    change("rw,size=200m")
    assert fault != "read-only" or list(disk.iterdir()) == []
    check_again(command, whole, out)


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
# Where and at which call the file is deleted: before it is read the first time, and
# between two readings.
MOMENTS = [
    ("evaluate", "unet_lib.inference.scoring", "load_case", 1),
    ("evaluate", "unet_lib.report", "write_report", 1),
    ("evaluate", "unet_lib.inference.scoring", "pixel_sizes", 1),
    ("score", "unet_lib.predictions", "load_case", 1),
    ("score", "unet_lib.predictions", "tqdm", 1),
    ("segment", "unet_lib.inference.segmenter", "read_frames", 3),
    ("train", "unet_lib.batches", "load_case", 1),
    ("train", "unet_lib.training.run", "tune_threshold", 1),
]


def victim(name, place):
    """One of the last files that the command reads."""
    if name == "segment":
        return sorted((place / "pictures").iterdir())[-1]
    out = place / "whole" / name / "out"
    if name == "evaluate":
        names = [row.split(",")[0] for row in (out / "cases.csv").read_text().splitlines()]
        # The page shows images with a lesion, and reads them once more for it.
        listed = [name for name in names if not name.startswith("normal")][-1]
    elif name == "train":
        rows = [row.split(",") for row in (out / "split.csv").read_text().splitlines()]
        listed = [row[0] for row in rows if row[-1] == "validation"][-1]
    else:
        return sorted((place / "predictions").iterdir())[-1]
    return next((place / "phantoms").rglob(f"{listed}.png"))


@pytest.mark.parametrize(
    ("name", "module", "function", "calls"), some(MOMENTS, MOMENTS[2], MOMENTS[4])
)
def test_a_file_is_deleted_in_the_middle(tmp_path, prepared, name, module, function, calls):
    known, find, place = prepared
    command, whole, out = known[name], find(name), tmp_path / "new" / "out"
    out.parent.mkdir()
    path = victim(name, place)
    kept = shutil.copy2(path, tmp_path / "kept.png")
    program = ("-c", DELETING, str(path), module, function, str(calls))
    try:
        code, errors = run(replace(command, program=program), out)
        refused(command, errors, code, 1 if name == "segment" else 2, path.name)
        assert faults.unreadable(out.parent) == []
        assert not (out / "report.md").exists() and not (out / "model").exists()
    finally:
        shutil.copy2(kept, path)
    check_again(command, whole, out)


@minutes
def test_an_image_changed_between_two_parts_of_a_training(tmp_path, prepared):
    known, find, place = prepared
    command, whole, out = known["train"], find("train"), tmp_path / "new" / "out"
    out.parent.mkdir()
    child = faults._start(*faults._filled(command.arguments, out))
    while not (out / "state.npz").exists():
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    child.kill()
    child.communicate()
    path = victim("train", place)
    other = next(p for p in sorted(path.parent.glob("*).png")) if p != path)
    changed = [(p, p.read_bytes()) for p in (path, path.with_name(f"{path.stem}_mask.png"))]
    try:
        shutil.copyfile(other, path)
        shutil.copyfile(other.with_name(f"{other.stem}_mask.png"), changed[1][0])
        code, errors = run(command, out, again=True)
        refused(command, errors, code, 2, path.stem, "not what they were when this run was begun")
    finally:
        for file, content in changed:
            file.write_bytes(content)
    check_again(command, whole, out)


CELL = """
from unet_lib import Preprocessing, Recipe, TrainingConfig, UNetConfig, open_dataset, train
training = TrainingConfig(epochs=6, warmup_epochs=1, deterministic=True)
recipe = Recipe(UNetConfig(filters=4, depth=2), Preprocessing(32), training=training)
run = train(open_dataset({data!r}).split, {folder!r}, recipe, resume=True)
print("whole", run.result["epochs"])
"""


@minutes
def test_interrupt_in_a_notebook_cell(tmp_path, prepared):
    """The kernel stays, and the same cell again gives what it gives undisturbed."""
    from jupyter_client.manager import start_new_kernel

    _, _, place = prepared
    cells = [
        CELL.format(data=str(place / "phantoms"), folder=str(tmp_path / name / "run"))
        for name in ("whole", "interrupted")
    ]
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(faults.ROOT))
    try:

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

        assert "whole 6" in execute(cells[0])
        run_folder = tmp_path / "interrupted" / "run"
        said = execute(cells[1], lambda: (run_folder / "state.npz").exists())
        assert said.endswith("KeyboardInterrupt"), said
        assert faults.unreadable(run_folder) == []
        assert not list(run_folder.rglob(".draft-*"))
        assert "whole 6" in execute(cells[1])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert faults.differences(tmp_path / "whole", tmp_path / "interrupted") == []


def test_an_error_of_the_disk_names_the_file_and_keeps_the_old_one(small_disk):
    disk, change = small_disk
    path = write_atomic(disk / "a.txt", "old")
    with pytest.raises(WriteError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_atomic(path, b"x" * 200_000)
    change("ro")
    with pytest.raises(WriteError, match=r"Read-only file system\).*folder that you may"):
        write_atomic(path, "new")
    assert [p.name for p in disk.iterdir()] == ["a.txt"] and path.read_text() == "old"


def test_weights_on_a_full_disk(small_disk):
    """HDF5 that fails in the middle of a file lets Python crash at its end."""
    disk, _ = small_disk
    code = (
        "import sys, keras\n"
        "from pathlib import Path\n"
        "from unet_lib.weights import save_weights_file\n"
        "network = keras.Sequential([keras.Input((200,)), keras.layers.Dense(200)])\n"
        "save_weights_file(network, Path(sys.argv[1]))\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(disk / "a.weights.h5")],
        cwd=faults.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert child.returncode == 1, child.stderr
    assert child.stderr.strip().splitlines()[-1].startswith("unet_lib.files.WriteError: ")
    assert list(disk.iterdir()) == []


def test_a_draft_goes_with_the_next_one_after_a_kill_and_not_before(tmp_path):
    code = (
        "import sys, time\n"
        "from unet_lib.files import draft_folder\n"
        "with draft_folder(sys.argv[1], 'a') as draft:\n"
        "    (draft / 'half').write_text('x')\n"
        "    print('made', flush=True)\n"
        "    time.sleep(600)\n"
    )
    from unet_lib.files import draft_folder

    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=faults.ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "made\n"
        with draft_folder(tmp_path, "a"):
            assert len(list(tmp_path.iterdir())) == 2
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with draft_folder(tmp_path, "a") as draft:
        assert list(tmp_path.iterdir()) == [draft.parent]
    assert list(tmp_path.iterdir()) == []


def test_decoded_images_on_a_full_disk(small_disk, monkeypatch):
    import tempfile

    from unet_lib.batches import PreparedCases
    from unet_lib.dataset import find_cases
    from unet_lib.images import Preprocessing
    from unet_lib.phantoms import make_phantoms

    disk, change = small_disk
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    change("size=2m")
    cases = find_cases(make_phantoms(disk / "phantoms", 6, progress=False))
    with pytest.raises(WriteError, match="decoded images of 2 MB: cannot be written"):
        PreparedCases(cases, Preprocessing(256), memory_mb=0)
    prepared = PreparedCases(cases, Preprocessing(64), memory_mb=0)
    assert prepared.on_disk and {p.name for p in Path(disk).iterdir()} == {"phantoms"}
