"""Leak guard: which images a model has seen, kept with it, and which of others are among them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unet_lib.dataset.cases import Case
from unet_lib.provenance import Provenance

TUNED_ON = "tuned_on"
"""Key of what a model says: images that chose a threshold or a reading after its training."""

METHOD = "first 64 bits of SHA-256 of height, width and grey values of 16 bit"


def content_hash(image: np.ndarray) -> str:
    """Return a short hash, 16 hexadecimal digits, of a picture (H, W, 1) in [0, 1].

    Of the decoded pixels, not of the file: the same picture under another name, as PNG, BMP or
    TIFF, compressed anew, or with 16 bits instead of 8, has the same hash. A picture that was
    changed (JPEG, crop, other size) has another one; near-duplicate groups are for those. Of
    100,000 training and 1,000 other pictures the chance of one equal hash is 5e-12.
    """
    values = np.rint(image.astype(np.float32) * np.float32(65535)).astype("<u2")
    size = f"{image.shape[0]} x {image.shape[1]};".encode()
    return hashlib.sha256(size + values.tobytes()).hexdigest()[:16]


def data_hash(cases: Sequence[Case], images: Sequence[str], masks: Sequence[str]) -> str:
    """SHA-256 of names and `content_hash` of pictures and masks, the same in any order."""
    lines = sorted(
        f"{case.name}\t{image}\t{mask}\n"
        for case, image, mask in zip(cases, images, masks, strict=True)
    )
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _groups(data: str | None, case: Case) -> set[tuple[str, str]]:
    """Give data and group of a case with group mates, also those of its own set if joined."""
    pairs = {(data or "", case.group)} if case.has_twins else set()
    return pairs | ({(case.data_set, case.own_group)} if case.own_group else set())


@dataclass(frozen=True)
class TrainingImages:
    """The images that a model was trained on or chosen with."""

    data: str | None  # name of their data set; group names mean nothing in another one
    hashes: frozenset[str]  # `content_hash` of each
    groups: frozenset[tuple[str, str]]
    """Data set and group of near-duplicates or of a patient; images that stand alone have none."""

    @classmethod
    def of(cls, data: str | None, cases: Sequence[Case], hashes: Sequence[str]) -> TrainingImages:
        """Record cases, each with its hash."""
        groups = (pair for case in cases for pair in _groups(data, case) if pair[0])
        return cls(data, frozenset(hashes), frozenset(groups))

    def joined(self, before: TrainingImages) -> TrainingImages:
        """Return these and the images of the model that the training started from."""
        return replace(self, hashes=self.hashes | before.hashes, groups=self.groups | before.groups)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_provenance` reads; JSON-able."""
        groups: dict[str | None, list[str]] = {self.data: []}
        for data, group in sorted(self.groups):
            groups.setdefault(data, []).append(group)
        record = {"method": METHOD, "hashes": sorted(self.hashes), "groups": groups.pop(self.data)}
        return record | ({"earlier": groups} if groups else {})

    @classmethod
    def from_provenance(
        cls, provenance: Provenance | Mapping[str, Any] | None
    ) -> TrainingImages | None:
        """Read the record of a model; None where its training images are not known."""
        provenance = Provenance.of(provenance)
        record = provenance.training_images
        if record is None:
            return None
        try:
            if record["method"] != METHOD:
                return None
            groups = {provenance.data: record["groups"]} | dict(record.get("earlier", {}))
            lists = [record["hashes"], *groups.values()]
        except (TypeError, KeyError, ValueError, AttributeError):
            lists = [None]
        if not all(isinstance(x, list) and all(isinstance(i, str) for i in x) for x in lists):
            raise ValueError(
                f"model {provenance.name or 'unnamed'}: its record training_images is damaged; "
                "expected method, hashes and groups. Fetch the model folder again."
            )
        pairs = ((data, group) for data, names in groups.items() if data for group in names)
        return cls(provenance.data, frozenset(record["hashes"]), frozenset(pairs))

    def overlap(
        self, data: str | None, cases: Sequence[Case], hashes: Sequence[str]
    ) -> dict[str, Any]:
        """Tell which cases are among the training images or near-duplicates of one; JSON-able.

        ``compared_with`` is the number of training images known, the others are names of cases.
        """
        seen = [case for case, own in zip(cases, hashes, strict=True) if own in self.hashes]
        groups = self.groups.union(*(_groups(data, case) for case in seen))
        names = {case.name for case in seen}
        near = [c.name for c in cases if groups & _groups(data, c) and c.name not in names]
        return {
            "compared_with": len(self.hashes),
            "in_training": [case.name for case in seen],
            "near_duplicates": near,
        }
