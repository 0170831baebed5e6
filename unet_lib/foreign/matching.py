"""Which of the known U-Nets a list of stored layers is, by their counts, order and shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from unet_lib.foreign.graph import Node, stored_order
from unet_lib.foreign.layouts import StoredLayer, StoredLayers
from unet_lib.foreign.possible import NORMS, possible_styles
from unet_lib.foreign.styles import Style, draft

__all__ = ["Match", "find_matches", "input_channels"]

_CONVOLUTIONS = {"conv2d": (1, 2), "conv2d_transpose": (1, 2), "separable_conv2d": (2, 3)}
_ACTIVATIONS = ("activation", "re_lu", "leaky_re_lu", "elu", "softmax")
_INACTIVE = (
    "input_layer", "input", "dropout", "spatial_dropout2d", "gaussian_dropout", "gaussian_noise",
    "random_flip", "random_rotation", "random_zoom", "random_translation", "random_contrast",
    "random_brightness",
)  # fmt: skip
_COUNTED = (
    "max_pooling2d", "average_pooling2d", "up_sampling2d", "concatenate", "add", "multiply",
)  # fmt: skip
_SCALINGS = ("rescaling", "lambda")
_MOST_OUTPUTS = 4  # of a head with a 3 x 3 kernel: else a block's convolution would pass for one
_KERNELS = {
    "block": (3, 5, 7), "tail": (1, 3), "head": (1, 3), "shortcut": (1, 3), "entry": (3,),
    "up": (1, 2, 3, 4), "down": (2, 3), "gate": (1,), "psi": (1,), "gate signal": (1,),
    "gate result": (1,), "gate stride": (1, 2, 3), "gate transposed": (2, 3),
}  # fmt: skip


@dataclass(frozen=True)
class Match:
    """A layout that every stored array fits.

    Attributes
    ----------
    style : Style
    nodes : list of Node
        With their arrays; places of activations have the kind "act".
    """

    style: Style
    nodes: list[Node]

    @property
    def regular(self) -> bool:
        """Whether the convolutions of each block are equally wide."""
        widths: dict[str, set[int]] = defaultdict(set)
        for node in self.nodes:
            if node.role == "block":
                array = node.stored.arrays[1 if node.kind == "separable_conv2d" else 0]
                widths[node.part.split(",")[0]].add(array.shape[-1])
        return all(len(found) == 1 for found in widths.values())


class _Mismatch(Exception):
    """Where a layout fails; `progress` is the share of it that fits."""

    def __init__(self, progress: float, message: str) -> None:
        super().__init__(message)
        self.progress = progress


def find_matches(stored: StoredLayers) -> tuple[list[Match], str]:
    """Try the known U-Nets on stored layers.

    Returns
    -------
    matches : list of Match
        Those that use every stored array once, the more usual first; each computes something else.
        Where blocks of equal width explain the file, only those.
    reason : str
        Without a match: what was found and what did not fit.
    """
    unknown = _unknown(stored)
    if unknown:
        return [], unknown
    found: dict[object, Match] = {}
    nearest = _Mismatch(-1, "")
    for style in possible_styles(stored):
        try:
            nodes = _match(style, stored)
        except _Mismatch as mismatch:
            nearest = max(nearest, mismatch, key=lambda m: m.progress)
            continue
        found.setdefault(_meaning(nodes), Match(style, nodes))
    if found:
        matches = list(found.values())
        channels = input_channels(matches[0])
        if channels not in (1, 3):
            return [], f"its first convolution takes {channels} channels; images have 1 or 3"
        regular = [match for match in matches if match.regular]
        return regular or matches, ""
    if nearest.progress < 0:
        return [], (
            f"no U-Net known here has these layers: {stored.summary()}. The numbers of "
            "convolutions, normalisations, poolings and up-samplings do not go together"
        )
    return [], str(nearest)


def input_channels(match: Match) -> int:
    """Return the channels of the input."""
    first = next(node for node in match.nodes if node.kind in ("conv2d", "separable_conv2d"))
    return first.stored.arrays[0].shape[2]


def _unknown(stored: StoredLayers) -> str:
    """Name a part that no layout here has."""
    norms = [kind for kind in NORMS if stored.count(kind)]
    if len(norms) > 1:
        return f"it mixes {' and '.join(norms)}; one kind of normalisation is expected"
    for layer in stored.layers:
        kind = layer.kind
        if layer.arrays:
            counts = _CONVOLUTIONS.get(kind, (NORMS.get(kind, -1),))
            if counts == (-1,):
                return f"{layer.label}: a layer of class {kind!r} ({layer.shapes}) is unknown here"
            if len(layer.arrays) not in counts:
                return (
                    f"{layer.label}: {len(layer.arrays)} arrays ({layer.shapes}), expected "
                    f"{' or '.join(map(str, counts))}; which one is left out is not in the file"
                )
        elif kind and kind not in (*_ACTIVATIONS, *_INACTIVE, *_COUNTED, *_SCALINGS):
            return f"{layer.label}: a layer of class {kind!r} is unknown here"
    if stored.count("rescaling") > 1:
        return f"{stored.count('rescaling')} layers of class 'rescaling'; one is expected at most"
    if not stored.count("conv2d", "separable_conv2d"):
        return f"it has no convolutions: {stored.summary()}"
    return ""


def _match(style: Style, stored: StoredLayers) -> list[Node]:
    """Give a layout its arrays in the file's order, and check every shape."""
    nodes = draft(style)
    _check_counts(nodes, stored)
    failure = _Mismatch(0.0, _activation_count(stored))
    for separate in _separations(nodes, stored):
        order = [nodes[i] for i in _order(nodes, separate)]
        queues: dict[str, list[StoredLayer]] = defaultdict(list)
        for layer in stored.weighted:
            queues[layer.kind].append(layer)
        positions = dict.fromkeys(queues, 0)
        for node in order:
            if node.kind in queues:
                node.stored = queues[node.kind][positions[node.kind]]
                positions[node.kind] += 1
        wrong = _check_shapes(nodes)
        if wrong is None:
            return nodes
        failure = max(failure, wrong, key=lambda m: m.progress)
    raise failure


