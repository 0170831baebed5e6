"""Batch normalisation folded into the convolution before it, for prediction."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose)


def fold_batch_norm(network: keras.Model) -> keras.Model:
    """Return the same function without the normalisations that alone follow a convolution.

    They scale and shift each channel by constants, and so can kernel and bias; `network` itself
    where nothing can be folded. The result has its own weights; probabilities agree to 1e-5.
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

    # Without what it was compiled with: a loss of anybody's is not found by its name.
    bare = keras.Model(network.inputs, network.outputs, name=network.name)
    folded = keras.models.clone_model(bare, clone_function=clone, call_function=call)
    for layer in network.layers:
        if layer.name in pairs:
            folded.get_layer(layer.name).set_weights(_folded_weights(layer, pairs[layer.name]))
        elif layer.name not in dropped and layer.weights:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    folded.trainable = False
    return folded


def layer_sources(network: keras.Model) -> dict[str, list[str]]:
    """Return the layers that each layer, and the output (""), takes its input from, by name.

    Empty for a network that is no graph of layers, holds a model, or uses a layer twice.
    """
    operations = getattr(network, "operations", ())
    made = {id(tensor): o.name for o in operations for tensor in keras.tree.flatten(o.output)}
    inputs = {o.name: o.input for o in operations} | {"": network.outputs if operations else ()}
    try:
        return {k: [made[id(x)] for x in keras.tree.flatten(v)] for k, v in inputs.items()}
    except KeyError:
        return {}


def _pairs(network: keras.Model) -> dict[str, layers.BatchNormalization]:
    """Return the normalisation to be folded into each convolution, by the latter's name."""
    sources = layer_sources(network)
    uses = Counter(name for before in sources.values() for name in before)
    pairs = {}
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
            pairs[convolution.name] = norm
    return pairs


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
        scale = scale.reshape(kernel.shape[2:])
    elif isinstance(convolution, layers.Conv2DTranspose):  # (rows, columns, outputs, inputs)
        scale = scale[:, None]
    return [(kernel * scale).astype("float32"), shift.astype("float32")]
