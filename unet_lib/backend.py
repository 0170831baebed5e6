"""What the running Keras backend and its hardware can do: the one home of backend-specific code.

A backend is taken from `sys.modules`, never imported for its own sake: Keras has imported it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="unet_lib")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with TensorFlow's fused kernel where it exists.

    Keras 3 computes moments and scaling in separate steps on TensorFlow, which costs up to half
    of a training step of a U-Net; the fused kernel gives the same numbers to rounding. The class
    keeps Keras' name, so that a weights file does not tell the two apart.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise a batch (N, H, W, C)."""
        if not (
            keras.backend.backend() == "tensorflow"
            and mask is None
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and not self.synchronized
            and not getattr(self, "renorm", False)
            and keras.backend.standardize_dtype(inputs.dtype) != "float64"
        ):
            return super().call(inputs, training=training, mask=mask)
        fused = functools.partial(
            sys.modules["tensorflow"].compat.v1.nn.fused_batch_norm,
            *(inputs, self.gamma, self.beta),
            epsilon=self.epsilon,
        )
        if not (training and self.trainable):
            mean, variance = self.moving_mean, self.moving_variance
            return fused(mean=mean, variance=variance, is_training=False)[0]
        outputs, mean, variance = fused(is_training=True)
        # The kernel returns the unbiased variance; Keras averages the biased one.
        shape = keras.ops.shape(inputs)
        count = keras.ops.cast(shape[0] * shape[1] * shape[2], "float32")
        variance = variance * ((count - 1.0) / count)
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1.0 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1.0 - keep))
        return outputs


class AdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with TensorFlow's fused kernels: the same variables and numbers.

    Keras composes decay, step and moving average of each variable of some 20 operations: 21 of
    122 ms for a step of EfficientNetLite0, which has 186 variables.
    """

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        step = keras.ops.cast(self.iterations + 1, "float32")
        common = {
            "beta1": self.beta_1,
            "beta2": self.beta_2,
            "beta1_power": keras.ops.power(self.beta_1, step),
            "beta2_power": keras.ops.power(self.beta_2, step),
            "lr": keras.ops.cast(learning_rate, "float32"),
            "epsilon": self.epsilon,
        }
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            slots = (variable, self._momentums[index], self._velocities[index])
            handles = zip(("var", "m", "v"), (slot.value.handle for slot in slots), strict=True)
            sys.modules["tensorflow"].raw_ops.ResourceApplyAdam(
                grad=keras.ops.cast(gradient, "float32"), **dict(handles), **common
            )

    def _apply_weight_decay(self, variables: Any) -> None:
        if keras.backend.backend() != "tensorflow":
            super()._apply_weight_decay(variables)
            return
        rate = keras.ops.cast(self.learning_rate, "float32") * self.weight_decay
        for variable in variables:
            if self._use_weight_decay(variable.value):
                _descend(variable, rate, variable.value)

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        if keras.backend.backend() != "tensorflow":
            super()._update_model_variables_moving_average(trainable_variables)
            return
        # The first average is the first weights.
        rate = 1.0 - self.ema_momentum * keras.ops.cast(self.iterations != 0, "float32")
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            _descend(average, rate, average.value - variable.value)


def _descend(variable: Any, rate: Any, direction: Any) -> None:
    ops = sys.modules["tensorflow"].raw_ops
    ops.ResourceApplyGradientDescent(var=variable.value.handle, alpha=rate, delta=direction)


def _cpu_flags() -> set[str]:
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return set(text.partition("\nflags")[2].partition("\n")[0].split())
    return set()


def _gpu_capabilities() -> list[tuple[int, ...]]:
    """Compute capability of each NVIDIA GPU that the running backend sees."""
    name = keras.backend.backend()
    module = sys.modules.get(name)
    # Whatever a backend without a GPU, or of another version, lacks.
    with contextlib.suppress(KeyError, AttributeError, RuntimeError, ValueError):
        if name == "tensorflow":
            gpus = module.config.list_physical_devices("GPU")
            details = map(module.config.experimental.get_device_details, gpus)
            return [d["compute_capability"] for d in details if "compute_capability" in d]
        if name == "jax":
            devices = [d for d in module.devices() if d.platform == "gpu"]
            return [tuple(map(int, str(d.compute_capability).split("."))) for d in devices]
        if name == "torch":
            count = module.cuda.device_count()
            return [module.cuda.get_device_capability(index) for index in range(count)]
    return []


def recommended_precision(*, depthwise: bool = False) -> str:
    """Return the Keras dtype policy that is fastest on this hardware without losing accuracy.

    ``mixed_bfloat16`` on GPUs from Ampere on and on CPUs with AMX or AVX512-BF16 units, which
    compute depthwise convolutions (`UNetConfig.depthwise`) faster in float32: 29 against 23 images
    a second with EfficientNetLite0; ``mixed_float16`` on Volta and Turing.
    """
    capabilities = _gpu_capabilities()
    if capabilities:
        lowest = min(capabilities)
        if lowest >= (8, 0):
            return "mixed_bfloat16"
        return "mixed_float16" if lowest >= (7, 0) else "float32"
    fast = _cpu_flags() & {"amx_bf16", "avx512_bf16"}
    if keras.backend.backend() == "tensorflow" and fast and not depthwise:
        return "mixed_bfloat16"
    return "float32"


def describe_hardware() -> str:
    """Return one line: the backend and the device it computes on."""
    backend, capabilities = keras.backend.backend(), _gpu_capabilities()
    module = sys.modules.get(backend)
    version = getattr(module, "__version__", "unknown version")
    if capabilities:
        ability = ".".join(map(str, capabilities[0]))
        device = f"{len(capabilities)} GPU(s), compute capability {ability}"
    else:
        units = sorted(_cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})
        device = f"CPU, {os.cpu_count()} cores" + (f" ({', '.join(units)})" if units else "")
    if backend == "jax" and module.process_count() > 1:
        device += f", {module.process_count()} processes"
    return f"Keras {keras.__version__} on {backend} {version}, {device}"


def enable_determinism(seed: int) -> None:
    """Seed everything, and make TensorFlow's kernels bit-for-bit repeatable (slower)."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        sys.modules["tensorflow"].config.experimental.enable_op_determinism()


def fit_input(batches: Sequence[tuple[Any, ...]] | keras.utils.PyDataset) -> Any:
    """Return what `keras.Model.fit` takes for batches: on TensorFlow a `tf.data.Dataset` of them.

    Keras would wrap them in one that tunes itself. The end of each epoch then waits for the tuning
    thread, which looks up after 10, 20, 40, ... ms: up to as long as the epoch itself. Batches are
    tuples of arrays that differ in their number of images only. Those of an epoch are asked for
    after it has begun, in one thread, at most three ahead.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    tf = sys.modules["tensorflow"]
    shapes = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batches[0])
    data = tf.data.Dataset.from_generator(
        lambda: (batches[number] for number in range(len(batches))), output_signature=shapes
    )
    data = data.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)
