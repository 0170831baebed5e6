"""The record of what is known: kept whole through JSON, warnings never lost in merging."""

import json

import pytest

from unet_lib.provenance import PHANTOM_BANNER, SEEN_BANNER, Provenance

STORED = {"data": "BUSI", "fold": 0, "model": "a", "threshold": 0.5, "scanner": "x"}


def test_kept_through_json_with_keys_of_others():
    record = Provenance.of(STORED)
    assert record.more == {"scanner": "x"}
    assert Provenance.of(json.loads(json.dumps(record.to_dict()))) == record
    assert record.to_dict() == STORED
    assert Provenance.of(None) == Provenance()


def test_unknown_training_images_are_said_only_where_something_was_scored():
    assert "unknown" not in Provenance.of(STORED).describe()
    scored = Provenance.of(STORED).but(seen_in_training=None)
    assert scored.describe() == (
        "model: a · data: BUSI · fold: 0 · threshold: 0.5 · training images unknown"
    )
    assert scored.to_dict()["seen_in_training"] is None


@pytest.mark.parametrize(
    ("folds", "banner"),
    [
        ([{"data_kind": "clinical"}, {"data_kind": "phantoms"}], PHANTOM_BANNER),
        ([{"seen_in_training": False}, {"seen_in_training": True}], SEEN_BANNER),
        (
            [{"own_split": "0 of 5 test images"}, {"own_split": "3 of 5 test images"}],
            "LEAKING SPLIT of the data set's authors: 3 of 5 test images",
        ),
    ],
)
def test_one_fold_with_a_warning_is_enough(folds, banner):
    assert Provenance.shared_by([Provenance.of(fold) for fold in folds]).banner == banner


def test_folds_are_listed_and_overlaps_joined():
    overlap = {"in_training": [], "near_duplicates": ["b"], "compared_with": 5}
    merged = Provenance.shared_by(
        [
            Provenance(
                split=f"s, fold {k}", fold=k, training_overlap=overlap | {"compared_with": n}
            )
            for k, n in ((0, 5), (1, 7))
        ]
    )
    assert merged.describe(model=False) == "data: not named · split: s · fold: 0; 1"
    assert merged.training_overlap == overlap | {"compared_with": "5 to 7"}
