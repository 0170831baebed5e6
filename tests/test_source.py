import json
from pathlib import Path

import pytest
from conftest import write_tiny_busi

from unet_lib import source as module
from unet_lib.dataset import COMMITTED_FOLDS, DatasetError, Folds, SplitError, find_cases, reading
from unet_lib.source import open_dataset

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No BUSI is found by itself, and phantoms do not go into the project's folder."""
    monkeypatch.delenv("BUSI_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for holder in (module, reading):
        monkeypatch.setattr(holder, "DATA_FOLDER", tmp_path / "project" / "data")
    for name in ("_KAGGLE", "_COLAB"):
        monkeypatch.setattr(reading, name, tmp_path / "nowhere")
    monkeypatch.setattr(module, "PHANTOM_COUNT", 8)


@pytest.fixture
def own(tmp_path):
    """A folder of someone's own images: BUSI's layout, other pictures."""
    return write_tiny_busi(tmp_path / "clinic", benign=9, malignant=6, normal=5)


def what(source):
    return source.provenance.data_kind, source.provenance.data


def names(split):
    return {part: [case.name for case in getattr(split, part)] for part in PARTS}


def test_without_data_phantoms_are_made_and_named_so(tmp_path):
    source = open_dataset("auto", progress=False)
    folder = tmp_path / "project" / "data" / "phantoms"
    assert source.folder == folder and (folder / "PHANTOMS.json").is_file()
    assert (*what(source), len(source.cases)) == ("phantoms", "phantoms", 8)
    assert "PHANTOMS, synthetic images: nothing here is a clinical result" in str(source)
    assert "PHANTOMS" in source._repr_html_() and "#b35900" in source._repr_html_()
    assert source.message == str(source) == repr(source)  # no path of this machine in a notebook
    assert source.provenance.groups == "none: phantoms are made one by one"
    for again in ("phantoms", folder):
        assert open_dataset(again, progress=False) == source  # the same pictures and split


def test_own_folder(own):
    source = open_dataset(str(own))
    assert (*what(source), source.provenance.fold) == ("clinical", "clinic", 0)
    assert list(source.cases) == find_cases(own)
    assert "PHANTOM" not in source.message + source._repr_html_()
    parts = names(source.split)
    for part, listed in parts.items():
        assert f"{len(listed)} {part}" in source.message
    assert sorted(sum(parts.values(), [])) == sorted(case.name for case in source.cases)
    assert "Data: clinic, 20 images" in source.message
    assert json.loads(json.dumps(source.provenance.to_dict())) == {
        "data": "clinic",
        "data_kind": "clinical",
        "split": "folds, fold 0",
        "fold": 0,
        "parts": {"train": 14, "validation": 2, "test": 4},
        "groups": "near-duplicates found by the library (0 images in 0 groups)",
    }


def test_folds_differ_and_repeat(own):
    tests = [names(open_dataset(own, fold=fold).split)["test"] for fold in range(5)]
    assert sorted(sum(tests, [])) == sorted(case.name for case in find_cases(own))
    assert names(open_dataset(own, fold=1).split)["test"] == tests[1]
    assert names(open_dataset(own, fold=1, seed=7).split)["test"] != tests[1]
    with pytest.raises(SplitError, match="there is no fold 5; it has folds 0 to 4"):
        open_dataset(own, fold=5)
    for part, listed in names(open_dataset(own, fold=1, normals=False).split).items():
        with_normals = names(open_dataset(own, fold=1).split)[part]
        assert listed == [name for name in with_normals if not name.startswith("normal")]


def test_only_busis_pictures_make_busi_not_a_folder_of_its_name(own, tmp_path, monkeypatch):
    box = open_dataset(own.rename(tmp_path / "a <b> & c"))._repr_html_()
    assert "a &lt;b&gt; &amp; c" in box and "<b>" not in box and "#b35900" not in box
    source = open_dataset((tmp_path / "a <b> & c").rename(tmp_path / "BUSI"))
    assert source.provenance.split == "folds, fold 0"
    monkeypatch.chdir(tmp_path / "BUSI")
    assert open_dataset(".").provenance.data == "BUSI"  # not the empty name of "."


def test_a_wrong_folder_is_never_replaced_by_phantoms(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="absent.*does not exist"):
        open_dataset(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty.*holds no cases"):
        open_dataset(tmp_path / "empty")
    monkeypatch.setenv("BUSI_DIR", str(tmp_path / "gone"))
    with pytest.raises(DatasetError, match="gone.*BUSI_DIR"):
        open_dataset("auto")
    assert not (tmp_path / "project").exists()


def test_busi_gets_its_committed_folds(busi_dir, monkeypatch):
    monkeypatch.setenv("BUSI_DIR", str(busi_dir))
    source = open_dataset("auto", fold=3)
    assert (*what(source), len(source.cases)) == ("clinical", "BUSI", 780)
    assert source.provenance.split == "busi_5fold_v2, fold 3" and source.folder == Path(busi_dir)
    assert source.provenance.groups == "audited list"
    for part, listed in names(source.split).items():
        rows = Folds.read(COMMITTED_FOLDS["BUSI"]).rows
        assert sorted(listed) == sorted(row.image for row in rows if row.parts[3] == part)


def test_bus_bra_gets_its_committed_folds_and_is_not_searched_again(busbra_dir, monkeypatch):
    monkeypatch.setattr("unet_lib.dataset.groups.duplicate_pairs", None)
    source = open_dataset(busbra_dir, fold=2)
    assert (*what(source), len(source.cases)) == ("clinical", "BUSBRA", 1323)
    assert source.provenance.split == "busbra_5fold, fold 2"
    assert source.provenance.groups == "busbra_5fold.csv, patients"
    rows = Folds.read(COMMITTED_FOLDS["BUSBRA"]).rows
    assert sorted(names(source.split)["test"]) == sorted(
        r.image for r in rows if r.parts[2] == "test"
    )
    assert len({case.group for case in source.cases}) == len({row.group for row in rows})


def test_busi_and_bus_bra_are_joined_without_a_search(busi_dir, busbra_dir, monkeypatch):
    """It was made once, over both: there are no near-duplicates across them."""
    monkeypatch.setattr("unet_lib.dataset.groups.duplicate_pairs", None)
    monkeypatch.setattr("unet_lib.dataset.dividing.duplicate_pairs", None)
    source = open_dataset([busi_dir, busbra_dir])
    assert source.provenance.split == "busi_5fold_v2 + busbra_5fold, fold 0"
    assert [len(part) for part in names(source.split).values()] == [1443, 239, 421]
