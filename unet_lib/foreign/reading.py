"""What a weights file leaves open, and the network under one answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from unet_lib.foreign.graph import Node
from unet_lib.foreign.layouts import StoredLayers
from unet_lib.settings import Settings

__all__ = ["HEADS", "SCALES", "Reading", "lesion_map", "options_of", "resolve", "run_nodes"]

SCALES = {"unit": (1.0, 0.0), "bytes": (255.0, 0.0), "symmetric": (2.0, -1.0)}
"""Values that the network wants, as factor and offset of [0, 1]."""

HEADS = ("sigmoid", "softmax")
_ACTIVATIONS = ("relu", "elu", "leaky_relu 0.2", "selu", "gelu", "silu")
_SLOPES = ("leaky_relu 0.3", "leaky_relu 0.2", "leaky_relu 0.1", "leaky_relu 0.01")
_NORM_EPSILON = 1e-3  # Keras' default


@dataclass(frozen=True)
class Reading(Settings):
    """One answer to what the file leaves open.

    Parameters
    ----------
    activation : str
        Of the blocks; a slope after ``leaky_relu``.
    interpolation : {"nearest", "bilinear"}
        Of resizing layers.
    groups : int
        Of group normalisation.
    scale : str
        A key of `SCALES`.
    rescaling : str
        A key of `SCALES` that a Rescaling or Lambda layer of the file makes of bytes, or "none".
    head : {"sigmoid", "softmax"}
    lesion : int
        The output that is the lesion; -1: all but the first together.
    """

    activation: str = "relu"
    interpolation: str = "nearest"
    groups: int = 32
    scale: str = "unit"
    rescaling: str = "none"
    head: str = "sigmoid"
    lesion: int = 0


def options_of(nodes: Sequence[Node], stored: StoredLayers) -> dict[str, tuple[Any, ...]]:
    """Return what each field of `Reading` may be for a file, the default first."""
    options: dict[str, tuple[Any, ...]] = {"activation": _ACTIVATIONS}
    own = {k for k in ("re_lu", "elu", "leaky_re_lu") if stored.count(k)}
    if len(own) == 1 and not stored.count("activation"):
        options["activation"] = {
            "re_lu": ("relu",), "elu": ("elu",), "leaky_re_lu": _SLOPES
        }[own.pop()]  # fmt: skip
    resizes = any(node.role == "resize" for node in nodes)
    options["interpolation"] = ("nearest", "bilinear") if resizes else ("nearest",)
    groups = (32,)
    if stored.count("group_normalization"):
        sizes = [n.stored.arrays[0].shape[0] for n in nodes if n.kind == "group_normalization"]
        groups = tuple(g for g in (32, 16, 8, 4, 2, 1) if all(s % g == 0 for s in sizes))
    options["groups"] = groups
    scaled = bool(stored.count("rescaling", "lambda"))
    options["rescaling"] = ("unit", "symmetric") if scaled else ("none",)
    options["scale"] = ("bytes",) if scaled else tuple(SCALES)
    outputs = next(n for n in nodes if n.role == "head" and n.stored).stored.arrays[0].shape[-1]
    options["head"] = ("sigmoid",) if outputs == 1 else ("softmax", "sigmoid")
    options["lesion"] = (0,) if outputs == 1 else (-1, *range(outputs))
    return options


def resolve(nodes: Sequence[Node], reading: Reading) -> list[Node]:
    """Return the nodes with every place of activation, resizing and norm filled in."""
    scaling = []
    if reading.rescaling != "none":
        factor, offset = SCALES[reading.rescaling]
        scaling = [Node("rescaling", (0,), "input", {"scale": factor / 255.0, "offset": offset})]
    shift = len(scaling)
    done = [nodes[0], *scaling]
    for node in nodes[1:]:
        inputs = tuple(i + shift if i else shift for i in node.inputs)
        options = dict(node.options)
        kind = node.kind
        if kind == "act":
            kind, options = _activation(node.role, reading)
        elif kind == "up_sampling2d" and node.role == "resize":
            options["interpolation"] = reading.interpolation
        elif kind == "group_normalization":
            options["groups"] = reading.groups
        elif kind in ("conv2d", "conv2d_transpose", "separable_conv2d"):
            arrays = node.stored.arrays
            place = 2 if kind == "conv2d_transpose" else -1
            options["filters"] = arrays[1 if kind == "separable_conv2d" else 0].shape[place]
            options["kernel_size"] = arrays[0].shape[:2]
            options["use_bias"] = arrays[-1].ndim == 1
        done.append(replace(node, kind=kind, inputs=inputs, options=options))
    return done


def _activation(role: str, reading: Reading) -> tuple[str, dict[str, Any]]:
    name = {"gate output": "sigmoid", "gate activation": "relu", "head": reading.head}.get(
        role, reading.activation
    )
    if name.startswith("leaky_relu"):
        return "leaky_re_lu", {"negative_slope": float(name.split()[1])}
    return "activation", {"activation": name}


def run_nodes(
    nodes: Sequence[Node],
    batch: np.ndarray,
    tensors: dict[str, list[Any]],
    known: dict[int, Any] | None = None,
) -> np.ndarray:
    """Compute the output of resolved nodes without building layers, before the head's activation.

    For comparing many readings: building a Keras model takes longer than running a small one. The
    model that is built in the end is compared with it.

    Parameters
    ----------
    nodes : sequence of Node
        From `resolve`; the last is the head's activation.
    batch : ndarray, shape (N, S, S, C)
    tensors : dict
        Arrays of the file that are tensors already, by label; added to.
    known : dict, optional
        Values of nodes that were computed on the same batch, by what they compute; added to.

    Returns
    -------
    ndarray of float32, shape (N, S, S, outputs)
    """
    known = {} if known is None else known
    keys: list[int] = []
    for node in nodes[:-1]:
        label = node.stored.label if node.stored else ""
        settings = tuple(sorted((k, str(v)) for k, v in node.options.items()))
        keys.append(hash((node.kind, label, settings, *(keys[i] for i in node.inputs))))
        if keys[-1] in known:
            continue
        if node.stored and label not in tensors:
            tensors[label] = [ops.convert_to_tensor(a, "float32") for a in node.stored.arrays]
        taken = [known[keys[i]] for i in node.inputs]
        known[keys[-1]] = _compute(node, taken, tensors.get(label, []), batch)
    return np.asarray(ops.convert_to_numpy(known[keys[-1]]), np.float32)


def _compute(node: Node, taken: list[Any], arrays: list[Any], batch: np.ndarray) -> Any:
    options, kind = node.options, node.kind
    if kind == "input":
        return ops.convert_to_tensor(batch)
    x = taken[0]
    if kind == "rescaling":
        return x * options["scale"] + options["offset"]
    if kind == "activation":
        return keras.activations.get(options["activation"])(x)
    if kind == "leaky_re_lu":
        return ops.leaky_relu(x, options["negative_slope"])
    if kind == "concatenate":
        return ops.concatenate(taken, axis=-1)
    if kind == "add":
        return taken[0] + taken[1]
    if kind == "multiply":
        return taken[0] * taken[1]
    if kind == "up_sampling2d":
        if options.get("interpolation", "nearest") == "nearest":
            return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
        return ops.image.resize(x, (2 * x.shape[1], 2 * x.shape[2]), "bilinear")
    if kind in ("max_pooling2d", "average_pooling2d"):
        pool = ops.max_pool if kind == "max_pooling2d" else ops.average_pool
        strides = options.get("strides", options["pool_size"])
        return pool(x, options["pool_size"], strides, options.get("padding", "valid"))
    if kind == "batch_normalization":
        gamma, beta, mean, variance = arrays
        return ops.batch_normalization(x, mean, variance, -1, beta, gamma, _NORM_EPSILON)
    if kind in ("layer_normalization", "group_normalization"):
        return _normalize(x, arrays, options.get("groups"))
    strides, bias = options.get("strides", 1), arrays[-1] if options["use_bias"] else 0.0
    if kind == "conv2d_transpose":
        return ops.conv_transpose(x, arrays[0], strides, "same") + bias
    if kind == "separable_conv2d":
        return ops.separable_conv(x, arrays[0], arrays[1], strides, "same") + bias
    return ops.conv(x, arrays[0], strides, "same") + bias


def _normalize(x: Any, arrays: list[Any], groups: int | None) -> Any:
    gamma, beta = arrays
    shape = ops.shape(x)
    if groups is None:  # over the channels of each pixel
        mean, variance = ops.moments(x, axes=[-1], keepdims=True)
        return (x - mean) / ops.sqrt(variance + _NORM_EPSILON) * gamma + beta
    split = ops.reshape(x, (shape[0], shape[1], shape[2], groups, -1))
    mean, variance = ops.moments(split, axes=[1, 2, 4], keepdims=True)
    normal = ops.reshape((split - mean) / ops.sqrt(variance + _NORM_EPSILON), shape)
    return normal * gamma + beta


def lesion_map(logits: np.ndarray, reading: Reading) -> np.ndarray:
    """Turn the head's values (N, S, S, outputs) into lesion probabilities (N, S, S)."""
    logits = logits.astype(np.float64)
    if reading.head == "sigmoid":
        values = np.clip(logits[..., reading.lesion], -500, 500)
        return 1.0 / (1.0 + np.exp(-values))
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares = exponents / exponents.sum(axis=-1, keepdims=True)
    return 1.0 - shares[..., 0] if reading.lesion < 0 else shares[..., reading.lesion]
