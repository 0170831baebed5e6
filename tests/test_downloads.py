"""Files with a known hash, BUSI, registered weights: real HTTP on loopback, pooch, gdown, zips."""

import hashlib
import json
import os
import re
import ssl
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import trustme
from conftest import forge_zip, write_png
from loopback import DOOR, FILE, FORM, QUOTA, SIGN_IN, Answer, page, redirect, serving

from unet_lib.cli import main
from unet_lib.dataset import find_cases, locate_dataset
from unet_lib.downloads import (
    DownloadError,
    busi,
    download_busi,
    download_model,
    registry,
    weights_registry,
)
from unet_lib.files import WriteError, sha256
from unet_lib.images import read_size

ROOT = Path(__file__).parent.parent
BODY = bytes(range(256)) * 4000
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
PAGE = "https://example.org/page"
DARK = np.zeros((5, 6), np.uint8)
NAME, ID = "first-readme", "1kwNT9dJ48L2VZn19GeqD5i4it2k06d8Q"
DRIVE_PAGE = f"https://drive.google.com/file/d/{ID}/view"


@pytest.fixture
def server():
    with serving() as running:
        yield running


# --- a file with a known hash ------------------------------------------------------------------


def get(server, folder):
    url, path = f"{server.url}/file.zip", folder / "file.zip"
    return busi._fetch(url, path, DIGEST, link=PAGE, advice="Then go on.", progress=False)


def refused(server, folder, reason):
    with pytest.raises(DownloadError, match=reason) as caught:
        get(server, folder)
    text = str(caught.value)
    assert PAGE in text and str(folder) in text and "Then go on." in text and "\n" not in text
    assert list(folder.iterdir()) == []


def test_a_whole_file_is_taken_and_not_asked_for_again(server, tmp_path):
    server.answers["/file.zip"] = Answer(BODY)
    for _ in range(2):
        assert get(server, tmp_path).read_bytes() == BODY
        assert [p.name for p in tmp_path.iterdir()] == ["file.zip"]
    assert len(server.requests) == 1
    (tmp_path / "file.zip").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"file\.zip: another file is there already; move it"):
        get(server, tmp_path)
    assert (tmp_path / "file.zip").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(BODY[:-1]), "does not match the known hash"),
        (Answer(BODY, cut=300_000), "IncompleteRead|broken"),
        (page("<html>sign in</html>"), "does not match the known hash"),
        (Answer(b"gone", 404, "text/plain"), "404"),
    ],
)
def test_wrong_answers_leave_nothing(server, tmp_path, answer, reason):
    server.answers["/file.zip"] = answer
    refused(server, tmp_path, reason)


def test_no_network_and_no_valid_certificate(server, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as secure:
        secure.answers["/file.zip"] = Answer(BODY)
        refused(secure, tmp_path, "certificate verify failed")
        assert not secure.requests
    server.shutdown()
    server.server_close()
    refused(server, tmp_path, "refused")


# --- BUSI --------------------------------------------------------------------------------------


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def packed(folder, path):
    """Zip a folder as Kaggle does."""
    files = sorted(folder.rglob("*.png"))
    names = (f"archive/{folder.name}/{file.relative_to(folder)}" for file in files)
    return archive(path, **{n: file.read_bytes() for n, file in zip(names, files, strict=True)})


@pytest.fixture
def tiny_is_busi(tiny_busi, monkeypatch):
    """The folder of 9 images and 10 masks, and a list that says it is all of BUSI."""
    rows = {}
    for case in find_cases(tiny_busi):
        height, width = read_size(case.image_path)
        size = {"height": str(height), "width": str(width)}
        rows[case.name] = {"class": case.label, "group": case.name, **size}
    monkeypatch.setattr("unet_lib.dataset.groups.read_audit", lambda *_: rows)
    monkeypatch.setattr(busi, "_MASKS", 10)
    return tiny_busi


def no_busi(tmp_path, source, reason):
    """The installation ends with one message; nothing is installed, nothing stays."""
    with pytest.raises(DownloadError, match=reason) as said:
        download_busi(tmp_path / "to", source, progress=False)
    assert ".draft" not in str(said.value)
    assert not list(tmp_path.glob("to/*"))
    return str(said.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes().replace(b"0123456789", b"9876543210", 1)), "CRC"),
        (lambda p: forge_zip(p, "a.png", flags=1), "encrypted"),
        (lambda p: forge_zip(p, "a.png", size=1 << 31), "unpacks to 2,147,483,648 bytes"),
    ],
)
def test_archives_that_cannot_be_unpacked(tmp_path, change, reason):
    path = archive(tmp_path / "a.zip", **{"a.png": b"0123456789" * 100})
    change(path)
    no_busi(tmp_path, path, rf"a\.zip: .*{reason}.*\. The archive is not used")


