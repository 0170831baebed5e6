"""The split files of the search for other scanners, and its script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from unet_lib.dataset import COMMITTED_FOLDS, Folds, find_cases, make_folds
from unet_lib.phantoms import make_phantoms

SPLITS = COMMITTED_FOLDS["BUSI"].parent
SCRIPT = Path(__file__).parents[1] / "experiments" / "train_joint.py"


@pytest.mark.parametrize("file, images", [("busi_5fold_v2.csv", 780), ("busbra_5fold.csv", 1323)])
def test_each_image_validates_in_one_fold_at_most(file, images):
    rows = Folds.read(SPLITS / file).rows  # which refuses a group in two parts of a fold
    sizes = Counter(row.group for row in rows)
    assert len(rows) == images
    assert all(row.parts.count("test") == 1 for row in rows)
    assert all(row.parts.count("validation") <= (sizes[row.group] <= 3) for row in rows)
    labels = Counter(row.label for row in rows)
    for fold in range(5):
        parts = Counter((row.parts[fold], row.label) for row in rows)
        for label, total in labels.items():
            assert parts["validation", label] == pytest.approx(0.11 * total, abs=0.01 * total + 2)
            assert parts["test", label] == pytest.approx(0.2 * total, abs=0.02 * total + 2)


def test_busi_keeps_its_test_parts_and_only_single_pictures_validate():
    old, new = (
        Folds.read(path).rows for path in (SPLITS / "busi_5fold.csv", COMMITTED_FOLDS["BUSI"])
    )
    sizes = Counter(row.group for row in old)
    for before, after in zip(old, new, strict=True):
        assert (before.image, before.label, before.group) == (after.image, after.label, after.group)
        assert [p == "test" for p in before.parts] == [p == "test" for p in after.parts]
        assert "validation" not in after.parts or sizes[after.group] == 1


def test_no_patient_of_busbra_is_divided():
    folds = Folds.read(SPLITS / "busbra_5fold.csv")
    parts = defaultdict(set)
    for row in folds.rows:
        parts[row.image.split("-")[0]].add(row.parts)  # bus_0001-l and bus_0001-r
    assert set(map(len, parts.values())) == {1}


@pytest.mark.slow
def test_two_sets_are_trained_together_and_scored_apart(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    for seed, (variable, file) in enumerate(
        (("BUSI_DIR", "busi_5fold_v2.csv"), ("BUSBRA_DIR", "busbra_5fold.csv"))
    ):
        folder = tmp_path / variable.removesuffix("_DIR")
        environment[variable] = str(make_phantoms(folder, 30, seed, progress=False))
        make_folds(find_cases(environment[variable])).save(tmp_path / file)
    call = [sys.executable, SCRIPT, "smoke", "--train", "BUSI:0", "--epochs", "1"]
    call += ["--splits", tmp_path, "--runs", tmp_path / "runs", "--results", tmp_path]
    call += ["--set", "network.encoder=plain", "--set", "network.encoder_weights=null"]
    call += ["--set", "network.filters=2", "--set", "network.depth=2"]
    call += ["--set", "training.warmup_epochs=0", "--set", "preprocessing.size=32"]
    call += ["--train", "BUSBRA:0", "--repeat", "BUSI=2", "--set", "training.threshold=0"]
    subprocess.run(list(map(str, call)), env=environment, check=True)
    result = json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))
    assert [result["scores"][name]["part"] for name in ("BUSI", "BUSBRA")] == ["validation"] * 2
    assert 0 < result["threshold"] < 1 and result["cleaning"]["minimum_peak"] == 0.9
    assert result["scores"]["BUSI"]["lesions"] and result["pictures_an_epoch"] > 45
    lines = (tmp_path / "smoke.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 1 and lines[0] == "set,part,name,group,label,dice,empty"
