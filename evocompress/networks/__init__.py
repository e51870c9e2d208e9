"""The networks that are known by name. Another one is one file beside this and one row in `NETWORKS`.

A factory takes keyword options only and returns a module that maps images (n, c, h, w) to logits (n, classes).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from evocompress.errors import EvocompressError, ModelError
from evocompress.ideas.connections.connected_cnn import ConnectedCNN
from evocompress.ideas.saccades.networks import SaccadeCNN, saccade_sequence
from evocompress.networks.base_cnn import base_cnn
from evocompress.networks.digits_cnn import DigitsCNN
from evocompress.networks.lenet5_caffe import LeNet5Caffe
from evocompress.networks.resnet_cifar import ResNetCIFAR
from evocompress.networks.vgg11 import vgg11
from evocompress.support.user_objects import check_options, is_reference, one_of, resolve

__all__ = ["NETWORKS", "build"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "base_cnn": base_cnn,
    "connected_cnn": ConnectedCNN,
    "digits_cnn": DigitsCNN,
    "lenet5_caffe": LeNet5Caffe,
    "resnet20": functools.partial(ResNetCIFAR, depth=20),
    "resnet32": functools.partial(ResNetCIFAR, depth=32),
    "resnet44": functools.partial(ResNetCIFAR, depth=44),
    "resnet56": functools.partial(ResNetCIFAR, depth=56),
    "saccade_cnn": SaccadeCNN,
    "saccade_sequence": saccade_sequence,
    "vgg11": vgg11,
}


def build(name: str, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> nn.Module:
    """A freshly initialised network, on the CPU: one of `NETWORKS`, or a user's `package.module:factory`.

    The same seed gives the same weights, and the caller's random state is left as it was. Raises ModelError for an
    unknown name or option, a factory that fails, and one that returns anything but a network.

    >>> sum(p.numel() for p in build("lenet5_caffe").parameters())
    431080
    """
    options = dict(options or {})
    factory = _factory(name, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = factory(**options)
        except EvocompressError:
            raise
        except Exception as failure:
            cause = f"{type(failure).__name__}: {failure}"
            raise ModelError(f"network {name!r}: its factory failed for options {options}: {cause}") from failure
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ModelError(f"network {name!r}: its factory returned a {kind}; it must return a torch.nn.Module")
    return network


def _factory(name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    if is_reference(name):
        return resolve(name, what="network", error=ModelError)
    if name not in NETWORKS:
        hint = "A network of your own is written 'package.module:factory'."
        raise ModelError(f"network {name!r} is unknown. {one_of(NETWORKS, name)} {hint}")
    check_options(NETWORKS[name], options, what=f"network {name!r}", error=ModelError)
    return NETWORKS[name]
