"""Several data sets in one training: names, groups, folds, leak guard, scores by set."""

import json
import shutil
from dataclasses import replace

import pytest
from conftest import write_png, write_tiny_busi
from test_layouts import bus_bra, bus_uclm, picture, table

from unet_lib.batches import Batches, PreparedCases
from unet_lib.cli import main
from unet_lib.dataset import (
    COMMITTED_FOLDS,
    DatasetError,
    Folds,
    SplitError,
    TrainingImages,
    find_cases,
    make_folds,
)
from unet_lib.images import Preprocessing
from unet_lib.source import open_dataset

PARTS = ("train", "validation", "test")


@pytest.fixture
def clinic(tmp_path):
    return write_tiny_busi(tmp_path / "clinic", benign=9, malignant=6, normal=5)


@pytest.fixture
def bra(tmp_path):
    return bus_bra(tmp_path / "BUSBRA")


def names(split):
    return {part: [case.name for case in getattr(split, part)] for part in PARTS}


def saved(folder, path, seed=3):
    return make_folds(find_cases(folder), seed=seed).save(path)


def test_fold_k_is_fold_k_of_each(clinic, bra, tmp_path):
    files = [saved(clinic, tmp_path / "a.csv"), saved(bra, tmp_path / "b.csv")]
    both = open_dataset([clinic, bra], split=files, fold=2, progress=False)
    expected = {part: [] for part in PARTS}
    for folder, file in zip((clinic, bra), files, strict=True):
        for part, own in names(Folds.read(file).split(find_cases(folder), 2)).items():
            expected[part] += [f"{folder.name}/{name}" for name in own]
    assert names(both.split) == expected
    of = both.provenance
    assert (of.data, of.sets) == ("clinic + BUSBRA", ["clinic", "BUSBRA"])
    assert of.split == "a + b, fold 2"
    assert "clinic: near-duplicates" in of.groups and "BUSBRA: patients" in of.groups
    assert of.groups.endswith("; 0 near-duplicates across them")
    assert "Data: clinic + BUSBRA, 40 images" in both.message
    twins = [case for case in both.cases if case.name.startswith("BUSBRA/bus_0001-")]
    assert {case.group for case in twins} == {"BUSBRA/bus_0001-l + 1"}
    one = open_dataset([clinic], split=[files[0]], progress=False)  # one is no joined set
    assert one == open_dataset(clinic, split=files[0], progress=False)


def test_near_duplicates_across_sets_stay_together_or_are_refused(clinic, tmp_path):
    other = tmp_path / "other"
    for number in range(20):
        for kind in ("images", "masks"):
            write_png(other / kind / f"{number}.png", picture(number + 100))
    for number in range(1, 6):  # the same pictures under other names
        for kind, ending in (("images", ""), ("masks", "_mask")):
            seen = clinic / "benign" / f"benign ({number}){ending}.png"
            shutil.copy(seen, other / kind / f"{number}.png")
    for fold in range(5):
        both = open_dataset([clinic, other], fold=fold, progress=False)
        part_of = {n: part for part, listed in names(both.split).items() for n in listed}
        for number in range(1, 6):
            assert part_of[f"clinic/benign ({number})"] == part_of[f"other/{number}"]
    assert both.provenance.groups.endswith("5 near-duplicates across them")
    # Names of published splits do not make these published sets, which are not searched.
    files = [tmp_path / path.name for path in COMMITTED_FOLDS.values()]
    saved(clinic, files[0])
    saved(other, files[1], seed=4)
    with pytest.raises(SplitError, match=r"'clinic/benign \(\d\)' in .* and 'other/\d' in "):
        open_dataset([clinic, other], split=files, progress=False)


def test_what_does_not_fit_is_refused(clinic, bra, tmp_path):
    files = [saved(clinic, tmp_path / "a.csv"), saved(bra, tmp_path / "b.csv")]
    with pytest.raises(DatasetError, match="are both called clinic.*rename its folder"):
        open_dataset([clinic, clinic / "."], progress=False)
    for split in (files[:1], files[0], [*files, "own"]):
        with pytest.raises(SplitError, match="splits for 2 data sets.*clinic.*Give one for each"):
            open_dataset([clinic, bra], split=split, progress=False)
    three = make_folds(find_cases(bra), 3).save(tmp_path / "three.csv")
    with pytest.raises(SplitError, match="clinic: 5, BUSBRA: 3"):
        open_dataset([clinic, bra], split=[files[0], three], progress=False)
    with pytest.raises(SplitError, match="a does not match the folder"):
        open_dataset([clinic, bra], split=[files[0]] * 2, progress=False)
    with pytest.raises(SplitError, match="no fold 5; it has folds 0 to 4"):
        open_dataset([clinic, bra], fold=5, progress=False)


