"""From the same weights file, TensorFlow and JAX must compute the same things.

Each backend runs in a process of its own, because Keras takes one for good when it is imported.
Not marked "keras": a second run on JAX would do the same again.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from unet_lib.phantoms import make_phantoms

ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-4
OTHER = {"normalization": "group", "upsampling": "resize", "input_channels": 3}
CONFIGS = {"batch norm, transposed": {"depth": 2}, "group norm, resize": {"depth": 1, **OTHER}}

CHILD = """
import json, os, sys
import keras, numpy as np
from unet_lib.augment import Augmentation
from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import find_cases, load_case
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.objectives import LesionDice, bce_dice
from unet_lib.weights import load_weights_file

keras.utils.set_random_seed(1)  # some draws of the weights make a step that rounding changes
configs, data, weights, out = json.loads(sys.argv[1]), *sys.argv[2:]
cases, preprocessing = find_cases(data), Preprocessing(32)
gave = {"backend": keras.backend.backend()}
for number, config in enumerate(map(UNetConfig.from_dict, configs)):
    batches = Batches(
        PreparedCases(cases, preprocessing), 4, augmentation=Augmentation(), shuffle=True, seed=3,
        channels=config.input_channels,
    )
    batches.set_epoch(2)
    x, y = batches[0]
    network = build_unet(config, 32)
    stored = f"{weights}/{number}.weights.h5"
    network.compile(
        keras.optimizers.SGD(0.3), bce_dice, metrics=[LesionDice()],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    if not os.path.exists(stored):  # the first backend trains a little, for weights of real sizes
        for _ in range(40):
            network.train_on_batch(x, y)
        network.save_weights(stored)
    load_weights_file(network, stored)
    for position, weight in enumerate(network.get_weights()):
        gave[f"{number} before {position:03}"] = weight
    gave[f"{number} x"], gave[f"{number} y"] = x, y
    segmenter = Segmenter(network, preprocessing, batch_size=3)
    maps = segmenter.iter_probabilities(load_case(case)[0] for case in cases[:3])
    gave[f"{number} map"] = np.concatenate([one.ravel() for one in maps])
    scores = network.train_on_batch(x, y, return_dict=True)
    gave[f"{number} loss"], gave[f"{number} dice"] = float(scores["loss"]), float(scores["dice"])
    for position, weight in enumerate(network.get_weights()):
        gave[f"{number} step {position:03}"] = weight
np.savez(out, **gave)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What TensorFlow gave, and what JAX."""
    if not (find_spec("tensorflow") and find_spec("jax")):
        pytest.skip("tensorflow and jax are not both installed: nothing to compare with")
    folder = tmp_path_factory.mktemp("backends")
    data = make_phantoms(folder / "p", 6, seed=8, progress=False)
    configs = json.dumps([{"filters": 4, **config} for config in CONFIGS.values()])
    gave = []
    for backend in ("tensorflow", "jax"):
        out = folder / f"{backend}.npz"
        child = subprocess.run(
            [sys.executable, "-c", CHILD, configs, str(data), str(folder), str(out)],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        with np.load(out) as arrays:
            gave.append(dict(arrays))
        assert gave[-1]["backend"] == backend
    return gave


@pytest.mark.parametrize("number", range(len(CONFIGS)), ids=list(CONFIGS))
def test_same_batches_probabilities_and_weights_after_a_step_of_sgd(number, results):
    """Of three images through the Segmenter; moving statistics of the normalisation included."""
    tensorflow, jax = results
    for name in ("x", "y"):
        np.testing.assert_array_equal(tensorflow[f"{number} {name}"], jax[f"{number} {name}"])
    assert tensorflow[f"{number} x"].std() > 0.05 and tensorflow[f"{number} y"].any()
    ours, theirs = tensorflow[f"{number} map"], jax[f"{number} map"]
    assert ours.std() > 100 * TOLERANCE and len(ours) > 3 * 200**2
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    keys = sorted(key for key in tensorflow if key.startswith(f"{number} step"))
    moved = []
    for key in keys:
        old = tensorflow[key.replace("step", "before")]
        np.testing.assert_array_equal(old, jax[key.replace("step", "before")])
        np.testing.assert_allclose(tensorflow[key], jax[key], rtol=0, atol=TOLERANCE, err_msg=key)
        moved.append(np.abs(tensorflow[key] - old).max())
    assert len(keys) > 20
    assert np.mean(np.array(moved) > 10 * TOLERANCE) > 0.8  # the step is no smaller than the error
    for name in ("loss", "dice"):
        assert abs(tensorflow[f"{number} {name}"] - jax[f"{number} {name}"]) < TOLERANCE
