import platform
import subprocess
import sys

import keras
import numpy as np
import pytest

from unet_lib import backend
from unet_lib.backend import BatchNormalization, recommended_precision

pytestmark = pytest.mark.keras
KINDS = (BatchNormalization, keras.layers.BatchNormalization)


def pair():
    """Our layer and Keras' own with the same, uneven state."""
    rng = np.random.default_rng(0)
    layers = [kind(momentum=0.9) for kind in KINDS]
    state = [rng.normal(size=5), rng.normal(size=5), rng.normal(size=5), rng.uniform(0.5, 2, 5)]
    for layer in layers:
        layer.build((None, 6, 7, 5))
        layer.set_weights(state)
    return layers, rng.normal(2, 3, (4, 6, 7, 5)).astype("float32")


@pytest.mark.parametrize("training", [True, False])
def test_equals_keras_layer(training, tmp_path):
    (ours, theirs), x = pair()
    np.testing.assert_allclose(
        np.asarray(ours(x, training=training)), np.asarray(theirs(x, training=training)), atol=2e-5
    )
    for mine, reference in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)
    # A weights file does not tell the two apart.
    inputs = keras.Input((6, 7, 5))
    keras.Model(inputs, ours(inputs)).save_weights(tmp_path / "a.weights.h5")
    other = keras.layers.BatchNormalization(momentum=0.9)
    keras.Model(inputs, other(inputs)).load_weights(tmp_path / "a.weights.h5")
    assert all(map(np.array_equal, ours.get_weights(), other.get_weights()))


def test_gradients_equal_keras_layer():
    results = []
    for kind in KINDS:
        keras.utils.set_random_seed(3)
        network = keras.Sequential(
            [keras.Input((8, 8, 2)), keras.layers.Conv2D(4, 3), kind(), keras.layers.ReLU()]
        )
        network.compile(keras.optimizers.SGD(0.1), "mse")
        x = np.random.default_rng(1).normal(size=(4, 8, 8, 2)).astype("float32")
        for _ in range(3):
            network.train_on_batch(x, np.ones((4, 6, 6, 4), "float32"))
        results.append(network.get_weights())
    for mine, reference in zip(*results, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-5)


def test_frozen_layer_keeps_its_statistics():
    (ours, _), x = pair()
    ours.trainable = False
    before = ours.get_weights()
    ours(x, training=True)
    assert all(map(np.array_equal, before, ours.get_weights()))


@pytest.mark.parametrize("accumulate", [None, 2])
def test_fused_adamw_has_the_variables_and_numbers_of_keras(accumulate):
    results = []
    for kind in (backend.AdamW, keras.optimizers.AdamW):
        rng = np.random.default_rng(0)
        kernel, bias = rng.normal(size=(2, 3, 4)).astype("float32")
        weights = [keras.Variable(kernel, name="kernel"), keras.Variable(bias, name="bias")]
        more = {"use_ema": True, "ema_momentum": 0.5, "gradient_accumulation_steps": accumulate}
        optimizer = kind(0.01, weight_decay=0.1, ema_overwrite_frequency=None, **more)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build(weights)
        for _ in range(4):
            gradients = [keras.ops.convert_to_tensor(rng.normal(size=(3, 4)), "float32")] * 2
            optimizer.apply(gradients, weights)
        results.append([(v.name, np.asarray(v)) for v in (*weights, *optimizer.variables)])
    for (name, ours), (other, theirs) in zip(*results, strict=True):
        assert name == other
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("flags", "gpus", "expected"),
    [
        ({"avx2"}, [], "float32"),
        ({"avx2", "amx_bf16"}, [], "mixed_bfloat16"),
        (set(), [(8, 0)], "mixed_bfloat16"),
        (set(), [(7, 5)], "mixed_float16"),
        (set(), [(9, 0), (6, 1)], "float32"),
    ],
)
def test_precision_follows_the_hardware(monkeypatch, flags, gpus, expected):
    monkeypatch.setattr(backend, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(backend, "_gpu_capabilities", lambda: gpus)
    if keras.backend.backend() != "tensorflow" and not gpus:
        expected = "float32"
    assert recommended_precision() == expected
    assert recommended_precision(depthwise=True) == (expected if gpus else "float32")


def test_hardware_line_names_the_backend():
    assert keras.backend.backend() in backend.describe_hardware()


FAULTS_OF_ALLOCATING = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from unet_lib.memory import keep_freed_memory
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(4_000_000)
before = faults()
for _ in range(5):
    np.ones(4_000_000)
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_kept_for_the_next_step():
    """Page faults of a repeated large allocation, counted in a fresh process."""
    command = [sys.executable, "-c", FAULTS_OF_ALLOCATING]
    kept, default = (
        int(subprocess.run([*command, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "default")
    )
    assert kept * 10 < default
