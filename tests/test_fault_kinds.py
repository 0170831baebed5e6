"""Disk full, read-only folder, files changed in the middle, Ctrl-C in a notebook: real commands.

After each fault: one error that names the file, no traceback, everything under a final name whole,
and the same command again gives what an undisturbed process gives. Most of it takes minutes and
runs with `make faults`; what is quick runs with the other tests.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import pytest
from loopback import serving

from unet_lib.files import WriteError, write_atomic

pytestmark = pytest.mark.notebook  # processes of their own: the backend of this one is no matter
slow = pytest.mark.skipif("FAULTS" not in os.environ, reason="minutes: make faults")
COMMANDS = ("train", "evaluate", "segment", "score", "crossvalidate", "download", "phantoms")


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


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@slow
@pytest.mark.parametrize("share", [0.02, 0.4, 0.8])
@pytest.mark.parametrize("name", COMMANDS)
def test_disk_full(small_disk, prepared, name, share):
    (known, find, _), (disk, change) = prepared, small_disk
    command, whole, out = known[name], find(name), disk / "out"
    change(f"size={max(8, int(size_of(whole) * share) // 1024)}k")
    code, errors = run(command, out)
    assert code, "the disk was large enough"
    refused(command, errors, code, 1, str(disk), "No space left on device", "Free some space")
    assert faults.unreadable(disk) == []
    change("size=200m")
    check_again(command, whole, out)


@slow
@pytest.mark.parametrize("name", ["train", "evaluate", "segment", "crossvalidate", "score"])
def test_a_limit_on_the_size_of_files(tmp_path, prepared, name):
    known, find, _ = prepared
    command, whole, out = known[name], find(name), tmp_path / "new" / "out"
    out.parent.mkdir()
    most = max(path.stat().st_size for path in whole.rglob("*") if path.is_file()) * 2 // 3

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    code, errors = run(command, out, preexec_fn=limit)
    refused(command, errors, code, 1, str(out), "File too large")
    assert faults.unreadable(out.parent) == []
    check_again(command, whole, out)


@slow
@pytest.mark.parametrize("name", COMMANDS)
def test_read_only_folder(small_disk, prepared, name):
    (known, find, _), (disk, change) = prepared, small_disk
    command, whole, out = known[name], find(name), disk / "out"
    change("size=200m,ro")
    code, errors = run(command, out)
    refused(command, errors, code, 1, str(disk), "Read-only file system", "may write to")
    change("rw")
    assert list(disk.iterdir()) == []
    check_again(command, whole, out)


CHANGING = """
import os, sys
from pathlib import Path
victim, kind, module, name, calls = sys.argv[1:6]
import importlib
place = importlib.import_module(module)
original, left = getattr(place, name), [int(calls)]

def disturbed(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        if kind == "delete":
            os.unlink(victim)
        else:
            Path(victim).write_bytes(Path(sys.argv[6]).read_bytes())
    return original(*arguments, **options)

setattr(place, name, disturbed)
from unet_lib.cli import main
sys.exit(main(sys.argv[7:]))
"""
# Where and at which call the file is deleted or changed: before it is read the first time, and
# between two readings.
MOMENTS = {
    "evaluate": [("unet_lib.inference.scoring", "load_case", 1, "delete"),
                 ("unet_lib.report", "write_report", 1, "delete"),
                 ("unet_lib.inference.scoring", "pixel_sizes", 1, "delete")],
    "score": [("unet_lib.predictions", "load_case", 1, "delete"),
              ("unet_lib.predictions", "tqdm", 1, "delete")],
    "segment": [("unet_lib.inference.segmenter", "read_frames", 3, "delete")],
    "train": [("unet_lib.batches", "load_case", 1, "delete"),
              ("unet_lib.training.run", "tune_threshold", 1, "delete")],
}  # fmt: skip


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


@slow
@pytest.mark.parametrize(
    ("name", "moment"), [(name, moment) for name in MOMENTS for moment in MOMENTS[name]]
)
def test_a_file_is_deleted_or_changed_in_the_middle(tmp_path, prepared, name, moment):
    known, find, place = prepared
    command, whole, out = known[name], find(name), tmp_path / "new" / "out"
    out.parent.mkdir()
    path, (module, function, calls, kind) = victim(name, place), moment
    kept = shutil.copy2(path, tmp_path / "kept.png")
    other = next(p for p in sorted(path.parent.iterdir()) if p != path and p.stem != path.stem)
    program = ("-c", CHANGING, str(path), kind, module, function, str(calls), str(other))
    words = faults._filled(command.arguments, out)
    child = faults._start(*words, program=program)
    try:
        _, errors = child.communicate(timeout=600)
        refused(command, errors, child.returncode, 1 if name == "segment" else 2, path.name)
        assert faults.unreadable(out.parent) == []
        assert not (out / "report.md").exists() and not (out / "model").exists()
    finally:
        shutil.copy2(kept, path)
    check_again(command, whole, out)


@slow
def test_an_image_changed_between_two_parts_of_a_training(tmp_path, prepared):
    known, find, place = prepared
    command, whole, out = known["train"], find("train"), tmp_path / "new" / "out"
    out.parent.mkdir()
    path = victim("train", place)
    child = faults._start(*faults._filled(command.arguments, out))
    while not (out / "state.npz").exists():
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    child.kill()
    child.communicate()
    kept = shutil.copy2(path, tmp_path / "kept.png")
    others = [p for p in sorted(path.parent.iterdir()) if "_mask" not in p.name and p != path]
    masks = [p.with_name(f"{p.stem}_mask.png") for p in (path, others[0])]
    kept_mask = shutil.copy2(masks[0], tmp_path / "kept_mask.png")
    try:
        shutil.copyfile(others[0], path)
        shutil.copyfile(masks[1], masks[0])
        code, errors = run(command, out, again=True)
        refused(command, errors, code, 2, path.stem, "not what they were when this run was begun")
    finally:
        shutil.copy2(kept, path)
        shutil.copy2(kept_mask, masks[0])
    check_again(command, whole, out)


CELL = """
from unet_lib import Recipe, open_dataset, train
from unet_lib.cli.experimenting import read_recipe
recipe = read_recipe(None, {changes!r})
run = train(open_dataset({data!r}).split, {folder!r}, recipe, resume=True)
print("whole", run.result["epochs"])
"""


@slow
def test_interrupt_in_a_notebook_cell(tmp_path, prepared):
    """The kernel stays, and the same cell again gives what it gives undisturbed."""
    from jupyter_client.manager import start_new_kernel

    _, _, place = prepared
    changes = ["training.epochs=6", "training.warmup_epochs=1", "training.deterministic=true"]
    changes += ["network.filters=4", "network.depth=2", "preprocessing.size=32"]
    data = str(place / "phantoms")
    cells = [
        CELL.format(changes=changes, data=data, folder=str(tmp_path / name / "run"))
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
