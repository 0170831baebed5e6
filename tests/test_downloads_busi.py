"""BUSI and other files with a known hash: real HTTP on loopback, real zip files, real folder."""

import hashlib
import re
import ssl
import stat
import zipfile

import numpy as np
import pytest
import trustme
from conftest import forge_zip, write_png
from loopback import Answer, page, serving

from unet_lib.cli import main
from unet_lib.dataset import find_cases, locate_dataset
from unet_lib.downloads import DownloadError, busi, download_busi
from unet_lib.downloads.archive import extract_zip
from unet_lib.downloads.fetch import fetch
from unet_lib.images import read_size

BODY = bytes(range(256)) * 4000
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
LINK = "https://example.org/page"
DARK = np.zeros((5, 6), np.uint8)


@pytest.fixture
def server():
    with serving() as running:
        yield running


def get(server, folder, digest=DIGEST, most_bytes=2_000_000):
    return fetch(
        f"{server.url}/file.zip", folder / "file.zip", digest=digest, most_bytes=most_bytes,
        link=LINK, advice="Then go on.", progress=False,
    )  # fmt: skip


def refused(server, folder, reason, left=(), **options):
    with pytest.raises(DownloadError, match=reason) as caught:
        get(server, folder, **options)
    text = str(caught.value)
    assert LINK in text and str(folder) in text and "file.zip" in text and "Then go on." in text
    assert sorted(p.name for p in folder.iterdir()) == sorted(left)


def test_whole_file(server, tmp_path):
    server.answers["/file.zip"] = Answer(BODY)
    assert get(server, tmp_path).read_bytes() == BODY
    assert [p.name for p in tmp_path.iterdir()] == ["file.zip"]


def test_cut_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.answers["/file.zip"] = Answer(BODY, cut=300_000)
    refused(server, tmp_path, "kept: the same command goes on", left=["file.zip.part"])
    have = (tmp_path / "file.zip.part").stat().st_size
    assert 0 < have <= 300_000
    server.answers["/file.zip"] = Answer(BODY)
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1] == ("/file.zip", f"bytes={have}-")
    assert [p.name for p in tmp_path.iterdir()] == ["file.zip"]


def test_server_that_cannot_go_on_sends_the_whole(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(BODY[:1000])
    server.ranges = False
    server.answers["/file.zip"] = Answer(BODY)
    assert get(server, tmp_path).read_bytes() == BODY


def test_rest_of_another_file_is_not_glued_on(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(b"x" * 1000)
    server.answers["/file.zip"] = Answer(BODY)
    refused(server, tmp_path, "expected sha256.*received sha256")


def test_what_was_kept_is_longer_than_the_file(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(BODY + b"more")
    server.answers["/file.zip"] = Answer(BODY)
    assert get(server, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(BODY[:-1]), "expected sha256:.*received sha256:"),
        (page("<html>sign in</html>"), "web page instead of the file"),
        (Answer(BODY * 3), "announces 3,072,000 bytes, at most 2,000,000"),
        (Answer(BODY * 3, Content_Length=None), "answer is longer than the file can be"),
        (Answer("gone", 404, "text/plain"), "404"),
    ],
)
def test_wrong_answers_leave_nothing(server, tmp_path, answer, reason):
    server.answers["/file.zip"] = answer
    refused(server, tmp_path, reason)


def test_no_network(server, tmp_path):
    server.shutdown()
    server.server_close()
    refused(server, tmp_path, "refused")


def test_certificate_that_cannot_be_verified_is_not_accepted(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as server:
        server.answers["/file.zip"] = Answer(BODY)
        refused(server, tmp_path, "certificate cannot be verified.*not switched off")
        assert not server.requests


def archive(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../out.png", b"x")], "leads out of the folder"),
        ([("/etc/out.png", b"x")], "no relative file name"),
        ([("C:\\out.png", b"x")], "no relative file name"),
        ([(link("a.png"), b"/etc/passwd")], "link or a device"),
        ([("a.png", b"x"), ("A.png", b"y")], "may be one file"),
        ([("a/x.png", b"x"), ("A/y.png", b"y")], "'A' and 'a' may be one folder"),
        ([("a", b"x"), ("a/b.png", b"y")], "is a file and a folder"),
        ([("a.png", b"x" * 200_000)], "unpacks to 200,000 bytes"),
        ([(f"{i}.png", b"") for i in range(20)], "holds 20 files"),
    ],
)
def test_unsafe_archives_are_refused_before_a_byte_is_written(tmp_path, members, reason):
    path = archive(tmp_path / "a.zip", members)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(DownloadError, match=reason):
        extract_zip(path, inside, most_files=10, most_bytes=100_000, progress=False)
    assert not list(inside.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "inside"]


@pytest.mark.parametrize(
    ("stated", "reason"),
    [({"flags": 1}, "'a.png' is encrypted"), ({"size": 9}, "'a.png' is shorter than .* states")],
)
def test_archives_that_state_something_else(tmp_path, stated, reason):
    path = forge_zip(archive(tmp_path / "a.zip", [("a.png", b"12345678")]), "a.png", **stated)
    with pytest.raises(DownloadError, match=rf"a\.zip: {reason}. The archive is not used"):
        download_busi(tmp_path / "to", path, progress=False)
    assert not list((tmp_path / "to").iterdir())


def test_damaged_archive(tmp_path):
    path = archive(tmp_path / "a.zip", [("a.png", b"0123456789" * 100)])
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"9876543210", 1))
    (tmp_path / "inside").mkdir()
    with pytest.raises(DownloadError, match="CRC"):
        extract_zip(path, tmp_path / "inside", most_files=10, most_bytes=9999, progress=False)


