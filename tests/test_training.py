import csv
import fcntl
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import scipy.ndimage

from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import (
    Folds,
    TrainingImages,
    content_hash,
    find_cases,
    load_case,
    make_split,
)
from unet_lib.files import FolderInUse
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter, evaluate_cases
from unet_lib.metrics import score_case
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantoms
from unet_lib.training import (
    Candidate,
    Recipe,
    TrainingConfig,
    TrainingError,
    compile_network,
    fit,
    load_run,
    train,
    tune_threshold,
)
from unet_lib.training.loop import averaged_weights, load_state
from unet_lib.training.threshold import CLEANINGS, THRESHOLDS, _choose, _score_settings
from unet_lib.weights import WeightsError, save_segmenter

pytestmark = pytest.mark.keras
ROOT = Path(__file__).parent.parent


def small_recipe(**training):
    settings = {"epochs": 3, "warmup_epochs": 1, "batch_size": 4, "deterministic": True}
    return Recipe(
        network=UNetConfig(filters=4, depth=2, dropout=0.2),
        preprocessing=Preprocessing(32),
        training=TrainingConfig(**{**settings, **training}),
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = make_phantoms(tmp_path_factory.mktemp("data") / "p", 24, seed=5, progress=False)
    cases = find_cases(folder)
    return make_split(cases, test=0.2, validation=0.2).split(cases, 0)


@pytest.fixture(scope="module")
def finished(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    about = {"data": "phantoms", "data_kind": "phantoms", "fold": 0}
    return train(split, folder, small_recipe(), provenance=about, progress=False)


def test_run_folder_holds_what_a_reader_needs(finished, split):
    folder = finished.folder
    assert sorted(p.name for p in folder.iterdir()) == [
        "history.csv", "model", "result.json", "settings.json", "split.csv"
    ]  # fmt: skip
    settings = json.loads((folder / "settings.json").read_text())
    assert Recipe.from_dict(settings["recipe"]) == small_recipe()
    assert {"hardware", "packages", "git", "python", "started"} <= set(settings)
    rows = {row.image: row.parts[0] for row in Folds.read(folder / "split.csv").rows}
    assert rows == {c.name: p for p in ("train", "validation", "test") for c in getattr(split, p)}
    with open(folder / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert [int(float(row["epoch"])) for row in history] == [1, 2, 3]
    for key in ("loss", "accuracy", "dice", "val_loss", "val_accuracy", "val_dice", "seconds"):
        assert all(np.isfinite(float(row[key])) for row in history)
    best = min(history, key=lambda row: float(row["val_loss"]))
    assert finished.result["best_epoch"] == int(float(best["epoch"]))
    assert finished.segmenter.provenance["trained_on"] == sorted(c.name for c in split.train)
    known = TrainingImages.from_provenance(finished.segmenter.provenance)
    used = [*split.train, *split.validation]
    assert known.hashes == {content_hash(load_case(case)[0]) for case in used}
    assert not known.hashes & {content_hash(load_case(case)[0]) for case in split.test}


def same_weights(one, other):
    pairs = zip(
        one.segmenter.network.get_weights(), other.segmenter.network.get_weights(), strict=True
    )
    return all(np.array_equal(a, b) for a, b in pairs)


def test_deterministic_training_gives_the_same_weights_with_any_number_of_workers(
    finished, split, tmp_path
):
    again = train(split, tmp_path / "a", small_recipe(workers=4), progress=False)
    assert same_weights(finished, again)
    other = train(split, tmp_path / "b", small_recipe(epochs=1, seed=1), progress=False)
    assert not same_weights(finished, other)


@pytest.mark.skipif("FAULTS" not in os.environ, reason="a minute: make faults")
def test_deterministic_training_of_the_pretrained_encoder(split, tmp_path):
    network = UNetConfig(
        filters=4, depth=5, dropout=0.2, encoder="EfficientNetLite0", encoder_weights="imagenet"
    )
    runs = [
        train(
            split,
            tmp_path / str(workers),
            replace(small_recipe(epochs=2, workers=workers), network=network),
            progress=False,
        )
        for workers in (1, 4)
    ]
    assert same_weights(*runs)


def test_finished_run_is_returned_and_others_are_refused(finished, split):
    again = train(split, finished.folder, small_recipe(), resume=True, progress=False)
    assert again.result == finished.result
    with pytest.raises(FileExistsError, match="not empty.*--resume"):
        train(split, finished.folder, small_recipe(), progress=False)
    with pytest.raises(ValueError, match="training.epochs: 3 there, 4 now"):
        train(split, finished.folder, small_recipe(epochs=4), resume=True, progress=False)
    other = replace(split, train=split.train[1:])
    with pytest.raises(ValueError, match="the split differs"):
        train(other, finished.folder, small_recipe(), resume=True, progress=False)


def test_empty_part_and_unfinished_run(split, tmp_path):
    with pytest.raises(ValueError, match="validation part of .* is empty"):
        train(replace(split, validation=()), tmp_path / "r", small_recipe(), progress=False)
    with pytest.raises(ValueError, match="train: the train part of .* is empty"):
        train(replace(split, train=()), tmp_path / "r", small_recipe(), progress=False)
    assert not (tmp_path / "r").exists()
    with pytest.raises(ValueError, match="no finished run"):
        load_run(tmp_path)


def test_two_runs_in_one_folder_and_a_run_killed_before_it_began(split, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as another process does
    with pytest.raises(FolderInUse, match="another process"):
        train(split, folder, small_recipe(epochs=1), resume=True, progress=False)
    os.close(handle)
    # The split is written first, the settings last: this is what a kill between them leaves.
    Folds.of_split(split).save(folder / "split.csv")
    with pytest.raises(FileExistsError):
        train(split, folder, small_recipe(epochs=1), progress=False)
    run = train(split, folder, small_recipe(epochs=1), resume=True, progress=False)
    assert run.result["epochs"] == 1


CHILD = """
import sys
from unet_lib.dataset import Folds, find_cases
from tests.test_training import small_recipe
from unet_lib.training import train
cases = find_cases(sys.argv[1])
split = Folds.read(sys.argv[2]).split(cases, 0)
train(split, sys.argv[3], small_recipe(epochs=14, batch_size=2), resume=True, progress=False)
"""


def start_child(split, folder, split_csv):
    data = split.train[0].image_path.parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(data), str(split_csv), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_new_state(child, folder, before):
    """Wait until the child has saved an epoch of its own."""
    for _ in range(3000):
        state = folder / "state.npz"
        if state.exists() and state.stat().st_mtime_ns != before:
            return
        assert child.poll() is None, "the run ended before it could be killed"
        time.sleep(0.1)
    raise AssertionError("no epoch within five minutes")


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="seven processes; the state is the same code on every backend (next test)",
)
def test_killed_at_five_random_moments_and_resumed_gives_the_same_weights(split, tmp_path):
    split_csv = Folds.of_split(split).save(tmp_path / "split.csv")
    child = start_child(split, tmp_path / "whole", split_csv)
    assert child.wait(timeout=600) == 0, child.stderr.read()
    whole = load_run(tmp_path / "whole")
    epoch = float(np.median([row["seconds"] for row in whole.history]))
    folder, rng = tmp_path / "killed", random.Random(0)
    for _ in range(5):
        before = (folder / "state.npz").stat().st_mtime_ns if folder.exists() else None
        child = start_child(split, folder, split_csv)
        wait_for_new_state(child, folder, before)
        time.sleep(rng.uniform(0, epoch))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    child = start_child(split, folder, split_csv)
    assert child.wait(timeout=600) == 0, child.stderr.read()
    killed = load_run(folder)
    assert same_weights(whole, killed)
    histories = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
        for run in (whole, killed)
    ]
    assert histories[0] == histories[1]


@pytest.mark.jax
def test_stopped_after_an_epoch_and_resumed_in_process(split, tmp_path, finished, monkeypatch):
    """The same as a kill between two epochs, at each of them, quickly."""
    from unet_lib.training import loop

    class Interrupted(Exception):
        pass

    saved = loop.save_state

    def save_then_stop(path, network, progress):
        saved(path, network, progress)
        raise Interrupted

    monkeypatch.setattr(loop, "save_state", save_then_stop)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(split, tmp_path / "run", small_recipe(), resume=True, progress=False)
    monkeypatch.setattr(loop, "save_state", saved)
    resumed = train(split, tmp_path / "run", small_recipe(), resume=True, progress=False)
    assert same_weights(finished, resumed)


def test_a_state_that_does_not_fit_is_refused(split, tmp_path, monkeypatch):
    from unet_lib.training import loop

    saved = loop.save_state

    def save_then_stop(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(split, tmp_path / "run", small_recipe(), progress=False)

    def resume(message, split=split):
        with pytest.raises(ValueError, match=message):
            train(split, tmp_path / "run", small_recipe(), resume=True, progress=False)

    case = split.train[0]
    pixels = cv2.imread(str(case.image_path), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "changed.png"), 255 - pixels)
    changed = replace(case, image_path=tmp_path / "changed.png")
    resume(
        f"run: 1 images or masks are not .* first '{re.escape(case.name)}'. Restore them",
        replace(split, train=(changed, *split.train[1:])),
    )
    state = tmp_path / "run" / "state.npz"
    other = build_unet(UNetConfig(filters=4, depth=1), 32)
    compile_network(other, TrainingConfig(), 10)
    with pytest.raises(ValueError, match="state.npz: holds .* of another network.*Resume with"):
        load_state(state, other)
    state.write_bytes(b"not a zip")
    resume("state.npz: the state of the run cannot be read.*train again")


def test_nan_loss_stops_with_advice(split, tmp_path, monkeypatch):
    from unet_lib.training import run

    build = run.build_unet

    def poisoned(*args, **kwargs):
        network = build(*args, **kwargs)
        kernel = network.get_layer("logits").weights[0]
        kernel.assign(np.full(kernel.shape, np.nan))
        return network

    monkeypatch.setattr(run, "build_unet", poisoned)
    with pytest.raises(TrainingError, match="loss became nan in epoch 1, batch 1.*learning_rate"):
        train(split, tmp_path / "run", small_recipe(), progress=False)


@pytest.mark.parametrize("ema", [0.0, 0.99])
def test_float16_scales_the_loss_and_validates_the_average(ema):
    """Keras wraps the optimiser then, and the wrapper has no average of its own."""
    network = build_unet(UNetConfig(filters=4, depth=1), 16, precision="mixed_float16")
    compile_network(network, TrainingConfig(epochs=100, warmup_epochs=0, ema=ema), 4)
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    x = np.random.default_rng(0).random((2, 16, 16, 1), dtype="float32")
    for _ in range(3):
        network.train_on_batch(x, np.ones_like(x))
    trained = network.get_weights()
    with averaged_weights(network):
        averaged = network.get_weights()
    assert ema == 0 or any(np.abs(a - b).max() > 0 for a, b in zip(trained, averaged, strict=True))
    assert ema or all(map(np.array_equal, trained, averaged))
    assert all(map(np.array_equal, trained, network.get_weights()))


def test_a_validation_loss_that_is_never_finite_is_named(split, tmp_path, monkeypatch):
    evaluate = keras.Model.evaluate
    monkeypatch.setattr(
        keras.Model, "evaluate", lambda *a, **o: {**evaluate(*a, **o), "loss": float("nan")}
    )
    for resume in (False, True):
        with pytest.raises(TrainingError, match="validation loss was nan after epoch 2.*smaller"):
            train(split, tmp_path / "r", small_recipe(epochs=2), resume=resume, progress=False)


def test_the_last_epoch_may_be_taken(finished, split, tmp_path):
    run = train(split, tmp_path / "run", small_recipe(take="last"), progress=False)
    assert run.result["best_epoch"] == 3
    assert run.result["best_validation_loss"] == run.history[-1]["val_loss"]


def test_opencv_has_its_threads_back_after_training(split, tmp_path):
    recipe, before = small_recipe(epochs=1), cv2.getNumThreads()
    batches = Batches(PreparedCases(split.train, recipe.preprocessing), 4)
    network = build_unet(recipe.network, 32)
    compile_network(network, recipe.training, batches.updates)
    cv2.setNumThreads(2)
    try:
        fit(network, batches, None, recipe.training, tmp_path, show_progress=False)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_early_stopping(split, tmp_path):
    recipe = small_recipe(epochs=50, patience=2, learning_rate=1e-9, warmup_epochs=0, ema=0.0)
    run = train(split, tmp_path / "run", recipe, progress=False)
    assert run.result["epochs"] == run.result["best_epoch"] + 2 < 50


def test_training_starts_from_a_model_and_remembers_what_that_had_seen(finished, split, tmp_path):
    model = shutil.copytree(finished.folder / "model", tmp_path / "before")
    others = find_cases(make_phantoms(tmp_path / "p", 24, seed=6, progress=False))
    other = make_split(others, test=0.2, validation=0.2).split(others, 0)
    still = {"epochs": 1, "warmup_epochs": 0, "learning_rate": 1e-9, "ema": 0.0}
    recipe = small_recipe(**still, start_from=str(model))
    run = train(other, tmp_path / "run", recipe, provenance={"data": "mine"}, progress=False)
    kernels = [w for w in run.segmenter.network.weights if w.name == "kernel"]
    before = [w for w in finished.segmenter.network.weights if w.name == "kernel"]
    assert len(kernels) > 8
    for ours, theirs in zip(kernels, before, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    about, seen = run.segmenter.provenance, finished.segmenter.provenance
    assert about["started_from"] == f"whole (SHA-256 {seen['weights_sha256']})"
    hashes = set(about["training_images"]["hashes"])
    assert set(seen["training_images"]["hashes"]) < hashes
    assert len(hashes) == sum(
        map(len, (split.train, split.validation, other.train, other.validation))
    )
    leaked = evaluate_cases(run.segmenter, split.train[:2], progress=False).provenance
    assert leaked["seen_in_training"] and len(leaked["training_overlap"]["in_training"]) == 2
    clean = evaluate_cases(run.segmenter, other.test, progress=False).provenance
    assert clean["seen_in_training"] is False
    # Begun from another model of this name: not the same run.
    (run.folder / "result.json").rename(tmp_path / "result.json")
    other_weights = replace(finished.segmenter, network=run.segmenter.network)
    save_segmenter(other_weights, recipe.network, model)
    with pytest.raises(ValueError, match=r"started_from: whole \(SHA.* there, whole \(SHA.* now"):
        train(other, run.folder, recipe, provenance={"data": "mine"}, resume=True, progress=False)
    (tmp_path / "result.json").rename(run.folder / "result.json")
    # A finished run does not need the model any more.
    shutil.rmtree(model)
    again = train(other, run.folder, recipe, resume=True, progress=False)
    assert again.result == run.result


def test_a_start_that_would_leak_or_does_not_fit_is_refused(finished, split, tmp_path):
    model = finished.folder / "model"
    recipe = small_recipe(start_from=str(model))
    swapped = replace(split, train=split.test, test=split.train)
    with pytest.raises(ValueError, match=r"start_from whole: was trained on \d+ of the \d+ val"):
        train(split, tmp_path / "run", recipe, progress=False)
    with pytest.raises(ValueError, match=r"of the \d+ test images or on near-dup"):
        train(replace(swapped, validation=split.test), tmp_path / "run", recipe, progress=False)
    wide = replace(recipe, network=UNetConfig(filters=8, depth=2, dropout=0.2))
    with pytest.raises(ValueError, match=r"another network \(filters: 4 there, 8 here\)"):
        train(split, tmp_path / "run", wide, progress=False)
    with pytest.raises(WeightsError, match="absent: neither a model folder"):
        train(split, tmp_path / "run", small_recipe(start_from="absent"), progress=False)
    with pytest.raises(ValueError, match="start_from must be text; received None"):
        small_recipe(start_from=None)
    assert not (tmp_path / "run").exists()


def test_after_a_start_that_does_not_say_what_it_saw_nobody_knows(finished, split, tmp_path):
    about = {k: v for k, v in finished.segmenter.provenance.items() if k != "training_images"}
    stranger = replace(finished.segmenter, provenance=about)
    save_segmenter(stranger, small_recipe().network, tmp_path / "stranger")
    recipe = small_recipe(epochs=1, start_from=str(tmp_path / "stranger"))
    run = train(split, tmp_path / "run", recipe, provenance={"data": "mine"}, progress=False)
    assert "training_images" not in run.segmenter.provenance
    # The names that it keeps are enough to warn, not to acquit.
    assert evaluate_cases(run.segmenter, split.test, progress=False).provenance[
        "seen_in_training"
    ] is (None)


def test_averaged_weights_are_given_back_bit_for_bit():
    network = build_unet(UNetConfig(filters=4, depth=1), 16)
    compile_network(network, TrainingConfig(epochs=100, ema=0.5, warmup_epochs=0), 4)
    x = np.random.default_rng(0).random((2, 16, 16, 1), dtype="float32")
    for _ in range(3):
        network.train_on_batch(x, np.ones_like(x))
    trained = [w.copy() for w in network.get_weights()]
    with averaged_weights(network):
        averaged = network.get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(trained, averaged, strict=True))
    for a, b in zip(trained, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_moving_average_equals_its_formula():
    """One weight under SGD-like steps: a <- m a + (1 - m) w after each, from the first on."""
    network = build_unet(UNetConfig(filters=4, depth=1), 16)
    compile_network(network, TrainingConfig(epochs=100, ema=0.5, warmup_epochs=0), 4)
    x = np.random.default_rng(0).random((2, 16, 16, 1), dtype="float32")
    weight, average = network.get_layer("logits").weights[0], None
    for _ in range(4):
        network.train_on_batch(x, np.ones_like(x))
        value = np.asarray(weight.value).copy()
        average = value if average is None else 0.5 * average + 0.5 * value
    with averaged_weights(network):
        np.testing.assert_allclose(np.asarray(weight.value), average, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number from 1 to 100000; received 0"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"deterministic": 1}, "deterministic must be true or false"),
        ({"learning_rate": 0}, "learning_rate must be a number from 1e-09"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"loss": "dice"}, "loss must be one of 'bce_dice'"),
        ({"precision": "half"}, "precision must be one of 'auto', 'float32'"),
        ({"warmup_epochs": 4, "epochs": 3}, "warmup_epochs must be a number from 0 to 3"),
    ],
)
def test_wrong_training_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**wrong)
    with pytest.raises(ValueError, match="TrainingConfig: unknown setting 'epoch'"):
        Recipe.from_dict({"training": {"epoch": 3}})
    with pytest.raises(ValueError, match="network.output_channels must be 1"):
        Recipe(UNetConfig(output_channels=2))


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


