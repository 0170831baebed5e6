"""Mutation testing of metrics, dataset and report: whether tests notice faults in the code.

mutmut makes the mutants (settings in pyproject.toml; it leaves decorated functions out, so also
properties). All of them take hours; this draws a sample, has it tested, and counts. Mutants of
messages are counted like all others. Written below mutants/.

    python -m tools.mutate --sample 300 --seed 0
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTMUT = [sys.executable, "-m", "mutmut", "run", "--max-children", "2"]
CAUGHT = ("killed", "timeout", "suspicious", "segfault")


def results() -> dict[str, int | None]:
    """Return the exit code of the tests by mutant; None where it was not tested."""
    found: dict[str, int | None] = {}
    for path in sorted((ROOT / "mutants" / "unet_lib").rglob("*.meta")):
        found |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def main() -> int:
    """Make mutants, test a sample, print the share that was caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=300, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--count", action="store_true", help="count earlier results only")
    options = parser.parse_args()
    if not options.count:
        # One mutant is enough to make all of them and to learn which test reaches which.
        subprocess.run([*MUTMUT, "unet_lib.metrics.counts.x_ratio__mutmut_1"], cwd=ROOT, check=True)
    packages = defaultdict(list)
    for name in sorted(results()):
        packages[name.split(".")[1]].append(name)
    rng = random.Random(options.seed)
    chosen = {
        package: rng.sample(names, min(options.sample, len(names)))
        for package, names in packages.items()
    }
    if not options.count:
        names = [name for sample in chosen.values() for name in sample]
        subprocess.run([*MUTMUT, *names], cwd=ROOT, check=True)
    _report(chosen, {package: len(names) for package, names in packages.items()})
    return 0


def _report(chosen: dict[str, list[str]], totals: dict[str, int]) -> None:
    from mutmut.stats import status_by_exit_code

    codes = results()
    for package, names in chosen.items():
        status = Counter(status_by_exit_code[codes[name]] for name in names)
        tested = sum(status.values()) - status["not checked"]
        caught = sum(status[name] for name in CAUGHT)
        share = f"{caught / tested:.1%}" if tested else "-"
        print(
            f"{package}: {caught} of {tested} caught ({share}), {totals[package]} mutants in all; "
            + ", ".join(f"{count} {name}" for name, count in sorted(status.items()))
        )
        for name in names:
            if codes[name] is not None and status_by_exit_code[codes[name]] not in CAUGHT:
                print(f"  {status_by_exit_code[codes[name]]}: {name}")


if __name__ == "__main__":
    sys.exit(main())
