"""Networks whose file brings its topology along: ``.keras`` and whole models in ``.h5``.

Each layer is named, allowed and stripped to plain settings before Keras builds the network; code in
a file is never run. Not `keras.models.load_model`: of TF-Keras 2.15 it reads neither format
(Keras 3.15), and it opens the weights with a second reader.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from typing import Any

import keras

from unet_lib.foreign.layouts import StoredLayer, StoredLayers, UnknownNetwork, read_layers
from unet_lib.foreign.networks import Network, Variant, scale_options
from unet_lib.weights.hdf5 import Contents

# Where in Keras the layers are that neither run code of a file nor open other files.
_SAFE = re.compile(
    r"keras\.src\.layers\.(activations|attention|convolutional|core\.(dense|identity|input_layer)|"
    r"merging|normalization|pooling|preprocessing\.(image_preprocessing|normalization|rescaling)|"
    r"regularization|reshaping)\b.*"
)
_INPUT = ("batch_shape", "batch_input_shape")
# Settings of other versions that change nothing in what a layer computes when it is applied.
_IGNORED = ("dtype", "trainable", "momentum", "renorm_momentum", "fused", "virtual_batch_size")
_IGNORED_ENDINGS = ("_initializer", "_regularizer", "_constraint", "_config", *_INPUT)
_MOST_LAYERS = 2_000
_ACTIVATIONS = ("relu", "leakyrelu", "elu", "prelu", "softmax", "sigmoid", "tanh", "relu6", "silu")
_PASSING = re.compile(
    "Activation|Average|Concatenate|Cropping2D|(Spatial)?Dropout(2D)?|Identity|Maximum|UpSampling2D|"
    "ZeroPadding2D"
)


def build_topology(config: dict[str, Any], contents: Contents) -> Network:
    """Build the network of a topology with the arrays of its file."""
    version = contents.texts.get("@keras_version", ("",))[0]
    if version.startswith("1."):
        raise UnknownNetwork(
            f"it was saved by Keras {version}, which wrote other layers; load and save it with "
            "TF-Keras 2"
        )
    try:
        kind, inner = config["class_name"], config["config"]
        if kind not in ("Functional", "Model"):
            raise UnknownNetwork(
                f"it is a model of class {kind!r}; only functional models are rebuilt"
            )
        if len(inner["layers"]) > _MOST_LAYERS:
            raise UnknownNetwork(f"it has {len(inner['layers']):,} layers")
        images = {e["config"]["name"] for e in inner["layers"] if e["class_name"] == "InputLayer"}
        entries = [_entry(entry, images) for entry in inner["layers"]]
        ends = {key: inner[key] for key in ("input_layers", "output_layers")}
        model = keras.Model.from_config({"name": "foreign", "layers": entries, **ends})
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if isinstance(error, UnknownNetwork):
            raise
        first = str(error).strip().split("\n")[0]
        raise UnknownNetwork(
            f"Keras cannot build its topology ({type(error).__name__}: {first})"
        ) from error
    parts = _fill(model, entries, read_layers(contents))
    if len(model.inputs) == len(model.outputs) == 1:  # old files wrap them in lists
        model = keras.Model(model.inputs[0], model.outputs[0], name="foreign_unet")
    by_name = {entry["name"]: entry for entry in entries}
    last = set().union(
        *(_last_activations(by_name, name) for name in _sources(inner["output_layers"]))
    )
    scalings = [e["config"]["name"] for e in inner["layers"] if e["class_name"] == "Lambda"]
    settings = [(model.get_layer(name), "rescaling") for name in scalings]
    return Network(model, parts, settings, " and ".join(sorted(last)))


def _sources(value: Any) -> set[str]:
    """Return the names of the layers that stand in a layer's connections."""
    if isinstance(value, dict) and "keras_history" in value:
        return {value["keras_history"][0]}
    if isinstance(value, list) and value and isinstance(value[0], str):
        return {value[0]}
    parts = value.values() if isinstance(value, dict) else value
    return set().union(*map(_sources, parts)) if isinstance(value, dict | list) else set()


def _entry(entry: dict[str, Any], images: set[str]) -> dict[str, Any]:
    """Return a layer's entry with nothing but Keras' own class and plain settings."""
    kind, settings, name = entry["class_name"], entry["config"], entry["config"]["name"]
    module, nodes = entry.get("module") or "keras.layers", entry["inbound_nodes"]
    sources, registered = _sources(nodes), entry.get("registered_name") in (None, kind)
    if kind == "Lambda" and sources <= images:  # what it makes of bytes is settled instead
        nodes = [[[source, 0, 0, {}] for source in sources]]
        kind, settings = "Rescaling", {"name": name, "scale": 1 / 255, "offset": 0.0}
    operation = module.startswith(("keras.src.ops.", "keras.ops"))
    layer = getattr(keras.layers, kind, None)
    safe = _SAFE.fullmatch(getattr(layer, "__module__", ""))
    if not operation and not (module.startswith("keras.") and registered and safe):
        if kind in ("Functional", "Model", "Sequential"):
            text = "a model within the model; only plain layers are rebuilt"
        elif kind.endswith("OpLambda"):
            text = f"an operator on a tensor ({kind} of TF-Keras), which Keras 3 cannot rebuild"
        elif kind == "Lambda":
            text = "of class 'Lambda'; code in a file is never run"
        elif layer is None or not registered:
            text = f"of class {kind!r}, which is none of Keras 3; its code is not in the file"
        else:
            text = f"of class {kind!r}; it is not rebuilt here"
        raise UnknownNetwork(f"layer {name!r} is {text}")
    if not _harmless([nodes, settings if operation else {}]):
        raise UnknownNetwork(f"layer {name!r} takes something else than outputs and numbers")
    if not operation:
        module, settings = "keras.layers", _settings(layer, settings, name)
    plain = {"module": module, "class_name": kind, "config": settings, "registered_name": None}
    return plain | {"name": name, "inbound_nodes": nodes}


