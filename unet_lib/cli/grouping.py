"""The command duplicates: which pictures of a folder are near-duplicates."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

__all__ = ["add_duplicates"]

_DUPLICATES = """\
Search a data folder for near-duplicates (the same view cut, scaled, brightened, written on, saved
again) and list the pairs with the correlation of their speckle, and the groups that they and the
patients form. train, evaluate and crossvalidate do the same search by themselves, once, in a folder
without groups.csv, except BUSI, which has an audited list. With --out the groups of all images are
written as CSV: mend what is wrong by hand, put it into the data folder as groups.csv, and it is
taken instead of a search. On BUSI the search finds 98 % of the audited pairs; turned and mirrored
copies are not found.
"""


def add_duplicates(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command duplicates."""
    sub = command("duplicates", _duplicates, "List near-duplicates of a data folder.", _DUPLICATES)
    sub.add_argument("folder", type=Path, help="data folder; masks are not needed")
    sub.add_argument("--out", type=Path, help="CSV with the columns image,group; must not exist")


def _duplicates(options: argparse.Namespace) -> int:
    from unet_lib.dataset import duplicate_pairs, find_cases, join_groups
    from unet_lib.files import write_atomic

    if options.out and options.out.exists():
        raise FileExistsError(f"--out {options.out}: exists; it may have been mended by hand.")
    cases = find_cases(options.folder, audit=None, require_masks=False)
    pairs = duplicate_pairs(cases)
    for first, second, correlation in pairs:
        print(f"{cases[first].name}  {cases[second].name}  {correlation:.2f}")
    grouped = join_groups(cases, pairs)
    twins = [case.group for case in grouped if case.has_twins]
    patients = len({case.patient for case in cases} - {""})
    print(
        f"{len(cases)} images, {patients or 'no known'} patients; {len(pairs)} pairs of "
        f"near-duplicates; {len(twins)} images lie in {len(set(twins))} groups."
    )
    if options.out:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "group"])
        table.writerows([case.name, case.group] for case in grouped)
        print(f"groups: {write_atomic(options.out, text.getvalue())}")
    return 0
