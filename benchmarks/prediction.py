"""Prediction from file to mask: this library against each runtime used alone the obvious way.

The obvious way is a loop over the files: read, resize, run one image, resize back, threshold. Ours
is ``segment`` for one image and ``segment_files`` for many; it also cleans the mask and measures
how far the image is from the training images. Files are phantoms of about 500 x 600 pixels as PNG;
no results are written.

``python -m benchmarks.prediction [--network plain|busi-fold0|...] [--images 100] [--rounds 5]``
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import measuring

_START = time.perf_counter()
_FILTERS, _SIDE = 32, 256
_ALONE = 5  # repetitions of one image within an answer

VARIANTS = {
    "Keras predict": {"peer": "keras"},
    "ONNX Runtime": {"peer": "onnx"},
    "OpenVINO": {"peer": "openvino"},
    "ours": {},
    "ours, in Keras": {"runtime": "keras"},
    "ours, no shift monitor": {"monitor": "no"},
}


def _segmenter(name: str, runtime: str = "keras") -> Any:
    from unet_lib.weights import load_segmenter

    if name != "plain":
        return load_segmenter(name, runtime=runtime)
    import keras

    from unet_lib.images import Preprocessing
    from unet_lib.inference import Segmenter
    from unet_lib.model import UNetConfig, build_unet

    keras.utils.set_random_seed(0)
    network = build_unet(UNetConfig(filters=_FILTERS), _SIDE)
    return Segmenter(network, Preprocessing(_SIDE))


def _obvious(run: Callable[[Any], Any], side: int) -> Callable[[Path], Any]:
    """Return the loop's body: from a file to its mask."""
    import cv2
    import numpy as np

    def segment(path: Path) -> Any:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        values = run(small.astype(np.float32)[None, ..., None] / 255.0)
        return cv2.resize(np.asarray(values).reshape(side, side), image.shape[::-1]) >= 0.5

    return segment


def _peer(settings: dict[str, str]) -> Callable[[Any], Any]:
    peer, folder = settings["peer"], Path(settings["folder"])
    if peer == "keras":
        network = _segmenter(settings["network"]).network
        return lambda batch: network.predict(batch, verbose=0)
    if peer == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", hints)
    return lambda batch: compiled(batch)[0]


def child(settings: dict[str, str]) -> Callable[[Any], dict[str, float]]:
    """Return what measures one image alone and all in a row; the first time it warms up."""
    paths = sorted(Path(settings["folder"]).glob("*.png"))
    first: list[float] = []
    if "peer" in settings:
        side = int((Path(settings["folder"]) / "side.txt").read_text())
        one = _obvious(_peer(settings), side)
    else:
        segmenter = _segmenter(settings["network"], settings.get("runtime", "auto"))
        segmenter.monitor = None if "monitor" in settings else segmenter.monitor
        one = segmenter.segment

    def many() -> None:
        if "peer" in settings:
            for path in paths:
                one(path)
        else:
            for _ in segmenter.segment_files(paths, progress=False):
                pass

    def answer(_request: Any) -> dict[str, float]:
        if not first:  # everything compiles, and 25 images are run at least
            one(paths[0])
            first.append(time.perf_counter() - _START)
            for _ in range(max(1, 25 // len(paths))):
                many()
        alone = []
        for _ in range(_ALONE):
            start = time.perf_counter()
            one(paths[0])
            alone.append(time.perf_counter() - start)
        start, cpu = time.perf_counter(), time.process_time()
        many()
        rate = len(paths) / (time.perf_counter() - start)
        cpu_ms = 1e3 * (time.process_time() - cpu) / len(paths)
        alone_ms = 1e3 * statistics.median(alone)
        return {"rate": rate, "cpu_ms": cpu_ms, "alone_ms": alone_ms, "first_s": first[0]}

    return answer


def _prepare(folder: Path, network: str, images: int, peers: set[str | None]) -> None:
    """Write phantoms, and the network as far as peers need its file."""
    from unet_lib.images import write_image
    from unet_lib.phantoms import make_phantom
    from unet_lib.weights import export_segmenter

    for number in range(images):
        kind = ("benign", "malignant", "normal")[number % 3]
        write_image(folder / f"{number:04}.png", make_phantom(kind, seed=number)[0])
    segmenter = _segmenter(network)
    (folder / "side.txt").write_text(str(segmenter.preprocessing.size))
    for format in peers & {"onnx", "openvino"}:
        export_segmenter(segmenter, folder, format)


def main(arguments: list[str] | None = None) -> None:
    """Run all variants, interleaved."""
    parser = measuring.parser(__doc__, "prediction")
    parser.add_argument("--network", default="busi-fold0", help="plain, or a model by name")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", nargs="+", help="variants whose names hold one of these words")
    options = parser.parse_args(arguments)
    chosen = {
        name: settings
        for name, settings in VARIANTS.items()
        if not options.only or any(word in name for word in options.only)
    }
    with tempfile.TemporaryDirectory() as folder:
        peers = {settings.get("peer") for settings in chosen.values()}
        _prepare(Path(folder), options.network, options.images, peers)
        common = {"network": options.network, "folder": folder}
        answers = measuring.interleaved(
            "benchmarks.prediction",
            {name: ({**common, **settings}, None) for name, settings in chosen.items()},
            options.rounds,
        )
    rates, cpu = measuring.medians(answers, "rate"), measuring.medians(answers, "cpu_ms")

    def row(name: str, rows: list[dict[str, float]]) -> list[str]:
        rate, alone = measuring.spread(rows, "rate"), measuring.spread(rows, "alone_ms")
        return [rate, f"{cpu[name]:.1f}", alone, f"{rows[0]['first_s']:.1f}"]

    ratios = {
        f"{name} / {peer}": rates[name] / rates[peer]
        for name in rates
        for peer in rates
        if name.startswith("ours") and not peer.startswith("ours")
    }
    title = (
        f"prediction, file to mask, {options.network}, {options.images} images, "
        f"{options.rounds} rounds"
    )
    head = ["variant", f"images/s of {options.images}", "CPU ms an image", "one image, ms"]
    text = measuring.table(title, [*head, "start to first mask, s"], answers, row)
    measuring.report(options.json, text, ratios=ratios, answers=answers)


if __name__ == "__main__":
    main()
