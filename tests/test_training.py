"""A run from split to model folder: the same weights every time, also when interrupted."""

import fcntl
import itertools
import json
import os
import re
import shutil
import warnings
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import scipy.ndimage

from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import Folds, TrainingImages, content_hash, find_cases, load_case, make_split
from unet_lib.files import FolderInUse
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter, evaluate_cases
from unet_lib.metrics import score_case
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantoms
from unet_lib.training import (
    RECIPES,
    Candidate,
    Recipe,
    TrainingConfig,
    TrainingError,
    compile_network,
    fit,
    load_run,
    loop,
    train,
    tune_threshold,
)
from unet_lib.training.result import CLEANINGS, THRESHOLDS, _choose, check_lesions, score_settings
from unet_lib.weights import WeightsError, save_segmenter

pytestmark = pytest.mark.keras
TINY = UNetConfig(filters=4, depth=1)


def small_recipe(**training):
    settings = {"epochs": 3, "warmup_epochs": 1, "batch_size": 4, "deterministic": True}
    return Recipe(
        network=UNetConfig(filters=4, depth=2, dropout=0.2),
        preprocessing=Preprocessing(32),
        training=TrainingConfig(**{**settings, **training}),
    )


@pytest.fixture(scope="module")
def split(phantoms):
    cases = find_cases(phantoms)
    return make_split(cases, test=0.2, validation=0.2).split(cases, 0)


@pytest.fixture(scope="module")
def finished(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    about = {"data": "phantoms", "data_kind": "phantoms", "fold": 0}
    return train(split, folder, small_recipe(), provenance=about, progress=False)


def same_weights(one, other):
    pairs = [run.segmenter.network.get_weights() for run in (one, other)]
    return all(map(np.array_equal, *pairs))


def losses(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]


def test_run_folder_holds_what_a_reader_needs(finished, split):
    folder, provenance = finished.folder, finished.segmenter.provenance
    names = {"history.csv", "model", "result.json", "settings.json", "split.csv"}
    assert {path.name for path in folder.iterdir()} == names
    settings = json.loads((folder / "settings.json").read_text())
    assert Recipe.from_dict(settings["recipe"]) == small_recipe()
    assert {"hardware", "packages", "git", "python", "started"} <= set(settings)
    rows = {row.image: row.parts[0] for row in Folds.read(folder / "split.csv").rows}
    assert rows == {c.name: p for p in ("train", "validation", "test") for c in getattr(split, p)}
    history = finished.history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for key in ("loss", "accuracy", "dice", "val_loss", "val_accuracy", "val_dice", "seconds"):
        assert all(np.isfinite(row[key]) for row in history)
    best = min(history, key=lambda row: row["val_loss"])
    assert finished.result["best_epoch"] == best["epoch"]
    assert provenance.trained_on == sorted(c.name for c in split.train)
    used = [*split.train, *split.validation]
    hashes = {content_hash(load_case(case)[0]) for case in used}
    assert TrainingImages.from_provenance(provenance).hashes == hashes
    loaded = load_run(folder)
    assert same_weights(finished, loaded) and loaded.history == history
    assert loaded.result == finished.result and loaded.recipe == finished.recipe
    assert loaded.segmenter.provenance.to_dict() == provenance.to_dict()
    for name in ("threshold", "cleaning"):
        assert getattr(loaded.segmenter, name) == getattr(finished.segmenter, name)


def test_what_would_fail_at_the_end_is_refused_before_the_first_epoch(split, tmp_path):
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.zeros(load_case(split.train[0])[1].shape, np.uint8))
    first = {"image_path": split.train[0].image_path, "mask_paths": (empty,)}
    for part in ("train", "validation"):
        bare = tuple(replace(case, **first) for case in getattr(split, part))
        without = replace(split, **{part: bare})
        with pytest.raises(ValueError, match=f"the {part} part of .* have a lesion.*another fold"):
            train(without, tmp_path / part, small_recipe())
        assert not (tmp_path / part / "state.npz").exists()


def test_few_lesions_are_said_before_the_first_epoch():
    with pytest.warns(UserWarning, match="only 2 of the 9 images of the validation part.*--split"):
        check_lesions([True, True] + [False] * 7, "validation part of x")
    with warnings.catch_warnings(action="error"):
        check_lesions([True] * 5, "validation part of x")


def test_masks_that_cover_much_are_named_again_before_training(split, tmp_path):
    case = split.train[0]
    white = np.full(load_case(case)[1].shape, 255, np.uint8)
    white[:20, :20] = 0  # one corner: no negative, which is refused
    cv2.imwrite(str(tmp_path / "most.png"), white)
    covered = replace(case, mask_paths=(tmp_path / "most.png",))
    with pytest.warns(UserWarning, match=f"1 masks are odd, first: .*{re.escape(case.name)}"):
        PreparedCases([covered], Preprocessing(size=32))


