"""The report as one HTML page: nothing beside it, nothing loaded, readable without its script."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from unet_lib.metrics import SCORES, CaseScore, CaseTable, Evaluation, number
from unet_lib.metrics.scores import DERIVED, MEASURED
from unet_lib.provenance import Provenance
from unet_lib.report import markdown
from unet_lib.report.outlines import SHOWN, Show, draw_outline, kinds_of_cases
from unet_lib.report.summary import Summary

TEMPLATES = Path(__file__).parent / "templates"


class Chart(NamedTuple):
    """A figure of the report: its title, a text in its place, and the PNG file."""

    title: str
    alt: str
    png: bytes


def render_page(
    evaluation: Evaluation,
    summary: Summary,
    parts: Sequence[tuple[str, str]],
    charts: Sequence[Chart],
    show: Show | None,
) -> str:
    """Write a report as one HTML page; every text from outside is escaped.

    `parts` are the sections in Markdown. Without `show` the cases to look at are only listed.
    """
    provenance, table = evaluation.provenance, evaluation.table
    scored = provenance.describe(f"{len(table)} images")
    sections = [
        {"id": _slug(title), "title": title, "body": _html(body, title, scored)}
        for title, body in parts
    ]
    fixed = {"figures": "Figures", "cases": "Cases", "images": "Every image"}
    fixed["provenance"] = "Provenance"
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=markdown.title(provenance),
        scored=scored,
        banners=provenance.banner.splitlines(),
        suffix=" (training images: not a test)" if provenance.seen_in_training else "",
        contents=[*sections, *({"id": name, "title": title} for name, title in fixed.items())],
        tiles=_tiles(summary),
        sections=sections,
        figures=[_figure(chart) for chart in charts],
        kinds=_kinds(table, show),
        cases_note=_cases_note(provenance, show),
        table=_table(table, provenance),
        facts=markdown.facts(summary),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _html(text: str, title: str, scored: str) -> Markup:
    """Turn a section's Markdown into HTML; tags in it are shown, not obeyed."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def open_table(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
        first = next(token.content for token in tokens[index:] if token.type == "inline")
        return Markup(
            '<div class="scroll" tabindex="0" role="region" aria-label="{0}: {1}"><table>'
            "<caption>{0} · {2}</caption>\n"
        ).format(title, first, scored)

    parser.add_render_rule("table_open", open_table)
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return Markup(parser.render(text))


def _slug(title: str) -> str:
    return "section-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Return name, value and what it is of."""
    tiles = []
    for row in summary.per_image[:1]:
        images, dice = f"{row['images']} {row['label']}", row["means"]["dice"]
        limits = f"{number(dice.low)} to {number(dice.high)}"
        sure = f"95 % interval {limits}" if dice.known else "too few groups for an interval"
        missed = f"{row['missed']} of {row['images']}"
        tiles += [
            ("mean Dice", number(dice.mean), f"per image, {images}; {sure}"),
            ("median Dice", number(row["medians"]["dice"]), f"per image, {images}"),
            ("lesions missed", missed, "per image: no true pixel found"),
        ]
    if summary.normals:
        value = f"{summary.normals['left_empty']} of {summary.normals['images']}"
        tiles.append(("normal images left empty", value, "per image, without a lesion"))
    row = summary.pooled[0]
    where = f"pooled pixels, {row['label']} ({row['images']})"
    tiles.append((SCORES["iou"].title, number(row["scores"]["iou"]), where))
    tiles.append((SCORES["auc"].title, number(row["auc"], 4), where))
    return tiles


def _figure(chart: Chart) -> dict[str, Any]:
    width, height = struct.unpack(">II", chart.png[16:24])  # after the signature and "IHDR"
    source = f"data:image/png;base64,{base64.b64encode(chart.png).decode()}"
    return chart._asdict() | {"source": source, "width": width, "height": height}


def _kinds(table: CaseTable, show: Show | None) -> list[dict[str, Any]]:
    kinds = []
    for kind in kinds_of_cases(table):
        shown = kind.cases[:SHOWN]
        outlines = [draw_outline(c, show) | {"words": _words(c)} for c in shown] if show else []
        names = "; ".join(map(_words, kind.cases if kind.complete else shown))
        kinds.append(
            {
                "title": kind.title,
                "words": f"{len(kind.cases)} {kind.words}.",
                "outlines": outlines,
                "names": f"{names}." if kind.complete or not show else "",
            }
        )
    return kinds


def _cases_note(provenance: Provenance, show: Show | None) -> str:
    where = provenance.describe()
    if show is None:
        return f"The pictures themselves were not at hand when this page was written. {where}"
    return (
        "Solid blue: the outline of the true mask. Dashed orange: that of the prediction. Scores "
        f"are those of the one image (per image); pictures are made smaller for this page. {where}"
    )


def _words(case: CaseScore) -> str:
    label = f" ({case.label})" if case.label and case.label not in case.name else ""
    if not case.has_lesion:
        area = f"{case.false_positive_area:.1%} of the image marked"
        return f"{case.name}{label}: no lesion, {area}"
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
    note = f'{len(table)} images, the scores of cases.csv; "-": not defined or not known.'
    rows = list(zip(*columns.values(), strict=True))
    return {"columns": list(columns), "rows": rows, "note": note}
