"""Small pieces that reports are written from: intervals, lists, tables, warnings, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unet_lib.metrics import number
from unet_lib.metrics.intervals import MIN_GROUPS, MIN_GROUPS_SHARE, Interval
from unet_lib.provenance import Provenance

SHOWN_NAMES = 30
NO_LIMITS = (
    f"fewer than {MIN_GROUPS} near-duplicate groups ({MIN_GROUPS_SHARE} for a share), or all equal"
)
"""When a mean has no interval."""
NO_INTERVAL = f"no interval, too few images to tell: {NO_LIMITS}"


def with_interval(interval: Interval, digits: int = 3, scale: float = 1.0) -> str:
    """Write "mean (low to high)"; "mean (-)" where there are too few groups for an interval."""
    values = (interval.mean, interval.low, interval.high)
    mean, low, high = (number(value * scale, digits) for value in values)
    return f"{mean} ({low} to {high})" if interval.known else f"{mean} (-)"


def explained(text: str) -> str:
    """Say below a text what "(-)" means, where it holds one."""
    return f'{text.rstrip()}\n\n"(-)": {NO_INTERVAL}.' if "(-)" in text else text


def escape(text: object) -> str:
    """Make a text safe inside a table cell and plain in a paragraph."""
    escaped = "".join(f"\\{c}" if c in "\\|*_`<>[]#~&" else c for c in str(text))
    return " ".join(escaped.split())


def listed(names: Sequence[str]) -> str:
    """Write the first 30 names and how many more there are."""
    more = len(names) - SHOWN_NAMES
    shown = ", ".join(escape(name) for name in names[:SHOWN_NAMES])
    return shown + (f" and {more} more" if more > 0 else "")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; the first column to the left, the others to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def banner(provenance: Provenance) -> str:
    """Return the warning of an evaluation as a Markdown quote, or ""."""
    return "\n>\n".join(f"> **{line}**" for line in provenance.banner.splitlines())


def leaks(provenance: Provenance, images: int) -> str:
    """Say in sentences which of the scored images the model has seen, or that it is not known."""
    overlap = provenance.training_overlap
    if provenance.seen_in_training is None:
        return (
            "Training images unknown: which images these weights were trained on is not recorded, "
            "so nobody can tell whether this is a test."
        )
    if overlap is None:
        return "Compared by name only: " + ("some are." if provenance.seen_in_training else "none.")
    lines = [
        f"Compared with {overlap['compared_with']} pictures that trained the model or chose its "
        f"epoch and threshold: {len(overlap['in_training'])} of {images} scored images are among "
        f"them, {len(overlap['near_duplicates'])} more are near-duplicates of one."
    ]
    for words, key in (("Seen", "in_training"), ("Near-duplicates", "near_duplicates")):
        if overlap[key]:
            lines.append(f"{words}: {listed(overlap[key])}.")
    return "\n\n".join(lines)


def plain(value: Any) -> str:
    """Write a JSON-able value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)
