import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from unet_lib.files import (
    FolderInUse,
    WriteError,
    draft_folder,
    folder_lock,
    read_json,
    read_rows,
    write_atomic,
)

ROOT = Path(__file__).parent.parent


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.txt", "old\n")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_bytes() == b"old\n" and len(list(tmp_path.iterdir())) == 1


WRITER = """
import sys, time
from contextlib import ExitStack
from unet_lib.files import atomic_path, folder_lock
with ExitStack() as stack:
    if "lock" in sys.argv:
        stack.enter_context(folder_lock(sys.argv[1]))
    stack.enter_context(atomic_path(sys.argv[1] + "/a.txt")).write_text("half")
    print("begun", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def writer(folder, *options):
    """Another process that writes into a folder, killed at the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), *options],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "begun\n"
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_folder_belongs_to_one_process_until_it_ends_however_it_ends(tmp_path):
    with writer(tmp_path, "lock"):
        message = "another process is working in this folder"
        with pytest.raises(FolderInUse, match=message), folder_lock(tmp_path):
            raise AssertionError("two processes in one folder")
        assert len(list(tmp_path.iterdir())) == 1  # it is still being written
    with folder_lock(tmp_path):  # free again, and what was half-written is gone
        assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path):  # and once more in the same process
        pass


def test_what_another_process_is_writing_stays(tmp_path):
    """Once, whoever locked a folder removed what others were writing into it."""
    with writer(tmp_path) as child:
        with folder_lock(tmp_path), draft_folder(tmp_path, "b"):
            pass
        child.communicate("go on\n", timeout=60)
        assert child.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_has_the_usual_rights(tmp_path):
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_without_locks_of_the_system_work_goes_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with folder_lock(tmp_path):
        pass
    monkeypatch.setattr("unet_lib.files.fcntl", None)
    with folder_lock(tmp_path):
        pass


def test_a_cell_that_no_message_could_quote_is_refused(tmp_path):
    path = write_atomic(tmp_path / "a.csv", "a,b\n1," + "x" * 1001 + "\n")
    with pytest.raises(ValueError, match="line 2 has a cell of more than 1000 characters"):
        read_rows(path)


def test_the_folder_of_a_lock_goes_when_nothing_was_written(tmp_path):
    with folder_lock(tmp_path / "out"), folder_lock(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_json_that_is_nested_too_deep_is_a_value_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(path)


def test_the_remedy_fits_the_reason(tmp_path):
    (tmp_path / "file").write_text("mine")
    for name, remedy in (
        ("file/x/a.txt", "A file lies where a folder is needed"),
        ("x" * 300, "Choose a shorter name"),
    ):
        with pytest.raises(WriteError, match=rf"cannot be written \(.*\)\. {remedy}"):
            write_atomic(tmp_path / name, "x")
        with pytest.raises(WriteError, match=remedy), folder_lock(tmp_path / name):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
