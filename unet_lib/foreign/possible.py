"""Which layouts of U-Nets have the numbers of layers that a file has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from unet_lib.foreign.layouts import StoredLayers
from unet_lib.foreign.styles import Style

__all__ = ["NORMS", "possible_styles"]

NORMS = {"batch_normalization": 4, "layer_normalization": 2, "group_normalization": 2}
"""Normalisations and their arrays."""


def possible_styles(stored: StoredLayers) -> Iterator[Style]:
    """Yield the layouts whose numbers of layers are those of the file, the more usual first."""
    count, known = stored.count, stored.complete
    convs, norms = count("conv2d", "separable_conv2d"), count(*NORMS)
    transposed, separable = count("conv2d_transpose"), count("separable_conv2d")
    kind = next((kind for kind in NORMS if count(kind)), "batch_normalization")
    pools, resizes = count("max_pooling2d", "average_pooling2d"), count("up_sampling2d")
    depths = [pools] if known and pools else range(1, 7)
    gates = ("additive", "strided", "signal") if count("multiply") else ("none",)
    blocks = ("residual",) if count("add") else ("plain",)
    if count("add"):  # of skips or of gates, perhaps
        blocks = ("residual", "plain")
    if not known:
        gates, blocks = ("none", "additive", "strided", "signal"), ("plain", "residual")
    downs = ["average"] if count("average_pooling2d") else ["max"]
    if not (known and pools):
        downs = ["stride", "convolution"] if known else ["max", "stride"]
    if separable and transposed:
        for depth in depths:
            yield Style(depth, block="entry", norm="each", norm_kind=kind, convolution="mixed")
    for depth, gate, block, down in product(depths, gates, blocks, downs):
        for up in ("transposed", "resize", "resize_convolution"):
            wanted = depth * (up == "transposed") + depth * (gate == "signal")
            if transposed != wanted or (up != "transposed" and known and not resizes):
                continue
            extra = {"none": 0, "additive": 3, "strided": 3, "signal": 5}[gate] * depth
            extra += depth * (up == "resize_convolution") + depth * (down == "convolution")
            extra += (2 * depth + 1) * (block == "residual") + 1
            for each, tail in product(product((2, 1, 3, 4), (2, 1, 3, 4), (2, 1, 3)), (0, 1, 2)):
                inside = depth * each[0] + each[1] + depth * each[2]
                if inside + extra + tail != convs or (
                    separable and not 0 <= inside - separable < 2
                ):
                    continue
                kinds = {0: "conv2d", inside: "separable_conv2d", inside - 1: "mixed"}
                base = Style(
                    depth, each, kinds[separable], block, norm_kind=kind, down=down, up=up,
                    gate=gate, tail=tail,
                )  # fmt: skip
                yield from _details(base, inside, norms, count("concatenate") > 0 or not known)


def _details(base: Style, inside: int, norms: int, concatenates: bool) -> Iterator[Style]:
    """Yield a layout with the places of normalisation and activation that its number allows."""
    depth = base.depth
    blocks = 2 * depth + 1
    merges = ("up_skip", "skip_up") if concatenates else ("add",)
    residual = base.block == "residual"
    for norm, side, up_norm, gate_norm in product(
        ("none", "each", "before", "last"), (False, True), (False, True), (False, True)
    ):
        total = {"none": 0, "each": inside, "before": inside - residual, "last": blocks}[norm]
        total += blocks * side + depth * up_norm + depth * (base.gate == "signal")
        total += depth * (norm == "each" and base.down == "convolution")
        total += depth * gate_norm * {"additive": 2, "signal": 1}.get(base.gate, 0)
        if total != norms or (side and not residual) or (gate_norm and base.gate == "none"):
            continue
        if up_norm and base.up == "resize":
            continue
        ends = ("after", "both", "before", "none") if residual and norm != "before" else ("after",)
        firsts = (False, True) if norm in ("each", "last") or up_norm else (False,)
        acts = (False,) if base.up == "resize" else (False, True)
        swaps = (False, True) if residual or base.gate != "none" or merges == ("add",) else (False,)
        for merge, end, first, active, swap in product(merges, ends, firsts, acts, swaps):
            yield replace(
                base, norm=norm, shortcut_norm=side, up_norm=up_norm, gate_norm=gate_norm,
                merge=merge, end=end, activation_first=first, up_activation=active, swap=swap,
            )  # fmt: skip
