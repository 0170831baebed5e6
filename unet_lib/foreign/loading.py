"""Load weights trained elsewhere: a network that is proven to be the file's, or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unet_lib.dataset import Case, content_hash, load_case
from unet_lib.dataset.training_images import TUNED_ON
from unet_lib.foreign.applying import output_at, settle_topology
from unet_lib.foreign.graph import Node, build_graph
from unet_lib.foreign.layouts import StoredLayers, read_layers
from unet_lib.foreign.matching import Match, find_matches, input_channels
from unet_lib.foreign.reading import SCALES, resolve, run_nodes
from unet_lib.foreign.settling import (
    DEFAULT_SIZE,
    Assumption,
    Settled,
    settle,
)
from unet_lib.foreign.topology import TopologyError, read_topology
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.weights.hdf5 import WeightsError

__all__ = ["ForeignWeights", "load_foreign_weights"]

_SAME = 1e-4


@dataclass(frozen=True)
class ForeignWeights:
    """A network from a file trained elsewhere.

    Attributes
    ----------
    network : keras.Model
        As it was stored: (N, H, W, C) in the values given by ``architecture["input"]`` to the
        outputs of its head.
    architecture : dict
        What the file tells of the network, JSON-able.
    assumed : tuple of Assumption
        What the file does not tell, and how each point was settled.
    preprocessing : Preprocessing
        Size and fit of the input.
    scale : str
        Values of the input: "unit" [0, 1], "bytes" [0, 255], "symmetric" [-1, 1].
    lesion : int
        The output that is the lesion; -1: all but the first.
    name : str
        Of the file.
    calibrated_on : tuple of str
        `content_hash` of the cases that settled what is assumed: they are no test.
    """

    network: keras.Model
    architecture: dict[str, Any]
    assumed: tuple[Assumption, ...]
    preprocessing: Preprocessing
    scale: str
    lesion: int
    name: str
    logits: bool = field(default=False, repr=False)
    calibrated_on: tuple[str, ...] = field(default=(), repr=False)

    def segmenter(self) -> Segmenter:
        """Return a segmenter: input in [0, 1], the lesion's probability, threshold .5."""
        side, channels = self.preprocessing.size, self.network.input_shape[-1]
        inputs = keras.Input((side, side, channels), name="image")
        factor, offset = SCALES[self.scale]
        x = inputs
        if (factor, offset) != (1.0, 0.0):
            x = keras.layers.Rescaling(factor, offset)(x)
        x = self.network(x)
        if self.logits:
            x = keras.ops.sigmoid(x)
        if self.network.output_shape[-1] > 1:
            x = 1.0 - x[..., :1] if self.lesion < 0 else x[..., self.lesion : self.lesion + 1]
        about = {
            "name": self.name,
            "architecture": {k: v for k, v in self.architecture.items() if k != "layers"},
            "assumed": [asdict(point) for point in self.assumed],
            TUNED_ON: list(self.calibrated_on),
        }
        return Segmenter(keras.Model(inputs, x), self.preprocessing, 0.5, provenance=about)

    def table(self) -> str:
        """Return the architecture and what was assumed as Markdown."""
        facts = {k: v for k, v in self.architecture.items() if k != "layers"}
        lines = ["| | |", "|---|---|", *(f"| {k} | {_text(v)} |" for k, v in facts.items()), ""]
        lines += ["| part | class | in the file | arrays |", "|---|---|---|---|"]
        lines += [
            f"| {row['part']} | {row['class']} | {row['group']} | {row['arrays']} |"
            for row in self.architecture["layers"]
        ]
        lines += ["", "Not in the file, assumed:", *(f"* {point}" for point in self.assumed)]
        return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def load_foreign_weights(
    path: str | Path,
    calibrate_on: Sequence[Case] | None = None,
    *,
    size: int | None = None,
    keep_aspect: bool | None = None,
    progress: bool = True,
) -> ForeignWeights:
    """Find out a U-Net's architecture from its weights file, rebuild it and load it.

    A file with its topology (``.keras``, a whole model in ``.h5``) is rebuilt from that, without
    Keras' deserialisation. Of weights alone (``.weights.h5``, legacy ``.h5``) numbers, order and
    shapes of the arrays are compared with the U-Nets that tutorials and libraries build; the
    network must use every stored array exactly once, at its shape.

    Parameters
    ----------
    path : str or Path
        Saved by Keras 3 or TF-Keras 2.12 to 2.15, with or without an optimiser's state.
    calibrate_on : sequence of Case, optional
        Validation cases with masks, never test cases: settle what the file does not tell. Left
        out, defaults are taken.
    size : int, optional
        Side of the input in pixels, where you know it.
    keep_aspect : bool, optional
        Whether images were padded (True) or squeezed (False), where you know it.
    progress : bool
        Show progress bars.

    Returns
    -------
    ForeignWeights
        ``assumed`` lists every point that the file leaves open. Read it.

    Raises
    ------
    WeightsError
        The file is damaged, unsafe, or no network known here; says which part and what was found.
    ValueError
        No case to calibrate on has a lesion, or a size does not fit.
    """
    used = tuple(content_hash(load_case(case)[0]) for case in calibrate_on or ())
    found = _load(path, calibrate_on, size, keep_aspect, progress)
    return replace(found, calibrated_on=used)


