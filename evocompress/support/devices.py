"""Devices that torch can compute on here."""

from __future__ import annotations

import torch

from evocompress.errors import ConfigError, about_argument

__all__ = ["check_device", "device_of"]


def device_of(device: torch.device | str) -> torch.device:
    """A device by its name, which is checked; one that is given as such is taken as it is.

    Raises:
        ConfigError: Torch cannot compute on it here.
    """
    if isinstance(device, str):
        check_device(device)
    return torch.device(device)


def check_device(device: torch.device | str) -> None:
    """Refuse a device that torch cannot compute on here.

    Raises:
        ConfigError: Says why, and what there is; it is about the argument `device`.

    >>> check_device("cpu")
    """
    usable = f"torch can use {', '.join(_usable_devices())} here."
    with about_argument("device"):
        try:
            place = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(f"{device!r} is no device; {usable}") from error
        try:
            torch.zeros(1, device=place).item()
        except Exception as error:  # each of torch's backends fails in a way of its own
            why = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
            raise ConfigError(f"{device!r} cannot be used ({why}); {usable}") from error


def _usable_devices() -> list[str]:
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
