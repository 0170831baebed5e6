"""The commands weights and export."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from unet_lib.cli.models import check_out

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
Needs pip install -r requirements-export.txt, and Keras on TensorFlow.
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    sub = command("weights", _list, "List, download, inspect or verify weights.", _WEIGHTS)
    verbs = sub.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="what is registered").set_defaults(run=_list)
    verb = verbs.add_parser("download", help="get registered weights, checked")
    verb.add_argument("name", help="a name that 'weights list' shows")
    verb.set_defaults(run=lambda options: download_weights(options.name))
    verb = verbs.add_parser("inspect", help="what a weights file tells of its network")
    verb.add_argument("path", type=Path, help="a .weights.h5, .h5 or .keras file")
    verb.set_defaults(run=_inspect)
    verb = verbs.add_parser("verify", help="hash, arrays, card and forward pass of model folders")
    verb.add_argument("models", nargs="*", help="names or folders; left out: all registered")
    verb.set_defaults(run=_verify)
    sub = command("export", _export, "Write a model for ONNX, LiteRT or OpenVINO.", _EXPORT)
    sub.add_argument("--model", required=True, help="registered name, model folder or run folder")
    sub.add_argument("--format", required=True, help="onnx, litert or openvino")
    sub.add_argument("--out", type=Path, required=True, help="folder for the files")


def download_weights(name: str) -> None:
    """Get registered weights and print where they are and what is known of them."""
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
        print(f"{entry.name}: {'present' if here else 'not downloaded'}")
        print(f"  file        {entry.path}")
        print(f"  from        {entry.where}")
        print(f"  size        {f'{size:,} bytes' if size else 'not known before the download'}")
        print(f"  SHA-256     {entry.sha256 or 'nobody recorded it; the first download does'}")
        print(f"  licence     {entry.licence}")
        print(f"  trained on  {entry.trained_on}")
        print(f"  results     {entry.results}")


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
    from unet_lib.weights import export_segmenter, load_segmenter

    check_out(options.out)
    path = export_segmenter(load_segmenter(options.model), options.out, options.format)
    print(f"{path}, described by {path.name}.json")
