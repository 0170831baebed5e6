"""Read every file of a data set once and report what is unusual or wrong."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from unet_lib.dataset.cases import LABELS, Case, content_hash
from unet_lib.images import (
    ImageError,
    MaskSet,
    as_colour_mask,
    as_grey,
    as_image,
    covers_most,
    is_turned,
    read_mask_pixels,
    read_pixels,
)

KINDS = {
    "unreadable": ("error", "files that cannot be read"),
    "size_mismatch": ("error", "masks of another size than their image"),
    "mask_values": ("error", "masks with other values or colours than expected"),
    "no_mask": ("error", "lesion images without a mask"),
    "no_lesion": ("error", "only empty masks in the whole data set"),
    "mask_covers_most": ("warning", "masks of most of the picture or of its border"),
    "empty_lesion_mask": ("warning", "empty masks on lesion images"),
    "lesion_on_normal": ("warning", "normal images with a lesion in the mask"),
    "exact_duplicate": ("warning", "pictures stored more than once, pixel for pixel"),
    "turned": ("warning", "pictures that their orientation tag turns, but not their masks"),
    "dark": ("warning", "images that are nearly black"),
    "smoothed_mask": ("note", "masks with blurred edges, cut at half"),
    "colour_overlay": ("note", "images with coloured marks"),
    "several_masks": ("note", "images with several masks, joined with OR"),
}
"""Kinds of findings: severity and meaning. An error must be mended before the data is used."""

_COLOURED = 40 / 255  # difference between channels, of full scale, from which a pixel is coloured
_COLOURED_SHARE = 1e-4  # of the image
_DARK = 0.1  # an image whose brightest pixel is below this is probably 12 bits stored in 16


@dataclass(frozen=True)
class Finding:
    """What is unusual: one of `KINDS`, the names of the cases, and a message naming the file."""

    kind: str
    cases: tuple[str, ...]
    message: str

    @property
    def severity(self) -> str:
        """``error``, ``warning`` or ``note``."""
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_cases` found."""

    counts: dict[str, int]  # cases, masks, groups, grouped_cases, of each class, of each kind
    sizes: dict[str, int]  # distinct; min_, median_ and max_ of height and width in pixels
    problems: tuple[Finding, ...]  # ordered by kind, then by case

    @property
    def ok(self) -> bool:
        """Whether every file can be used; warnings and notes may remain."""
        return not any(p.severity == "error" for p in self.problems)

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(p for p in self.problems if p.kind == kind)

    def to_markdown(self, most: int = 20) -> str:
        """Return the report as Markdown; of each kind `most` findings are listed, all counted."""
        counts, sizes = self.counts, self.sizes
        classes = ", ".join(f"{counts[label]} {label}" for label in LABELS if counts[label])
        lines = [
            f"{counts['cases']} cases ({classes}), {counts['masks']} masks, "
            f"{counts['several_masks']} images with several masks.",
            f"{counts['grouped_cases']} images lie in {counts['groups']} known groups "
            "(near-duplicates, patients).",
        ]
        if sizes:
            ranges = (
                f"{side} {sizes[f'min_{side}']} to {sizes[f'max_{side}']} "
                f"(median {sizes[f'median_{side}']})"
                for side in ("height", "width")
            )
            lines.append(f"{sizes['distinct']} sizes: {', '.join(ranges)}.")
        lines += ["", "| severity | what | number |", "|---|---|---|"]
        lines += [f"| {s} | {text} | {counts[kind]} |" for kind, (s, text) in KINDS.items()]
        for kind, (severity, text) in KINDS.items():
            if listed := self.of_kind(kind):
                lines += ["", f"{severity}: {text} ({len(listed)})", ""]
                lines += [f"- {finding.message}" for finding in listed[:most]]
            if len(listed) > most:
                lines.append(f"- and {len(listed) - most} more")
        verdict = "Every file can be used." if self.ok else "Mend the errors before using the data."
        return "\n".join([*lines, "", verdict, ""])


class _Examined(NamedTuple):
    """What the files of a case give."""

    size: tuple[int, int] | None  # None: the image cannot be read
    digest: str
    remarks: list[tuple[str, str]]  # kind and message
    marked: list[bool]  # of each mask that can be read, whether it marks any pixel


