"""A local page: drop pictures, look at their masks, judge them, take them as one archive."""

from __future__ import annotations

import asyncio
import csv
import os
import pickle
import re
import shutil
import signal
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from math import dist
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import cv2
import numpy as np
from nicegui import app, events, run, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response

from unet_lib.images import Region, picture_name
from unet_lib.inference import LESIONS, Segmentation, Segmenter, UnreadableImages, write_lesions

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_BYTES = 400_000_000  # of a file; larger ones cannot be read either
_MEASURES = ("lesion", "area_px", "width", "height", "area_mm2", "width_mm", "height_mm")
# The browser itself refuses to ask anybody else. NiceGUI compiles templates, hence 'unsafe-eval'.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: ws://127.0.0.1:* ws://localhost:*"
_AT = "e => emit([e.offsetX, e.offsetY].map((v) => v * e.target.naturalWidth / e.target.width))"
_ZOOM = "".join(
    f'<button type="button" onclick="zoom({factor})">{name}</button> '
    for name, factor in (("Enlarge", 1.5), ("Reduce", 0.67), ("Fit", 0))
)


@dataclass(eq=False)
class _Picture:
    """One frame and what the user decided on it; its segmentation lies in a file."""

    stored: Path
    name: str
    frame: int
    threshold: float
    opinion: str = ""
    drawn_mm: float | None = None  # of a pixel
    status: str = ""
    button: ui.element | None = None

    def result(self) -> Segmentation:
        result = pickle.loads(self.stored.read_bytes()).at(self.threshold)
        if self.drawn_mm:
            whole = Region(0, 0, *result.mask.shape[::-1], self.drawn_mm, self.drawn_mm)
            result = replace(result, frame=replace(result.frame, regions=(whole,)))
        frame = f"frame {self.frame}" * (result.frame.count > 1)
        unlike = "unlike" * bool(result.shift and result.shift.flagged)
        count = len(result.lesions)
        lesions = f"{count} lesion{'s' * (count != 1)}"
        self.status = ", ".join(filter(None, [frame, lesions, unlike, self.opinion]))
        return result


