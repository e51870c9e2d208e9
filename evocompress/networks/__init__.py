"""Networks by name, built; a new one is a file here and a row in `evocompress/extensions.py`, or a user's own code.

A factory takes keyword options only and returns a module that maps inputs, such as images (n, c, h, w), to what a task
expects, such as logits (n, classes).
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from evocompress.errors import EvocompressError, ModelError
from evocompress.extensions import NETWORK_OPTIONS, NETWORKS
from evocompress.support.modules import check_not_scripted
from evocompress.support.user_objects import is_reference, keyword_options, one_of, resolve

__all__ = ["NETWORKS", "build"]


def build(name: str, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> nn.Module:
    """A freshly initialised network, on the CPU: one of `NETWORKS`, or a user's `package.module:factory`.

    The same seed gives the same weights, also where a factory draws with numpy or `random`, and the caller's random
    states are left as they were. Options that the factory does
    not take go to the functions in `extensions.NETWORK_OPTIONS`, which change what it has made, in their order.

    Raises:
        ModelError: An unknown name or option, a factory that fails, or one that returns no network, or a scripted one.

    >>> sum(p.numel() for p in build("lenet5_caffe").parameters())
    431080
    """
    options = dict(options or {})
    factory = _factory(name)
    further = _further_options(name, factory, options)
    of_factory = {
        option: value
        for option, value in options.items()
        if not any(option in function_options for _, function_options in further)
    }
    with _seeded(seed):
        network = _call(name, "its factory", factory, (), of_factory)
        for function, function_options in further:
            listing = ", ".join(f"{option} = {function_options[option]!r}" for option in function_options)
            network = _call(name, f"what makes it a network of {listing}", function, (network,), function_options)
    return network


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator (nobody forks the others), numpy's and `random`'s, and restore them afterwards."""
    numbers, plain = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numbers)
            random.setstate(plain)


def _call(name: str, maker: str, function: Callable[..., Any], before: tuple[Any, ...], options: Any) -> nn.Module:
    try:
        network = function(*before, **options)
    except EvocompressError:
        raise
    except Exception as failure:
        cause = f"{type(failure).__name__}: {failure}"
        raise ModelError(f"network {name!r}: {maker} failed for options {options}: {cause}") from failure
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ModelError(f"network {name!r}: {maker} returned a {kind}; it must return a torch.nn.Module")
    try:
        check_not_scripted(network)
    except ModelError as error:
        raise ModelError(f"network {name!r}: {error}") from None
    return network


def _factory(name: str) -> Callable[..., Any]:
    if is_reference(name):
        return resolve(name, what="network", error=ModelError)
    factory: Callable[..., Any] = NETWORKS.find(
        name, error=ModelError, hint="A network of your own is written 'package.module:factory'."
    )
    return factory


def _further_options(
    name: str, factory: Callable[..., Any], options: Mapping[str, Any]
) -> list[tuple[Callable[..., nn.Module], dict[str, Any]]]:
    """The functions of `NETWORK_OPTIONS` that are asked for, each with the options that go to it."""
    # A user's factory may have its options by position, too, and says itself which ones it misses.
    of_factory = keyword_options(factory, positional=is_reference(name))
    if of_factory is None or all(option in of_factory for option in options):
        return []
    functions: dict[Callable[..., nn.Module], list[str]] = {}
    for row in NETWORK_OPTIONS:
        functions[NETWORK_OPTIONS[row]] = keyword_options(NETWORK_OPTIONS[row]) or []
    names = {*of_factory, *(option for names_taken in functions.values() for option in names_taken)}
    for option in options:
        if option not in names and not is_reference(name):
            raise ModelError(f"network {name!r}: unknown option {option!r}. {one_of(names, option)}")
    further = []
    for function, names_taken in functions.items():
        function_options = {
            option: options[option] for option in names_taken if option in options and option not in of_factory
        }
        further += [(function, function_options)] if function_options else []
    return further
