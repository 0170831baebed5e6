"""The report as one HTML page: nothing beside it, nothing loaded, readable without its script."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image

from unet_lib.metrics import CaseScore, CaseTable, Evaluation
from unet_lib.metrics.scores import DERIVED, MEASURED, of_kind
from unet_lib.plots.frame import banner_for, describe
from unet_lib.report import markdown
from unet_lib.report.outlines import Show, draw_outline, kinds_of_cases
from unet_lib.report.texts import number

if TYPE_CHECKING:
    from unet_lib.report.summary import Summary

TEMPLATES = Path(__file__).parent / "templates"
MISSED, FALSE_ALARM, LEFT_EMPTY, FOUND = "missed", "false alarm", "left empty", "found"


@dataclass(frozen=True)
class Chart:
    """A figure of the report: its file, its title and a text in its place."""

    path: Path
    title: str
    alt: str


def render_page(
    evaluation: Evaluation, summary: Summary, charts: Sequence[Chart] = (), show: Show | None = None
) -> str:
    """Write a report as one HTML page.

    Parameters
    ----------
    evaluation : Evaluation
    summary : Summary
        Of this evaluation.
    charts : sequence of Chart
        PNG files that go into the page.
    show : callable, optional
        From the name of an image to the image, its true and its predicted mask; without it the
        cases to look at are listed and not shown.

    Returns
    -------
    str
        HTML. Every text from outside (names of files, models, data) is escaped.
    """
    about, table = evaluation.provenance, evaluation.table
    suffix = " (training images: not a test)" if about.get("seen_in_training") else ""
    scored = describe(about, f"{len(table)} images")
    sections = [
        {"id": _slug(title), "title": title, "body": _html(body, title, scored)}
        for title, body in markdown.sections(summary)
    ]
    fixed = {"figures": "Figures", "cases": "Cases", "images": "Every image",
             "provenance": "Provenance"}  # fmt: skip
    contents = [*sections, *({"id": name, "title": title} for name, title in fixed.items())]
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("page.html").render(
        title=markdown.title(about),
        lead=scored,
        banners=banner_for(about).splitlines(),
        suffix=suffix,
        contents=contents,
        tiles=_tiles(summary),
        sections=sections,
        figures=[_figure(chart, scored) for chart in charts],
        figures_about=scored,
        kinds=_kinds(table, show),
        cases_note=_cases_note(about, show),
        table=_table(table, about),
        facts=markdown.facts(summary),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )  # fmt: skip


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
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


def _tiles(summary: Summary) -> list[dict[str, str]]:
    tiles = []
    if summary.per_image:
        row = summary.per_image[0]
        images, dice = f"{row.images} {row.label}", row.means["dice"]
        limits = f"{number(dice.low)} to {number(dice.high)}"
        sure = f"95 % interval {limits}" if dice.known else "too few groups for an interval"
        tiles += [
            ("mean Dice", number(dice.mean), f"per image, {images}; {sure}"),
            ("median Dice", number(row.medians["dice"]), f"per image, {images}"),
            ("lesions missed", f"{row.missed} of {row.images}", "per image: no true pixel found"),
        ]
    if summary.normals:
        normals = summary.normals
        value = f"{normals.left_empty} of {normals.images}"
        tiles.append(("normal images left empty", value, "per image, without a lesion"))
    pooled = summary.pooled[0]
    where = f"pooled pixels, {pooled.label} ({pooled.images})"
    tiles.append(("lesion IoU", number(pooled.counts.iou), where))
    tiles.append(("ROC AUC", number(pooled.auc, 4), where))
    return [dict(zip(("name", "value", "more"), tile, strict=True)) for tile in tiles]


def _figure(chart: Chart, about: str) -> dict[str, Any]:
    with Image.open(chart.path) as picture:
        width, height = picture.size
    data = base64.b64encode(chart.path.read_bytes()).decode()
    size = {"width": width, "height": height}
    source = f"data:image/png;base64,{data}"
    return {"source": source, "title": chart.title, "alt": chart.alt, "about": about, **size}


def _kinds(table: CaseTable, show: Show | None) -> list[dict[str, Any]]:
    kinds = []
    for kind in kinds_of_cases(table):
        outlines = [
            {**vars(draw_outline(case, show)), "words": _words(case)}
            for case in (kind.shown if show else ())
        ]
        names = "; ".join(_words(case) for case in (kind.cases if kind.complete else kind.shown))
        kinds.append({
            "title": kind.title,
            "words": f"{len(kind.cases)} {kind.words}.",
            "outlines": outlines,
            "names": f"{names}." if kind.complete or not show else "",
        })  # fmt: skip
    return kinds


def _cases_note(about: Mapping[str, Any], show: Show | None) -> str:
    where = describe(about)
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
    share = f"lesion {(case.tp + case.fn) / (case.height * case.width):.1%} of the image"
    score = "missed" if case.missed else f"Dice {case.dice:.3f}"
    return f"{case.name}{label}: {score}, {share}"


def result_of(case: CaseScore) -> str:
    """Say in a word or two what became of an image."""
    if case.has_lesion:
        return MISSED if case.missed else FOUND
    return LEFT_EMPTY if case.predicted_empty else FALSE_ALARM


def _table(table: CaseTable, about: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, list[str]] = {
        "image": [case.name for case in table],
        "class": [case.label for case in table],
        "result": [result_of(case) for case in table],
    }
    overlap = about.get("training_overlap")
    if about.get("seen_in_training") and overlap:
        seen, near = set(overlap["in_training"]), set(overlap["near_duplicates"])
        columns["in training"] = [
            "yes" if c.name in seen else "near-duplicate" if c.name in near else "no" for c in table
        ]
    share = [(c.tp + c.fn) / (c.height * c.width) for c in table]
    columns["lesion, share of image"] = [number(value, 4) for value in share]
    names = {**markdown.PER_IMAGE, **markdown.CONTOURS, **markdown.CALIBRATION}
    for name in (*DERIVED, *MEASURED):
        values = table.column(name).tolist()
        if all(math.isnan(value) for value in values):
            continue
        digits = 0 if name in of_kind("component") else markdown.DIGITS.get(name, 3)
        unit = f" ({table.unit})" if name in ("hd95", "mean_surface_distance") else ""
        title = names.get(name, name.replace("_", " ")) + unit
        columns[title] = [number(value, digits) for value in values]
    columns["height"] = [str(case.height) for case in table]
    columns["width"] = [str(case.width) for case in table]
    if any(case.group not in ("", case.name) for case in table):
        groups = [case.group if case.group != case.name else "" for case in table]
        columns["near-duplicate group"] = groups
    note = f'{len(table)} images, the scores of cases.csv; "-": not defined or not known.'
    rows = list(zip(*columns.values(), strict=True))
    return {"columns": list(columns), "rows": rows, "note": note}
