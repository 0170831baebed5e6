"""The command `site`: what it says of pictures of one's own, and what it fits to them."""

import numpy as np
import pytest
from conftest import save_constant, write_png

from unet_lib.cli import main
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.site import LEAST_GROUPS, THRESHOLD_GROUPS, fit_threshold
from unet_lib.training.result import THRESHOLDS
from unet_lib.weights import load_segmenter

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that says .75 of every pixel, at a threshold of .9: it marks nothing."""
    return save_constant(tmp_path_factory.mktemp("models"), 0.9, provenance={"data": "elsewhere"})


def pictures(folder, count):
    """Write pictures of noise, each with a lesion."""
    for number in range(count):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[8 : 32 - number % 4, 8:32] = 255
        write_png(folder / "images" / f"p{number:02}.png", image)
        write_png(folder / "masks" / f"p{number:02}.png", mask)
    rows = [f"p{number:02},p{number:02}" for number in range(count)]
    (folder / "groups.csv").write_text("\n".join(["image,group", *rows]) + "\n")
    return folder


@pytest.fixture
def no_fitting(model, monkeypatch):
    """Leave the training out: the networks of all folds are the given one."""
    import unet_lib.site as site

    given = load_segmenter(model, runtime="keras")
    monkeypatch.setattr(site, "fine_tuning", lambda *_, **__: lambda cases, name: given)
    monkeypatch.setattr(site, "registered_models", lambda: [])


def test_a_site_threshold_is_taken_where_it_is_surely_better(
    tmp_path, model, no_fitting, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    folder = pictures(tmp_path / "mine", 49)
    assert main(["site", str(folder), "--model", str(model)]) == 0
    assert "constant stays as it is" in capsys.readouterr().out  # too few for a threshold
    pictures(folder, THRESHOLD_GROUPS)
    assert main(["site", str(folder), "--model", str(model)]) == 0
    said = capsys.readouterr().out
    assert "On 50 images with a lesion, in 50 groups" in said and "mean Dice of 0.00" in said
    assert "50 of 50 lesions are missed" in said
    assert "site_model, with the threshold" in said
    fitted = load_segmenter(tmp_path / "runs" / "site-mine" / "site_model")
    assert fitted.threshold in [t for t in THRESHOLDS if t < 0.75]
    assert len(fitted.provenance.tuned_on) == 50 and "mine" in fitted.provenance.name
    page = (tmp_path / "runs" / "site-mine" / "report.html").read_text()
    assert page.index("Does it work here?") < page.index("Images to look at")
    assert "before: p" in page and "after: p" in page
    # What chose a threshold is no test of it any more.
    assert main(["site", str(folder), "--model", str(tmp_path / "runs/site-mine/site_model")]) == 2
    assert "trained constant at mine or chose its threshold" in capsys.readouterr().err


def test_few_pictures_give_a_mean_and_nothing_else(tmp_path, model, no_fitting, capsys):
    folder, out = pictures(tmp_path / "mine", LEAST_GROUPS - 1), tmp_path / "out"
    (out / "site_model").mkdir(parents=True)  # of an earlier call
    assert main(["site", str(folder), "--model", str(model), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "so few say nothing sure" in said and "nothing is fitted" in said
    assert "(95 %)" not in said and not (out / "site_model").exists()


def test_refusals(tmp_path, model, no_fitting, capsys):
    folder = pictures(tmp_path / "mine", 12)
    arguments = ["site", str(folder), "--model", str(model), "--out"]
    assert main([*arguments, str(folder / "out")]) == 2
    assert "lies in the folder of the pictures" in capsys.readouterr().err
    for path in (folder / "masks").iterdir():
        write_png(path, np.zeros((40, 40), np.uint8))
    assert main([*arguments, str(tmp_path / "out")]) == 2
    assert "none of its 12 images has a lesion" in capsys.readouterr().err


def test_a_threshold_is_fitted_without_the_image_that_it_is_judged_on():
    grid = np.zeros((20, 1 + len(THRESHOLDS), 2))
    grid[:, 3, 0] = 0.5
    grid[0, 5, 0] = 100.0  # one image alone would choose the fifth for all
    position, gains = fit_threshold(grid, np.array([f"{n:02}" for n in range(20)]))
    assert position == 5 and gains[0] == 0.5  # it did not choose its own
    assert (gains[1:10] == 0).all()
    equal = np.zeros_like(grid)
    assert fit_threshold(equal, np.arange(20))[0] == 0  # the given one stays


def test_a_threshold_leaves_no_fewer_images_without_a_lesion_empty():
    grid = np.zeros((20, 1 + len(THRESHOLDS), 2))
    grid[10:, :, 0] = np.nan
    grid[10:, 0, 1] = grid[10:, 4, 1] = 1
    grid[:10, 3, 0], grid[:10, 4, 0] = 0.9, 0.5
    position, gains = fit_threshold(grid, np.arange(20))
    assert position == 4 and (gains[:10] == 0.5).all()


def test_the_worst_value_widens_the_lower_limit_alone():
    values = np.random.default_rng(0).uniform(0.8, 0.9, 20)
    plain = group_bootstrap(values, np.arange(20))
    careful = group_bootstrap(values, np.arange(20), worst=0.0)
    assert careful.low < plain.low and careful.high == plain.high
    assert not group_bootstrap(values[:12], np.arange(12)).known
    assert group_bootstrap(values[:12], np.arange(12), least=10).known


def test_the_lower_limit_holds_where_misses_are_rare():
    rng = np.random.default_rng(1)
    whole = np.where(rng.uniform(size=2000) < 0.03, 0.0, rng.normal(0.85, 0.05, 2000))
    held = {None: 0, 0.0: 0}
    for _ in range(200):
        drawn = rng.choice(whole, 20)
        for worst in held:
            one = group_bootstrap(drawn, np.arange(20), draws=400, worst=worst)
            held[worst] += one.low <= whole.mean() <= one.high
    assert held[None] < 180 < 184 <= held[0.0]


@pytest.mark.slow
def test_weights_are_fitted_to_phantoms(tmp_path, phantoms, tiny_run, monkeypatch, capsys):
    import unet_lib.site as site

    monkeypatch.setattr(site, "registered_models", lambda: [])
    monkeypatch.setattr(site, "UPDATES", 6)
    folder = pictures(tmp_path / "mine", 12)
    arguments = ["site", str(folder), "--model", str(tiny_run.folder), "--out", str(tmp_path / "o")]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "weights of this site" in (tmp_path / "o" / "report.md").read_text()
    runs = list((tmp_path / "o" / "fitting").glob("*/fold*/result.json"))
    times = [path.stat().st_mtime_ns for path in runs]
    assert len(runs) == site.FOLDS
    assert main(arguments) == 0 and capsys.readouterr().out == first
    assert [path.stat().st_mtime_ns for path in runs] == times  # finished trainings are kept
