"""Cross-validation: folds trained, resumed, scored on validation, and once on the test parts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab.ledger import digest_of
from unet_lib.cli import main
from unet_lib.dataset import find_cases, make_folds
from unet_lib.images import Preprocessing
from unet_lib.model import UNetConfig
from unet_lib.provenance import PHANTOM_BANNER
from unet_lib.training import (
    Recipe,
    TrainingConfig,
    crossvalidate,
    load_crossvalidation,
    train_on_all,
)
from unet_lib.training.folds import _claim

PUBLISHED = Path(__file__).parent.parent / "experiments"
RECIPE = Recipe(
    network=UNetConfig(filters=4, depth=2),
    preprocessing=Preprocessing(32),
    training=TrainingConfig(epochs=2, warmup_epochs=0.5, batch_size=4, precision="float32"),
)
LEAKS = "3 of 10 test images have a group mate in training or validation"
ABOUT = {"data": "phantoms", "data_kind": "phantoms", "own_split": LEAKS, "fold": 0, "part": "test"}


@pytest.fixture(scope="module")
def data(phantoms):
    cases = find_cases(phantoms)
    return phantoms, cases, replace(make_folds(cases, 2, seed=1), leaks=(LEAKS, "0 of 12"))


@pytest.fixture(scope="module")
def folds_run(data, tmp_path_factory):
    _, cases, folds = data
    out = tmp_path_factory.mktemp("runs") / "tiny"
    return crossvalidate(cases, folds, out, RECIPE, provenance=ABOUT, progress=False)


@pytest.mark.keras
def test_only_validation_is_scored_until_it_is_final(folds_run, data):
    _, cases, folds = data
    assert list(folds_run.results) == [0, 1]
    assert not folds_run.scores["test"]
    assert not list(folds_run.folder.glob("fold*/test"))
    for fold, scored in folds_run.scores["validation"].items():
        expected = {c.name for c in folds.split(cases, fold).validation}
        assert {c.name for c in scored.table} == expected
        assert scored.provenance.threshold == folds_run.results[fold]["threshold"]


@pytest.mark.keras
def test_finished_folds_are_kept_and_other_recipes_refused(folds_run, data, tmp_path):
    _, cases, folds = data
    weights = folds_run.folder / "fold0" / "model" / "model.weights.h5"
    before = weights.stat().st_mtime_ns
    given = {"provenance": ABOUT, "progress": False}
    again = crossvalidate(cases, folds, folds_run.folder, RECIPE, which=[0], **given)
    assert weights.stat().st_mtime_ns == before
    assert len(again.results) == 2
    other = replace(RECIPE, training=replace(RECIPE.training, seed=1))
    with pytest.raises(ValueError, match="tells of another recipe"):
        crossvalidate(cases, folds, folds_run.folder, other, **given)
    with pytest.raises(ValueError, match="no fold 7"):
        crossvalidate(cases, folds, folds_run.folder, RECIPE, which=[7], **given)
    with pytest.raises(ValueError, match="no fold 7"):
        crossvalidate(cases, folds, tmp_path / "new", RECIPE, which=[0, 7], **given)
    assert not (tmp_path / "new").exists()


@pytest.mark.keras
def test_model_on_all_images_takes_the_folds_threshold(data, folds_run, tmp_path):
    _, cases, _ = data
    run = train_on_all(cases, tmp_path / "all", folds_run, progress=False)
    threshold, cleaning = folds_run.operating_point()
    assert threshold == np.median([result["threshold"] for result in folds_run.results.values()])
    assert (run.segmenter.threshold, run.segmenter.cleaning) == (threshold, cleaning)
    assert run.segmenter.provenance.trained_on == sorted(c.name for c in cases)
    assert run.segmenter.provenance.validated_on == []
    assert run.result["best_epoch"] == RECIPE.training.epochs
    assert "val_dice" not in run.history[0]
    one = replace(folds_run, results={0: folds_run.results[0]})
    with pytest.raises(ValueError, match="1 of 2 folds are finished"):
        train_on_all(cases, tmp_path / "b", one, progress=False)


@pytest.mark.slow
@pytest.mark.keras
def test_command(data, tmp_path, capsys):
    folder, cases, _ = data
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"network": {"filters": 4, "depth": 2}}))
    options = [str(folder), "--recipe", str(recipe)]
    for setting in ("training.epochs=1", "training.warmup_epochs=0", "preprocessing.size=32"):
        options += ["--set", setting]
    out = ["--out", str(tmp_path / "a")]
    assert main(["crossvalidate", *options, *out, "--folds", "1"]) == 0
    assert PHANTOM_BANNER in capsys.readouterr().out
    assert main(["crossvalidate", *options, *out, "--final"]) == 0
    final = load_crossvalidation(tmp_path / "a")
    names = [c.name for one in final.scores["test"].values() for c in one.table]
    assert sorted(names) == sorted(c.name for c in cases)  # every image once
    assert not any(one.provenance.seen_in_training for one in final.scores["test"].values())
    capsys.readouterr()
    random = ["--random-split", "3", "--out", str(tmp_path / "r"), "--folds", "1"]
    assert main(["crossvalidate", *options, *random]) == 0
    parted = load_crossvalidation(tmp_path / "r")
    assert parted.provenance.split == "random split 3, near-duplicates parted"
    assert digest_of(parted) != digest_of(final)


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="crossvalidation.json: cannot be read"):
        load_crossvalidation(tmp_path)
    for text in ("[]", '{"recipe": {}}', '{"recipe": {}, "folds": null}'):
        (tmp_path / "crossvalidation.json").write_text(text)
        with pytest.raises(ValueError, match="crossvalidation.json: cannot be read"):
            load_crossvalidation(tmp_path)
    whole = PUBLISHED / "joint" / "joint-BUSI" / "crossvalidation.json"
    (tmp_path / whole.name).write_bytes(whole.read_bytes())
    with pytest.raises(ValueError, match=f"{tmp_path}: no fold is finished yet; give the same"):
        load_crossvalidation(tmp_path)


def test_a_folder_with_something_else_is_left_alone(data, tmp_path):
    _, cases, folds = data
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match=f"{tmp_path}: is not empty.*Take another"):
        crossvalidate(cases, folds, tmp_path, RECIPE, provenance=ABOUT, progress=False)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["thesis.txt"]


def test_folder_of_a_recipe_outlives_a_new_setting(tmp_path):
    kept = load_crossvalidation(PUBLISHED / "joint" / "joint-BUSI")
    stored = json.loads((kept.folder / "crossvalidation.json").read_text(encoding="utf-8"))
    assert not stored["recipe"]["network"].pop("presence")
    (tmp_path / "crossvalidation.json").write_text(json.dumps(stored), encoding="utf-8")
    _claim(tmp_path, kept.recipe, kept.provenance)
    other = replace(kept.recipe, network=replace(kept.recipe.network, presence=True))
    with pytest.raises(ValueError, match="tells of another recipe"):
        _claim(tmp_path, other, kept.provenance)


def test_folds_of_the_authors_own_split_say_that_they_leak(folds_run, tmp_path):
    assert folds_run.provenance.own_split == LEAKS
    banners = [one.provenance.own_split for one in folds_run.scores["validation"].values()]
    assert banners == [LEAKS, "0 of 12"]  # each its own
    # A folder of before, which did not keep it, goes on.
    stored = json.loads((folds_run.folder / "crossvalidation.json").read_text())
    assert stored.pop("own_split") == LEAKS
    (tmp_path / "crossvalidation.json").write_text(json.dumps(stored))
    _claim(tmp_path, folds_run.recipe, folds_run.provenance)
