"""Gradient accumulation: a batch in parts is the batch."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import find_cases
from unet_lib.images import Preprocessing
from unet_lib.model import UNetConfig, build_unet
from unet_lib.training import TrainingConfig, compile_network

pytestmark = pytest.mark.keras
SMALL = UNetConfig(filters=4, depth=1, convolutions=1, normalization="group", dropout=0.0)
# So many epochs that the rate is the same within a batch and at the next one.
CONFIG = TrainingConfig(epochs=100_000, batch_size=4, warmup_epochs=0, learning_rate=0.01, ema=0.0)


@pytest.fixture(scope="module")
def prepared(phantoms):
    return PreparedCases(find_cases(phantoms)[:11], Preprocessing(16))


def trained(prepared, accumulate):
    """Return the weights before and after an epoch."""
    batches = Batches(prepared, 4, shuffle=True, seed=2, accumulate=accumulate)
    keras.utils.set_random_seed(3)
    network = build_unet(SMALL, 16)
    compile_network(network, replace(CONFIG, accumulate=accumulate), batches.updates)
    before = network.get_weights()
    network.fit(batches, epochs=1, shuffle=False, verbose=0)
    return before, network.get_weights()


def test_parts_of_a_batch_equal_the_batch(prepared):
    """Eleven images: batches of 4, 4 and 3, the last of them with an empty part."""
    (before, whole), (_, parts) = trained(prepared, 1), trained(prepared, 4)
    for one, many in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, many, atol=2e-5, rtol=0)
    assert np.median([np.abs(a - b).max() for a, b in zip(before, whole, strict=True)]) > 0.01


def test_rate_and_average_are_stretched_over_the_parts():
    config = TrainingConfig(epochs=20, batch_size=4, warmup_epochs=2, ema=0.9)
    optimizers = []
    for parts in (1, 4):
        network = build_unet(SMALL, 16)
        compile_network(network, replace(config, accumulate=parts), 10)
        optimizers.append(network.optimizer)
    for update in (0, 5, 30, 150, 199):
        rates = [
            float(o._learning_rate(update * p)) for o, p in zip(optimizers, (1, 4), strict=True)
        ]
        assert rates[0] == pytest.approx(rates[1], rel=1e-5)
    assert optimizers[1].ema_momentum ** 4 == pytest.approx(optimizers[0].ema_momentum) == 0.9


def test_parts_are_cut_evenly_and_weigh_what_they_hold(prepared):
    batches = Batches(prepared, 4, shuffle=True, seed=2, accumulate=4)
    assert batches.updates == 3 and len(batches) == 12
    whole = Batches(prepared, 4, shuffle=True, seed=2)
    items = [batches[i] for i in range(12)]
    assert [len(x) for x, _, _ in items] == [1] * 12
    assert [float(w[0]) for _, _, w in items] == pytest.approx([1] * 8 + [4 / 3] * 3 + [0])
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in items[:4]]), whole[0][0])
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in items[8:11]]), whole[2][0])
