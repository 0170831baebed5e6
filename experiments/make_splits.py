"""Make data/splits/busi_5fold_v2.csv and busbra_5fold.csv; what they are: data/README.md.

Usage: PYTHONPATH=. BUSI_DIR=... BUSBRA_DIR=... python experiments/make_splits.py [OUT]
"""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unet_lib.dataset import (
    DATA_FOLDER,
    FoldRow,
    Folds,
    duplicate_pairs,
    find_cases,
    join_groups,
    make_folds,
)

SEED, SHARE, LARGEST = 5, 0.12, 3  # seed 5 is that of the first BUSI split; no other was looked at


def with_validation(rows: Sequence[FoldRow], may_validate: set[str]) -> list[FoldRow]:
    """Keep the test parts; each group validates in one fold at most, and trains in the others.

    Groups are drawn at random; each goes to the fold with the fewest validation images of its
    class, of those that do not test it, until 12 % of the images of the class validate there.
    """
    members: dict[str, list[FoldRow]] = defaultdict(list)
    for row in rows:
        members[row.group].append(row)
    totals = Counter(row.label for row in rows)
    count = len(rows[0].parts)
    chosen: dict[str, int] = {}
    filled = [Counter() for _ in range(count)]
    names = sorted(may_validate)
    for i in np.random.default_rng(SEED).permutation(len(names)):
        group = members[names[i]]
        label, size = group[0].label, len(group)
        tested = group[0].parts.index("test")
        fold = min((k for k in range(count) if k != tested), key=lambda k: filled[k][label])
        if filled[fold][label] + size <= SHARE * totals[label]:
            chosen[names[i]] = fold
            filled[fold][label] += size

    def part(row: FoldRow, fold: int) -> str:
        if row.parts[fold] == "test":
            return "test"
        return "validation" if chosen.get(row.group) == fold else "train"

    return [replace(row, parts=tuple(part(row, k) for k in range(count))) for row in rows]


def main(out: Path) -> None:
    """Write both files."""
    old = Folds.read(DATA_FOLDER / "splits" / "busi_5fold.csv").rows
    sizes = Counter(row.group for row in old)
    # A twin in validation would vote twice, and both would be lost to training: none validates.
    busi = with_validation(old, {group for group, size in sizes.items() if size == 1})
    Folds(tuple(busi)).save(out / "busi_5fold_v2.csv")

    cases = find_cases(os.environ["BUSBRA_DIR"], audit=None)
    pairs = duplicate_pairs(cases)
    cases = join_groups(cases, pairs)  # patients, joined where a picture lies with two of them
    twins = {cases[i].group for pair in pairs for i in pair[:2]}
    sizes = Counter(case.group for case in cases)
    allowed = {group for group, size in sizes.items() if size <= LARGEST} - twins
    busbra = with_validation(make_folds(cases, seed=SEED).rows, allowed)
    Folds(tuple(busbra)).save(out / "busbra_5fold.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA_FOLDER / "splits")
