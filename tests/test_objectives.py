import keras
import numpy as np
import pytest

from unet_lib.objectives import LOSSES, LesionDice, bce_dice, make_loss

pytestmark = [pytest.mark.keras, pytest.mark.jax]
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
    loss = make_loss("bce_dice", 0.5)(truth, probabilities)
    np.testing.assert_allclose(np.asarray(loss), expected, rtol=1e-5)
    assert np.asarray(bce_dice(truth, truth)).max() < 1e-5


def test_running_dice_leaves_out_empty_truth_and_counts_a_miss():
    truth = np.zeros((3, 4, 4, 1), "float32")
    truth[0, :2, :2] = 1  # half of it hit: Dice 2*2/(4+2)
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


def test_a_loss_without_a_dice_weight(monkeypatch):
    monkeypatch.setitem(LOSSES, "wrong share", lambda y, p: keras.ops.mean(abs(y - p), (1, 2, 3)))
    truth, probabilities = sample()
    loss = np.asarray(make_loss("wrong share")(truth, probabilities))
    np.testing.assert_allclose(loss, abs(truth - probabilities).mean((1, 2, 3)), rtol=1e-5)
    with pytest.raises(ValueError, match="'wrong share' has no dice_weight; leave it at 1"):
        make_loss("wrong share", 2.0)
