"""python -m unet_lib weights list | download | verify."""

import re
import shutil

import h5py
import pytest

from unet_lib.cli import main
from unet_lib.downloads import registry
from unet_lib.weights import verify_model

ROOT = registry.WEIGHTS_FOLDER


def test_list_says_what_is_here_and_what_is_not(capsys):
    assert main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    for entry in registry.weights_registry().values():
        state = "present" if entry.path.is_file() else "not downloaded"
        assert f"{entry.name}: {state}\n" in text
    assert "busi-fold0: present" in text and "Dice 0." in text and "MIT" in text
    assert registry.weights_registry()["busi-fold0"].sha256 in text


def test_download_is_the_same_as_the_command_download(capsys):
    assert main(["weights", "download", "busi-fold0"]) == 0
    nested = capsys.readouterr().out
    assert main(["download", "busi-fold0"]) == 0
    assert capsys.readouterr().out == nested and "SHA-256 as registered" in nested
    assert main(["weights", "download", "busi"]) == 2
    assert "busi: no such weights. Registered: busi-best, busi-fold0" in capsys.readouterr().err


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(ROOT / "busi-fold0", tmp_path / "busi-fold0")


def test_verify_the_registered_models(capsys):
    assert main(["weights", "verify"]) == 0
    assert "busi-fold0: as it should be" in capsys.readouterr().out


def test_verify_finds_what_is_wrong(model, capsys):
    assert verify_model(model) == []
    card = (model / "CARD.md").read_text()
    count = re.search(r"([\d,]+) parameters", card)[1]
    (model / "CARD.md").write_text(card.replace(count, "1,234"))
    assert f"the number of parameters ('{count}') is not in it" in verify_model(model)[0]
    (model / "CARD.md").unlink()
    assert "CARD.md: missing" in verify_model(model)[0]
    with h5py.File(model / "model.weights.h5", "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1
    assert main(["weights", "verify", str(model)]) == 1
    assert "SHA-256" in capsys.readouterr().out
    assert "neither a model folder" in verify_model(model.parent / "absent")[0]
