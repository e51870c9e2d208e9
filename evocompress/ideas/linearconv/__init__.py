"""LinearConv: filters as combinations of a few primary ones (docs/linearconv.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evocompress.support.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from evocompress.ideas.linearconv.conversion import LayerConversion, compare, convert, fold
    from evocompress.ideas.linearconv.correlation import correlation_loss
    from evocompress.ideas.linearconv.linear_conv import LinearConv2d

__all__ = ["LayerConversion", "LinearConv2d", "compare", "convert", "correlation_loss", "fold"]

_HOMES = {
    "LayerConversion": "conversion",
    "LinearConv2d": "linear_conv",
    "compare": "conversion",
    "convert": "conversion",
    "correlation_loss": "correlation",
    "fold": "conversion",
}
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
