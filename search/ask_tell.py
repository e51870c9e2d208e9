"""Ask/tell interface of the search: `Search`, pure, with plain state, ignorant of executors, files and clocks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from evocompress.errors import RunError
from evocompress.search.archive import Archive
from evocompress.search.first_failures import FirstFailures
from evocompress.search.lineages import Lineages
from evocompress.search.objectives import Member, Scale
from evocompress.search.parent_draw import choose_parent, size_bin
from evocompress.search.population import Population
from evocompress.search.probe_control import ProbeControl
from evocompress.search.records import Genome, Leaf, Operator, Outcome, Parent, ParentRule, SegmentTask
from evocompress.search.settings import SearchSettings
from evocompress.search.space import Space
from evocompress.search.variation import crossover, mutate, probes

__all__ = ["Search", "Told"]

# First words of the spawn keys: draws for the hypercube and for decision i never share a stream.
_HYPERCUBE, _DECISION = 0, 1


@dataclasses.dataclass(frozen=True)
class Told:
    """What one outcome changed. `duplicate`: it had been told before, and nothing changed."""

    hypervolume_before: float
    hypervolume_after: float
    accepted: tuple[str, ...] = ()
    displaced: tuple[str, ...] = ()
    duplicate: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        fields = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


class Search:
    """Ask for tasks, tell their outcomes in any order, each once or more.

    Two views are kept. `archive` has every outcome told so far and is what users see. Decisions look at a second view,
    the population: in free mode it has the same outcomes; in deterministic mode it is folded in submission order and,
    for decision i, has exactly the outcomes 0 to i - lag, so neither speed nor faults can change a decision.
    """

    def __init__(self, space: Space, settings: SearchSettings) -> None:
        if settings.deterministic and settings.lag is None:
            raise RunError("lag is None in deterministic mode; fix it with settings.resolve(workers)")
        self.space = space
        self.settings = settings
        self.archive = Archive(settings.reference)
        self._scale = Scale.of(settings)
        self._population = Population(settings)
        self._control = ProbeControl(settings)
        self._first = FirstFailures(settings.give_up_after)
        self._tries = [0] * settings.size_bins
        self._children: Counter[str] = Counter()  # leaf_id to how many tasks it has been the first parent of
        self._next = 0
        self._seen = 0
        self._tasks: dict[str, SegmentTask] = {}
        self._waiting: dict[int, tuple[Member, ...]] = {}
        self._held: Counter[str] = Counter()  # leaf_ids that tasks in flight and waiting outcomes need
        self._suspects: dict[str, str] = {}  # leaf_id to path of leaves that somebody let go of
        self._hypercube: list[Genome] = []
        self._lineages = self._no_lineages()

    # ---- what there is ------------------------------------------------------------------------------------------

    @property
    def hypervolume(self) -> float:
        """Scaled area that `archive` dominates below the reference point."""
        return self.archive.hypervolume

    @property
    def pool(self) -> list[Leaf]:
        """The leaves that the next parents come from."""
        return [member.leaf for member in self._population.pool.members]

    def front(self) -> list[Leaf]:
        """The non-dominated leaves by ascending bytes."""
        return list(self.archive)

    @property
    def in_flight(self) -> dict[str, SegmentTask]:
        """Tasks asked and not yet told, by segment_id, oldest first."""
        return dict(self._tasks)

    @property
    def asked(self) -> int:
        """How many tasks were asked so far."""
        return self._next

    @property
    def done(self) -> bool:
        """Whether the budget of segments is used up, so that `ask` will give no more."""
        return self.settings.segments is not None and self._next >= self.settings.segments

    @property
    def hopeless(self) -> tuple[str, str] | None:
        """Status and error with which all of the first segments failed, if so and none was begun since; None otherwise.

        In free mode a file that came out of any segment is reason enough to go on. In deterministic mode only the first
        `give_up_after` count, since which others have ended depends on the workers.
        """
        is_hopeless = self._first.complete and (self.settings.deterministic or not len(self.archive))
        return self._first.last if is_hopeless else None

    # ---- ask ----------------------------------------------------------------------------------------------------

    def ask(self) -> SegmentTask | None:
        """The next task; None when `done`, or in deterministic mode while an outcome that it must see is missing."""
        if self.done or not self._catch_up():
            return None
        task = self._decide(self._next)
        self._register(task)
        return task

    def give(self, genome: Genome) -> SegmentTask:
        """The next task, which is not decided but given: a file that there is, of this genome."""
        if not self._catch_up():
            raise RunError("a segment was given while an outcome is missing that it must see")
        task = SegmentTask(self._next, "", "seed", "none", (), genome, (), 0, self._seen)
        task = dataclasses.replace(task, segment_id=self._segment_id(task))
        self._register(task)
        return task

    def close_lineages(self) -> None:
        """Go on with no lineage that there is; to be called where the space has changed."""
        self._lineages.close()

    def replay(self, task: SegmentTask) -> None:
        """Take in a task that this search had asked before it was interrupted, in place of asking it."""
        if task.index != self._next or not self._catch_up():
            raise RunError(f"task {task.segment_id} has index {task.index}, the search expects {self._next}")
        self._register(task)

    def peek(self) -> SegmentTask | None:
        """The task that comes next, whatever the budget, without taking it; None while an outcome is missing for it."""
        return self._decide(self._next) if self._catch_up() else None

    @property
    def waits_for(self) -> str | None:
        """The segment_id of the outcome that is missing for the next decision; None where none is."""
        if self._catch_up():
            return None
        return next(segment_id for segment_id, task in self._tasks.items() if task.index == self._seen)

    def identify(self, task: SegmentTask) -> str:
        """The segment_id that follows from what a task says; it differs from its own where the task is damaged."""
        return self._segment_id(task)

    def _catch_up(self) -> bool:
        """Fold what the next decision sees; False where an outcome is missing."""
        if not self.settings.deterministic:
            return True
        assert self.settings.lag is not None
        while self._seen <= self._next - self.settings.lag:
            members = self._waiting.pop(self._seen, None)
            if members is None:
                return False
            self._release((member.leaf.leaf_id, member.leaf.path) for member in members)
            self._fold(self._seen, members)
        return True

    def _register(self, task: SegmentTask) -> None:
        self._first.go_on()
        self._next = task.index + 1
        self._tasks[task.segment_id] = task
        self._held.update(parent.leaf_id for parent in task.parents)
        self._lineages.register(task)
        if not task.parents or not self.settings.policy.counts_tries:
            return
        self._children[task.parents[0].leaf_id] += 1
        member = self._population.find(task.parents[0].leaf_id)
        if member is not None:
            self._tries[size_bin(member.x, len(self._tries))] += 1

    def _decide(self, index: int) -> SegmentTask:
        rng = np.random.default_rng(np.random.SeedSequence(self.settings.seed, spawn_key=(_DECISION, index)))
        seed = int(rng.integers(2**32))
        parents: tuple[Member, ...] = ()
        rule: ParentRule = "none"
        operator: Operator = "initial"
        if index < self.settings.initial:
            genome = self._initial(index)
        elif not len(self._population.pool):
            # Nothing to go on from yet (more workers than initial segments, or none succeeded): another fresh start.
            genome = self.space.sample(rng, self.settings.lineage_start)
        elif self.settings.lineage_share and rng.random() < self.settings.lineage_share:
            if (end := self._lineages.newest()) is not None:
                operator, rule, parents, genome = "continue", "lineage", (end[0],), end[1]
            else:
                genome = self._new_lineage(rng)
        else:
            parent, rule = choose_parent(self._population, self._tries, self._children, self.settings, rng)
            operator, parents, genome = self._vary(parent, rng)
        s = self.settings
        probe_genomes = probes(self.space, genome, rng, self._control.count, s.mutation_rate, s.mutation_sigma)
        task = SegmentTask(
            index, "", operator, rule, tuple(map(_as_parent, parents)), genome, probe_genomes, seed, self._seen
        )
        return dataclasses.replace(task, segment_id=self._segment_id(task))

    def _initial(self, index: int) -> Genome:
        if not self._hypercube:
            rng = np.random.default_rng(np.random.SeedSequence(self.settings.seed, spawn_key=(_HYPERCUBE,)))
            self._hypercube = self.space.latin_hypercube(self.settings.initial, rng, self.settings.lineage_start)
        return dict(self._hypercube[index])

    def _new_lineage(self, rng: np.random.Generator) -> Genome:
        """A genome for random weights: drawn anew, or as often that of a file of the front, mutated and at its start.

        So what is selected among lineages is how they train; what a lineage came to says little of any one segment.
        """
        fresh, draw = self.space.sample(rng, self.settings.lineage_start), float(rng.random())
        members = [member for member in self._population.archive.members if member.y < self.settings.reference[1]]
        if not members or not self.settings.policy.ranks or draw < 0.5:
            return fresh
        s, genome = self.settings, self._genome_of(members[int(rng.integers(len(members)))])
        changed = mutate(self.space, genome, rng, self.space.names, s.mutation_rate, s.mutation_sigma)
        return self.space.restarted(changed, fresh)

    def _vary(self, parent: Member, rng: np.random.Generator) -> tuple[Operator, tuple[Member, ...], Genome]:
        s, genome = self.settings, self._genome_of(parent)
        draw = float(rng.random()) * (s.continue_share + s.mutate_share + s.crossover_share)
        if draw < s.continue_share:
            falls = s.lineage_turns > 0 and float(rng.random()) < 0.5
            return "continue", (parent,), self.space.advanced(genome, -1 if falls else 1, s.lineage_step)
        if draw >= s.continue_share + s.mutate_share:
            other = self._population.pool.neighbour(parent, rng)
            if other is not None:
                return "crossover", (parent, other), crossover(self.space, genome, self._genome_of(other), rng)
        changed = mutate(self.space, genome, rng, self.space.variable_names, s.mutation_rate, s.mutation_sigma)
        return "mutate", (parent,), changed

    def _genome_of(self, member: Member) -> Genome:
        """A genome as one of this space, which may have changed since."""
        return self.space.completed(member.leaf.genome)

    def _segment_id(self, task: SegmentTask) -> str:
        parents = [(parent.leaf_id, parent.sha256) for parent in task.parents]
        plan = (task.index, task.operator, task.rule, parents, task.genome, task.probes, task.seed, task.seen)
        content = (self.settings.seed, *plan)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    # ---- tell ---------------------------------------------------------------------------------------------------

    def tell(self, outcome: Outcome) -> Told:
        """Take an outcome in; one of a task that is not in flight is a duplicate and changes nothing."""
        before = self.hypervolume
        task = self._tasks.pop(outcome.segment_id, None)
        if task is None:
            if outcome.index >= self._next:
                raise RunError(f"outcome of segment {outcome.segment_id} was told, but its task was never asked")
            return Told(before, before, duplicate=True)
        members = tuple(self._scale.member(leaf, (task.index, n)) for n, leaf in enumerate(outcome.leaves))
        accepted, displaced = self._report(members)
        self._control.observe(outcome, 1 + len(task.probes))
        self._first.observe(outcome)
        if self.settings.deterministic:
            self._waiting[task.index] = members
            self._held.update(member.leaf.leaf_id for member in members)
        else:
            self._fold(task.index, members)
        self._release((parent.leaf_id, parent.path) for parent in task.parents)
        return Told(before, self.hypervolume, accepted, displaced)

    def _report(self, members: tuple[Member, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Into the archive; ids of those that are in it afterwards, and of the earlier ones that are not any more."""
        displaced: list[Leaf] = []
        for member in members:
            displaced.extend(old.leaf for old in self.archive.insert(member)[1])
        self._suspect(displaced)
        self._suspect(member.leaf for member in members)
        new = [member.leaf.leaf_id for member in members]
        accepted = tuple(leaf_id for leaf_id in new if leaf_id in self.archive)
        return accepted, tuple(leaf.leaf_id for leaf in displaced if leaf.leaf_id not in new)

    def _fold(self, index: int, members: tuple[Member, ...]) -> None:
        self._seen += 1
        self._lineages.fold(index, members)
        self._suspect(member.leaf for member in members)
        self._suspect(member.leaf for member in self._population.insert(members))

    # ---- files that nobody needs any more --------------------------------------------------------------------------

    def collect(self) -> dict[str, str]:
        """Leaves (leaf_id to path) that since the last call fell out of every use: front, pool, parent in flight."""
        suspects, self._suspects = self._suspects, {}
        return {leaf_id: path for leaf_id, path in suspects.items() if not self.needs(leaf_id)}

    def needs(self, leaf_id: str) -> bool:
        """Whether a leaf's file may still be read: it is in front or pool, ends a lineage, or is parent in flight."""
        return leaf_id in self.archive or leaf_id in self._population or leaf_id in self._held

    def needed_paths(self) -> set[str]:
        """The paths of all leaves for which `needs` holds."""
        members = [*self.archive.members, *self._population.archive.members, *self._population.pool.members]
        members += [member for waiting in self._waiting.values() for member in waiting]
        members += self._lineages.needed()
        paths = {member.leaf.path for member in members}
        return paths | {parent.path for task in self._tasks.values() for parent in task.parents}

    def _suspect(self, leaves: Iterable[Leaf]) -> None:
        # A leaf that is still needed when it is looked at comes back here once its last holder lets go of it.
        self._suspects.update((leaf.leaf_id, leaf.path) for leaf in leaves)

    def _no_lineages(self) -> Lineages:
        def hold(leaf: Leaf) -> None:
            self._held[leaf.leaf_id] += 1

        return Lineages(self.space, self.settings, hold, lambda leaf: self._release([(leaf.leaf_id, leaf.path)]))

    def _release(self, leaves: Iterable[tuple[str, str]]) -> None:
        for leaf_id, path in leaves:
            self._held[leaf_id] -= 1
            if self._held[leaf_id] <= 0:
                del self._held[leaf_id]
                self._suspects[leaf_id] = path

    # ---- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `ask` depends on beside space and settings, JSON-ready."""
        return {
            "next": self._next,
            "seen": self._seen,
            "tries": list(self._tries),
            "children": dict(self._children),
            "lineages": self._lineages.state_dict(),
            "ratios": list(self._control.ratios),
            "first": self._first.state_dict(),
            "in_flight": [task.to_json() for task in self._tasks.values()],
            "waiting": {str(index): [m.leaf.to_json() for m in members] for index, members in self._waiting.items()},
            "archive": self.archive.state_dict(),
            "population": self._population.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, on a search of the same space and settings."""
        self._next, self._seen, self._tries = state["next"], state["seen"], list(state["tries"])
        self._children = Counter(state["children"])
        self._control.ratios.clear()
        self._control.ratios.extend(state["ratios"])
        self._first.load_state_dict(state["first"])
        self._tasks = {item["segment_id"]: SegmentTask.from_json(item) for item in state["in_flight"]}
        self._held = Counter(parent.leaf_id for task in self._tasks.values() for parent in task.parents)
        self._waiting = {
            int(index): tuple(
                self._scale.member(Leaf.from_json(leaf), (int(index), n)) for n, leaf in enumerate(leaves)
            )
            for index, leaves in state["waiting"].items()
        }
        self._held.update(member.leaf.leaf_id for members in self._waiting.values() for member in members)
        self._lineages = self._no_lineages()
        self._lineages.load_state_dict(state["lineages"])
        self.archive = Archive.from_state(state["archive"], self.settings.reference, self._scale)
        self._population = Population.from_state(state["population"], self.settings)
        self._suspects = {}


def _as_parent(member: Member) -> Parent:
    leaf = member.leaf
    return Parent(leaf.leaf_id, leaf.path, leaf.sha256, leaf.depth, leaf.epochs, leaf.seconds, leaf.weights_sha256)
