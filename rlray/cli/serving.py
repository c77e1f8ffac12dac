"""``rlray metrics --listen``: metrics over HTTP, to this machine only and to those who know the token."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ADDRESS = "127.0.0.1"
_PATH = "/metrics"
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LOOK = 0.5  # seconds between two looks whether the run lives
_PATIENCE = 10.0  # seconds that a caller has to say what it wants


def serve(lives: Callable[[], bool], text: Callable[[], str], port: int, token_file: str | None) -> None:
    """Serve ``text()`` at ``/metrics`` until the run ends or Ctrl-C.

    A request must come with the token as ``Authorization: Bearer``, and name this machine in ``Host``: no page that a
    browser shows can make it ask.

    Raises: ValueError if others may read the token's file; OSError if the port is taken.
    """
    token = _token(token_file)
    with suppress(KeyboardInterrupt), _Server(port, token, text) as server:
        print(f"serving http://{_ADDRESS}:{server.server_port}{_PATH} until the run ends or Ctrl-C")
        shown = token if token_file is None else f"(the content of {token_file})"
        print(f"to requests with the header Authorization: Bearer {shown}", flush=True)
        while lives():
            server.handle_request()


def _token(file: str | None) -> str:
    """A new token, or the one in the file, which is made if there is none."""
    if file is None:
        return secrets.token_urlsafe(32)
    path = Path(file)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError(f"others may read the token in {file}; chmod 600 {file}") from None
        token = path.read_text().strip()
        if not token.isascii() or len(token) < 16:
            raise ValueError(f"{file} has no token of 16 characters or more; remove it to get a new one") from None
        return token
    token = secrets.token_urlsafe(32)
    with os.fdopen(fd, "w") as stream:
        stream.write(token)
    return token


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    timeout = _LOOK

    def __init__(self, port: int, token: str, text: Callable[[], str]) -> None:
        super().__init__((_ADDRESS, port), _Handler)
        self.token, self.text = token, text
        self.hosts = {f"{name}{suffix}" for name in (_ADDRESS, "localhost") for suffix in ("", f":{self.server_port}")}


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version, sys_version = "rlray", ""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.headers.get("Host", "") not in self.server.hosts:
            self._answer(421, "this is not that host\n")
        elif not hmac.compare_digest(
            self.headers.get("Authorization", "").encode(), f"Bearer {self.server.token}".encode()
        ):
            self._answer(401, "the token is missing or wrong\n")
        elif self.path != _PATH:
            self._answer(404, f"there is only {_PATH}\n")
        else:
            try:
                self._answer(200, self.server.text())
            except ConnectionError as why:
                self._answer(503, f"{why}\n")

    def _answer(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", _TYPE if code == 200 else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if code == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not worth a line each."""
