"""Batch normalisation folded into the convolution before it, for prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

__all__ = ["fold_batch_norm"]

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose)


def fold_batch_norm(network: keras.Model) -> keras.Model:
    """Return a network for prediction without the batch normalisations that follow a convolution.

    In prediction such a layer scales and shifts each channel by constants, and so does the
    convolution with its kernel multiplied by the one and its bias moved by the other: the same
    function to rounding (probabilities within 1e-5 in float32), also at the padding, since the
    normalisation comes after it.

    Parameters
    ----------
    network : keras.Model
        Left as it is; the result has its own weights.

    Returns
    -------
    keras.Model
        `network` itself where nothing can be folded: no batch normalisation, one whose input is
        not a convolution used by it alone (such as one before the convolution), or a topology
        that Keras does not tell (subclassed models, layers used twice, models within models).
    """
    pairs = _pairs(network)
    if not pairs:
        return network
    dropped = {norm.name for norm in pairs.values()}

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if "kernel_initializer" in config:  # the weights come next: draw no random ones
            config["kernel_initializer"] = "zeros"
        if layer.name in pairs:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in dropped else layer(*args, **kwargs)

    folded = keras.models.clone_model(network, clone_function=clone, call_function=call)
    for layer in network.layers:
        if layer.name in pairs:
            weights = _folded_weights(layer, pairs[layer.name])
        elif layer.name not in dropped and layer.weights:
            weights = layer.get_weights()
        else:
            continue
        folded.get_layer(layer.name).set_weights(weights)
    folded.trainable = False
    return folded


def _pairs(network: keras.Model) -> dict[str, layers.BatchNormalization]:
    """Return the normalisation to be folded into each convolution, by the latter's name."""
    sources = _sources(network)
    # What the network returns is a use of it too.
    uses = Counter(name for before in sources.values() for name in before)
    found = {}
    for norm in network.layers:
        before = sources.get(norm.name, ())
        if not isinstance(norm, layers.BatchNormalization) or len(before) != 1:
            continue
        convolution = network.get_layer(before[0])
        if (
            type(convolution) in _CONVOLUTIONS
            and uses[convolution.name] == 1
            and convolution.data_format == "channels_last"
            and convolution.activation is keras.activations.linear
            and norm.axis in (-1, 3)
        ):
            found[convolution.name] = norm
    return found


def _sources(network: keras.Model) -> dict[str, list[str]]:
    """Return the names of the layers that each layer, and the output (""), takes its input from.

    Empty for a network that holds a model or uses a layer twice.
    """
    if not isinstance(network, keras.Model) or isinstance(network, keras.Sequential):
        return {}
    try:
        config = network.get_config()
    except NotImplementedError:
        return {}
    if "output_layers" not in config:  # a subclassed model
        return {}
    found: dict[str, list[str]] = {"": [name for name, *_ in _entries(config["output_layers"])]}
    for entry in config["layers"]:
        if len(entry["inbound_nodes"]) > 1 or "layers" in entry["config"]:
            return {}
        found[entry["name"]] = [name for name, *_ in _entries(entry["inbound_nodes"])]
    return found


def _entries(value: Any) -> Iterator[list]:
    """Yield every [layer's name, node, tensor] in a part of a network's config."""
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield list(value)
            return
        for part in value:
            yield from _entries(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _entries(part)


def _folded_weights(convolution: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Return kernel and bias of the convolution with the normalisation in it."""
    mean, variance = (np.asarray(v, "float64") for v in (norm.moving_mean, norm.moving_variance))
    scale = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, "float64")
    kernel, *bias = (np.asarray(v, "float64") for v in convolution.get_weights())
    shift = ((bias[0] if bias else 0.0) - mean) * scale
    if norm.center:
        shift = shift + np.asarray(norm.beta, "float64")
    if isinstance(convolution, layers.DepthwiseConv2D):  # (rows, columns, channels, multiplier)
        kernel = kernel * scale.reshape(kernel.shape[2:])
    elif isinstance(convolution, layers.Conv2DTranspose):  # (rows, columns, outputs, inputs)
        kernel = kernel * scale[:, None]
    else:
        kernel = kernel * scale
    return [kernel.astype("float32"), shift.astype("float32")]
