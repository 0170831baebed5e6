"""Where data and weights lie: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["SHIPPED_FOLDER", "USER_FOLDER", "WEIGHTS_FOLDER"]

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = (_PACKAGE / "shipped").is_dir()  # pyproject.toml puts it into the wheel


def _cache() -> Path:
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unet_lib"


SHIPPED_FOLDER = _PACKAGE / "shipped" if _INSTALLED else _PACKAGE.parent
"""Holds ``data/`` (audit list, splits) and ``weights/`` as they come with the library."""
USER_FOLDER = _cache() if _INSTALLED else _PACKAGE.parent
"""What the library writes of its own accord or downloads: the checkout, or the user's cache."""
WEIGHTS_FOLDER = SHIPPED_FOLDER / "weights"
"""One folder for each model of ours, those of encoders, and what lists the files elsewhere."""
