"""Every kernel of a state dict with its class, and what another file of the same network made of it."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import math
from collections.abc import Mapping, Sequence

import numpy as np

from evocompress.checkpoint.packing import to_numpy
from evocompress.errors import ConfigError, EvocompressError
from evocompress.ideas.kernels.classify import MOST_PIXELS, Kernel, classify
from evocompress.ideas.kernels.colour import Colour, colour_filters
from evocompress.ideas.kernels.response import radial_response
from evocompress.ideas.kernels.shapes import Floats
from evocompress.support.wording import listed

__all__ = ["KernelRow", "analyse", "chosen_layers", "compare", "kernels_of", "responses", "short_name", "why_not"]

_SUFFIXES = (".weight", ".kernel", ".primary")
"""What a layer's kernels are called: torch's own, an over-provisioned layer's, LinearConv's without coefficients."""


@dataclasses.dataclass(frozen=True)
class KernelRow:
    """A kernel's place and what it does; with a second file, what it does there.

    `layer` is the tensor's name, `output` and `input` its first two indices. `colour` is that of its filter, for
    filters over three channels that have one. `relative_error` is the norm of the difference to the second file's
    kernel over the kernel's own norm, NaN-free: 0 where both are zero, infinity where only this one is.
    """

    layer: str
    output: int
    input: int
    kernel: Kernel
    colour: Colour | None = None
    after: Kernel | None = None
    relative_error: float | None = None

    @property
    def changed(self) -> bool:
        """Whether the second file's kernel is of another class, or a derivative of another order."""
        if self.after is None:
            return False
        return (self.kernel.kernel_class, self.kernel.order) != (self.after.kernel_class, self.after.order)

    @property
    def became_zero(self) -> bool:
        """Whether the second file's kernel is zero and this one is not."""
        return self.after is not None and self.after.norm == 0 < self.kernel.norm

    @property
    def is_zero(self) -> bool:
        """Whether this kernel is zero and has no class from the colour of its filter."""
        return self.kernel.norm == 0 and self.kernel.kernel_class == "none"


def short_name(name: str) -> str:
    """A layer's name without what its kernels are called in it.

    >>> short_name("layer1.0.conv1.weight"), short_name("conv1.kernel")
    ('layer1.0.conv1', 'conv1')
    """
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def chosen_layers(state: Mapping[str, object], patterns: Sequence[str] = ()) -> list[str]:
    """Names of the tensors to analyse, in the order of the file.

    Args:
        state: Names to tensors.
        patterns: Names, as a whole or as `short_name` has them, or globs of them; none for all tensors of four
            dimensions, or five (volumes, of which `why_not` tells), whose kernels have more than one pixel. Where none
            has four, those of three (kernels of one row) that are called as kernels are. A named tensor may be called
            otherwise.

    Raises:
        ConfigError: A pattern fits no tensor that has kernels, or there is none in the file.
    """
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    if not patterns:
        images = any(len(shape) == 4 for name, shape in shapes.items() if _holds_kernels(name, shape))
        dimensions = (4, 5) if images else (3, 5)
        names = [n for n, shape in shapes.items() if _holds_kernels(n, shape) and len(shape) in dimensions]
        if not names:
            raise ConfigError(
                "The file has no tensor of four dimensions with kernels larger than 1×1, nor of three that is called "
                "as kernels are (weight, …); name a layer of three."
            )
        return names
    chosen: set[str] = set()
    for pattern in patterns:
        fits = [n for n in shapes if any(fnmatch.fnmatchcase(x, pattern) for x in (n, short_name(n)))]
        with_kernels = [name for name in fits if len(shapes[name]) in (3, 4, 5) and 0 not in shapes[name]]
        if not with_kernels:
            raise ConfigError(_no_layer(pattern, fits, shapes))
        chosen.update(with_kernels)
    return [name for name in shapes if name in chosen]


