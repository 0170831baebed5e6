"""A model judged on the pictures of one site, and fitted to them where that surely helps."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from unet_lib.dataset import Case, Split, content_hash, load_case, make_folds
from unet_lib.images import read_pixels
from unet_lib.inference import Segmenter, evaluate_cases, show_cases
from unet_lib.metrics import CaseTable, Evaluation, join_tables, number
from unet_lib.metrics.intervals import Interval, group_bootstrap, share_interval
from unet_lib.provenance import Provenance
from unet_lib.report import write_report
from unet_lib.report.markdown import escape, table
from unet_lib.report.page import Show
from unet_lib.source import open_folder
from unet_lib.training import RECIPES, Recipe, TrainingConfig, train
from unet_lib.training.result import THRESHOLDS, score_settings
from unet_lib.training.run import settings_of
from unet_lib.weights import load_segmenter, registered_models, save_segmenter

__all__ = ["LEAST_GROUPS", "cross_tune", "fine_tuning", "fit_threshold", "judge_site", "score_grid"]

LEAST_GROUPS = 10
"""Fewer groups give no interval, and nothing is fitted to them."""
THRESHOLD_GROUPS = 50
"""Of a threshold: from 20 groups nearly half of the gains promised are none."""
MODEL = "site_model"
FOLDS, UPDATES, RATE, BATCH = 3, 200, 3e-4, 8
"""Of the fine-tuning; fixed on BUS-BRA's fold 0 (`experiments/site.py`), never on a site."""
Tune = Callable[[Sequence[Case], str], Segmenter]
NOTE = (
    "Each row: the same images, each scored by what was not fitted to its group; in parentheses "
    "the 95 % interval over groups. What follows is the report of the model as it is."
)


def judge_site(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    model: str = "bus-best",
    *,
    progress: bool = True,
) -> Path:
    """Say how a model does on the pictures of a site, and whether fitting it to them helps.

    Threshold and weights are fitted by cross-validation over groups (patients, near-duplicates):
    each image is scored by what has not seen it. What is fitted is saved only where the interval
    of the gain in Dice is above zero.

    Parameters
    ----------
    folder : path-like
        Images with masks, in any layout that is read.
    out : path-like
        Folder of the report; an interrupted call goes on there.
    model : str
        As `load_segmenter` takes it.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        ``report.html``. Beside it ``report.md`` and what `write_report` writes, and the model
        folder ``site_model`` where fitting helps.

    Raises
    ------
    ValueError
        No image has a lesion, or the model has seen some of the images.
    ImageError, DatasetError, WeightsError
        A file cannot be used; the message names it.
    """
    out = Path(out)
    cases, data = open_folder(folder, progress=progress)
    data = data.but(split="none", part="all images")
    segmenter = load_segmenter(model, runtime="keras")
    scores = evaluate_cases(segmenter, cases, provenance=data, progress=progress)
    name, lesions = scores.provenance.model, scores.table.lesion_cases
    if scores.provenance.seen_in_training:
        overlap = scores.provenance.training_overlap
        seen = [*overlap["in_training"], *overlap["near_duplicates"]]
        raise ValueError(
            f"{folder}: {len(seen)} of its {len(cases)} images (first {seen[0]!r}) trained {name} "
            "or chose its threshold, or are near-duplicates of such: their scores would be too "
            "good. Take them out, or give --model one that has not seen them."
        )
    if not len(lesions):
        raise ValueError(
            f"{folder}: none of its {len(cases)} images has a lesion in its mask, so nothing can "
            "be said of outlines. Outline the lesions (docs/site.md)."
        )
    others = _other_models(scores, cases, data, progress)
    fits: list[tuple[str, Interval, Callable[[], Segmenter]]] = []
    after, shows, groups = None, {}, len(set(lesions.groups))
    outcome = f"Fewer than {LEAST_GROUPS} groups: nothing is fitted to them; {name} stays."
    if groups >= LEAST_GROUPS:
        outcome = f"Nothing fitted to these images is surely better: {name} stays as it is."
        digests = scores.provenance.data_sha256, segmenter.provenance.weights_sha256
        runs = out / "fitting" / "-".join(digest[:8] for digest in digests)
        tune = fine_tuning(model, runs, data, progress=progress)
        after, shows = cross_tune(cases, tune, progress=progress)
        gain = _interval(_dice(after, lesions) - lesions.column("dice"), lesions)
        fits.append(("weights of this site", gain, lambda: tune(cases, "all")))
    if groups >= THRESHOLD_GROUPS:
        grid, hashes = score_grid(segmenter, cases, progress=progress)
        position, gains = fit_threshold(grid, scores.table.groups)
        threshold = (segmenter.threshold, *THRESHOLDS)[position]
        gain = _interval(gains[scores.table.column("has_lesion")], lesions)
        what = f"threshold {threshold:g} of this site"
        fits.append((what, gain, lambda: _with_threshold(segmenter, threshold, hashes)))
    shutil.rmtree(out / MODEL, ignore_errors=True)  # of an earlier call
    for what, gain, fit in fits:
        if gain.low > 0:
            fitted = fit()
            fitted.monitor = fitted.monitor or segmenter.monitor
            fitted.provenance = fitted.provenance.but(
                name=f"{name} at {data.data}",
                operating_point_from=f"the command site, from {name} and {len(cases)} images",
            )
            save_segmenter(fitted, settings_of(model)[0], out / MODEL)
            outcome = f"Take {out / MODEL}, with the {what}: Dice {_signed(gain)}."
            break
    sentences = [_sure(scores), _what_else(scores, segmenter, cases), outcome]
    sentences += [f"{other} is surely better here than {name}." for other, d in others if d.low > 0]
    print("\n".join(sentences))
    rows = [*others, *(fit[:2] for fit in fits)]
    header = f"instead of {name} as it is", "Dice by", "surely better"
    cells = [(escape(n), _signed(d), "yes" if d.low > 0 else "no") for n, d in rows]
    answer = [escape(sentence) for sentence in sentences] + [table(header, cells)] * bool(cells)
    write_report(
        scores,
        out,
        show=show_cases(segmenter, cases),
        answer="\n\n".join([*answer, NOTE]),
        after=(after, lambda case: shows[case](case)) if after else None,
    )
    return out / "report.html"


