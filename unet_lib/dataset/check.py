"""Read every file of a data set once and report what is unusual or wrong."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from unet_lib.dataset.cases import LABELS, Case
from unet_lib.dataset.training_images import content_hash
from unet_lib.images import ImageError, as_colour_mask, as_grey, as_image, as_mask, read_pixels

KINDS = {
    "unreadable": ("error", "files that cannot be read"),
    "size_mismatch": ("error", "masks of another size than their image"),
    "mask_values": ("error", "masks with other values or colours than expected"),
    "no_mask": ("error", "lesion images without a mask"),
    "empty_lesion_mask": ("warning", "empty masks on lesion images"),
    "lesion_on_normal": ("warning", "normal images with a lesion in the mask"),
    "exact_duplicate": ("warning", "pictures stored more than once, pixel for pixel"),
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
    """One thing found.

    Attributes
    ----------
    kind : str
        One of ``KINDS``.
    cases : tuple of str
        Names of the cases concerned.
    message : str
        What was found, with the file's name.
    """

    kind: str
    cases: tuple[str, ...]
    message: str

    @property
    def severity(self) -> str:
        """``error``, ``warning`` or ``note``."""
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_cases` found.

    Attributes
    ----------
    counts : dict of str to int
        ``cases``, one entry for each class, ``masks``, ``several_masks``, ``groups``,
        ``grouped_cases``, and one entry for each kind of finding.
    sizes : dict of str to int
        ``distinct``, and ``min_``, ``median_``, ``max_`` of ``height`` and ``width`` in pixels.
    problems : tuple of Finding
        Ordered by kind, then by case.
    """

    counts: dict[str, int]
    sizes: dict[str, int]
    problems: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every file can be used; warnings and notes may remain."""
        return not any(p.severity == "error" for p in self.problems)

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(p for p in self.problems if p.kind == kind)

    def to_markdown(self, most: int = 20) -> str:
        """Return the report as Markdown.

        Parameters
        ----------
        most : int
            Findings listed of each kind; the counts are always complete.
        """
        counts, sizes = self.counts, self.sizes
        classes = ", ".join(f"{counts[label]} {label}" for label in LABELS if counts[label])
        lines = [
            f"{counts['cases']} cases ({classes}), {counts['masks']} masks, "
            f"{counts['several_masks']} images with several masks.",
            f"{counts['grouped_cases']} images lie in {counts['groups']} known groups "
            "(near-duplicates, patients).",
        ]
        if sizes:
            lines.append(
                f"{sizes['distinct']} sizes: height {sizes['min_height']} to "
                f"{sizes['max_height']} (median {sizes['median_height']}), width "
                f"{sizes['min_width']} to {sizes['max_width']} (median {sizes['median_width']})."
            )
        lines += ["", "| severity | what | number |", "|---|---|---|"]
        lines += [f"| {s} | {text} | {counts[kind]} |" for kind, (s, text) in KINDS.items()]
        for kind, (severity, text) in KINDS.items():
            lines += _listing(self.of_kind(kind), f"{severity}: {text}", most)
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
    threads = workers or min(32, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        seen = list(
            tqdm(
                pool.map(_examine, cases),
                total=len(cases),
                desc="check",
                unit="image",
                disable=not progress,
            )
        )
    findings = [f for one in seen for f in one.findings] + _duplicates(seen)
    order = {kind: position for position, kind in enumerate(KINDS)}
    findings.sort(key=lambda f: order[f.kind])  # stable: cases stay in order
    return CheckReport(_counts(cases, findings), _sizes(seen), tuple(findings))


@dataclass
class _Seen:
    """What reading one case has shown."""

    case: Case
    size: tuple[int, int] | None = None
    digest: str = ""
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, message: str) -> None:
        self.findings.append(Finding(kind, (self.case.name,), message))


def _examine(case: Case) -> _Seen:
    seen = _Seen(case)
    try:
        pixels = read_pixels(case.image_path)
        image = as_image(pixels, case.image_path)
    except ImageError as error:
        seen.add("unreadable", str(error))
    else:
        seen.size = image.shape[:2]
        seen.digest = content_hash(image)
        _examine_image(seen, pixels, float(image.max()))
    _examine_masks(seen)
    return seen


def _examine_image(seen: _Seen, pixels: np.ndarray, brightest: float) -> None:
    path = seen.case.image_path
    share = _coloured_share(pixels)
    if share > _COLOURED_SHARE:
        seen.add("colour_overlay", f"{path}: {100 * share:.2f} % of the pixels are coloured")
    if brightest < _DARK:
        seen.add("dark", f"{path}: the brightest pixel is {brightest:.3f} of full scale")


def _coloured_share(pixels: np.ndarray) -> float:
    if pixels.ndim == 2:
        return 0.0
    full = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return float((spread > _COLOURED * full).mean())


def _examine_masks(seen: _Seen) -> None:
    case, lesion, complete = seen.case, False, True
    for path in case.mask_paths:
        found = _examine_mask(seen, path)
        complete = complete and found is not None
        lesion = lesion or bool(found)
    if len(case.mask_paths) > 1:
        names = ", ".join(p.name for p in case.mask_paths)
        seen.add("several_masks", f"{case.image_path}: {names}")
    if not case.mask_paths and case.label != "normal":
        seen.add("no_mask", f"{case.image_path}: no mask")
    elif case.label in ("benign", "malignant") and complete and not lesion:
        seen.add("empty_lesion_mask", f"{case.mask_paths[0]}: no lesion pixel")
    elif case.label == "normal" and lesion:
        seen.add("lesion_on_normal", f"{case.mask_paths[0]}: marks a lesion")


def _examine_mask(seen: _Seen, path: Path) -> bool | None:
    """Return whether the mask holds a lesion; None when it cannot be used."""
    try:
        stored = read_pixels(path)
    except ImageError as error:
        seen.add("unreadable", str(error))
        return None
    pixels = as_grey(stored)
    if seen.size and pixels.shape != seen.size:
        seen.add(
            "size_mismatch",
            f"{path}: {pixels.shape[0]} x {pixels.shape[1]}, its image {seen.case.image_path.name} "
            f"is {seen.size[0]} x {seen.size[1]} (height x width)",
        )
    try:
        coded = seen.case.colour_coded
        mask = as_colour_mask(stored, path) if coded else as_mask(pixels, path)
    except ImageError as error:
        seen.add("mask_values", str(error))
        return None
    if not coded and not ((pixels == pixels.min()) | (pixels == pixels.max())).all():
        seen.add("smoothed_mask", f"{path}: {len(np.unique(pixels))} values")
    return bool(mask.any())


def _duplicates(seen: Iterable[_Seen]) -> list[Finding]:
    same: dict[str, list[Case]] = defaultdict(list)
    for one in seen:
        if one.digest:
            same[one.digest].append(one.case)
    findings = []
    for cases in (c for c in same.values() if len(c) > 1):
        message = " = ".join(c.name for c in cases)
        if len({c.label for c in cases}) > 1:
            message += ", in different classes"
        if len({c.group for c in cases}) > 1:
            message += "; not in one group, so a split may separate them (audit list)"
        findings.append(Finding("exact_duplicate", tuple(c.name for c in cases), message))
    return findings


def _counts(cases: Sequence[Case], findings: Iterable[Finding]) -> dict[str, int]:
    counts = {"cases": len(cases)}
    counts |= {label: sum(c.label == label for c in cases) for label in LABELS}
    counts["masks"] = sum(len(c.mask_paths) for c in cases)
    twins = [c.group for c in cases if c.has_twins]
    counts["groups"], counts["grouped_cases"] = len(set(twins)), len(twins)
    counts |= dict.fromkeys(KINDS, 0)
    for finding in findings:
        counts[finding.kind] += 1
    return counts


def _sizes(seen: Iterable[_Seen]) -> dict[str, int]:
    sizes = np.array([one.size for one in seen if one.size])
    if not len(sizes):
        return {}
    result = {"distinct": len(np.unique(sizes, axis=0))}
    for name, column in (("height", sizes[:, 0]), ("width", sizes[:, 1])):
        for what, value in (("min", min), ("median", np.median), ("max", max)):
            result[f"{what}_{name}"] = int(value(column))
    return result


def _listing(findings: Sequence[Finding], title: str, most: int) -> list[str]:
    if not findings:
        return []
    lines = ["", f"{title} ({len(findings)})", ""] + [f"- {f.message}" for f in findings[:most]]
    return lines + ([f"- and {len(findings) - most} more"] if len(findings) > most else [])
