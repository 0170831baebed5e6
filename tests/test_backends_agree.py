"""From the same weights file, TensorFlow and JAX must compute the same things.

Each backend runs in a process of its own, because Keras takes one for good when it is imported.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantoms

pytestmark = pytest.mark.keras
ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-4
CONFIGS = {
    "batch norm, transposed": UNetConfig(filters=4, depth=2),
    "group norm, resize": UNetConfig(
        filters=4, depth=2, normalization="group", upsampling="resize", input_channels=3
    ),
}

CHILD = """
import json, sys
import keras, numpy as np
from unet_lib.augment import Augmentation
from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import find_cases, load_case
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.objectives import BinaryCrossentropyDice, LesionDice
from unet_lib.weights import load_weights_file

configs, data, weights, out = json.loads(sys.argv[1]), *sys.argv[2:]
cases, preprocessing = find_cases(data), Preprocessing(32)
found = {"backend": keras.backend.backend()}
for number, config in enumerate(map(UNetConfig.from_dict, configs)):
    batches = Batches(
        PreparedCases(cases, preprocessing), 4, augmentation=Augmentation(), shuffle=True, seed=3,
        channels=config.input_channels,
    )
    batches.set_epoch(2)
    x, y = batches[0]
    network = build_unet(config, 32)
    load_weights_file(network, f"{weights}/{number}.weights.h5")
    image, _ = load_case(cases[0])
    found[f"{number} x"], found[f"{number} y"] = x, y
    found[f"{number} output"] = np.asarray(network.predict_on_batch(x))
    found[f"{number} map"] = Segmenter(network, preprocessing).probabilities(image)
    network.compile(
        keras.optimizers.SGD(0.5), BinaryCrossentropyDice(), metrics=[LesionDice()],
        jit_compile=False,
    )
    scores = network.train_on_batch(x, y, return_dict=True)
    found[f"{number} loss"], found[f"{number} dice"] = float(scores["loss"]), float(scores["dice"])
    for position, weight in enumerate(network.get_weights()):
        found[f"{number} step {position:03}"] = weight
np.savez(out, **found)
"""


def uneven(network, seed):
    """Weights and moving statistics as after training: no zeros, no ones."""
    rng = np.random.default_rng(seed)
    values = []
    for weight in network.weights:
        noise = rng.normal(0, 0.1, weight.shape)
        value = np.asarray(weight.value) + noise
        values.append(np.abs(value) + 0.5 if "variance" in weight.name else value)
    network.set_weights(values)
    return network.get_weights()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The weights before the step, and what each backend gave."""
    missing = [name for name in ("tensorflow", "jax") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: nothing to compare with")
    folder = tmp_path_factory.mktemp("backends")
    data = make_phantoms(folder / "p", 6, seed=8, progress=False)
    before = []
    for number, config in enumerate(CONFIGS.values()):
        network = build_unet(config, 32)
        before.append(uneven(network, number))
        network.save_weights(folder / f"{number}.weights.h5")
    configs = json.dumps([config.to_dict() for config in CONFIGS.values()])
    found = {}
    for backend in ("tensorflow", "jax"):
        out = folder / f"{backend}.npz"
        done = subprocess.run(
            [sys.executable, "-c", CHILD, configs, str(data), str(folder), str(out)],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        with np.load(out) as arrays:
            found[backend] = dict(arrays)
        assert found[backend]["backend"] == backend
    return before, found["tensorflow"], found["jax"]


numbers = pytest.mark.parametrize("number", range(len(CONFIGS)), ids=list(CONFIGS))


@numbers
def test_same_batches(number, results):
    _, tensorflow, jax = results
    for name in ("x", "y"):
        np.testing.assert_array_equal(tensorflow[f"{number} {name}"], jax[f"{number} {name}"])
    assert tensorflow[f"{number} x"].std() > 0.05 and tensorflow[f"{number} y"].any()


@numbers
def test_same_probabilities(number, results):
    """Of a batch, and of an image through the Segmenter at its own size."""
    _, tensorflow, jax = results
    for name in ("output", "map"):
        ours, theirs = tensorflow[f"{number} {name}"], jax[f"{number} {name}"]
        assert ours.std() > 0.01  # a picture, not a constant
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


@numbers
def test_same_weights_after_a_step_of_sgd(number, results):
    """Moving statistics of the normalisation included."""
    before, tensorflow, jax = results
    keys = sorted(key for key in tensorflow if key.startswith(f"{number} step"))
    assert len(keys) == len(before[number])
    moved = []
    for key, old in zip(keys, before[number], strict=True):
        np.testing.assert_allclose(tensorflow[key], jax[key], rtol=0, atol=TOLERANCE, err_msg=key)
        moved.append(np.abs(tensorflow[key] - old).max())
    assert np.mean(np.array(moved) > 10 * TOLERANCE) > 0.8  # the step is no smaller than the error
    for name in ("loss", "dice"):
        assert abs(tensorflow[f"{number} {name}"] - jax[f"{number} {name}"]) < TOLERANCE
