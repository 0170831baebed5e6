"""Read every file of a data set once and report what is unusual or wrong."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from unet_lib.dataset.cases import LABELS, Case
from unet_lib.dataset.training_images import content_hash
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
            listed = self.of_kind(kind)
            if listed:
                lines += ["", f"{severity}: {text} ({len(listed)})", ""]
                lines += [f"- {finding.message}" for finding in listed[:most]]
            if len(listed) > most:
                lines.append(f"- and {len(listed) - most} more")
        verdict = "Every file can be used." if self.ok else "Mend the errors before using the data."
        return "\n".join([*lines, "", verdict, ""])


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
    sizes: list[tuple[int, int]] = []
    same: dict[str, list[Case]] = defaultdict(list)
    findings: list[Finding] = []
    lesions: list[bool] = []
    with ThreadPoolExecutor(workers or min(32, os.cpu_count() or 1)) as pool:
        steps = tqdm(
            pool.map(_examine, cases), "check", len(cases), unit="image", disable=not progress
        )
        for case, (size, digest, remarks, marks) in zip(cases, steps, strict=True):
            lesions += marks
            findings += [Finding(kind, (case.name,), message) for kind, message in remarks]
            if size:
                sizes.append(size)
                same[digest].append(case)
    findings += [_duplicate(together) for together in same.values() if len(together) > 1]
    if lesions and not any(lesions) and any(case.label != "normal" for case in cases):
        folder = next(case.mask_paths[0].parent for case in cases if case.mask_paths)
        text = f"{folder}: none of {len(lesions)} masks marks anything: were they saved as labels?"
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
    return CheckReport(counts, _statistics(sizes), tuple(findings))


def _examine(case: Case) -> tuple[tuple[int, int] | None, str, list[tuple[str, str]], list[bool]]:
    """Return the image's size (None: unreadable) and hash, kinds and messages, masks that mark."""
    remarks: list[tuple[str, str]] = []
    size, digest = None, ""
    try:
        pixels = read_pixels(case.image_path)
        image = as_image(pixels, case.image_path)
    except ImageError as error:
        remarks.append(("unreadable", str(error)))
    else:
        size, digest = image.shape[:2], content_hash(image)
        share, brightest = _coloured_share(pixels), float(image.max())
        if share > _COLOURED_SHARE:
            text = f"{case.image_path}: {100 * share:.2f} % of the pixels are coloured"
            remarks.append(("colour_overlay", text))
        if brightest < _DARK:
            text = f"{case.image_path}: the brightest pixel is {brightest:.3f} of full scale"
            remarks.append(("dark", text))
    lesions: list[bool] = []
    remarks += _examine_masks(case, size, lesions)
    return size, digest, remarks, lesions


def _coloured_share(pixels: np.ndarray) -> float:
    if pixels.ndim == 2:
        return 0.0
    full = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return float((spread > _COLOURED * full).mean())


def _examine_masks(
    case: Case, size: tuple[int, int] | None, lesions: list[bool]
) -> Iterator[tuple[str, str]]:
    """Give kinds and messages; `lesions` gets, of each mask that is one, whether it marks any."""
    together = case.mask_set or MaskSet(case.mask_paths)
    for path in case.mask_paths:
        try:
            stored = read_mask_pixels(path)
        except ImageError as error:
            yield "unreadable", str(error)
            continue
        pixels = as_grey(stored)
        if size and pixels.shape != size:
            yield (
                "size_mismatch",
                f"{path}: {pixels.shape[0]} x {pixels.shape[1]}, its image {case.image_path.name} "
                f"is {size[0]} x {size[1]} (height x width)",
            )
        try:
            mask = (as_colour_mask if case.colour_coded else together.mask)(stored, path)
        except ImageError as error:
            yield "mask_values", str(error)
            continue
        lesions.append(bool(mask.any()))
        if size and path.suffix != ".json" and is_turned(case.image_path) > is_turned(path):
            yield (
                "turned",
                f"{case.image_path}: is {path.name} drawn on the picture as it is shown?",
            )
        if much := covers_most(mask):
            yield "mask_covers_most", f"{path}: {much}"
        if not case.colour_coded and not np.isin(pixels, (pixels.min(), pixels.max())).all():
            yield "smoothed_mask", f"{path}: {len(np.unique(pixels))} values"
    if len(case.mask_paths) > 1:
        names = ", ".join(p.name for p in case.mask_paths)
        yield "several_masks", f"{case.image_path}: {names}"
    complete = len(lesions) == len(case.mask_paths)
    if not case.mask_paths and case.label != "normal":
        yield "no_mask", f"{case.image_path}: no mask"
    elif case.label in ("benign", "malignant") and complete and not any(lesions):
        yield "empty_lesion_mask", f"{case.mask_paths[0]}: no lesion pixel"
    elif case.label == "normal" and any(lesions):
        yield "lesion_on_normal", f"{case.mask_paths[0]}: marks a lesion"


def _duplicate(cases: Sequence[Case]) -> Finding:
    message = " = ".join(c.name for c in cases)
    if len({c.label for c in cases}) > 1:
        message += ", in different classes"
    if len({c.group for c in cases}) > 1:
        message += "; not in one group, so a split may separate them (audit list)"
    return Finding("exact_duplicate", tuple(c.name for c in cases), message)


def _statistics(sizes: Sequence[tuple[int, int]]) -> dict[str, int]:
    if not sizes:
        return {}
    result = {"distinct": len(set(sizes))}
    for side, values in zip(("height", "width"), zip(*sizes, strict=True), strict=True):
        for what, value in (("min", min), ("median", np.median), ("max", max)):
            result[f"{what}_{side}"] = int(value(values))
    return result
