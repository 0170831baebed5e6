"""Figures of a network: parameters, multiply-adds, receptive field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

__all__ = ["NetworkSummary", "summarise_network"]

_ROW = 4096
Row = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class NetworkSummary:
    """Size and cost of a network.

    Attributes
    ----------
    parameters : int
        Numbers stored, moving statistics included.
    multiply_adds : int or None
        Multiply-accumulate operations of the convolutions and dense layers for one image; None
        for an open input size.
    receptive_field : float
        Side in pixels of the square of input that can influence one output pixel; infinite when a
        layer averages over the whole image.
    input_shape, output_shape : tuple
        Without the batch.
    """

    parameters: int
    multiply_adds: int | None
    receptive_field: float
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]

    def __str__(self) -> str:
        cost = "open (give a size)" if self.multiply_adds is None else f"{self.multiply_adds:,}"
        field = (
            "the whole image"
            if math.isinf(self.receptive_field)
            else f"{self.receptive_field:.0f} x {self.receptive_field:.0f} pixels"
        )
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
    """
    costs = [_multiply_adds(layer) for layer in network.layers]
    return NetworkSummary(
        parameters=network.count_params(),
        multiply_adds=None if None in costs else sum(costs),
        receptive_field=_receptive_field(network),
        input_shape=tuple(network.input_shape[1:]),
        output_shape=tuple(network.output_shape[1:]),
    )


def _multiply_adds(layer: keras.layers.Layer) -> int | None:
    kernels = {"Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "Dense"}
    if type(layer).__name__ not in kernels:
        return 0
    kernel = math.prod(layer.kernel.shape)
    # A transposed convolution applies its kernel once per input pixel, the others per output pixel.
    transposed = type(layer).__name__ == "Conv2DTranspose"
    pixels = (layer.input if transposed else layer.output).shape[1:-1]
    return None if None in pixels else kernel * math.prod(pixels)


def _receptive_field(network: keras.Model) -> float:
    """Largest extent of input behind one output pixel, followed exactly along one axis.

    Each layer's output is a row of intervals of input pixels. The row is longer than any
    receptive field, so that no border cuts it, and a multiple of all strides.
    """
    rows: dict[str, Row] = {}
    for entry in network.get_config()["layers"]:
        layer = network.get_layer(entry["name"])
        sources = [rows[name] for name in _sources(entry["inbound_nodes"])]
        if not sources:
            position = np.arange(_ROW, dtype=float)
            rows[entry["name"]] = (position, position)
            continue
        length = min(len(low) for low, _ in sources)
        low = np.min([low[:length] for low, _ in sources], axis=0)
        high = np.max([high[:length] for _, high in sources], axis=0)
        rows[entry["name"]] = _through(layer, low, high)
    low, high = rows[network.get_config()["layers"][-1]["name"]]
    middle = slice(len(low) // 4, 3 * len(low) // 4)
    return float((high[middle] - low[middle]).max() + 1)


def _sources(nodes: Any) -> list[str]:
    """Names of the layers whose outputs enter a layer, from its serialised nodes."""
    if isinstance(nodes, dict):
        if nodes.get("class_name") == "__keras_tensor__":
            return [nodes["config"]["keras_history"][0]]
        return [name for value in nodes.values() for name in _sources(value)]
    if isinstance(nodes, list | tuple):
        return [name for value in nodes for name in _sources(value)]
    return []


def _through(layer: keras.layers.Layer, low: np.ndarray, high: np.ndarray) -> Row:
    kind = type(layer).__name__
    if kind.startswith("Global"):
        return np.full_like(low, -np.inf), np.full_like(high, np.inf)
    if kind == "Conv2DTranspose":
        kernel, stride = layer.kernel_size[0], layer.strides[0]
        # Output pixel o gets kernel tap t from input pixel (o + before - t) / stride.
        before = max(kernel - stride, 0) // 2 if layer.padding == "same" else 0
        output = np.arange(len(low) * stride)
        first = -(-(output + before - kernel + 1) // stride)
        return _window(low, high, first, (output + before) // stride)
    if kind == "UpSampling2D":
        output = np.arange(len(low) * layer.size[0])
        if layer.interpolation == "nearest":
            return _window(low, high, output // layer.size[0], output // layer.size[0])
        centre = (output + 0.5) / layer.size[0] - 0.5
        return _window(low, high, np.floor(centre).astype(int), np.ceil(centre).astype(int))
    if kind in ("Conv2D", "DepthwiseConv2D"):
        reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    elif kind in ("MaxPooling2D", "AveragePooling2D"):
        reach = layer.pool_size[0] - 1
    else:
        return low, high
    stride = layer.strides[0]
    # "same" centres the window; where a stride makes it uneven the extra pixel is at the end.
    before = max(reach + 1 - stride, 0) // 2 if layer.padding == "same" else 0
    start = np.arange(len(low) // stride) * stride - before
    return _window(low, high, start, start + reach)


def _window(low: np.ndarray, high: np.ndarray, first: np.ndarray, last: np.ndarray) -> Row:
    limit = len(low) - 1
    return low[np.clip(first, 0, limit)], high[np.clip(last, 0, limit)]
