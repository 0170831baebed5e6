"""The real BUSI: counts, audit list and committed folds. Skipped where BUSI_DIR is not set."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from unet_lib.dataset import COMMITTED_FOLDS, Folds, SplitError, check_cases, find_cases, load_case
from unet_lib.dataset.groups import read_audit, unlike_busi

COUNTS = {"benign": 437, "malignant": 210, "normal": 133}


@pytest.fixture(scope="module")
def cases(busi_dir):
    """Return all cases of BUSI."""
    return find_cases(busi_dir)


def test_all_of_busi_is_found(cases):
    assert Counter(c.label for c in cases) == COUNTS
    assert sum(len(c.mask_paths) for c in cases) == 798
    assert sum(len(c.mask_paths) > 1 for c in cases) == 17
    assert sum(c.has_twins for c in cases) == 345
    assert len({c.group for c in cases if c.has_twins}) == 152


def test_check_finds_what_is_known(cases):
    report = check_cases(cases)
    assert report.ok and report.summary.startswith("780 cases")
    assert {f.kind for f in report.problems} == {
        "exact_duplicate",
        "colour_overlay",
        "several_masks",
    }
    (twin,) = report.of_kind("exact_duplicate")
    assert set(twin.cases) == {"benign (433)", "malignant (145)"}
    audit = read_audit()
    for kind, column in (("several_masks", "several_masks"), ("colour_overlay", "overlay")):
        found = {f.cases[0] for f in report.of_kind(kind)}
        listed = {name for name, row in audit.items() if row[column] == "1"}
        # The published list leaves out normal (113), whose logo is coloured too.
        assert found - listed <= {"normal (113)"} and listed <= found


def test_masks_stored_as_rgba_and_joined(cases):
    by_name = {c.name: c for c in cases}
    for name in ("benign (4)", "benign (54)"):
        image, mask = load_case(by_name[name])
        assert mask.shape == image.shape[:2]
        assert Image.open(by_name[name].mask_paths[1]).mode == "RGBA"
        union = [np.asarray(Image.open(p).convert("L")) > 0 for p in by_name[name].mask_paths]
        np.testing.assert_array_equal(mask, union[0] | union[1])
        assert union[1].any() and mask.mean() < 0.1


def test_files_are_as_listed_and_a_part_keeps_groups_but_not_the_split(cases, tmp_path):
    assert unlike_busi(cases) == ""  # in class and size of each
    assert len(Folds.read(COMMITTED_FOLDS["BUSI"]).split(cases, 0).test) == 156
    for case in cases[:60] + cases[-20:]:
        for path in (case.image_path, *case.mask_paths):
            target = tmp_path / case.label / path.name
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(path)
    some = find_cases(tmp_path)
    assert {c.name: c.group for c in some}.items() <= {c.name: c.group for c in cases}.items()
    with pytest.raises(SplitError, match="700 images of the split are not in the folder"):
        Folds.read(COMMITTED_FOLDS["BUSI"]).split(some, 0)
