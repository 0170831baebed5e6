"""Where and with what a run was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unet_lib.backend import describe_hardware
from unet_lib.provenance import package_versions

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """Return time, hardware, versions and commit, JSON-able."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": describe_hardware(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": _git_state(),
    }


def _git_state() -> str | None:
    """Commit of the library's checkout, with "+changes" when files differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
