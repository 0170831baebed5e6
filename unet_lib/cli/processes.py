"""A command on several processes: start them, watch them, end all when one is lost.

Each process that computes is the child of one that only watches, on one machine as on several:
JAX ends a process from within when another one has fallen silent, and nobody in it could say why.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ProcessLost", "add_processes", "in_processes", "work"]

_MEMBER = "UNET_LIB_PROCESS"  # environment variable: what a child is told
_LOST = 75  # exit code of a child whose connection to another process broke
_GRACE = 5.0  # seconds in which the others end by themselves
_CONNECTION = re.compile(r"gloo|nccl|coordination[ _]?service", re.IGNORECASE)
_REMEDY = (
    "All were ended. What the run folder holds stays: the same command with --resume goes on after "
    "the last whole epoch, with as many processes as you like."
)


class ProcessLost(RuntimeError):
    """One of several processes is gone; the message says which and what to do."""


def add_processes(sub: argparse.ArgumentParser) -> None:
    """Add the options of a command that can run on several processes."""
    several = sub.add_argument_group(
        "several processes",
        "Keras on JAX only (KERAS_BACKEND=jax); the updates are those of one process. See "
        "docs/several_machines.md.",
    )
    several.add_argument("--processes", type=int, default=1, help="how many train together")
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="on several machines: where process 0 runs"
    )
    several.add_argument("--process-id", type=int, help="on several machines: which one this is")


def in_processes(options: argparse.Namespace, function: Callable[[argparse.Namespace], int]) -> int:
    """Run a command as it is, or on the processes that the options name.

    Raises
    ------
    ValueError
        The options do not fit together.
    ProcessLost
        One of the processes is gone.
    """
    if _MEMBER in os.environ:
        return _member(options, function)
    _check(options)
    if options.processes == 1:
        return function(options)
    own = range(options.processes) if options.process_id is None else [options.process_id]
    with tempfile.TemporaryDirectory(prefix="unet_lib_") as folder:
        address = options.coordinator or f"127.0.0.1:{_free_port()}"
        logs = {index: Path(folder) / str(index) for index in own}
        children = {}
        try:
            for index in own:
                children[index] = _start(options, address, index, logs[index], index == own[0])
            codes = _wait(children)
            if (shown := codes[own[0]]) is None or shown < 0:
                print(file=sys.stderr)  # it was cut off, perhaps within a line (a progress bar)
            return _judge(options, address, codes, logs)
        finally:
            _stop(children)


def _check(options: argparse.Namespace) -> None:
    count, address, index = options.processes, options.coordinator, options.process_id
    if count < 1:
        raise ValueError(f"--processes {count}: expected at least 1.")
    if (address is None) != (index is None):
        raise ValueError(
            "--coordinator and --process-id belong together, with --processes on every machine; "
            "on one machine give --processes alone."
        )
    if address is not None and not re.fullmatch(r".+:\d{1,5}", address):
        raise ValueError(f"--coordinator {address}: expected HOST:PORT, such as node1:12345.")
    if index is not None and not 0 <= index < count:
        raise ValueError(f"--process-id {index}: expected 0 to {count - 1} (--processes {count}).")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(
    options: argparse.Namespace, address: str, index: int, log: Path, shown: bool
) -> subprocess.Popen:
    """Start one process; what the hidden ones print goes into their log."""
    told = {"address": address, "index": index, "count": options.processes, "log": str(log)}
    told |= {"one_machine": options.coordinator is None, "shown": shown}
    library = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH"))))
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import work; work()", *options.arguments],
            env={**os.environ, _MEMBER: json.dumps(told), "PYTHONPATH": path},
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            stdout=None if shown else file,
            stderr=None if shown else file,
            start_new_session=True,  # Ctrl-C reaches them through this process alone
        )


def _wait(children: dict[int, subprocess.Popen]) -> dict[int, int | None]:
    """Return the exit codes once all have ended; a while after a failure None for those left."""
    deadline = None
    while True:
        codes = {index: child.poll() for index, child in children.items()}
        if None not in codes.values() or (deadline and time.monotonic() > deadline):
            return codes
        if deadline is None and any(codes.values()):
            deadline = time.monotonic() + _GRACE
        time.sleep(0.05)


def _judge(
    options: argparse.Namespace, address: str, codes: dict[int, int | None], logs: dict[int, Path]
) -> int:
    """Return 0, or find the process that failed first and say what became of it."""
    texts = {index: log.read_text(errors="replace") for index, log in logs.items()}
    failed = [index for index, code in codes.items() if code]
    if not failed:
        return 0
    own = [index for index in failed if not _by_others(codes[index], texts[index])]
    silent = [index for index, code in codes.items() if code is None]
    who = f"process {(own or silent or failed)[0]} of {options.processes}"
    if own:
        index, code = own[0], codes[own[0]]
        if code < 0:
            hint = " (by hand, or by the system when memory ran out)" if code == -9 else ""
            name = signal.Signals(-code).name
            raise ProcessLost(f"{who} was killed by {name}{hint}. {_REMEDY}")
        if index != next(iter(logs)):  # the first has printed its reason itself
            print(_reason(who, texts[index]), file=sys.stderr)
        return code
    if silent:
        raise ProcessLost(f"{who} no longer answered. {_REMEDY}")
    text = texts[failed[0]]
    if "RegisterTask" in text:
        raise ProcessLost(
            f"{who}: the processes did not come together at {address} in time. Start all "
            f"{options.processes}, each with its own --process-id and the same --coordinator: an "
            "address of process 0's machine that the others can reach."
        )
    place = re.search(r"\[([\w.:]+)\]:\d+", text)
    where = f" at {place[1]}" if place else ""
    raise ProcessLost(
        f"{who} lost its connection to another process{where}, whose own terminal tells more. "
        f"{_REMEDY}"
    )


def _by_others(code: int | None, text: str) -> bool:
    """Tell whether a process ended because another one was gone."""
    return code == _LOST or (code == -signal.SIGABRT and bool(_CONNECTION.search(text)))


def _reason(who: str, text: str) -> str:
    lines = text.strip().splitlines()
    told = [line for line in lines if line.startswith("unet_lib ")]
    return f"{who}: {told[-1]}" if told else "\n".join([f"{who}:", *lines[-20:]])


def _stop(children: dict[int, subprocess.Popen]) -> None:
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + _GRACE
    for child in children.values():
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdin.close()


def work() -> None:
    """Be one of the processes: run the command, and end whatever still waits for another one."""
    from unet_lib.cli.parser import main

    told = json.loads(os.environ[_MEMBER])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if told["shown"]:
        _hide_native_output(told["log"])
    code = main(sys.argv[1:])
    if code:
        # JAX would wait at its exit for the processes that are gone. What lies in temporary
        # folders is removed first.
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the other end is closed
    os._exit(_LOST)


def _hide_native_output(log: str) -> None:
    """Send what JAX's own code prints to the log; Python's output stays where it was."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number, name in ((1, "stdout"), (2, "stderr")):
        encoding = getattr(sys, name).encoding
        setattr(sys, name, os.fdopen(os.dup(number), "w", buffering=1, encoding=encoding))
        os.dup2(file, number)


def _member(options: argparse.Namespace, function: Callable[[Any], int]) -> int:
    from unet_lib.training.processes import join

    told = json.loads(os.environ[_MEMBER])
    try:
        join(told["address"], told["index"], told["count"], one_machine=told["one_machine"])
        return function(options)
    except KeyboardInterrupt:  # the process that watches says so
        return 130
    except Exception as error:
        if not _CONNECTION.search(str(error)):
            raise
        os.write(2, f"{error}\n".encode())
        return _LOST
