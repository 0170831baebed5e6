"""How much a training differs from one machine to another: `python -m tools.repeatability`.

Trains one small recipe on phantoms again and again, each time in a process of its own, with what
differs between machines: number of threads, kernels (oneDNN, instruction set), precision, backend;
and, to compare with, with other seeds. Each network is scored on phantoms of another seed. Prints a
table; where weights are said to be the same, they are so bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from unet_lib.phantoms import make_phantoms

ROOT = Path(__file__).parent.parent
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
JAX = {"KERAS_BACKEND": "jax"}
# What is different, the environment, the settings of the training.
RUNS: list[tuple[str, dict[str, str], dict[str, object]]] = [
    ("nothing", {}, {}),
    ("nothing, once more", {}, {}),
    ("the switch deterministic", {}, {"deterministic": True}),
    ("the switch deterministic, once more", {}, {"deterministic": True}),
    ("deterministic, 4 workers instead of 2", {}, {"deterministic": True, "workers": 4}),
    ("1 thread", ONE_THREAD, {}),
    ("AVX2 instead of what the processor has", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, {}),
    ("without oneDNN", {"TF_ENABLE_ONEDNN_OPTS": "0"}, {}),
    ("bfloat16 instead of float32", {}, {"precision": "mixed_bfloat16"}),
    ("JAX instead of TensorFlow", JAX, {}),
    ("JAX, once more", JAX, {}),
    *((f"seed {seed} instead of 0", {}, {"seed": seed}) for seed in (1, 2, 3)),
]


def child(folder: Path, settings: dict[str, object]) -> None:
    """Train and score; print a hash of the weights and the mean Dice of the lesion images."""
    from unet_lib.dataset import find_cases, make_split
    from unet_lib.images import Preprocessing
    from unet_lib.inference import evaluate_cases
    from unet_lib.model import UNetConfig
    from unet_lib.training import Recipe, TrainingConfig, train

    cases = find_cases(folder / "phantoms")
    split = make_split(cases, test=0.1, validation=0.2).split(cases, 0)
    training = {"epochs": 30, "precision": "float32", **settings}
    recipe = Recipe(
        UNetConfig(filters=8, depth=3), Preprocessing(64), training=TrainingConfig(**training)
    )
    with tempfile.TemporaryDirectory() as place:
        segmenter = train(split, place, recipe, progress=False).segmenter
    digest = hashlib.sha256(b"".join(w.tobytes() for w in segmenter.network.get_weights()))
    scored = evaluate_cases(segmenter, find_cases(folder / "others"), progress=False)
    dice = scored.table.lesion_cases.column("dice")
    print(json.dumps([digest.hexdigest(), float(np.mean(dice)), len(dice)]))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "SETTINGS"))
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), json.loads(options.child[1]))
        return 0
    names: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        make_phantoms(Path(place) / "phantoms", 60, seed=1, progress=False)
        make_phantoms(Path(place) / "others", 60, seed=2, progress=False)
        print("| what differs | mean Dice | n | weights |\n|---|---|---|---|")
        for what, environment, settings in RUNS:
            words = ["-m", "tools.repeatability", "--child", place, json.dumps(settings)]
            done = subprocess.run(
                [sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            )  # fmt: skip
            digest, dice, n = json.loads(done.stdout.splitlines()[-1])
            name = names.setdefault(digest, chr(ord("A") + len(names)))
            print(f"| {what} | {dice:.4f} | {n} | {name} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