def _activation_count(stored: StoredLayers) -> str:
    found = stored.count(*_ACTIVATIONS)
    return f"{found} activation layers fit no place of activations in the U-Nets known here"


def _check_counts(nodes: Sequence[Node], stored: StoredLayers) -> None:
    kinds = [*_CONVOLUTIONS, *NORMS, *(_COUNTED if stored.complete else ())]
    for kind in kinds:
        wanted = sum(node.kind == kind for node in nodes)
        if wanted != stored.count(kind):
            raise _Mismatch(
                0.0, f"{stored.count(kind)} layers of class {kind!r} where {wanted} are expected; "
                f"the file has {stored.summary()}"
            )  # fmt: skip


def _separations(nodes: Sequence[Node], stored: StoredLayers) -> Iterator[frozenset[str]]:
    """Yield the roles of activations that are layers of their own; the others are arguments."""
    roles = {node.role for node in nodes if node.kind == "act" and node.role != "head"}
    numbers = {role: sum(node.role == role for node in nodes) for role in roles}
    found = stored.count(*_ACTIVATIONS)
    for chosen in product((True, False), repeat=len(roles)):
        separate = frozenset(role for role, own in zip(sorted(roles), chosen, strict=True) if own)
        total = sum(numbers[role] for role in separate)
        if not stored.complete or found - total in (0, 1):  # the head's
            yield separate


