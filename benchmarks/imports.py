"""What importing costs beyond NumPy and SciPy, and that it loads no backend.

``python -m benchmarks.imports [--rounds 7]``
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.measuring import parser, report, spread, table

BASE = "numpy, scipy.ndimage"
MODULES = ("unet_lib", "unet_lib.metrics")
_CODE = """
import sys, time
import {base}
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
loaded = [n for n in ("keras", "tensorflow", "jax", "torch") if n in sys.modules]
print(seconds, *loaded)
"""


def main(arguments: list[str] | None = None) -> None:
    """Import each module in fresh processes."""
    given = parser(__doc__, "imports", rounds=7).parse_args(arguments)
    found: dict[str, list[float]] = {name: [] for name in MODULES}
    loaded: dict[str, list[str]] = {}
    for number in range(given.rounds + 1):
        for name in MODULES:
            done = subprocess.run(
                [sys.executable, "-c", _CODE.format(base=BASE, module=name)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            seconds, *loaded[name] = done.stdout.split()
            if number:  # the first fills the file cache
                found[name].append(float(seconds))
    rows = [
        [name, spread(values, 3), ", ".join(loaded[name]) or "none"]
        for name, values in found.items()
    ]
    text = table(
        f"Import beyond {BASE}, {given.rounds} rounds", ["module", "s", "backends loaded"], rows
    )
    middle = {name: statistics.median(values) for name, values in found.items()}
    report(given.json, text, seconds=middle, loaded=loaded, found=found)


if __name__ == "__main__":
    main()
