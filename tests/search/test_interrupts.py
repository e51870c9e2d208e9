"""Interrupts: noted outside a wait, and the end of a wait inside it."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from evocompress.search.interrupts import Interrupts


def test_outside_a_wait_a_signal_is_only_noted_and_inside_it_ends_the_wait() -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    with interrupts.installed():
        assert interrupts.during(lambda: "done", "stopped") == "done"
        signal.raise_signal(signal.SIGINT)
        assert interrupts.pending
        assert interrupts.during(lambda: "done", "stopped") == "stopped"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_wait_ends_at_once() -> None:
    interrupts = Interrupts()
    with interrupts.installed():
        timer = threading.Timer(0.1, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        assert interrupts.during(lambda: time.sleep(60), None) is None
        timer.join()
        assert interrupts.pending and time.monotonic() - began < 60


def test_what_numba_makes_of_an_interrupt_is_one() -> None:
    interrupts = Interrupts()

    def compiled() -> str:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interrupt:
            raise SystemError("a compiled function returned a result with an exception set") from interrupt
        return "done"

    def broken() -> str:
        raise SystemError("something else")

    with interrupts.installed():
        assert interrupts.during(compiled, "stopped") == "stopped" and interrupts.pending
        with pytest.raises(SystemError, match="something else"):
            Interrupts().during(broken, "stopped")


def test_in_another_thread_nothing_is_installed() -> None:
    results: list[str] = []

    def work() -> None:
        with Interrupts().installed():
            results.append("ran")

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == ["ran"] and signal.getsignal(signal.SIGINT) is before
