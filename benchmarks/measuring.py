"""What the benchmarks share: workers asked in turn, medians with their spread, table, JSON.

Every variant lives in a process of its own family (one library with one set of settings) that sets
up and warms up once and is then asked again and again, all variants in turn, so that a machine
that is slow for a while is slow for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tqdm import tqdm

__all__ = ["Worker", "interleaved", "machine", "parser", "report", "serve", "spread", "table"]

PACKAGES = ("keras", "tensorflow", "torch", "numpy", "scipy", "opencv-python-headless")
PACKAGES += ("monai", "onnxruntime", "openvino")
_MARK = "answer: "


def parser(description: str | None, name: str, rounds: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--rounds", type=int, default=rounds, help="interleaved repetitions")
    found.add_argument("--json", type=Path, default=Path(f"runs/bench/{name}.json"))
    found.add_argument("--child", help=argparse.SUPPRESS)
    return found


class Worker:
    """A process ``python -m module --child SETTINGS`` that answers; `serve` is its other side."""

    def __init__(self, module: str, settings: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--child", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def ask(self, request: Any) -> dict[str, Any]:
        """Return the answer; ``{"error": ...}`` where the child failed."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            return {"error": "the process has ended"}
        for line in self.process.stdout:
            if line.startswith(_MARK):
                return json.loads(line.removeprefix(_MARK))
        return {"error": f"the process ended with {self.process.wait()}"}

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def serve(answer: Callable[[Any], dict[str, Any]]) -> None:
    """Answer the requests of a `Worker` until it closes; an exception is an answer too."""
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:  # a peer that does not run is named in the table
            found = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
        print(_MARK + json.dumps(found), flush=True)


def interleaved(
    module: str,
    variants: Mapping[str, tuple[Mapping[str, Any], Any]],
    rounds: int,
) -> dict[str, list[dict[str, Any]]]:
    """Ask every variant once to warm up, then all in turn, `rounds` times; return the answers.

    A variant is (settings of its worker, request); equal settings share one worker. A failed answer
    holds ``error``.
    """
    workers: dict[str, Worker] = {}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    try:
        steps = tqdm(total=(rounds + 1) * len(variants), desc=module, unit="run")
        for _ in range(rounds + 1):
            for name, (settings, request) in variants.items():
                key = json.dumps(settings, sort_keys=True)
                if key not in workers:
                    workers[key] = Worker(module, settings)
                if not (found[name] and "error" in found[name][-1]):
                    found[name].append(workers[key].ask(request))
                steps.update()
        steps.close()
    finally:
        for worker in workers.values():
            worker.close()
    return found


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return ``median (least to most)``."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table with a title."""
    lines = [title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """Return processor, its units, memory and versions."""
    info: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            info.setdefault(key.strip(), value.strip())
    except OSError:
        info["model name"] = platform.processor()
    units = {"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(info.get("flags", "").split())
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": info.get("model name", "unknown"),
        "units": sorted(units),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load_before": os.getloadavg()[0],
        "versions": versions,
    }


def report(path: Path, text: str, **values: Any) -> None:
    """Print a table and write it with all values as JSON."""
    print("\n" + text, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "table": text.splitlines(), **values}
    path.write_text(json.dumps(content, indent=2) + "\n")
