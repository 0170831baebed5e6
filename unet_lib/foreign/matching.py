"""Which of the known U-Nets a list of stored layers is, by their counts, order and shapes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import keras

from unet_lib.foreign.layouts import CONVOLUTIONS, NORMS, StoredLayer, StoredLayers, UnknownNetwork
from unet_lib.foreign.networks import Network, Variant, scale_options
from unet_lib.foreign.styles import COUNTED, Node, Style, draft, possible_styles

_ACTIVATIONS = ("activation", "re_lu", "leaky_re_lu", "elu", "softmax")
_INACTIVE = re.compile("input|input_layer|dropout|spatial_dropout2d|gaussian_.*|random_.*|")
_MOST_OUTPUTS = 4  # of a head with a 3 x 3 kernel: else a block's convolution would pass for one
_KERNELS = {  # sides of the kernels of each role
    "block": (3, 5, 7),
    "entry": (3,),
    "up": (1, 2, 3, 4),
    "down": (2, 3),
    "gate stride": (1, 2, 3),
    "gate transposed": (2, 3),
    **dict.fromkeys(("tail", "head", "shortcut"), (1, 3)),
    **dict.fromkeys(("gate", "psi", "gate signal", "gate result"), (1,)),
}
_SLOPES = ("leaky_relu 0.3", "leaky_relu 0.2", "leaky_relu 0.1", "leaky_relu 0.01")
_FIXED = {"gate output": "sigmoid", "gate activation": "relu", "head": "linear"}


def find_variants(stored: StoredLayers) -> list[Variant]:
    """Return the known U-Nets that use every stored array once, the more usual first.

    Each computes something else. Where blocks of equal width explain the file, only those. Raises
    UnknownNetwork, which says what does not fit, where there is none.
    """
    _check_classes(stored)
    matches: dict[object, tuple[bool, Style, list[Node]]] = {}
    nearest = 0.0, f"no U-Net known here has these numbers of layers: {stored.summary()}"
    for style in possible_styles(stored):
        for nodes, direct in _filled(style, stored):
            fits, reason = _check_shapes(nodes)
            if not reason:
                matches.setdefault(_meaning(nodes), (direct, style, nodes))
                break
            nearest = max(nearest, (fits, reason))
    if not matches:
        raise UnknownNetwork(f"this network is not known here: {nearest[1]}")
    usual = sorted(matches.values(), key=lambda match: not match[0])
    even = [m for m in usual if all(len(set(w)) == 1 for w in _widths(m[2]).values())]
    return [_variant(style, nodes, stored) for _, style, nodes in even or usual]


def _check_classes(stored: StoredLayers) -> None:
    """Name a part that no layout here has."""
    without = (*_ACTIVATIONS, *COUNTED, "rescaling", "lambda")
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
        left = stored.count(*_ACTIVATIONS) - sum(role in separate for role in acts)
        if stored.complete and left not in (0, 1):  # the head's
            continue
        nodes = draft(style)
        queues: dict[str, list[StoredLayer]] = defaultdict(list)
        for layer in stored.layers:
            queues[layer.kind] += [layer] if layer.arrays else []
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
        most = max(taken)
        if not set(taken) <= ({most, 1} if node.kind == "multiply" else {most}):
            raise UnknownNetwork(f"{node.kind} of {' and '.join(map(str, taken))} channels")
        return most
    if node.stored is None:
        return taken[0]
    text = f"{node.stored.label} has {node.stored.shapes}"
    arrays = [array.shape for array in node.stored.arrays]
    if node.kind in NORMS:
        if set(arrays) != {(taken[0],)}:
            raise UnknownNetwork(f"{text}, expected ({taken[0]},)")
        return taken[0]
    kernel, outputs = arrays[0], _outputs(node)
    good = len(kernel) == 4 and kernel[0] == kernel[1]
    number = 2 if node.kind == "separable_conv2d" else 1
    if good and number == 2:
        good = kernel[3] == 1 and arrays[1] == (1, 1, kernel[2], outputs)
    if not good or arrays[number:] not in ([], [(outputs,)]):
        raise UnknownNetwork(text)
    if (inputs := kernel[3 if node.kind == "conv2d_transpose" else 2]) != taken[0]:
        raise UnknownNetwork(f"{text} and takes {inputs} channels, expected {taken[0]}")
    use = kernel[0], len(arrays)
    if kernel[0] not in _KERNELS[node.role] or use != uses.setdefault(node.role + node.kind, use):
        raise UnknownNetwork(f"{text}, unlike the others of its kind or what is known")
    if node.role == "head" and kernel[0] > 1 and outputs > _MOST_OUTPUTS:
        raise UnknownNetwork(f"{text} and is no head")
    return outputs


def _outputs(node: Node) -> int:
    shape = node.stored.arrays[node.kind == "separable_conv2d"].shape
    return shape[2 if node.kind == "conv2d_transpose" else 3] if len(shape) == 4 else 0


def _widths(nodes: Sequence[Node]) -> dict[str, list[int]]:
    """Return the channels that the convolutions of each block give."""
    widths: dict[str, list[int]] = defaultdict(list)
    for node in nodes:
        if node.role == "block":
            widths[node.part.split(",")[0]].append(_outputs(node))
    return widths


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


def _variant(style: Style, nodes: list[Node], stored: StoredLayers) -> Variant:
    """Return a match with what its file leaves open, the defaults first."""
    channels = next(n for n in nodes if n.kind in CONVOLUTIONS).stored.arrays[0].shape[2]
    outputs, scaled = _outputs(nodes[-2]), bool(stored.count("rescaling", "lambda"))
    options: dict[str, tuple[Any, ...]] = {
        "activation": ("relu", "elu", "leaky_relu 0.2", "selu", "gelu", "silu")
    }
    own = {kind for kind in _ACTIVATIONS[1:4] if stored.count(kind)}
    if len(own) == 1 and not stored.count("activation"):
        options["activation"] = {"re_lu": ("relu",), "elu": ("elu",)}.get(own.pop(), _SLOPES)
    if any(node.role == "resize" for node in nodes):
        options["interpolation"] = ("nearest", "bilinear")
    sizes = [n.stored.arrays[0].size for n in nodes if n.kind == "group_normalization"]
    if sizes:
        fits = (32, 16, 8, 4, 2, 1)
        options["groups"] = tuple(g for g in fits if all(size % g == 0 for size in sizes))
    options["rescaling"] = ("unit", "symmetric") if scaled else ("none",)
    options["scale"] = ("bytes",) if scaled else scale_options(channels)
    options["head"] = ("sigmoid",) if outputs == 1 else ("softmax", "sigmoid")
    options["lesion"] = (0,) if outputs == 1 else (-1, *range(outputs))
    down = [(part, w) for part, w in _widths(nodes).items() if not part.startswith("decoder")]
    widths = [max(width) for _, width in down]
    return Variant(
        lambda: _build(nodes, channels, options), channels, options, asdict(style), widths
    )


def _build(nodes: Sequence[Node], channels: int, options: dict[str, tuple[Any, ...]]) -> Network:
    """Build a match with its arrays and a linear head."""
    image = keras.Input((None, None, channels), name="image")
    tensors: list[Any] = [image]
    settings: list[tuple[Any, str]] = []
    if options["rescaling"] != ("none",):
        settings.append((keras.layers.Rescaling(1 / 255), "rescaling"))
        tensors = [settings[0][0](image)]
    for node in nodes[1:]:
        kind, more, setting = node.kind, {}, ""
        if kind == "act" and node.role in _FIXED:
            kind, more = "activation", {"activation": _FIXED[node.role]}
        elif kind == "act":
            setting = "activation"
            slopes = options["activation"] == _SLOPES
            kind, more = ("leaky_re_lu", {}) if slopes else (setting, {"activation": "relu"})
        elif kind in CONVOLUTIONS:
            arrays = node.stored.arrays
            more = {"filters": _outputs(node), "kernel_size": arrays[0].shape[:2]}
            more["use_bias"] = arrays[-1].ndim == 1
        elif kind == "group_normalization":
            setting, more = "groups", {"groups": options["groups"][0]}
        elif node.role == "resize":
            setting = "interpolation"
        name = kind.title().replace("_", "").replace("ReLu", "ReLU")
        layer = getattr(keras.layers, name)(**node.options, **more)
        taken = [tensors[i] for i in node.inputs]
        tensors.append(layer(taken if len(taken) > 1 else taken[0]))
        if node.stored:
            layer.set_weights(node.stored.arrays)
        if setting:
            settings.append((layer, setting))
    model = keras.Model(image, tensors[-1], name="foreign_unet")
    return Network(model, [(node.part, node.stored) for node in nodes if node.stored], settings)