def test_threshold_recovers_the_scale_of_known_probabilities(tmp_path):
    """A network that says .62 on dark pixels and .38 elsewhere: thresholds between are best."""
    cases = []
    for number in range(1, 5):
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, 10 : 20 + number] = 255
        for name, pixels in ((f"a{number}", 255 - mask), (f"a{number}", mask)):
            folder = tmp_path / ("images" if pixels is not mask else "masks")
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"{name}.png"), pixels)
    cases = find_cases(tmp_path)
    inputs = keras.Input((40, 40, 1))
    network = keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs))
    network.set_weights([np.full((1, 1, 1, 1), -0.24, "f4"), np.array([0.62], "f4")])
    choice = tune_threshold(Segmenter(network, Preprocessing(40)), cases, progress=False)
    assert 0.38 < choice.chosen.threshold <= 0.6
    assert choice.chosen.dice == pytest.approx(1.0)
    assert choice.met and choice.normals == 0 and choice.lesions == 4
    assert choice.chosen.cleaning == Cleaning()
    json.dumps(choice.to_dict())


@pytest.mark.parametrize("seed", range(4))
def test_tuning_scores_each_setting_as_the_report_does(seed):
    rng = np.random.default_rng(seed)
    noise = scipy.ndimage.gaussian_filter(rng.random((60, 70)), 3)
    probabilities = np.interp(noise, (noise.min(), noise.max()), (0, 1)).astype("f4")
    truth = np.roll(noise, 3, axis=1) > np.quantile(noise, 0.9)
    if seed == 0:
        truth[:] = False
    found = _score_settings(truth, probabilities)
    for (i, cleaning), (j, threshold) in itertools.product(
        enumerate(CLEANINGS), enumerate(THRESHOLDS)
    ):
        mask = cleaning.apply(probabilities >= threshold, probabilities)
        score = score_case(truth, mask, name="x")
        expected = (score.dice, float(score.predicted_empty))
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-12)


def test_threshold_needs_a_lesion(split):
    normals = [case for case in split.train if case.label == "normal"]
    network = build_unet(UNetConfig(filters=4, depth=1), 32)
    with pytest.raises(ValueError, match="has a lesion"):
        tune_threshold(Segmenter(network, Preprocessing(32)), normals, progress=False)
