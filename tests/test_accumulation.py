"""Gradient accumulation: a batch in parts is the batch, and everything is counted in updates."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import find_cases
from unet_lib.images import Preprocessing
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantoms
from unet_lib.training import TrainingConfig, compile_network
from unet_lib.training.loop import Progress, averaged_weights, load_state, save_state

pytestmark = pytest.mark.keras
SMALL = UNetConfig(filters=4, depth=1, convolutions=1, normalization="group", dropout=0.0)
# So many epochs that the rate is the same within a batch and at the next one.
CONFIG = TrainingConfig(epochs=100_000, batch_size=4, warmup_epochs=0, learning_rate=0.01, ema=0.9)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = make_phantoms(tmp_path_factory.mktemp("data") / "p", 11, seed=1, progress=False)
    return PreparedCases(find_cases(folder), Preprocessing(16))


@pytest.fixture(scope="module")
def whole(prepared):
    return trained(prepared, 1)


def trained(prepared, accumulate):
    """Weights, averaged weights and the learning rate after each of the first three epochs."""
    config = replace(CONFIG, accumulate=accumulate)
    batches = Batches(prepared, 4, shuffle=True, seed=2, accumulate=accumulate)
    keras.utils.set_random_seed(3)
    network = build_unet(SMALL, 16)
    compile_network(network, config, batches.updates)
    found = []

    class Epoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            batches.set_epoch(epoch)

        def on_epoch_end(self, epoch, logs=None):
            weights = network.get_weights()
            with averaged_weights(network):
                averages = network.get_weights()
            rate = float(network.optimizer.learning_rate)
            found.append((weights, averages, rate))

    network.fit(batches, epochs=3, shuffle=False, verbose=0, callbacks=[Epoch()])
    return found


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_equal_the_batch(prepared, whole, accumulate):
    """Eleven images: batches of 4, 4 and 3, the last of them in parts of other sizes, or empty."""
    parts = trained(prepared, accumulate)
    for epoch, (one, many) in enumerate(zip(whole, parts, strict=True)):
        for x, y in zip(one[0], many[0], strict=True):
            np.testing.assert_allclose(x, y, atol=2e-5, rtol=0, err_msg=f"weights {epoch}")
        assert one[2] == pytest.approx(many[2], rel=1e-6)
    moved = [np.abs(a - b).max() for a, b in zip(whole[0][0], whole[2][0], strict=True)]
    assert np.median(moved) > 0.01
    # The average lags, so an average that moved with every part would be another.
    assert max(np.abs(a - b).max() for a, b in zip(*whole[2][:2], strict=True)) > 0.01


def test_parts_are_cut_evenly_and_weigh_what_they_hold(prepared):
    batches = Batches(prepared, 4, shuffle=True, seed=2, accumulate=4)
    assert batches.updates == 3 and len(batches) == 12
    whole = Batches(prepared, 4, shuffle=True, seed=2)
    items = [batches[i] for i in range(12)]
    assert [len(x) for x, _, _ in items] == [1] * 12
    assert [float(w[0]) for _, _, w in items] == pytest.approx([1] * 8 + [4 / 3] * 3 + [0])
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in items[:4]]), whole[0][0])
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in items[8:11]]), whole[2][0])


def test_state_saved_in_the_middle_of_a_batch_goes_on_exactly(prepared, tmp_path):
    """The sum of the gradients so far is part of the state."""
    batches = Batches(prepared, 4, shuffle=True, seed=2, accumulate=2)
    config = replace(CONFIG, accumulate=2)

    def network():
        built = build_unet(SMALL, 16)
        compile_network(built, config, batches.updates)
        return built

    whole = network()
    for part in range(4):
        if part == 3:
            save_state(tmp_path / "state.npz", whole, Progress())
        whole.train_on_batch(*batches[part])
    resumed = network()
    before = resumed.get_weights()
    load_state(tmp_path / "state.npz", resumed)
    resumed.train_on_batch(*batches[3])
    for a, b, c in zip(whole.get_weights(), resumed.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("wrong", [3, 16, 2.0])
def test_parts_must_divide_the_batch(wrong):
    with pytest.raises(ValueError, match="accumulate must"):
        TrainingConfig(batch_size=8, accumulate=wrong)
