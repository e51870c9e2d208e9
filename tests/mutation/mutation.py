"""Mutation testing: change one place of the code, run the nearest tests, and see whether any of them notices.

    make mutants                        # a sample of every group of modules.toml, about an hour of one core
    make mutants ONLY=journal,lease COUNT=100 SEED=3
    make mutants AGAIN=1                # only those that lived the last time, or were not reached by then

cosmic-ray makes the mutants (mutation_places.py). They are tried in a copy of the repository, one after the other,
each by the tests that reach its line, the fastest first (mutation_children.py). harmless.toml lists mutants that change
nothing that is promised, each with the reason. It ends with 1 where a mutant lives that is not in that list, or
fewer are killed than should be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE)]

from mutation_children import Outcome, Trace, preload, run, trace  # noqa: E402
from mutation_places import Mutant, sample  # noqa: E402

__all__ = ["main"]

_ROOT = _HERE.parents[1]
_COMPILED = re.compile(r"^@compiled$", re.MULTILINE)
_SPARE, _SPARE_COMPILED = 20.0, 90.0  # seconds beside those of the tests: to collect them, and to compile
#: Times what the unchanged code took: of processor time; and of time, as others compute on the machine, too.
_SLOWER, _PATIENCE = 4, 20
_LEAST, _LEAST_OF_A_GROUP = 0.90, 0.85


class Group(NamedTuple):
    """Modules that belong together, and the tests nearest to them; paths from the root."""

    name: str
    files: list[str]
    tests: list[str]


class Result(NamedTuple):
    """A mutant and what became of it."""

    group: str
    mutant: Mutant
    outcome: Outcome

    @property
    def killed(self) -> bool:
        """Whether some test failed, or never ended."""
        return self.outcome.kind != "passed"


def _groups(names: list[str]) -> list[Group]:
    table = tomllib.loads((_HERE / "modules.toml").read_text("utf-8"))
    unknown = set(names) - set(table)
    if unknown:
        sys.exit(f"no group {', '.join(sorted(unknown))}; there are {', '.join(table)}")
    return [Group(name, **table[name]) for name in names or table]


def _harmless() -> dict[str, str]:
    """The reason of each mutant that may live, by its key."""
    entries = tomllib.loads((_HERE / "harmless.toml").read_text("utf-8")).get("mutant", [])
    return {entry["change"]: entry["why"] for entry in entries}


def _copy(work: Path) -> Path:
    """What the tests see: a copy of the repository's files, in which one at a time is changed."""
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = _ROOT / name, tree / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return tree


def _traced(group: Group, groups: list[Group], tree: Path, work: Path) -> Trace:
    """What the group's tests do on the unchanged code.

    Of each file of tests it is kept until that file, or what it tests, changes.
    """
    whole = Trace({}, {path: {} for path in group.files}, [])
    for tests in [*group.tests, *(_importable(path) for path in group.files)]:
        users = [other for other in groups if tests in other.tests or tests in map(_importable, other.files)]
        paths = sorted({path for other in users for path in other.files})
        digest = hashlib.sha256()
        for path in [tests, *paths]:
            digest.update(f"{path}\n".encode() + (tree / path).read_bytes())
        name = tests.replace("/", "-")
        stored = work / f"trace-{name}-{digest.hexdigest()[:16]}.json"
        if not stored.exists():
            print(f"{tests}: the unchanged code …", flush=True)
            found = trace(tree, paths, [tests], work / f"unchanged-{name}.log", _caches(work / "numba"))
            for old in work.glob(f"trace-{name}-*.json"):
                old.unlink()
            stored.write_text(json.dumps(found))
        seconds, reached, modules = json.loads(stored.read_text())
        preload(modules)
        whole.seconds.update({test: (used, time) for test, (used, time) in seconds.items()})
        for path in group.files:
            for line, contexts in reached.get(path, {}).items():
                whole.reached[path].setdefault(int(line), []).extend(contexts)
    return whole


def _importable(path: str) -> str:
    """Where pytest finds the doctests of a module: the two top-level folders are links within the package."""
    return path if path.startswith("evocompress/") else f"evocompress/{path}"


def _caches(folder: Path) -> dict[str, str]:
    return {"NUMBA_CACHE_DIR": str(folder)}


