"""The U-Nets that are tried on a weights file: how each is laid out, without widths."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unet_lib.foreign.graph import Node
from unet_lib.settings import Settings

__all__ = ["Style", "draft"]


@dataclass(frozen=True)
class Style(Settings):
    """How a U-Net is laid out; widths and kernels are the file's.

    Parameters
    ----------
    depth : int
        Number of down-samplings.
    convolutions : tuple of int
        In an encoder block, in the deepest, in a decoder block.
    convolution : {"conv2d", "separable_conv2d", "mixed"}
        Of the blocks; mixed: the network's first is plain, the others are separable.
    block : {"plain", "residual", "entry"}
        Residual: a 1 x 1 convolution of the block's input is added to its output. Entry: the
        network of keras.io's "Image segmentation with a U-Net-like architecture".
    norm : {"none", "each", "last", "before"}
        After each convolution, after a block's last one, or before each (pre-activation).
    norm_kind : str
        Its class.
    activation_first : bool
        Activation before normalisation, after a convolution.
    shortcut_norm : bool
        Normalisation of the residual shortcut.
    end : {"after", "before", "both", "none"}
        Where a residual block's last activation is: after the addition, before it.
    down : {"max", "average", "stride", "convolution"}
        Pooling; a stride of the block's first convolution; a convolution of its own.
    up : {"transposed", "resize", "resize_convolution"}
    up_norm, up_activation : bool
        After the convolution that enlarges.
    merge : {"up_skip", "skip_up", "add"}
        Concatenation in this order, or addition.
    gate : {"none", "additive", "strided", "signal"}
        Attention gate of the skip: at the skip's resolution, at the lower one, at the lower one
        with a gating signal of its own.
    gate_norm : bool
        Normalisation in the gate.
    tail : int
        Convolutions between the last block and the head.
    swap : bool
        Order of the two inputs of an addition, which changes nothing but numbers in the file.
    """

    depth: int
    convolutions: tuple[int, int, int] = (2, 2, 2)
    convolution: str = "conv2d"
    block: str = "plain"
    norm: str = "none"
    norm_kind: str = "batch_normalization"
    activation_first: bool = False
    shortcut_norm: bool = False
    end: str = "after"
    down: str = "max"
    up: str = "transposed"
    up_norm: bool = False
    up_activation: bool = False
    merge: str = "up_skip"
    gate: str = "none"
    gate_norm: bool = False
    tail: int = 0
    swap: bool = False


def draft(style: Style) -> list[Node]:
    """Lay out a network: layers and their connections, without arrays."""
    sketch = _Sketch(style)
    return sketch.entry() if style.block == "entry" else sketch.unet()


class _Sketch:
    def __init__(self, style: Style) -> None:
        self.style = style
        self.nodes = [Node("input", part="input")]
        self.first = True

    def add(self, kind: str, *inputs: int, part: str, role: str = "", **options: object) -> int:
        self.nodes.append(Node(kind, inputs, part, dict(options), role=role))
        return len(self.nodes) - 1

    def act(self, x: int, part: str, role: str = "activation") -> int:
        return self.add("act", x, part=part, role=role)

    def norm(self, x: int, part: str) -> int:
        return self.add(self.style.norm_kind, x, part=part, role="norm")

    def conv(self, x: int, part: str, role: str, strides: int = 1) -> int:
        kind = "conv2d"
        if role == "block" and self.style.convolution != "conv2d":
            plain = self.style.convolution == "mixed" and self.first
            kind = "conv2d" if plain else "separable_conv2d"
        self.first = False
        options = {"strides": strides} if strides > 1 else {}
        return self.add(kind, x, part=part, role=role, padding="same", **options)

    def pair(self, a: int, b: int, part: str) -> int:
        return self.add("add", *((b, a) if self.style.swap else (a, b)), part=part)

    def block(self, x: int, count: int, part: str, stride: int = 1, stem: bool = False) -> int:
        style, source = self.style, x
        before = style.norm == "before"
        for index in range(count):
            last = index == count - 1
            where = f"{part}, convolution {index + 1}"
            strides = stride if index == 0 else 1
            if before:
                if not (stem and index == 0):
                    x = self.act(self.norm(x, where), where)
                x = self.conv(x, where, "block", strides)
                continue
            x = self.conv(x, where, "block", strides)
            active = style.block == "plain" or not last or style.end in ("before", "both")
            if active and style.activation_first:
                x = self.act(x, where)
            if style.norm == "each" or (style.norm == "last" and last):
                x = self.norm(x, where)
            if active and not style.activation_first:
                x = self.act(x, where)
        if style.block == "residual":
            where = f"{part}, shortcut"
            side = self.conv(source, where, "shortcut", stride)
            if style.shortcut_norm:
                side = self.norm(side, where)
            x = self.pair(side, x, part)
            if not before and style.end in ("after", "both"):
                x = self.act(x, part)
        return x

    def shrink(self, x: int, part: str) -> int:
        if self.style.down == "convolution":
            x = self.conv(x, f"{part}, down-sampling", "down", 2)
            if self.style.norm == "each":
                x = self.norm(x, f"{part}, down-sampling")
            return self.act(x, part)
        kind = "max_pooling2d" if self.style.down == "max" else "average_pooling2d"
        return self.add(kind, x, part=part, pool_size=2)

    def unet(self) -> list[Node]:
        style = self.style
        encoder, bottleneck, decoder = style.convolutions
        before = style.norm == "before" and style.block == "residual"
        x, skips = 0, []
        for level in range(style.depth + 1):
            deepest = level == style.depth
            part = "bottleneck" if deepest else f"encoder level {level + 1}"
            stride = 2 if level and style.down == "stride" else 1
            if level and stride == 1:
                x = self.shrink(x, part)
            stem = level == 0 and before
            x = self.block(x, bottleneck if deepest else encoder, part, stride, stem)
            if not deepest:
                skips.append(x)
        for level in reversed(range(style.depth)):
            x = self.up(x, skips[level], decoder, f"decoder level {level + 1}")
        for index in range(style.tail):
            part = f"tail, convolution {index + 1}"
            x = self.act(self.conv(x, part, "tail"), part)
        x = self.conv(x, "head", "head")
        self.act(x, "head", "head")
        return self.nodes

    def up(self, x: int, skip: int, count: int, part: str) -> int:
        style, low, where = self.style, x, f"{part}, up-sampling"
        if style.up == "transposed":
            x = self.add("conv2d_transpose", x, part=where, role="up", padding="same", strides=2)
        else:
            x = self.add("up_sampling2d", x, part=where, role="resize", size=2)
        if style.up == "resize_convolution":
            x = self.conv(x, where, "up")
        if style.up_activation and style.activation_first:
            x = self.act(x, where, "up activation")
        if style.up_norm:
            x = self.norm(x, where)
        if style.up_activation and not style.activation_first:
            x = self.act(x, where, "up activation")
        if style.gate != "none":
            skip = self.gate(skip, x, low, f"{part}, attention gate")
        if style.merge == "add":
            x = self.pair(x, skip, part)
        else:
            order = (x, skip) if style.merge == "up_skip" else (skip, x)
            x = self.add("concatenate", *order, part=part)
        return self.block(x, count, part)

    def gate(self, skip: int, up: int, low: int, part: str) -> int:
        style = self.style

        def step(x: int, role: str, strides: int = 1) -> int:
            x = self.conv(x, part, role, strides)
            return self.norm(x, part) if style.gate_norm and role == "gate" else x

        if style.gate == "additive":
            total = self.pair(step(skip, "gate"), step(up, "gate"), part)
        else:
            strided = "gate stride"
            if style.gate == "signal":
                low = self.act(step(low, "gate"), part, "gate activation")
            theta = self.conv(skip, part, strided, 2)
            phi = self.conv(low, part, "gate signal")
            if style.gate == "signal":
                phi = self.add(
                    "conv2d_transpose", phi, part=part, role="gate transposed", padding="same"
                )
                theta, phi = phi, theta
            total = self.pair(theta, phi, part)
        x = self.act(total, part, "gate activation")
        x = self.conv(x, part, "psi")
        x = self.act(x, part, "gate output")
        if style.gate != "additive":
            x = self.add("up_sampling2d", x, part=part, role="gate resize", size=2)
        order = (x, skip) if style.gate == "signal" or style.swap else (skip, x)
        x = self.add("multiply", *order, part=part)
        if style.gate == "signal":
            x = self.norm(self.conv(x, part, "gate result"), part)
        return x

    def entry(self) -> list[Node]:
        """keras.io, "Image segmentation with a U-Net-like architecture" (F. Chollet)."""
        style = self.style
        separable = replace(style, convolution="separable_conv2d")
        x = self.act(self.norm(self.conv(0, "stem", "entry", 2), "stem"), "stem")
        self.style = separable
        side = x
        for level in range(style.depth):
            part = f"encoder level {level + 1}"
            for index in range(2):
                where = f"{part}, convolution {index + 1}"
                x = self.norm(self.conv(self.act(x, where), where, "block"), where)
            x = self.add("max_pooling2d", x, part=part, pool_size=3, strides=2, padding="same")
            side = self.conv(side, f"{part}, shortcut", "shortcut", 2)
            x = side = self.pair(x, side, part)
        for level in reversed(range(style.depth + 1)):
            part = f"decoder level {level + 1}"
            for index in range(2):
                where = f"{part}, convolution {index + 1}"
                x = self.add(
                    "conv2d_transpose", self.act(x, where), part=where, role="up", padding="same"
                )
                x = self.norm(x, where)
            x = self.add("up_sampling2d", x, part=part, role="resize", size=2)
            side = self.add("up_sampling2d", side, part=part, role="resize", size=2)
            side = self.conv(side, f"{part}, shortcut", "shortcut")
            x = side = self.pair(x, side, part)
        self.act(self.conv(x, "head", "head"), "head", "head")
        return self.nodes
