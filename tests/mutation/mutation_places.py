"""Mutants of a module, made by cosmic-ray: a place is drawn first, then one of the changes that are possible there.

Drawing places, and not changes, keeps the sample even: `a + b` can become eleven other things, and nearly each is found
by the first test that runs the line. The draw is by a hash of the seed and the line's text. So a change elsewhere in
the module leaves the sample as it was.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Mutant", "sample"]

#: Without its decorator nothing works any more, or all does and takes longer: neither says anything about tests.
_LEFT_OUT = {"core/RemoveDecorator"}


class Mutant(NamedTuple):
    """One change of one module: where, from which line to which, and the whole source as it is then."""

    path: str
    line: int
    operator: str
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """Names the mutant in lists: no line number, so that it stays valid when code above moves."""
        return f"{self.path}: {self.before} -> {self.after}"


class _Change(NamedTuple):
    operator: str
    occurrence: int


def sample(root: Path, paths: list[str], count: int, seed: str) -> list[Mutant]:
    """So many mutants of the modules, fewer where there are no more places; the same seed gives the same ones.

    Changes of annotations and of nothing but the text are not counted: no test can notice them.
    """
    drawn: list[tuple[bytes, str, list[_Change]]] = []
    for path in paths:
        source = (root / path).read_text("utf-8")
        lines = source.splitlines()
        seen: Counter[str] = Counter()
        for (start, end), changes in sorted(_places(source).items()):
            text = lines[start[0] - 1]
            name = f"{path}:{text.strip()}:{start[1] - len(text) + len(text.lstrip())}:{end[1] - start[1]}"
            seen[name] += 1
            draw = hashlib.blake2b(f"{seed}:{name}:{seen[name]}".encode(), digest_size=8).digest()
            drawn.append((draw, path, changes))
    mutants: list[Mutant] = []
    for draw, path, changes in sorted(drawn):
        if len(mutants) == count:
            break
        turn = int.from_bytes(draw, "big") % len(changes)
        found = (_mutant(root, path, change) for change in changes[turn:] + changes[:turn])
        if (mutant := next((mutant for mutant in found if mutant is not None), None)) is not None:
            mutants.append(mutant)
    return mutants


def _places(source: str) -> dict[tuple[tuple[int, int], tuple[int, int]], list[_Change]]:
    """What cosmic-ray can change, by start and end (line, column)."""
    parsing: Any = importlib.import_module("cosmic_ray.ast")
    plugins: Any = importlib.import_module("cosmic_ray.plugins")
    nodes = list(parsing.ast_nodes(parsing.get_ast(source)))
    places = defaultdict(list)
    for name in plugins.operator_names():
        kind = plugins.get_operator(name)
        if kind.arguments() or name in _LEFT_OUT:
            continue
        positions = [place for node in nodes for place in kind().mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            places[start, end].append(_Change(name, occurrence))
    return places


def _mutant(root: Path, path: str, change: _Change) -> Mutant | None:
    """None where the change is none, or is no Python."""
    mutating: Any = importlib.import_module("cosmic_ray.mutating")
    plugins: Any = importlib.import_module("cosmic_ray.plugins")
    source = (root / path).read_text("utf-8")
    changed = mutating.mutate_code(source, plugins.get_operator(change.operator)(), change.occurrence)
    try:
        if changed is None or _meaning(changed) == _meaning(source):
            return None
    except SyntaxError:
        return None
    old, new = source.splitlines(), changed.splitlines()
    for kind, begin, end, begin_new, end_new in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            before, after = ("\n".join(part).strip() for part in (old[begin:end], new[begin_new:end_new]))
            return Mutant(path, begin + 1, change.operator, before, after, changed)
    return None


class _Bare(ast.NodeTransformer):
    """Takes annotations away: with `from __future__ import annotations` they are texts that nothing here evaluates."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Without its annotation."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Without its result's annotation."""
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """With one and the same annotation."""
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _meaning(source: str) -> str:
    return ast.dump(_Bare().visit(ast.parse(source)))
