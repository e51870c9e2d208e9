"""An S3 server, and before it a proxy that answers with errors, drops connections, delays, and loses answers.

The server is moto's, of PyPI, and the client s3fs; `make chaos` puts each into a folder of its own, since neither is
needed for anything else.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["FaultyProxy", "packages", "s3_server"]

_BUCKET = "chaos"
_FAULTS = ("error 500", "error 503", "dropped", "lost answer", "torn answer", "delay")
_OWN_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "expect"}


def packages() -> tuple[Path, Path] | None:
    """The folders with server and client, None where `make chaos` has not made them."""
    root = Path(os.environ.get("CHAOS_PACKAGES") or Path(__file__).parents[2] / "build" / "chaos")
    server, client = root / "server", root / "client"
    return (server, client) if (server / "moto").is_dir() and (client / "s3fs").is_dir() else None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[int]:
    """An S3 server with one empty bucket, on a port of 127.0.0.1."""
    found = packages()
    assert found is not None
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(folder / "s3.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(found[0])})
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("PUT", f"/{_BUCKET}")
                assert connection.getresponse().status == 200
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


class FaultyProxy:
    """Passes requests on to a port; while `rate` is above 0, so many of them meet a fault, of which `hear` is told."""

    def __init__(self, port: int, seed: int, rate: float = 0.0) -> None:
        self._port = port
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self.rate = rate
        self.hear: Callable[[str], object] = str
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                proxy.pass_on(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What clients speak to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _fault(self) -> str:
        with self._lock:
            if self._rng.random() >= self.rate:
                return ""
            fault = self._rng.choice(_FAULTS)
        self.hear(fault)
        return fault

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        """One request, and its answer unless a fault is due."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._fault()
        if fault == "delay":
            time.sleep(1.0)
        if fault == "dropped":
            request.close_connection = True
            return
        if fault.startswith("error"):
            _answer(request, int(fault.split()[1]), {}, b"<Error><Code>InternalError</Code></Error>")
            return
        try:
            status, headers, data = self._forward(request, body)
        except OSError:
            request.close_connection = True
            return
        if fault == "lost answer":
            request.close_connection = True
            return
        _answer(request, status, headers, data, torn=fault == "torn answer")

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
        connection.request(request.command, request.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN_HEADERS}
        if request.command == "HEAD" and (length := answer.getheader("Content-Length")) is not None:
            kept["Content-Length"] = length
        return answer.status, kept, data


def _answer(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], data: bytes, torn: bool = False
) -> None:
    with contextlib.suppress(OSError):  # whoever asked may be dead by now
        request.send_response_only(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2] if torn else data)
        request.close_connection = torn
