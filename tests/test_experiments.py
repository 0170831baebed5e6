import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tools import reproduce
from unet_lib.cli import main
from unet_lib.cli.experimenting import read_recipe
from unet_lib.dataset import find_cases, make_folds
from unet_lib.experiments import (
    check_final,
    compare_folds,
    crossvalidate,
    headline,
    load_crossvalidation,
    normals_line,
    per_image_table,
    pooled_table,
    publish,
    read_ledger,
    record,
    size_table,
    summarise_folds,
    train_on_all,
    write_card,
)
from unet_lib.experiments.running import _claim
from unet_lib.images import Preprocessing
from unet_lib.metrics import Evaluation, join_tables
from unet_lib.model import UNetConfig
from unet_lib.phantoms import make_phantoms
from unet_lib.plots import PHANTOM_BANNER
from unet_lib.training import Recipe, TrainingConfig
from unet_lib.weights import load_segmenter, save_segmenter

PUBLISHED = Path(__file__).parent.parent / "experiments"
RECIPE = Recipe(
    network=UNetConfig(filters=4, depth=2),
    preprocessing=Preprocessing(32),
    training=TrainingConfig(epochs=2, warmup_epochs=0.5, batch_size=4, precision="float32"),
)
ABOUT = {"data": "phantoms", "data_kind": "phantoms"}


def evaluation(dice_of, **about):
    """An evaluation with lesions of 100 pixels of which a share is found; None = no lesion."""
    found = Evaluation(about=about)
    for name, (label, group, share) in dice_of.items():
        truth, mask = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
        if share is not None:
            truth[:10, :10] = True
            mask[:10, :10].flat[: round(100 * share)] = True
        probabilities = np.where(mask, 0.9, 0.1)
        found.add(truth, mask, probabilities, name=name, label=label, group=group)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_phantoms(tmp_path_factory.mktemp("data") / "p", 20, seed=7, progress=False)
    cases = find_cases(folder)
    return folder, cases, make_folds(cases, 2, seed=1)


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    _, cases, folds = data
    out = tmp_path_factory.mktemp("runs") / "tiny"
    return crossvalidate(cases, folds, out, RECIPE, about=ABOUT, progress=False)


def test_summary_counts_every_image_and_averages_the_aucs():
    first = evaluation({"a": ("benign", "", 1.0), "b": ("malignant", "", 0.0)})
    second = evaluation({"c": ("benign", "", 0.8), "n": ("normal", "", None)})
    found = summarise_folds({0: first, 3: second})
    assert (found.images, found.lesion_images) == (4, 3)
    # Dice of 80 of 100 pixels found, none wrong: 2 * 80 / (80 + 100)
    assert found.dice == pytest.approx((1 + 0 + 8 / 9) / 3)
    assert found.benign == pytest.approx((1 + 8 / 9) / 2)
    assert (found.malignant, found.missed, found.specificity) == (0, pytest.approx(1 / 3), 1)
    assert np.isnan(found.dice_low)  # three groups are too few
    assert (found.precision, found.recall) == (1, 0.6)
    aucs = [e.histogram(lesion_only=True).auc for e in (first, second)]
    assert aucs[0] != aucs[1]
    assert found.auc == pytest.approx(np.mean(aucs))


def test_an_image_validated_in_two_folds_keeps_both_rows():
    one, two = evaluation({"a": ("benign", "", 1)}), evaluation({"a": ("benign", "", 0.5)})
    table = join_tables({0: one, 1: two})
    assert [case.name for case in table] == ["a, fold 0", "a, fold 1"]
    assert [case.name for case in join_tables({0: one})] == ["a"]


def test_paired_difference_is_by_image_and_group():
    rng = np.random.default_rng(0)
    shares = {f"i{k}": ("benign", f"g{k // 2}", float(s)) for k, s in enumerate(rng.random(40))}
    better = {n: (c, g, min(1.0, s + 0.1)) for n, (c, g, s) in shares.items()}
    mine, other = evaluation(better), evaluation(shares)
    found = compare_folds({0: mine, 1: mine}, {0: other})
    difference = mine.table.column("dice") - other.table.column("dice")
    assert found.difference == pytest.approx(difference.mean())
    assert 0 < found.difference_low < found.difference < found.difference_high
    assert found.p == pytest.approx(wilcoxon(difference.reshape(-1, 2).mean(axis=1)).pvalue)
    reverse = compare_folds({0: other}, {0: mine})
    assert reverse.difference == pytest.approx(-found.difference)
    assert compare_folds({0: mine}, {0: mine}).p == 1
    with pytest.raises(ValueError, match="Score both on the same images"):
        compare_folds({0: mine}, {0: evaluation({"z": ("benign", "", 1.0)})})
    with pytest.raises(ValueError, match=r"one has the folds \[0\], the other \[1\]"):
        compare_folds({0: mine}, {1: other})


def test_tables_say_what_is_in_the_scores():
    rng = np.random.default_rng(1)
    shares = {f"b{k}": ("benign", f"g{k // 2}", float(s)) for k, s in enumerate(rng.random(30))}
    shares |= {"m": ("malignant", "", 0.0), "n1": ("normal", "", None), "n2": ("normal", "", None)}
    found = {0: evaluation(shares)}
    table = per_image_table(found)
    lesions = found[0].table.lesion_cases
    first = table.splitlines()[2]
    assert first.startswith(f"| lesion images | 31 | {lesions.column('dice').mean():.3f} (")
    assert first.endswith("| 1 (3.2%) |")
    assert "| malignant | 1 | 0.000 (-) |" in table  # one group: no interval
    assert "2 of 2 left empty, specificity 1.000 (" in normals_line(found)
    pooled = found[0].table.pooled()
    assert f"| all images | 33 | 1.000 | {pooled.recall:.3f} |" in pooled_table(found)
    # 100 of 400 pixels: a quarter of the image
    assert "| above 10 | 31 |" in size_table(found)
    assert "No image without" in normals_line({0: evaluation({"a": ("benign", "", 1.0)})})


def test_audited_rows_find_images_that_several_folds_validated():
    alone, twin = "benign (34)", "benign (3)"
    found = evaluation({alone: ("benign", "", 1.0), twin: ("benign", "g002", 0.5)})
    table = per_image_table({0: found, 1: found}, audited=True)
    assert "| outside near-duplicate groups | 2 | 1.000 (-)" in table
    assert f"| in near-duplicate groups | 2 | {2 / 3:.3f} (-)" in table


@pytest.mark.keras
def test_only_validation_is_scored_until_it_is_final(done, data, tmp_path):
    _, cases, folds = data
    assert [fold.fold for fold in done.folds] == [0, 1]
    assert all(fold.test is None for fold in done.folds)
    assert not list(done.folder.glob("fold*/test"))
    for fold in done.folds:
        expected = {c.name for c in folds.split(cases, fold.fold).validation}
        assert {c.name for c in fold.validation.table} == expected
        assert fold.validation.about["threshold"] == fold.result["threshold"]
    row = record(done, tmp_path / "ledger.csv", "validation", note="first, with a comma")
    assert read_ledger(tmp_path / "ledger.csv")[0].note == "first, with a comma"
    assert row.changed.startswith("network.filters=4; network.depth=2; preprocessing.size=32")
    with pytest.raises(ValueError, match="no fold has test scores"):
        record(done, tmp_path / "ledger.csv", "test")


@pytest.mark.keras
def test_finished_folds_are_kept_and_other_recipes_refused(done, data):
    _, cases, folds = data
    weights = done.folder / "fold0" / "model" / "model.weights.h5"
    before = weights.stat().st_mtime_ns
    again = crossvalidate(cases, folds, done.folder, RECIPE, about=ABOUT, which=[0], progress=False)
    assert weights.stat().st_mtime_ns == before
    assert len(again.folds) == 2
    other = replace(RECIPE, training=replace(RECIPE.training, seed=1))
    with pytest.raises(ValueError, match="tells of another recipe"):
        crossvalidate(cases, folds, done.folder, other, about=ABOUT, progress=False)
    with pytest.raises(ValueError, match="no fold 7"):
        crossvalidate(cases, folds, done.folder, RECIPE, about=ABOUT, which=[7], progress=False)


