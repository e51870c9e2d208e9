"""Ray nodes on this machine, each by `ray start`, to be killed and stopped: ports, token and folder of their own.

Each node has a loopback address and a session of processes of its own. So what belongs to it is known, its workers
included, and nothing else on the machine is touched.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from chaos_network import Cable

__all__ = ["Cluster", "Node", "kill_session", "processes_of"]

_START_SECONDS = 90
#: Health checks: a node that does not answer is given up after 2.5 seconds instead of 25.
_NOTICING = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "5",
}


def processes_of(session: int) -> list[psutil.Process]:
    """The processes of a session that are alive, those that are stopped included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_session(session: int) -> None:
    """SIGKILL to all of a session, until none is left: a process may start another meanwhile."""
    while processes := processes_of(session):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)


class Node:
    """A node of a cluster: its address, and the session that its processes are in."""

    def __init__(self, host: str, session: int) -> None:
        self.host, self.session = host, session

    @property
    def raylet(self) -> psutil.Process | None:
        """Its own part of Ray, if it is alive."""
        return _named(self.session, "raylet")

    def busy_workers(self) -> list[psutil.Process]:
        """Workers that run a segment."""
        return [process for process in processes_of(self.session) if _title(process).startswith("ray::_remote_attempt")]

    def signal(self, number: signal.Signals) -> None:
        """A signal to the raylet and to all workers."""
        for process in processes_of(self.session):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _named(session: int, name: str) -> psutil.Process | None:
    for process in processes_of(session):
        if os.path.basename(_title(process).partition(" ")[0]) == name:
            return process
    return None


class Cluster:
    """A head and `nodes` further nodes, of one CPU each; a context manager.

    Args:
        nodes: How many nodes beside the head.
        variables: Environment of all nodes, beside what this sets.
        cable: Nodes beside the head are at its far end.
    """

    def __init__(self, nodes: int = 1, variables: Mapping[str, str] | None = None, cable: Cable | None = None) -> None:
        rng = random.SystemRandom()
        self._cable = cable
        self._network = f"127.{rng.randrange(64, 250)}.{rng.randrange(1, 250)}"
        self._count, self._hosts = nodes, 0
        self._folder = Path(tempfile.mkdtemp(prefix="evc-"))
        self.token = secrets.token_hex(32)
        self._variables = dict(variables or {})
        self.head: Node | None = None
        self.nodes: list[Node] = []

    def __enter__(self) -> Cluster:
        try:
            self.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def variables(self) -> dict[str, str]:
        """Environment of nodes and drivers."""
        return {
            **os.environ,
            **_NOTICING,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
        } | self._variables

    def begin(self) -> None:
        """Start a head, and the nodes; those of before are gone."""
        self.stop()
        host = self._cable.near if self._cable else f"{self._network}.1"
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self._hosts = 1
        self.address = f"{host}:{port}"
        options = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self._folder}")
        self.head = self._start(host, *options)
        for _ in range(self._count):
            self.add()

    def add(self) -> None:
        """One node more."""
        self._hosts += 1
        host = self._cable.far if self._cable else f"{self._network}.{self._hosts}"
        words = self._cable.words if self._cable else ()
        self.nodes.append(self._start(host, f"--address={self.address}", words=words))

    def remove(self, node: Node) -> None:
        """What is left of a node ends."""
        kill_session(node.session)
        self.nodes.remove(node)

    def drain(self, node: Node) -> None:
        """Tell Ray that a node will be taken away in a minute, as a cloud's preemption notice does."""
        script = (
            "import ray, subprocess, sys; ray.init(address=sys.argv[1], log_to_driver=False)\n"
            "(node,) = [n['NodeID'] for n in ray.nodes() if n['Alive'] and n['NodeManagerAddress'] == sys.argv[2]]\n"
            "words = ['--reason=DRAIN_NODE_REASON_PREEMPTION', '--reason-message=spot']\n"
            "words += ['--deadline-remaining-seconds=60', f'--address={sys.argv[1]}', f'--node-id={node}']\n"
            "subprocess.run([sys.argv[3], 'drain-node', *words], check=True)"
        )
        command = [sys.executable, "-c", script, self.address, node.host, str(Path(sys.executable).with_name("ray"))]
        subprocess.run(command, env=self.variables, check=True, capture_output=True, timeout=_START_SECONDS)

    def kill_head(self) -> None:
        """SIGKILL to the process that the whole cluster hangs on."""
        assert self.head is not None
        process = _named(self.head.session, "gcs_server")
        assert process is not None
        process.kill()

    def all_nodes(self) -> list[Node]:
        """The head, and the others."""
        return [*([self.head] if self.head else []), *self.nodes]

    def stop(self) -> None:
        """End all processes."""
        for node in self.all_nodes():
            kill_session(node.session)
        self.head, self.nodes = None, []

    def close(self) -> None:
        """End all processes, and delete what they wrote."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, host: str, *options: str, words: Sequence[str] = ()) -> Node:
        command = [*words, str(Path(sys.executable).with_name("ray")), "start", *options, f"--node-ip-address={host}"]
        command += ["--num-cpus=1", "--object-store-memory=100000000", "--include-log-monitor=false"]
        with open(self._folder / "start.log", "ab") as log:
            process = subprocess.Popen(
                [*command, "--disable-usage-stats"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.variables,
                start_new_session=True,
            )
        node = Node(host, process.pid)
        try:
            status = process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            status = -1
        if status != 0:
            kill_session(node.session)
            words = (self._folder / "start.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"ray start ended with {status}: {words}")
        return node
