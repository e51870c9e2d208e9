"""Layerwise forward pass: it stops before every layer, which can be changed while its inputs are at hand.

Each batch goes through the network in a thread of its own, which waits before each watched module until it is told to
go on; only one thread runs at a time. So a whole network is visited layer by layer at the price of one forward pass.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from evocompress.errors import ModelError
from evocompress.support.inputs import Inputs, call

__all__ = ["Stop", "forward_in_steps", "give_back"]


class Stop(NamedTuple):
    """A module that is about to run, by its path, and its first argument for each batch (None if it has none).

    The list is emptied when the passes go on.
    """

    path: str
    inputs: list[Any]


class _Cancelled(BaseException):
    """Ends a thread that will not be needed; a network's own `except Exception` does not catch it."""


def forward_in_steps(model: nn.Module, batches: Sequence[Inputs], paths: Collection[str]) -> Iterator[Stop]:
    """Run the batches through the network; stop, and yield, before each first call of a module among `paths`.

    What is changed in the module then, counts in this pass. Gradients are off; the mode is left as it is.

    Raises:
        ModelError: The network fails, or does not take all batches the same way.
    """
    passes = [_Pass(model, batch) for batch in batches]
    running = {pass_.thread: pass_ for pass_ in passes}
    waiting, handles = set(paths), []

    def hook(path: str) -> Any:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            pass_ = running.get(threading.current_thread())
            if pass_ is not None and path in waiting and path not in pass_.seen:
                pass_.stop(path, args[0] if args else next(iter(kwargs.values()), None))

        return before

    try:
        for path, module in model.named_modules():
            if path in waiting:
                handles.append(module.register_forward_pre_hook(hook(path), with_kwargs=True))
        while True:
            stops = [pass_.resume() for pass_ in passes]
            path = stops[0][0] if stops else None
            if any(stop[0] != path for stop in stops):
                raise ModelError(
                    "the network does not take all examples the same way, so it has no order of layers; "
                    "the preset 'fast' quantises all layers at once"
                )
            if path is None:
                return
            at = Stop(path, [stop[1] for stop in stops])
            del stops
            yield at
            at.inputs.clear()  # whoever still has it would hold them while the passes go on
    finally:
        for handle in handles:
            handle.remove()
        for pass_ in passes:
            pass_.cancel()


class _Pass:
    """One batch on its way."""

    def __init__(self, model: nn.Module, batch: Inputs) -> None:
        self.seen: set[str] = set()
        self._at: tuple[str | None, Any] = (None, None)
        self._failure: BaseException | None = None
        self._cancelled = self._done = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._threads = torch.get_num_threads()
        self.thread = threading.Thread(target=self._run, args=(model, batch), daemon=True)

    def _run(self, model: nn.Module, batch: Inputs) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                torch.set_num_threads(self._threads)  # is each thread's own
                with torch.no_grad():
                    call(model, batch)
        except _Cancelled:
            pass
        except BaseException as failure:  # handed to the thread that waits
            self._failure = failure
        finally:
            self._at, self._done = (None, None), True
            self._stopped.release()

    def stop(self, path: str, inputs: Any) -> None:
        """Called in the pass's thread: hand over, and wait."""
        self.seen.add(path)
        self._at = (path, inputs)
        self._stopped.release()
        self._go.acquire()
        if self._cancelled:
            raise _Cancelled

    def resume(self) -> tuple[str | None, Any]:
        """Run to the next stop: its path and inputs, or None at the end."""
        if self._done:
            return (None, None)
        if self.thread.ident is None:
            self.thread.start()
        self._go.release()
        self._stopped.acquire()
        give_back()
        if self._failure is not None:
            raise ModelError(f"the network fails on calibration examples: {self._failure}") from self._failure
        at, self._at = self._at, (None, None)
        return at

    def cancel(self) -> None:
        """End the thread, wherever it waits."""
        if self.thread.ident is not None and not self._done:
            self._cancelled = True
            self._go.release()
            self.thread.join()


def give_back() -> None:
    """Give memory that this process has freed back to the system, where the C library can (glibc); else do nothing.

    Each thread has a heap of its own there, and keeps what it frees. A few threads that work on tensors of megabytes in
    turn so take several times the memory that is in use.
    """
    if (trim := _trim()) is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc
        return None
    return trim