@pytest.mark.keras
def test_final_is_once_for_a_recipe(data, done, tmp_path):
    _, cases, folds = data
    final = crossvalidate(
        cases, folds, done.folder, RECIPE, about=ABOUT, final=True, progress=False
    )
    try:
        names = [c.name for found in final.evaluations("test").values() for c in found.table]
        assert sorted(names) == sorted(c.name for c in cases)  # every image once
        assert not any(f.test.about["seen_in_training"] for f in final.folds)
        ledger = tmp_path / "ledger.csv"
        first = record(final, ledger, "test")
        assert record(final, ledger, "test", note="again") == replace(first, note="again")
        assert len(read_ledger(ledger)) == 1
        told = (RECIPE, "phantoms", folds.name, True)
        check_final(ledger, "tiny", *told)
        with pytest.raises(ValueError, match="scored for this recipe already, as 'tiny'"):
            check_final(ledger, "another name", *told)
        check_final(ledger, "another name", RECIPE, "phantoms", folds.name, False)
        copied = load_crossvalidation(publish(final, tmp_path / "published"))
        assert not [*copied.folder.rglob("*.h5"), *copied.folder.rglob("*.html")]
        for fold, found in copied.evaluations("test").items():
            assert found.table == final.evaluations("test")[fold].table
        assert copied.digest == final.digest
        report = (copied.folder / "test" / "report.md").read_text(encoding="utf-8")
        assert f"images: {len(cases)}" in report
        tables = (copied.folder / "test" / "tables.md").read_text(encoding="utf-8")
        assert per_image_table(final.evaluations("test")) in tables
        model = done.folder / "fold0" / "model"
        card = write_card(model, final).read_text(encoding="utf-8")
        assert all(PHANTOM_BANNER in text for text in (card, tables, headline(final, 0)))
        assert "no interval" in headline(final, 0) and not re.search(r"\bnan\b", card + tables)
        assert "phantoms, fold 0 of" in card and "## Results on the test part of fold 0" in card
        assert f"| lesion images | {len(final.folds[0].test.table.lesion_cases)} |" in card
        with pytest.raises(ValueError, match="no test scores to write a card from"):
            write_card(model, done)
    finally:
        for folder in done.folder.glob("fold*/test"):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()


@pytest.mark.keras
def test_model_on_all_images_takes_the_folds_threshold(data, done, tmp_path):
    _, cases, _ = data
    run = train_on_all(cases, tmp_path / "all", done, progress=False)
    threshold, cleaning = done.operating_point()
    assert threshold == np.median([fold.result["threshold"] for fold in done.folds])
    assert (run.segmenter.threshold, run.segmenter.cleaning) == (threshold, cleaning)
    assert run.segmenter.about["trained_on"] == sorted(c.name for c in cases)
    assert run.segmenter.about["validated_on"] == []
    assert run.result["best_epoch"] == RECIPE.training.epochs
    assert "val_dice" not in run.history[0]
    with pytest.raises(ValueError, match="1 of 2 folds are finished"):
        train_on_all(cases, tmp_path / "b", replace(done, folds=done.folds[:1]), progress=False)