def test_any_number_of_workers_gives_the_same_and_the_last_epoch_may_be_taken(
    finished, split, tmp_path
):
    run = train(split, tmp_path / "a", small_recipe(workers=4, take="last"), progress=False)
    assert losses(run) == losses(finished)
    assert run.result["best_epoch"] == 3
    assert run.result["best_validation_loss"] == run.history[-1]["val_loss"]


@pytest.mark.slow
def test_deterministic_training_of_the_pretrained_encoder(split, tmp_path):
    encoder = {"encoder": "EfficientNetLite0", "encoder_weights": "imagenet"}
    network = UNetConfig(filters=4, depth=5, dropout=0.2, **encoder)
    recipes = [replace(small_recipe(epochs=2, workers=n), network=network) for n in (1, 4)]
    runs = [train(split, tmp_path / str(i), r, progress=False) for i, r in enumerate(recipes)]
    assert same_weights(*runs)


def test_finished_run_is_returned_and_others_are_refused(finished, split, tmp_path):
    again = train(split, finished.folder, small_recipe(), resume=True, progress=False)
    assert again.result == finished.result

    def refused(
        error, message, split=split, folder=finished.folder, resume=True, data=None, **training
    ):
        with pytest.raises(error, match=message):
            recipe = small_recipe(**training)
            train(split, folder, recipe, resume=resume, progress=False, provenance=data)

    refused(FileExistsError, "not empty.*--resume", resume=False)
    refused(ValueError, "training.epochs: 3 there, 4 now", epochs=4)
    refused(ValueError, "the split differs", replace(split, train=split.train[1:]))
    refused(ValueError, "mask_rule: None there, 0:1 now", data={"mask_rule": "0:1"})
    new = tmp_path / "r"
    refused(ValueError, "'validation': 0.*Expected are", replace(split, validation=()), new)
    refused(ValueError, "'train': 0.*Expected are", replace(split, train=()), new)
    torn = tmp_path / "torn.png"
    torn.write_bytes(split.train[0].image_path.read_bytes()[:500])
    unreadable = (replace(split.train[0], image_path=torn), *split.train[1:])
    refused(ValueError, "torn.png: cannot be decoded", replace(split, train=unreadable), new)
    assert not new.exists()
    with pytest.raises(ValueError, match="no finished run"):
        load_run(tmp_path)
    broken = shutil.copytree(finished.folder, tmp_path / "broken")
    (broken / "settings.json").write_text("{")
    refused(ValueError, "settings.json: cannot be read", folder=broken)


def test_two_runs_in_one_folder_and_a_run_killed_before_it_began(split, tmp_path):
    folder, recipe = tmp_path / "run", small_recipe(epochs=1)
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as another process does
    with pytest.raises(FolderInUse, match="another process"):
        train(split, folder, recipe, resume=True, progress=False)
    os.close(handle)
    # The split is written first, the settings last: this is what a kill between them leaves.
    Folds.of_split(split).save(folder / "split.csv")
    with pytest.raises(FileExistsError):
        train(split, folder, recipe, progress=False)
    assert train(split, folder, recipe, resume=True, progress=False).result["epochs"] == 1


class Watching(keras.callbacks.Callback):
    """Keep what an epoch tells and whether its state is saved, and stop as `stop` does."""

    def __init__(self, folder, stop=lambda model: None):
        super().__init__()
        self.folder, self.stop, self.rows = folder, stop, []

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append(dict(logs))
        assert (self.folder / "state.npz").exists()
        self.stop(self.model)


def interrupt(model):
    raise KeyboardInterrupt


def test_a_callback_gets_the_scores_and_may_end_the_training(finished, split, tmp_path):
    watching = Watching(tmp_path / "run", lambda model: setattr(model, "stop_training", True))
    run = train(split, tmp_path / "run", small_recipe(), callbacks=[watching], progress=False)
    assert len(run.history) == run.result["epochs"] == 1 == len(watching.rows)
    assert watching.rows[0].items() >= losses(finished)[0].items() - {("epoch", 1)}
    assert load_run(run.folder).result == run.result


