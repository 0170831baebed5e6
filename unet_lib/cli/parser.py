"""Commands, their options and help, exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unet_lib.cli import commands as run
from unet_lib.cli.experimenting import add_crossvalidate
from unet_lib.cli.grouping import add_duplicates
from unet_lib.cli.scoring import add_score
from unet_lib.cli.segmenting import segment
from unet_lib.cli.transfer import add_download, add_export
from unet_lib.cli.weighing import add_weights
from unet_lib.files import WriteError

__all__ = ["main"]

_EPILOG = """\
examples:
  python -m unet_lib phantoms data/phantoms --count 120
  python -m unet_lib check data/Dataset_BUSI_with_GT
  python -m unet_lib duplicates my_images
  python -m unet_lib train data/Dataset_BUSI_with_GT --fold 0 --out runs/fold0
  python -m unet_lib evaluate --model runs/fold0 data/Dataset_BUSI_with_GT --out runs/report
  python -m unet_lib segment --model busi-fold0 --out masks scan1.png folder_of_scans/
  python -m unet_lib score masks_of_any_program data/Dataset_BUSI_with_GT --fold 0 --out runs/theirs
  python -m unet_lib crossvalidate data/Dataset_BUSI_with_GT --out runs/recipe --folds 0 1
  python -m unet_lib download busi
  python -m unet_lib weights list
  python -m unet_lib export --model busi-fold0 --format onnx --out exported

exit codes: 0 done; 1 the data have errors (check), training, download or export failed, or a file
cannot be written; 2 wrong input, with the reason on the last line; 130 interrupted. Not a medical
device.
"""

_AFTER = {  # an interruption, or when there is space again
    "train": "the same command with --resume goes on",
    "crossvalidate": "give the same command again",
    "download": "give the same command again",
}

_TRAIN = """\
Train a U-Net on one fold, choose its threshold on the fold's validation images, and write the run
folder --out: settings, split, history.csv, result.json and model/, which evaluate and segment take.
The test part is not touched. The state is saved after every epoch: the same command with --resume
goes on after an interruption, and returns a finished run as it is. 100 epochs of one BUSI fold with
the default network take about 70 minutes on two processor cores.
"""

_EVALUATE = """\
Score a model on one part of a fold, each image at its original size. --out gets report.md (also
printed), summary.json, cases.csv with one line for each image, and the curves. Give the --split and
--fold that the model was trained with: the report says when it has seen images that are scored.
"""

_SEGMENT = """\
Segment images of any size (PNG, JPEG, BMP, TIFF, DICOM). For each, --out gets NAME_pred.png (0 and
255) and NAME_overlay.png (the outline drawn into the image), both at the size of the image, and
lesions.csv lists the lesions of all images of this call: area, box and mean probability, and
millimetres where a DICOM file says how large its pixels are; lesion 0 stands for an image in which
nothing was found. Of a file with several frames every frame is segmented: NAME_frame001_pred.png
and so on. An image unlike the training images (no ultrasound, inverted, colour overlay, mostly
text) is segmented with a warning and its distance from them. Nothing of a DICOM header goes into
the results, but their names are those of the files. Of a folder, the images lying in it are taken,
not those of folders within; masks (*_mask) and earlier results (*_pred, *_overlay) are passed over.
An image that cannot be read is named at the end and in lesions.csv, with the reason; all others are
done. The exit code is 1 then.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    after = [_AFTER[options.command]] if options.command in _AFTER else []
    try:
        with _terminated_like_interrupted():
            return options.run(options)
    except KeyboardInterrupt:
        text, code = "; ".join(["interrupted", *after]), run.INTERRUPTED
    except WriteError as error:
        more = [f"Then: {text}." for text in after]
        text, code = " ".join([f"unet_lib {options.command}: {error}", *more]), run.FAILED
    # Every error that the library documents is a ValueError or an OSError with a full message.
    except (ValueError, OSError) as error:
        text, code = f"unet_lib {options.command}: {error}", run.WRONG_INPUT
    except RuntimeError as error:
        if type(error).__module__.partition(".")[0] != "unet_lib":
            raise
        text, code = f"unet_lib {options.command}: {error}", run.FAILED
    # Here the error is gone, and with it progress bars that would write behind the message.
    print(text, file=sys.stderr)
    return code


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that what it was writing is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults, except None and False, which say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unet_lib",
        description="Lesion segmentation in breast ultrasound with a U-Net.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, function: Any, help: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=more or help, formatter_class=_Help)
        sub.set_defaults(run=function)
        return sub

    _add_phantoms(command("phantoms", run.phantoms, "Write synthetic images in BUSI's layout."))
    sub = command("check", run.check, "Read every file of a data folder and report what is wrong.")
    sub.add_argument("folder", help="BUSI or a folder with images/ and masks/")
    short = "Train on one fold and save a model folder."
    _add_train(command("train", run.train, short, _TRAIN))
    short = "Score a model and write the report."
    _add_evaluate(command("evaluate", run.evaluate, short, _EVALUATE))
    short = "Segment images: mask, overlay and a table."
    _add_segment(command("segment", segment, short, _SEGMENT))
    add_score(command)
    add_crossvalidate(command)
    add_duplicates(command)
    add_download(command)
    add_export(command)
    add_weights(command)
    return parser


