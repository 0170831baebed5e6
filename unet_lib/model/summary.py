"""Figures of a network: parameters, multiply-adds, receptive field; the U drawn from its layers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Level:
    """One resolution of a U-Net."""

    height: int
    width: int
    encoder: int | None  # channels that the skip carries across; None: there is no skip
    decoder: int | None  # channels after the decoder's block; None: the deepest level


@dataclass(frozen=True, repr=False)
class NetworkSummary:
    """Size and cost of a network. A notebook shows it as a drawing of the U."""

    parameters: int  # numbers stored, moving statistics included
    multiply_adds: int | None  # of convolutions and dense layers for one image; None: open size
    receptive_field: float  # side of the square of input behind one output pixel
    input_shape: tuple[int | None, ...]  # without the batch
    output_shape: tuple[int | None, ...]
    levels: tuple[Level, ...] = ()  # from full size down; none of a network built elsewhere

    def __repr__(self) -> str:
        cost = "open (give a size)" if self.multiply_adds is None else f"{self.multiply_adds:,}"
        side = self.receptive_field
        field = "the whole image" if math.isinf(side) else f"{side:.0f} x {side:.0f} pixels"
        return (
            f"input {self.input_shape} -> output {self.output_shape}\n"
            f"parameters: {self.parameters:,}\n"
            f"multiply-adds for one image: {cost}\n"
            f"receptive field: {field}"
        )

    def _repr_svg_(self) -> str | None:
        return _draw(self) if self.levels else None


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
        _levels(network),
    )


def _levels(network: keras.Model) -> tuple[Level, ...]:
    """Read the U off the layers that `build_unet` has named."""
    layers = {layer.name: layer for layer in network.layers}
    ups = [name for name in layers if re.fullmatch(r"up.*_(conv_transpose|resize)", name)]
    if not ups or None in network.input_shape[1:]:
        return ()
    _, height, width, channels = layers[ups[0]].input.shape
    levels = [Level(height, width, channels, None)]
    for up, end in zip(ups, (*ups[1:], "logits"), strict=True):
        join = layers.get(re.sub("_(conv_transpose|resize)$", "_concat", up))
        _, height, width, channels = layers[end].input.shape
        levels.append(Level(height, width, join and join.input[0].shape[-1], channels))
    return tuple(reversed(levels))


_WIDTH, _TOP, _ROW = 760, 84, 62  # pixels: the drawing, its first level, from level to level
_STYLE = "text{font:13px sans-serif;fill:#222}path{stroke:#666;stroke-width:1.5;fill:none}"


def _draw(summary: NetworkSummary) -> str:
    """Draw the U as SVG: a box is as high as its picture and as wide as its channels (by log)."""
    parts: list[str] = []
    last = len(summary.levels) - 1
    tallest = summary.levels[0].height

    def write(x: float, y: float, words: str, anchor: str = "middle") -> None:
        parts.append(f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{words}</text>')

    def arrow(x: float, y: float, to_x: float, to_y: float, more: str = "") -> None:
        line = f"M{x:.0f} {y:.0f}L{to_x:.0f} {to_y:.0f}"
        parts.append(f'<path d="{line}" marker-end="url(#head)"{more}/>')

    for row, level in enumerate(summary.levels):
        left, y = 190 + row * (_WIDTH / 2 - 190) / last, _TOP + row * _ROW
        # Where no skip starts, the picture itself stands at full size.
        sides = [(left, level.encoder or summary.input_shape[-1], "#0072B2", "end")]
        if row < last:
            sides.append((_WIDTH - left, level.decoder, "#D55E00", "start"))
        edges, high = [], 10 + 30 * level.height / tallest
        for x, channels, colour, anchor in sides:
            wide = 6 + 5 * math.log2(2 * channels)
            box = f'x="{x - wide / 2:.0f}" y="{y - high / 2:.0f}" width="{wide:.0f}"'
            parts.append(f'<rect {box} height="{high:.0f}" fill="{colour}"/>')
            outside = wide / 2 + 8 if anchor == "start" else -wide / 2 - 8
            write(x + outside, y + 5, f"{level.height} × {level.width} × {channels}", anchor)
            edges.append(x - math.copysign(wide / 2 + 4, outside))
        if row == last:
            break
        if level.encoder:
            arrow(edges[0], y, edges[1], y, ' stroke-dasharray="5 4"')
        start, step = y + high / 2 + 2, (_WIDTH / 2 - 190) / last
        end = y + _ROW - 7 - 15 * summary.levels[row + 1].height / tallest
        arrow(left, start, left + step, end)
        arrow(_WIDTH - left - step, end, _WIDTH - left, start + 3)
    write(190, 22, "<tspan font-weight='bold' fill='#0072B2'>encoder</tspan>: what is there")
    write(_WIDTH - 190, 22, "<tspan font-weight='bold' fill='#D55E00'>decoder</tspan>: where it is")
    write(190, 46, "image in")
    write(_WIDTH - 190, 46, "probability of lesion out")
    first = next(row for row, level in enumerate(summary.levels) if level.encoder)
    write(_WIDTH / 2, _TOP + first * _ROW - 8, "skip: fine detail is handed across")
    foot = _TOP + last * _ROW + 50
    for number, line in enumerate(repr(summary).splitlines()[1:]):
        write(_WIDTH / 2, foot + 20 * number, line)
    head = '<marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    head += '<path d="M0 0L8 4L0 8z" style="fill:#666;stroke:none"/></marker>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {foot + 60}" '
        f'width="{_WIDTH}" role="img"><title>U-Net, level by level</title><style>{_STYLE}</style>'
        f'<defs>{head}</defs><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
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
    made = {id(x): o.name for o in network.operations for x in keras.tree.flatten(o.output)}
    inputs = {o.name: o.input for o in network.operations} | {"": network.outputs}
    sources = {name: [made[id(x)] for x in keras.tree.flatten(of)] for name, of in inputs.items()}
    reached = dict.fromkeys(sources, 0) | dict.fromkeys(sources[""], 1)
    for layer in reversed(network.operations):  # in the order in which they compute
        count = _pixels_before(layer, reached[layer.name])
        for name in sources[layer.name]:
            reached[name] = max(reached[name], count)
    return float(reached[network.operations[0].name])


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
