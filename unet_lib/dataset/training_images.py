"""Leak guard: which images a model has seen, kept with it, and which of others are among them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class TrainingImages:
    """The images that a model was trained on or chosen with."""

    data: str | None  # name of their data set; group names mean nothing in another one
    hashes: frozenset[str]  # `content_hash` of each
    groups: frozenset[str]  # near-duplicates or patients; images that stand alone have none
    earlier: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Groups of other data sets on which the model was trained before, by the set's name."""

    @classmethod
    def of(cls, data: str | None, cases: Sequence[Case], hashes: Sequence[str]) -> TrainingImages:
        """Record cases, each with its hash."""
        groups = frozenset(case.group for case in cases if case.has_twins)
        return cls(data, frozenset(hashes), groups)

    def joined(self, before: TrainingImages) -> TrainingImages:
        """Return these and the images of the model that the training started from."""
        groups = dict(before.earlier)
        if before.data:
            groups[before.data] = before.groups
        own = self.groups | groups.pop(self.data, frozenset())
        return TrainingImages(self.data, self.hashes | before.hashes, own, groups)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_provenance` reads; JSON-able."""
        record = {"method": METHOD, "hashes": sorted(self.hashes), "groups": sorted(self.groups)}
        if self.earlier:
            record["earlier"] = {data: sorted(groups) for data, groups in self.earlier.items()}
        return record

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
            earlier = dict(record.get("earlier", {}))
            lists = [record["hashes"], record["groups"], *earlier.values()]
        except (TypeError, KeyError, ValueError, AttributeError):
            lists = [None]
        if not all(isinstance(x, list) and all(isinstance(i, str) for i in x) for x in lists):
            raise ValueError(
                f"model {provenance.name or 'unnamed'}: its record training_images is damaged; "
                "expected method, hashes and groups. Fetch the model folder again."
            )
        hashes, groups, *others = map(frozenset, lists)
        return cls(provenance.data, hashes, groups, dict(zip(earlier, others, strict=True)))

    def overlap(
        self, data: str | None, cases: Sequence[Case], hashes: Sequence[str]
    ) -> dict[str, Any]:
        """Tell which cases are among the training images or near-duplicates of one; JSON-able.

        ``compared_with`` is the number of training images known, the others are names of cases.
        """
        seen = [case for case, own in zip(cases, hashes, strict=True) if own in self.hashes]
        groups = {case.group for case in seen if case.has_twins}
        if data and data == self.data:
            groups |= self.groups
        groups |= self.earlier.get(data, frozenset())
        names = {case.name for case in seen}
        near = [c.name for c in cases if c.group in groups and c.has_twins and c.name not in names]
        return {
            "compared_with": len(self.hashes),
            "in_training": [case.name for case in seen],
            "near_duplicates": near,
        }
