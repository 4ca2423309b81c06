"""Results as the page needs them: a value of each benchmark, combination and commit, by machine and environment."""

from __future__ import annotations

import ast
import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from asv.console import log
from asv.machine import Machine
from asv.results import Results
from asv.util import UserError, load_json

from tracking.results import combinations_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

SHORT = 8  # of a hash, as asv's file names have it


@dataclass(frozen=True)
class Commit:
    """A measured commit; `revision` is its place in asv's order, `date` milliseconds as asv has them."""

    hash: str
    revision: int
    date: int

    @property
    def short(self) -> str:
        """What the page shows."""
        return self.hash[:SHORT]


@dataclass(frozen=True)
class Point:
    """What a benchmark gave at a commit: a number, NaN where it was skipped, None where it failed."""

    commit: Commit
    value: float | None

    @property
    def measured(self) -> float | None:
        """The number, if it is one."""
        return self.value if self.value is not None and math.isfinite(self.value) else None


@dataclass(frozen=True)
class Series:
    """One benchmark with one combination of its parameters, in the order of commits."""

    benchmark: str
    params: Mapping[str, str]  # as asv writes them: strings in quotes
    unit: str
    machine: str
    points: tuple[Point, ...]

    def __getitem__(self, name: str) -> str:
        """A parameter as it is read: without quotes."""
        return plain(self.params[name])

    @property
    def label(self) -> str:
        """Benchmark and parameters in one line."""
        values = ", ".join(map(plain, self.params.values()))
        return f"{self.benchmark} ({values})" if values else self.benchmark

    @cached_property
    def measured(self) -> list[tuple[Commit, float]]:
        """Commits that have a number, oldest first."""
        return [(point.commit, point.measured) for point in self.points if point.measured is not None]

    @property
    def latest(self) -> tuple[Commit, float] | None:
        """The newest number; an older one where the newest commits were skipped."""
        return self.measured[-1] if self.measured else None

    @property
    def failed(self) -> Commit | None:
        """The newest commit that was not skipped, if it failed."""
        tried = [point for point in self.points if point.value is None or math.isfinite(point.value)]
        return tried[-1].commit if tried and tried[-1].value is None else None

    def link(self, *commits: Commit) -> str:
        """The graph of this series, as asv writes its addresses; commits are marked in it."""
        pairs = [("machine", self.machine)]
        pairs += [(f"p-{name}", value) for name, value in self.params.items()]
        pairs += [("commits", "-".join(commit.short for commit in commits))] if commits else []
        return graph_link(self.benchmark, pairs)


@dataclass(frozen=True)
class History:
    """All that was measured on one machine in one environment."""

    machine: str
    environment: str
    facts: Mapping[str, str]  # what asv knows of the machine: cpu, ram, ...
    commits: tuple[Commit, ...]  # oldest first
    series: tuple[Series, ...]
    params: tuple[Mapping[str, Any], ...]  # of asv's results, each once: machine, python, requirements, variables
    _by_name: dict[str, list[Series]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.series:
            self._by_name.setdefault(one.benchmark, []).append(one)

    @property
    def newest(self) -> Commit:
        """The last commit that has results."""
        return self.commits[-1]

    def find(self, benchmark: str, **params: str) -> list[Series]:
        """The series of a benchmark whose parameters are these, in asv's order."""
        return [
            one
            for one in self._by_name.get(benchmark, [])
            if all(name in one.params and one[name] == value for name, value in params.items())
        ]

    def measured(self, benchmark: str, *names: str, **params: str) -> list[Series]:
        """Of those, the ones that have a number, and parameters of these names: an older suite may have had others."""
        return [
            one for one in self.find(benchmark, **params) if one.latest and all(name in one.params for name in names)
        ]


def plain(text: str) -> str:
    """A parameter's value without Python's quotes."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, str) else text


def graph_link(benchmark: str, pairs: Iterable[tuple[str, str]]) -> str:
    """An address of asv's graphs: what its own format_hash_string makes."""
    query = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in pairs)
    return f"#{quote(benchmark, safe='.')}" + (f"?{query}" if query else "")


def _encoded(text: str) -> str:
    """Like JavaScript's encodeURIComponent."""
    return quote(text, safe="!~*'()")


# ---- reading ----


def load(results_dir: Path, benchmarks: Mapping[str, Any], revisions: Mapping[str, int]) -> list[History]:
    """Every machine's results, one history an environment, the one with the newest commit first.

    Results of another version of a benchmark, of a commit that is not published, and files that cannot be read are
    left out, as asv leaves them out.
    """
    histories = []
    for folder in sorted(path.parent for path in results_dir.glob("*/machine.json")):
        facts = _machine(folder)
        if facts is None:
            continue
        by_environment: dict[str, list[Any]] = {}
        for results in _results(folder, revisions):
            by_environment.setdefault(str(results.env_name), []).append(results)
        for environment, found in by_environment.items():
            histories.append(_history(facts, environment, found, benchmarks, revisions))
    return sorted(histories, key=lambda one: (-one.newest.revision, one.machine, one.environment))


def _machine(folder: Path) -> dict[str, str] | None:
    try:
        facts = load_json(str(folder / "machine.json"), Machine.api_version)
    except (UserError, OSError) as error:
        log.warning(f"{folder.name}: {error}")
        return None
    return {"machine": folder.name} | {str(name): str(value) for name, value in facts.items()}


def _results(folder: Path, revisions: Mapping[str, int]) -> Iterator[Any]:
    for path in sorted(folder.glob("*.json")):
        if path.name == "machine.json":
            continue
        try:
            results = Results.load(str(path))
        except (UserError, OSError) as error:
            log.warning(str(error))
            continue
        if results.commit_hash in revisions:
            yield results


def _history(
    facts: Mapping[str, str],
    environment: str,
    found: list[Any],
    benchmarks: Mapping[str, Any],
    revisions: Mapping[str, int],
) -> History:
    """Turn files of commits into series of benchmarks."""
    found.sort(key=lambda results: revisions[results.commit_hash])
    commits = [Commit(one.commit_hash, revisions[one.commit_hash], int(one.date)) for one in found]
    points: dict[tuple[str, tuple[str, ...]], list[Point]] = {}
    for commit, results in zip(commits, found, strict=True):
        for name in sorted(results.get_result_keys(benchmarks)):
            for _, values, value in combinations_of(results, name, benchmarks[name]["params"]):
                points.setdefault((name, values), []).append(Point(commit, value))
    order = {
        (name, values): (name, i)
        for name in benchmarks
        for i, values in enumerate(itertools.product(*benchmarks[name]["params"]))
    }
    series = [
        Series(
            name,
            dict(zip(benchmarks[name]["param_names"], values, strict=True)),
            benchmarks[name].get("unit") or "",
            facts["machine"],
            tuple(points[name, values]),
        )
        for name, values in sorted(points, key=lambda key: order[key])
    ]
    params = [one.params | {f"env-{name}": value for name, value in one.env_vars.items()} for one in found]
    distinct = tuple(one for i, one in enumerate(params) if one not in params[:i])
    return History(facts["machine"], environment, facts, tuple(commits), tuple(series), distinct)
