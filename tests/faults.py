"""The real commands in processes of their own, and whether what they left is whole and the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from loopback import Answer, Server

from unet_lib.dataset import find_cases, load_case, read_audit

ROOT = Path(__file__).parent.parent
# Times, machines and commits differ from run to run; a weights file holds times too.
VARYING = {"seconds", "hours", "started", "git", "weights_sha256"}
COMMANDS = ("train", "evaluate", "segment", "score", "crossvalidate", "download", "phantoms")
# The real command, with another address of the authors' archive.
DOWNLOAD = """
import sys
from dataclasses import replace
from unet_lib.downloads import busi
url, digest = sys.argv[1:3]
busi.SOURCES["authors"] = replace(busi.SOURCES["authors"], url=url, digest=digest)
from unet_lib.cli import main
sys.exit(main(sys.argv[3:]))
"""


@dataclass(frozen=True)
class Command:
    """A command line; ``OUT`` stands for the folder that it writes."""

    arguments: tuple[str, ...]
    again: tuple[str, ...] = ()  # what is added to give it again
    program: tuple[str, ...] = ("-m", "unet_lib")

    def start(self, out: Path, again: bool = False, **more: Any) -> subprocess.Popen:
        words = (*self.program, *self.arguments, *(self.again if again else ()))
        return subprocess.Popen(
            [sys.executable, *(word.replace("OUT", str(out)) for word in words)],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **more,
        )

    def run(self, out: Path, again: bool = False, **more: Any) -> tuple[int, str]:
        child = self.start(out, again, **more)
        _, errors = child.communicate(timeout=900)
        return child.returncode, errors

    def works(self, out: Path, again: bool = False) -> None:
        code, errors = self.run(out, again)
        assert code == 0, errors


def commands(folder: Path, server: Server) -> dict[str, Command]:
    """Make the data that the commands need, and list them."""
    data, model = str(folder / "phantoms"), str(folder / "model")
    tiny = ("--size", "32", "--filters", "4", "--depth", "2", "--batch-size", "4")
    Command(("phantoms", "OUT", "--count", "18", "--seed", "4")).works(Path(data))
    Command(("train", data, "--out", "OUT", *tiny, "--epochs", "1")).works(Path(model))
    pictures, theirs = folder / "pictures", folder / "predictions"
    pictures.mkdir()
    theirs.mkdir()
    for case in find_cases(data):  # masks as another program may give them: shifted
        shutil.copyfile(case.image_path, pictures / case.image_path.name)
        mask = np.roll(load_case(case)[1], 5, axis=1)
        cv2.imwrite(str(theirs / f"{case.name}.png"), mask.astype(np.uint8) * 255)
    changes = ("training.epochs=3", "training.warmup_epochs=1", "training.deterministic=true")
    changes += ("network.filters=4", "network.depth=2", "preprocessing.size=32")
    recipe = tuple(word for change in changes for word in ("--set", change))
    archive = busi_archive(folder / "busi.zip").read_bytes()
    server.answers["/busi.zip"] = Answer(archive, pause=0.05)
    program = ("-c", DOWNLOAD, f"{server.url}/busi.zip")
    program += (f"sha256:{hashlib.sha256(archive).hexdigest()}",)
    train = ("train", data, "--out", "OUT", *tiny, "--epochs", "6", "--deterministic")
    folds = ("crossvalidate", data, "--out", "OUT/cv", *recipe, "--folds", "1", "--final")
    return {
        "phantoms": Command(("phantoms", "OUT", "--count", "60", "--seed", "9")),
        "train": Command(train, ("--resume",)),
        "evaluate": Command(("evaluate", "--model", model, data, "--out", "OUT")),
        "score": Command(("score", str(theirs), data, "--out", "OUT")),
        "download": Command(("download", "busi", "--to", "OUT"), program=program),
        "segment": Command(("segment", "--model", model, "--out", "OUT", str(pictures))),
        "crossvalidate": Command(folds),
    }


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
            files = {".png": picture, "_mask.png": mask}
            for number in (1, 2) if row["several_masks"] == "1" else ():
                if more > 0 and (number == 1 or more > 16):
                    files[f"_mask_{number}.png"] = mask
                    more -= 1
            for ending, values in files.items():
                name = f"Dataset_BUSI_with_GT/{row['class']}/{row['image']}{ending}"
                archive.writestr(name, cv2.imencode(".png", values)[1].tobytes())
    return path


def unreadable(folder: Path) -> list[str]:
    """Name the files that lie under a final name and cannot be read."""
    damaged = []
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            try:
                content(path)
            except Exception as error:  # whatever a damaged file gives
                damaged.append(f"{path.name}: {error}")
    return damaged


def content(path: Path) -> object:
    """Return what a file says, without what varies; raises when it cannot be read."""
    if path.suffix == ".json":
        return steady(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".png":
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        return image.tobytes()  # AttributeError of None
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


def steady(value: object) -> object:
    if isinstance(value, dict):
        return {k: steady(v) for k, v in value.items() if k not in VARYING}
    return [steady(item) for item in value] if isinstance(value, list) else value


def differences(expected: Path, found: Path) -> list[str]:
    """Compare two folders file by file, hidden ones too."""
    names, others = (
        {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() or p.name[0] == "."}
        for folder in (expected, found)
    )
    lines = [f"{name}: only in one" for name in sorted(names ^ others)]
    changed = (n for n in sorted(names & others) if content(expected / n) != content(found / n))
    return [*lines, *(f"{name}: differs" for name in changed)]
