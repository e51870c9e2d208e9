"""Grid of a file: the step of each tensor that a uniform quantiser codes; what training goes on from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from evocompress.codecs.codec import SideReader
from evocompress.codecs.container import file_names, parse
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.scales import MAX_CODE, MIN_CODE, scale_value

__all__ = ["Grid", "grid_of"]

#: Steps of quantisers by the names of tensors.
Grid = Mapping[str, float]


def grid_of(data: bytes, names: Iterable[str] | Mapping[str, object] | None = None) -> dict[str, float]:
    """The steps of a file's tensors that are symbols times a step, by name; nothing is decoded.

    A tensor of zeros has none, as any step would do, and neither has one behind a transform.

    Args:
        data: The file's bytes.
        names: For a file without names, or without shapes, as for `unpack`.

    Raises:
        FormatError: The file is damaged.
        CodecError: The names are not the file's.

    >>> import numpy as np
    >>> from evocompress.checkpoint.packing import pack
    >>> from evocompress.checkpoint.recipe import Recipe
    >>> grid_of(pack({"w": np.array([0.5, -0.25, 1.0])}, Recipe(), grid={"w": 0.25}))
    {'w': 0.25}
    """
    contents = parse(data, names)
    steps: dict[str, float] = {}
    for name, entry in zip(file_names(contents, names), contents.tensors, strict=True):
        if entry.source is None and [type(stage) for stage in entry.codec.stages] == [DeadZone]:
            code = SideReader(entry.side).integer(MIN_CODE, MAX_CODE)
            if code != 0:  # what zeros are written with; a step of exactly 1 is not worth telling apart
                steps[name] = scale_value(code)
    return steps