def test_archive_of_something_else_installs_nothing(tmp_path, capsys):
    path = archive(tmp_path / "a.zip", [("benign/benign (1).png", b"x")])
    assert main(["download", "busi", "--to", str(tmp_path / "to"), "--source", str(path)]) != 0
    assert "benign (1).png" in capsys.readouterr().err
    assert not list((tmp_path / "to").rglob("*"))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: [p.unlink() for p in f.glob("normal/normal (2)*")],
         r"SOURCE: is not BUSI as published \(9 images\): 1 .* 0 are unknown, first: missing 'nor"),
        (lambda f: write_png(f / "normal" / "normal (4).png", DARK),
         r"SOURCE: is not .*: 0 images are missing and 1 .* first: unknown 'normal \(4\)'"),
        (lambda f: write_png(f / "normal" / "normal (2).png", DARK),
         r"SOURCE.*normal \(2\)\.png: is of class normal and \(5, 6\) pixels .* in BUSI it is"),
        (lambda f: (f / "benign" / "benign (2)_mask_1.png").unlink(),
         "SOURCE: holds 9 masks; BUSI has 10"),
        (lambda f: cut(f / "benign" / "benign (1)_mask.png"),
         r"1 files cannot be used, first: .*SOURCE.*benign \(1\)_mask\.png: cannot be decoded"),
    ],
)  # fmt: skip
def test_what_is_not_busi_is_not_installed(tiny_is_busi, tmp_path, packed, change, reason):
    change(tiny_is_busi)
    source = tiny_is_busi
    if packed:
        pictures = [(str(p.relative_to(source)), p.read_bytes()) for p in source.rglob("*.png")]
        source = archive(tmp_path / "a.zip", pictures)
    reason = reason.replace("SOURCE", re.escape(str(source)))
    with pytest.raises(DownloadError, match=reason) as said:
        download_busi(tmp_path / "to", source, progress=False)
    assert "Nothing was installed" in str(said.value) and ".draft" not in str(said.value)
    assert not list((tmp_path / "to").iterdir())


def test_a_folder_is_copied_without_what_does_not_belong_and_not_replaced(tiny_is_busi, tmp_path):
    (tiny_is_busi / "notes.txt").write_text("mine")
    folder, facts = download_busi(tmp_path / "to", tiny_is_busi, progress=False)
    assert "9 images and 10 masks" in facts and not (folder / "notes.txt").exists()
    assert len(list(folder.rglob("*"))) == 3 + 9 + 10
    assert "Already there" in download_busi(tmp_path / "to", tiny_is_busi, progress=False)[1]
    write_png(folder / "normal" / "mine.png", DARK)
    with pytest.raises(DownloadError, match="unknown 'mine'.* not replaced: move .* away"):
        download_busi(tmp_path / "to", tiny_is_busi, progress=False)
    assert (folder / "normal" / "mine.png").exists()


@pytest.mark.parametrize("kind", ["text", "empty folder", "two sets", "two sets packed"])
def test_sources_that_hold_no_data_set(tmp_path, kind):
    source = tmp_path / "source"
    if kind == "text":
        source.write_text("no archive")
    elif kind.endswith("packed"):
        archive(source, [("BUSBRA/a.png", b"x"), ("BUS-UCLM/a.png", b"x")])
    else:
        for name in ("BUSBRA", "BUS-UCLM") if kind == "two sets" else ("",):
            (source / name).mkdir(parents=True)
    reason = {"text": "neither a folder nor a whole zip file. Copy", "empty folder": "no images"}
    match = f"{source}: {reason.get(kind, 'holds several data sets, BUSBRA, BUS-UCLM; name one')}"
    with pytest.raises(DownloadError, match=match):
        download_busi(tmp_path / "to", source, progress=False)
    assert not list((tmp_path / "to").iterdir())


def test_what_is_in_the_way_is_named(tiny_is_busi, tmp_path):
    mine = tmp_path / "busi_512.npz"
    mine.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"busi_512\.npz: is there already; move it away"):
        download_busi(tmp_path, "medsegbench", progress=False)
    with pytest.raises(DownloadError, match=r"npz.*cannot be written \(.*nothing was .* with --to"):
        download_busi(mine, tiny_is_busi, progress=False)
    assert mine.read_bytes() == b"mine"


def test_unknown_source(tmp_path):
    with pytest.raises(DownloadError, match="neither a file or folder of yours nor a known source"):
        download_busi(tmp_path, "kagle", progress=False)


def test_a_zip_of_the_real_folder_is_installed_checked_and_not_replaced(busi_dir, tmp_path):
    path = tmp_path / "kaggle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for picture in sorted(busi_dir.rglob("*.png")):
            file.write(picture, f"archive/Dataset_BUSI_with_GT/{picture.relative_to(busi_dir)}")
    folder, facts = download_busi(tmp_path / "data", path, progress=False)
    assert "780 images and 798 masks" in facts and "Not the authors' archive" in facts
    assert locate_dataset(folder) == folder
    assert [p.name for p in folder.parent.iterdir()] == ["Dataset_BUSI_with_GT"]
    (folder / "normal" / "normal (1).png").unlink()
    with pytest.raises(DownloadError, match="not replaced"):
        download_busi(tmp_path / "data", path, progress=False)
