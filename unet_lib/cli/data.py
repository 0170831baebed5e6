"""The commands phantoms, check, duplicates and download."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

from unet_lib.cli.weights import download_weights

_DUPLICATES = """\
Search a data folder for near-duplicates (the same view cut, scaled, brightened, written on, saved
again) and list the pairs with the correlation of their speckle, and the groups that they and the
patients form. train, evaluate and crossvalidate do the same search by themselves, once, in a folder
without groups.csv, except BUSI, which has an audited list. With --out the groups of all images are
written as CSV: mend what is wrong by hand, put it into the data folder as groups.csv, and it is
taken instead of a search. On BUSI the search finds 98 % of the audited pairs; turned and mirrored
copies are not found.
"""

_DOWNLOAD = """\
Download BUSI or registered weights, check them, or say how to do it by hand. TLS certificates are
always checked. Sources of BUSI: authors (their archive, compared with its SHA-256); medsegbench,
medsegbench-256, medsegbench-128 (pictures resized to 512, 256, 128 pixels, not the original
resolution); or the path of a zip file or folder that you have, such as Kaggle's.
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    sub = command("phantoms", _phantoms, "Write synthetic images in BUSI's layout.")
    sub.add_argument("folder", type=Path, help="where to write; new or empty")
    sub.add_argument("--count", type=int, default=120, help="images of all classes together")
    sub.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")
    sub = command("check", _check, "Read every file of a data folder and report what is wrong.")
    sub.add_argument("folder", help="BUSI or a folder with images/ and masks/")
    sub = command("duplicates", _duplicates, "List near-duplicates of a data folder.", _DUPLICATES)
    sub.add_argument("folder", type=Path, help="data folder; masks are not needed")
    sub.add_argument("--out", type=Path, help="CSV with the columns image,group; must not exist")
    sub = command("download", _download, "Download BUSI or weights, checked.", _DOWNLOAD)
    sub.add_argument("what", help="'busi', or the name of registered weights such as first-readme")
    sub.add_argument("--to", type=Path, help="folder for busi (the project's data/)")
    sub.add_argument("--source", help="source of busi: a name above or a path (authors)")


def _phantoms(options: argparse.Namespace) -> None:
    from unet_lib.phantoms import make_phantoms

    folder = make_phantoms(options.folder, options.count, options.seed)
    print(f"{options.count} phantoms in {folder}")


def _check(options: argparse.Namespace) -> int:
    from unet_lib.dataset import check_cases, find_cases, of_folder

    cases = find_cases(options.folder, require_masks=False)  # a missing mask is a finding here
    report = check_cases(cases, progress=True)
    print(report.to_markdown())
    print(of_folder(Path(options.folder), cases))
    return 0 if report.ok else 1


def _duplicates(options: argparse.Namespace) -> None:
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


def _download(options: argparse.Namespace) -> None:
    if options.what != "busi":
        if options.to or options.source:
            raise ValueError("--to and --source: only for busi; weights have one place each.")
        return download_weights(options.what)
    from unet_lib.dataset import DATA_FOLDER
    from unet_lib.downloads import CITATION, download_busi

    path, report = download_busi(options.to or DATA_FOLDER, options.source or "authors")
    print(f"{path}\n{report}\n{CITATION}")
