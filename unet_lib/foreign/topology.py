"""Networks whose file brings its topology along: ``.keras`` and whole models in ``.h5``.

The topology is read as data and rebuilt from the layers of `CLASSES`. Keras' own deserialisation,
which imports classes by name and runs Lambda code, is not used.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from unet_lib.foreign.graph import CLASSES, Node
from unet_lib.foreign.layouts import StoredLayer, StoredLayers
from unet_lib.weights.check import snake_case

__all__ = ["TopologyError", "read_topology"]

_CONVOLUTION = ("filters", "kernel_size", "strides", "padding", "dilation_rate", "use_bias")
_NORM = ("axis", "epsilon", "center", "scale")
_POOL = ("pool_size", "strides", "padding")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "activation": ("activation",),
    "average_pooling2d": _POOL,
    "batch_normalization": _NORM,
    "concatenate": ("axis",),
    "conv2d": (*_CONVOLUTION, "groups", "activation"),
    "conv2d_transpose": (*_CONVOLUTION, "output_padding", "activation"),
    "cropping2d": ("cropping",),
    "dense": ("units", "use_bias", "activation"),
    "depthwise_conv2d": ("kernel_size", "strides", "padding", "depth_multiplier", "dilation_rate",
                         "use_bias", "activation"),
    "dropout": ("rate",),
    "elu": ("alpha",),
    "gaussian_dropout": ("rate",),
    "gaussian_noise": ("stddev",),
    "global_average_pooling2d": ("keepdims",),
    "global_max_pooling2d": ("keepdims",),
    "group_normalization": ("groups", *_NORM),
    "layer_normalization": _NORM,
    "leaky_re_lu": ("negative_slope", "alpha"),
    "max_pooling2d": _POOL,
    "p_re_lu": ("shared_axes",),
    "re_lu": ("max_value", "negative_slope", "threshold"),
    "rescaling": ("scale", "offset"),
    "reshape": ("target_shape",),
    "separable_conv2d": (*_CONVOLUTION, "depth_multiplier", "activation"),
    "softmax": ("axis",),
    "spatial_dropout2d": ("rate",),
    "up_sampling2d": ("size", "interpolation"),
    "zero_padding2d": ("padding",),
}  # fmt: skip
# What else a layer's configuration says that does not change what it computes when applied.
_IGNORED = {
    "name", "trainable", "dtype", "seed", "noise_shape", "batch_input_shape", "batch_shape",
    "renorm", "renorm_momentum", "renorm_clipping", "momentum", "synchronized", "fused",
    "virtual_batch_size", "adjustment", "supports", "autocast", "rms_scaling", "lora_rank",
    "lora_alpha", "quantization_config", "input_axes", "build_config", "sparse", "ragged",
    "optional",
}  # fmt: skip
_IGNORED_ENDINGS = ("_initializer", "_regularizer", "_constraint")
_ACTIVATIONS = {
    "linear", "relu", "relu6", "elu", "selu", "gelu", "silu", "swish", "sigmoid", "hard_sigmoid",
    "hard_silu", "softmax", "softplus", "softsign", "tanh", "leaky_relu", "exponential", "mish",
}  # fmt: skip
_MOST_LAYERS = 2_000


class TopologyError(Exception):
    """A part of a topology that is not rebuilt here."""


def read_topology(stored: StoredLayers) -> tuple[list[Node], tuple[int | None, ...]]:
    """Turn a file's topology into nodes with their arrays.

    Returns
    -------
    nodes : list of Node
        The last is the output.
    shape : tuple
        Height, width (None: any) and channels of the input.

    Raises
    ------
    TopologyError
        A layer, a setting or a connection that is not known here; or arrays left over.
    """
    try:
        return _read(stored)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise TopologyError(f"its topology is damaged ({type(error).__name__}: {error})") from error


def _read(stored: StoredLayers) -> tuple[list[Node], tuple[int | None, ...]]:
    model = stored.config
    if model["class_name"] not in ("Functional", "Model"):
        raise TopologyError(
            f"it is a model of class {model['class_name']!r}; only functional models are rebuilt"
        )
    entries = model["config"]["layers"]
    if len(entries) > _MOST_LAYERS:
        raise TopologyError(f"it has {len(entries):,} layers")
    by_label = {layer.label: layer for layer in stored.layers}
    queues: dict[str, list[StoredLayer]] = defaultdict(list)
    for layer in stored.layers:
        queues[layer.kind].append(layer)
    legacy = stored.layout.startswith("legacy")
    nodes: list[Node] = []
    positions: dict[str, int] = {}
    shape: tuple[int | None, ...] = ()
    used = 0
    for entry in entries:
        name, settings = entry["config"]["name"], entry["config"]
        if name in positions:
            raise TopologyError(f"two layers are called {name!r}")
        kind = snake_case(entry["class_name"])
        inputs = _inputs(entry["inbound_nodes"], name)
        if kind == "input_layer":
            shape = tuple((settings.get("batch_shape") or settings["batch_input_shape"])[1:])
            if nodes:
                raise TopologyError("it has several inputs, or its input is not its first layer")
            nodes.append(Node("input", part="input"))
            positions[name] = 0
            continue
        options = _options(kind, entry, name)
        layer = by_label.get(name) if legacy else (queues[kind].pop(0) if queues[kind] else None)
        weights = layer if layer and layer.arrays else None
        used += weights is not None
        nodes.append(
            Node(kind, tuple(positions[i] for i in inputs), f"layer {name!r}", options, weights)
        )
        positions[name] = len(nodes) - 1
    if len(shape) != 3:
        raise TopologyError(f"its input has the shape {shape}; expected height, width, channels")
    if used != len(stored.weighted):
        raise TopologyError(
            f"{len(stored.weighted) - used} stored layers belong to no layer of its topology"
        )
    return _to_output(nodes, positions, model["config"]["output_layers"]), shape


def _to_output(nodes: list[Node], positions: dict[str, int], outputs: Any) -> list[Node]:
    flat = outputs if isinstance(outputs[0], list) else [outputs]
    if len(flat) != 1:
        raise TopologyError(f"it has {len(flat)} outputs; one is expected")
    if positions[flat[0][0]] != len(nodes) - 1:
        raise TopologyError(f"its output {flat[0][0]!r} is not its last layer")
    return nodes


def _inputs(inbound: Any, name: str) -> list[str]:
    """Return the names of the layers that a layer takes, from Keras 3's or TF-Keras' nodes."""
    if not inbound:
        return []
    if len(inbound) != 1:
        raise TopologyError(f"layer {name!r} is applied {len(inbound)} times")
    node = inbound[0]
    if isinstance(node, dict):
        extra = {k: v for k, v in node.get("kwargs", {}).items() if k not in ("training", "mask")}
        if extra:
            raise TopologyError(f"layer {name!r} is called with {', '.join(extra)}")
        return list(_tensors(node["args"], name))
    if node and not isinstance(node[0], list):  # [name, node, tensor, kwargs] alone
        node = [node]
    for item in node:
        if len(item) > 3 and set(item[3]) - {"training", "mask"}:
            raise TopologyError(f"layer {name!r} is called with {', '.join(item[3])}")
    return [item[0] for item in node]


def _tensors(values: Any, name: str) -> list[str]:
    found = []
    for value in values:
        if isinstance(value, list):
            found += _tensors(value, name)
        elif value["class_name"] == "__keras_tensor__" and value["config"]["keras_history"][1:] == [
            0, 0,
        ]:  # fmt: skip
            found.append(value["config"]["keras_history"][0])
        else:
            raise TopologyError(f"layer {name!r} takes something else than a layer's output")
    return found


def _options(kind: str, entry: dict[str, Any], name: str) -> dict[str, Any]:
    if kind not in CLASSES or entry.get("registered_name") not in (None, entry["class_name"]):
        what = "code in a file is never run" if kind == "lambda" else "it is not rebuilt here"
        raise TopologyError(f"layer {name!r} is of class {entry['class_name']!r}; {what}")
    settings, allowed = entry["config"], _OPTIONS.get(kind, ())
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key in allowed:
            found[key] = value
        elif key == "data_format":
            if value not in (None, "channels_last"):
                raise TopologyError(f"layer {name!r} has its channels first")
        elif key not in _IGNORED and not key.endswith(_IGNORED_ENDINGS) and value not in (
            None, False, 1, [1, 1],
        ):  # fmt: skip
            raise TopologyError(f"layer {name!r} has the setting {key}={value!r}")
    if "alpha" in found and kind == "leaky_re_lu":  # its name in TF-Keras
        found["negative_slope"] = found.pop("alpha")
    if kind in ("batch_normalization", "layer_normalization") and found.get("axis") in ([3], [-1]):
        found["axis"] = -1
    activation = found.get("activation")
    if activation is not None and activation not in _ACTIVATIONS:
        raise TopologyError(f"layer {name!r} has the activation {activation!r}")
    for key, value in found.items():
        if not _plain(value):
            raise TopologyError(f"layer {name!r} has the setting {key}={value!r}")
    return found


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) <= 65_536
    return value is None or isinstance(value, bool | str)
