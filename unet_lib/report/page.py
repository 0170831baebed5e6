"""The report as one HTML page: nothing beside it, nothing loaded, readable without its script."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from unet_lib.metrics import SCORES, CaseScore, CaseTable, Evaluation, number
from unet_lib.metrics.scores import DERIVED, MEASURED
from unet_lib.provenance import Provenance
from unet_lib.report import markdown
from unet_lib.report.summary import Summary

Show = Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""From the name of an image to the image (H, W, 1), its true and its predicted mask (H, W)."""

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 6  # images of each kind
LONGEST = 640  # pixels of the longer side of a picture on the page
QUALITY = 85  # of its JPEG; only for looking at, scores are made before


def render_page(
    evaluation: Evaluation,
    summary: Summary,
    charts: Sequence[tuple[str, bytes]],
    show: Show | None,
    seed: int = 0,
    answer: str = "",
    after: tuple[CaseTable, Show] | None = None,
) -> str:
    """Write a report as one HTML page; every text from outside is escaped.

    `charts` are what a figure says and its PNG file. Without `show` the gallery only names its
    images; `seed` draws those that are shown at random.
    """
    provenance, table = evaluation.provenance, evaluation.table
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digest"] = lambda script: (
        f"sha256-{_base64(hashlib.sha256(script.encode()).digest())}"
    )
    return environment.get_template("page.html").render(
        title=markdown.title(provenance),
        scored=provenance.describe(f"{len(table)} images"),
        banners=provenance.banner.splitlines(),
        suffix=markdown.suffix(provenance),
        questions=_tiles(summary),
        answer=_html(answer, "Answer"),
        gallery=[*_changes(table, show, after), *_gallery(table, show, seed)],
        pictures=show is not None,
        figures=[(words, _base64(image)) for words, image in charts],
        sections=[(title, _html(text, title)) for title, text in markdown.sections(summary)],
        table=_table(table, provenance),
        facts=markdown.facts(summary),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _html(text: str, title: str) -> Markup:
    """Turn a section's Markdown into HTML; tags in it are shown, not obeyed."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def open_table(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
        first = next(token.content for token in tokens[index:] if token.type == "inline")
        label = Markup.escape(f"{title}: {first}")
        return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>\n'

    parser.add_render_rule("table_open", open_table)
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return Markup(parser.render(text))


def _tiles(summary: Summary) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return both questions, each with name and value of its main scores and what they are of."""
    outline = []
    for row in summary.per_image[:1]:
        dice = row["means"]["dice"]
        limits = f"{number(dice.low)} to {number(dice.high)} (95 %)"
        outline = [
            ("mean Dice", number(dice.mean), limits if dice.known else "too few for an interval"),
            ("median Dice", number(row["medians"]["dice"]), f"{row['images']} {row['label']}"),
            ("missed", f"{row['missed']}", f"of {row['images']} {row['label']}"),
        ]
    scores = summary.detection
    marked = f"{scores['marked']} of {scores['sensitivity'].n} lesion images"
    detection = [("sensitivity", number(scores["sensitivity"].mean), marked)]
    if summary.normals:
        empty = f"{summary.normals['left_empty']} of {summary.normals['images']} normal images"
        detection.append(("specificity", number(scores["specificity"].mean), empty))
    false = number(scores["false_components"].mean, 2)
    detection.append(("false alarms", false, "an image"))
    detection.append(("ROC AUC", number(scores["auc"]), "image score"))
    tiles = {"per_image": outline, "detection": detection}
    heads = {name: question.split(" (")[0] for name, question in markdown.QUESTIONS.items()}
    return [(heads[name], rows) for name, rows in tiles.items() if rows]


def kinds_of_cases(table: CaseTable, seed: int = 0) -> dict[str, list[CaseScore]]:
    """Choose the images to look at, by what they are; a kind without images is left out."""
    lesions = table.lesion_cases
    missed = sorted((c for c in lesions if c.missed), key=lambda c: (-c.lesion_share, c.name))
    worst = lesions.subset(lambda case: not case.missed).sorted("dice")
    alarms = table.normal_cases.subset(lambda case: not case.predicted_empty)
    alarms = alarms.sorted("false_positive_area", descending=True)
    every, drawn = list(table), np.random.default_rng(seed).permutation(len(table))
    kinds = {
        f"Drawn at random, with seed {seed}": [every[i] for i in drawn],
        "Found lesions with the lowest Dice": list(worst),
        "Missed lesions, largest first": missed,
        "False alarms: images without a lesion that are marked": list(alarms),
    }
    return {title: cases for title, cases in kinds.items() if cases}


def _gallery(table: CaseTable, show: Show | None, seed: int) -> list[dict[str, Any]]:
    gallery = []
    for title, cases in kinds_of_cases(table, seed).items():
        shown = [
            {"words": _words(c)} | (draw_outline(c, show) if show else {}) for c in cases[:SHOWN]
        ]
        gallery.append({"title": f"{title} ({len(shown)} of {len(cases)})", "outlines": shown})
    return gallery


def _changes(
    table: CaseTable, show: Show | None, after: tuple[CaseTable, Show] | None
) -> list[dict[str, Any]]:
    """Show the images whose Dice another model changes most, by both."""
    if not (show and after):
        return []
    others = {case.name: case for case in after[0]}
    pairs = [(case, others[case.name]) for case in table.lesion_cases]
    pairs.sort(key=lambda pair: -abs(pair[1].dice - pair[0].dice))
    shown = [
        {"words": f"{word}: {_words(case)}"} | draw_outline(case, by)
        for pair in pairs[: SHOWN // 2]
        for word, case, by in zip(("before", "after"), pair, (show, after[1]), strict=True)
    ]
    title = f"Before and after fitting, largest changes first ({len(shown) // 2} of {len(pairs)})"
    return [{"title": title, "outlines": shown, "pairs": True}]


def draw_outline(case: CaseScore, show: Show) -> dict[str, Any]:
    """Return height, width, picture (a data address), and truth and prediction as SVG paths."""
    image, truth, prediction = show(case.name)
    sizes = {image.shape[:2], truth.shape, prediction.shape, (case.height, case.width)}
    if len(sizes) > 1:
        raise ValueError(
            f"{case.name}: image {image.shape[:2]}, true mask {truth.shape}, prediction "
            f"{prediction.shape} and score card {(case.height, case.width)} differ in size"
        )
    grey = np.round(np.clip(image[..., 0], 0, 1) * 255).astype(np.uint8)
    factor = LONGEST / max(grey.shape)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    masks = {"truth": svg_path(truth), "prediction": svg_path(prediction)}
    size = {"height": case.height, "width": case.width}
    return {"picture": _base64(encoded.tobytes())} | size | masks


def svg_path(mask: np.ndarray) -> str:
    """Return the outlines of a mask, around holes too, as an SVG path through pixel centres."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = (
        "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour[:, 0].tolist())
        for contour in contours
    )
    return "".join(f"M{line}Z" for line in lines)


def _words(case: CaseScore) -> str:
    label = f" ({case.label})" if case.label and case.label not in case.name else ""
    if not case.has_lesion:
        marked = f"{case.false_positive_area:.1%} of the image marked"
        return f"{case.name}{label}: no lesion, {'left empty' if case.predicted_empty else marked}"
    score = "missed" if case.missed else f"Dice {case.dice:.3f}"
    return f"{case.name}{label}: {score}, lesion {case.lesion_share:.1%} of the image"


def _result(case: CaseScore) -> str:
    if case.has_lesion:
        return "missed" if case.missed else "found"
    return "left empty" if case.predicted_empty else "false alarm"


def _table(table: CaseTable, provenance: Provenance) -> dict[str, Any]:
    columns: dict[str, list[str]] = {
        "image": [case.name for case in table],
        "class": [case.label for case in table],
        "result": [_result(case) for case in table],
    }
    overlap = provenance.training_overlap
    if provenance.seen_in_training and overlap:
        seen, near = set(overlap["in_training"]), set(overlap["near_duplicates"])
        columns["in training"] = [
            "yes" if c.name in seen else "near-duplicate" if c.name in near else "no" for c in table
        ]
    columns["lesion, share of image"] = [number(case.lesion_share, 4) for case in table]
    for name in (*DERIVED, *MEASURED):
        values, score = table.column(name).tolist(), SCORES[name]
        if not all(math.isnan(value) for value in values):
            digits = 0 if score.unit == "count" else score.digits
            unit = f" ({table.unit})" if score.unit == "length" else ""
            columns[score.title + unit] = [number(value, digits) for value in values]
    columns["height"] = [str(case.height) for case in table]
    columns["width"] = [str(case.width) for case in table]
    if any(case.group not in ("", case.name) for case in table):
        groups = [case.group if case.group != case.name else "" for case in table]
        columns["near-duplicate group"] = groups
    return {"columns": list(columns), "rows": list(zip(*columns.values(), strict=True))}
