import keras
import numpy as np
import pytest

from unet_lib.objectives import BinaryCrossentropyDice, LesionDice

pytestmark = pytest.mark.keras
RNG = np.random.default_rng(0)


def sample(n=3):
    truth = (RNG.random((n, 8, 9, 1)) < 0.3).astype("float32")
    return truth, RNG.uniform(0.05, 0.95, truth.shape).astype("float32")


def test_loss_equals_the_formula():
    truth, probabilities = sample()
    truth[1] = 0  # an image without a lesion
    expected = []
    for y, p in zip(truth.astype(float), probabilities.astype(float), strict=True):
        entropy = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
        dice = 1 - (2 * (y * p).sum() + 1) / (y.sum() + p.sum() + 1)
        expected.append(entropy + 0.5 * dice)
    loss = BinaryCrossentropyDice(dice_weight=0.5, smooth=1.0)
    assert float(loss(truth, probabilities)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_empty_mask_has_a_loss_that_falls_with_the_prediction():
    truth = np.zeros((1, 8, 8, 1), "float32")
    loss = BinaryCrossentropyDice()
    values = [float(loss(truth, np.full_like(truth, p))) for p in (0.5, 0.1, 0.01)]
    assert values[0] > values[1] > values[2]


def test_perfect_prediction_has_almost_no_loss():
    truth, _ = sample()
    assert float(BinaryCrossentropyDice()(truth, truth)) < 1e-5


def test_running_dice_leaves_out_empty_truth_and_counts_a_miss():
    truth = np.zeros((3, 4, 4, 1), "float32")
    truth[0, :2, :2] = 1  # found half: Dice 2*2/(4+2)
    truth[1, 0, 0] = 1  # missed: 0
    guess = np.zeros_like(truth)
    guess[0, 0, :2] = 0.9
    guess[2] = 0.9  # false positive on an empty image: does not count here
    metric = LesionDice()
    metric.update_state(truth[:2], guess[:2])
    metric.update_state(truth[2:], guess[2:])
    assert float(metric.result()) == pytest.approx((4 / 6 + 0) / 2, rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_a_compiled_model_reloads(tmp_path):
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1)])
    network.compile("sgd", BinaryCrossentropyDice(dice_weight=0.3), metrics=[LesionDice(0.4)])
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.dice_weight == 0.3
    x = np.ones((1, 4, 4, 1), "float32")
    np.testing.assert_allclose(np.asarray(loaded(x)), np.asarray(network(x)), atol=1e-6)
