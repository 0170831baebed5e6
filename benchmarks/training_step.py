"""What the fused batch normalisation and the kept memory are worth in a training step.

Each variant runs in a process of its own, in turn, several times over; the table shows medians and
the spread. ``python -m benchmarks.training_step [--size 128 --filters 16 --batch 8 --rounds 5]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

VARIANTS = {
    "Keras as it comes": {"fused": False, "keep": False},
    "fused batch norm": {"fused": True, "keep": False},
    "memory kept": {"fused": False, "keep": True},
    "both (this library)": {"fused": True, "keep": True},
}
STEPS = 6


def measure(options: dict) -> dict[str, float]:
    """Run in the child: images per second and page faults per step, `fit` on given batches."""
    import resource
    import time

    import keras
    import numpy as np

    from unet_lib import backend
    from unet_lib.model import UNetConfig, unet
    from unet_lib.training import TrainingConfig, compile_network

    if options["keep"]:
        backend.keep_freed_memory()
    if not options["fused"]:
        unet.BatchNormalization = keras.layers.BatchNormalization
    side, batch = options["size"], options["batch"]
    network = unet.build_unet(
        UNetConfig(filters=options["filters"]), side, precision=options["precision"]
    )
    compile_network(network, TrainingConfig(), STEPS)
    rng = np.random.default_rng(0)
    images = rng.random((batch, side, side, 1), dtype="float32")
    masks = (images > 0.9).astype("float32")

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return STEPS

        def __getitem__(self, index: int) -> tuple:
            return images, masks

    network.fit(Batches(), verbose=0)  # traces and warms up
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    network.fit(Batches(), verbose=0)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images_per_second": STEPS * batch / seconds,
        "cpu_seconds_per_step": (
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        )
        / STEPS,
        "faults_per_step": (after.ru_minflt - before.ru_minflt) / STEPS,
        "peak_mb": after.ru_maxrss / 1024,
    }


def main() -> None:
    """Run all variants, interleaved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("runs/bench/training_step.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    common = {key: getattr(options, key) for key in ("size", "filters", "batch", "precision")}
    for _ in range(options.rounds):
        for name, variant in VARIANTS.items():
            child = subprocess.run(
                [sys.executable, "-m", "benchmarks.training_step", "--child",
                 json.dumps({**common, **variant})],
                capture_output=True, text=True, check=True, env={**os.environ},
            )  # fmt: skip
            found[name].append(json.loads(child.stdout.splitlines()[-1]))
    base = statistics.median(row["images_per_second"] for row in found["Keras as it comes"])
    print(f"training step, {common}, {options.rounds} rounds")
    print(
        "| variant | images/s (least to most) | ratio | CPU s/step | page faults/step | peak MB |"
    )
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        rates = sorted(row["images_per_second"] for row in rows)
        middle = statistics.median(rates)
        cpu, faults, peak = (
            statistics.median(row[key] for row in rows)
            for key in ("cpu_seconds_per_step", "faults_per_step", "peak_mb")
        )
        print(
            f"| {name} | {middle:.1f} ({rates[0]:.1f} to {rates[-1]:.1f}) | {middle / base:.2f} "
            f"| {cpu:.2f} | {faults:,.0f} | {peak:,.0f} |"
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"settings": common, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
