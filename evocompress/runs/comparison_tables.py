"""Tables of several runs: what those of one experiment attain together, and BD-rates among experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from evocompress.runs.comparison import Step, attained, attainment, bd_rates, steps
from evocompress.runs.front import FrontPoint, in_view
from evocompress.search.quality import Quality
from evocompress.support.quantities import format_bytes

__all__ = ["attained_table", "bd_rate_table"]


def attained_table(fronts: Sequence[Sequence[FrontPoint]], quality: Quality) -> Table:
    """What runs of one experiment attain at some sizes: the median, and from the worst to the best."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("at most", f"median {quality.name}", "worst", "best"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    reached = [steps(points, quality) for points in fronts]
    low = max(min(point.nbytes for point in in_view(points, quality)) for points in fronts)
    high = max(point.nbytes for points in fronts for point in points)
    surfaces = [attainment(reached, level) for level in (0.5, 1.0, 1e-9)]
    for nbytes in dict.fromkeys(round(low * (high / low) ** (step / 5)) for step in range(6)):
        merits = [attained(surface, nbytes) for surface in surfaces]
        shown = ["—" if merit is None else quality.show(quality.merit(merit)) for merit in merits]
        table.add_row(format_bytes(nbytes), *map(Text, shown))
    return table


def bd_rate_table(surfaces: Mapping[str, Sequence[Step]]) -> Table:
    """BD-rate of each column's front against each row's, in percent: negative where the column's files are smaller."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", *surfaces):
        table.add_column(Text(name), justify="right" if name else "left")
    for baseline, rates in bd_rates(surfaces).items():
        shown = ("—" if (rate := rates.get(test)) is None else f"{rate:+.1f} %" for test in surfaces)
        table.add_row(Text(baseline), *shown)
    return table
