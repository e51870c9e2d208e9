"""A process beside one that is in a Ray cluster, which says why that one ended, or ends it: no exception can.

Ray's core ends the process as soon as the node that it speaks to is gone, and says so where nobody reads it. Where the
head is gone it waits without end, and holds Python's lock meanwhile, so that no thread of that process could look.

It is this file, run as a script without the installed packages: a fraction of the time that joining a cluster takes.
So nothing but the standard library is imported here.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time

__all__ = ["ProcessGuard", "host_and_port", "main"]

_PORT_ADDRESS = re.compile(r"(?:ray://)?(?P<host>[^/:]+|\[[^]]+\]):(?P<port>\d+)")


def host_and_port(address: str) -> tuple[str, int] | None:
    """Where the head of a Ray cluster takes connections; None where its address does not name a port.

    >>> host_and_port("ray://head:10001"), host_and_port("[::1]:6379"), host_and_port("auto")
    (('head', 10001), ('::1', 6379), None)
    """
    match = _PORT_ADDRESS.fullmatch(address)
    return None if match is None else (match["host"].strip("[]"), int(match["port"]))


class ProcessGuard:
    """The process that guards this one, until it is dismissed.

    It knows no head to look at where the cluster's address does not name a port, and is not started then.

    Args:
        cluster: Address of the cluster that this process joins, None where it joins none.
        every: Seconds between two looks at the head.
        patience: Seconds for which the head may not answer.
    """

    def __init__(self, cluster: str | None, *, every: float, patience: float) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        head = None if cluster is None or os.name != "posix" else host_and_port(cluster)
        if head is None:
            return
        died = (
            f"error: this process was ended while it was in the Ray cluster at {cluster}, as Ray does where a part of "
            "it is gone. Start the cluster again, and go on: what was finished is kept."
        )
        silent = (
            f"error: the head of the Ray cluster at {cluster} has not answered for {patience:g} s, and Ray waits "
            "for it. Start the cluster again, and go on: what was finished is kept."
        )
        numbers = (os.getpid(), *head, every, patience)
        command = [sys.executable, "-I", "-S", __file__, *(str(number) for number in numbers), died, silent]
        with contextlib.suppress(OSError):  # where no process can be started, nobody says it
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
            atexit.register(self.dismiss)  # which Ray's own ends do not come to

    def dismiss(self) -> None:
        """This process ends by itself, or has left the cluster."""
        process, self._process = self._process, None
        if process is not None:
            atexit.unregister(self.dismiss)
            with contextlib.suppress(OSError):
                process.communicate(b"1")


def main(arguments: list[str]) -> None:
    """Guard a process: a byte on the standard input says that it has left the cluster, its end that it has died.

    Args:
        arguments: Its pid, host and port of the head, seconds between two looks at that, seconds for which it may not
            answer, and the lines to print where the process has died and where the head does not answer.
    """
    pid, host, port, every, patience, died, silent = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process
    silent_since: float | None = None
    while not select.select([0], [], [], float(every))[0]:
        try:
            socket.create_connection((host, int(port)), timeout=float(every)).close()
            silent_since = None
        except OSError:
            now = time.monotonic()
            silent_since = now if silent_since is None else silent_since
            if now - silent_since >= float(patience):
                os.write(2, f"{silent}\n".encode())
                os.kill(int(pid), signal.SIGKILL)
                return
    if not os.read(0, 1):
        os.write(2, f"{died}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
