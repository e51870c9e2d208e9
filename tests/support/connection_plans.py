"""Plans of connections of every kind, for tests."""

from __future__ import annotations

from evocompress.ideas.connections.plan import ConnectionPlan

PLANS = [
    ConnectionPlan(),
    ConnectionPlan(kernel=0, near=0.5),
    ConnectionPlan(kernel=3, near=0.4, decay=0.5, far=0.01, seed=7),
    ConnectionPlan(kernel=3, near=0.4, far=0.02, period=2),
    ConnectionPlan(kernel=3, near=0.4, far=0.02, period=3, shared=False),
    ConnectionPlan(kernel=2, far=0.05, period=0, shared=False, stride=2, padding=1),
    ConnectionPlan(kernel=3, kernel_width=5, dilation=2, groups=2, stride=1, padding=4, far=0.01),
    ConnectionPlan(kernel=3, dilation=50_000),
    ConnectionPlan(kernel=2, dilation=50_000),  # no place of the kernel meets an input
]
SHAPES = (4, 6, 7), (2, 6, 7)


def shapes_of(plan: ConnectionPlan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (4, *plan.out_size(SHAPES[1][1:])), SHAPES[1]