def _with_threshold(segmenter: Segmenter, threshold: float, hashes: Sequence[str]) -> Segmenter:
    """Return the model at a threshold that the images of these hashes have chosen."""
    used = {*(segmenter.provenance.tuned_on or ()), *hashes}
    chosen = {"threshold": threshold, "cleaning": segmenter.cleaning.to_dict()}
    provenance = segmenter.provenance.but(tuned_on=sorted(used), training=chosen)
    return replace(segmenter, threshold=threshold, provenance=provenance)


def score_grid(
    segmenter: Segmenter, cases: Sequence[Case], *, progress: bool = True
) -> tuple[np.ndarray, list[str]]:
    """Score cases at the segmenter's own threshold and at all that may be chosen.

    Returns (N, 1 + thresholds, 2), Dice and whether nothing is marked, and the images' hashes.
    """
    truths, hashes = [], []

    def images() -> Iterator[np.ndarray]:
        for case in cases:
            image, truth = load_case(case)
            truths.append(truth)
            hashes.append(content_hash(image))
            yield image

    maps = segmenter.iter_probabilities(images())
    bar = tqdm(maps, "thresholds", len(cases), disable=not progress, unit="image")
    given = (segmenter.threshold, *THRESHOLDS), (segmenter.cleaning,)
    return np.stack([score_settings(truths.pop(0), one, *given)[0] for one in bar]), hashes


def fit_threshold(grid: np.ndarray, groups: np.ndarray) -> tuple[int, np.ndarray]:
    """Choose a threshold of `score_grid`: its position and, by image, its cross-validated gain.

    The highest mean Dice of those that leave no fewer images without a lesion empty than the
    first one, which is kept where none is better. The gain in an image's Dice is that of the
    threshold chosen without its group, of ten parts.
    """
    dice, empty, lesion = grid[..., 0], grid[..., 1], ~np.isnan(grid[:, 0, 0])

    def best(rows: np.ndarray) -> int:
        left = empty[rows & ~lesion].sum(0)
        return int(np.argmax(np.where(left < left[0], -1, dice[rows & lesion].mean(0))))

    part = np.unique(groups, return_inverse=True)[1] % 10
    chosen = np.array([best(part != k) for k in range(10)])[part]
    return best(part >= 0), dice[np.arange(len(dice)), chosen] - dice[:, 0]


def cross_tune(
    cases: Sequence[Case], tune: Tune, *, progress: bool = True
) -> tuple[CaseTable, dict[str, Show]]:
    """Score each case by a network that was tuned on other groups; say how to show each."""
    folds = make_folds(cases, FOLDS)
    tables, shows = {}, {}
    for fold in range(FOLDS):
        split = folds.split(cases, fold)
        tuned = tune(split.train + split.validation, f"fold{fold}")
        tables[fold] = evaluate_cases(tuned, split.test, progress=progress)
        shows |= dict.fromkeys((case.name for case in split.test), show_cases(tuned, split.test))
    return join_tables(tables), shows


