"""Licences of the packages that requirements.txt brings in, as Markdown: docs/licences.md.

python -m lab.licences > docs/licences.md
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General)", re.IGNORECASE)


def needed() -> set[str]:
    """Return the packages of requirements.txt and all that they need, as installed here."""
    names: set[str] = set()
    waiting = [
        line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()
    ]
    while waiting:
        name = re.match(r"[\w.-]+", waiting.pop())[0].lower().replace("_", "-")
        if name not in names:
            try:
                more = requires(name) or []
            except PackageNotFoundError:
                continue  # for another system or Python
            names.add(name)
            waiting += [line for line in more if "extra ==" not in line]
    return names


def main() -> None:
    """Print the table; end with 1 when a package is under the GPL."""
    command = [str(Path(sys.executable).parent / "pip-licenses"), "--format=json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    wanted = needed()
    rows = sorted(
        (row["Name"], row["License"].splitlines()[0][:60])
        for row in listed
        if row["Name"].lower().replace("_", "-") in wanted
    )
    print("# Licences of what is installed\n")
    print(
        f"The {len(rows)} packages that `pip install -r requirements.txt` brings in, on Linux with "
        "Python 3.11.\nWritten by `make supply`, which also runs pip-audit. None is under the GPL;"
        " pylibjpeg-libjpeg (GPL-3.0),\nfor JPEG Lossless in DICOM, is installed by who wants it.\n"
    )
    print("| package | licence |\n|---|---|")
    for name, licence in rows:
        print(f"| {name} | {licence} |")
    strict = [name for name, licence in rows if COPYLEFT.search(licence) and "LGPL" not in licence]
    sys.exit(f"under the GPL: {strict}" if strict else 0)


if __name__ == "__main__":
    main()
