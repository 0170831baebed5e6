"""Run an exported model in its own runtime: onnxruntime, LiteRT, OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

__all__ = ["SETTINGS", "Run", "litert", "onnx", "openvino"]

Run = Callable[[np.ndarray], np.ndarray]
"""A batch (N, S, S, C) of float32 in [0, 1] -> probabilities (N, S, S, 1)."""

# On processors with AMX or AVX512-BF16 OpenVINO computes in bfloat16 unless told otherwise: on the
# phantoms used here that moved probabilities of busi-fold0 by up to .09.
SETTINGS = {"openvino": {"INFERENCE_PRECISION_HINT": "f32"}}
"""What a runtime must be told to compute in float32, by format."""


def onnx(path: Path) -> tuple[Run, str]:
    """Open an ONNX file with onnxruntime on the CPU; returns the function and the version."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its threads would spin while they wait and keep reading and writing from the processors.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[
        0
    ], f"onnxruntime {version('onnxruntime')}"


def litert(path: Path) -> tuple[Run, str]:
    """Open a LiteRT file, refusing one that needs TensorFlow's own (Flex) operations.

    Raises
    ------
    ValueError
        Keras allows Flex operations when it converts; most LiteRT runtimes do not have them.
    """
    from ai_edge_litert.interpreter import Interpreter

    flex = flex_operations(path)
    if flex:
        raise ValueError(f"it needs TensorFlow's own operations: {', '.join(flex)}")
    interpreter = Interpreter(model_path=str(path))

    def run(batch: np.ndarray) -> np.ndarray:
        place = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(place, batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, batch)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run, f"ai-edge-litert {version('ai-edge-litert')}"


def flex_operations(path: Path) -> list[str]:
    """Return the names of TensorFlow's own operations that a LiteRT file calls."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    codes = [model.OperatorCodes(i).CustomCode() for i in range(model.OperatorCodesLength())]
    return sorted({code.decode() for code in codes if code and code.startswith(b"Flex")})


def openvino(path: Path) -> tuple[Run, str]:
    """Open an OpenVINO model on the CPU in float32; returns the function and the version."""
    import openvino as runtime

    compiled = runtime.Core().compile_model(str(path), "CPU", SETTINGS["openvino"])
    return lambda batch: compiled(batch)[0], f"openvino {version('openvino')}"