def _settings(layer: type, settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the settings that this version's layer takes; refuse others that change anything."""
    allowed = inspect.signature(layer.__init__).parameters
    plain: dict[str, Any] = {}
    for key, value in settings.items():
        if key in _INPUT and value:
            plain["batch_shape"] = [None, *value[1:]]
        elif key in _IGNORED or key.endswith(_IGNORED_ENDINGS):
            continue
        elif key == "data_format" and value == "channels_first":
            raise UnknownNetwork(f"layer {name!r} has its channels first")
        elif key in ("name", *allowed) and _plain(value):
            one = key == "axis" and isinstance(value, list) and len(value) == 1
            plain[key] = value[0] if one else value
        elif layer is keras.layers.LeakyReLU and key == "alpha" and _plain(value):
            plain["negative_slope"] = value
        elif key in allowed or value not in (None, False, 1, [1, 1]):
            raise UnknownNetwork(f"layer {name!r} has the setting {key}={value!r}")
    return plain


def _harmless(value: Any) -> bool:
    """Whether nothing is named in connections that Keras would make an object or code of."""
    if isinstance(value, dict):
        named = value.get("class_name") in (None, "__keras_tensor__", "__tuple__", "__slice__")
        return named and all(map(_harmless, value.values()))
    return all(map(_harmless, value)) if isinstance(value, list) else True


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    if isinstance(value, int | float):
        return abs(value) <= 65_536
    return value is None or isinstance(value, str)


def _fill(
    model: keras.Model, entries: list[dict[str, Any]], stored: StoredLayers
) -> list[tuple[str, StoredLayer]]:
    """Give every layer its arrays: by name in the legacy layout, else by class and order."""
    waiting: dict[str, list[StoredLayer]] = defaultdict(list)
    legacy = stored.layout.startswith("legacy")
    for layer in stored.layers:
        waiting[layer.label if legacy else layer.kind.replace("_", "")].append(layer)
    parts: list[tuple[str, StoredLayer]] = []
    layers = {layer.name: layer for layer in model.layers}
    for entry in entries:
        layer = layers.get(entry["name"])
        if layer is None:  # an operator
            continue
        queue = waiting[entry["name"] if legacy else entry["class_name"].lower()]
        given = queue.pop(0) if queue else StoredLayer("", "")
        expected = [tuple(weight.shape) for weight in layer.weights]
        if expected != [array.shape for array in given.arrays]:
            raise UnknownNetwork(
                f"layer {layer.name!r}: takes arrays {expected}, the file has {given.shapes}"
            )
        layer.set_weights(given.arrays)
        if given.arrays:
            parts.append((f"layer {layer.name!r}", given))
    left = sum(bool(layer.arrays) for layer in stored.layers) - len(parts)
    if left:
        raise UnknownNetwork(f"{left} stored layers belong to no layer of its topology")
    return parts


def _last_activations(entries: dict[str, dict[str, Any]], name: str) -> set[str]:
    """Return the activations that a layer's output went through last."""
    kind, settings = entries[name]["class_name"], entries[name]["config"]
    if kind.lower() in _ACTIVATIONS:
        return {kind.lower()}
    if settings.get("activation", "linear") not in ("linear", None):
        return {str(settings["activation"])}
    if kind.endswith(("Normalization", "Dense")) or "Conv2D" in kind:
        return {"linear"}
    taken = set().union(
        *(_last_activations(entries, one) for one in _sources(entries[name]["inbound_nodes"]))
    )
    return taken if _PASSING.fullmatch(kind) or taken == {"linear"} else {kind}


def topology_variant(network: Network) -> Variant:
    """Return a whole network with what its file leaves open, the defaults first."""
    model = network.model
    outputs, channels = model.output_shape[-1], model.input_shape[-1]
    options: dict[str, tuple[Any, ...]] = {"scale": scale_options(channels)}
    if network.settings:  # a Lambda layer, what it does settled in its place
        options = {"rescaling": ("unit", "symmetric"), "scale": ("bytes",)}
    elif any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers[1:3]):
        options["scale"] = tuple(dict.fromkeys(("bytes", *options["scale"])))
    if network.head == "linear":
        options["head"] = ("sigmoid",) if outputs == 1 else ("softmax", "sigmoid")
    elif network.head not in ("sigmoid", "softmax") or (network.head, outputs) == ("softmax", 1):
        raise UnknownNetwork(
            f"its {outputs} outputs go through {network.head}; expected sigmoid, softmax (of two "
            "or more), or values without an activation"
        )
    alone = outputs == 1 or network.head == "sigmoid"  # outputs that do not exclude one another
    options["lesion"] = tuple(range(outputs)) if alone else (-1, *range(outputs))
    return Variant(lambda: network, channels, options)
