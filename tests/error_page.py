"""The page of errors, from the code: `python tests/error_page.py > docs/errors.md`.

After `make test`, `python tests/error_page.py .coverage` lists the errors that no test has raised.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARY = {
    "ImageError": "An image, mask or DICOM file cannot be used.",
    "DatasetError": "A data folder is not laid out as expected, or its audit list does not fit.",
    "SplitError": "A split file is malformed or does not belong to the folder.",
    "PredictionError": "Masks or probabilities of another program do not fit the images.",
    "WeightsError": "A model folder or weights file cannot be used; nothing of it is loaded.",
    "TrainingError": "The training cannot go on.",
    "ProcessLost": "One of several processes that train together is gone.",
    "ExportError": "A model cannot be written for another runtime, or gives other numbers there.",
    "DownloadError": "A download failed or gave something else than was asked for.",
    "WriteError": "A file or folder cannot be written: disk full, read-only or the like. What was "
    "there before stays whole.",
    "FolderInUse": "Another process writes into the folder.",
    "FileExistsError": "A result would overwrite something.",
    "FileNotFoundError": "An input is not there.",
    "NotADirectoryError": "A file lies where a folder is needed.",
    "ValueError": "A setting or argument cannot work: wrong type, range, shape or combination.",
}
"""Every error that the library raises on purpose, and what it stands for."""

REASONS = {"_Unsafe": "WeightsError", "_Refused": "DownloadError"}
"""Internal errors whose message becomes a part of the public one."""

EXIT = {
    "DownloadError": 1,
    "ExportError": 1,
    "ProcessLost": 1,
    "TrainingError": 1,
    "WriteError": 1,
}  # of the command line; others: 2


@dataclass(frozen=True)
class Site:
    """One raise statement."""

    kind: str
    file: str
    first: int
    last: int
    message: str


def sites() -> list[Site]:
    """Find every raise of an error in the library, in the order of the files."""
    found = []
    for path in sorted((ROOT / "unet_lib").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        helpers = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            name = path.relative_to(ROOT).as_posix()
            text = message(call.args[0], helpers) if call.args else ""
            kind = REASONS.get(call.func.id, call.func.id)
            found.append(Site(kind, name, node.lineno, node.end_lineno, text))
    return found


def message(node: ast.expr, helpers: dict[str, ast.FunctionDef]) -> str:
    """Turn the expression of a message to text, with an ellipsis for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp):
        return message(node.left, helpers) + message(node.right, helpers)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in helpers:
        last = [n for n in ast.walk(helpers[node.func.id]) if isinstance(n, ast.Return) and n.value]
        return message(last[-1].value, helpers)
    return "…"


def page() -> str:
    """Markdown page: one part for each kind of error, one line for each message."""
    lines = [
        "# Errors",
        "",
        "Every error that the library raises on purpose, with its message: what is wrong, what was "
        "expected and what to do. … stands for what is",
        "filled in: the file, the value received. On the command line the message is the last line "
        "and there is no traceback; the exit code is given",
        "with each kind. Written from the code by `python tests/error_page.py > docs/errors.md`; "
        "a test holds both together, and",
        "`python tests/error_page.py .coverage` after `make test` lists what no test has raised.",
        "A message that names no file is the reason inside another one, or of a call in Python.",
    ]
    by_kind: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for site in sites():
        if site.kind in LIBRARY and site.message.strip("… "):
            text = " ".join(site.message.split()).replace("|", "\\|").replace("<", "&lt;")
            module = site.file.removeprefix("unet_lib/").removesuffix(".py")
            by_kind[site.kind][text].append(module)
    for kind, meaning in LIBRARY.items():
        lines += ["", f"## {kind}", "", f"{meaning} Exit code {EXIT.get(kind, 2)}.", ""]
        lines += ["| message | from |", "|---|---|"]
        for text, modules in sorted(by_kind[kind].items()):
            lines.append(f"| {text} | {', '.join(sorted(set(modules)))} |")
    return "\n".join(lines) + "\n"


def unreached(coverage_file: str) -> list[Site]:
    """List the raises that the measured tests have not executed."""
    from coverage import CoverageData

    data = CoverageData(coverage_file)
    data.read()
    executed = {Path(name).resolve(): set(data.lines(name) or ()) for name in data.measured_files()}
    return [
        site
        for site in sites()
        if site.kind in LIBRARY
        and not executed.get((ROOT / site.file).resolve(), set())
        & set(range(site.first, site.last + 1))
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        missed = unreached(sys.argv[1])
        for site in missed:
            print(f"{site.file}:{site.first}: {site.kind}: {site.message}")
        sys.exit(f"{len(missed)} errors that no test has raised" if missed else 0)
    print(page(), end="")
