"""Kill the real commands at random moments, give them again, and compare with an undisturbed run.

    python tests/faults.py --kills 50

Each trial starts a command in a process of its own, sends SIGKILL, SIGTERM or SIGINT at a random
moment of its usual duration, looks whether anything half-written lies under a final name, gives the
same command again (sometimes killed once more) and compares what it left, file by file, hidden ones
too, with what an undisturbed process left. Prints a table; exit code 1 when anything was lost or
differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from loopback import Answer, Server, serving  # noqa: E402

from unet_lib.dataset import find_cases, load_case, read_audit  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Times, machines and commits differ from run to run.
VARYING = {"seconds", "hours", "started", "git"}


@dataclass(frozen=True)
class Command:
    """A command line; ``OUT`` stands for the folder or file that it writes."""

    name: str
    arguments: tuple[str, ...]
    again: tuple[str, ...] = ()  # what is added to give it again
    program: tuple[str, ...] = ("-m", "unet_lib")


@dataclass
class Outcome:
    """What the trials of one command came to."""

    kills: int = 0
    corrupt: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


# The real command, with another address of the authors' archive.
_DOWNLOAD = """
import sys
from dataclasses import replace
from unet_lib.downloads import busi
url, digest = sys.argv[1:3]
busi.SOURCES["authors"] = replace(busi.SOURCES["authors"], url=url, digest=digest)
from unet_lib.cli import main
sys.exit(main(sys.argv[3:]))
"""


def commands(folder: Path, server: Server) -> list[Command]:
    """Make the data that the commands need, and list them."""
    data, model = folder / "phantoms", folder / "model"
    tiny = ("--size", "32", "--filters", "4", "--depth", "2", "--batch-size", "4")
    _run("phantoms", str(data), "--count", "18", "--seed", "4")
    _run("train", str(data), "--out", str(model), *tiny, "--epochs", "1", "--seed", "1")
    pictures = folder / "pictures"
    pictures.mkdir()
    for path in sorted(data.rglob("*.png")):
        if "_mask" not in path.name:
            shutil.copyfile(path, pictures / path.name)
    changes = ("training.epochs=3", "training.warmup_epochs=1", "training.deterministic=true")
    changes += ("network.filters=4", "network.depth=2", "preprocessing.size=32")
    recipe = tuple(word for change in changes for word in ("--set", change))
    one = ("--folds", "1", "--final")
    archive = busi_archive(folder / "busi.zip").read_bytes()
    server.answers["/busi.zip"] = Answer(archive, pause=0.05)
    digest = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    program = ("-c", _DOWNLOAD, f"{server.url}/busi.zip", digest)
    theirs = predictions(data, folder / "predictions")
    return [
        Command("phantoms", ("phantoms", "OUT", "--count", "60", "--seed", "9")),
        Command(
            "train",
            ("train", str(data), "--out", "OUT", *tiny, "--epochs", "6", "--deterministic"),
            ("--resume",),
        ),
        Command("evaluate", ("evaluate", "--model", str(model), str(data), "--out", "OUT")),
        Command("score", ("score", str(theirs), str(data), "--out", "OUT")),
        Command("download", ("download", "busi", "--to", "OUT"), program=program),
        Command("segment", ("segment", "--model", str(model), "--out", "OUT", str(pictures))),
        Command("crossvalidate", ("crossvalidate", str(data), "--out", "OUT/cv", *recipe, *one)),
    ]


def busi_archive(path: Path) -> Path:
    """Write an archive with BUSI's names and sizes and flat pictures instead of its own."""
    rows = list(read_audit().values())
    more = 798 - len(rows)  # masks: some images have several
    with zipfile.ZipFile(path, "w") as archive:
        for row in rows:
            picture = np.full((int(row["height"]), int(row["width"])), 90, np.uint8)
            picture[::7] = 30
            mask = np.zeros_like(picture)
            if row["class"] != "normal":
                mask[9:99, 9:99] = 255
            stem = f"Dataset_BUSI_with_GT/{row['class']}/{row['image']}"
            files = {".png": picture, "_mask.png": mask}
            for number in (1, 2) if row["several_masks"] == "1" else ():
                if more > 0 and (number == 1 or more > 16):
                    files[f"_mask_{number}.png"] = mask
                    more -= 1
            for ending, values in files.items():
                archive.writestr(stem + ending, cv2.imencode(".png", values)[1].tobytes())
    return path


def predictions(data: Path, folder: Path) -> Path:
    """Write masks as another program may: the truth, shifted by some pixels."""
    folder.mkdir()
    for case in find_cases(data):
        mask = np.roll(load_case(case)[1], 5, axis=1)
        cv2.imwrite(str(folder / f"{case.name}.png"), mask.astype(np.uint8) * 255)
    return folder