def _numba_cache(work: Path, tree: Path, path: str) -> dict[str, str]:
    """Where numba keeps compiled functions: those that may hold the changed one are compiled anew.

    Numba looks at the file of a function only, not at those of the functions that it calls.
    """
    warm = work / "numba"
    if not any(_COMPILED.search(file.read_text("utf-8")) for file in [tree / path]):
        return _caches(warm)
    stems, before = {Path(path).stem}, set[str]()
    modules = {file.stem: file.read_text("utf-8") for file in (tree / "codecs").glob("*.py")}
    while stems != before:
        before = set(stems)
        stems |= {name for name, text in modules.items() if any(f".{stem} import" in text for stem in before)}
    cold = work / "numba-of-mutant"
    shutil.rmtree(cold, ignore_errors=True)
    shutil.copytree(warm, cold, ignore=lambda _, names: [name for name in names if name.partition(".")[0] in stems])
    return _caches(cold)


def _try(group: Group, mutant: Mutant, traced: Trace, tree: Path, work: Path) -> Outcome:
    target = tree / mutant.path
    original = target.read_bytes()
    tests = traced.tests(mutant.path, mutant.line)
    environment = _numba_cache(work, tree, mutant.path)
    spare = _SPARE_COMPILED if _COMPILED.search(mutant.source) else _SPARE
    used = spare + _SLOWER * sum(traced.seconds[test][0] for test in tests)
    waited = spare + _PATIENCE * (spare + sum(traced.seconds[test][1] for test in tests))
    target.write_text(mutant.source, "utf-8")
    try:
        outcome = run(tree, tests, work / "mutant.log", environment, used, waited)
    finally:
        target.write_bytes(original)
    if outcome.kind == "too long":  # or is it the machine?
        unchanged = run(tree, tests, work / "mutant.log", environment, used, waited)
        if unchanged.kind != "passed":
            raise RuntimeError(f"the unchanged code fails, or takes too long by now: {unchanged}, {tests}")
    return outcome


def _table(results: list[Result], harmless: dict[str, str]) -> tuple[list[str], bool]:
    """Rows of Markdown, and whether all is as it should be."""
    rows = ["| modules | mutants | killed | % | harmless | others |", "|---|---|---|---|---|---|"]
    good = True
    for name in [*dict.fromkeys(result.group for result in results), "all"]:
        part = [result for result in results if name in (result.group, "all")]
        killed = sum(result.killed for result in part)
        known = sum(not result.killed and result.mutant.key in harmless for result in part)
        share = killed / max(len(part), 1)
        others = len(part) - killed - known
        rows.append(f"| {name} | {len(part)} | {killed} | {100 * share:.0f} | {known} | {others} |")
        good = good and share >= (_LEAST if name == "all" else _LEAST_OF_A_GROUP) and not others
    return rows, good


def main() -> int:
    """The exit status: 0 if enough mutants are killed and each other one is known to be harmless."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="groups of modules.toml, with commas between them")
    parser.add_argument("--count", type=int, default=30, help="mutants of each group")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--again", action="store_true", help="only mutants that lived the last time, or were not tried")
    parser.add_argument("--work", type=Path, default=_ROOT / "build" / "mutants", help="holds cosmic-ray, too")
    words = parser.parse_args()
    work: Path = words.work.resolve()
    sys.path.append(str(work / "packages"))  # at the end: what cosmic-ray brings along does not replace ours
    os.environ["OMP_NUM_THREADS"] = "1"
    work.mkdir(parents=True, exist_ok=True)
    tree, harmless = _copy(work), _harmless()
    results: list[Result] = []
    groups = _groups([])
    for group in _groups([name.strip() for name in words.only.split(",") if name.strip()]):
        stored = work / f"results-{group.name}-{words.seed}-{words.count}.json"
        earlier = json.loads(stored.read_text()) if words.again and stored.exists() else {}
        traced = _traced(group, groups, tree, work)
        of_group: list[Result] = []
        for mutant in sample(tree, group.files, words.count, words.seed):
            if mutant.key in earlier and earlier[mutant.key][0] != "passed":
                of_group.append(Result(group.name, mutant, Outcome(*earlier[mutant.key])))
                continue
            result = Result(group.name, mutant, _try(group, mutant, traced, tree, work))
            of_group.append(result)
            reason = harmless.get(mutant.key)
            fate = "killed" if result.killed else f"harmless: {reason}" if reason else "LIVES"
            print(f"{mutant.path}:{mutant.line}: {mutant.before}\n    {mutant.after}", flush=True)
            print(f"    {fate} ({result.outcome.seconds:.1f} s {result.outcome.test})", flush=True)
            tried = earlier | {one.mutant.key: one.outcome for one in of_group}
            stored.write_text(json.dumps(tried, indent=1))
        results += of_group
    rows, good = _table(results, harmless)
    print("\n".join(rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
