"""A run as an Optuna study, for those who look at importances and slices there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.errors import EvocompressError
from evocompress.runs.file_exporter import FileExporter
from evocompress.runs.front import audits
from evocompress.runs.recorded_measurements import Recorded
from evocompress.search.records import Genome, Leaf, Outcome, Scalar
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    import optuna

    from evocompress.search.history import History

__all__ = ["STUDY", "distributions", "to_optuna"]


def to_optuna(history: History, *, study_name: str | None = None, storage: str | None = None) -> optuna.study.Study:
    """A study that minimises bytes and betters the validation quality: a trial per leaf, failures as FAIL.

    It is held in memory, or in a `storage` of Optuna's, such as sqlite:///run.db. Genes are the parameters, with
    distributions that span the values seen; ids and audit are user attributes. Raises `EvocompressError` where Optuna
    is not installed.
    """
    with needs_extra("optuna"):
        import optuna
    audited = audits(history)
    trials = [
        (outcome, leaf, leaf.genome if leaf else history.tasks[outcome.segment_id].genome)
        for outcome in history.outcomes
        for leaf in (outcome.leaves or (None,))
    ]
    spans = distributions(genome for _, _, genome in trials)
    direction = "maximize" if history.quality.is_maximised else "minimize"
    study = optuna.create_study(directions=["minimize", direction], study_name=study_name, storage=storage)
    study.set_user_attr("quality", history.quality.to_json())
    for outcome, leaf, genome in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if leaf else optuna.trial.TrialState.FAIL,
                values=[float(leaf.nbytes), leaf.quality] if leaf else None,
                params=dict(genome),
                distributions={name: spans[name] for name in genome},
                user_attrs=_attributes(outcome, leaf, audited),
            )
        )
    return study


def _write_study(history: History, path: Path) -> None:
    """A study in SQLite, of the run's name.

    Raises:
        EvocompressError: There is a file of this name.
    """
    if path.exists():
        raise EvocompressError(f"{path} exists, and a study is not written over; give another name.")
    name = str(history.run.get("config", {}).get("name") or history.folder.name)
    to_optuna(history, study_name=name, storage=f"sqlite:///{path}")


STUDY = FileExporter("leaves.db", _write_study, in_report=False)


def _attributes(outcome: Outcome, leaf: Leaf | None, audited: dict[str, Recorded]) -> dict[str, Any]:
    attributes: dict[str, Any] = {"segment_id": outcome.segment_id, "status": outcome.status, "error": outcome.error}
    if leaf is not None:
        attributes |= {"leaf_id": leaf.leaf_id, "sha256": leaf.sha256, "depth": leaf.depth, "epochs": leaf.epochs}
        audit = audited.get(leaf.leaf_id)
        attributes |= {f"audited_{key}": value for key, value in audit._asdict().items()} if audit else {}
    return attributes


def distributions(genomes: Iterable[Genome]) -> dict[str, Any]:
    """A distribution per gene; Optuna wants the same one in every trial, and that the trial's value lies within it."""
    seen: dict[str, list[Scalar]] = {}
    for genome in genomes:
        for name, value in genome.items():
            seen.setdefault(name, []).append(value)
    return {name: _distribution(values) for name, values in seen.items()}


def _distribution(values: list[Scalar]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted(set(values), key=lambda value: (str(type(value)), str(value))))
    low, high = min(numbers), max(numbers)
    # A gene that spans decades was drawn on a log scale; importances are only sensible on the same one.
    log = low > 0 and high >= 100 * low
    if any(isinstance(value, float) for value in numbers):
        return FloatDistribution(float(low), float(high), log=log)
    return IntDistribution(int(low), int(high), log=log)
