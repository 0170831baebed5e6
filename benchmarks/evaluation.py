"""Scores of 780 full-size masks: this library against MONAI's metrics for the same scores.

``BUSI_DIR=... python -m benchmarks.evaluation`` takes BUSI's masks, else those of phantoms.
A prediction is the mask moved, grown or shrunk, some are empty, some false; the probabilities are
the blurred prediction. Same scores: Dice, IoU, precision, recall, HD95, mean surface distance,
surface Dice; this library also counts components. "All": with curves and calibration too, which
MONAI does not have for pixels in bounded memory.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measuring import interleaved, medians, parser, report, spread, table

SAME = ("dice", "iou", "precision", "recall", "mean_surface_distance", "surface_dice")


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return truth, prediction and probabilities of each image."""
    import cv2

    rng = np.random.default_rng(0)
    folder = os.environ.get("BUSI_DIR")
    if folder:
        from unet_lib.dataset import find_cases, load_case

        cases = find_cases(folder)
        chosen = np.linspace(0, len(cases) - 1, min(count, len(cases))).astype(int)
        truths = [load_case(cases[i])[1] for i in chosen]
    else:
        from unet_lib.phantoms import phantom_pictures

        truths = [
            np.any(p.masks or [np.zeros(p.image.shape, bool)], axis=0)
            for p in phantom_pictures(count)
        ]
    made = []
    for truth in truths:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(rng.integers(1, 9)) + 1,) * 2)
        change = cv2.dilate if rng.random() < 0.5 else cv2.erode
        prediction = change(truth.astype(np.uint8), disc)
        prediction = np.roll(prediction, rng.integers(-12, 13, 2), (0, 1))
        if rng.random() < 0.05:
            prediction[:] = 0
        if rng.random() < 0.1:  # a false spot
            y, x = (int(rng.integers(20, side - 20)) for side in truth.shape)
            prediction[y - 10 : y + 10, x - 15 : x + 15] = 1
        soft = cv2.GaussianBlur(prediction.astype(np.float32), (0, 0), 4)
        made.append((truth, prediction.astype(bool), np.clip(soft, 0, 1)))
    return made


def ours(pairs: list, everything: bool) -> list[dict[str, float]]:
    """Score with this library."""
    from unet_lib.metrics import Evaluation, score_case

    if everything:
        evaluation = Evaluation()
        for number, (truth, prediction, probabilities) in enumerate(pairs):
            evaluation.add(truth, prediction, probabilities, name=str(number), label="benign")
        evaluation.areas()
        scores = [*evaluation.table]
    else:
        scores = [score_case(t, p, name=str(n)) for n, (t, p, _) in enumerate(pairs)]
    return [{name: getattr(score, name) for name in (*SAME, "hd95")} for score in scores]


def monai(pairs: list) -> list[dict[str, float]]:
    """Score with MONAI's metrics, one image at a time (their sizes differ)."""
    import torch
    from monai.metrics import (
        ConfusionMatrixMetric,
        DiceMetric,
        HausdorffDistanceMetric,
        MeanIoU,
        SurfaceDiceMetric,
        SurfaceDistanceMetric,
    )

    metrics: dict[str, Any] = {
        "dice": DiceMetric(),
        "iou": MeanIoU(),
        "hd95": HausdorffDistanceMetric(percentile=95),
        "mean_surface_distance": SurfaceDistanceMetric(symmetric=True),
        "surface_dice": SurfaceDiceMetric([5.0]),
    }
    confusion = ConfusionMatrixMetric(metric_name=("precision", "sensitivity"))
    rows = []
    for truth, prediction, _ in pairs:
        y, p = (torch.from_numpy(m)[None, None].float() for m in (truth, prediction))
        row = {name: float(metric(p, y)) for name, metric in metrics.items()}
        tp, fp, _, fn = (float(v) for v in confusion(p, y)[0, 0])
        row["precision"] = tp / (tp + fp) if tp + fp else 0.0
        row["recall"] = tp / (tp + fn) if tp + fn else 0.0
        rows.append(row)
        for metric in (*metrics.values(), confusion):
            metric.reset()
    return rows


def child(settings: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return what answers with seconds, memory and the scores."""
    given = pairs(settings["count"])

    def answer(request: str) -> dict[str, Any]:
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, used = time.perf_counter(), time.process_time()
        scores = monai(given) if request == "monai" else ours(given, request == "everything")
        wall, used = time.perf_counter() - wall, time.process_time() - used
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
        return {"seconds": wall, "cpu_seconds": used, "more_mb": more, "scores": scores}

    return answer


def largest_difference(ours: list, theirs: list, truths: list, name: str) -> float:
    """Compare where both masks hold something: there both define every score alike."""
    differences = [
        abs(a[name] - b[name])
        for a, b, (truth, prediction, _) in zip(ours, theirs, truths, strict=True)
        if truth.any() and prediction.any()
    ]
    return max(differences)


def main(arguments: list[str] | None = None) -> None:
    """Score with all, interleaved."""
    options = parser(__doc__, "evaluation")
    options.add_argument("--images", type=int, default=780)
    options.add_argument("--monai-images", type=int, default=780)
    given = options.parse_args(arguments)
    own, peer = {"count": given.images}, {"count": given.monai_images, "peer": True}
    variants = {
        "this library, same scores": (own, "same"),
        "this library, all scores": (own, "everything"),
        "MONAI": (peer, "monai"),
    }
    answers = interleaved("benchmarks.evaluation", variants, given.rounds)
    seconds, cpu = medians(answers, "seconds"), medians(answers, "cpu_seconds")
    rate = {name: value / len(answers[name][0]["scores"]) for name, value in seconds.items()}

    def row(name: str, rows: list[dict[str, Any]]) -> list[Any]:
        more = max(one["more_mb"] for one in rows)
        count = len(rows[0]["scores"])
        return [count, spread(rows, "seconds", 2), f"{cpu[name]:.2f}", f"{more:.0f}"]

    head = ["scores by", "images", "s (least to most)", "CPU s", "memory beyond the masks, MB"]
    text = table(f"Evaluation at full size, {given.rounds} rounds", head, answers, row)
    ratios, differences = {}, {}
    if "MONAI" in rate:
        ratios = {name: rate["MONAI"] / rate[name] for name in list(variants)[:2]}
        text += "".join(f"\nMONAI / {name}: {value:.1f}" for name, value in ratios.items())
        if given.images == given.monai_images:
            first = [answers[name][0]["scores"] for name in ("this library, same scores", "MONAI")]
            masks = pairs(given.images)
            differences = {name: largest_difference(*first, masks, name) for name in SAME}
            text += "\nlargest difference of a score (both masks with pixels): " + ", ".join(
                f"{name} {value:.1e}" for name, value in differences.items()
            )
            text += "\nHD95 is not compared: MONAI takes the larger of two one-sided percentiles."
    for one in (one for rows in answers.values() for one in rows):
        one.pop("scores", None)
    report(given.json, text, ratios=ratios, differences=differences, answers=answers)


if __name__ == "__main__":
    main()
