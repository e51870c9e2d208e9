"""Faults of Ray: what the executor says when Ray is gone or refuses, without Ray, which an object of ours plays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from evocompress.errors import InfrastructureError, RunError
from evocompress.search.interrupts import sigterm_interrupts
from evocompress.search.ray_cluster import _connect, _Part, _parts


def test_a_part_that_does_not_answer_is_given_some_time_and_then_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        part = _Part("the head of the Ray cluster", server.getsockname(), patience=30.0)
        part.look(0.0)
        part.look(1000.0)
    part.look(1002.0)
    part.look(1031.0)
    with pytest.raises(
        InfrastructureError,
        match=r"^the head of the Ray cluster at 127.0.0.1:\d+ has not answered for 30 s \(.*\)\. "
        r"Start the cluster again, and resume the run: .*$",
    ):
        part.look(1032.0)


def test_a_part_that_comes_back_in_time_has_its_time_anew() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    part = _Part("the head", address, patience=30.0)
    part.look(0.0)
    with socket.create_server(address):
        part.look(20.0)
    part.look(40.0)
    part.look(69.0)
    with pytest.raises(InfrastructureError, match="for 31 s"):
        part.look(71.0)


def test_the_parts_are_the_head_and_the_node_of_this_driver() -> None:
    nodes = [
        {"NodeID": "other", "NodeManagerAddress": "10.0.0.2", "NodeManagerPort": 1},
        {"NodeID": "here", "NodeManagerAddress": "10.0.0.3", "NodeManagerPort": 2},
    ]
    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    ray = SimpleNamespace(get_runtime_context=lambda: context, nodes=lambda: nodes)
    assert [(part.address, part.patience) for part in _parts(ray, "here")] == [
        (("10.0.0.1", 6379), 30.0),
        (("10.0.0.3", 2), 5.0),
    ]
    assert len(_parts(ray, "nowhere")) == 1
    assert _parts(SimpleNamespace(get_runtime_context=lambda: SimpleNamespace()), "here") == []  # as of Ray's client


class AuthenticationError(Exception):
    """As Ray has it since there are tokens."""


def ray_that_raises(error: Exception, cause: Exception | None) -> Any:
    def init(**options: Any) -> None:
        os.write(2, b"gcs_client.cc:210: Failed\n" * 20)
        raise error from cause

    return SimpleNamespace(is_initialized=lambda: False, init=init)


def test_a_wrong_token_is_told_from_a_cluster_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    refused = AuthenticationError("InvalidAuthToken: Authentication token is missing or incorrect")
    ray = ray_that_raises(ConnectionError("Failed to connect to Ray cluster at cluster"), refused)
    with pytest.raises(InfrastructureError, match="'cluster' refuses this driver's token; set RAY_AUTH_MODE and"):
        _connect(ray, "cluster")
    with pytest.raises(InfrastructureError, match="refuses this driver's token"):
        _connect(ray_that_raises(refused, None), "cluster")
    with pytest.raises(RunError, match="no Ray cluster at 'cluster'"):
        _connect(ray_that_raises(ConnectionError("nobody"), OSError("no route")), "cluster")
    assert capfd.readouterr().err == ""


def test_what_sigterm_does_outlasts_the_joining_of_a_cluster() -> None:
    def init(**options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does

    before = signal.getsignal(signal.SIGTERM)
    with sigterm_interrupts():
        assert _connect(SimpleNamespace(is_initialized=lambda: False, init=init), None)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_written_while_a_cluster_is_joined_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **options: os.write(2, b"a warning\n"))
    assert _connect(ray, "cluster")
    assert capfd.readouterr().err == "a warning\n"


_JOINING = """
import os, sys, time
from evocompress.search.process_guard import ProcessGuard
from evocompress.search.interrupts import sigterm_interrupts
from evocompress.search.ray_cluster import _told_by_us
guard = ProcessGuard(sys.argv[1], every=0.05, patience=0.2)
with _told_by_us():
    os.write(2, b"hundreds of lines")
    {what}
"""


def joining(what: str, address: str) -> tuple[int, str]:
    command = [sys.executable, "-c", _JOINING.replace("{what}", what), address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


def test_that_ray_ends_the_process_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code, error = joining("os._exit(1)", address)
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith(f"error: this process was ended while it was in the Ray cluster at {address}, as Ray")


def test_a_head_that_is_gone_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    code, error = joining("time.sleep(100)", address)
    assert (code, error.count("\n")) == (-signal.SIGKILL, 1)
    assert error.startswith(f"error: the head of the Ray cluster at {address} has not answered for 0.2 s, and ")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert joining("time.sleep(0.5)", address) == (0, "hundreds of lines")
    assert joining("time.sleep(0.5)", "auto") == (0, "hundreds of lines")
