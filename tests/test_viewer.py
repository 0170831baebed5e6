"""The local page, in a real browser over the real command."""

import base64
import csv
import io
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import cv2
import numpy as np
import pytest
from test_dicom import region, write_dicom
from test_page import browser  # noqa: F401

from unet_lib.cli import main
from unet_lib.weights import load_segmenter, registered_models

SMALL = next(name for name in registered_models() if name.endswith("small"))
COLOUR = cv2.imencode(".png", np.full((60, 80, 3), (40, 40, 230), np.uint8))[1].tobytes()
READ = "() => document.querySelector('output').textContent.startsWith('%d of %d read')"
DROP = """(files) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files)
    transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
}"""
REACHED = """(text) => {
  const {ariaLabel, type, textContent, tagName} = document.activeElement;
  return tagName !== "BODY" && [ariaLabel, type, textContent].some((it) => it?.includes(text));
}"""
LENGTH = "() => document.querySelector('[aria-label=pixels]').value > 0"
TABLES = "lesions", "review"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The command: its address, its process, its folder for temporary files."""
    pytest.importorskip("nicegui", reason="requirements-viewer.txt")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("temporary")
    env = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    command = [sys.executable, "-m", "unet_lib", "view", "--model", SMALL, "--port", str(port)]
    process = subprocess.Popen(command, env=env | {"TMPDIR": str(folder)})
    address = f"http://127.0.0.1:{port}/"
    while process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=60).close()
            break
        except OSError:
            time.sleep(0.5)
    yield address, process, folder
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def pictures(phantoms, tmp_path_factory):
    """Five files of five kinds, the last of two frames and with the size of its pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [p for p in sorted(phantoms.glob("*/*.png")) if "_mask" not in p.name]
    *greys, deep = (cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in paths[:4])
    for name, grey in zip(("a.png", "b.jpg", "c.bmp"), greys, strict=True):
        cv2.imwrite(str(folder / name), grey)
    cv2.imwrite(str(folder / "d.tif"), deep.astype(np.uint16) * 257)
    frames = np.stack([cv2.resize(grey, (160, 128)) for grey in greys[:2]])
    regions = [region((0, 0, 159, 127))]
    write_dicom(folder / "e.dcm", frames, SequenceOfUltrasoundRegions=regions)
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())], folder