def _holds_kernels(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is taken for kernels (out, in, …) of more than one pixel.

    Three dimensions are also those of embeddings of positions and the like, which have other names.

    >>> _holds_kernels("a.weight", (8, 4, 5)), _holds_kernels("positions", (1, 9, 5)), _holds_kernels("a", (8, 4))
    (True, False, False)
    """
    called = name in {suffix.removeprefix(".") for suffix in _SUFFIXES} or name.endswith(_SUFFIXES)
    return len(shape) in (4, 5, *([3] if called else [])) and math.prod(shape[2:]) > 1 and 0 not in shape


def _no_layer(pattern: str, fits: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> str:
    if fits:
        return f"Layer {pattern!r}: {fits[0]!r} has the shape {shapes[fits[0]]}, and kernels need (out, in, h, w)."
    names = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    near = difflib.get_close_matches(pattern, [*names, *map(short_name, names)], 1, 0.4)
    hint = f" Did you mean {near[0]!r}?" if near else f" Layers: {listed(names, 8) or 'none'}."
    return f"Layer {pattern!r} fits no tensor.{hint}"


def kernels_of(name: str, tensor: object) -> Floats:
    """A layer's kernels (O, I, h, w) in float64; a layer of three dimensions has one row.

    Raises:
        EvocompressError: They have no class: `why_not` says why.
    """
    if reason := why_not(name, tensor):
        raise EvocompressError(f"Tensor {name!r} {reason}; its kernels have no class. Name other layers.")
    array = to_numpy(name, tensor).astype(np.float64)
    return array[:, :, None, :] if array.ndim == 3 else array


def why_not(name: str, tensor: object) -> str | None:
    """Why a layer's kernels can have no class, in a few words after its name, or None.

    >>> why_not("conv.weight", np.zeros((1, 1, 40, 40)))
    'has kernels of 40×40, more than 1089 numbers'
    >>> why_not("conv.parametrizations.weight.original", np.zeros((4, 1, 3)))
    'holds free numbers of constrained kernels, not their pixels; release the network first'
    """
    array = to_numpy(name, tensor)
    if array.ndim > 4:
        return f"has kernels of {'×'.join(map(str, array.shape[2:]))}, which are volumes"
    if array.ndim == 3 and "parametrizations" in name.split("."):
        return "holds free numbers of constrained kernels, not their pixels; release the network first"
    if math.prod(array.shape[2:]) > MOST_PIXELS:
        return f"has kernels of {'×'.join(map(str, array.shape[2:]))}, more than {MOST_PIXELS} numbers"
    return None if np.isfinite(array.astype(np.float64)).all() else "holds NaN or infinity"


def responses(state: Mapping[str, object], layers: Sequence[str]) -> Floats:
    """`radial_response` of the layers' kernels (K, 17), in the order of `analyse`."""
    kernels = [kernels_of(name, state[name]) for name in layers]
    return np.concatenate([radial_response(layer.reshape(-1, *layer.shape[2:])) for layer in kernels])


def analyse(state: Mapping[str, object], layers: Sequence[str] | None = None) -> list[KernelRow]:
    """Classes of all kernels of the layers.

    Args:
        state: Names to torch tensors or numpy arrays, kernels (out, in, height, width).
        layers: Names; default `chosen_layers(state)`.

    >>> rows = analyse({"conv.weight": np.array([[[[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]]])})
    >>> rows[0].layer, rows[0].output, rows[0].input, rows[0].kernel.kernel_class
    ('conv.weight', 0, 0, 'low-pass')
    """
    rows: list[KernelRow] = []
    for name in chosen_layers(state) if layers is None else layers:
        kernels = kernels_of(name, state[name])
        outputs, inputs, height, width = kernels.shape
        classes = classify(kernels.reshape(-1, height, width))
        colours = _in_colour(kernels, classes)
        rows += [
            KernelRow(name, number // inputs, number % inputs, kernel, colours[number // inputs])
            for number, kernel in enumerate(classes)
        ]
        assert len(classes) == outputs * inputs
    return rows


def _in_colour(kernels: Floats, classes: list[Kernel]) -> list[Colour | None]:
    """The colour of each filter; the kernels of a colour blob become `blob` in `classes`."""
    if kernels.shape[1] != 3 or kernels.shape[2] * kernels.shape[3] == 1:
        return [None] * len(kernels)
    colours: list[Colour | None] = []
    for output, of_filter in enumerate(colour_filters(kernels)):
        colours.append(of_filter.colour if of_filter else None)
        if of_filter and of_filter.is_blob:
            for number in range(3 * output, 3 * output + 3):
                classes[number] = dataclasses.replace(
                    classes[number], kernel_class="blob", confidence=of_filter.picture.confidence, order=None,
                    orientation_degrees=of_filter.picture.orientation_degrees, isotropic=of_filter.picture.isotropic,
                )  # fmt: skip
    return colours


def compare(before: Mapping[str, object], after: Mapping[str, object], layers: Sequence[str]) -> list[KernelRow]:
    """`analyse` both state dicts, and say of each kernel what it was and what it is.

    Raises:
        ConfigError: A layer is missing in `after` or has another shape there.
    """
    for name in layers:
        if name not in after:
            raise ConfigError(f"The file to compare with has no tensor {name!r}; compare files of one network.")
        shapes = [tuple(getattr(state[name], "shape", ())) for state in (before, after)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"{name!r} has the shape {shapes[1]} in the file to compare with, not {shapes[0]}; compare one network."
            )
    rows = []
    errors = [error for name in layers for error in _relative_errors(name, before[name], after[name])]
    for row, other, error in zip(analyse(before, layers), analyse(after, layers), errors, strict=True):
        rows.append(dataclasses.replace(row, after=other.kernel, relative_error=error))
    return rows


def _relative_errors(name: str, before: object, after: object) -> list[float]:
    exact, lossy = kernels_of(name, before), kernels_of(name, after)
    scale = float(np.abs(exact).max(initial=0)) or 1.0  # so that squares of the smallest numbers do not vanish
    norm = np.linalg.norm((exact / scale).reshape(-1, exact[0, 0].size), axis=1)
    error = np.linalg.norm((exact / scale - lossy / scale).reshape(-1, exact[0, 0].size), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, error / norm)
    return [float(value) for value in ratio]
