import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from unet_lib.cli import main
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


def test_a_failed_write_keeps_the_old_file_and_names_reason_and_remedy(
    tmp_path, monkeypatch, capsys
):
    path = write_atomic(tmp_path / "a.txt", "old\n")
    (tmp_path / "b").write_text("x")
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode
    for name, reason in (
        ("a.txt/x/b.txt", "Not a directory"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(WriteError, match=rf"cannot be written \({reason}\)\. Free .* another"):
            write_atomic(tmp_path / name, "x")
        with pytest.raises(WriteError, match=reason), folder_lock(tmp_path / name):
            pass
    assert main(["check", "x" * 300]) == 2
    assert "File name too long" in capsys.readouterr().err
    with pytest.raises(WriteError, match=r"\(Is a directory\)\. .*move away what lies there"):
        write_atomic(tmp_path, "x")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(WriteError, match=r"a\.txt: cannot be written \(disk full\)\. Free some"):
        write_atomic(path, "new")
    assert path.read_bytes() == b"old\n" and len(list(tmp_path.iterdir())) == 2


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
    with folder_lock(tmp_path / "out"), folder_lock(tmp_path / "out"):  # twice in one process
        assert (tmp_path / "out").is_dir()
    assert list(tmp_path.iterdir()) == []  # nothing was written there


def test_what_another_process_is_writing_stays(tmp_path):
    """Once, whoever locked a folder removed what others were writing into it."""
    with writer(tmp_path) as child:
        with folder_lock(tmp_path), draft_folder(tmp_path, "b"):
            pass
        child.communicate("go on\n", timeout=60)
        assert child.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_without_locks_of_the_system_work_goes_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    for name, value in (("fcntl.flock", refuse), ("unet_lib.files.fcntl", None)):
        monkeypatch.setattr(name, value)
        with folder_lock(tmp_path), draft_folder(tmp_path, "a") as draft:
            assert draft.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_text_that_no_message_could_quote_is_refused(tmp_path):
    path = write_atomic(tmp_path / "a.csv", "a,b\n1," + "x" * 1001 + "\n")
    with pytest.raises(ValueError, match="line 2 has a cell of more than 1000 characters"):
        read_rows(path)
    with pytest.raises(ValueError, match=r"a\.json: cannot be read .*recursion"):
        read_json(write_atomic(tmp_path / "a.json", "[" * 200_000))
