"""A web server on loopback, and Google Drive played by it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
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
GOOGLE = ("drive.google.com", "drive.usercontent.google.com", "docs.google.com")
DOOR, FILE = "/drive.google.com/uc", "/drive.usercontent.google.com/download"


@dataclass
class Answer:
    """What the server sends, and how it misbehaves."""

    body: bytes
    status: int = 200
    kind: str = "application/octet-stream"
    cut: int | None = None  # bytes after which the connection is closed, more was announced
    disposition: str = ""


def page(text):
    return Answer(text.encode(), kind="text/html; charset=utf-8")


class Server(http.server.ThreadingHTTPServer):
    """Answers by path; understands Range unless told not to; remembers requests."""

    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer | Callable] = {}
        self.requests: list[str] = []
        self.ranges = True
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
        parts = urlsplit(self.path)
        self.server.requests.append(parts.path)
        answer = self.server.answers.get(parts.path, Answer(b"not here", 404, "text/html"))
        if callable(answer):
            answer = answer(parse_qs(parts.query))
        body, status = answer.body, answer.status
        headers = {"Content-Type": answer.kind, "Connection": "close"}
        if answer.disposition:
            headers["Content-Disposition"] = answer.disposition
        asked = self.headers.get("Range") if self.server.ranges else None
        if asked and status == 200:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: answer.cut])
        self.close_connection = True


@contextmanager
def serving(context=None):
    server = Server(context)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
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
