"""Registered weights from Google Drive: gdown's own code against a server that plays Drive."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import gdown
import h5py
import numpy as np
import pytest
from loopback import DOOR, FILE, FORM, QUOTA, SIGN_IN, Answer, attachment, page, redirect, serving

from unet_lib.cli import main
from unet_lib.downloads import DownloadError, download_model, drive, registry, weights_registry
from unet_lib.files import sha256

ROOT = Path(__file__).parent.parent
NAME, ID = "first-readme", "1kwNT9dJ48L2VZn19GeqD5i4it2k06d8Q"
LINK = f"https://drive.google.com/file/d/{ID}/view"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Bytes of an HDF5 file of half a megabyte."""
    path = tmp_path_factory.mktemp("weights") / "w.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.random.default_rng(0).random(60_000)
    return path.read_bytes()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of its own: nothing is written into this one."""
    (tmp_path / "weights").mkdir()
    elsewhere = (ROOT / "weights" / "elsewhere.json").read_text(encoding="utf-8")
    (tmp_path / "weights" / "elsewhere.json").write_text(elsewhere, encoding="utf-8")
    monkeypatch.setattr(registry, "USER_FOLDER", tmp_path)
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", tmp_path / "weights")
    return tmp_path


@pytest.fixture
def google(monkeypatch):
    with serving() as server:
        redirect(monkeypatch, server.url)
        monkeypatch.setattr("random.uniform", lambda *_: 0.01)  # gdown's pause before a retry
        yield server


def offer(server, answer):
    """Drive's page for a file too large for its virus scan, then the file."""
    server.answers[DOOR] = lambda query: page(FORM.format(id=query["id"][0]))
    server.answers[FILE] = answer


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def refused(root, reason):
    """The download ends with one message that says why, the link and the folder; nothing stays."""
    before = files(root)
    with pytest.raises(DownloadError, match=reason) as caught:
        download_model(NAME, progress=False)
    text = str(caught.value)
    assert LINK in text and str(root) in text and "model.weights.h5" in text
    assert "\n" not in text
    assert files(root) == before and not list(root.glob(".*"))


def test_gdown_is_the_real_one():
    assert int(gdown.__version__.split(".")[0]) >= 6


def test_first_download_is_recorded_and_the_second_compared(root, google, weights):
    offer(google, attachment(weights))
    path, facts = download_model(NAME, progress=False)
    assert path == root / "model.weights.h5" and path.read_bytes() == weights
    assert [p for p, _ in google.requests] == [DOOR, FILE]
    found = sha256(path)
    assert found in facts and "First download" in facts
    record = json.loads((root / "weights" / "downloads.json").read_text())
    assert record == {NAME: {"size": len(weights), "sha256": found}}
    assert weights_registry()[NAME].sha256 == found

    assert "Already there" in download_model(NAME)[1]  # without the network
    assert len(google.requests) == 2
    path.unlink()
    assert "as registered" in download_model(NAME, progress=False)[1]

    path.unlink()
    other = bytearray(weights)
    other[-1] ^= 1
    offer(google, attachment(bytes(other)))
    refused(root, f"expected {found}")
    assert not path.exists()


def test_a_hash_in_the_registry_is_compared_at_the_first_download(root, google, weights):
    path = root / "weights" / "elsewhere.json"
    entries = json.loads(path.read_text())
    entries[NAME]["sha256"] = "0" * 64
    path.write_text(json.dumps(entries))
    offer(google, attachment(weights))
    refused(root, "expected 0000")


def test_a_file_of_the_user_is_not_touched(root, google, weights):
    mine = root / "model.weights.h5"
    mine.write_bytes(b"mine")
    offer(google, attachment(weights))
    with pytest.raises(DownloadError, match=r"not overwritten\. Move it away"):
        download_model(NAME)
    assert mine.read_bytes() == b"mine" and google.requests == []


def test_quota(root, google):
    google.answers[DOOR] = page(QUOTA)
    refused(root, "quota of this file is used up")


def test_permission(root, google):
    google.answers[DOOR] = page(SIGN_IN)
    refused(root, "gives no public link")


def test_not_found(root, google):
    refused(root, "gives no public link")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!DOCTYPE html><html>Virus scan warning</html>", "received a web page"),
        (b"PK\x03\x04 something else", "received another file"),
        (b"", "received another file"),
    ],
)
def test_another_file(root, google, body, reason):
    offer(google, attachment(body))
    refused(root, reason)


def test_server_error(root, google):
    google.answers[DOOR] = Answer("oops", 503, "text/plain", Content_Disposition="attachment")
    refused(root, "503")


def test_answer_without_a_type(root, google, weights):
    answer = attachment(weights)
    del answer.headers["Content-Type"]
    offer(google, answer)
    refused(root, "KeyError")  # gdown's own; it still ends in our message


