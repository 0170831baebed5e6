"""The workshop: ledger, tables, cards, published folds, compact weights, failure atlas."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.stats import wilcoxon
from test_experiments import RECIPE

from experiments import site, transfer
from lab import card, hero, hub, ledger, reproduce, tables
from lab.compact_weights import rounded
from lab.failure_atlas import measure
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.metrics import LESION_IMAGES, Evaluation, join_tables
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantoms
from unet_lib.plots import save_figure
from unet_lib.provenance import PHANTOM_BANNER
from unet_lib.source import open_dataset
from unet_lib.training import crossvalidate, load_crossvalidation
from unet_lib.weights import load_segmenter, save_segmenter

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "experiments"


def evaluation(dice_of):
    """An evaluation with lesions of 100 pixels of which a share is found; None = no lesion."""
    made = Evaluation()
    for name, (label, group, share) in dice_of.items():
        truth, mask = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
        if share is not None:
            truth[:10, :10] = True
            mask[:10, :10].flat[: round(100 * share)] = True
        probabilities = np.where(mask, 0.9, 0.1)
        made.add(truth, mask, probabilities, name=name, label=label, group=group)
    return made


def test_scores_count_every_image_and_average_the_aucs():
    first = evaluation({"a": ("benign", "", 1.0), "b": ("malignant", "", 0.0)})
    second = evaluation({"c": ("benign", "", 0.8), "n": ("normal", "", None)})
    row = ledger.scores({0: first, 3: second})
    assert (row["images"], row["lesion_images"]) == (4, 3)
    # Dice of 80 of 100 pixels found, none wrong: 2 * 80 / (80 + 100)
    assert row["dice"] == pytest.approx((1 + 0 + 8 / 9) / 3)
    assert row["benign"] == pytest.approx((1 + 8 / 9) / 2)
    assert (row["malignant"], row["missed"], row["specificity"]) == (0, pytest.approx(1 / 3), 1)
    assert np.isnan(row["dice_low"])  # three groups are too few
    assert (row["precision"], row["recall"]) == (1, 0.6)
    aucs = [e.histogram(LESION_IMAGES).auc for e in (first, second)]
    assert aucs[0] != aucs[1] and row["auc"] == pytest.approx(np.mean(aucs))


def test_paired_difference_is_by_image_and_group():
    rng = np.random.default_rng(0)
    shares = {f"i{k}": ("benign", f"g{k // 2}", float(s)) for k, s in enumerate(rng.random(40))}
    better = {n: (c, g, min(1.0, s + 0.1)) for n, (c, g, s) in shares.items()}
    mine, other = evaluation(better), evaluation(shares)
    paired = ledger.difference({0: mine, 1: mine}, {0: other})
    dice = mine.table.column("dice") - other.table.column("dice")
    assert paired["difference"] == pytest.approx(dice.mean())
    assert 0 < paired["difference_low"] < paired["difference"] < paired["difference_high"]
    assert paired["p"] == pytest.approx(wilcoxon(dice.reshape(-1, 2).mean(axis=1)).pvalue)
    with pytest.raises(ValueError, match=r"one has the folds \[0\], the other \[1\]"):
        ledger.difference({0: mine}, {1: other})


def test_tables_say_what_is_in_the_scores():
    rng = np.random.default_rng(1)
    shares = {f"b{k}": ("benign", f"g{k // 2}", float(s)) for k, s in enumerate(rng.random(30))}
    shares |= {"m": ("malignant", "", 0.0), "n1": ("normal", "", None), "n2": ("normal", "", None)}
    made = {0: evaluation(shares)}
    table = tables.per_image_table(made)
    lesions = made[0].table.lesion_cases
    first = table.splitlines()[2]
    assert first.startswith(f"| lesion images | 31 | {lesions.column('dice').mean():.3f} (")
    assert first.endswith("| 1 (3.2%) |")
    assert "| malignant | 1 | 0.000 (-) |" in table  # one group: no interval
    assert "2 of 2 left empty, specificity 1.000 (" in tables.normals_line(made)
    marked = (lesions.column("tp") + lesions.column("fp") > 0).sum()
    assert 0 < marked < 31 and f"on {marked} of 31 images" in tables.questions(made)
    recall = made[0].table.pooled().recall
    assert f"| all images | 33 | 1.000 | {recall:.3f} |" in tables.pooled_table(made)
    assert "| above 10 | 31 |" in tables.size_table(made)  # a quarter of the image
    assert "No image without" in tables.normals_line({0: evaluation({"a": ("benign", "", 1.0)})})


def test_audited_rows_find_images_that_several_folds_validated():
    made = evaluation({"benign (34)": ("benign", "", 1.0), "benign (3)": ("benign", "g002", 0.5)})
    table = tables.per_image_table({0: made, 1: made}, audited=True)
    assert "| outside near-duplicate groups | 2 | 1.000 (-)" in table
    assert f"| in near-duplicate groups | 2 | {2 / 3:.3f} (-)" in table


@pytest.mark.keras
@pytest.mark.slow
def test_from_folds_to_ledger_card_and_back(tmp_path, capsys):
    folder = make_phantoms(tmp_path / "p", 20, seed=7, progress=False)
    source = open_dataset(folder, progress=False)
    more = {"provenance": source.provenance, "which": [1], "final": True, "progress": False}
    runs = []
    for name, seed in (("a", 0), ("b", 1)):
        recipe = RECIPE.but(f"training.seed={seed}")
        run = crossvalidate(source.cases, source.folds, tmp_path / name, recipe, **more)
        runs.append(run)
    book = tmp_path / "ledger.csv"
    common = ["--ledger", str(book), "--part", "test"]
    ledger.main([str(runs[0].folder), *common, "--note", "first, with a comma"])
    publish = ["--publish", str(tmp_path / "kept"), "--models"]
    ledger.main([str(runs[1].folder), *common, "--against", str(runs[0].folder), *publish])
    ledger.main([str(runs[1].folder), *common, "--note", "again"])
    shown = capsys.readouterr().out
    assert "Dice less a's on the same images" in shown and shown.count(PHANTOM_BANNER) == 3
    rows = ledger.read_ledger(book)
    assert [(r["name"], r["note"]) for r in rows] == [("a", "first, with a comma"), ("b", "again")]
    changed = "network.filters=4; network.depth=2; preprocessing.size=32"
    assert rows[0]["changed"].startswith(changed)
    copy = runs[0].folder.rename(tmp_path / "c")
    with pytest.raises(ValueError, match="scored for this recipe already, as 'a'"):
        ledger.main([str(copy), *common])

    kept = load_crossvalidation(tmp_path / "kept")
    assert ledger.digest_of(kept) == ledger.digest_of(runs[1])
    assert not [*kept.folder.rglob("*.html")]
    text = card.write_card(kept.folder / "fold1" / "model", [kept]).read_text(encoding="utf-8")
    table = (kept.folder / "test" / "tables.md").read_text(encoding="utf-8")
    assert all(PHANTOM_BANNER in page for page in (text, table, card.headline([kept], 1)))
    assert "fold 1" in text and "## phantoms: test part of fold 1" in text
    marked = [case.tp + case.fp > 0 for case in kept.scores["test"][1].table.lesion_cases]
    assert f"on {sum(marked)} of {len(marked)} images with a lesion" in text
    assert "nan" not in text.split() and "no interval" in card.headline([kept], 1)

    assert reproduce.main([str(kept.folder), str(folder)]) == 0
    count = len(join_tables(kept.scores["test"]))
    assert f"{count} of {count} images have the committed counts" in capsys.readouterr().out
    model = load_segmenter(kept.folder / "fold1")
    model.threshold = 0.01
    save_segmenter(model, RECIPE.network, kept.folder / "fold1" / "model")
    assert reproduce.main([str(kept.folder), str(folder)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joint-BUSI", "joint-BUSBRA"])
def test_published_tables_captions_and_figures_are_those_of_today(tmp_path, name):
    published = PUBLISHED / "joint" / name
    ledger.publish(load_crossvalidation(published), tmp_path)
    for page in ("test/report.md", "test/tables.md", "validation/tables.md"):
        assert (tmp_path / page).read_text() == (published / page).read_text(), page
    figures = {path.name for path in (tmp_path / "test").glob("*.png")}
    assert figures == {path.name for path in (published / "test").glob("*.png")}
    for figure in figures:
        assert alike(published / "test" / figure, tmp_path / "test" / figure), figure


def alike(*paths):
    """Whether two figures are the same but for the rounding of another machine."""
    old, new = (np.asarray(Image.open(path).convert("L"), int) for path in paths)
    return old.shape == new.shape and (abs(old - new) > 40).mean() < 0.005


def test_the_figure_of_fitted_sites_is_that_of_today(tmp_path):
    figure = site.plot_gains(PUBLISHED / "site/tuned.csv")
    assert alike(site.FIGURE, save_figure(figure, tmp_path / "gain.png"))


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.parametrize(
    "model, recipe", [("bus-best", "joint"), ("busi-fold0", "joint"), ("bus-small", "small")]
)
def test_cards_are_those_of_today(tmp_path, model, recipe):
    copy = shutil.copytree(ROOT / "weights" / model, tmp_path / model)
    results = [
        load_crossvalidation(PUBLISHED / recipe / f"{recipe}-{d}") for d in ("BUSI", "BUSBRA")
    ]
    text = card.write_card(copy, results).read_text(encoding="utf-8")
    assert text == (ROOT / "weights" / model / card.CARD).read_text(encoding="utf-8")


def test_ledgers_that_are_damaged(tmp_path):
    path = tmp_path / "ledger.csv"
    assert ledger.read_ledger(path) == []
    lines = (PUBLISHED / "ledger.csv").read_text(encoding="utf-8").splitlines()
    for text in ("a,b\n1,2\n", f"{lines[0]}\n{lines[1][:40]}\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="ledger.csv: is no whole ledger"):
            ledger.read_ledger(path)


def test_digests_of_the_ledger_are_those_of_the_published_recipes():
    rows = {r["name"]: r["digest"] for r in ledger.read_ledger(PUBLISHED / "ledger.csv")}
    published = [load_crossvalidation(p.parent) for p in PUBLISHED.glob("*/*/crossvalidation.json")]
    assert published
    for folds in published:
        assert rows[folds.name] == ledger.digest_of(folds)


def test_rounding_keeps_so_many_significant_bits():
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32) * 1e-3
    short = rounded(values, 13)
    assert np.abs(short / values - 1).max() <= 2.0**-13
    assert np.array_equal(rounded(short, 13), short)
    assert np.all(short.view(np.uint32) & (2**11 - 1) == 0)  # 24 bits less 13: compressible


@pytest.mark.keras
@pytest.mark.slow
def test_compact_weights_load_and_are_smaller(tmp_path):
    config = UNetConfig(filters=16, depth=3)
    network = build_unet(config, 32)
    folder = save_segmenter(Segmenter(network, Preprocessing(32), 0.4), config, tmp_path / "m")
    before = (folder / "model.weights.h5").stat().st_size
    command = [sys.executable, "-m", "lab.compact_weights", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "model.weights.h5").stat().st_size < 0.85 * before
    assert json.loads((folder / "segmenter.json").read_text())["threshold"] == 0.4
    small = load_segmenter(folder)  # also compares the SHA-256
    for old, new in zip(network.get_weights(), small.network.get_weights(), strict=True):
        np.testing.assert_array_equal(new, rounded(old) if old.ndim >= 2 else old)


def test_atlas_measures_what_it_says():
    image = np.full((60, 80, 1), 0.5, np.float32)
    truth = np.zeros((60, 80), bool)
    truth[10:20, 30:50] = True
    image[truth] = 0.2
    image[20:, 30:50] = 0.1  # a shadow below
    picture = measure(image, truth)
    assert picture["share"] == pytest.approx(200 / 4800)
    assert picture["shadow"] == pytest.approx(0.4)
    assert 0.15 < picture["contrast"] < 0.3  # the ring holds some of the shadow
    assert not picture["border"]
    truth[0, 40] = True
    assert measure(image, truth)["border"]


def test_published_texts_hold_the_transfer_table_of_the_committed_scores(tmp_path):
    folder = PUBLISHED / "transfer"
    text = transfer.write(tmp_path, transfer.read_rows(folder / "cases.csv"))
    assert (folder / "table.md").read_text(encoding="utf-8").strip() == text.strip()
    for page in (ROOT / "docs" / "results.md", *ROOT.glob("weights/*/CARD.md")):
        assert text.strip() in page.read_text(encoding="utf-8"), page
    cells = [line.split(" | ") for line in text.splitlines()]
    missed = [row[4] for row in cells if row[1] == "BUSI"]  # all folds of each training
    assert len(missed) == 3 and all(cell.endswith("of 647") for cell in missed)


def test_a_card_of_one_fold_promises_no_five():
    for page in ROOT.glob("weights/*/CARD.md"):
        text = page.read_text(encoding="utf-8")
        five = "part of fold 0, 1, 2, 3, 4" in text
        assert ("cross-validated" in text) == ("In the five folds" in text) == five, page


def test_files_that_cards_name_are_there():
    for page in (*ROOT.glob("weights/*/CARD.md"), ROOT / "docs" / "failure_atlas.md"):
        named = re.findall(r"`((?:experiments|docs|data)/[^`<]+)`", page.read_text("utf-8"))
        assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_header_of_a_card_holds_the_scores():
    lesions, normals = {"a": ("benign", "", 1.0), "b": ("malignant", "", 0.0)}, ("normal", "", None)
    folds = {0: evaluation(lesions), 1: evaluation({"n": normals})}
    scores = {"BUSI, fold 0": folds, "BUS-BRA": {0: evaluation(lesions)}}
    text = hub.header("busi-fold0", scores, trained_on=["BUSI", "BUS-BRA"])
    _, block, after = text.split("---\n")
    read = yaml.safe_load(block)
    assert (read["license"], after) == ("mit", "\n")
    assert read["datasets"] == ["busi", "bus-bra"] and "ultrasound" in read["tags"]
    (model,) = read["model-index"]
    first, second = model["results"]
    assert first["dataset"] == {"type": "busi-fold-0", "name": "BUSI, fold 0"}
    values = {metric["type"]: metric["value"] for metric in first["metrics"]}
    assert values["dice"] == 0.5 and values["missed"] == 0.5 and values["specificity"] == 1
    assert read["metrics"] == list(values)
    # without normals nothing is said of them
    assert "specificity" not in {metric["type"] for metric in second["metrics"]}


def test_the_hero_shows_fixed_places_in_the_order_of_the_dice():
    shares = {f"{k:02d}": ("benign", "", k / 10) for k in range(11)} | {"n": ("normal", "", None)}
    table = evaluation(shares).table
    names = {what: score.name for what, score in hero.chosen(table).items()}
    assert names == {"easy": "09", "middling": "05", "hard": "01", "missed": "00"}
    assert "missed" not in hero.chosen(table.subset(lambda case: not case.missed))
