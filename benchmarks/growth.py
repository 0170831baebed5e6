"""How time and memory grow with images, size and batch, with the exponent of the growth.

``python -m benchmarks.growth [--images 100 1000 10000] [--short]``: reading and one augmented pass
over all images and a few training steps within a fixed cache budget (``memory_mb``), scoring of
all images, then steps of growing size and batch. Each row is a process of its own, so that its
peak memory is its own. The pictures are 20 phantoms under many names. ``--short`` for `make
bench`.
"""

from __future__ import annotations

import json
import math
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import Worker, parser, report, serve, table
from benchmarks.training_step import LIBRARY, keras_steps

PICTURES, BUDGET_MB, SIDE = 20, 64, 128
SIZES, BATCHES = (128, 256, 512, 1024), (1, 2, 4, 8, 16, 32, 64)


def peak_mb() -> float:
    """Return the largest memory of this process so far; file pages it maps are counted too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_mb() -> float:
    """Return the memory that is the process's own now, without pages of files it maps."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return math.nan


def many(folder: Path, count: int) -> None:
    """Lay out `count` images in BUSI's way as links to the phantoms of ``folder/phantoms``."""
    sources = sorted(
        p for p in (folder / "phantoms").glob("*/*.png") if "_mask" not in p.name
    )  # fmt: skip
    target = folder / str(count)
    for number in range(count):
        image = sources[number % len(sources)]
        label = image.parent.name
        (target / label).mkdir(parents=True, exist_ok=True)
        for path in image.parent.glob(f"{image.stem}*.png"):
            rest = path.name.removeprefix(image.stem)
            if rest == ".png" or rest.startswith("_mask"):
                os.link(path, target / label / f"{label} ({number + 1}){rest}")


def data(request: dict[str, Any]) -> dict[str, Any]:
    """Read, train a few steps and pass over every image once, with augmentation."""
    from unet_lib import Augmentation, Preprocessing, find_cases
    from unet_lib.batches import Batches, PreparedCases

    run = keras_steps({**LIBRARY, "filters": 8, "size": SIDE, "batch": 8}, "float32")
    run(3)
    start = time.perf_counter()
    cases = find_cases(request["folder"], audit=None)
    prepared = PreparedCases(cases, Preprocessing(SIDE), memory_mb=BUDGET_MB)
    reading = time.perf_counter() - start
    batches = Batches(prepared, 8, augmentation=Augmentation(), shuffle=True)
    start, own = time.perf_counter(), 0.0
    for index in range(len(batches)):
        batches[index]
        own = max(own, own_mb()) if index % 50 == 0 else own
    seconds = time.perf_counter() - start
    run(5)
    return {
        "images": len(cases), "reading_s": reading, "epoch_of_data_s": seconds,
        "own_mb": own, "peak_mb": peak_mb(),
    }  # fmt: skip


def scoring(request: dict[str, Any]) -> dict[str, Any]:
    """Evaluate a small network on every image at its original size."""
    from unet_lib import Preprocessing, Segmenter, UNetConfig, build_unet, find_cases
    from unet_lib.inference import evaluate_cases

    segmenter = Segmenter(build_unet(UNetConfig(filters=4, depth=3), 64), Preprocessing(64))
    cases = find_cases(request["folder"], audit=None)
    start = time.perf_counter()
    evaluate_cases(segmenter, cases, progress=False)
    seconds = time.perf_counter() - start
    return {"images": len(cases), "scoring_s": seconds, "own_mb": own_mb(), "peak_mb": peak_mb()}


def step(request: dict[str, Any]) -> dict[str, Any]:
    """Time training steps of one size and batch."""
    run = keras_steps({**LIBRARY, **request}, "float32")
    run(2)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run(1)
        times.append(time.perf_counter() - start)
    return {"step_s": sorted(times)[1], "peak_mb": peak_mb()}


def asked(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run one row in a process of its own."""
    worker = Worker("benchmarks.growth", {"kind": kind})
    try:
        found = worker.ask(request)
    finally:
        worker.close()
    print(kind, request, found, flush=True)
    return found


def exponent(rows: list[dict[str, Any]], x: str, y: str) -> str:
    """Return the exponent between the last two rows: 1 is proportional growth."""
    if len(rows) < 2:
        return "-"
    before, last = rows[-2], rows[-1]
    return f"{math.log(last[y] / before[y]) / math.log(last[x] / before[x]):.2f}"


def shown(title: str, rows: list[dict[str, Any]], x: str) -> str:
    """Return a table of the rows, the exponents below."""
    keys = [key for key in rows[0] if key.endswith(("_s", "_mb"))]
    lines = [
        [f"{row[x]:,}", *(f"{row[key]:,.{2 if row[key] < 10 else 0}f}" for key in keys)]
        for row in rows
    ]
    lines.append(["exponent, last two", *(exponent(rows, x, key) for key in keys)])
    return "\n" + table(title, [x, *keys], lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure every row and print the tables."""
    options = parser(__doc__, "growth", rounds=1)
    options.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10000])
    options.add_argument("--short", action="store_true", help="fewer rows, about two minutes")
    options.add_argument("--only", nargs="+", default=["data", "scoring", "size", "batch"])
    given = options.parse_args(arguments)
    if given.child:
        kinds = {"data": data, "scoring": scoring, "step": step}
        serve(kinds[json.loads(given.child)["kind"]])
        return
    counts = [100, 1000] if given.short else given.images
    sizes = SIZES[:2] if given.short else SIZES
    batches = (2, 8) if given.short else BATCHES
    from unet_lib.phantoms import make_phantoms

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_phantoms(folder / "phantoms", PICTURES)
        for count in counts:
            many(folder, count)
        rows = {
            kind: [asked(kind, {"folder": str(folder / str(count))}) for count in counts]
            for kind in ("data", "scoring")
            if kind in given.only
        }
    for kind, values, other in (("size", sizes, {"batch": 2}), ("batch", batches, {"size": 128})):
        if kind in given.only:
            requests = [{"filters": 8, kind: value, **other} for value in values]
            rows[kind] = [{**request, **asked("step", request)} for request in requests]
    titles = {
        "data": (f"Training data, budget {BUDGET_MB} MB, {SIDE} px", "images"),
        "scoring": ("Evaluation", "images"),
        "size": ("Training step, 8 filters, batch 2", "size"),
        "batch": ("Training step, 8 filters, 128 px", "batch"),
    }
    text = "".join(shown(titles[kind][0], found, titles[kind][1]) for kind, found in rows.items())
    ratios = {
        f"{kind}, {key}": found[-1][key] / found[-2][key]
        for kind in ("data", "scoring")
        for key in ("own_mb", "peak_mb")
        if len(found := rows.get(kind, [])) > 1
    }
    if ratios:
        text += f"\n{counts[-1]:,} images / {counts[-2]:,} images: " + ", ".join(
            f"{name} {value:.2f}" for name, value in ratios.items()
        )
    report(given.json, text, ratios=ratios, rows=rows)


if __name__ == "__main__":
    main()