def test_cut_with_its_length_announced(root, google, weights):
    google.ranges = False
    offer(google, attachment(weights, cut=100_000))
    refused(root, "download failed")


def test_cut_without_a_word(root, google, weights):
    offer(google, attachment(weights[:100_000]))
    refused(root, "cut or damaged")


def test_connection_that_breaks_once_is_taken_up_again(root, google, weights):
    first = iter([attachment(weights, cut=100_000)])
    offer(google, lambda _query: next(first, attachment(weights)))
    path, _ = download_model(NAME, progress=False)
    assert path.read_bytes() == weights
    # gdown starts anew: it asks for the whole file a second time.
    assert [r for r in google.requests if r[0] == FILE] == [(FILE, None)] * 2


def test_no_network(root, google, monkeypatch):
    google.shutdown()
    google.server_close()
    refused(root, "refused")


def test_pages_that_lead_nowhere(root, google, monkeypatch):
    monkeypatch.setattr(drive, "_PATIENCE", 0.5)
    form = page(FORM.format(id=ID))
    google.answers |= {DOOR: form, FILE: form}
    refused(root, "led to no file")


def test_folder_that_cannot_be_written(root, google, weights, monkeypatch):
    offer(google, attachment(weights))
    (root / "weights" / "downloads.json").mkdir()  # the record cannot take its name
    with pytest.raises(DownloadError, match="By hand"):
        download_model(NAME, progress=False)
    assert not (root / "model.weights.h5").exists() and not list(root.glob(".*"))


CHILD = """
import resource, sys
sys.path[:0] = ["tests"]
import pytest
from pathlib import Path
from loopback import redirect
from unet_lib.downloads import registry
root = Path(sys.argv[1])
registry.USER_FOLDER, registry.WEIGHTS_FOLDER = root, root / "weights"
redirect(pytest.MonkeyPatch(), sys.argv[2])
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
from unet_lib.cli import main
sys.exit(main(["download", "first-readme"]))
"""


def child(root, server, limit=0):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), server.url, str(limit)],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_disk_full(root, google, weights):
    """The system refuses to write on after 200 kB."""
    offer(google, attachment(weights))
    done = child(root, google, 200_000)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 1, errors
    message = errors.strip().splitlines()[-1]
    assert os.strerror(27) in message and LINK in message and str(root) in message
    assert "Traceback" not in errors
    assert files(root) == ["weights/elsewhere.json"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


def test_interrupted(root, google, weights):
    offer(google, attachment(weights, cut=100_000, hold=True))
    process = child(root, google)
    wait_until(lambda: list(root.glob(".draft-*/new/*.part")), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "interrupted; give the same command again"
    assert files(root) == ["weights/elsewhere.json"] and not list(root.glob(".*"))


def wait_until(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def test_command(root, google, weights, capsys):
    offer(google, attachment(weights))
    assert main(["download", NAME]) == 0
    out = capsys.readouterr().out
    assert str(root / "model.weights.h5") in out and "claims of the first README" in out
    assert main(["download", "nothing"]) == 2
    assert "Registered: first-readme" in capsys.readouterr().err
    assert main(["download", NAME, "--to", "x"]) == 2
    google.answers[DOOR] = page(QUOTA)
    (root / "model.weights.h5").unlink()
    assert main(["download", NAME]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("unet_lib download: Google Drive file") and LINK in error


def test_registry_of_the_repository(capsys):
    entries = weights_registry()
    assert list(entries)[-1] == NAME
    for name, entry in entries.items():
        assert all((entry.where, entry.licence, entry.trained_on, entry.results)), name
        if entry.drive_id is None:
            assert sha256(entry.path) == entry.sha256
            assert entry.path.stat().st_size == entry.size
    assert entries[NAME].drive_id == ID and "claims" in entries[NAME].results
    assert "Dice 0.679 (95 % interval 0.523 to 0.763)" in entries["busi-fold0"].results
    assert main(["download", "busi-fold0"]) == 0
    assert "Already there" in capsys.readouterr().out


def test_damaged_model_of_the_repository(root):
    folder = root / "weights" / "ours"
    folder.mkdir()
    (folder / "segmenter.json").write_text(json.dumps({"weights_sha256": "1" * 64, "about": {}}))
    with pytest.raises(DownloadError, match="missing; it comes with the repository"):
        download_model("ours")
    (folder / "model.weights.h5").write_bytes(b"x")
    with pytest.raises(DownloadError, match=r"registered SHA-256 is 1111.*Restore it with git"):
        download_model("ours")


def test_damaged_registry(root):
    (root / "weights" / "elsewhere.json").write_text("[]")
    with pytest.raises(ValueError, match=r"elsewhere\.json: cannot be read"):
        weights_registry()
