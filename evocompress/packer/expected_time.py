"""Expected time of making a calibrated file, told before it is made; right to within a factor of two or so."""

from __future__ import annotations

from collections.abc import Mapping

from evocompress.checkpoint.recipe import Recipe
from evocompress.codecs import Sensitivity
from evocompress.codecs.trellis import Trellis

__all__ = ["expected_seconds", "shown_seconds"]

_SEARCH = 1.8e-7  # seconds for a weight, a pass and a state, on one core: benchmarks/NOTES.md
_FACTOR = 1e-10  # for each K·B² of a layer of K columns, of which B share a block of H
_FORWARD = 3.0  # times the calibration's own passes


def expected_seconds(
    sensitivities: Mapping[str, float | Sensitivity],
    shapes: Mapping[str, tuple[int, ...]],
    recipe: Recipe,
    calibration_seconds: float = 0.0,
) -> float:
    """What the searches of second order take for one file, with the passes through the network where it has some.

    Args:
        sensitivities: By name; those that are numbers cost next to nothing.
        shapes: Of the tensors of the file.
        recipe: Whose trellises have passes and states.
        calibration_seconds: What calibrating has taken, for a file that is made layer by layer; else 0.
    """
    total = _FORWARD * calibration_seconds
    for name, sensitivity in sensitivities.items():
        if not isinstance(sensitivity, Sensitivity) or name not in shapes:
            continue
        codecs = recipe.rule(name, len(shapes[name])).candidates
        weights, block = len(sensitivity.g) * sensitivity.width, sensitivity.H.shape[1]
        for stage in (stage for codec in codecs for stage in codec.stages if isinstance(stage, Trellis)):
            total += _SEARCH * weights * (8 * (stage.passes - 1) + stage.states)
            total += _FACTOR * sensitivity.groups * sensitivity.width * block**2
    return total


def shown_seconds(seconds: float) -> str:
    """A time in words, as rough as it is known.

    >>> shown_seconds(17.3), shown_seconds(200), shown_seconds(9000)
    ('about 20 seconds', 'about 3 minutes', 'about 2.5 hours')
    """
    if seconds < 100:
        return f"about {max(round(seconds, -1), 10):.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 6000 else f"about {seconds / 3600:.1f} hours"
