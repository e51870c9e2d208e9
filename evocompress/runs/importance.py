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
    targets = {"error": lambda trial: trial.values[1], "bytes": lambda trial: trial.values[0], "front": None}
    importances: dict[str, dict[str, float]] = {what: {} for what in targets}
    if not spans:
        return importances
    with _quiet(optuna):
        study = optuna.create_study(directions=[optuna.study.StudyDirection.MINIMIZE] * 2)
        study.add_trials(
            optuna.trial.create_trial(
                values=[math.log2(leaf.nbytes), leaf.error],
                params={name: leaf.genome[name] for name in spans},
                distributions=spans,
            )
            for leaf in leaves
        )
        for what, target in targets.items():
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            # Before version 5, Optuna judges single objectives only.
            with contextlib.suppress(*([ValueError] if target is None else [])):
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
                importances[what] = {name: float(share) for name, share in shares.items() if math.isfinite(share)}
    return importances


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
