"""What a stranger adds from outside: the very lines of docs/extending.md, run (a data
layout: `test_layouts`)."""

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import keras
import pytest

from unet_lib import Preprocessing, Recipe, TrainingConfig, UNetConfig, open_dataset
from unet_lib.augment import AUGMENTATIONS
from unet_lib.model import ENCODERS
from unet_lib.objectives import LOSSES
from unet_lib.weights import EXPORT_FORMATS

pytestmark = pytest.mark.keras
TEXT = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", TEXT, flags=re.M | re.S))
REGISTRIES = [ENCODERS, LOSSES, EXPORT_FORMATS, AUGMENTATIONS]


@pytest.fixture(autouse=True)
def as_before():
    """What is added goes again."""
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_every_section_has_one_short_block():
    assert TEXT.count("\n## ") == TEXT.count("```python") == len(SECTIONS) == 6
    assert {
        name: code.count("\n") for name, code in SECTIONS.items() if code.count("\n") > 20
    } == {}


def test_an_encoder():
    names = {}
    exec(SECTIONS["An encoder"], names)
    assert names["network"].output_shape == (None, 32, 32, 1)
    assert names["network"].name == "unet_strided"


def test_a_loss(phantoms, tmp_path):
    names = {"split": open_dataset(phantoms).split, "folder": tmp_path}
    exec(SECTIONS["A loss"], names)
    stored = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert stored["recipe"]["training"]["loss"] == "tversky"
    assert 0 < names["run"].history[0]["loss"] < 1


def test_a_callback(phantoms, tmp_path, monkeypatch):
    """Of TensorBoard itself only where it is installed, which TensorFlow does not do."""
    if not find_spec("tensorboard"):
        stand_in = lambda path, write_graph: keras.callbacks.CSVLogger(f"{path}.csv")  # noqa: E731
        monkeypatch.setattr(keras.callbacks, "TensorBoard", stand_in)
    training = TrainingConfig(epochs=2, warmup_epochs=0)
    recipe = Recipe(UNetConfig(filters=4, depth=1), Preprocessing(32), training=training)
    exec(
        SECTIONS["A callback"],
        {"split": open_dataset(phantoms).split, "folder": tmp_path, "recipe": recipe},
    )
    if not find_spec("tensorboard"):
        rows = (tmp_path / "board.csv").read_text().splitlines()
        assert len(rows) == 3 and {"loss", "val_loss", "val_dice"} < set(rows[0].split(","))
    else:
        assert list((tmp_path / "board").rglob("events*"))


def test_an_augmentation():
    names = {"__name__": "mine"}
    exec(SECTIONS["An augmentation"], names)
    assert (names["image"] == 0).all((1, 2)).sum() >= 1 and names["again"].augmentation.rows == 2
    plain = names["again"].to_dict()
    plain["augmentation"]["kind"] = "Absent"
    assert names["again"] != names["Recipe"]()
    with pytest.raises(ValueError, match="no kind 'Absent' is known .*Dropouts"):
        names["Recipe"].from_dict(plain)


def test_an_export_format(tiny_run, tmp_path):
    exec(SECTIONS["An export format"], {"segmenter": tiny_run.segmenter, "folder": tmp_path})
    described = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert (tmp_path / "model.keras").is_file() and described


def test_a_run_goes_on_only_with_its_own_augmentation(phantoms, tmp_path):
    names = {"split": open_dataset(phantoms).split, "folder": tmp_path, "__name__": "mine"}
    exec(SECTIONS["An augmentation"] + SECTIONS["A loss"], names)
    named = replace(names["recipe"], augmentation=names["Dropouts"]())
    with pytest.raises(ValueError, match="augmentation.kind: None there, 'Dropouts' now"):
        names["train"](names["split"], tmp_path / "run", named, resume=True)
