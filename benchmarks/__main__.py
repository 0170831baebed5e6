"""``python -m benchmarks``: every benchmark in turn, the long ones in their short form."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

COMMANDS = (
    ["training_step"],
    ["training_step", "--filters", "32", "--size", "256", "--steps", "8"],
    ["evaluation", "--monai-images", "60"],
    ["prediction"],
)


def main() -> None:
    """Run each in a process of its own; end with 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = sorted({name for name, *_ in COMMANDS})
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="all if left out")
    chosen = parser.parse_args().only
    failed = []
    for name, *options in COMMANDS:
        if name not in chosen:
            continue
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options])
        print(f"[{name} {' '.join(options)}: {time.perf_counter() - start:.0f} s]", flush=True)
        if done.returncode:
            failed.append(name)
    if failed:
        sys.exit(f"benchmarks that failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
