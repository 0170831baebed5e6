"""The command line: the same functions as the notebooks."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
examples:
  python -m unet_lib phantoms data/phantoms --count 120
  python -m unet_lib check data/Dataset_BUSI_with_GT
  python -m unet_lib train data/Dataset_BUSI_with_GT --fold 0 --out runs/fold0
  python -m unet_lib evaluate --model runs/fold0 data/Dataset_BUSI_with_GT --out runs/report
  python -m unet_lib segment --model busi-fold0 --out masks scan1.png folder_of_scans/

exit codes: 0 done; 1 the data have errors (check) or training failed; 2 wrong input, with the
reason on the last line; 130 interrupted. Not a medical device.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    # Every error that the library documents is a ValueError or an OSError with a full message.
    except (ValueError, OSError) as error:
        print(f"unet_lib {options.command}: {error}", file=sys.stderr)
        return WRONG_INPUT
    except RuntimeError as error:
        if type(error).__module__.partition(".")[0] != "unet_lib":
            raise
        print(f"unet_lib {options.command}: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unet_lib",
        description="Lesion segmentation in breast ultrasound with a U-Net.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=help,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    _add_phantoms(command("phantoms", _phantoms, "Write synthetic images in BUSI's layout."))
    sub = command("check", _check, "Read every file of a data folder and report what is wrong.")
    sub.add_argument("folder", help="BUSI or a folder with images/ and masks/")
    _add_train(command("train", _train, "Train on one fold and save a model folder."))
    _add_evaluate(command("evaluate", _evaluate, "Score a model and write the report."))
    _add_segment(command("segment", _segment, "Segment images: mask, overlay and a table."))
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
    sub.add_argument("--split", type=Path, help="split CSV; default: BUSI's committed folds")
    sub.add_argument("--fold", type=int, default=0, help="fold of the split, from 0")


def _add_train(sub: argparse.ArgumentParser) -> None:
    _add_data(sub)
    sub.add_argument("--out", type=Path, required=True, help="run folder")
    sub.add_argument("--size", type=int, default=128, help="side of the network's input in pixels")
    sub.add_argument("--epochs", type=int, default=100, help="passes over the training images")
    sub.add_argument("--batch-size", type=int, default=8, help="images in a step")
    sub.add_argument("--filters", type=int, default=16, help="filters of the first level")
    sub.add_argument("--depth", type=int, default=4, help="down-samplings")
    sub.add_argument("--encoder", default="plain", help="'plain' or one of keras.applications")
    sub.add_argument("--imagenet", action="store_true", help="start the encoder from ImageNet")
    sub.add_argument("--learning-rate", type=float, default=1e-3, help="peak rate of AdamW")
    sub.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation")
    sub.add_argument("--precision", default="auto", help="auto, float32, mixed_bfloat16, ...")
    sub.add_argument("--deterministic", action="store_true", help="bit-for-bit repeatable, slower")
    sub.add_argument("--workers", type=int, default=2, help="threads that prepare batches")
    sub.add_argument("--no-normals", action="store_true", help="leave class normal out")
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    _add_data(sub)
    sub.add_argument("--model", required=True, help="registered name, model or run folder")
    sub.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
    sub.add_argument(
        "--part",
        choices=("test", "validation", "train", "all"),
        default="test",
        help="part of the fold to score",
    )


def _add_segment(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("inputs", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    sub.add_argument("--model", required=True, help="registered name, model or run folder")
    sub.add_argument("--out", type=Path, required=True, help="folder for the results")


def _phantoms(options: argparse.Namespace) -> int:
    from unet_lib.phantoms import make_phantoms

    folder = make_phantoms(options.folder, options.count, options.seed)
    print(f"{options.count} phantoms in {folder}")
    return OK


def _check(options: argparse.Namespace) -> int:
    from unet_lib.dataset import check_cases, find_cases

    report = check_cases(find_cases(options.folder), progress=True)
    print(report.to_markdown())
    return OK if report.ok else FAILED


def _open(options: argparse.Namespace, **more: Any) -> Any:
    from unet_lib.source import open_dataset

    source = open_dataset(options.folder, fold=options.fold, split=options.split, **more)
    print(source, flush=True)
    return source


def _train(options: argparse.Namespace) -> int:
    from unet_lib.images import Preprocessing
    from unet_lib.model import UNetConfig
    from unet_lib.training import Recipe, TrainingConfig, train

    recipe = Recipe(
        network=UNetConfig(
            filters=options.filters,
            depth=options.depth,
            encoder=options.encoder,
            encoder_weights="imagenet" if options.imagenet else None,
        ),
        preprocessing=Preprocessing(options.size),
        training=TrainingConfig(
            epochs=options.epochs,
            warmup_epochs=min(3.0, options.epochs / 5),
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=options.seed,
            precision=options.precision,
            deterministic=options.deterministic,
            workers=options.workers,
        ),
    )
    source = _open(options, normals=not options.no_normals)
    run = train(source.split, options.out, recipe, about=source.about, resume=options.resume)
    result = {k: v for k, v in run.result.items() if k != "candidates"}
    print(json.dumps(result, indent=2))
    print(f"model: {run.folder / 'model'}")
    return OK


def _evaluate(options: argparse.Namespace) -> int:
    from unet_lib.inference import evaluate_cases
    from unet_lib.report import write_report
    from unet_lib.weights import load_segmenter

    segmenter = load_segmenter(options.model)
    source = _open(options)
    cases = source.cases if options.part == "all" else getattr(source.split, options.part)
    about = {**source.about, "part": options.part}
    evaluation = evaluate_cases(segmenter, cases, about=about)
    report = write_report(evaluation, options.out)
    print(report.read_text(encoding="utf-8"))
    print(f"report and figures: {options.out}")
    return OK


def _segment(options: argparse.Namespace) -> int:
    from unet_lib.files import write_atomic
    from unet_lib.images import write_image
    from unet_lib.plots.overlay import draw_overlay
    from unet_lib.weights import load_segmenter

    paths = _images(options.inputs, options.out)
    segmenter = load_segmenter(options.model)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["image", "lesion", "area_px", "area_fraction", "left", "top", "width", "height",
         "mean_probability"]
    )  # fmt: skip
    empty = 0
    for path, found in segmenter.segment_files(paths):
        write_image(options.out / f"{path.stem}_pred.png", found.mask)
        overlay = draw_overlay(found.image, found.mask)
        write_image(options.out / f"{path.stem}_overlay.png", overlay)
        empty += not found.mask.any()
        for number, lesion in enumerate(found.lesions, start=1):
            table.writerow(
                [path.name, number, lesion.area, f"{lesion.area / found.mask.size:.6f}",
                 lesion.left, lesion.top, lesion.width, lesion.height,
                 f"{lesion.mean_probability:.4f}"]
            )  # fmt: skip
        if not found.mask.any():
            table.writerow([path.name, 0, 0, "0.000000", "", "", "", "", ""])
    write_atomic(options.out / "lesions.csv", text.getvalue())
    print(f"{len(paths)} images, {empty} without a lesion found; results in {options.out}")
    print("Not a medical device: no mask here replaces a radiologist.")
    return OK


def _images(inputs: Sequence[Path], out: Path) -> list[Path]:
    """List the images to segment; refuse what would write among them or over one another."""
    from unet_lib.images import IMAGE_SUFFIXES

    paths: list[Path] = []
    for item in inputs:
        if item.is_dir():
            found = [p for p in sorted(item.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
            found = [p for p in found if not _is_result_or_mask(p)]
            if not found:
                raise ValueError(
                    f"{item}: holds no image; expected files ending with "
                    f"{', '.join(sorted(IMAGE_SUFFIXES))}."
                )
            paths += found
        elif item.is_file():
            paths.append(item)
        else:
            raise FileNotFoundError(f"{item}: no such image or folder.")
    if out.resolve() in {path.resolve().parent for path in paths}:
        raise ValueError(
            f"--out {out}: holds input images; results are never written among inputs. Choose "
            "another folder."
        )
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems and stems[path.stem] != path:
            raise ValueError(
                f"{path} and {stems[path.stem]}: both would write {path.stem}_pred.png. Segment "
                "them into different folders."
            )
        stems[path.stem] = path
    return list(stems.values())


def _is_result_or_mask(path: Path) -> bool:
    stem = path.stem
    return stem.endswith(("_pred", "_overlay", "_mask")) or "_mask_" in stem
