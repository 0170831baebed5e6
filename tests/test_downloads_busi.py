"""BUSI and other files with a known hash: real HTTP on loopback, real zip files, real folder."""

import hashlib
import ssl
import stat
import zipfile

import pytest
import trustme
from loopback import Answer, page, serving

from unet_lib.cli import main
from unet_lib.dataset import locate_dataset
from unet_lib.downloads import DownloadError, download_busi
from unet_lib.downloads.archive import extract_zip
from unet_lib.downloads.fetch import fetch

BODY = bytes(range(256)) * 4000
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
LINK = "https://example.org/page"


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