def test_no_name_in_an_archive_leads_out_of_the_folder(tiny_is_busi, tmp_path):
    path = packed(tiny_is_busi, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../../../../out.png", b"x")
        file.writestr(str(tmp_path / "absolute.png"), b"x")
    folder, _ = download_busi(tmp_path / "to", path, progress=False)
    assert {p.name for p in tmp_path.iterdir()} == {"a.zip", "to", tiny_is_busi.name}
    assert len(list(folder.rglob("*"))) == 3 + 9 + 10


def test_an_archive_stays_until_it_is_installed(server, tiny_is_busi, tmp_path, monkeypatch):
    """Once it was removed when the installation failed, and downloaded again."""
    body = packed(tiny_is_busi, tmp_path / "a.zip").read_bytes()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    changed = replace(busi.SOURCES["authors"], url=f"{server.url}/busi.zip", digest=digest)
    monkeypatch.setitem(busi.SOURCES, "authors", changed)
    server.answers["/busi.zip"] = Answer(body)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(WriteError, match="No space left on device"):
        patch.setattr(zipfile.ZipFile, "extractall", full)
        download_busi(tmp_path / "to", progress=False)
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["Dataset_BUSI.zip"]
    assert "authors' archive" in download_busi(tmp_path / "to", progress=False)[1]
    assert len(server.requests) == 1
    (tmp_path / "to" / "Dataset_BUSI.zip").write_bytes(body)  # as when killed right at the end
    assert "Already there" in download_busi(tmp_path / "to", progress=False)[1]
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["Dataset_BUSI_with_GT"]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda f: [p.unlink() for p in f.glob("normal/normal (2)*")],
            r"SOURCE: is not BUSI as published \(9 images\): 1 .* 0 are unknown, first: missing",
        ),
        (
            lambda f: write_png(f / "normal" / "normal (2).png", DARK),
            r"SOURCE.*normal \(2\)\.png: is of class normal and \(5, 6\) pixels .* in BUSI it is",
        ),
        (
            lambda f: (f / "benign" / "benign (2)_mask_1.png").unlink(),
            "SOURCE: holds 9 masks; BUSI has 10",
        ),
        (
            lambda f: os.truncate(f / "benign" / "benign (1)_mask.png", 60),
            r"1 files cannot be used, first: .*SOURCE.*benign \(1\)_mask\.png: cannot be decoded",
        ),
    ],
)
def test_what_is_not_busi_is_not_installed(tiny_is_busi, tmp_path, zipped, change, reason):
    change(tiny_is_busi)
    source = packed(tiny_is_busi, tmp_path / "a.zip") if zipped else tiny_is_busi
    said = no_busi(tmp_path, source, reason.replace("SOURCE", re.escape(str(source))))
    assert "Nothing was installed" in said


def test_a_folder_is_copied_without_what_does_not_belong_and_not_replaced(tiny_is_busi, tmp_path):
    (tiny_is_busi / "notes.txt").write_text("mine")
    folder, checked = download_busi(tmp_path / "to", tiny_is_busi, progress=False)
    assert "9 images and 10 masks" in checked and not (folder / "notes.txt").exists()
    assert len(list(folder.rglob("*"))) == 3 + 9 + 10
    assert len(list(tiny_is_busi.rglob("*.png"))) == 9 + 10
    (tmp_path / "to" / ".draft-killed" / "new").mkdir(parents=True)
    assert "Already there" in download_busi(tmp_path / "to", tiny_is_busi, progress=False)[1]
    assert [path.name for path in (tmp_path / "to").iterdir()] == [folder.name]
    write_png(folder / "normal" / "mine.png", DARK)
    with pytest.raises(DownloadError, match="unknown 'mine'.* not replaced: move .* away"):
        download_busi(tmp_path / "to", tiny_is_busi, progress=False)
    assert (folder / "normal" / "mine.png").exists()


def test_sources_and_targets_that_cannot_be(tiny_is_busi, tmp_path):
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "empty").mkdir()
    archive(tmp_path / "two", **{"BUSBRA/a.png": b"x", "BUS-UCLM/a.png": b"x"})
    archive(tmp_path / "other", **{"benign/benign (1).png": b"x"})
    for name, reason in (
        ("text", "neither a folder nor a whole zip file. Copy"),
        ("empty", "no images"),
        ("two", "several data sets, BUSBRA, BUS-UCLM; name one"),
        ("other", "image without a mask"),
        ("kagle", "neither a file or folder of yours nor a known source"),
    ):
        no_busi(tmp_path, tmp_path / name, f"{name}.*{reason}")
    for to in ("text", "text/x"):
        with pytest.raises(WriteError, match=rf"{to}: cannot be written \(.*\)\. .*move away what"):
            download_busi(tmp_path / to, tiny_is_busi, progress=False)