def fine_tuning(model: str | Path, runs: Path, data: Provenance, *, progress: bool = True) -> Tune:
    """Return what trains on from a model, at its threshold; an interrupted training goes on."""
    given = load_segmenter(model, runtime="keras")
    network, preprocessing = settings_of(str(model))

    def tune(cases: Sequence[Case], name: str) -> Segmenter:
        epochs = round(UPDATES / math.ceil(len(cases) / BATCH)) or 1
        config = TrainingConfig(
            epochs=epochs,
            batch_size=BATCH,
            learning_rate=RATE,
            warmup_epochs=epochs / 10,
            take="last",
            precision="float32",
            start_from=str(model),
        )
        return train(
            Split(tuple(cases), (), (), f"images of {data.data}"),
            runs / name,
            Recipe(network, preprocessing, RECIPES["pretrained"].augmentation, config),
            provenance=data,
            operating_point=(given.threshold, given.cleaning),
            resume=True,
            progress=progress,
        ).segmenter

    return tune


def _other_models(
    scores: Evaluation, cases: Sequence[Case], data: Provenance, progress: bool
) -> list[tuple[str, Interval]]:
    """Compare with the registered models that have not seen the images."""
    rows, lesions = [], scores.table.lesion_cases
    for name in registered_models():
        other = load_segmenter(name)
        if other.provenance.weights_sha256 == scores.provenance.model_sha256:
            continue
        theirs = evaluate_cases(other, cases, provenance=data, progress=progress)
        if theirs.provenance.seen_in_training is False:
            gains = _dice(theirs.table, lesions) - lesions.column("dice")
            rows.append((name, _interval(gains, lesions)))
    return rows


def _dice(table: CaseTable, lesions: CaseTable) -> np.ndarray:
    by_name = {case.name: case.dice for case in table}
    return np.array([by_name[case.name] for case in lesions])


def _interval(values: np.ndarray, lesions: CaseTable, worst: float | None = None) -> Interval:
    return group_bootstrap(values, lesions.groups, least=LEAST_GROUPS, worst=worst)


def _signed(gain: Interval) -> str:
    limits = f" ({gain.low:+.3f} to {gain.high:+.3f})" if gain.known else " (-)"
    return f"{gain.mean:+.3f}{limits}"


def _sure(scores: Evaluation) -> str:
    """Say the mean Dice, and how sure it is."""
    lesions, name = scores.table.lesion_cases, scores.provenance.model
    dice = _interval(lesions.column("dice"), lesions, worst=0.0)
    text = (
        f"On {dice.n} images with a lesion, in {dice.groups} groups (patients, near-duplicates), "
    )
    text += f"{name} has a mean Dice of {dice.mean:.2f}"
    if not dice.known:
        return f"{text}; so few say nothing sure: outline at least {LEAST_GROUPS} patients."
    return (
        f"{text}; with so many the true mean of this scanner lies between {dice.low:.2f} and "
        f"{dice.high:.2f} (95 %), and {3 * dice.n} more images would halve that."
    )


def _what_else(scores: Evaluation, segmenter: Segmenter, cases: Sequence[Case]) -> str:
    """Say what is missed, how far contours are off, what is marked for nothing, what is unlike."""
    lesions, normals = scores.table.lesion_cases, scores.table.normal_cases
    missed = lesions.column("missed")
    parts = [f"{missed.sum()} of {len(lesions)} lesions are missed{_share(missed, lesions)}"]
    off = _interval(lesions.column("mean_surface_distance"), lesions)
    limits = f" ({number(off.low, 1)} to {number(off.high, 1)})" if off.known else ""
    parts.append(f"contours are {number(off.mean, 1)} {lesions.unit}{limits} off on average")
    if len(normals):
        empty = normals.column("predicted_empty")
        what = f"{empty.sum()} of {len(normals)} images without a lesion stay empty"
        parts.append(what + _share(empty, normals))
    if segmenter.monitor:
        unlike = [segmenter.monitor.measure(read_pixels(c.image_path)).flagged for c in cases]
        parts.append(f"{sum(unlike)} of {len(cases)} images are unlike the training images")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _share(hits: np.ndarray, images: CaseTable) -> str:
    share = share_interval(hits, images.groups)
    return f" ({share.low:.0%} to {share.high:.0%})" if share.known else ""