def _order(nodes: Sequence[Node], separate: frozenset[str]) -> list[int]:
    """Return the file's order of the nodes, activations that are arguments taken out."""
    kept: list[int] = []
    new: dict[int, int] = {}
    for position, node in enumerate(nodes):
        if node.kind == "act" and node.role not in separate:
            new[position] = new[node.inputs[0]]
        else:
            new[position] = len(kept)
            kept.append(position)
    short = [
        replace(nodes[position], inputs=tuple(new[i] for i in nodes[position].inputs))
        for position in kept
    ]
    return [kept[i] for i in stored_order(short)]


def _check_shapes(nodes: list[Node]) -> _Mismatch | None:
    """Follow the channels through a network; returns where they do not fit."""
    channels: list[int] = []
    uses: dict[str, tuple[int, int]] = {}
    total = len(nodes)
    for index, node in enumerate(nodes):
        taken = [channels[i] for i in node.inputs]
        try:
            channels.append(_through(node, taken, nodes, uses))
        except ValueError as error:
            return _Mismatch((index + 1) / total, f"{node.part}: {error}")
    return None


def _through(
    node: Node, taken: list[int], nodes: list[Node], uses: dict[str, tuple[int, int]]
) -> int:
    if node.kind == "input":
        first = next(n for n in nodes if n.kind in _CONVOLUTIONS)
        return first.stored.arrays[0].shape[2]
    if node.kind == "concatenate":
        return sum(taken)
    if node.kind in ("add", "multiply"):
        allowed = {max(taken)} | ({1} if node.kind == "multiply" else set())
        if not set(taken) <= allowed:
            raise ValueError(f"{node.kind} of {' and '.join(map(str, taken))} channels")
        return max(taken)
    if node.stored is None:
        return taken[0]
    arrays, label = node.stored.arrays, node.stored.label
    if node.kind in NORMS:
        if any(array.shape != (taken[0],) for array in arrays):
            raise ValueError(f"{label} has {node.stored.shapes}, expected ({taken[0]},)")
        return taken[0]
    inputs, outputs, kernel = _convolution(node, arrays)
    if inputs != taken[0]:
        raise ValueError(
            f"{label} takes {inputs} channels ({node.stored.shapes}), expected {taken[0]}"
        )
    use = kernel, len(arrays)
    first = uses.setdefault(f"{node.role} {node.kind}", use)
    if kernel not in _KERNELS[node.role] or use != first:
        raise ValueError(
            f"{label} has {node.stored.shapes}, unlike the others of its kind or what is known"
        )
    if node.role == "head" and kernel > 1 and outputs > _MOST_OUTPUTS:
        raise ValueError(f"{label} with {node.stored.shapes} is no head")
    return outputs


def _convolution(node: Node, arrays: tuple[np.ndarray, ...]) -> tuple[int, int, int]:
    """Return inputs, outputs and kernel of a convolution after checking its arrays."""
    shapes = [array.shape for array in arrays]
    kernel = shapes[0]
    good = len(kernel) == 4 and kernel[0] == kernel[1]
    if good and node.kind == "separable_conv2d":
        inputs, outputs = kernel[2], shapes[1][-1]
        good = kernel[3] == 1 and shapes[1] == (1, 1, inputs, outputs)
    elif good:
        inputs, outputs = kernel[2:] if node.kind == "conv2d" else kernel[:1:-1]
    number = 2 if node.kind == "separable_conv2d" else 1
    if not good or (len(shapes) > number and shapes[number] != (outputs,)):
        raise ValueError(f"{node.stored.label} has {node.stored.shapes}")
    return inputs, outputs, kernel[0]


def _meaning(nodes: list[Node]) -> object:
    """Return what a network computes: inputs of additions in no order."""
    found = []
    for node in nodes:
        free = node.kind in ("add", "multiply")
        inputs = tuple(sorted(node.inputs)) if free else node.inputs
        label = node.stored.label if node.stored else ""
        options = tuple(sorted((k, str(v)) for k, v in node.options.items()))
        found.append((node.kind, inputs, label, options))
    return tuple(found)
