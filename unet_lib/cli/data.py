"""The commands phantoms, check, duplicates, download, weights and export."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

from unet_lib.cli.models import add_mask_rule, check_out

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

_WEIGHTS = """\
list: every registered file of weights, whether it is here, its size and SHA-256, licence, what it
was trained on, results. download NAME: get one, checked. inspect PATH: what a weights file, trained
anywhere, tells of its network, as a table. verify: of every model folder, or of those named, the
SHA-256, the arrays, the card, and a forward pass.
"""

_EXPORT = """\
Write a model for another runtime: model.onnx, model.tflite (LiteRT) or model.xml and model.bin
(OpenVINO), with a .json beside it, which tells all that a program needs to use it without this
library. Before anything is written the file is run in its own runtime and compared with Keras.
Needs pip install -r requirements-export.txt, and Keras on TensorFlow. Without --out, ONNX goes into
the model's own folder: segment then starts and runs without TensorFlow.
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    sub = command("phantoms", _phantoms, "Write synthetic images in BUSI's layout.")
    sub.add_argument("folder", type=Path, help="where to write; new or empty")
    sub.add_argument("--count", type=int, default=120, help="images of all classes together (120)")
    sub.add_argument("--seed", type=int, default=0, help="the same seed gives the same images (0)")
    sub = command("check", _check, "Read every file of a data folder and report what is wrong.")
    sub.add_argument("folder", help="BUSI or a folder with images/ and masks/")
    add_mask_rule(sub)
    sub = command("duplicates", _duplicates, "List near-duplicates of a data folder.", _DUPLICATES)
    sub.add_argument("folder", type=Path, help="data folder; masks are not needed")
    sub.add_argument("--out", type=Path, help="CSV with the columns image,group; must not exist")
    sub = command("download", _download, "Download BUSI or weights, checked.", _DOWNLOAD)
    sub.add_argument("what", help="'busi', or the name of registered weights such as first-readme")
    sub.add_argument("--to", type=Path, help="folder for busi (the project's data/)")
    sub.add_argument("--source", help="source of busi: a name above or a path (authors)")
    sub = command("weights", _list, "List, download, inspect or verify weights.", _WEIGHTS)
    verbs = sub.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="what is registered").set_defaults(run=_list)
    verb = verbs.add_parser("download", help="get registered weights, checked")
    verb.add_argument("name", help="a name that 'weights list' shows")
    verb.set_defaults(run=lambda options: _download_weights(options.name))
    verb = verbs.add_parser("inspect", help="what a weights file tells of its network")
    verb.add_argument("path", type=Path, help="a .weights.h5, .h5 or .keras file")
    verb.set_defaults(run=_inspect)
    verb = verbs.add_parser("verify", help="hash, arrays, card and forward pass of model folders")
    verb.add_argument("models", nargs="*", help="names or folders; left out: all registered")
    verb.set_defaults(run=_verify)
    sub = command("export", _export, "Write a model for ONNX, LiteRT or OpenVINO.", _EXPORT)
    sub.add_argument("--model", required=True, help="registered name, model folder or run folder")
    sub.add_argument("--format", required=True, help="onnx, litert or openvino")
    sub.add_argument("--out", type=Path, help="folder for the files (onnx: the model's own)")


def _phantoms(options: argparse.Namespace) -> None:
    from unet_lib.phantoms import make_phantoms

    folder = make_phantoms(options.folder, options.count, options.seed)
    print(f"{options.count} phantoms in {folder}")


def _check(options: argparse.Namespace) -> int:
    from unet_lib.dataset import check_cases, find_cases, of_folder

    cases = find_cases(  # a missing mask is a finding here
        options.folder, require_masks=False, mask_rule=options.mask_rule
    )
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
        return _download_weights(options.what)
    from unet_lib.dataset import DATA_FOLDER
    from unet_lib.downloads import CITATION, download_busi

    path, report = download_busi(options.to or DATA_FOLDER, options.source or "authors")
    print(f"{path}\n{report}\n{CITATION}")


def _download_weights(name: str) -> None:
    from unet_lib.downloads import download_model, weights_registry

    path, report = download_model(name)
    entry = weights_registry()[name]
    print(f"{path}\n{report}")
    print(f"from: {entry.where}\nlicence: {entry.licence}\ntrained on: {entry.trained_on}")
    print(f"results: {entry.results}")


def _list(options: argparse.Namespace) -> None:
    from unet_lib.downloads import weights_registry

    for entry in weights_registry().values():
        here = entry.path.is_file()
        size = entry.path.stat().st_size if here else entry.size
        lines = {
            "file": entry.path,
            "from": entry.where,
            "size": f"{size:,} bytes" if size else "not known before the download",
            "SHA-256": entry.sha256 or "nobody recorded it; the first download does",
            "licence": entry.licence,
            "trained on": entry.trained_on,
            "results": entry.results,
        }
        print(f"{entry.name}: {'present' if here else 'not downloaded'}")
        print("\n".join(f"  {name:<12}{value}" for name, value in lines.items()))


def _inspect(options: argparse.Namespace) -> None:
    from unet_lib.foreign import load_foreign_weights

    print(load_foreign_weights(options.path, progress=False).table())


def _verify(options: argparse.Namespace) -> int:
    from unet_lib.weights import registered_models, verify_model

    wrong = 0
    for model in options.models or registered_models():
        findings = verify_model(model)
        wrong += bool(findings)
        print(f"{Path(model).name}: {'; '.join(findings) or 'as it should be'}", flush=True)
    return int(wrong > 0)


def _export(options: argparse.Namespace) -> None:
    from unet_lib import weights

    if options.out is not None:
        check_out(options.out)
    if options.format not in weights.EXPORT_FORMATS:
        raise ValueError(
            f"--format {options.format}: expected {', '.join(weights.EXPORT_FORMATS)}."
        )
    if options.out is None:
        if options.format != "onnx":
            raise ValueError(f"--format {options.format}: needs --out, a folder for the files.")
        print(weights.export_into_model(options.model))
        return
    segmenter = weights.load_segmenter(options.model, runtime="keras")
    path = weights.export_segmenter(segmenter, options.out, options.format)
    print(f"{path}, described by {path.name}.json")
