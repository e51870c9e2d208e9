"""Plans of connections: layers with more potential connections than will be used (docs/connections.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evocompress.support.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d, OverProvisionedLinear, thin
    from evocompress.ideas.connections.plan import ConnectionPlan

__all__ = ["ConnectionPlan", "OverProvisionedConv2d", "OverProvisionedLinear", "thin"]

_HOMES = {
    "ConnectionPlan": "plan",
    "OverProvisionedConv2d": "overprovisioned",
    "OverProvisionedLinear": "overprovisioned",
    "thin": "overprovisioned",
}
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