def _load(
    path: str | Path,
    calibrate_on: Sequence[Case] | None,
    size: int | None,
    keep_aspect: bool | None,
    progress: bool,
) -> ForeignWeights:
    stored = read_layers(path)
    try:
        if stored.config is not None:
            return _from_topology(path, stored, calibrate_on, size, keep_aspect, progress)
        matches, reason = find_matches(stored)
        if not matches:
            raise WeightsError(f"this network is not known here: {reason}")
        step = 2 ** matches[0].style.depth
        if size is not None and size % step:
            raise ValueError(f"{path}: takes multiples of {step} pixels; received size={size}.")
        settled = settle(matches, stored, calibrate_on, size, keep_aspect, progress)
        return _from_match(path, stored, settled)
    except (WeightsError, TopologyError) as error:
        raise WeightsError(f"{path}: {str(error).rstrip('.')}. Nothing was loaded.") from error


def _from_match(path: str | Path, stored: StoredLayers, settled: Settled) -> ForeignWeights:
    match, reading = settled.match, settled.reading
    nodes = resolve(match.nodes, reading)
    channels = input_channels(match)
    network = build_graph(nodes, (None, None, channels), "foreign_unet")
    _check_built(network, nodes, stored, channels, match)
    architecture = {
        "layout": stored.layout,
        "found by": "numbers, order and shapes of the arrays",
        "input channels": channels,
        "widths": _widths(match),
        "outputs": network.output_shape[-1],
        "parameters": network.count_params(),
        **{k.replace("_", " "): v for k, v in match.style.to_dict().items() if k != "swap"},
        "reading": reading.to_dict(),
        "inactive when applied": _inactive(stored),
        "layers": _rows(nodes),
    }
    return ForeignWeights(
        network, architecture, settled.assumed, settled.preprocessing, reading.scale,
        reading.lesion, Path(path).name,
    )  # fmt: skip


def _check_built(
    network: keras.Model, nodes: list[Node], stored: StoredLayers, channels: int, match: Match
) -> None:
    """Every stored array is used once, and the built network computes what was compared."""
    used = Counter(node.stored.label for node in nodes if node.stored)
    if set(used.values()) - {1} or set(used) != {layer.label for layer in stored.weighted}:
        raise WeightsError("not every stored array is used exactly once")
    side = 2 ** (match.style.depth + 1)
    probe = np.random.default_rng(0).random((1, side, side, channels), dtype=np.float32)
    activation = keras.activations.get(nodes[-1].options["activation"])
    direct = keras.ops.convert_to_numpy(activation(run_nodes(nodes, probe, {})))
    built = keras.ops.convert_to_numpy(network(probe, training=False))
    if not np.abs(direct - built).max() <= _SAME:
        raise WeightsError("the built network differs from the one that was compared")


def _from_topology(
    path: str | Path,
    stored: StoredLayers,
    cases: Sequence[Case] | None,
    size: int | None,
    keep_aspect: bool | None,
    progress: bool,
) -> ForeignWeights:
    nodes, shape = read_topology(stored)
    network = build_graph(nodes, shape, "foreign_unet")
    last = nodes[-1].options.get("activation")
    logits = nodes[-1].kind.startswith("conv2d") and last in (None, "linear")
    height, width = network.input_shape[1:3]
    if height != width:
        raise WeightsError(f"it takes {height} x {width} pixels; only squares are used here")
    side = height or DEFAULT_SIZE
    made = output_at(network, side)
    if len(made) != 4 or made[1:3] != (side, side):
        raise WeightsError(f"of {side} x {side} pixels it makes {made}, expected a map of them")
    if height and size not in (None, height):
        raise ValueError(
            f"{path}: takes {height} x {width} pixels; received size={size}. Leave size out."
        )
    if size and output_at(network, size)[1:3] != (size, size):
        raise ValueError(
            f"{path}: gives no map of {size} x {size} pixels. Take a power of two, or leave size "
            "out."
        )
    preprocessing, scale, lesion, assumed = settle_topology(
        network, logits, any(n.kind == "rescaling" for n in nodes[1:3]), cases, size, keep_aspect,
        progress,
    )  # fmt: skip
    architecture = {
        "layout": stored.layout,
        "found by": "the topology in the file",
        "input": list(shape),
        "outputs": network.output_shape[-1],
        "parameters": network.count_params(),
        "layers": _rows(nodes),
    }
    return ForeignWeights(
        network, architecture, assumed, preprocessing, scale, lesion, Path(path).name, logits
    )


def _widths(match: Match) -> list[int]:
    """Return the channels of each level's block, the deepest last."""
    found: dict[str, int] = {}
    for node in match.nodes:
        level = node.part.split(",")[0]
        if node.role == "block" and (level.startswith("encoder") or level == "bottleneck"):
            found[level] = node.stored.arrays[1 if node.kind[0] == "s" else 0].shape[-1]
    return list(found.values())


def _inactive(stored: StoredLayers) -> dict[str, int]:
    kinds = ("dropout", "spatial_dropout2d", "gaussian_dropout", "gaussian_noise")
    return {kind: stored.count(kind) for kind in kinds if stored.count(kind)}


def _rows(nodes: Sequence[Node]) -> list[dict[str, str]]:
    return [
        {
            "part": node.part,
            "class": node.kind,
            "group": node.stored.label,
            "arrays": node.stored.shapes,
        }
        for node in nodes
        if node.stored
    ]
