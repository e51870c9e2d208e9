"""Interrupts by Ctrl-C at safe points only: in between, the journal and the search are in step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

__all__ = ["Interrupts", "asked_to_end", "is_interrupt", "sigterm_interrupts"]

T = TypeVar("T")


def is_interrupt(error: BaseException) -> bool:
    """Whether an error is Ctrl-C; one that reaches numba between two calls comes out of it as a SystemError."""
    return isinstance(asked_to_end(error), KeyboardInterrupt)


def asked_to_end(error: BaseException) -> KeyboardInterrupt | SystemExit | None:
    """The Ctrl-C or the exit (what SIGTERM is in a worker) that an error is, or was before it came out of numba."""
    told = error.__cause__ or error.__context__ if isinstance(error, SystemError) else error
    return told if isinstance(told, KeyboardInterrupt | SystemExit) else None


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM (the polite end by a cluster or a service manager) do what Ctrl-C does, for a while.

    A process that is forked meanwhile ends by SIGTERM, as others do. Outside the main thread, where Python delivers no
    signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def handle(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class Interrupts:
    """Turns SIGINT and SIGTERM into a flag, or into `KeyboardInterrupt` while the driver only waits.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.pending = False
        self._waiting = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take over the signals for a while."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous_handlers: dict[signal.Signals, Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                previous_handlers[number] = signal.signal(number, self._handle)
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def during(self, action: Callable[[], T], otherwise: T) -> T:
        """Run `action`, in which nothing is half done: a signal, also an earlier one, ends it, for `otherwise`."""
        try:
            self._waiting = True
            return otherwise if self.pending else action()
        except (KeyboardInterrupt, SystemError) as error:
            if not is_interrupt(error):
                raise
            self.pending = True
            return otherwise
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt
