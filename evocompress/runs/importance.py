"""Importance of genes (PED-ANOVA): which of them set the best of a run's files apart from the others.

For each gene Optuna compares how its values are distributed among the best tenth of the files and among all. That says
what the search found, not what would happen if one gene alone were changed: genes are inherited together.

Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces"
(IJCAI 2023, https://arxiv.org/abs/2304.10255).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from evocompress.errors import ConfigError
from evocompress.runs.optuna_study import distributions
from evocompress.search.records import Leaf
from evocompress.support.optional_libraries import needs_extra

__all__ = ["LEAST_LEAVES", "importances"]

#: The best tenth of fewer files says nothing.
LEAST_LEAVES = 50


def importances(leaves: Sequence[Leaf]) -> dict[str, dict[str, float]]:
    """For small `error`, few `bytes`, and being near the `front`: each gene's share, the largest first.

    Genes that all leaves have with one value, and those that some leaves lack, have none.

    Raises:
        ConfigError: There are fewer leaves than `LEAST_LEAVES`.
        EvocompressError: Optuna is not installed.
    """
    if len(leaves) < LEAST_LEAVES:
        raise ConfigError(f"{len(leaves)} files are too few to say which genes matter: it takes {LEAST_LEAVES}.")
    with needs_extra("optuna"):
        import optuna
    names = sorted(name for name in leaves[0].genome if all(name in leaf.genome for leaf in leaves))
    spans = distributions({name: leaf.genome[name] for name in names} for leaf in leaves)
    spans = {name: span for name, span in spans.items() if not span.single()}
    objectives = {
        "error": [[leaf.error] for leaf in leaves],
        "bytes": [[float(leaf.nbytes)] for leaf in leaves],
        "front": [[math.log2(leaf.nbytes), leaf.error] for leaf in leaves],
    }
    if not spans:
        return {what: {} for what in objectives}
    found = {}
    with _quiet(optuna):
        for what, values in objectives.items():
            study = optuna.create_study(directions=["minimize"] * len(values[0]))
            study.add_trials(
                optuna.trial.create_trial(
                    values=value, params={name: leaf.genome[name] for name in spans}, distributions=spans
                )
                for value, leaf in zip(values, leaves, strict=True)
            )
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
            found[what] = {name: float(share) for name, share in shares.items() if math.isfinite(share)}
    return found


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's lines about studies in memory and experimental parts."""
    log = optuna.logging
    before = log.get_verbosity()
    log.set_verbosity(log.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(before)
