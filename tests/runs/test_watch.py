"""The live page's server and data: what it answers to whom, and what it shows of a run."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import served
from synthetic_run import synthetic_run, write_synthetic_run
from toy_task import DigitError
from typer.testing import CliRunner

from evocompress.cli import app
from evocompress.errors import ConfigError, RunError
from evocompress.runs.front import front
from evocompress.runs.watch.payload import round_numbers, watch_payload
from evocompress.runs.watch.server import WatchServer
from evocompress.search.history import read_history

ESCAPES = "\x1b]0;owned\x07\u202e"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watched") / "run"
    write_synthetic_run(path, synthetic_run(40))
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[WatchServer]:
    with served(folder) as there:
        yield there


def ask(server: WatchServer, path: str, *, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def test_the_page_and_its_parts(server: WatchServer) -> None:
    kinds = {
        "/": "text/html",
        "/watch.js": "text/javascript",
        "/watch.css": "text/css",
        "/status.json?x=1": "application/json",
    }
    for path, kind in kinds.items():
        answer = ask(server, path)
        assert answer.status == 200 and answer.headers["Content-Type"] == f"{kind}; charset=utf-8", path
        assert len(answer.read()) == int(answer.headers["Content-Length"])
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert ask(server, path, method="HEAD").read() == b""


def test_the_page_asks_nothing_of_elsewhere(server: WatchServer) -> None:
    for path in ("/", "/watch.js", "/watch.css"):
        text = ask(server, path).read().decode()
        assert not re.findall(r"(?:src|href|url|fetch)\W+https?:", text)
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text


@pytest.mark.parametrize(
    "path", ["/run.json", "/journal/000001.jsonl", "/../run.json", "/%2e%2e/run.json", "//etc/passwd", "/watch.js/"]
)
def test_nothing_else_of_the_folder_or_the_machine(server: WatchServer, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404 and answer.read() == b"There is nothing here.\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_only_reads(server: WatchServer, method: str) -> None:
    assert ask(server, "/status.json", method=method).status == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9000", 200),  # as through a tunnel
        ("127.0.0.1", 200),
        ("[::1]:8010", 200),
        ("LOCALHOST", 200),
        ("evil.example:8010", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_the_host_must_be_this_machine(server: WatchServer, host: str, status: int) -> None:
    assert ask(server, "/status.json", Host=host).status == status


def test_the_report_is_made_anew(server: WatchServer, folder: Path) -> None:
    (folder / "export").mkdir(exist_ok=True)
    (folder / "export" / "report.html").write_text("<script>alert(1)</script>")
    answer = ask(server, "/report.html")
    page = answer.read().decode()
    assert answer.status == 200 and "alert(1)" not in page and "script-src 'sha256-" in page


def test_what_it_shows(folder: Path) -> None:
    history = read_history(folder)
    shown, points = watch_payload(history), front(history)
    assert json.loads(json.dumps(shown, allow_nan=False)) == json.loads(json.dumps(shown))
    assert [row[0] for row in shown["front"]["rows"]] == [str(point.nbytes) for point in points]
    assert "audited" in shown["front"]["note"] and shown["state"] == "dead"
    assert ["40", "segments done"] in [[value.partition(" ")[0], words] for value, words in shown["tiles"]]
    assert shown["hypervolume"]["points"][-1] == [40, history.hypervolumes[-1]]
    (failure,) = shown["failures"]["rows"]
    assert failure == [str(len(history.failed)), "diverged", "loss is nan after epoch 1"]
    ticks = [value for value, _ in shown["front"]["xTicks"]]
    assert ticks and all(points[0].nbytes <= value <= points[-1].nbytes for value in ticks)


def test_nothing_has_happened_yet_and_much_has() -> None:
    nothing = watch_payload(synthetic_run(0, audited=False, reference=False))
    assert (
        nothing["front"]["points"] == []
        and nothing["hypervolume"]["points"] == []
        and nothing["failures"]["rows"] == []
    )
    lower = watch_payload(synthetic_run(30, quality=DigitError.quality))
    assert not lower["front"]["rises"] and lower["front"]["axis"] == "RMSE in steps"
    many = watch_payload(synthetic_run(900))
    assert len(json.dumps(many)) < 200_000


def test_texts_lose_what_turns_them_around(folder: Path, tmp_path: Path) -> None:
    history = synthetic_run(20)
    history.outcomes[7] = dataclasses.replace(history.outcomes[7], error="bad" + ESCAPES)
    assert ["1", "diverged", "bad"] in watch_payload(history)["failures"]["rows"]


def test_a_run_that_cannot_be_read_for_now_is_said(tmp_path: Path) -> None:
    write_synthetic_run(tmp_path / "run", synthetic_run(5))
    with served(tmp_path / "run") as server:
        whole: dict[str, Any] = json.loads(ask(server, "/status.json").read())
        assert "problem" not in whole
        (tmp_path / "run" / "run.json").rename(tmp_path / "run" / "gone")
        server._good_until = 0.0
        assert "is no run" in json.loads(ask(server, "/status.json").read())["problem"]


def test_what_cannot_be_served(tmp_path: Path, folder: Path, server: WatchServer) -> None:
    with pytest.raises(RunError, match="is no run"):
        WatchServer(tmp_path)
    with pytest.raises(ConfigError, match="cannot be listened on"):
        WatchServer(folder, port=server.server_address[1])
    result = CliRunner().invoke(app, ["watch", str(folder), "--port", str(server.server_address[1])])
    assert isinstance(result.exception, ConfigError) and "choose another, or 0" in str(result.exception)
    with WatchServer(folder, host="localhost") as other:
        assert other.url == f"http://localhost:{other.server_address[1]}/"


def test_round_numbers_are_few() -> None:
    for low, high in ((0.0, 1e-9), (0.3, 0.3), (-4.0, 17.3), (0.0, 123456.0)):
        assert 1 <= len(round_numbers(low, high)) <= 9, (low, high)