def opened(browser, server, width=1280):  # noqa: F811
    """Open the page; returns it and what it complained of or asked of others."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(120_000)
    tab, complaints = context.new_page(), []

    def own_only(route):
        if route.request.url.startswith(server[0]):
            return route.continue_()
        complaints.append(route.request.url)
        return route.abort()

    context.route("**/*", own_only)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    tab.goto(server[0])
    tab.locator("section input").first.wait_for(state="attached")
    return tab, complaints


def drop(tab, files):
    tab.evaluate(DROP, [(name, base64.b64encode(data).decode()) for name, data in files])
    tab.wait_for_function(READ % (len(files), len(files)))


def shows(tab, text):
    tab.locator("[role=heading]", has_text=text).wait_for()


def downloaded(tab, press):
    """Masks and tables of the archive, by name."""
    with tab.expect_download() as download:
        press()
    with zipfile.ZipFile(download.value.path()) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    tables = (list(csv.DictReader(io.StringIO(files[f"{n}.csv"].decode()))) for n in TABLES)
    masks = {
        name.removesuffix("_pred.png"): cv2.imdecode(np.frombuffer(data, np.uint8), 0) > 0
        for name, data in files.items()
        if name.endswith("_pred.png")
    }
    return masks, *tables


@pytest.mark.slow
def test_drop_move_download(browser, server, pictures):  # noqa: F811
    files, folder = pictures
    tab, complaints = opened(browser, server)
    drop(tab, files)
    slider = tab.get_by_role("slider", name="Threshold").locator("[tabindex='0']")
    thumbs = tab.locator(".strip button")
    thumbs.nth(1).click()
    shows(tab, "b.jpg")
    slider.press("ArrowRight")
    thumbs.nth(0).click()
    shows(tab, "a.png")
    slider.press("PageUp")
    tab.get_by_text("Threshold 0.6").wait_for()
    tab.get_by_role("button", name="Model's threshold").click()
    tab.get_by_text("Scale in millimetres").click()
    for row in (20, 80):
        tab.locator(".box img").click(position={"x": 30, "y": row})
    tab.wait_for_function(LENGTH)

    masks, lesions, review = downloaded(tab, tab.get_by_role("button", name="Download").click)
    segmenter, expected = load_segmenter(SMALL), {}
    for name, _ in files:
        for _, result in segmenter.segment_files([folder / name], progress=False):
            expected[result.result_name] = result
    own, chosen = segmenter.threshold, [float(row["threshold"]) for row in review]
    assert own < chosen[1] < own + 0.02 and chosen == [own, chosen[1], *[own] * 4]
    expected["b"] = expected["b"].at(chosen[1])
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert np.array_equal(mask, expected[name].mask), name
    assert {row["image"] for row in lesions if row["width_mm"]} == {"e.dcm"}
    assert complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_no_barrier_and_not_wider_than_the_screen(browser, server, pictures, width, tmp_path):  # noqa: F811
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe finds barriers")
    tab, complaints = opened(browser, server, width)
    drop(tab, [pictures[0][0], ("broken.png", b"no picture"), ("red.png", COLOUR)])
    tab.locator(".strip button").nth(1).click()
    tab.get_by_role("alert").get_by_text("unlike").wait_for()  # the training images
    assert tab.get_by_text("Not a medical device").is_visible()
    assert tab.get_by_role("status").get_by_text("broken.png: ").is_visible()
    tab.screenshot(path=tmp_path / "page.png", full_page=True)  # to be looked at
    report = axe.Axe().run(tab)
    assert report.violations_count == 0, report.generate_report()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []


@pytest.mark.slow
def test_keyboard_alone(browser, server, pictures):  # noqa: F811
    tab, complaints = opened(browser, server)

    def press(text, key="Enter"):
        for _ in range(40):
            tab.keyboard.press("Tab")
            if tab.evaluate(REACHED, text):
                return tab.keyboard.press(key) if key == "Enter" else tab.keyboard.type(key)
        raise AssertionError(f"{text}: not reached")

    with tab.expect_file_chooser() as chooser:
        press("file")
    chooser.value.set_files([pictures[1] / "a.png", pictures[1] / "b.jpg"])
    tab.wait_for_function(READ % (2, 2))
    press("a.png")
    tab.keyboard.press("ArrowDown")
    shows(tab, "b.jpg")
    press("Discard")
    shows(tab, "discarded")
    press("Scale in millimetres")
    press("pixels", "50")
    press("millimetres", "10")
    press("Set scale")
    shows(tab, "0.2 mm")
    masks, lesions, review = downloaded(tab, lambda: press("Download"))
    assert list(masks) == ["a"] and {row["image"] for row in lesions} == {"a.png"}
    review = [(row["opinion"], row["drawn_mm_per_pixel"]) for row in review]
    assert review == [("", ""), ("discarded", "0.2")]
    assert complaints == []


@pytest.mark.slow
def test_hostile_files_in_two_windows_at_once(browser, server, pictures):  # noqa: F811
    (tab, complaints), (other, _) = opened(browser, server), opened(browser, server)
    good = pictures[0][0][1]
    names = ["../../up.png", "<img src=x onerror=alert(1)>.png", "x" * 300 + ".png"]
    names += ["a.png", "a.jpg", "a\\a.png"]
    drop(other, [("a.png", good)])
    drop(tab, [*((name, good) for name in names), ("zero.png", b"")])
    big = f"{server[0]}upload/{tab.evaluate('window.clientId')}?name=big.dcm"
    urllib.request.urlopen(big, data=bytes(100_000_000), timeout=120).close()
    tab.get_by_role("status").get_by_text("big.dcm: ").wait_for()
    masks, lesions, _ = downloaded(tab, tab.get_by_role("button", name="Download").click)
    assert len(masks) == len(names) and {"up", "a", "a (2)", "a (3)"} <= set(masks)
    assert all("/" not in name and "<" not in name and len(name) < 160 for name in masks)
    assert [row["image"] for row in lesions if row["unreadable"]] == ["zero.png", "big.dcm"]
    assert list(downloaded(other, other.get_by_role("button", name="Download").click)[0]) == ["a"]
    assert complaints == []


@pytest.mark.slow
def test_another_name_for_this_machine_is_refused_and_nothing_is_left(server):
    address, process, folder = server
    request = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=60)
    assert list(folder.glob("unet_lib-view-*"))
    process.terminate()
    assert process.wait(60) == 0 and not list(folder.glob("unet_lib-view-*"))


def test_the_verb_names_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    for name in ("unet_lib.viewer", "unet_lib.viewer.page"):  # imported by another test
        monkeypatch.delitem(sys.modules, name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["view", "--port", str(port)]) == 2
        assert f"'127.0.0.1', {port}" in capsys.readouterr().err
    assert main(["view", "--port", str(port)]) == 2
    assert "pip install -r requirements-viewer.txt" in capsys.readouterr().err