@pytest.mark.jax
def test_stopped_after_an_epoch_and_resumed(split, tmp_path, finished):
    """The same weights as without the stop; another state is refused."""
    folder = tmp_path / "run"
    stop = Watching(folder, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(split, folder, small_recipe(), callbacks=[stop], progress=False)

    def refused(message, split=split):
        with pytest.raises(ValueError, match=message):
            train(split, folder, small_recipe(), resume=True, progress=False)

    case = split.train[0]
    pixels = cv2.imread(str(case.image_path), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "changed.png"), 255 - pixels)
    changed = replace(case, image_path=tmp_path / "changed.png")
    refused(
        f"run: 1 images or masks are not .* first '{re.escape(case.name)}'. Restore them",
        replace(split, train=(changed, *split.train[1:])),
    )
    other = build_unet(TINY, 32)
    compile_network(other, TrainingConfig(), 10)
    state = folder / "state.npz"
    with pytest.raises(ValueError, match="state.npz: holds .* of another network.*Resume with"):
        loop.load_state(state, other)
    content = state.read_bytes()
    state.write_bytes(b"not a zip")
    refused("state.npz: the state of the run cannot be read.*train again")
    state.write_bytes(content)
    resumed = train(split, folder, small_recipe(), resume=True, progress=False)
    assert same_weights(finished, resumed) and losses(finished) == losses(resumed)


def fit_tiny(split, folder, prepare=lambda network: None, **training):
    """Train a tiny network, validated on its own training images."""
    config = TrainingConfig(**{"batch_size": 4, "warmup_epochs": 0, "workers": 1} | training)
    prepared = PreparedCases(split.train[:8], Preprocessing(16))
    batches = Batches(prepared, 4, shuffle=True)
    network = build_unet(TINY, 16)
    compile_network(network, config, batches.updates)
    prepare(network)
    return fit(network, batches, Batches(prepared, 4), config, folder, show_progress=False)


def test_losses_that_are_not_numbers_stop_with_advice(split, tmp_path, monkeypatch):
    def poison(network):
        kernel = network.get_layer("logits").weights[0]
        kernel.assign(np.full(kernel.shape, np.nan))

    with pytest.raises(TrainingError, match="loss became nan in epoch 1, batch 1.*learning_rate"):
        fit_tiny(split, tmp_path / "a", poison)
    nowhere = {"loss": float("nan"), "dice": 0.0}
    monkeypatch.setattr(keras.Model, "evaluate", lambda *arguments, **options: nowhere)
    for _ in range(2):  # also when it goes on
        with pytest.raises(TrainingError, match="validation loss was nan after epoch 2.*smaller"):
            fit_tiny(split, tmp_path / "b", epochs=2)


def test_early_stopping_and_opencv_gets_its_threads_back(split, tmp_path):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        progress = fit_tiny(split, tmp_path, epochs=50, patience=2, learning_rate=1e-9, ema=0.0)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
    assert progress.epochs == progress.best_epoch + 2 < 50


def test_training_starts_from_a_model_and_remembers_what_that_had_seen(finished, split, tmp_path):
    model = shutil.copytree(finished.folder / "model", tmp_path / "before")
    others = find_cases(make_phantoms(tmp_path / "p", 24, seed=6, progress=False))
    other = make_split(others, test=0.2, validation=0.2).split(others, 0)
    still = {"epochs": 1, "warmup_epochs": 0, "learning_rate": 1e-9, "ema": 0.0}
    recipe = small_recipe(**still, start_from=str(model))

    def begin(**more):
        return train(other, tmp_path / "run", recipe, progress=False, **more)

    run = begin(provenance={"data": "mine"})
    ours, theirs = (
        [w.numpy() for w in one.segmenter.network.weights if w.name == "kernel"]
        for one in (run, finished)
    )
    assert len(ours) > 8 and all(map(lambda a, b: np.allclose(a, b, atol=1e-6), ours, theirs))
    about, seen = run.segmenter.provenance, finished.segmenter.provenance
    assert about.started_from == f"whole (SHA-256 {seen.weights_sha256})"
    hashes = set(about.training_images["hashes"])
    assert set(seen.training_images["hashes"]) < hashes
    parts = (split.train, split.validation, other.train, other.validation)
    assert len(hashes) == sum(map(len, parts))
    leaked = evaluate_cases(run.segmenter, split.train[:2], progress=False).provenance
    assert leaked.seen_in_training and len(leaked.training_overlap["in_training"]) == 2
    clean = evaluate_cases(run.segmenter, other.test, progress=False).provenance
    assert clean.seen_in_training is False
    # Begun from another model of this name: not the same run.
    (run.folder / "result.json").rename(tmp_path / "result.json")
    other_weights = replace(finished.segmenter, network=run.segmenter.network)
    save_segmenter(other_weights, recipe.network, model)
    with pytest.raises(ValueError, match=r"started_from: whole \(SHA.* there, whole \(SHA.* now"):
        begin(resume=True)
    (tmp_path / "result.json").rename(run.folder / "result.json")
    shutil.rmtree(model)  # a finished run does not need it any more
    assert begin(resume=True).result == run.result


