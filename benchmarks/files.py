"""Training from files with full augmentation: against the network alone, and against peers.

``python -m benchmarks.files [--size 128 --filters 16 --images 64 --rounds 5]`` on phantoms of
BUSI's layout. Each repetition is one epoch. "As tutorials write it": float32 arrays, Keras
augmentation layers on image and mask in a ``tf.data`` map, Keras' batch norm, Adam, float32,
``model.fit``. Reading (decoding, resizing) and start (building, first steps) are shown apart.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import interleaved, parser, report, serve, spread, table
from benchmarks.training_step import batch_of

BATCH = 8
VARIANTS = {
    "this library, from files": ("library", "files"),  # first: its start is the whole start
    "its network alone (one batch)": ("library", "alone"),
    "the same files, fed as Keras does": ("library", "kerasinput"),
    "Keras as tutorials write it": ("tutorial", "plain"),
    "keras-unet-collection, as tutorials": ("tutorial", "collection"),
    "segmentation_models_pytorch, one batch": ("torch", "smp"),
}


def library(settings: dict[str, Any]) -> dict[str, Any]:
    """Prepare this library's training; ``alone`` and ``files`` run an epoch."""
    from unet_lib import Augmentation, Preprocessing, UNetConfig, build_unet, find_cases
    from unet_lib.backend import fit_input, keep_freed_memory, recommended_precision
    from unet_lib.batches import Batches, PreparedCases
    from unet_lib.training import TrainingConfig, compile_network

    keep_freed_memory()
    start = time.perf_counter()
    prepared = PreparedCases(find_cases(settings["folder"]), Preprocessing(settings["size"]))
    reading = time.perf_counter() - start
    batches = Batches(prepared, BATCH, augmentation=Augmentation(), shuffle=True)
    given = batch_of({"batch": BATCH, "size": settings["size"]})

    precision = recommended_precision()
    config = UNetConfig(filters=settings["filters"])
    network = build_unet(config, settings["size"], precision=precision)
    compile_network(network, TrainingConfig(), len(batches))
    alone = [given] * len(batches)
    return {
        "alone": lambda: network.fit(fit_input(alone), verbose=0),
        "files": lambda: network.fit(fit_input(batches), verbose=0),
        "kerasinput": lambda: network.fit(batches, verbose=0),
        "facts": {"reading_seconds": reading, "precision": precision},
    }


def tutorial(settings: dict[str, Any]) -> dict[str, Any]:
    """Prepare the tutorials' training, of our network and of keras-unet-collection's."""
    import cv2
    import keras
    import numpy as np
    import tensorflow as tf

    from unet_lib.model import UNetConfig, unet

    side, filters = settings["size"], settings["filters"]
    start = time.perf_counter()
    masks = sorted(Path(settings["folder"]).glob("*/*_mask.png"))
    pictures = [path.with_name(path.name.replace("_mask", "")) for path in masks]
    x, y = (
        np.stack([cv2.resize(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE), (side, side)) for p in ps])
        for ps in (pictures, masks)
    )
    x, y = x[..., None].astype("float32") / 255, (y[..., None] > 0).astype("float32")
    reading = time.perf_counter() - start
    layers = keras.layers
    geometry = keras.Sequential([
        layers.RandomFlip("horizontal"), layers.RandomRotation(15 / 360, fill_mode="constant"),
        layers.RandomTranslation(0.08, 0.08, fill_mode="constant"),
        layers.RandomZoom(0.15, fill_mode="constant"),
    ])  # fmt: skip
    greys = keras.Sequential([
        layers.RandomContrast(0.25, value_range=(0, 1)),
        layers.RandomBrightness(0.1, value_range=(0, 1)),
        layers.GaussianNoise(0.06),
    ])  # fmt: skip

    def augment(image: Any, mask: Any) -> tuple[Any, Any]:
        both = geometry(tf.concat([image, mask], -1), training=True)
        return greys(both[..., :1], training=True), tf.round(both[..., 1:])

    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(BATCH)
    data = data.map(augment).prefetch(tf.data.AUTOTUNE)

    def fitted(network: keras.Model) -> Any:
        network.compile("adam", "binary_crossentropy", metrics=["accuracy"], jit_compile=False)
        return lambda: network.fit(data, verbose=0)

    def collection() -> Any:
        from keras_unet_collection import models

        widths = list(UNetConfig(filters=filters).widths)
        return fitted(
            models.unet_2d(
                (side, side, 1),
                widths,
                1,
                batch_norm=True,
                output_activation="Sigmoid",
                pool=True,
                unpool=False,
            )  # fmt: skip
        )

    def plain() -> Any:
        unet.BatchNormalization = layers.BatchNormalization
        return fitted(unet.build_unet(UNetConfig(filters=filters), side))

    facts = {"reading_seconds": reading, "precision": "float32"}
    return {"make": {"plain": plain, "collection": collection}, "facts": facts}