class _Window:
    """One browser window: its pictures and what it shows of them."""

    def __init__(self, segmenter: Segmenter, folder: Path, worker: ThreadPoolExecutor) -> None:
        self.segmenter, self.folder, self.worker = segmenter, folder, worker
        self.pictures: list[_Picture] = []
        self.unreadable: list[dict[str, str]] = []
        self.taken: set[str] = set()  # names of results
        self.picture: _Picture | None = None
        self.ends: list[list[float]] = []  # of the distance that the user draws
        self.png, self.wanted, self.lock = b"", 0, asyncio.Lock()
        top, script, style = (
            (_TEMPLATES / name).read_text(encoding="utf-8")
            for name in ("top.html", "viewer.js", "viewer.css")
        )
        ui.add_head_html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">')
        ui.add_css(style)
        ui.add_body_html(f"<script>{script}</script>")
        ui.colors(primary="#0b5cad")
        ui.html(top, sanitize=False)
        self.complaints = ui.element("div").props("role=status")
        with ui.element("div").classes("work") as self.work:
            self.strip = ui.element("div").classes("strip")
            self.strip.props("role=toolbar aria-label='Pictures and frames'")
            with ui.element("div").classes("middle"):
                self.title = ui.label().props("role=heading aria-level=2")
                self.warning = ui.label().classes("caution").props("role=alert")
                box = ui.element("div").classes("box").props("tabindex=0 role=group")
                with box.props("aria-label='Picture; arrow keys move it when enlarged'"):
                    self.image = ui.element("img").props("draggable=false alt=''")
                    self.image.on("click", self._point, js_handler=_AT)
                ui.html(_ZOOM, sanitize=False)
            with ui.element("div").classes("side"):
                self._build_side(segmenter.threshold)
        self.work.set_visibility(False)

    def _build_side(self, own: float) -> None:
        views = ["Mask", "Probability", "Picture"]
        self.view = ui.toggle(views, value="Mask", on_change=self.draw)
        ui.label(f"Model {self.segmenter.provenance.name or 'without a name'}")
        label = ui.label()
        self.slider = ui.slider(min=0.01, max=0.99, step=0.01, value=own)
        self.slider.props("aria-label=Threshold").on_value_change(self._decide)
        self.slider.props["marker-labels"] = [{"value": own, "label": f"model's {own:.2g}"}]
        label.bind_text_from(self.slider, "value", lambda value: f"Threshold {value:.2f}")
        ui.button("Model's threshold", on_click=lambda: self.slider.set_value(own))
        ui.label("Opacity of the area")
        self.fill = ui.slider(min=0, max=1, step=0.05, value=0.25, on_change=self.draw)
        self.fill.props("aria-label='Opacity of the area'")
        opinions = {"": "Open", "accepted": "Accept", "discarded": "Discard"}
        self.opinion = ui.toggle(opinions, value="", on_change=self._decide)
        self.table = ui.html(sanitize=False)
        with ui.expansion("Scale in millimetres") as self.scale:
            ui.label(
                "Where the file gives none: click both ends of a distance that you know, such as "
                "the scale at the edge, or type its pixels. Pixels count as square."
            )
            self.pixels, self.mm = ui.number("pixels", min=0), ui.number("millimetres", min=0)
            ui.button("Set scale", on_click=self._set_scale)
        self.save = ui.button("Download all as zip", on_click=self._download)

    async def take(self, name: str, content: AsyncIterator[bytes]) -> None:
        """Store an uploaded file, segment its frames and show them."""
        path, size = Path(mkdtemp(dir=self.folder), self._own_name(name)), 0
        try:
            with path.open("wb") as file:
                async for part in content:
                    size += file.write(part)
                    if size > _MOST_BYTES:
                        raise OSError(f"{path}: more than {_MOST_BYTES / 1e6:.0f} MB.")
            pictures, loop = self._segment(path), asyncio.get_running_loop()
            while picture := await loop.run_in_executor(self.worker, next, pictures, None):
                await self._add(*picture)
        except (UnreadableImages, OSError) as error:
            reason = str(*getattr(error, "reasons", {0: error}).values())
            reason = reason.replace(str(path), path.name)
            self.unreadable.append({"image": path.name, "unreadable": reason})
            with self.complaints:
                ui.label(reason)
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)

    def _own_name(self, name: str) -> str:
        """Return a name that every file system takes, of a path its last part, and only once."""
        name = re.split(r"[/\\]", name)[-1].strip(" .") or "picture"
        path = Path(re.sub(r'[\x00-\x1f<>:"|?*\x7f\ud800-\udfff]', "_", name))
        if len(os.fsencode(path)) > 150:
            path = Path(path.stem.encode()[:120].decode(errors="ignore") + path.suffix[:10])
        stem, number = path.stem, 1
        while picture_name(path).casefold() in self.taken:
            number += 1
            path = path.with_stem(f"{stem} ({number})")
        self.taken.add(picture_name(path).casefold())
        return path.name

    def _segment(self, path: Path) -> Iterator[tuple[_Picture, str]]:
        """In the thread of the network, which all windows share: pictures and thumbnails."""
        for _, result in self.segmenter.segment_files([path], progress=False):
            if result.frame.count > 1 and result.result_name.casefold() in self.taken:
                raise OSError(f"{path}: another picture is called like a frame of it; rename it.")
            self.taken.add(result.result_name.casefold())
            stored = path.parent.with_suffix(f".{result.frame.number}")
            stored.write_bytes(pickle.dumps(result))
            shown = cv2.cvtColor(result.overlay(), cv2.COLOR_RGB2BGR)
            scale = 120 / max(shown.shape)
            small = cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            jpeg = b64encode(cv2.imencode(".jpg", small)[1]).decode()
            picture = _Picture(stored, path.name, result.frame.number, result.threshold)
            picture.result()
            yield picture, f"data:image/jpeg;base64,{jpeg}"

    async def _add(self, picture: _Picture, thumbnail: str) -> None:
        self.pictures.append(picture)
        with self.strip, ui.element("button").props("type=button tabindex=-1") as picture.button:
            picture.button.on("click", lambda: self.show(picture))
            ui.element("img").props(f"draggable=false alt='' src={thumbnail}")
            ui.label(picture.name)
            ui.label().bind_text_from(picture, "status")
        if self.picture is None:
            self.work.set_visibility(True)
            await self.show(picture)

    async def show(self, picture: _Picture) -> None:
        """Make one picture the one in view."""
        if self.picture:
            self.picture.button.props("aria-current=false tabindex=-1")
        picture.button.props("aria-current=true tabindex=0")
        self.picture, self.ends = None, []  # none that `_decide` would change
        self.slider.value, self.opinion.value = picture.threshold, picture.opinion
        self.picture = picture
        await self.draw()

    async def draw(self) -> None:
        """Show the picture in view anew; of many calls at once only the last one draws."""
        self.wanted = mine = self.wanted + 1
        async with self.lock:
            if mine != self.wanted:
                return
            result = await run.io_bound(self._render)
        height, width = result.mask.shape
        size = f" of {self.picture.drawn_mm:.3g} mm" if self.picture.drawn_mm else ""
        self.title.text = f"{result.name}, {self.picture.status}; {width} × {height} pixels{size}"
        self.warning.text = str(result.shift) if result.shift and result.shift.flagged else ""
        rows = result.rows() if result.mask.any() else []
        cells = {m: [row[m] for row in rows if row[m] is not None] for m in _MEASURES}
        lines = [
            "<td>".join([f"<tr><th scope=row>{m}", *(f"{v:.2f}".removesuffix(".00") for v in vs)])
            for m, vs in cells.items()
            if vs
        ]
        self.table.content = f"<table>{''.join(lines)}</table>"
        self.image.style(f"--aspect: {width / height}")
        self.image.props(f"src=/picture/{self.image.client.id}/{mine}")
        self.image.props["alt"] = self.title.text

    def _render(self) -> Segmentation:
        result = self.picture.result()
        if self.view.value == "Mask":
            picture = cv2.cvtColor(result.overlay(self.fill.value), cv2.COLOR_RGB2BGR)
        elif self.view.value == "Picture":
            picture = np.round(result.image * 255).astype(np.uint8)
        else:
            grey = np.round(result.probabilities * 255).astype(np.uint8)
            picture = cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)
        if self.ends:
            first, last = (tuple(map(round, self.ends[i])) for i in (0, -1))
            cv2.line(picture, first, last, (255, 255, 0), max(2, max(picture.shape) // 300))
        self.png = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        return result

    def _decide(self) -> Awaitable[None] | None:
        """Take over at once, since the next click may show another picture; then draw."""
        if self.picture is None:
            return None
        self.picture.threshold, self.picture.opinion = self.slider.value, self.opinion.value
        return self.draw()

    async def _point(self, event: events.GenericEventArguments) -> None:
        if self.scale.value:
            self.ends = [*self.ends, event.args] if len(self.ends) == 1 else [event.args]
            self.pixels.value = round(dist(*self.ends), 1) if len(self.ends) == 2 else None
            await self.draw()

    async def _set_scale(self) -> None:
        """Take the scale for all frames of the file; without millimetres, remove it."""
        scale = self.mm.value / self.pixels.value if self.mm.value and self.pixels.value else None
        for picture in self.pictures:
            if picture.name == self.picture.name:
                picture.drawn_mm = scale
        await self.draw()

    async def _download(self) -> None:
        self.save.disable()
        try:
            ui.download.file(await run.io_bound(self._archive))
        finally:
            self.save.enable()

    def _archive(self) -> Path:
        folder, rows = Path(mkdtemp(dir=self.folder)), []
        review = [["image", "frame", "opinion", "threshold", "drawn_mm_per_pixel", "model"]]
        for picture in list(self.pictures):
            chosen = picture.opinion, picture.threshold, picture.drawn_mm
            review.append([picture.name, picture.frame, *chosen, self.segmenter.provenance.name])
            if picture.opinion != "discarded":
                result = picture.result()
                result.save(folder, table=False)
                rows += result.rows()
        write_lesions(folder / LESIONS, [*rows, *self.unreadable])
        with (folder / "review.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(review)
        shutil.make_archive(str(self.folder / "masks"), "zip", folder)
        shutil.rmtree(folder)
        return self.folder / "masks.zip"


def serve(segmenter: Segmenter, port: int = 8080) -> None:
    """Serve the page on 127.0.0.1 until interrupted; then all that it was given is deleted.

    Parameters
    ----------
    segmenter : Segmenter
    port : int
        Of the page's address.
    """
    windows: dict[str, _Window] = {}

    @ui.page("/")
    def page() -> None:
        client, place = ui.context.client, Path(mkdtemp(dir=folder))
        windows[client.id] = _Window(segmenter, place, worker)
        client.on_delete(lambda: (windows.pop(client.id), shutil.rmtree(place, True)))

    @app.post("/upload/{key}")
    async def upload(key: str, name: str, request: Request) -> None:
        await windows[key].take(name, request.stream())

    @app.get("/picture/{key}/{version}")
    def picture(key: str) -> Response:
        return Response(windows[key].png, media_type="image/png")

    # Another site in the same browser may let its own name point here.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    if hasattr(signal, "SIGHUP"):  # the terminal is closed
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    temporary = TemporaryDirectory(prefix="unet_lib-view-", ignore_cleanup_errors=True)
    with temporary as folder, ThreadPoolExecutor(1) as worker, suppress(KeyboardInterrupt):
        segmenter.probabilities(np.zeros((64, 64, 1), np.float32))  # what is slow only once
        ui.run(
            host="127.0.0.1",
            port=port,
            title="Lesions in breast ultrasound",
            language="en-US",
            dark=True,
            reload=False,
            show=False,
            tailwind=False,
            gzip_middleware_factory=None,
            reconnect_timeout=600,
            show_welcome_message=False,
            timeout_graceful_shutdown=2,
        )
