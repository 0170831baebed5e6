"""Figures of a network: parameters, multiply-adds, receptive field."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras

from unet_lib.model.folding import layer_sources

__all__ = ["NetworkSummary", "summarise_network"]


@dataclass(frozen=True)
class NetworkSummary:
    """Size and cost of a network."""

    parameters: int  # numbers stored, moving statistics included
    multiply_adds: int | None  # of convolutions and dense layers for one image; None: open size
    receptive_field: float  # side of the square of input behind one output pixel
    input_shape: tuple[int | None, ...]  # without the batch
    output_shape: tuple[int | None, ...]

    def __str__(self) -> str:
        cost = "open (give a size)" if self.multiply_adds is None else f"{self.multiply_adds:,}"
        side = self.receptive_field
        field = "the whole image" if math.isinf(side) else f"{side:.0f} x {side:.0f} pixels"
        return (
            f"input {self.input_shape} -> output {self.output_shape}\n"
            f"parameters: {self.parameters:,}\n"
            f"multiply-adds for one image: {cost}\n"
            f"receptive field: {field}"
        )


def summarise_network(network: keras.Model) -> NetworkSummary:
    """Count parameters and multiply-adds and follow the receptive field through the graph.

    Parameters
    ----------
    network : keras.Model
        A functional model with one input and one output, (N, H, W, C) each.

    Returns
    -------
    NetworkSummary
        Its receptive field is infinite when a layer averages over the whole image.
    """
    costs = [_multiply_adds(layer) for layer in network.layers]
    return NetworkSummary(
        network.count_params(),
        None if None in costs else sum(costs),
        _receptive_field(network),
        tuple(network.input_shape[1:]),
        tuple(network.output_shape[1:]),
    )


def _multiply_adds(layer: keras.layers.Layer) -> int | None:
    if type(layer).__name__ not in ("Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "Dense"):
        return 0
    # A transposed convolution applies its kernel once per input pixel, the others per output pixel.
    transposed = type(layer).__name__ == "Conv2DTranspose"
    pixels = (layer.input if transposed else layer.output).shape[1:-1]
    return None if None in pixels else math.prod(layer.kernel.shape) * math.prod(pixels)


def _receptive_field(network: keras.Model) -> float:
    """Follow one output pixel back: most pixels in a row of each layer that reach it."""
    sources = layer_sources(network)
    reached = dict.fromkeys(sources, 0) | dict.fromkeys(sources[""], 1)
    for layer in reversed(network.layers):  # in the order in which they compute
        count = _pixels_before(layer, reached[layer.name])
        for name in sources[layer.name]:
            reached[name] = max(reached[name], count)
    return float(reached[network.layers[0].name])


def _pixels_before(layer: keras.layers.Layer, count: float) -> float:
    """Return how many pixels in a row enter `count` pixels in a row of a layer's output."""
    kind = type(layer).__name__
    if kind.startswith("Global"):
        return math.inf
    if kind in ("Conv2D", "DepthwiseConv2D"):
        reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    elif kind in ("MaxPooling2D", "AveragePooling2D"):
        reach = layer.pool_size[0] - 1
    elif kind == "Conv2DTranspose":
        return -(-(count + layer.kernel_size[0] - 1) // layer.strides[0])
    elif kind == "UpSampling2D":
        return (count + layer.size[0] - 2) // layer.size[0] + 1 + (layer.interpolation != "nearest")
    else:
        return count
    return (count - 1) * layer.strides[0] + reach + 1
