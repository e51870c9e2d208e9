"""A process beside one that is in a Ray cluster, which says why that one ended, or ends it: no exception can.

Ray's core ends the process as soon as the node that it speaks to is gone, and says so where nobody reads it. Where the
head is gone it waits without end, and holds Python's lock meanwhile, so that no thread of that process could look.

This is run as a script, without the installed packages: a fraction of the time that joining a cluster takes.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Wait for a byte on the standard input: it has left the cluster. At the input's end it has died.

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