def test_leaks_of_an_own_split_are_told_with_their_set(bra, tmp_path):
    uclm = bus_uclm(tmp_path / "UCLM")
    for number, path in enumerate(sorted((uclm / "images").iterdir())):
        write_png(path, picture(500 + number))  # not those of the other set
    parts = {c: ",test" if c.name.endswith("0") else ",train" for c in find_cases(uclm)}
    rows = (f"{c.name},{c.label},{c.name}{5 * part}" for c, part in parts.items())
    header = "image,class,group," + ",".join(f"fold{k}" for k in range(5))
    table(uclm / "own_split.csv", header, *rows)
    text = open_dataset([bra, uclm], split=["own", "own"], progress=False).provenance.own_split
    assert text.startswith("7 of 7 test images") and "(UCLM); 0 of 4 test images" in text


def test_leak_guard_knows_the_images_alone_and_joined(bra, clinic):
    both = open_dataset([bra, clinic], progress=False)
    alone = open_dataset(bra, progress=False)
    half = [c for c in both.cases if c.name.endswith("-l")]
    record = TrainingImages.of(both.provenance.data, half, [f"h{c.name}" for c in half])
    provenance = {"data": both.provenance.data, "training_images": record.to_dict()}
    assert TrainingImages.from_provenance(json.loads(json.dumps(provenance))) == record
    seen = record.overlap("BUSBRA", alone.cases, ["x"] * len(alone.cases))["near_duplicates"]
    assert len(seen) == 20  # both sides of each patient
    mine = [c for c in alone.cases if c.name == "bus_0003-r"]
    of_one = TrainingImages.of("BUSBRA", mine, ["h"])
    near = of_one.overlap(both.provenance.data, both.cases, ["x"] * len(both.cases))
    assert near["near_duplicates"] == ["BUSBRA/bus_0003-l", "BUSBRA/bus_0003-r"]


@pytest.mark.keras
def test_repeated_pictures_come_as_often_each_changed_by_itself(bra, clinic):
    from unet_lib.training.run import _order

    cases = open_dataset([clinic, bra], progress=False).cases
    order = _order(cases, "BUSBRA=3")
    assert order == [*range(20), *3 * [*range(20, 40)]]
    assert _order([replace(c, data_set="") for c in cases], "") == [*range(40)]
    for wrong in ("BUSBRA=0", "BUSBRA", "other=2", "BUSBRA=x"):
        with pytest.raises(ValueError, match=r"expected SET=TIMES.*\(clinic, BUSBRA\)"):
            _order(cases, wrong)
    prepared = PreparedCases(cases, Preprocessing(32))
    batches = Batches(prepared, 8, shuffle=True, order=order)
    first = prepared.pair(20)[0]
    came = [image for i in range(len(batches)) for image in batches[i][0]]
    assert len(came) == 80 and sum((image == first).all() for image in came) == 3


@pytest.mark.slow
@pytest.mark.keras
def test_train_evaluate_and_crossvalidate(bra, clinic, tmp_path, capsys):
    data = [str(clinic), str(bra)]
    quick = ["--size", "32", "--filters", "4", "--depth", "2", "--epochs", "1"]
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", *data, *quick, "--repeat", "clinic=2", "--out", str(run)]) == 0
    assert json.loads((run / "settings.json").read_text())["recipe"]["training"]["repeat"]
    assert main(["train", *data, *quick, "--out", str(run), "--resume"]) == 2
    assert "training.repeat: 'clinic=2' there, '' now" in capsys.readouterr().err
    assert main(["evaluate", *data, "--model", str(run), "--out", str(out)]) == 0
    assert "## By data set" in (out / "report.md").read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["about"]["seen_in_training"] is False
    rows = {row["set"]: row for row in summary["sets"]}
    assert [rows[name]["images"] for name in ("clinic", "BUSBRA")] == [4, 4]
    assert rows["BUSBRA"]["normals"] is None and rows["clinic"]["normals"]["images"] == 1
    lesions = [rows[name]["per_image"] for name in rows]
    joined = sum(row["images"] * row["means"]["dice"]["mean"] for row in lesions)
    pooled = summary["per_image"][0]
    assert joined / pooled["images"] == pytest.approx(pooled["means"]["dice"]["mean"])
    # the set by itself is known too
    alone = ["--part", "all", "--model", str(run), "--out", str(tmp_path / "alone")]
    assert main(["evaluate", str(bra), *alone]) == 0
    overlap = json.loads((tmp_path / "alone" / "summary.json").read_text())["about"]
    assert len(overlap["training_overlap"]["in_training"]) == 16
    folds = tmp_path / "folds"
    assert main(["crossvalidate", *data, *quick, "--folds", "1", "--out", str(folds)]) == 0
    assert "By data set" in capsys.readouterr().out
