"""Share of the machine's convolution rate that training reaches, and where the rest goes.

The rate: the fastest of large 3 x 3 convolutions, forward and backward, through TensorFlow and
through PyTorch (oneDNN in both), in the same run. A training step of a network has three times the
multiply-adds of its convolutions (forward, gradient of the input, gradient of the kernel).
``python -m benchmarks.roofline [--rounds 5] [--networks 16x128 32x256 64x256]``
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

from benchmarks.measuring import interleaved, parser, report, serve, spread, table
from benchmarks.training_step import LIBRARY, PRECISIONS, keras_steps

# pixels a side, channels in and out: the shapes of a U-Net's levels, large enough to be at the rate
SHAPES = ((64, 128), (32, 256), (16, 512))
BATCH = 8


def tensorflow_rate(precision: str) -> Any:
    """Return a function that gives the best rate in Gflop/s, forward and backward."""
    import tensorflow as tf

    dtype = getattr(tf, precision)

    @tf.function
    def both(x: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = tf.nn.conv2d(x, kernel, 1, "SAME")
            # times y: else the gradient would not depend on it and be folded away
            loss = tf.reduce_sum(tf.cast(y, tf.float32) * 1e-3)
        return tape.gradient(loss, [x, kernel])

    def run(side: int, channels: int) -> float:
        x = tf.cast(tf.random.normal((BATCH, side, side, channels)), dtype)
        kernel = tf.cast(tf.random.normal((3, 3, channels, channels)), dtype)

        def step() -> None:
            for value in both(x, kernel):
                value.numpy()

        return timed(step, side, channels)

    return run


def torch_rate(precision: str) -> Any:
    """Return the same through PyTorch."""
    import torch

    dtype = getattr(torch, precision)

    def run(side: int, channels: int) -> float:
        x = torch.randn(BATCH, channels, side, side, dtype=dtype)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, dtype=dtype)
        layer = layer.to(memory_format=torch.channels_last)
        gradient = torch.ones_like(x.detach())

        def step() -> None:
            x.grad = None
            layer.zero_grad()
            layer(x).backward(gradient)

        return timed(step, side, channels)

    return run


def timed(step: Any, side: int, channels: int) -> float:
    """Run for about .3 s after a warm-up; Gflop/s (a multiply-add is 2)."""
    step()
    step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.3:
        step()
        count += 1
    seconds = time.perf_counter() - start
    return 3 * 2 * BATCH * side**2 * channels**2 * 9 * count / seconds / 1e9


def child(settings: dict[str, Any]) -> None:
    """Answer with the rate, in Gflop/s, of convolutions or of a network's step."""
    runs: dict[str, Any] = {}

    def answer(request: dict[str, Any]) -> dict[str, float]:
        key = json.dumps(request)
        if "network" not in request:
            make = torch_rate if settings.get("torch") else tensorflow_rate
            run = runs.setdefault(key, make(request["precision"]))
            rates = {f"{side} px, {c} channels": run(side, c) for side, c in SHAPES}
            return {"gflops": max(rates.values()), **rates}
        filters, side = request["network"]
        if key not in runs:
            from unet_lib.model import UNetConfig, build_unet, summarise_network

            network = build_unet(UNetConfig(filters=filters), side)
            flops = 3 * 2 * BATCH * summarise_network(network).multiply_adds
            del network
            step = {**LIBRARY, "filters": filters, "size": side, "batch": BATCH}
            runs[key] = flops, keras_steps(step, request["precision"])
            runs[key][1](1)
        flops, run = runs[key]
        steps = max(1, round(2e11 / flops))
        start = time.perf_counter()
        run(steps)
        return {"gflops": flops * steps / (time.perf_counter() - start) / 1e9}

    serve(answer)


def profile(filters: int, side: int, precision: str) -> dict[str, float]:
    """Return milliseconds of a step by kind of work, as oneDNN reports them, and the rest."""
    code = (
        "import json, sys, time; from benchmarks.training_step import keras_steps\n"
        f"s = {{'fused': True, 'keep': True, 'filters': {filters}, 'size': {side}, 'batch': 8}}\n"
        f"run = keras_steps(s, {precision!r}); run(2); sys.stdout.flush()\n"
        "print('begin', flush=True); start = time.perf_counter(); run(2)\n"
        "print('end', (time.perf_counter() - start) / 2 * 1000, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "ONEDNN_VERBOSE": "profile_exec", "DNNL_VERBOSE": "1"},
    )  # fmt: skip
    spent: dict[str, float] = defaultdict(float)
    counting = False
    for line in done.stdout.splitlines():
        if line == "begin":
            counting = True
        elif line.startswith("end "):
            step = float(line.split()[1])
        elif counting and (found := re.match(r"onednn_verbose.*?,exec,cpu,(.+),([\d.]+)$", line)):
            kind, _, way = found[1].split(",")[:3]
            name = kind if kind == "reorder" else f"{kind} {way}"
            spent[name] += float(found[2]) / 2
    if not spent:
        return {}
    spent["outside oneDNN, or waiting"] = step - sum(spent.values())
    return {"step": step, **spent}


def main(arguments: list[str] | None = None) -> None:
    """Measure rates and shares, interleaved, then profile each network once."""
    options = parser(__doc__, "roofline")
    options.add_argument("--networks", nargs="+", default=["16x128", "32x256", "64x256"])
    given = options.parse_args(arguments)
    if given.child:
        child(json.loads(given.child))
        return
    variants: dict[str, tuple[dict, dict]] = {}
    networks = {name: [int(v) for v in name.split("x")] for name in given.networks}
    for precision in PRECISIONS:
        request = {"precision": precision}
        variants[f"convolutions, TensorFlow, {precision}"] = ({}, request)
        variants[f"convolutions, PyTorch, {precision}"] = ({"torch": True}, request)
        for name, pair in networks.items():
            variants[f"{name}, {precision}"] = ({"own": True}, {**request, "network": pair})
    found = interleaved("benchmarks.roofline", variants, given.rounds)
    rows, shares = [], {}
    for precision in PRECISIONS:
        rates = {
            name: [row["gflops"] for row in answers[1:]]
            for name, answers in found.items()
            if name.endswith(precision) and "error" not in answers[-1]
        }
        middle = {name: statistics.median(values) for name, values in rates.items()}
        top = max(rate for name, rate in middle.items() if name.startswith("convolutions"))
        for name, values in rates.items():
            shares[name] = middle[name] / top
            rows.append([name, spread(values, 0), f"{shares[name]:.0%}"])
    head = ["what (filters x pixels a side)", "Gflop/s (least to most)", "share of the rate"]
    text = table(f"Roofline, batch {BATCH}, {given.rounds} rounds", head, rows)
    profiles = {}
    for name, (filters, side) in networks.items():
        for precision in PRECISIONS:
            parts = profiles[f"{name}, {precision}"] = profile(filters, side, precision)
            if parts:
                shown = [[part, f"{ms:.0f}", f"{ms / parts['step']:.0%}"]
                         for part, ms in sorted(parts.items(), key=lambda item: -item[1])
                         if ms >= 0.01 * parts["step"]]  # fmt: skip
                title = f"\nProfile of a step, {name}, {precision}"
                text += table(title, ["part", "ms", "share"], shown)
    report(given.json, text, shares=shares, profiles=profiles, found=found)


if __name__ == "__main__":
    main()