def test_a_start_that_would_leak_or_does_not_fit_is_refused(finished, split, tmp_path):
    recipe = small_recipe(start_from=str(finished.folder / "model"))

    def refused(message, split=split, recipe=recipe, error=ValueError):
        with pytest.raises(error, match=message):
            train(split, tmp_path / "run", recipe, progress=False)

    refused(r"start_from whole: was trained on \d+ of the \d+ val")
    tested = replace(split, train=split.test, test=split.train, validation=split.test)
    refused(r"of the \d+ test images or on near-dup", tested)
    wide = replace(recipe, network=UNetConfig(filters=8, depth=2, dropout=0.2))
    refused(r"another network \(filters: 4 there, 8 here\)", recipe=wide)
    absent = small_recipe(start_from="absent")
    refused("absent: neither a model folder", recipe=absent, error=WeightsError)
    assert not (tmp_path / "run").exists()


def test_after_a_start_that_does_not_say_what_it_saw_nobody_knows(finished, split, tmp_path):
    stranger = replace(
        finished.segmenter, provenance=finished.segmenter.provenance.but(training_images=None)
    )
    save_segmenter(stranger, small_recipe().network, tmp_path / "stranger")
    recipe = small_recipe(epochs=1, start_from=str(tmp_path / "stranger"))
    run = train(split, tmp_path / "run", recipe, provenance={"data": "mine"}, progress=False)
    assert run.segmenter.provenance.training_images is None
    # The names that it keeps are enough to warn, not to acquit.
    scored = evaluate_cases(run.segmenter, split.test, progress=False).provenance
    assert scored.seen_in_training is None


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_moving_average_equals_its_formula_and_is_taken_back(precision):
    """a <- m a + (1 - m) w after each step, from the first on.

    With float16 Keras wraps the optimiser in one that scales the loss and has no average itself.
    """
    network = build_unet(TINY, 16, precision=precision)
    compile_network(network, TrainingConfig(epochs=100, ema=0.5, warmup_epochs=0), 4)
    scaled = isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")
    x = np.random.default_rng(0).random((2, 16, 16, 1), dtype="float32")
    weight, average = network.get_layer("logits").weights[0], None
    for _ in range(4):
        network.train_on_batch(x, np.ones_like(x))
        value = np.array(weight.value)
        average = value if average is None else 0.5 * average + 0.5 * value
    trained = network.get_weights()
    with loop.averaged_weights(network):
        np.testing.assert_allclose(np.asarray(weight.value), average, rtol=1e-5)
    assert np.abs(value - average).max() > 1e-4
    assert all(map(np.array_equal, trained, network.get_weights()))
    compile_network(network, TrainingConfig(ema=0.0), 4)
    with loop.averaged_weights(network):
        assert all(map(np.array_equal, trained, network.get_weights()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 2.5}, "epochs must be a whole number from 1 to 100000; received 2.5"),
        ({"deterministic": 1}, "deterministic must be true or false"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number from 1e-09"),
        ({"loss": "dice"}, "loss must be one of 'bce_dice'"),
        ({"precision": "half"}, "precision must be one of 'auto', 'float32'"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a number from 0"),
        (
            {"epochs": 2, "warmup_epochs": 3},
            r"warmup_epochs must be a number from 0 to 2 \(epochs 2\); received 3",
        ),
        ({"warmup_epochs": "long"}, "warmup_epochs must be a number; received 'long'"),
        ({"threshold": 1.0}, "threshold must be a number from 0 to 0.99"),
        ({"epochs": "long"}, "epochs must be a whole number"),
        ({"start_from": None}, "start_from must be text; received None"),
        ({"accumulate": 3}, "accumulate must divide batch_size"),
        ({"accumulate": 16}, "accumulate must divide batch_size"),
    ],
)
def test_wrong_training_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**wrong)


def test_a_given_peak_is_kept_where_the_threshold_is_chosen():
    peak = {"cleanings": [Cleaning(minimum_peak=0.9)]}
    assert TrainingConfig().candidates() == {}
    assert TrainingConfig(minimum_peak=0.9).candidates() == peak
    fixed = TrainingConfig(threshold=0.5, minimum_peak=0.9).candidates()
    assert fixed == peak | {"thresholds": [0.5]}
    assert TrainingConfig(threshold=0.5).candidates()["cleanings"] == [Cleaning()]


