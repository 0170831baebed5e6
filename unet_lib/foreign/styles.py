"""The U-Nets that are tried on a weights file: how each is laid out, without widths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from unet_lib.foreign.layouts import CONVOLUTIONS, NORMS, StoredLayer, StoredLayers

COUNTED = ("max_pooling2d", "average_pooling2d", "up_sampling2d", "concatenate", "add", "multiply")


@dataclass(frozen=True)
class Style:
    """How a U-Net is laid out; widths and kernels are the file's."""

    depth: int  # number of down-samplings
    convolutions: int = 2  # of each block
    convolution: str = "conv2d"  # or "separable_conv2d"; "mixed": the network's first is plain
    block: str = "plain"  # "residual": a convolution of its input is added; "entry": keras.io's
    norm: str = "none"  # "each" or "last" convolution of a block, or "before" each
    norm_kind: str = "batch_normalization"
    activation_first: bool = False  # before normalisation, after a convolution
    shortcut_norm: bool = False
    end: str = "after"  # a residual block's last activation: "after" the addition, "before", "both"
    down: str = "max"  # "average"; "stride" of the block's first; a "convolution" of its own
    up: str = "transposed"  # "resize", "resize_convolution"
    up_norm: bool = False
    up_activation: bool = False
    merge: str = "up_skip"  # order of concatenation; "skip_up", "add"
    gate: str = "none"  # attention: "additive" at the skip's resolution, "strided" at the lower
    # one, "signal": at the lower one, with a gating signal of its own
    gate_norm: bool = False
    tail: int = 0  # convolutions between the last block and the head
    swap: bool = False  # the two inputs of an addition: changes nothing but numbers in the file


@dataclass
class Node:
    """One layer of a network; its inputs are positions of other nodes."""

    kind: str  # its class as files name it; "input"; "act": an activation, perhaps an argument
    inputs: tuple[int, ...] = ()
    part: str = ""  # where in the network, in words
    role: str = ""  # what it does in a U-Net
    options: dict[str, Any] = field(default_factory=dict)  # of the layer's constructor
    stored: StoredLayer | None = None


def draft(style: Style) -> list[Node]:
    """Lay out a network: layers and their connections, without arrays."""
    sketch = _Sketch(style)
    return sketch.entry() if style.block == "entry" else sketch.unet()


def possible_styles(stored: StoredLayers) -> Iterator[Style]:
    """Yield the layouts whose numbers of layers are those of a file, the more usual first."""
    count, complete = stored.count, stored.complete
    pools = count("max_pooling2d", "average_pooling2d")
    downs = ("average",) if count("average_pooling2d") else ("max",)
    if not pools:
        downs = ("stride", "convolution") if complete else ("max", "stride")
    choices = {
        "gate": ("none", "additive", "strided", "signal"),
        "block": ("residual", "plain") if count("add") else ("plain", "residual"),
        "down": downs,
        "up": ("transposed", "resize", "resize_convolution"),
        "convolutions": (2, 1, 3, 4),
        "tail": (0, 1, 2),
        "convolution": ("separable_conv2d", "mixed") if count("separable_conv2d") else ("conv2d",),
    }
    merges = ("up_skip", "skip_up") if count("concatenate") or not complete else ("add",)
    norm = next((kind for kind in NORMS if count(kind)), "batch_normalization")
    for depth in [pools] if complete and pools else range(1, 7):
        base = Style(depth, norm_kind=norm, merge=merges[0])
        entry = replace(base, block="entry", norm="each")
        if count("separable_conv2d") and _fits(entry, stored, *NORMS):
            yield entry
        for style in _each(base, choices):
            if _fits(style, stored):
                yield from _details(style, stored, merges)


def _each(base: Style, choices: dict[str, tuple[Any, ...]]) -> Iterator[Style]:
    for values in product(*choices.values()):
        yield replace(base, **dict(zip(choices, values, strict=True)))


def _fits(style: Style, stored: StoredLayers, *more: str) -> bool:
    kinds = Counter(node.kind for node in draft(style))
    counted = (*CONVOLUTIONS, *more, *(COUNTED if stored.complete else ()))
    return all(kinds[kind] == stored.count(kind) for kind in counted)


def _details(base: Style, stored: StoredLayers, merges: tuple[str, ...]) -> Iterator[Style]:
    """Yield a layout with the places of normalisation and activation that its number allows."""
    residual, gated, grown = base.block == "residual", base.gate != "none", base.up != "resize"
    norms = {
        "norm": ("none", "each", "before", "last"),
        "shortcut_norm": _may(residual),
        "up_norm": _may(grown),
        "gate_norm": _may(gated),
    }
    for style in _each(base, norms):
        if not _fits(style, stored, *NORMS):
            continue
        ends = ("after", "both", "before", "none") if residual and style.norm != "before" else ()
        places = {
            "merge": merges,
            "end": ends or ("after",),
            "activation_first": _may(style.norm in ("each", "last") or style.up_norm),
            "up_activation": _may(grown),
            "swap": _may(residual or gated or merges == ("add",)),
        }
        yield from _each(style, places)


def _may(possible: bool) -> tuple[bool, ...]:
    return (False, True) if possible else (False,)


