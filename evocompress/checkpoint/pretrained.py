"""Networks of transformers from a folder: built from its configuration, with the weights of its `.evc` file."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.checkpoint.folders import EVC
from evocompress.checkpoint.loading import load
from evocompress.errors import ModelError
from evocompress.support.wording import kind_of

if TYPE_CHECKING:
    import torch

__all__ = ["from_pretrained"]

_CONFIG = "config.json"


def from_pretrained(
    folder: str | os.PathLike[str],
    model_class: Any,
    *,
    strict: bool = True,
    strip_prefix: str = "",
    max_output_bytes: int | None = None,
    **options: Any,
) -> torch.nn.Module:
    """A network of transformers from a folder that `evocompress pack FOLDER -o OUT/` has written, ready to be used.

    The network is built from the folder's `config.json` without other weights, and nothing is downloaded. Then it gets
    the weights of `model.evc`, as `load` puts them there, and is put into evaluation mode.

    Args:
        folder: The folder.
        model_class: A model's class, such as `transformers.GPT2LMHeadModel`, or an Auto class, such as
            `transformers.AutoModelForCausalLM`.
        strict: As for `load`.
        strip_prefix: As for `load`, such as "bert." for the network inside of one with a head; with strict=False.
        max_output_bytes: As for `load`.
        options: For the configuration, in the place of what it says: `attn_implementation="eager"`, say. Code that the
            folder brings is run by an Auto class if `trust_remote_code=True`, and never otherwise.

    Raises:
        ModelError: The folder lacks a file, the class is none of transformers or of another kind of network than the
            configuration, or the weights do not fit.
        EvocompressError: The weights cannot be read.
    """
    place = _checked(folder)
    try:
        model = _built(place, model_class, options)
    except ModelError:
        raise
    except Exception as error:  # transformers raises any kind where a configuration does not suit
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{place}: {_name(model_class)} cannot be built from its {_CONFIG}: {reason}") from error
    try:
        model = load(place / EVC, model, strict=strict, strip_prefix=strip_prefix, max_output_bytes=max_output_bytes)
        return model.eval()
    except ModelError as error:
        prefix = f"{getattr(model, 'base_model_prefix', '')}."
        if strip_prefix or f"unknown to the model: {prefix}" not in str(error):
            raise
        raise ModelError(
            f"{error} For the network without its head give strict=False and strip_prefix={prefix!r}."
        ) from None


def _checked(folder: object) -> Path:
    if not isinstance(folder, str | os.PathLike):
        raise ModelError(f"folder is {kind_of(folder)}; it must be the path of a folder.")
    place = Path(folder)
    if not place.is_dir():
        raise ModelError(f"{place} is no folder; evocompress pack FOLDER -o OUT/ makes one. Nothing is downloaded.")
    for name in (EVC, _CONFIG):
        if not (place / name).is_file():
            raise ModelError(f"{place} has no {name}; evocompress pack FOLDER -o OUT/ makes a folder with both.")
    return place


def _built(place: Path, model_class: Any, options: dict[str, Any]) -> torch.nn.Module:
    """The network with the weights that its class begins with, by `config.json` alone."""
    config_class = getattr(model_class, "config_class", None)
    if isinstance(model_class, type) and config_class is not None:
        _same_kind(place, model_class, config_class)
        config = config_class.from_pretrained(place, local_files_only=True, **options)
        # As the library's own from_config builds it: in the configuration's dtype. A class of one's own may lack that.
        build = getattr(model_class, "_from_config", model_class)
    elif isinstance(model_class, type) and hasattr(model_class, "from_config"):
        import transformers

        # Without the second word the library asks at the terminal whether it may run the folder's code.
        trust = {"trust_remote_code": bool(options.pop("trust_remote_code", False))}
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=True, **trust, **options)
        build = functools.partial(model_class.from_config, **trust)
    else:
        raise ModelError(
            f"model_class is {_name(model_class)}; it must be a class of transformers, such as AutoModel or "
            "GPT2LMHeadModel."
        )
    model: torch.nn.Module = build(config)
    return model


def _same_kind(place: Path, model_class: type, config_class: Any) -> None:
    """Refuse a class of another kind of network, which the library would build all the same, of its default size."""
    try:
        kind = json.loads((place / _CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{place / _CONFIG} is no configuration of transformers: {error}.") from None
    wanted = getattr(config_class, "model_type", "")
    if kind and wanted and kind != wanted:
        raise ModelError(
            f"{place / _CONFIG} is that of a network of type {kind!r}, and {model_class.__name__} is of {wanted!r}."
        )


def _name(model_class: object) -> str:
    return model_class.__name__ if isinstance(model_class, type) else kind_of(model_class)