def test_only_the_default_rise_of_the_rate_adapts_to_the_epochs():
    assert [TrainingConfig(epochs=n).warmup_epochs for n in (1, 10, 15, 100)] == [0.2, 2, 3, 3]
    assert TrainingConfig(epochs=3, warmup_epochs=1).warmup_epochs == 1
    assert TrainingConfig(epochs=3, warmup_epochs=3).warmup_epochs == 3
    assert RECIPES["pretrained"].but("training.epochs=2").training.warmup_epochs == 0.4


def test_every_setting_of_a_recipe_has_a_name():
    recipe = Recipe().but("preprocessing.keep_aspect=false", "network.encoder=EfficientNetLite0")
    assert recipe.preprocessing.keep_aspect is False
    assert recipe.network == UNetConfig(encoder="EfficientNetLite0")
    assert recipe.but("training.epochs=30").training == TrainingConfig(epochs=30)
    for change, message in (
        ("training.epoch=3", "TrainingConfig: unknown setting 'epoch'"),
        ("train.epochs=3", "Recipe: unknown setting 'train'"),
        ("epochs=3", "epochs=3: expected PART.SETTING=VALUE"),
        ("network.output_channels=2", "network.output_channels must be 1"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe.but(change)


def test_threshold_maximises_dice_under_the_constraint():
    """Candidates by hand: the best Dice breaks the constraint, the next best meets it."""
    plain, cleaned = Cleaning(), Cleaning(0.01)
    a = Candidate(0.3, plain, 0.775, 0.5)
    b = Candidate(0.5, plain, 0.75, 0.8)
    c = Candidate(0.7, plain, 0.70, 1.0)
    assert _choose([a, b, c]) is b
    assert _choose([a, b, Candidate(0.3, cleaned, 0.753, 0.9)]) is b  # not worth a cleaning
    worth = Candidate(0.3, cleaned, 0.76, 0.9)
    assert _choose([a, b, worth]) is worth
    assert _choose([a, worth]) is worth
    near = Candidate(0.4, plain, 0.76, 0.7)
    assert _choose([a, near, Candidate(0.9, plain, 0.5, 0.75)]) is near  # nothing meets it
    # Specificity is not bought with more than .03 Dice, whatever it is.
    assert _choose([Candidate(0.3, plain, 0.80, 0.5), b, c]).dice == 0.80
    without_normals = [Candidate(t, plain, d, np.nan) for t, d in ((0.3, 0.6), (0.5, 0.7))]
    assert _choose(without_normals).threshold == 0.5


def test_threshold_recovers_the_scale_of_known_probabilities(split, tmp_path):
    """A network that says .62 on dark pixels and .38 elsewhere: thresholds between are best."""
    for number in range(1, 5):
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, 10 : 20 + number] = 255
        for name, pixels in (("images", 255 - mask), ("masks", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"a{number}.png"), pixels)
    inputs = keras.Input((40, 40, 1))
    network = keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs))
    network.set_weights([np.full((1, 1, 1, 1), -0.24, "f4"), np.array([0.62], "f4")])
    segmenter = Segmenter(network, Preprocessing(40))
    choice = tune_threshold(segmenter, find_cases(tmp_path), progress=False)
    assert 0.38 < choice.chosen.threshold <= 0.6
    assert choice.chosen.dice == pytest.approx(1.0)
    assert choice.met and choice.normals == 0 and choice.lesions == 4
    assert choice.chosen.cleaning == Cleaning()
    assert json.loads(json.dumps(choice.to_dict()))["validation_specificity"] is None
    normals = [case for case in split.train if case.label == "normal"]
    with pytest.raises(ValueError, match="has a lesion"):
        tune_threshold(segmenter, normals, progress=False)


@pytest.mark.parametrize("seed", range(4))
def test_tuning_scores_each_setting_as_the_report_does(seed):
    rng = np.random.default_rng(seed)
    noise = scipy.ndimage.gaussian_filter(rng.random((60, 70)), 3)
    probabilities = np.interp(noise, (noise.min(), noise.max()), (0, 1)).astype("f4")
    truth = np.roll(noise, 3, axis=1) > np.quantile(noise, 0.9)
    if seed == 0:
        truth[:] = False
    scores = score_settings(truth, probabilities)
    for (i, cleaning), (j, threshold) in itertools.product(
        enumerate(CLEANINGS), enumerate(THRESHOLDS)
    ):
        mask = cleaning.apply(probabilities >= threshold, probabilities)
        score = score_case(truth, mask, name="x")
        expected = (score.dice, float(score.predicted_empty))
        np.testing.assert_allclose(scores[i, j], expected, rtol=1e-12)
