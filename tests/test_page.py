"""The report page: its text in any Python, its behaviour in a real browser where there is one."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from test_report import pictures

from unet_lib.metrics import CaseTable, Evaluation
from unet_lib.provenance import PHANTOM_BANNER, SEEN_BANNER
from unet_lib.report import write_report
from unet_lib.report.page import SHOWN, draw_outline, kinds_of_cases, svg_path

EVIL = "<script>alert('x')</script> & \"q\" |*_`[a](http://a.b)`"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


EVALUATION = pictures({"model": "unet", "data": "BUSI", "fold": 0}, 60)
FIRST, *REST = EVALUATION.table
EVALUATION.table = CaseTable([replace(FIRST, name=EVIL), *REST])
SHAPES = {case.name: (case.height, case.width) for case in EVALUATION.table}


def show(name):
    mask = np.zeros(SHAPES[name], bool)
    mask[5:20, 5:20] = True
    return np.random.default_rng(0).random((*mask.shape, 1)), mask, np.roll(mask, 3)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the path of a page with pictures and hostile names."""
    folder = tmp_path_factory.mktemp("page")
    provenance = EVALUATION.provenance.but(model=EVIL, data_kind="phantoms")
    write_report(replace(EVALUATION, provenance=provenance), folder, show=show)
    return folder / "report.html"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_nothing_from_outside_becomes_a_tag_and_nothing_is_loaded(page):
    parsed = Tags(page.read_text(encoding="utf-8"))
    assert len(parsed.all("script")) == 1 and "src" not in parsed.all("script")[0]
    assert parsed.text.count(EVIL.replace("  ", " ")) >= 3  # shown as it is: title, head, table
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "data", "action", "srcset"):
            assert re.match(r"data:|#", attributes.get(name, "#")), (tag, attributes)
    assert not re.search(r"url\(|@import|https?://(?!a\.b)", page.read_text(encoding="utf-8"))


def test_the_page_begins_with_scores_and_pictures_and_everything_is_labelled(page):
    text = page.read_text(encoding="utf-8")
    parsed = Tags(text)
    images, outlines = parsed.all("img"), parsed.all("svg")
    assert len(images) == 6 and all(len(image["alt"]) > 20 for image in images)
    shown = sum(min(SHOWN, len(cases)) for cases in kinds_of_cases(EVALUATION.table).values())
    assert len(outlines) == shown > 3 * SHOWN and all(svg["aria-label"] for svg in outlines)
    order = [text.index(tag) for tag in ('class="tiles"', "<svg", "<img", '<div class="scroll"')]
    assert order == sorted(order)
    assert text.count("<table") == text.count('role="region" aria-label=') - 1  # and the banner
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert PHANTOM_BANNER in parsed.text and "Not a medical device." in parsed.text
    assert parsed.text.count("data: BUSI") == 1  # and not below every figure and table


def test_every_image_and_score_is_in_the_table(page):
    text = page.read_text(encoding="utf-8")
    body = text[text.index('<table class="sortable"') :]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("<tr>")[2:]]
    header = re.findall(r'<th scope="col">(.*?)</th>', body)
    assert len(rows) == len(EVALUATION.table) and {len(row) for row in rows} == {len(header)}
    results = {"missed": 0, "found": 0, "left empty": 0, "false alarm": 0}
    for case, row in zip(EVALUATION.table, rows, strict=True):
        cells = dict(zip(header, row, strict=True))
        assert cells["Dice"] == (f"{case.dice:.3f}" if case.has_lesion else "-")
        assert cells["HD95 (px)"] == (f"{case.hd95:.1f}" if case.has_lesion else "-")
        assert cells["components"] == f"{case.components:.0f}"
        results[cells["result"]] += 1
    missed = sum(case.missed for case in EVALUATION.table)
    assert results["missed"] == missed > 0 and min(results.values()) > 0


def test_the_page_holds_the_tables_of_the_report(page):
    text, report = page.read_text(encoding="utf-8"), page.with_name("report.md").read_text("utf-8")
    cells = set(re.findall(r"(?<=\| )[\d.]+ \([^)]+\)(?= \|)", report))
    assert len(cells) > 20 and [cell for cell in cells if f">{cell}</td>" not in text] == []


