"""Versions of the packages that a result depends on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

__all__ = ["NUMERIC", "package_versions"]

NUMERIC = ("numpy", "scipy", "opencv-python-headless")
"""What scores of given masks depend on."""

_ALL = ("keras", "tensorflow", "jax", "torch", *NUMERIC)


def package_versions(names: Sequence[str] = _ALL) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
