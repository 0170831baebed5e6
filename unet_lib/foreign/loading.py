"""Load weights trained elsewhere: a network that is the file's, or a refusal."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

from unet_lib.dataset import Case, content_hash, load_case
from unet_lib.dataset.cases import TUNED_ON
from unet_lib.foreign.layouts import NORMS, StoredLayers, UnknownNetwork, read_file, read_layers
from unet_lib.foreign.matching import find_variants
from unet_lib.foreign.networks import DEFAULT_SIZE, SIZES, Network, Variant, input_values
from unet_lib.foreign.settling import Assumption, explain_doubt, frame, load_lesions, narrow, settle
from unet_lib.foreign.topology import build_topology, topology_variant
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.weights.hdf5 import WeightsError


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
        Values of the input: "unit" [0, 1], "bytes" [0, 255], "symmetric" [-1, 1]; "imagenet"
        (less mean, by deviation), "caffe" (bytes less mean, BGR); "image" (less its own mean, by
        its own deviation), "set M D" (less M, by D, of the data set).
    lesion : int
        The output that is the lesion; -1: all but the first.
    name : str
        Of the file.
    head : str
        What makes probabilities of the network's outputs: "none", "sigmoid", "softmax".
    calibrated_on : tuple of str
        `content_hash` of the cases that settled what is assumed: they are no test.
    not_settled : str or None
        Why what is assumed may be wrong; None where the cases settled it.
    """

    network: keras.Model
    architecture: dict[str, Any]
    assumed: tuple[Assumption, ...]
    preprocessing: Preprocessing
    scale: str
    lesion: int
    name: str
    head: str = field(default="none", repr=False)
    calibrated_on: tuple[str, ...] = field(default=(), repr=False)
    not_settled: str | None = None

    def segmenter(self) -> Segmenter:
        """Return a segmenter: input in [0, 1], the lesion's probability, threshold .5."""
        side, channels = self.preprocessing.size, self.network.input_shape[-1]
        inputs = keras.Input((side, side, channels), name="image")
        x = self.network(input_values(inputs, self.scale))
        if self.head != "none":
            x = keras.layers.Activation(self.head)(x)
        if self.network.output_shape[-1] > 1:
            x = 1.0 - x[..., :1] if self.lesion < 0 else x[..., self.lesion : self.lesion + 1]
        about = {
            "name": self.name,
            "architecture": {k: v for k, v in self.architecture.items() if k != "layers"},
            "assumed": [asdict(point) for point in self.assumed],
            TUNED_ON: list(self.calibrated_on),
            "not_settled": self.not_settled,
        }
        return Segmenter(keras.Model(inputs, x), self.preprocessing, 0.5, provenance=about)

    def table(self) -> str:
        """Return the architecture and what was assumed as Markdown."""
        rows = [f"| {k} | {_text(v)} |" for k, v in self.architecture.items() if k != "layers"]
        lines = ["| | |", "|---|---|", *rows, ""]
        lines += ["| part | class | in the file | arrays |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row.values())} |" for row in self.architecture["layers"]]
        lines += ["", self.not_settled or "Settled on validation cases."]
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
    scale: str | None = None,
    channels: int | None = None,
    head: str | None = None,
    progress: bool = True,
) -> ForeignWeights:
    """Find out a U-Net's architecture from its weights file, rebuild it and load it.

    A file with its topology (``.keras``, a whole model in ``.h5``) is loaded by Keras in its safe
    mode, after every array was checked; code in it is never run. Of weights alone
    (``.weights.h5``, legacy ``.h5``) numbers, order and shapes of the arrays are compared with the
    U-Nets that tutorials and libraries build; the network must use every stored array exactly
    once, at its shape.

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
    scale : str, optional
        Values of the input, where you know them; see `ForeignWeights`. "set" alone measures mean
        and deviation on `calibrate_on`.
    channels : int, optional
        The network's, where they are neither 1 nor 3: the grey picture is repeated for all.
    head : {"sigmoid", "softmax"}, optional
        What makes probabilities of values without an activation, where you know it.
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
        No case to calibrate on has a lesion, or an argument does not fit.

    Warns
    -----
    UserWarning
        What is assumed was not settled: see ``not_settled``.
    """
    images = [load_case(case)[0] for case in calibrate_on or ()]
    try:
        contents, config = read_file(path)
        whole = build_topology(config, contents) if config is not None else None
        stored = read_layers(contents)
        if whole is None:
            variants, sizes, sides = _from_arrays(path, stored, size)
        else:
            variants, sizes, sides = _from_topology(path, whole, size)
        count = variants[0].channels
        if count not in (1, 3, channels):
            raise UnknownNetwork(
                f"it takes {count} channels; a grey picture is repeated for 1 or 3. Give "
                f"channels={count} to repeat it for all of them"
            )
        variants = [narrow(path, v, images, scale, head) for v in variants]
        loaded = load_lesions(calibrate_on) if calibrate_on else []
        variant, reading, points = settle(variants, loaded, sides, bool(keep_aspect), progress)
    except UnknownNetwork as error:
        raise WeightsError(f"{path}: {str(error).rstrip('.')}. Nothing was loaded.") from error
    network = variant.build()
    network.read(reading)
    preprocessing, framing, dice = frame(
        network, reading, loaded, sizes, size, keep_aspect, progress
    )
    model, outside = network.model, reading.head
    if config is None:  # built with a linear head
        model.layers[-1].activation, outside = keras.activations.get(reading.head), "none"
        points += _fixed(variant.style, stored)
    elif model.input_shape[1]:  # the size is in the file
        framing = framing[1:]
    inactive = ("dropout", "spatial_dropout2d", "gaussian_dropout", "gaussian_noise")
    architecture = {
        "layout": stored.layout,
        "found by": "its arrays" if config is None else "the topology in the file",
        "input": list(model.input_shape[1:]),
        "widths": variant.widths,
        "outputs": model.output_shape[-1],
        "parameters": model.count_params(),
        **{k.replace("_", " "): v for k, v in variant.style.items() if k != "swap"},
        "reading": asdict(reading),
        "inactive when applied": {k: stored.count(k) for k in inactive if stored.count(k)},
        "layers": [
            {"part": part, "class": layer.kind, "group": layer.label, "arrays": layer.shapes}
            for part, layer in network.parts
        ],
    }
    given = {"values of the input": scale, "activation of the output": head}
    points += [Assumption(name, value, "user") for name, value in given.items() if value]
    doubt = explain_doubt(points, dice)
    if dice is not None and config is None and (best := preprocessing.size) not in sides:
        compared = ", ".join(map(str, sides))
        doubt = f"not settled: compared at {compared} pixels, but {best} is best; give size={best}"
    assumed = (*points, *framing, Assumption("threshold", 0.5))
    if dice is not None:
        point = Assumption("mean Dice on the validation cases", round(dice, 3), "validation")
        assumed = (point, *assumed)
        if doubt:
            warnings.warn(f"{path}: {doubt}", stacklevel=2)
    return ForeignWeights(
        model,
        architecture,
        assumed,
        preprocessing,
        reading.scale,
        reading.lesion,
        Path(path).name,
        outside,
        tuple(map(content_hash, images)),
        doubt,
    )


