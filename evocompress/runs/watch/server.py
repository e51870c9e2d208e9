"""Server of the live page: a run folder, looked at from a browser. It only reads, and runs nothing of the folder.

It answers five paths, whatever else is asked. The browser gets texts as JSON and shows them as text; the page's policy
allows only its own script and style. A request must name this machine as its host, since a foreign page could
otherwise have its own name point here (DNS rebinding) and read what is answered.
"""

from __future__ import annotations

import ipaddress
import json
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any, ClassVar
from urllib.parse import urlsplit

from evocompress.errors import ConfigError, EvocompressError
from evocompress.runs.watch.payload import watch_payload
from evocompress.search.history import read_history

__all__ = ["WatchServer"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: The report has a policy of its own, with the hashes of its scripts.
_REPORT_POLICY = "frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FRESH_SECONDS = 1.0
_PAUSES = 5.0  # times as long as reading took, for which what was read is good: a long journal is not read all the time


class WatchServer(ThreadingHTTPServer):
    """The live page of a run; `serve_forever` answers, in a `with` statement that closes it.

    Args:
        folder: The run folder, finished or going on.
        host: The address to listen on; others than this machine's own let others look at the run.
        port: The port; 0 for any that is free.
        wording: What the page says in the place of a message.

    Raises:
        RunError: There is no run in the folder, or its journal is damaged.
        ConfigError: The address cannot be listened on.
    """

    daemon_threads = True

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", port: int = 0, wording: Callable[[str], str] = str
    ) -> None:
        read_history(folder)  # says what is no run
        self.folder, self.host, self._wording = folder, host, wording
        self.address_family = AF_INET6 if ":" in host else AF_INET
        self._lock = threading.Lock()
        self._seen, self._good_until = b"", 0.0
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"port {port} of {host} cannot be listened on ({reason}); choose another, or 0 for one that is free."
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def is_named(self, header: str) -> bool:
        """Whether a request's host is this machine: an address, `localhost`, or the name that is listened on."""
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        return name in ("localhost", self.host.lower()) or _is_address(name)

    def status(self) -> bytes:
        """The page's data as JSON, read anew if some time has gone by; what was wrong, where the run cannot be read."""
        with self._lock:
            began = time.monotonic()
            if began >= self._good_until:
                try:
                    content: dict[str, Any] = watch_payload(read_history(self.folder))
                    content["driver"] = self._wording(content["driver"])
                except (EvocompressError, OSError) as error:
                    content = {"problem": self._wording(str(error))}
                self._seen = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
                self._good_until = time.monotonic() + max(_FRESH_SECONDS, _PAUSES * (time.monotonic() - began))
            return self._seen

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request. Reading only: there is no method but GET and HEAD."""

    server_version, sys_version = "evocompress", ""
    timeout = 30.0  # for a request that does not come to its end
    _files: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {
        "/": ("text/html", ("watch/page.html",)),
        "/watch.js": ("text/javascript", ("watch/watch.js",)),
        "/watch.css": ("text/css", ("report/style.html.j2", "watch/watch.css")),
    }

    @property
    def _watched(self) -> WatchServer:
        assert isinstance(self.server, WatchServer)
        return self.server

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if not self._watched.is_named(self.headers.get("Host", "")):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"This page is there for this machine's own names only.\n")
        elif path in self._files:
            kind, names = self._files[path]
            self._answer(HTTPStatus.OK, kind, b"\n".join(map(_resource, names)))
        elif path == "/status.json":
            self._answer(HTTPStatus.OK, "application/json", self._watched.status())
        elif path == "/report.html":
            self._report()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here.\n")

    do_HEAD = do_GET

    def _report(self) -> None:
        """The run's report, made anew: what lies in the folder as one may be anybody's."""
        from evocompress.runs.report.page import render_report

        try:
            page = render_report(read_history(self._watched.folder))
        except (EvocompressError, OSError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n".encode())
        else:
            self._answer(HTTPStatus.OK, "text/html", page.encode(), _REPORT_POLICY)

    def _answer(self, status: HTTPStatus, kind: str, body: bytes, policy: str = _POLICY) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: a page that asks every few seconds would fill the terminal."""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _resource(name: str) -> bytes:
    return resources.files("evocompress.runs").joinpath(name).read_bytes()
