"""What is known of data, model and evaluation: one typed record that travels with all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["NUMERIC", "PHANTOM_BANNER", "SEEN_BANNER", "Provenance", "package_versions"]

PHANTOM_BANNER = "PHANTOMS (synthetic images): not a clinical result"
SEEN_BANNER = (
    "TRAINING IMAGES: not a test (used to train or to choose the model, or near-duplicates of such)"
)
NUMERIC = ("numpy", "scipy", "opencv-python-headless")
"""Packages that scores of given masks depend on."""


@dataclass(frozen=True)
class Provenance:
    """What is known of data, model and evaluation.

    Every field may be unknown (None). Of merged folds that differ, the values are joined as text.
    """

    # the data
    data: str | None = None  # name of the data set
    data_kind: str | None = None  # clinical, phantoms
    sets: Sequence[str] | None = None  # data sets that are joined; names of images begin with them
    split: str | None = None
    fold: int | str | None = None
    folds: int | None = None  # of the whole split
    part: str | None = None  # train, validation, test, all
    parts: Mapping[str, int] | None = None  # number of images by part
    mask_rule: str | None = None  # how the user says that masks are to be read
    prediction_rule: str | None = None  # and those that are scored
    groups: str | None = None  # where the groups come from
    own_split: str | None = None  # how many test images the data set's own split exposes
    normals: bool | None = None  # whether images of class normal trained
    # the model
    name: str | None = None
    trained_on: Sequence[str] | None = None  # names of images
    validated_on: Sequence[str] | None = None
    tuned_on: Sequence[str] | None = None  # hashes of images that chose a threshold afterwards
    training_images: Mapping[str, Any] | None = None  # record of `TrainingImages`
    training: Mapping[str, Any] | None = None  # result of the run: epochs, threshold, hours
    started_from: str | None = None
    operating_point_from: str | None = None
    results: str | None = None
    weights_sha256: str | None = None
    not_settled: str | None = None  # why a network from elsewhere may have been misread
    # the evaluation
    model: str | None = None
    model_sha256: str | None = None
    threshold: float | str | None = None
    threshold_chosen: str | None = None
    cleaning: Mapping[str, float] | str | None = None
    preprocessing: Mapping[str, Any] | str | None = None
    scored: bool = False  # where False, nothing is said of what the model has seen
    seen_in_training: bool | None = None  # None although scored: nobody knows
    training_overlap: Mapping[str, Any] | None = None
    engine: str | None = None
    data_sha256: str | None = None
    predictions_sha256: str | None = None
    versions: Mapping[str, str] | str | None = None
    resized: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # what callers or other versions add

    @classmethod
    def of(cls, given: Provenance | Mapping[str, Any] | None) -> Provenance:
        """Take a record, what `to_dict` writes, or nothing; keys of others are kept in `more`."""
        if isinstance(given, Provenance):
            return given
        stored, names = dict(given or {}), {f.name for f in fields(cls)} - {"scored", "more"}
        own = {key: stored.pop(key) for key in names & stored.keys()}
        return cls(**own, scored="seen_in_training" in own, more=stored)

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, JSON-able; None only for `seen_in_training`."""
        kept = {key: value for key, value in vars(self).items() if value is not None}
        more = kept.pop("more")
        if kept.pop("scored"):
            kept["seen_in_training"] = self.seen_in_training
        return kept | dict(more)

    def but(self, **changes: Any) -> Provenance:
        """Return the record with some fields changed; None makes a field unknown."""
        if "seen_in_training" in changes:
            changes = {"scored": True} | changes
        return replace(self, **changes)

    @classmethod
    def shared_by(cls, records: Sequence[Provenance]) -> Provenance:
        """Merge folds: keep what all agree on, list the rest; one fold with a warning is enough."""
        plain = [record.to_dict() for record in records]
        merged: dict[str, Any] = {}
        for key in dict.fromkeys(key for one in plain for key in one):
            values = [one.get(key) for one in plain]
            same = all(value == values[0] for value in values)
            merged[key] = values[0] if same else "; ".join(map(str, values))
        seen = [record.seen_in_training for record in records]
        merged["seen_in_training"] = True if any(seen) else None if None in seen else False
        if leaks := [record.own_split for record in records if record._leaks]:
            merged["own_split"] = "; ".join(dict.fromkeys(leaks))
        overlaps = [record.training_overlap for record in records]
        merged.pop("training_overlap", None)
        if all(overlaps):  # each fold was compared with the images of its own network
            counts = sorted({overlap["compared_with"] for overlap in overlaps})
            names = ("in_training", "near_duplicates")
            merged["training_overlap"] = {
                "compared_with": " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))),
                **{key: sorted({name for one in overlaps for name in one[key]}) for key in names},
            }
        return cls.of(merged)

    @property
    def _leaks(self) -> bool:
        return bool(self.own_split) and not self.own_split.startswith("0 of")

    @property
    def is_phantoms(self) -> bool:
        """Whether any of the data are synthetic."""
        return "phantoms" in str(self.data_kind)

    @property
    def banner(self) -> str:
        """The warnings that every number made with these must carry, one a line, or ""."""
        warnings = {
            PHANTOM_BANNER: self.is_phantoms,
            SEEN_BANNER: self.seen_in_training,
            f"LEAKING SPLIT of the data set's authors: {self.own_split}": self._leaks,
            f"NETWORK FROM ELSEWHERE, {self.not_settled}": self.not_settled,
        }
        return "\n".join(text for text, given in warnings.items() if given)

    def describe(self, *more: str, model: bool = True) -> str:
        """Say in one line which model, data, split, fold, part and threshold a figure shows."""
        # of merged folds one name, and the folds by themselves
        splits = (re.sub(r", fold \d+$", "", name) for name in (self.split or "").split("; "))
        named = {
            "model": self.model or "not named",
            "data": self.data or "not named",
            "split": "; ".join(dict.fromkeys(splits)),
            "fold": "not named" if self.fold is None and not self.split else self.fold,
            "part": self.part,
            "threshold": self.threshold,
        }
        if self.part in ("train", "validation"):
            named["part"] += " (no test)"
        if not model:
            del named["model"], named["threshold"]
        parts = [f"{key}: {value}" for key, value in named.items() if value not in (None, "")]
        if model and self.scored and self.seen_in_training is None:
            parts.append("training images unknown")
        return " · ".join([*parts, *filter(None, more)])


def package_versions(
    names: Sequence[str] = ("keras", "tensorflow", "jax", "torch", *NUMERIC),
) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
