"""What the benchmarks share: processes asked in turn, medians with their spread, table, JSON.

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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

PACKAGES = ("keras", "tensorflow", "torch", "numpy", "scipy", "opencv-python-headless")
PACKAGES += ("monai", "onnxruntime", "openvino")
Answers = dict[str, list[dict[str, Any]]]
_child: list[Callable[[Any], dict[str, Any]]] = []  # in a child process: what answers


def parser(description: str | None, name: str, rounds: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=rounds, help="interleaved repetitions")
    made.add_argument("--json", type=Path, default=Path(f"runs/bench/{name}.json"))
    return made


def _answer(module: str, settings: Mapping[str, Any], request: Any) -> dict[str, Any]:
    try:
        if not _child:
            _child.append(import_module(module).child(settings))
        return _child[0](request)
    except Exception as error:  # a peer that does not run is named in the table
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}


def interleaved(
    module: str, variants: Mapping[str, tuple[Mapping[str, Any], Any]], rounds: int
) -> Answers:
    """Ask every variant once to warm up, then all in turn, `rounds` times; return the answers.

    A variant is (settings, request): ``module.child(settings)`` gives the function that answers, in
    a process that equal settings share. A failed answer holds ``error``.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    pools: dict[str, ProcessPoolExecutor] = {}
    answers: Answers = {name: [] for name in variants}
    try:
        for name in tqdm([*variants] * (rounds + 1), module, unit="run"):
            settings, request = variants[name]
            key = json.dumps(settings, sort_keys=True)
            if key not in pools:
                pools[key] = ProcessPoolExecutor(1, get_context("spawn"))
            if answers[name] and "error" in answers[name][-1]:
                continue
            try:
                answer = pools[key].submit(_answer, module, settings, request).result()
            except BrokenProcessPool:
                answer = {"error": "the process has ended"}
            answers[name].append(answer)
    finally:
        for pool in pools.values():
            pool.shutdown()
    return answers


def medians(answers: Answers, key: str) -> dict[str, float]:
    """Return the median of each variant that ran, without the warm-up."""
    return {
        name: statistics.median(row[key] for row in rows[1:])
        for name, rows in answers.items()
        if "error" not in rows[-1]
    }


def spread(answers: Sequence[Mapping[str, Any]], key: str, digits: int = 1) -> str:
    """Return ``median (least to most)``, without the warm-up."""
    values = [row[key] for row in answers[1:]]
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(
    title: str,
    head: Sequence[str],
    answers: Answers,
    row: Callable[[str, list[dict[str, Any]]], Sequence[Any]],
) -> str:
    """Return a Markdown table, a row for each variant; one that failed says why."""
    lines = [title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, rows in answers.items():
        failed = rows[-1].get("error")
        cells = [f"does not run: {failed}", *[""] * (len(head) - 2)] if failed else row(name, rows)
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """Return processor, its units, memory and versions."""
    info: dict[str, str] = {"model name": platform.processor()}
    if (path := Path("/proc/cpuinfo")).exists():
        pairs = [line.split(":", 1) for line in path.read_text().splitlines() if ":" in line]
        info |= {key.strip(): value.strip() for key, value in pairs}
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    units = {"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(info.get("flags", "").split())
    return {
        "processor": info["model name"],
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
