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
    as_grey,
    as_image,
    is_outline,
    is_turned,
    oddity_of,
    read_mask_pixels,
    read_pixels,
)

KINDS = {
    "unreadable": ("error", "files that cannot be read"),
    "size_mismatch": ("error", "masks of another size than their image"),
    "mask_values": ("error", "masks with other values or colours than expected"),
    "no_mask": ("error", "lesion images without a mask"),
    "no_lesion": ("error", "only empty masks in the whole data set"),
    "mask_covers_most": (
        "warning",
        "masks of most of the picture or its border, or with large holes",
    ),
    "empty_lesion_mask": ("warning", "empty masks on lesion images"),
    "lesion_on_normal": ("warning", "normal images with a lesion in the mask"),
    "exact_duplicate": ("warning", "pictures stored more than once, pixel for pixel"),
    "turned": (
        "warning",
        "pictures that their orientation tag turns, but not their masks, or the other way",
    ),
    "dark": ("warning", "images that are nearly black"),
    "smoothed_mask": ("note", "masks with blurred edges, cut at half"),
    "colour_overlay": ("note", "images with coloured marks"),
    "several_masks": ("note", "images with several masks, joined with OR"),
}
"""Kinds of findings: severity and meaning. An error must be mended before the data is used."""

_COLOURED = 40 / 255  # difference between channels, of full scale, from which a pixel is coloured
_COLOURED_SHARE = 1e-4  # of the image
_DARK = 0.1  # an image whose brightest pixel is below this is probably 12 bits stored in 16


class Finding(NamedTuple):
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

    summary: str  # how many cases, masks and groups there are, and their sizes
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
        rows, lists = ["| severity | what | number |", "|---|---|---|"], []
        for kind, (severity, text) in KINDS.items():
            listed = self.of_kind(kind)
            rows.append(f"| {severity} | {text} | {len(listed)} |")
            if listed:
                lists += ["", f"{severity}: {text} ({len(listed)})", ""]
                lists += [f"- {finding.message}" for finding in listed[:most]]
            if len(listed) > most:
                lists.append(f"- and {len(listed) - most} more")
        verdict = "Every file can be used." if self.ok else "Mend the errors before using the data."
        return "\n".join([self.summary, "", *rows, *lists, "", verdict, ""])


def check_cases(cases: Sequence[Case], *, progress: bool = False) -> CheckReport:
    """Read all images and masks and report what is unusual or wrong.

    Parameters
    ----------
    cases : sequence of Case
    progress : bool
        Show a progress bar.

    Returns
    -------
    CheckReport
        Unreadable files are findings, not exceptions.
    """
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        steps = pool.map(_Examined, cases)
        bar = tqdm(steps, "check", len(cases), unit="image", disable=not progress)
        examined = list(bar)
    findings = [finding for one in examined for finding in one.findings]
    same: dict[str, list[Case]] = defaultdict(list)
    for one in examined:
        if one.size:
            same[one.digest].append(one.case)
    findings += [_duplicate(together) for together in same.values() if len(together) > 1]
    marked = [mark for one in examined for mark in one.marked]
    if marked and not any(marked) and any(case.label != "normal" for case in cases):
        folder = next(case.mask_paths[0].parent for case in cases if case.mask_paths)
        text = f"{folder}: none of {len(marked)} masks marks anything: were they saved as labels?"
        findings.append(Finding("no_lesion", (), text))
    findings.sort(key=lambda f: list(KINDS).index(f.kind))  # stable: cases stay in order
    sizes = [one.size for one in examined if one.size]
    return CheckReport(_summary(cases, sizes), tuple(findings))