class _Sketch:
    """Layers in the order in which a network's code calls them."""

    def __init__(self, style: Style) -> None:
        self.style, self.part, self.first = style, "input", True
        self.nodes = [Node("input", part="input")]

    def add(self, kind: str, *inputs: int, role: str = "", **options: object) -> int:
        self.nodes.append(Node(kind, inputs, self.part, role, options))
        return len(self.nodes) - 1

    def act(self, x: int, role: str = "activation") -> int:
        return self.add("act", x, role=role)

    def norm(self, x: int, wanted: bool = True) -> int:
        return self.add(self.style.norm_kind, x, role="norm") if wanted else x

    def conv(self, x: int, role: str, strides: int = 1, kind: str = "conv2d") -> int:
        return self.add(kind, x, role=role, padding="same", strides=strides)

    def resize(self, x: int, role: str = "resize") -> int:
        return self.add("up_sampling2d", x, role=role, size=2)

    def pair(self, a: int, b: int) -> int:
        return self.add("add", *((b, a) if self.style.swap else (a, b)))

    def finish(self, x: int, norm: bool, active: bool, role: str = "activation") -> int:
        """Normalise and activate what a convolution gives, in the style's order."""
        first = active and self.style.activation_first
        x = self.norm(self.act(x, role) if first else x, norm)
        return self.act(x, role) if active and not first else x

    def block(self, x: int, part: str, stride: int = 1) -> int:
        style, source = self.style, x
        before, residual = style.norm == "before", style.block == "residual"
        for index in range(style.convolutions):
            self.part = f"{part}, convolution {index + 1}"
            last = index == style.convolutions - 1
            if before and not (residual and self.first):
                x = self.act(self.norm(x))
            kind = style.convolution
            if kind == "mixed":
                kind = "conv2d" if self.first else "separable_conv2d"
            x = self.conv(x, "block", 1 if index else stride, kind)
            self.first = False
            normal = style.norm == "each" or (style.norm == "last" and last)
            active = not residual or not last or style.end in ("before", "both")
            x = self.finish(x, normal, active and not before)
        if residual:
            self.part = f"{part}, shortcut"
            side = self.norm(self.conv(source, "shortcut", stride), style.shortcut_norm)
            x = self.pair(side, x)
            if not before and style.end in ("after", "both"):
                x = self.act(x)
        return x

    def unet(self) -> list[Node]:
        style, x, skips = self.style, 0, []
        for level in range(style.depth + 1):
            part = "bottleneck" if level == style.depth else f"encoder level {level + 1}"
            self.part = f"{part}, down-sampling"
            if level and style.down == "convolution":
                x = self.act(self.norm(self.conv(x, "down", 2), style.norm == "each"))
            elif level and style.down != "stride":
                x = self.add(f"{style.down}_pooling2d", x, pool_size=2)
            x = self.block(x, part, 2 if level and style.down == "stride" else 1)
            skips.append(x)
        for level in reversed(range(style.depth)):
            x = self.up(x, skips[level], f"decoder level {level + 1}")
        for index in range(style.tail):
            self.part = f"tail, convolution {index + 1}"
            x = self.act(self.conv(x, "tail"))
        return self.head(x)

    def head(self, x: int) -> list[Node]:
        self.part = "head"
        self.act(self.conv(x, "head"), "head")
        return self.nodes

    def up(self, low: int, skip: int, part: str) -> int:
        style = self.style
        self.part = f"{part}, up-sampling"
        if style.up == "transposed":
            x = self.conv(low, "up", 2, "conv2d_transpose")
        else:
            x = self.resize(low)
        if style.up == "resize_convolution":
            x = self.conv(x, "up")
        x = self.finish(x, style.up_norm, style.up_activation, "up activation")
        self.part = f"{part}, attention gate"
        if style.gate != "none":
            skip = self.gate(skip, x, low)
        self.part = f"{part}, skip"
        if style.merge == "add":
            x = self.pair(x, skip)
        else:
            x = self.add("concatenate", *((x, skip) if style.merge == "up_skip" else (skip, x)))
        return self.block(x, part)

    def gate(self, skip: int, up: int, low: int) -> int:
        style, signal = self.style, self.style.gate == "signal"

        def step(x: int) -> int:
            return self.norm(self.conv(x, "gate"), style.gate_norm)

        if style.gate == "additive":
            total = self.pair(step(skip), step(up))
        else:
            low = self.act(step(low), "gate activation") if signal else low
            theta, phi = self.conv(skip, "gate stride", 2), self.conv(low, "gate signal")
            if signal:
                theta, phi = self.conv(phi, "gate transposed", 1, "conv2d_transpose"), theta
            total = self.pair(theta, phi)
        x = self.act(self.conv(self.act(total, "gate activation"), "psi"), "gate output")
        if style.gate != "additive":
            x = self.resize(x, "gate resize")
        x = self.add("multiply", *((x, skip) if signal or style.swap else (skip, x)))
        return self.norm(self.conv(x, "gate result")) if signal else x

    def entry(self) -> list[Node]:
        """keras.io, "Image segmentation with a U-Net-like architecture" (F. Chollet)."""
        self.part = "stem"
        x = side = self.act(self.norm(self.conv(0, "entry", 2)))
        depth = self.style.depth
        for step in range(2 * depth + 1):
            down = step < depth
            part = f"encoder level {step + 1}" if down else f"decoder level {2 * depth - step + 1}"
            for index in range(2):
                self.part = f"{part}, convolution {index + 1}"
                role, kind = ("block", "separable_conv2d") if down else ("up", "conv2d_transpose")
                x = self.norm(self.conv(self.act(x), role, 1, kind))
            self.part = f"{part}, shortcut"
            if down:
                x = self.add("max_pooling2d", x, pool_size=3, strides=2, padding="same")
            else:
                x, side = self.resize(x), self.resize(side)
            x = side = self.pair(self.conv(side, "shortcut", 2 if down else 1), x)
        return self.head(x)
