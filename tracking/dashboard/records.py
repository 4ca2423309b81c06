"""What lies beside asv's results: other engines, where a result comes from, and asv's regressions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asv.console import log

from tracking.dashboard.sections import percent, quantity
from tracking.dashboard.series import Commit, graph_link
from tracking.jumps import jumps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tracking.dashboard.series import History

MOST_REGRESSIONS = 20
SAID_ELSEWHERE = ("version", "commit", "subject")
PRESETS = ("2b", "700m", "125m", "tiny")  # the largest says most


def read_json(path: Path) -> Any:
    """What a file holds; None, and a warning, where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning(f"{path.name}: {error}")
        return None


# ---- peers ----


@dataclass(frozen=True)
class Peers:
    """An outcome of `make peers`, and the commit it is of."""

    commit: Commit
    record: Mapping[str, Any]

    @property
    def tests(self) -> list[str]:
        """In the order they ran."""
        return list(self.record["ratio"])

    def speeds(self) -> dict[str, list[float]]:
        """Median tokens a second of each engine, test by test."""
        return {
            name: [float(engine["median_ts"][test]) for test in self.tests]
            for name, engine in self.record["engines"].items()
        }


def peers(results_dir: Path, history: History, revisions: Mapping[str, int]) -> Peers | None:
    """The newest outcome on this machine, of the largest model that was run."""
    found = []
    for path in sorted((results_dir / history.machine / "peers").glob("*.json")):
        record = read_json(path)
        if not isinstance(record, dict) or str(record.get("commit")) not in revisions:
            continue
        if not {"engines", "ratio", "preset", "cpu_info", "n_threads", "n_rounds"} <= record.keys():
            log.warning(f"{path.name}: not an outcome of `make peers`")
            continue
        commit = Commit(record["commit"], revisions[record["commit"]], int(record.get("date") or 0))
        found.append(Peers(commit, record))
    largest_first = {preset: -i for i, preset in enumerate(PRESETS)}
    return max(found, key=lambda one: (largest_first.get(one.record["preset"], -99), one.commit.revision), default=None)


# ---- provenance ----


def provenance(results_dir: Path, history: History) -> dict[str, list[tuple[str, str]]]:
    """What is recorded of each commit's results, by its short hash, as pairs of words."""
    folder = results_dir / history.machine / "provenance"
    found = {}
    for commit in history.commits:
        path = folder / f"{commit.short}-{history.environment}.json"
        record = read_json(path) if path.is_file() else None
        if isinstance(record, dict):
            found[commit.short] = list(_flat({key: item for key, item in record.items() if key not in SAID_ELSEWHERE}))
    return found


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A record of records in lines."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}, {key}" if name else str(key).replace("_", " "))
    elif isinstance(value, list):
        if all(not isinstance(item, (dict, list)) for item in value):
            yield name, " ".join(map(str, value)) or "none"
        else:
            for i, item in enumerate(value, 1):
                own = item.get("name", i) if isinstance(item, dict) else i
                rest = {key: one for key, one in item.items() if key != "name"} if isinstance(item, dict) else item
                yield from _flat(rest or "no more is recorded", f"{name.rstrip('s')} {own}")
    else:
        yield name, "not recorded" if value in (None, "") else str(value)


# ---- regressions ----


@dataclass(frozen=True)
class Regression:
    """A rise that asv found."""

    name: str
    before: str
    after: str
    change: str
    first: Commit | None  # the last good commit; None where the next is the only candidate
    last: Commit
    link: str


def regressions(
    html_dir: Path, history: History, benchmarks: Mapping[str, Any], revisions: Mapping[str, int]
) -> list[Regression]:
    """What asv itself found on this machine in this environment, the newest first."""
    path = html_dir / "regressions.json"
    data = read_json(path) if path.is_file() else None
    hashes = {revision: commit for commit, revision in revisions.items()}
    dates = {commit.hash: commit.date for commit in history.commits}

    def commit(revision: int) -> Commit:
        return Commit(hashes[revision], revision, dates.get(hashes[revision], 0))

    found = []
    for jump in jumps(data or {}):
        benchmark = benchmarks.get(jump.name.partition("(")[0])
        if benchmark is None or not any(map(jump.has_only, history.params)):
            continue
        pairs = [(key, str(value)) for key, value in jump.params.items()] + _combination(benchmark, jump.index)
        first = None if jump.before is None else commit(jump.before)
        last = commit(jump.since)
        marked = "-".join(one.short for one in (first, last) if one)
        found.append(
            Regression(
                jump.name,
                quantity(jump.old, benchmark.get("unit") or ""),
                quantity(jump.new, benchmark.get("unit") or ""),
                percent(jump.new / jump.old) if jump.old else "from none",
                first,
                last,
                graph_link(benchmark["name"], [*pairs, ("commits", marked)]),
            )
        )
    return sorted(found, key=lambda one: (-one.last.revision, one.name))[:MOST_REGRESSIONS]


def _combination(benchmark: Mapping[str, Any], index: int | None) -> list[tuple[str, str]]:
    """The parameters of a combination by its number, the last one changing fastest."""
    if index is None:
        return []
    values = []
    for choices in reversed(benchmark["params"]):
        index, place = divmod(index, len(choices))
        values.append(choices[place])
    return [(f"p-{name}", value) for name, value in zip(benchmark["param_names"], reversed(values), strict=True)]


def commit_link(show_commit_url: str, commit: Commit) -> str:
    """Where a commit can be read; empty where asv.conf.json does not say."""
    return "" if show_commit_url in ("", "#") else show_commit_url + commit.hash
