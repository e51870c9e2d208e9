"""Selection policies: which members a pool keeps, and how the next parent is drawn from them.

`extensions.SELECTION` has them by name; a package adds its own by the entry points `evocompress.selection`.
"""

from __future__ import annotations

import dataclasses

from evocompress.search.fitness import Survivors, by_dominance, by_sum

__all__ = ["DOMINANCE", "RANDOM", "SCALAR", "Policy"]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A way of selecting.

    Args:
        survivors: Says which members stay and how fit each is (`fitness.Survivors`); parents are then drawn by
            tournament, from the size bins of the front and under the byte budget, as the settings' shares say. None:
            all there ever were stay, and every parent is drawn uniformly from them.
        counts_tries: Whether a size bin's parents are counted, so that the least tried bin comes first; else a bin is
            drawn at random.

    >>> by_bytes = Policy(lambda members, size, reference: {
    ...     i: (members[i].x, 0.0) for i in sorted(range(len(members)), key=lambda i: members[i].key)[:size]
    ... })
    >>> by_bytes.ranks, RANDOM.ranks
    (True, False)
    """

    survivors: Survivors | None
    counts_tries: bool = True

    @property
    def ranks(self) -> bool:
        """Whether members are told apart at all."""
        return self.survivors is not None


#: Front number, then hypervolume contribution within the front.
DOMINANCE = Policy(by_dominance)
#: The sum of the scaled objectives; there for comparison.
SCALAR = Policy(by_sum, counts_tries=False)
#: Uniform parents from everything ever produced; there for comparison.
RANDOM = Policy(None, counts_tries=False)
