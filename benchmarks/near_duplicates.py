"""Recall and precision of the near-duplicate search on BUSI, and its time.

Pairs are judged twice: as found, and after they are joined to groups, which is what a split uses.
``python -m benchmarks.near_duplicates FOLDER`` (BUSI; about 90 s of one core, uncached)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from itertools import combinations

from unet_lib.dataset import (
    Case,
    duplicate_pairs,
    find_cases,
    find_duplicates,
    join_groups,
)


def pairs_within_groups(cases: Sequence[Case]) -> set[tuple[int, int]]:
    """All pairs of positions that share a group."""
    members: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        members.setdefault(case.group, []).append(i)
    return {pair for found in members.values() for pair in combinations(found, 2)}


def line(name: str, found: Iterable[tuple[int, int]], audited: set[tuple[int, int]]) -> str:
    """One line of the table."""
    found = set(found)
    right = len(found & audited)
    return f"| {name} | {len(found)} | {right / len(audited):.3f} | {right / len(found):.3f} |"


def main() -> None:
    """Search, compare with the audit list, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--cached", action="store_true", help="take pairs found before; no time")
    options = parser.parse_args()
    audited = pairs_within_groups(find_cases(options.folder))
    bare = find_cases(options.folder, audit=None)
    start = time.perf_counter(), time.process_time()
    if options.cached:
        pairs = duplicate_pairs(bare)
    else:
        pairs = find_duplicates([case.image_path for case in bare])
    wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"{len(bare)} images, {len(audited)} audited pairs")
    print("| judged | pairs | recall | precision |\n|---|---|---|---|")
    print(line("found pairs", (pair[:2] for pair in pairs), audited))
    print(line("joined to groups", pairs_within_groups(join_groups(bare, pairs)), audited))
    if not options.cached:
        print(f"{wall:.0f} s, {processor:.0f} s of processor time")


if __name__ == "__main__":
    main()
