"""A training step of the plain U-Net: this library, Keras as it comes, PyTorch; one network.

``python -m benchmarks.training_step [--size 256 --filters 32 --batch 8 --steps 40 --rounds 5]``;
forward and backward pass, loss and AdamW, on one batch in memory, with the steps of an epoch in a
row.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import interleaved, medians, parser, report, spread, table

PRECISIONS = ("float32", "bfloat16")


def variants(common: dict[str, Any]) -> dict[str, tuple[dict, dict]]:
    """Return every variant: settings of its process and the request."""
    pairs = {}
    for precision in PRECISIONS:
        for name, ours in (("this library", True), ("Keras as it comes", False)):
            pairs[f"{name}, {precision}"] = ({"ours": ours, **common}, {"precision": precision})
        for how in ("eager", "compiled"):
            request = {"precision": precision, "compiled": how == "compiled"}
            pairs[f"PyTorch {how}, {precision}"] = ({"torch": True, **common}, request)
    return pairs


def batch_of(settings: dict[str, Any]) -> tuple[Any, Any]:
    """Return random images and masks, float32 (N, S, S, 1)."""
    import numpy as np

    shape = (settings["batch"], settings["size"], settings["size"], 1)
    images = np.random.default_rng(0).random(shape, dtype="float32")
    return images, (images > 0.9).astype("float32")


def keras_steps(settings: dict[str, Any], precision: str) -> Any:
    """Return ``run(steps)``: `fit` of this library's network on the batch."""
    import keras

    from unet_lib import backend
    from unet_lib.memory import keep_freed_memory
    from unet_lib.model import UNetConfig, unet
    from unet_lib.training import TrainingConfig, compile_network

    if settings["ours"]:
        keep_freed_memory()
    else:
        unet.BatchNormalization = keras.layers.BatchNormalization
    config = UNetConfig(filters=settings["filters"], encoder=settings.get("encoder", "plain"))
    policy = precision if precision == "float32" else f"mixed_{precision}"
    network = unet.build_unet(config, settings["size"], precision=policy)
    compile_network(network, TrainingConfig(), 100)
    batch = batch_of(settings)

    def run(steps: int) -> None:
        network.fit(backend.fit_input([batch] * steps), verbose=0)

    return run


def torch_steps(settings: dict[str, Any], precision: str, compiled: bool) -> Any:
    """Return ``run(steps)``: PyTorch's loop, channels last."""
    import torch

    from benchmarks.torch_unet import TorchUNet, training_step

    torch.manual_seed(0)
    network = TorchUNet(settings["filters"]).to(memory_format=torch.channels_last)
    step = training_step(torch.compile(network) if compiled else network, precision == "bfloat16")
    images, masks = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in batch_of(settings))

    def run(steps: int) -> None:
        for _ in range(steps):
            step(images, masks)

    return run


def child(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Return what answers requests: the first builds and warms up, the following measure."""
    runs: dict[str, Any] = {}

    def answer(request: dict[str, Any]) -> dict[str, float]:
        key, steps = json.dumps(request), settings["steps"]
        start = time.perf_counter()
        if key not in runs:
            make = torch_steps if settings.get("torch") else keras_steps
            runs[key] = make(settings, **request)
            runs[key](3)
            return {"start_seconds": time.perf_counter() - start}
        before = resource.getrusage(resource.RUSAGE_SELF)
        runs[key](steps)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "images_per_second": steps * settings["batch"] / seconds,
            "cpu_seconds_per_step": used / steps,
        }

    return answer


def ratios(rates: dict[str, float]) -> dict[str, float]:
    """Return this library against the best of PyTorch and against Keras, in each precision."""
    made = {}
    for precision in PRECISIONS:
        ours = rates[f"this library, {precision}"]
        torch = [r for n, r in rates.items() if n.startswith("PyTorch") and precision in n]
        if torch:
            made[f"PyTorch's best, {precision}"] = ours / max(torch)
        made[f"Keras as it comes, {precision}"] = ours / rates[f"Keras as it comes, {precision}"]
    return made


def main(arguments: list[str] | None = None) -> None:
    """Run all variants, interleaved."""
    options = parser(__doc__, "training_step")
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--filters", type=int, default=16)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--steps", type=int, default=40, help="in a repetition")
    given = options.parse_args(arguments)
    common = {key: getattr(given, key) for key in ("size", "filters", "batch", "steps")}
    answers = interleaved("benchmarks.training_step", variants(common), given.rounds)
    rates = medians(answers, "images_per_second")
    cpu = medians(answers, "cpu_seconds_per_step")
    best = ratios(rates)
    # Other processes cost PyTorch's spinning threads more than ours: the fastest repetitions, too.
    ran = {name: answers[name][1:] for name in rates}
    fastest = ratios({n: max(a["images_per_second"] for a in rows) for n, rows in ran.items()})

    def row(name: str, rows: list[dict[str, Any]]) -> list[str]:
        share = rates[name] / rates[f"this library, {name.rsplit(', ', 1)[1]}"]
        start = f"{rows[0]['start_seconds']:.0f}"
        rate = spread(rows, "images_per_second", 2)
        return [rate, f"{share:.2f}", f"{cpu[name]:.2f}", start]

    head = ["variant", "images/s (least to most)", "of this library", "CPU s/step", "start, s"]
    text = table(f"Training step, {common}, {given.rounds} rounds", head, answers, row)
    text += "".join(
        f"\nthis library / {name}: {value:.2f} (fastest repetitions {fastest[name]:.2f})"
        for name, value in best.items()
    )
    path = given.json.with_stem(f"{given.json.stem}_{given.filters}_{given.size}")
    report(path, text, settings=common, ratios=best, fastest=fastest, answers=answers)


if __name__ == "__main__":
    main()