@pytest.mark.keras
def test_command(data, tmp_path, capsys):
    folder, *_ = data
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"network": {"filters": 4, "depth": 2}}))
    options = [str(folder), "--recipe", str(recipe), "--folds", "1"]
    for setting in ("training.epochs=1", "training.warmup_epochs=0", "preprocessing.size=32"):
        options += ["--set", setting]
    assert main(["crossvalidate", *options, "--out", str(tmp_path / "a"), "--final"]) == 0
    assert main(
        ["crossvalidate", *options, "--out", str(tmp_path / "b"), "--set", "training.seed=1",
         "--against", str(tmp_path / "a"), "--publish", str(tmp_path / "kept"), "--models"]
    ) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "a, test images of fold 1" in shown
    assert "Dice less a's on the same images" in shown and shown.count(PHANTOM_BANNER) >= 3
    rows = read_ledger(tmp_path / "ledger.csv")
    assert [(row.name, row.part, row.against) for row in rows] == [
        ("a", "validation", ""), ("a", "test", ""), ("b", "validation", "a")
    ]  # fmt: skip
    assert load_crossvalidation(tmp_path / "kept").name == "kept"
    kept = load_segmenter(tmp_path / "kept" / "fold1")
    assert kept.about == load_segmenter(tmp_path / "b" / "fold1").about
    final = ["--final", "--publish", str(tmp_path / "kept"), "--models", "--set", "training.seed=1"]
    assert main(["crossvalidate", *options, "--out", str(tmp_path / "b"), *final]) == 0
    capsys.readouterr()
    assert reproduce.main([str(tmp_path / "kept"), str(folder)]) == 0
    count = len(load_crossvalidation(tmp_path / "kept").evaluations("test")[1].table)
    shown = capsys.readouterr().out
    assert f"{count} of {count} images have the committed counts" in shown
    assert PHANTOM_BANNER in shown
    kept.threshold = 0.01
    save_segmenter(kept, UNetConfig(filters=4, depth=2), tmp_path / "kept" / "fold1" / "model")
    assert reproduce.main([str(tmp_path / "kept"), str(folder)]) == 1
    random = ["--random-split", "3", "--out", str(tmp_path / "r")]
    assert main(["crossvalidate", *options, *random]) == 0
    parted = load_crossvalidation(tmp_path / "r")
    assert parted.about["split"] == "random split 3, near-duplicates parted"
    assert parted.digest != load_crossvalidation(tmp_path / "a").digest
    capsys.readouterr()
    assert main(["crossvalidate", *options, "--out", str(tmp_path / "c"), "--final"]) == 2
    assert "as 'a'" in capsys.readouterr().err
    assert main(["crossvalidate", *options, "--out", str(tmp_path / "c"), "--models"]) == 2
    assert "name the folder with --publish" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_settings_on_the_command_line(tmp_path):
    recipe = read_recipe(None, ["training.epochs=3", "network.encoder=EfficientNetLite0"])
    assert recipe.training.epochs == 3
    assert recipe.network.encoder == "EfficientNetLite0"
    with pytest.raises(ValueError, match="unknown setting 'epoch'"):
        read_recipe(None, ["training.epoch=3"])
    with pytest.raises(ValueError, match="expected PART.SETTING=VALUE"):
        read_recipe(None, ["epochs=3"])
    broken = tmp_path / "recipe.json"
    broken.write_text("[1]")
    with pytest.raises(ValueError, match="recipe.json: expected"):
        read_recipe(broken, [])
    for content in ('{"training": ', "\ud800"):
        broken.write_text(content, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(ValueError, match=r"--recipe .*recipe\.json: cannot be read \("):
            read_recipe(broken, [])
    with pytest.raises(ValueError, match=r"absent\.json: cannot be read .*No such file"):
        read_recipe(tmp_path / "absent.json", [])


def test_ledger_and_folders_that_cannot_be_read(tmp_path):
    ledger = tmp_path / "ledger.csv"
    assert read_ledger(ledger) == []
    ledger.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="ledger.csv: expected the columns name,part"):
        read_ledger(ledger)
    line = (PUBLISHED / "ledger.csv").read_text(encoding="utf-8").splitlines()
    images = line[0].split(",").index("images")
    for cut in (",".join(line[1].split(",")[:images]), line[1].replace(",", ",many", images)):
        ledger.write_text(f"{line[0]}\n{cut}\n", encoding="utf-8")
        with pytest.raises(ValueError, match="ledger.csv, line 2: images is .*Restore the line"):
            read_ledger(ledger)
    with pytest.raises(ValueError, match="crossvalidation.json: cannot be read"):
        load_crossvalidation(tmp_path)
    for text in ("[]", '{"recipe": {}}', '{"recipe": {}, "folds": null}'):
        (tmp_path / "crossvalidation.json").write_text(text)
        with pytest.raises(ValueError, match="crossvalidation.json: cannot be read"):
            load_crossvalidation(tmp_path)
    whole = PUBLISHED / "lite0-128" / "crossvalidation.json"
    (tmp_path / whole.name).write_bytes(whole.read_bytes())
    with pytest.raises(ValueError, match=f"{tmp_path}: no fold is finished yet; give the same"):
        load_crossvalidation(tmp_path)


def test_a_folder_with_something_else_is_left_alone(data, tmp_path):
    _, cases, folds = data
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match=f"{tmp_path}: is not empty.*Take another"):
        crossvalidate(cases, folds, tmp_path, RECIPE, about=ABOUT, progress=False)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["thesis.txt"]


def test_digest_and_folder_of_a_recipe_outlive_a_new_setting(tmp_path):
    """The published recipe was written before `UNetConfig.presence` existed."""
    kept = load_crossvalidation(PUBLISHED / "lite0-128")
    rows = [row for row in read_ledger(PUBLISHED / "ledger.csv") if row.name == "lite0-128"]
    assert {row.digest for row in rows} == {kept.digest} == {"943e37cbf3f5"}
    stored = (PUBLISHED / "lite0-128" / "crossvalidation.json").read_text(encoding="utf-8")
    assert "presence" not in json.loads(stored)["recipe"]["network"]
    (tmp_path / "crossvalidation.json").write_text(stored, encoding="utf-8")
    _claim(tmp_path, kept.recipe, kept.about)
    other = replace(kept.recipe, network=replace(kept.recipe.network, presence=True))
    with pytest.raises(ValueError, match="tells of another recipe"):
        _claim(tmp_path, other, kept.about)