def test_seen_images_are_marked_and_the_headings_say_so(tmp_path):
    seen, near = (EVALUATION.table[index].name for index in (1, 2))
    overlap = {"compared_with": 2, "in_training": [seen], "near_duplicates": [near]}
    provenance = EVALUATION.provenance.but(seen_in_training=True, training_overlap=overlap)
    write_report(replace(EVALUATION, provenance=provenance), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert SEEN_BANNER in text and text.count("(training images: not a test)</h2>") == 6
    assert text.count("<td>near-duplicate</td>") == text.count("<td>yes</td>") == 1
    assert "<svg" not in text and "pictures themselves were not at hand" in text


def test_masks_of_normal_images_with_a_name_that_is_no_text(tmp_path):
    evaluation, empty = Evaluation(provenance={"model": "someone else's"}), np.zeros((9, 9), bool)
    for name in ("caf\udce9", "b"):
        evaluation.add(empty, empty, name=name, label="normal")
    assert "caf?" in write_report(evaluation, tmp_path).with_suffix(".html").read_text("utf-8")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<img") == 1 and "Training images unknown" in text


# which cases, and their outlines


def test_the_cases_to_look_at():
    table = EVALUATION.table
    drawn, worst, missed, alarms = kinds_of_cases(table, seed=1).values()
    assert {case.name for case in missed} == {case.name for case in table if case.missed}
    sizes = [case.lesion_share for case in missed]
    areas = [case.false_positive_area for case in alarms]
    assert sizes == sorted(sizes, reverse=True) and areas == sorted(areas, reverse=True)
    assert all(not case.has_lesion and case.fp for case in alarms)
    lowest = sorted(case.dice for case in table.lesion_cases if not case.missed)
    assert [case.dice for case in worst] == lowest
    assert sorted(case.name for case in drawn) == sorted(case.name for case in table)
    again, other = (next(iter(kinds_of_cases(table, seed).values())) for seed in (1, 2))
    assert drawn == again != other


def test_a_path_goes_around_the_mask():
    mask = np.zeros((12, 14), bool)
    assert svg_path(mask) == ""
    mask[2:5, 3:8] = True
    points = {tuple(map(float, p.split())) for p in re.split("[ML]", svg_path(mask)[:-1])[1:]}
    assert points == {(3.5, 2.5), (7.5, 2.5), (3.5, 4.5), (7.5, 4.5)}
    mask[8, 8] = True  # a lesion of one pixel is a dot of the line's width
    assert svg_path(mask).count("Z") == 2 and "M8.5 8.5Z" in svg_path(mask)


def test_a_picture_of_another_size_is_refused():
    case = EVALUATION.table[1]
    image, truth, found = show(case.name)
    assert draw_outline(case, show)["height"] == case.height
    with pytest.raises(ValueError, match=r"malignant \(1\): image .* differ in size"):
        draw_outline(case, lambda name: (image[1:], truth, found))


# in a browser


@pytest.fixture(scope="module")
def browser():
    """Return Chromium; skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(
                executable_path=path, args=["--disable-gpu"], timeout=120_000
            )
        except sync_api.Error as error:
            pytest.skip(f"no Chromium (lab/get_browser.sh gets one): {str(error)[:200]}")
        yield found
        found.close()


def opened(browser, page, **options):
    """Open the page; returns it and what it complained of or asked for beyond itself."""
    context = browser.new_context(**options)
    context.set_default_timeout(120_000)
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    tab.on(
        "request",
        lambda request: request.url.startswith("data:") or complaints.append(request.url),
    )
    tab.goto(page.as_uri())
    assert complaints.pop(0) == page.as_uri()
    return tab, complaints


def column(tab, name):
    heads = tab.locator("table.sortable thead th").all_text_contents()
    cells = f"table.sortable tbody tr > :nth-child({heads.index(name) + 1})"
    return tab.locator(cells).all_text_contents()


def button_of(tab, name):
    return tab.locator("th button", has_text=re.compile(f"^{name}$"))


def press(button):
    """Without waiting for the frames of a machine that may be busy with other things."""
    button.evaluate("button => button.click()")


@pytest.mark.slow
def test_sorting_in_a_browser(browser, page):
    tab, complaints = opened(browser, page, viewport={"width": 1200, "height": 900})
    before = column(tab, "image")
    head = button_of(tab, "Dice")
    for sign, state in ((1, "ascending"), (-1, "descending")):
        press(head)
        values = column(tab, "Dice")
        known = [sign * float(value) for value in values if value != "-"]
        assert known == sorted(known) and len(set(known)) > 10
        assert set(values[len(known) :]) == {"-"}  # what is not defined comes last, both ways
        assert tab.locator("th[aria-sort]").get_attribute("aria-sort") == state
    press(button_of(tab, "image"))
    names = column(tab, "image")
    assert names != before and sorted(names) == sorted(before)
    assert names.index("benign (9)") < names.index("benign (12)")  # numbers as numbers
    assert complaints == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_the_page_fits_the_screen_and_begins_with_a_picture(browser, page, width, height):
    tab, complaints = opened(browser, page, viewport={"width": width, "height": height})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    figures = "[...document.querySelectorAll('figure')]"  # none scrolls sideways
    assert tab.evaluate(f"{figures}.every(e => e.scrollWidth <= e.clientWidth + 1)")
    picture = tab.locator("svg").first.bounding_box()
    assert picture["y"] + 0.5 * picture["height"] < height
    assert tab.locator(".charts img").first.bounding_box()["width"] > min(width - 40, 480)
    facts = tab.locator(".facts dd").first
    assert facts.evaluate("e => e.offsetWidth") > 0.4 * width  # names leave room for what they say
    box = tab.locator(".scroll.wide")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")  # the table scrolls in its own box
    tab.locator("#bare").evaluate("box => box.click()")
    assert not tab.locator("path").first.is_visible()
    assert complaints == []


@pytest.mark.slow
def test_accessible_and_printable(browser, page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe finds barriers")
    tab, complaints = opened(browser, page, viewport={"width": 1200, "height": 900})
    found = axe.Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()
    assert tab.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    assert complaints == []


@pytest.mark.slow
def test_readable_without_script(browser, page):
    tab, complaints = opened(browser, page, java_script_enabled=False)
    assert tab.locator("table.sortable tbody tr").count() == len(EVALUATION.table)
    assert tab.locator("button").count() == 0 and not tab.locator(".script").is_visible()
    assert complaints == []