def _summary(cases: Sequence[Case], sizes: Sequence[tuple[int, int]]) -> str:
    number = Counter(case.label for case in cases)
    classes = ", ".join(f"{number[label]} {label}" for label in LABELS if number[label])
    twins = [case.group for case in cases if case.has_twins]
    lines = [
        f"{len(cases)} cases ({classes}), {sum(len(c.mask_paths) for c in cases)} masks, "
        f"{sum(len(c.mask_paths) > 1 for c in cases)} images with several masks.",
        f"{len(twins)} images lie in {len(set(twins))} known groups (near-duplicates, patients).",
    ]
    ranges = ", ".join(
        f"{side} {min(values)} to {max(values)} (median {int(np.median(values))})"
        for side, values in zip(("height", "width"), zip(*sizes, strict=True), strict=False)
    )
    return "\n".join([*lines, *([f"{len(set(sizes))} sizes: {ranges}."] if sizes else [])])


def _duplicate(cases: Sequence[Case]) -> Finding:
    message = " = ".join(c.name for c in cases)
    if len({c.label for c in cases}) > 1:
        message += ", in different classes"
    if len({c.group for c in cases}) > 1:
        message += "; not in one group, so a split may separate them (audit list)"
    return Finding("exact_duplicate", tuple(c.name for c in cases), message)


class _Examined:
    """What the files of a case give."""

    def __init__(self, case: Case) -> None:
        self.case, self.findings = case, []
        self.size, self.digest = None, ""  # where the image can be read
        self.marked: list[bool] = []  # of each mask that can be read, whether it marks any pixel
        self._examine_image()
        for path in case.mask_paths:
            self._examine_mask(path)
        if len(case.mask_paths) > 1:
            names = ", ".join(p.name for p in case.mask_paths)
            self._note("several_masks", f"{case.image_path}: {names}")
        complete = len(self.marked) == len(case.mask_paths)
        if not case.mask_paths and case.label != "normal":
            self._note("no_mask", f"{case.image_path}: no mask")
        elif case.label in ("benign", "malignant") and complete and not any(self.marked):
            self._note("empty_lesion_mask", f"{case.mask_paths[0]}: no lesion pixel")
        elif case.label == "normal" and any(self.marked):
            self._note("lesion_on_normal", f"{case.mask_paths[0]}: marks a lesion")

    def _note(self, kind: str, message: str) -> None:
        self.findings.append(Finding(kind, (self.case.name,), message))

    def _examine_image(self) -> None:
        path = self.case.image_path
        try:
            pixels = read_pixels(path)
            image = as_image(pixels, path)
        except ImageError as error:
            return self._note("unreadable", str(error))
        self.size, self.digest = image.shape[:2], content_hash(image)
        if pixels.ndim > 2:
            full = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
            spread = pixels.max(axis=2) - pixels.min(axis=2)
            if (share := (spread > _COLOURED * full).mean()) > _COLOURED_SHARE:
                text = f"{path}: {100 * share:.2f} % of the pixels are coloured"
                self._note("colour_overlay", text)
        if (brightest := float(image.max())) < _DARK:
            self._note("dark", f"{path}: the brightest pixel is {brightest:.3f} of full scale")
        return None

    def _examine_mask(self, path: Path) -> None:
        case = self.case
        together = case.mask_set or MaskSet(case.mask_paths)
        try:
            stored = read_mask_pixels(path)
        except ImageError as error:
            return self._note("unreadable", str(error))
        pixels = as_grey(stored)
        if self.size and pixels.shape != self.size:
            sizes = [" x ".join(map(str, size)) for size in (pixels.shape, self.size)]
            text = f"{path}: {sizes[0]}, its image {case.image_path.name} is {sizes[1]}"
            self._note("size_mismatch", f"{text} (height x width)")
        try:
            mask = together.mask(stored, path)
        except ImageError as error:
            return self._note("mask_values", str(error))
        self.marked.append(bool(mask.any()))
        if self.size and not is_outline(path) and is_turned(case.image_path) != is_turned(path):
            text = f"{case.image_path}: is {path.name} drawn on the picture as it is shown?"
            self._note("turned", text)
        if much := oddity_of(mask):
            self._note("mask_covers_most", f"{path}: {much}")
        if not together.rule and not np.isin(pixels, (pixels.min(), pixels.max())).all():
            self._note("smoothed_mask", f"{path}: {len(np.unique(pixels))} values")
        return None
