"""A network namespace with one cable to this one, which can be cut; for root."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator

__all__ = ["Cable", "cable"]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Cable:
    """A cable with the addresses `near` and `far`; a command after `words` runs at the far end."""

    def __init__(self) -> None:
        rng = random.SystemRandom()
        network = f"10.{rng.randrange(200, 250)}.{rng.randrange(1, 250)}"
        self.near, self.far = f"{network}.1", f"{network}.2"
        self._name = f"evc{rng.randrange(1 << 30):x}"
        self.words = ("ip", "netns", "exec", self._name)

    def lay(self) -> None:
        """Make both ends."""
        name, near, far = self._name, f"{self._name}n", f"{self._name}f"
        _ip("netns", "add", name)
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", far, "netns", name)
        _ip("addr", "add", f"{self.near}/24", "dev", near)
        _ip("link", "set", near, "up")
        for words in (
            ("addr", "add", f"{self.far}/24", "dev", far),
            ("link", "set", far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", name, *words)

    def cut(self) -> None:
        """Nothing goes through: packets are lost, as where a switch has no power, and nobody hears of it."""
        _ip("-n", self._name, "link", "set", f"{self._name}f", "down")

    def mend(self) -> None:
        """Packets go through again."""
        _ip("-n", self._name, "link", "set", f"{self._name}f", "up")

    def remove(self) -> None:
        """Neither end is left."""
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", f"{self._name}n")
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self._name)


@contextlib.contextmanager
def cable() -> Iterator[Cable | None]:
    """A cable, None where this process cannot lay one."""
    laid = Cable()
    try:
        possible = os.geteuid() == 0 and shutil.which("ip") is not None
        if possible:
            try:
                laid.lay()
            except subprocess.CalledProcessError:
                possible = False
        yield laid if possible else None
    finally:
        if shutil.which("ip") is not None:
            laid.remove()