def torch_peer(settings: dict[str, Any]) -> dict[str, Any]:
    """Prepare a step of segmentation_models_pytorch's U-Net of about the same cost."""
    import segmentation_models_pytorch as smp
    import torch

    from benchmarks.torch_unet import training_step

    network = torch.nn.Sequential(
        smp.Unet("tu-efficientnet_lite0", encoder_weights=None, in_channels=1, classes=1),
        torch.nn.Sigmoid(),
    ).to(memory_format=torch.channels_last)
    step = training_step(network, bfloat16=False)
    batch = batch_of({"batch": BATCH, "size": settings["size"]})
    images, masks = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in batch)

    def epoch() -> None:
        for _ in range(-(-settings["images"] // BATCH)):
            step(images, masks)

    return {"smp": epoch, "facts": {"reading_seconds": 0.0, "precision": "float32"}}


def child(settings: dict[str, Any]) -> None:
    """Answer with the images per second of an epoch; the first one starts everything."""
    made: dict[str, Any] = {}
    seen: set[str] = set()

    def answer(request: str) -> dict[str, Any]:
        start, first = time.perf_counter(), request not in seen
        if not made:
            kinds = {"library": library, "tutorial": tutorial, "torch": torch_peer}
            made.update(kinds[settings["kind"]](settings))
        if request in made.get("make", {}) and request not in made:
            made[request] = made["make"][request]()
        made[request]()
        seconds = time.perf_counter() - start
        facts = {"precision": made["facts"]["precision"]}
        if first:
            seen.add(request)
            facts |= {"first_seconds": seconds}
            facts |= {"reading_seconds": made["facts"]["reading_seconds"]}
        return {"images_per_second": settings["images"] / seconds, **facts}

    serve(answer)


def main(arguments: list[str] | None = None) -> None:
    """Train an epoch of each, interleaved."""
    options = parser(__doc__, "files")
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--filters", type=int, default=16)
    options.add_argument("--images", type=int, default=64)
    given = options.parse_args(arguments)
    if given.child:
        child(json.loads(given.child))
        return
    from unet_lib.phantoms import make_phantoms

    with tempfile.TemporaryDirectory() as folder:
        make_phantoms(Path(folder) / "phantoms", given.images)
        common = {key: getattr(given, key) for key in ("size", "filters", "images")}
        settings = {**common, "folder": str(Path(folder) / "phantoms")}
        variants = {name: ({**settings, "kind": k}, r) for name, (k, r) in VARIANTS.items()}
        found = interleaved("benchmarks.files", variants, given.rounds)
    rates, rows = {}, []
    for name, answers in found.items():
        if "error" in answers[-1]:
            rows.append([name, "does not run: " + answers[-1]["error"], "", "", ""])
            continue
        values = [row["images_per_second"] for row in answers[1:]]
        rates[name] = statistics.median(values)
        facts = answers[0]
        rows.append([
            name, facts["precision"], spread(values), f"{facts['reading_seconds']:.1f}",
            f"{facts['first_seconds']:.0f}",
        ])  # fmt: skip
    ours = rates["this library, from files"]
    ratios = {n: ours / rate for n, rate in rates.items() if n != "this library, from files"}
    head = [
        "training", "precision", "images/s (least to most)", "reading, s", "reading to 1st epoch, s"
    ]  # fmt: skip
    text = table(f"Training end to end, {common}, {given.rounds} rounds", head, rows)
    text += "\n" + "\n".join(
        f"this library from files / {name}: {value:.2f}" for name, value in ratios.items()
    )
    report(given.json, text, settings=common, ratios=ratios, found=found)


if __name__ == "__main__":
    main()