def test_a_zip_of_the_real_folder_is_installed_checked_and_not_replaced(busi_dir, tmp_path):
    path = packed(busi_dir, tmp_path / "kaggle.zip")
    folder, checked = download_busi(tmp_path / "data", path, progress=False)
    assert "780 images and 798 masks" in checked
    assert locate_dataset(folder) == folder
    assert [p.name for p in folder.parent.iterdir()] == ["Dataset_BUSI_with_GT"]
    (folder / "normal" / "normal (1).png").unlink()
    with pytest.raises(DownloadError, match="not replaced"):
        download_busi(tmp_path / "data", path, progress=False)


# --- weights -----------------------------------------------------------------------------------


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
def google(monkeypatch, server):
    redirect(monkeypatch, server.url)
    monkeypatch.setattr("random.uniform", lambda *_: 0.01)  # gdown's pause before a retry
    return server


def offer(server, body, **more):
    """Drive's page for a file too large for its virus scan, then the file."""
    named = 'attachment; filename="model.weights.h5"'
    server.answers[DOOR] = lambda query: page(FORM.format(id=query["id"][0]))
    server.answers[FILE] = Answer(body, disposition=named, **more)
    return server.answers[FILE]


def no_model(root, reason):
    """The download ends with one message that says why, the link and the folder; nothing stays."""
    before = sorted(root.rglob("*"))
    with pytest.raises(DownloadError, match=reason) as caught:
        download_model(NAME, progress=False)
    text = str(caught.value)
    assert DRIVE_PAGE in text and str(root) in text and "model.weights.h5" in text
    assert "\n" not in text and sorted(root.rglob("*")) == before


def test_first_download_is_recorded_and_the_second_compared(root, google, weights):
    offer(google, weights)
    path, checked = download_model(NAME, progress=False)
    assert path == root / "model.weights.h5" and path.read_bytes() == weights
    assert google.requests == [DOOR, FILE]
    digest = sha256(path)
    assert digest in checked and "First download" in checked
    record = json.loads((root / "weights" / "downloads.json").read_text())
    assert record == {NAME: {"size": len(weights), "sha256": digest}}
    assert weights_registry()[NAME].sha256 == digest

    assert "Already there" in download_model(NAME)[1]  # without the network
    assert len(google.requests) == 2
    path.unlink()
    assert "as registered" in download_model(NAME, progress=False)[1]

    path.unlink()
    other = bytearray(weights)
    other[-1] ^= 1
    offer(google, bytes(other))
    no_model(root, f"expected {digest}")
    path.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"not overwritten\. Move it away"):
        download_model(NAME)
    assert path.read_bytes() == b"mine"


def test_pages_and_other_files_instead_of_the_weights(root, google, weights, monkeypatch):
    no_model(root, "FileURLRetrievalError")  # not found
    for text in (QUOTA, SIGN_IN):
        google.answers[DOOR] = page(text)
        no_model(root, "FileURLRetrievalError")
    google.answers[DOOR] = Answer(b"oops", 503, "text/plain", disposition="attachment")
    no_model(root, "503")
    for body in (b"<!DOCTYPE html><html>scan</html>", b"", weights[:100_000]):
        offer(google, body)
        no_model(root, "expected a whole Keras .weights.h5 file")
    monkeypatch.setattr(registry, "_PATIENCE", 0.5)
    form = page(FORM.format(id=ID))
    google.answers |= {DOOR: form, FILE: form}  # which lead nowhere
    no_model(root, "DownloadCancelled")


def test_broken_connections(root, google, weights):
    broken = offer(google, weights, cut=100_000)
    google.ranges = False
    no_model(root, "bytes")
    answers = iter([broken, offer(google, weights)])
    google.answers[FILE] = lambda _query: next(answers)
    assert download_model(NAME, progress=False)[0].read_bytes() == weights  # taken up again


def test_command(root, google, weights, capsys):
    offer(google, weights)
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
    assert error.startswith("unet_lib download: Google Drive file") and DRIVE_PAGE in error


def test_registry_of_the_repository():
    entries = weights_registry()
    assert list(entries)[-1] == NAME
    for name, entry in entries.items():
        assert all((entry.where, entry.licence, entry.trained_on, entry.results)), name
        if entry.drive_id is None:
            assert sha256(entry.path) == entry.sha256
            assert entry.path.stat().st_size == entry.size
    assert entries[NAME].drive_id == ID and "claims" in entries[NAME].results
    assert "Already there" in download_model("busi-fold0")[1]


def test_damaged_registry_and_models_of_the_repository(root):
    folder = root / "weights" / "ours"
    folder.mkdir()
    (folder / "segmenter.json").write_text(json.dumps({"weights_sha256": "1" * 64, "about": {}}))
    with pytest.raises(DownloadError, match="missing; it comes with the repository"):
        download_model("ours")
    (folder / "model.weights.h5").write_bytes(b"x")
    with pytest.raises(DownloadError, match=r"registered one is 1111.*Restore it with git"):
        download_model("ours")
    (root / "weights" / "elsewhere.json").write_text("[]")
    with pytest.raises(ValueError, match=r"elsewhere\.json: expected an object"):
        weights_registry()