def _add_phantoms(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", type=Path, help="where to write; new or empty")
    sub.add_argument("--count", type=int, default=120, help="images of all classes together")
    sub.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")


def _add_data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "folder",
        nargs="?",
        default="auto",
        help="data folder; 'auto' looks for BUSI and else takes phantoms, 'phantoms' takes them",
    )
    sub.add_argument(
        "--split",
        type=Path,
        help="split CSV; 'own': that of the data set's authors, which may leak; left out: BUSI's "
        "committed folds, else five new ones",
    )
    sub.add_argument("--fold", type=int, default=0, help="fold of the split, from 0")


def _add_train(sub: argparse.ArgumentParser) -> None:
    _add_data(sub)
    sub.add_argument("--out", type=Path, required=True, help="run folder")
    sub.add_argument("--size", type=int, default=128, help="side of the network's input in pixels")
    sub.add_argument("--epochs", type=int, default=100, help="passes over the training images")
    sub.add_argument("--batch-size", type=int, default=8, help="images in a step")
    sub.add_argument(
        "--accumulate",
        type=int,
        default=1,
        help="parts in which a step is computed, to save memory",
    )
    sub.add_argument("--filters", type=int, default=16, help="filters of the first level")
    sub.add_argument("--depth", type=int, default=4, help="down-samplings")
    sub.add_argument(
        "--encoder", default="plain", help="'plain', EfficientNetLite0 or one of keras.applications"
    )
    sub.add_argument("--imagenet", action="store_true", help="start the encoder from ImageNet")
    sub.add_argument(
        "--start-from",
        metavar="MODEL",
        default="",
        help="model whose network and weights the training starts from, such as busi-best",
    )
    sub.add_argument("--learning-rate", type=float, default=1e-3, help="peak rate of AdamW")
    sub.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation")
    sub.add_argument("--precision", default="auto", help="auto, float32, mixed_bfloat16, ...")
    sub.add_argument("--deterministic", action="store_true", help="bit-for-bit repeatable, slower")
    sub.add_argument("--workers", type=int, default=2, help="threads that prepare batches")
    sub.add_argument("--no-normals", action="store_true", help="leave class normal out")
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")
    sub.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes on JAX; see docs/several_machines.md",
    )


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    _add_data(sub)
    _add_model(sub)
    sub.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
    sub.add_argument(
        "--part",
        choices=("test", "validation", "train", "all"),
        default="test",
        help="part of the fold to score",
    )


def _add_segment(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("inputs", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    _add_model(sub)
    sub.add_argument(
        "--out", type=Path, required=True, help="folder for the results; holds no input image"
    )


def _add_model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--model", required=True, help="registered name, model folder, run folder, or weights file"
    )
    sub.add_argument(
        "--engine",
        default="keras",
        help=argparse.SUPPRESS,  # of earlier versions; others are refused
    )
    bare = sub.add_argument_group(
        "for a weights file",
        "A model folder says these itself. A file (NAME.weights.h5) does not: give what it was "
        "trained with. Filters, depth and encoder are checked against the file; a wrong size "
        "cannot be seen and gives worse masks. The threshold is 0.5.",
    )
    bare.add_argument("--size", type=int, help="side of the network's input in pixels (128)")
    bare.add_argument("--filters", type=int, help="filters of the first level (16)")
    bare.add_argument("--depth", type=int, help="down-samplings (4)")
    bare.add_argument("--encoder", help="'plain', EfficientNetLite0 or one of keras.applications")
