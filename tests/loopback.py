"""A web server on loopback, and Google Drive played by it."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import requests

FORM = (  # on one line, as Drive's is: gdown reads line by line
    '<html><body><form id="download-form" action="https://drive.usercontent.google.com/download" '
    'method="get"><input type="hidden" name="id" value="{id}"><input type="hidden" name="confirm" '
    'value="t"><input type="hidden" name="uuid" value="1-2"></form></body></html>'
)
QUOTA = """<html><body><p class="uc-error-caption">Sorry, you can't view or download this file.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please
try accessing the file again later.</p></body></html>""".replace("\ntry", " try")
SIGN_IN = "<html><head><title>Sign in - Google Accounts</title></head><body>Sign in</body></html>"


class Answer:
    """What the server sends: status, headers, body, and how it misbehaves.

    `cut`: bytes after which the connection is closed although more was announced; `hold`: stay
    connected at that point instead, and send nothing, until the server is closed; `pause`: seconds
    between two pieces of 64 kB. A header of None is not sent.
    """

    def __init__(
        self, body=b"", status=200, kind="application/octet-stream", cut=None, hold=False, pause=0,
        **headers,
    ):  # fmt: skip
        self.body = body.encode() if isinstance(body, str) else body
        self.status, self.cut, self.hold, self.pause = status, cut, hold, pause
        self.headers = {"Content-Type": kind} | {k.replace("_", "-"): v for k, v in headers.items()}


def page(text):
    return Answer(text, kind="text/html; charset=utf-8")


def attachment(body, name="model.weights.h5", **more):
    return Answer(body, Content_Disposition=f'attachment; filename="{name}"', **more)


class Server(http.server.ThreadingHTTPServer):
    """Answers by path; understands Range; remembers requests."""

    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer | Callable] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.closing = threading.Event()
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Stay silent: clients that leave are what the tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        path = urlsplit(self.path).path
        asked = self.headers.get("Range")
        self.server.requests.append((path, asked))
        answer = self.server.answers.get(path, Answer("not here", 404, "text/html"))
        if callable(answer):
            answer = answer(parse_qs(urlsplit(self.path).query))
        self.send(answer, asked if self.server.ranges else None)

    def send(self, answer, asked):
        body, status, headers = answer.body, answer.status, dict(answer.headers)
        if asked and status == 200:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                status, body, start = 416, b"", 0
                headers["Content-Range"] = f"bytes */{len(answer.body)}"
            else:
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:]
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        body = body if answer.cut is None else body[: answer.cut]
        size = (1 << 16) if answer.pause else max(1, len(body))
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            time.sleep(answer.pause)
        self.wfile.flush()
        if answer.hold:
            self.server.closing.wait(60)
        self.close_connection = True


@contextmanager
def serving(context=None):
    server = Server(context)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def redirect(monkeypatch, url):
    """Send what goes to Google's hosts to `url`: gdown's own code, another address.

    gdown writes Drive's https address into its code; requests' adapter is where all of it passes.
    """
    send = requests.adapters.HTTPAdapter.send

    def rewritten(self, request, **options):
        parts = urlsplit(request.url)
        assert parts.hostname in ("127.0.0.1", *GOOGLE), request.url
        if parts.hostname in GOOGLE:
            request.url = f"{url}/{parts.hostname}{parts.path}?{parts.query}"
        return send(self, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", rewritten)


GOOGLE = ("drive.google.com", "drive.usercontent.google.com", "docs.google.com")
DOOR, FILE = "/drive.google.com/uc", "/drive.usercontent.google.com/download"
