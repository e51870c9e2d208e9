"""The option `--set` of commands that build a network: what its factory is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evocompress.errors import ConfigError, ModelError
from evocompress.support.command_line import about

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from torch import nn

    from evocompress.codecs.container import Contents

__all__ = ["check_settings", "names_by", "network_of"]


def check_settings(model: str | None, settings: Sequence[str] | None) -> None:
    """Refuse `--set` without `--model`.

    Raises:
        ConfigError: There is no network to give options to.
    """
    if settings and model is None:
        raise ConfigError(f"--set {settings[0]}: gives options to a network; name it with --model.")


def network_of(model: str, settings: Sequence[str] | None) -> nn.Module:
    """The network that `--model` and `--set` name, freshly initialised.

    Raises:
        ConfigError: A setting is no NAME=VALUE.
        ModelError: There is no such network, or it has no such option.
    """
    from evocompress.evolve.config import override_values
    from evocompress.networks import build

    options = override_values({}, settings or ())
    with about("--model", model, ModelError):
        return build(model, options)


def names_by(model: str, network: nn.Module) -> Callable[[Contents], Collection[str]]:
    """A function that gives a file without names those of a network, with shapes and dtypes; or refuses them."""
    from evocompress.checkpoint.loading import fitting_names

    def names(contents: Contents) -> Collection[str]:
        with about("--model", model, ModelError):
            return fitting_names(network, contents)

    return names
