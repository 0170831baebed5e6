"""Which of the known U-Nets a list of stored layers is, by their counts, order and shapes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import keras

from unet_lib.foreign.layouts import CONVOLUTIONS, NORMS, StoredLayer, StoredLayers, UnknownNetwork
from unet_lib.foreign.networks import Network, Variant, scale_options
from unet_lib.foreign.styles import COUNTED, Node, Style, draft, possible_styles

__all__ = ["Match", "find_matches", "variant_of"]

ACTIVATIONS = ("activation", "re_lu", "leaky_re_lu", "elu", "softmax")
_INACTIVE = re.compile("input|input_layer|dropout|spatial_dropout2d|gaussian_.*|random_.*|")
_MOST_OUTPUTS = 4  # of a head with a 3 x 3 kernel: else a block's convolution would pass for one
_KERNELS = {
    (3, 5, 7): ("block",),
    (1, 3): ("tail", "head", "shortcut"),
    (3,): ("entry",),
    (1, 2, 3, 4): ("up",),
    (2, 3): ("down", "gate transposed"),
    (1,): ("gate", "psi", "gate signal", "gate result"),
    (1, 2, 3): ("gate stride",),
}


@dataclass(frozen=True)
class Match:
    """A layout that every stored array fits; places of activations have the kind "act"."""

    style: Style
    nodes: list[Node]
    direct: bool  # activations that are no layers follow a convolution, whose argument they can be

    @property
    def widths(self) -> dict[str, set[int]]:
        """Channels that the convolutions of each block give."""
        widths: dict[str, set[int]] = defaultdict(set)
        for node in self.nodes:
            if node.role == "block":
                widths[node.part.split(",")[0]].add(_outputs(node))
        return widths

    @property
    def channels(self) -> int:
        """Channels of the input."""
        first = next(node for node in self.nodes if node.kind in CONVOLUTIONS)
        return first.stored.arrays[0].shape[2]


def find_matches(stored: StoredLayers) -> list[Match]:
    """Return the known U-Nets that use every stored array once, the more usual first.

    Each computes something else. Where blocks of equal width explain the file, only those. Raises
    UnknownNetwork, which says what does not fit, where there is none.
    """
    _check_classes(stored)
    matches: dict[object, Match] = {}
    nearest = 0.0, f"no U-Net known here has these numbers of layers: {stored.summary()}"
    for style in possible_styles(stored):
        for nodes, direct in _filled(style, stored):
            fits, reason = _check_shapes(nodes)
            if not reason:
                matches.setdefault(_meaning(nodes), Match(style, nodes, direct))
                break
            nearest = max(nearest, (fits, reason))
    if not matches:
        raise UnknownNetwork(f"this network is not known here: {nearest[1]}")
    usual = sorted(matches.values(), key=lambda match: not match.direct)
    return [m for m in usual if all(len(w) == 1 for w in m.widths.values())] or usual


def _check_classes(stored: StoredLayers) -> None:
    """Name a part that no layout here has."""
    without = (*ACTIVATIONS, *COUNTED, "rescaling", "lambda")
    numbers = {**dict.fromkeys(without, (0,)), **CONVOLUTIONS, **NORMS}
    for layer in stored.layers:
        usual = numbers.get(layer.kind) or ((0,) if _INACTIVE.fullmatch(layer.kind) else ())
        if len(layer.arrays) not in usual:
            raise UnknownNetwork(
                f"this network is not known here: {layer.label}: a layer of class {layer.kind!r} "
                f"with {layer.shapes} is unknown here"
            )


def _filled(style: Style, stored: StoredLayers) -> Iterator[tuple[list[Node], bool]]:
    """Give a layout its arrays in the file's order, which depends on what is no layer of its own.

    Activations are layers or arguments, all of one role alike.
    """
    acts = [node.role for node in draft(style) if node.kind == "act" and node.role != "head"]
    roles = sorted(set(acts))
    for chosen in product((True, False), repeat=len(roles)):
        separate = {role for role, own in zip(roles, chosen, strict=True) if own}
        left = stored.count(*ACTIVATIONS) - sum(role in separate for role in acts)
        if stored.complete and left not in (0, 1):  # the head's
            continue
        nodes = draft(style)
        queues: dict[str, list[StoredLayer]] = defaultdict(list)
        for layer in stored.weighted:
            queues[layer.kind].append(layer)
        for position in _stored_order(nodes, separate):
            if queues.get(nodes[position].kind):
                nodes[position].stored = queues[nodes[position].kind].pop(0)
        arguments = [n for n in nodes if n.kind == "act" and n.role not in (*separate, "head")]
        yield nodes, all(nodes[node.inputs[0]].kind in CONVOLUTIONS for node in arguments)


def _stored_order(nodes: Sequence[Node], separate: set[str]) -> list[int]:
    """Return the positions of the nodes in the order of ``model.layers``.

    Activations that are arguments are no layers. Keras sorts layers by their longest way to the
    output, then by when a walk from the output first meets them (``map_graph`` of
    keras.src.ops.function; TF-Keras' functional.py does the same).
    """
    inputs: list[tuple[int, ...]] = []
    stands_for: list[int] = []
    for position, node in enumerate(nodes):
        inputs.append(tuple(stands_for[i] for i in node.inputs))
        argument = node.kind == "act" and node.role not in separate
        stands_for.append(inputs[-1][0] if argument else position)
    met: dict[int, int] = {}
    finished: list[int] = []
    stack = [(stands_for[-1], False)]
    while stack:
        position, complete = stack.pop()
        if complete:
            finished.append(position)
        elif position not in met:
            met[position] = len(met)
            stack.append((position, True))
            stack += [(source, False) for source in reversed(inputs[position])]
    depths = dict.fromkeys(finished, 0)
    for position in reversed(finished):
        for source in inputs[position]:
            depths[source] = max(depths[source], depths[position] + 1)
    return sorted(finished, key=lambda position: (-depths[position], met[position]))


def _check_shapes(nodes: list[Node]) -> tuple[float, str]:
    """Follow the channels through a network; returns the share that fits, and what does not."""
    image = next(node for node in nodes if node.kind in CONVOLUTIONS).stored.arrays[0].shape
    channels = [image[2] if len(image) == 4 else 0]
    uses: dict[str, tuple[int, int]] = {}
    for index, node in enumerate(nodes[1:], 1):
        try:
            channels.append(_through(node, [channels[i] for i in node.inputs], uses))
        except UnknownNetwork as error:
            return (index + 1) / len(nodes), f"{node.part}: {error}"
    return 1.0, ""


def _through(node: Node, taken: list[int], uses: dict[str, tuple[int, int]]) -> int:
    """Return the channels of a node's output after checking its arrays."""
    if node.kind == "concatenate":
        return sum(taken)
    if node.kind in ("add", "multiply"):
        allowed = {max(taken), 1} if node.kind == "multiply" else {max(taken)}
        if not set(taken) <= allowed:
            raise UnknownNetwork(f"{node.kind} of {' and '.join(map(str, taken))} channels")
        return max(taken)
    if node.stored is None:
        return taken[0]
    stored, arrays = node.stored, [array.shape for array in node.stored.arrays]
    if node.kind in NORMS:
        if set(arrays) != {(taken[0],)}:
            raise UnknownNetwork(f"{stored.label} has {stored.shapes}, expected ({taken[0]},)")
        return taken[0]
    kernel, outputs = arrays[0], _outputs(node)
    good = len(kernel) == 4 and kernel[0] == kernel[1]
    number = 2 if node.kind == "separable_conv2d" else 1
    if good and number == 2:
        good = kernel[3] == 1 and arrays[1] == (1, 1, kernel[2], outputs)
    if not good or arrays[number:] not in ([], [(outputs,)]):
        raise UnknownNetwork(f"{stored.label} has {stored.shapes}")
    inputs = kernel[3 if node.kind == "conv2d_transpose" else 2]
    if inputs != taken[0]:
        raise UnknownNetwork(
            f"{stored.label} takes {inputs} channels ({stored.shapes}), expected {taken[0]}"
        )
    use = kernel[0], len(arrays)
    usual = any(kernel[0] in sizes and node.role in roles for sizes, roles in _KERNELS.items())
    if not usual or use != uses.setdefault(node.role + node.kind, use):
        raise UnknownNetwork(
            f"{stored.label} has {stored.shapes}, unlike the others of its kind or what is known"
        )
    if node.role == "head" and kernel[0] > 1 and outputs > _MOST_OUTPUTS:
        raise UnknownNetwork(f"{stored.label} with {stored.shapes} is no head")
    return outputs


def _outputs(node: Node) -> int:
    shape = node.stored.arrays[node.kind == "separable_conv2d"].shape
    return shape[2 if node.kind == "conv2d_transpose" else 3] if len(shape) == 4 else 0


def _meaning(nodes: list[Node]) -> object:
    """Return what a network computes: inputs of additions in no order."""
    return tuple(
        (
            node.kind,
            tuple(sorted(node.inputs)) if node.kind in ("add", "multiply") else node.inputs,
            node.stored and node.stored.label,
            tuple(node.options.items()),
        )
        for node in nodes
    )


_SLOPES = ("leaky_relu 0.3", "leaky_relu 0.2", "leaky_relu 0.1", "leaky_relu 0.01")
_FIXED = {"gate output": "sigmoid", "gate activation": "relu", "head": "linear"}


def variant_of(match: Match, stored: StoredLayers) -> Variant:
    """Return a match with what its file leaves open, the defaults first."""
    scaled = bool(stored.count("rescaling", "lambda"))
    options: dict[str, tuple[Any, ...]] = {
        "activation": ("relu", "elu", "leaky_relu 0.2", "selu", "gelu", "silu")
    }
    own = {kind for kind in ACTIVATIONS[1:4] if stored.count(kind)}
    if len(own) == 1 and not stored.count("activation"):
        options["activation"] = {"re_lu": ("relu",), "elu": ("elu",)}.get(own.pop(), _SLOPES)
    if any(node.role == "resize" for node in match.nodes):
        options["interpolation"] = ("nearest", "bilinear")
    sizes = [n.stored.arrays[0].size for n in match.nodes if n.kind == "group_normalization"]
    if sizes:
        options["groups"] = tuple(
            groups for groups in (32, 16, 8, 4, 2, 1) if all(size % groups == 0 for size in sizes)
        )
    options["rescaling"] = ("unit", "symmetric") if scaled else ("none",)
    options["scale"] = ("bytes",) if scaled else scale_options(match.channels)
    outputs = _outputs(match.nodes[-2])
    options["head"] = ("sigmoid",) if outputs == 1 else ("softmax", "sigmoid")
    options["lesion"] = (0,) if outputs == 1 else (-1, *range(outputs))
    widths = [
        max(width)
        for part, width in match.widths.items()
        if part.startswith(("encoder", "bottleneck"))
    ]
    return Variant(
        lambda: _build(match, options), match.channels, options, asdict(match.style), widths
    )


def _build(match: Match, options: dict[str, tuple[Any, ...]]) -> Network:
    """Build a match with its arrays and a linear head."""
    image = keras.Input((None, None, match.channels), name="image")
    tensors: list[Any] = [image]
    settings: list[tuple[Any, str]] = []
    if options["rescaling"] != ("none",):
        settings.append((keras.layers.Rescaling(1 / 255), "rescaling"))
        tensors = [settings[0][0](image)]
    for node in match.nodes[1:]:
        name, more = node.kind.title().replace("_", ""), {}
        setting = {"resize": "interpolation", "norm": "groups"}.get(node.role)
        if node.kind == "act":
            slopes = options["activation"] == _SLOPES
            setting = None if node.role in _FIXED else "activation"
            name = "LeakyReLU" if slopes and setting else "Activation"
            more = {} if slopes and setting else {"activation": _FIXED.get(node.role, "relu")}
        elif node.kind in CONVOLUTIONS:
            arrays = node.stored.arrays
            more = {"filters": _outputs(node), "kernel_size": arrays[0].shape[:2]}
            more["use_bias"] = arrays[-1].ndim == 1
        elif node.kind == "group_normalization":
            more = {"groups": options["groups"][0]}
        layer = getattr(keras.layers, name)(**node.options, **more)
        taken = [tensors[i] for i in node.inputs]
        tensors.append(layer(taken if len(taken) > 1 else taken[0]))
        if node.stored:
            layer.set_weights(node.stored.arrays)
        if setting in options:
            settings.append((layer, setting))
    model = keras.Model(image, tensors[-1], name="foreign_unet")
    parts = [(node.part, node.stored) for node in match.nodes if node.stored]
    return Network(model, parts, settings)
