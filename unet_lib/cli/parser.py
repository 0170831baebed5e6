"""The commands, what they end with, and errors in one line."""

from __future__ import annotations

import argparse
import dis
import re
import signal
import sys
from collections.abc import Callable, Sequence

from unet_lib.cli import data, models, scoring, segmenting
from unet_lib.files import WriteError

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

_EPILOG = """\
examples:
  python -m unet_lib phantoms data/phantoms --count 120
  python -m unet_lib check data/Dataset_BUSI_with_GT
  python -m unet_lib duplicates my_images
  python -m unet_lib train data/Dataset_BUSI_with_GT --fold 0 --out runs/fold0
  python -m unet_lib evaluate --model runs/fold0 data/Dataset_BUSI_with_GT --out runs/report
  python -m unet_lib segment --model busi-fold0 --out masks scan1.png folder_of_scans/
  python -m unet_lib score masks_of_any_program data/Dataset_BUSI_with_GT --fold 0 --out runs/theirs
  python -m unet_lib site my_outlined_pictures
  python -m unet_lib crossvalidate data/Dataset_BUSI_with_GT --out runs/recipe --folds 0 1
  python -m unet_lib download busi
  python -m unet_lib weights list
  python -m unet_lib export --model busi-fold0 --format onnx --out exported

exit codes: 0 done; 1 the data have errors (check), an image could not be read (segment), training,
download or export failed, or a file cannot be written; 2 wrong input, with the reason at the end;
130 interrupted. A traceback is a fault of the program. Not a medical device.
"""

_AFTER = {  # an interruption, or when there is space again
    "train": "the same command with --resume goes on",
    "crossvalidate": "give the same command again",
    "site": "give the same command again",
    "download": "give the same command again",
}

_RETIRED = {
    "--engine": "Keras computes. python -m unet_lib export writes a model for ONNX Runtime, LiteRT "
    "or OpenVINO",
    **dict.fromkeys(
        ("--processes", "--coordinator", "--process-id"),
        "start train --distributed once for each process (docs/several_machines.md)",
    ),
    **dict.fromkeys(
        ("--ledger", "--against", "--note", "--publish", "--models"),
        "python -m lab.ledger records, compares and publishes what crossvalidate has trained",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    after = _AFTER.get(options.command)
    # SIGTERM ends a command as Ctrl-C does, so that what it was writing is removed.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        text, code = f"interrupted; {after}" if after else "interrupted", INTERRUPTED
    except Exception as error:
        if not _is_for_the_user(error):
            raise
        text = f"unet_lib {options.command}: {error}"
        failed = isinstance(error, WriteError | RuntimeError)
        if isinstance(error, WriteError) and after:
            text += f" Then: {after}."
        code = FAILED if failed else WRONG_INPUT
    finally:
        signal.signal(signal.SIGTERM, before)
    # Here the error is gone, and with it progress bars that would write behind the message.
    print(text, file=sys.stderr)
    return code


def _is_for_the_user(error: Exception) -> bool:
    """Whether the library raised this itself, in words for the user; all else is a fault of ours.

    An OSError is the file system's answer, whoever passes it on.
    """
    if isinstance(error, OSError):
        return True
    if isinstance(error, RuntimeError):
        return type(error).__module__.partition(".")[0] == "unet_lib"
    if not isinstance(error, ValueError):
        return False
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    module = last.tb_frame.f_globals.get("__name__", "")
    raised = last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return module.partition(".")[0] == "unet_lib" and raised


class _Command(argparse.ArgumentParser):
    """A parser that names what replaces an option of earlier versions."""

    def error(self, message: str) -> None:
        """End with 2, as argparse does."""
        for option, instead in _RETIRED.items():
            if re.match(rf"unrecognized arguments:.* {option}(?![\w-])", message):
                message = f"{option}: is no more. Instead: {instead}."
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Command(
        prog="python -m unet_lib",
        description="Lesion segmentation in breast ultrasound with a U-Net.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable, short: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=short, description=more or short, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    for module in (data, models, segmenting, scoring):
        module.add_commands(command)
    return parser
