"""A network in ONNX Runtime; in a model folder its file takes the weights from the weights file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from itertools import permutations
from pathlib import Path

import numpy as np

ONNX = "model.onnx"
TOLERANCE = 5e-5
"""Largest accepted difference of a probability between Keras and a runtime, in float32."""

_WEIGHTS_SHA256 = "weights_sha256"
_FEWEST = 256  # values of an array that is left out of the file
_ELSEWHERE = "weights file of this model folder: open it with load_segmenter"


class OnnxNetwork:
    """A network that ONNX Runtime computes, as far as `Segmenter` needs one.

    `arrays` are those that `leave_out_weights` left out, by their names. It computes in the thread
    that calls it: a picture on each core is faster than one picture on all cores.
    """

    def __init__(
        self, path: Path, arrays: Mapping[str, np.ndarray] | None = None, threads: int = 1
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._made_of = path, arrays or {}
        self._held = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in (arrays or {}).values()]
        options.add_external_initializers(list(arrays or {}), self._held)
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._input, output = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.input_shape, self.output_shape = (
            tuple(side if isinstance(side, int) else None for side in place.shape)
            for place in (self._input, output)
        )
        self.runtime = f"onnxruntime {version('onnxruntime')}"
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.weights_sha256 = metadata.get(_WEIGHTS_SHA256)

    @cached_property
    def on_all_cores(self) -> OnnxNetwork:
        """The same network with ONNX Runtime's own threads: fastest for a single picture."""
        return OnnxNetwork(*self._made_of, threads=0)

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        """Return the probabilities, (N, S, S, 1), of a batch (N, S, S, C)."""
        return self._session.run(None, {self._input.name: batch})[0]


def leave_out_weights(path: Path, arrays: Mapping[str, np.ndarray], digest: str) -> list[str]:
    """Make constants of an ONNX file come from arrays of the weights file; returns their names.

    A constant is taken out where it is an array with its axes in another order, times one factor
    for each output channel, such as a normalisation folded into it: order and factors stay in the
    file, with `digest`, the SHA-256 of the weights file.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph, nodes, names = model.graph, [], []
    for constant in list(graph.initializer):
        values = numpy_helper.to_array(constant)
        source = _source(values, arrays) if values.size >= _FEWEST and values.ndim > 1 else None
        if source is None:
            continue
        name, order, factors = source
        graph.initializer.remove(constant)
        if name not in names:
            names.append(name)
            left_out = graph.initializer.add(name=name, data_type=onnx.TensorProto.FLOAT)
            left_out.dims.extend(arrays[name].shape)
            left_out.data_location = onnx.TensorProto.EXTERNAL
            left_out.external_data.add(key="location", value=_ELSEWHERE)
        turned, scale = f"{constant.name} turned", f"{constant.name} factors"
        graph.initializer.append(numpy_helper.from_array(factors, scale))
        nodes.append(helper.make_node("Transpose", [name], [turned], perm=order))
        nodes.append(helper.make_node("Mul", [turned, scale], [constant.name]))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    model.metadata_props.add(key=_WEIGHTS_SHA256, value=digest)
    path.write_bytes(model.SerializeToString())
    return names


def _source(
    values: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> tuple[str, tuple[int, ...], np.ndarray] | None:
    """Return the array that a constant was made of, the order of its axes, and the factors."""
    for name, array in arrays.items():
        for order in permutations(range(array.ndim)) if array.size == values.size else ():
            turned = array.transpose(order).astype(np.float64)
            if turned.shape != values.shape:
                continue
            for axis in (0, 1):  # of the output channels: Conv, ConvTranspose
                rest = tuple(other for other in range(values.ndim) if other != axis)
                power = np.maximum((turned * turned).sum(rest, keepdims=True), 1e-30)
                factors = ((values * turned).sum(rest, keepdims=True) / power).astype(np.float32)
                if np.allclose(turned * factors, values, rtol=1e-6, atol=1e-9):
                    return name, order, factors
    return None