def check_cases(
    cases: Sequence[Case], *, progress: bool = False, workers: int | None = None
) -> CheckReport:
    """Read all images and masks and report what is unusual or wrong.

    Parameters
    ----------
    cases : sequence of Case
    progress : bool
        Show a progress bar.
    workers : int, optional
        Threads; by default one for each processor.

    Returns
    -------
    CheckReport
        Unreadable files are findings, not exceptions.
    """
    with ThreadPoolExecutor(workers or min(32, os.cpu_count() or 1)) as pool:
        steps = pool.map(_examine, cases)
        bar = tqdm(steps, "check", len(cases), unit="image", disable=not progress)
        examined = list(zip(cases, bar, strict=True))
    findings = [Finding(k, (case.name,), text) for case, one in examined for k, text in one.remarks]
    same: dict[str, list[Case]] = defaultdict(list)
    for case, one in examined:
        if one.size:
            same[one.digest].append(case)
    findings += [_duplicate(together) for together in same.values() if len(together) > 1]
    marked = [mark for _, one in examined for mark in one.marked]
    if marked and not any(marked) and any(case.label != "normal" for case in cases):
        folder = next(case.mask_paths[0].parent for case in cases if case.mask_paths)
        text = f"{folder}: none of {len(marked)} masks marks anything: were they saved as labels?"
        findings.append(Finding("no_lesion", (), text))
    findings.sort(key=lambda f: list(KINDS).index(f.kind))  # stable: cases stay in order
    twins = [c.group for c in cases if c.has_twins]
    counts = {
        "cases": len(cases),
        **{label: sum(c.label == label for c in cases) for label in LABELS},
        "masks": sum(len(c.mask_paths) for c in cases),
        "groups": len(set(twins)),
        "grouped_cases": len(twins),
        **dict.fromkeys(KINDS, 0),
        **Counter(finding.kind for finding in findings),
    }
    sizes = [one.size for _, one in examined if one.size]
    statistics = {"distinct": len(set(sizes))} if sizes else {}
    for side, values in zip(("height", "width"), zip(*sizes, strict=True), strict=False):
        for what, value in (("min", min), ("median", np.median), ("max", max)):
            statistics[f"{what}_{side}"] = int(value(values))
    return CheckReport(counts, statistics, tuple(findings))


def _duplicate(cases: Sequence[Case]) -> Finding:
    message = " = ".join(c.name for c in cases)
    if len({c.label for c in cases}) > 1:
        message += ", in different classes"
    if len({c.group for c in cases}) > 1:
        message += "; not in one group, so a split may separate them (audit list)"
    return Finding("exact_duplicate", tuple(c.name for c in cases), message)


def _examine(case: Case) -> _Examined:
    one = _Examined(None, "", [], [])
    try:
        pixels = read_pixels(case.image_path)
        image = as_image(pixels, case.image_path)
    except ImageError as error:
        one.remarks.append(("unreadable", str(error)))
    else:
        one = one._replace(size=image.shape[:2], digest=content_hash(image))
        if (share := _coloured_share(pixels)) > _COLOURED_SHARE:
            text = f"{case.image_path}: {100 * share:.2f} % of the pixels are coloured"
            one.remarks.append(("colour_overlay", text))
        if (brightest := float(image.max())) < _DARK:
            text = f"{case.image_path}: the brightest pixel is {brightest:.3f} of full scale"
            one.remarks.append(("dark", text))
    for path in case.mask_paths:
        _examine_mask(path, case, one)
    if len(case.mask_paths) > 1:
        names = ", ".join(p.name for p in case.mask_paths)
        one.remarks.append(("several_masks", f"{case.image_path}: {names}"))
    complete = len(one.marked) == len(case.mask_paths)
    if not case.mask_paths and case.label != "normal":
        one.remarks.append(("no_mask", f"{case.image_path}: no mask"))
    elif case.label in ("benign", "malignant") and complete and not any(one.marked):
        one.remarks.append(("empty_lesion_mask", f"{case.mask_paths[0]}: no lesion pixel"))
    elif case.label == "normal" and any(one.marked):
        one.remarks.append(("lesion_on_normal", f"{case.mask_paths[0]}: marks a lesion"))
    return one


def _coloured_share(pixels: np.ndarray) -> float:
    if pixels.ndim == 2:
        return 0.0
    full = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return float((spread > _COLOURED * full).mean())


def _examine_mask(path: Path, case: Case, one: _Examined) -> None:
    """Add what is unusual of one mask, and whether it marks any pixel."""

    def remark(kind: str, text: str) -> None:
        one.remarks.append((kind, text))

    try:
        stored = read_mask_pixels(path)
    except ImageError as error:
        return remark("unreadable", str(error))
    pixels = as_grey(stored)
    if one.size and pixels.shape != one.size:
        sizes = [" x ".join(map(str, size)) for size in (pixels.shape, one.size)]
        text = f"{path}: {sizes[0]}, its image {case.image_path.name} is {sizes[1]}"
        remark("size_mismatch", f"{text} (height x width)")
    together = case.mask_set or MaskSet(case.mask_paths)
    try:
        mask = (as_colour_mask if case.colour_coded else together.mask)(stored, path)
    except ImageError as error:
        return remark("mask_values", str(error))
    one.marked.append(bool(mask.any()))
    if one.size and path.suffix != ".json" and is_turned(case.image_path) > is_turned(path):
        remark("turned", f"{case.image_path}: is {path.name} drawn on the picture as it is shown?")
    if much := covers_most(mask):
        remark("mask_covers_most", f"{path}: {much}")
    if not case.colour_coded and not np.isin(pixels, (pixels.min(), pixels.max())).all():
        remark("smoothed_mask", f"{path}: {len(np.unique(pixels))} values")
    return None