def _start(
    *arguments: str, program: tuple[str, ...] = ("-m", "unet_lib"), **more: Any
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def _run(*arguments: str, program: tuple[str, ...] = ("-m", "unet_lib")) -> float:
    """Run a command to its end; returns the seconds it took."""
    started = time.monotonic()
    child = _start(*arguments, program=program)
    _, errors = child.communicate(timeout=900)
    if child.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {child.returncode}\n{errors}")
    return time.monotonic() - started


def _filled(arguments: tuple[str, ...], out: Path) -> tuple[str, ...]:
    return tuple(word.replace("OUT", str(out)) for word in arguments)


def unreadable(folder: Path) -> list[str]:
    """Name the files that lie under a final name and cannot be read."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        # What has arrived of a download goes by the name .part and is checked as a whole.
        if path.is_file() and not hidden and path.suffix != ".part":
            try:
                content(path)
            except Exception as error:  # whatever a damaged file gives
                found.append(f"{path.name}: {error}")
    return found


def content(path: Path) -> object:
    """Return what a file says, without what varies; raises when it cannot be read."""
    if path.suffix == ".json":
        return _steady(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".png":
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise ValueError("not a picture")
        return image.tobytes()
    if path.suffix == ".zip":
        return zipfile.ZipFile(path).namelist()
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            names: list[str] = []
            file.visit(names.append)
            arrays = {name: file[name] for name in names}
            return {k: v[()].tobytes() for k, v in arrays.items() if isinstance(v, h5py.Dataset)}
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".csv":
        head, *rows = [line.split(",") for line in lines]
        if any(len(row) < len(head) for row in rows):
            raise ValueError("a line is cut")
        return [[c for c, name in zip(r, head, strict=False) if name not in VARYING] for r in rows]
    return lines


def _steady(value: object) -> object:
    if isinstance(value, dict):
        # The weights' hash would be the same; a weights file also holds times.
        return {k: _steady(v) for k, v in value.items() if k not in {*VARYING, "weights_sha256"}}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def differences(expected: Path, found: Path) -> list[str]:
    """Compare two folders file by file."""
    names, others = (
        {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() or p.name[0] == "."}
        for folder in (expected, found)
    )
    lines = [f"{name}: only in one" for name in sorted(names ^ others)]
    for name in sorted(names & others):
        # A training curve draws no times; every picture must be the same.
        if content(expected / name) != content(found / name):
            lines.append(f"{name}: differs")
    return lines


def trial(
    command: Command, whole: Path, seconds: float, folder: Path, rng: random.Random
) -> Outcome:
    """Kill one process once or twice, finish the work, compare."""
    outcome, out = Outcome(), folder / whole.name
    for attempt in range(rng.choice((1, 1, 2))):
        again = command.again if attempt else ()
        child = _start(*_filled((*command.arguments, *again), out), program=command.program)
        # Starting up takes seconds in which nothing is written; most kills come after it.
        time.sleep(seconds * rng.uniform(0.3, 1.0))
        child.send_signal(rng.choice(SIGNALS))
        child.communicate(timeout=900)
        outcome.kills += 1
        if out.exists():
            outcome.corrupt += unreadable(out)
    try:
        _run(*_filled((*command.arguments, *command.again), out), program=command.program)
    except RuntimeError as error:
        outcome.corrupt.append(str(error).strip().splitlines()[-1])
    else:
        outcome.differing += differences(whole.parent, folder)
    return outcome


def check(names: list[str] | None, kills: int, seed: int = 0) -> dict[str, Outcome]:
    """Run trials over the commands until so many kills were made; returns what came of each."""
    rng, results = random.Random(seed), {}
    with tempfile.TemporaryDirectory() as place, serving() as server:
        chosen = [c for c in commands(Path(place), server) if names is None or c.name in names]
        references = {}
        for command in chosen:
            whole = Path(place) / "whole" / command.name / "out"
            whole.parent.mkdir(parents=True)
            seconds = _run(*_filled(command.arguments, whole), program=command.program)
            references[command.name] = whole, seconds
            results[command.name] = Outcome()
        made = 0
        while made < kills:
            for command in chosen:
                whole, seconds = references[command.name]
                folder = Path(tempfile.mkdtemp(dir=place))
                done = trial(command, whole, seconds, folder, rng)
                total = results[command.name]
                total.kills += done.kills
                total.corrupt += done.corrupt
                total.differing += done.differing
                made += done.kills
                shutil.rmtree(folder)
                if made >= kills:
                    break
    return results


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = check(None, options.kills, options.seed)
    print("| command | kills | lost or corrupt | results that differ |\n|---|---|---|---|")
    for name, outcome in results.items():
        print(f"| {name} | {outcome.kills} | {len(outcome.corrupt)} | {len(outcome.differing)} |")
        for line in (*outcome.corrupt, *outcome.differing):
            print(f"  {line}", file=sys.stderr)
    return int(any(o.corrupt or o.differing for o in results.values()))


if __name__ == "__main__":
    sys.exit(main())