_Tried = tuple[list[Variant], list[int], list[int]]  # networks, sizes, sizes that compare networks


def _from_arrays(path: str | Path, stored: StoredLayers, size: int | None) -> _Tried:
    variants = find_variants(stored)
    step = max(2 ** variant.style["depth"] for variant in variants)
    if size is not None and size % step:
        raise ValueError(f"{path}: takes multiples of {step} pixels; received size={size}.")
    sizes = [size] if size else [side for side in SIZES if side % step == 0]
    # A reading is judged at the wrong size where the true one is another; more cost more time.
    sides = [size] if size else [side for side in (128, 96, 192) if side % step == 0]
    return variants, sizes, sides or [step]


def _from_topology(path: str | Path, network: Network, size: int | None) -> _Tried:
    model = network.model
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.input_shape) != 4:
        raise UnknownNetwork(
            f"it takes {model.input_shape} and gives {model.output_shape}; one picture and one map "
            "are expected"
        )
    _, height, width, channels = model.input_shape
    if height != width:
        raise UnknownNetwork(f"it takes {height} x {width} pixels; only squares are used here")

    def output_at(side: int) -> tuple[int | None, ...]:
        with suppress(ValueError):
            return tuple(model.compute_output_shape((1, side, side, channels)))
        return ()

    side = height or DEFAULT_SIZE
    made = output_at(side)
    if len(made) != 4 or made[1:3] != (side, side):
        raise UnknownNetwork(f"of {side} x {side} pixels it makes {made}, expected a map of them")
    if size and size != height and (height or output_at(size)[1:3] != (size, size)):
        takes = f"takes {height} x {width} pixels" if height else "takes other sizes"
        raise ValueError(f"{path}: {takes}; received size={size}. Leave size out.")
    sizes = [height or size] if height or size else SIZES
    sizes = [side for side in sizes if output_at(side)[1:3] == (side, side)]
    sides = [side for side in (DEFAULT_SIZE, 128) if side in sizes] or sizes
    return [topology_variant(network)], sizes, sides


def _fixed(style: dict[str, Any], stored: StoredLayers) -> list[Assumption]:
    """List what was neither in the file nor tried."""
    pooled = style["down"] in ("max", "average") and style["block"] != "entry"
    points = {
        "epsilon of the normalisation": 0.001 if stored.count(*NORMS) else None,
        "activations of the gates": "relu, sigmoid" if style["gate"] != "none" else None,
        "pooling window": "2 x 2" if pooled else None,
        "kind of pooling": None if stored.complete else style["down"],
        "Lambda layers (their code is not in the file)": (
            "scaling only" if stored.count("lambda") else None
        ),
        "where skips start": "after the last layer of a block",
        "operations that are no layers, such as +": "none",
        "padding, dilation": "same, 1",
    }
    return [Assumption(point, value) for point, value in points.items() if value is not None]
