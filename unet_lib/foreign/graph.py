"""A network as a list of layers, the order in which Keras stores them, and building it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from unet_lib.foreign.layouts import StoredLayer
from unet_lib.weights.hdf5 import WeightsError

__all__ = ["CLASSES", "Node", "build_graph", "stored_order"]

CLASSES = {
    "activation": "Activation",
    "add": "Add",
    "average": "Average",
    "average_pooling2d": "AveragePooling2D",
    "batch_normalization": "BatchNormalization",
    "concatenate": "Concatenate",
    "conv2d": "Conv2D",
    "conv2d_transpose": "Conv2DTranspose",
    "cropping2d": "Cropping2D",
    "dense": "Dense",
    "depthwise_conv2d": "DepthwiseConv2D",
    "dropout": "Dropout",
    "elu": "ELU",
    "gaussian_dropout": "GaussianDropout",
    "gaussian_noise": "GaussianNoise",
    "global_average_pooling2d": "GlobalAveragePooling2D",
    "global_max_pooling2d": "GlobalMaxPooling2D",
    "group_normalization": "GroupNormalization",
    "layer_normalization": "LayerNormalization",
    "leaky_re_lu": "LeakyReLU",
    "max_pooling2d": "MaxPooling2D",
    "maximum": "Maximum",
    "multiply": "Multiply",
    "p_re_lu": "PReLU",
    "re_lu": "ReLU",
    "rescaling": "Rescaling",
    "reshape": "Reshape",
    "separable_conv2d": "SeparableConv2D",
    "softmax": "Softmax",
    "spatial_dropout2d": "SpatialDropout2D",
    "subtract": "Subtract",
    "up_sampling2d": "UpSampling2D",
    "zero_padding2d": "ZeroPadding2D",
}
"""The layers that a network may consist of, as files name them; all of Keras, none with code."""


@dataclass
class Node:
    """One layer of a network.

    Attributes
    ----------
    kind : str
        A key of `CLASSES`, or "input".
    inputs : tuple of int
        Positions of the nodes that it takes.
    part : str
        Where in the network, in words.
    options : dict
        Of the layer's constructor.
    stored : StoredLayer or None
        Its arrays.
    role : str
        What it does in a U-Net; its arrays are checked by it.
    """

    kind: str
    inputs: tuple[int, ...] = ()
    part: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    stored: StoredLayer | None = None
    role: str = ""


def stored_order(nodes: Sequence[Node]) -> list[int]:
    """Return the positions of the nodes in the order of ``model.layers``; the last is the output.

    Keras sorts layers by their longest way to the output, then by when a walk from the output
    first meets them (``map_graph`` of keras.src.ops.function; TF-Keras' functional.py does the
    same).
    """
    met: dict[int, int] = {}
    finished: list[int] = []
    stack: list[tuple[int, bool]] = [(len(nodes) - 1, False)]
    while stack:
        position, done = stack.pop()
        if done:
            finished.append(position)
        elif position not in met:
            met[position] = len(met)
            stack.append((position, True))
            stack += [(source, False) for source in reversed(nodes[position].inputs)]
    depths = dict.fromkeys(finished, 0)
    for position in reversed(finished):
        for source in nodes[position].inputs:
            depths[source] = max(depths[source], depths[position] + 1)
    return sorted(finished, key=lambda position: (-depths[position], met[position]))


def build_graph(nodes: Sequence[Node], shape: tuple[int | None, ...], name: str) -> keras.Model:
    """Build the network and give every layer its arrays.

    Parameters
    ----------
    nodes : sequence of Node
        Each after those that it takes; the first is the only input, the last the only output.
    shape : tuple
        Height, width (None: any) and channels of the input.
    name : str

    Raises
    ------
    WeightsError
        A layer takes other arrays than it is given.
    """
    tensors: list[Any] = []
    pairs: list[tuple[keras.layers.Layer, Node]] = []
    for node in nodes:
        if node.kind == "input":
            tensors.append(keras.Input(shape, name="image"))
            continue
        layer = getattr(keras.layers, CLASSES[node.kind])(**node.options)
        taken = [tensors[position] for position in node.inputs]
        try:
            tensors.append(layer(taken[0] if len(taken) == 1 else taken))
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{node.part or node.kind}: {error}") from error
        pairs.append((layer, node))
    network = keras.Model(tensors[0], tensors[-1], name=name)
    for layer, node in pairs:
        arrays = node.stored.arrays if node.stored else ()
        expected = [tuple(weight.shape) for weight in layer.weights if _is_stored(layer, weight)]
        if expected != [array.shape for array in arrays]:
            raise WeightsError(
                f"{node.part or layer.name}: takes arrays {expected}, the file has "
                f"{node.stored.shapes if node.stored else 'none'}"
            )
        if arrays:
            layer.load_own_variables({str(i): array for i, array in enumerate(arrays)})
    return network


def _is_stored(layer: keras.layers.Layer, weight: Any) -> bool:
    """Tell a weight from the state of a random layer's generator."""
    return "seed_generator" not in weight.path
