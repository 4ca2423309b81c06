"""asv's result files: what a review measured, written as `asv continuous` would, so that compare and publish see it."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import os
import platform
import statistics
from typing import TYPE_CHECKING, Any

import psutil
from asv import util
from asv.machine import Machine, MachineCollection
from asv.results import Results, get_filename
from asv.runner import BenchmarkResult
from asv.util import UserError

from tracking.asv_command import told_apart, whole
from tracking.errors import TrackingError, first_line
from tracking.machine import asv_name, cpu_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tracking.commits import Commit
    from tracking.rounds import Round
    from tracking.suite import Case, Suite

util.write_json = whole(util.write_json)  # here too: results, benchmarks.json and what asv knows of machines


class _Results(Results):  # type: ignore[misc]  # asv has no types
    """asv's, in which what was never run has not failed."""

    get_result_value = told_apart(Results.get_result_value)


def remember_machine(asked: str) -> str:
    """Tell asv about this machine in coarse words, unless somebody already has; the name asv knows it by.

    Each of them names a series: a kernel's release or a byte count of memory would begin a new one with every update.
    (The command `asv machine` leaves out what equals its own guess, and then fails on a machine it does not know.)
    """
    name = asv_name(asked)
    try:
        known = MachineCollection.load(name)
    except (UserError, TypeError):  # nothing, or nothing sound
        known = {
            "machine": name,
            "os": platform.system(),
            "arch": platform.machine(),
            "cpu": cpu_name(),
            "num_cpu": str(os.cpu_count()),
            "ram": f"{round(psutil.virtual_memory().total / 2**30)}GB",
        }
        try:
            MachineCollection.save(name, known)
        except (UserError, TypeError) as error:
            path = MachineCollection.get_machine_file_path()
            raise TrackingError(
                f"{path}, in which asv keeps what it knows of machines, is damaged: remove it ({first_line(error)})"
            ) from None
    return str(known["machine"])


def save(suite: Suite, commit: Commit, side: str, rounds: dict[str, list[Round]], machine_name: str) -> Path:
    """Put one side's rounds into the result file of its commit; what the file has of other benchmarks stays.

    A sample is the median of a slice. A combination that failed is null, as asv has it; one that gave nothing on this
    side, or nothing to compare since the other side gave nothing, keeps the value it had.
    """
    machine = Machine.load(machine_name=machine_name)
    env = suite.env
    params = dict(machine.__dict__) | {"python": env.python} | env.requirements
    date = suite.repo.get_date(commit.hash)
    results = _Results(params, env.requirements, commit.hash, date, env.python, env.name, env.env_vars)
    try:
        results.load_data(str(suite.results_dir))
    except (UserError, ValueError) as error:
        raise TrackingError(
            f"asv's results of {commit.short} are damaged, so nothing was added to them: remove the file "
            f"({first_line(error)})"
        ) from None
    for name, benchmark in suite.benchmarks.items():
        selected = suite.benchmarks.benchmark_selection[name]
        combinations = list(itertools.product(*benchmark["params"])) if benchmark["params"] else [()]
        fulls = [f"{name}({', '.join(values)})" if values else name for values in combinations]
        found = [side_result(rounds.get(full, []), side) for full in fulls]
        measured = [
            i
            for i, (value, _) in enumerate(found)
            if (value is None or not math.isnan(value)) and (selected is None or i in selected)
        ]
        if measured:
            results.add_result(
                benchmark,
                BenchmarkResult(
                    result=[value for value, _ in found],
                    samples=[samples for _, samples in found],
                    number=[1 if samples else None for _, samples in found],
                    errcode=int(any(one.failed.get(side) for i in measured for one in rounds[fulls[i]])),
                    stderr="",
                    profile=None,
                ),
                started_at=dt.datetime.now(dt.timezone.utc),
                duration=sum(one.seconds for i in measured for one in rounds[fulls[i]]) / 2,
                record_samples=True,
                selected_idx=measured if benchmark["params"] else None,
            )
    suite.results_dir.mkdir(parents=True, exist_ok=True)
    machine.save(str(suite.results_dir))
    suite.benchmarks.save()
    results.save(str(suite.results_dir))
    written: Path = suite.results_dir / get_filename(machine_name, commit.hash, env.name)
    return written


def side_result(rounds: Sequence[Round], side: str) -> tuple[float | None, list[float] | None]:
    """One combination's value and samples on one side; NaN when it was skipped, not asked for, or failed elsewhere."""
    samples = list(itertools.chain.from_iterable(one.values(side) for one in rounds))
    if any(side in one.failed for one in rounds):
        return None, None
    return (statistics.median(samples), samples) if samples else (math.nan, None)


def load(results_dir: Path, machine: str, commit: Commit) -> list[Any]:
    """What asv has of a commit on a machine, one `asv.results.Results` an environment."""
    return [Results.load(str(path)) for path in sorted((results_dir / machine).glob(f"{commit.short}-*.json"))]


def values_of(suite: Suite, commit: Commit, machine: str, cases: Sequence[Case]) -> dict[str, float | None]:
    """What asv's file has of the present versions of these benchmarks: null failed, NaN was skipped or never asked for.

    Raises UserError or ValueError where a file is damaged.
    """
    values: dict[str, float | None] = {}
    for found in load(suite.results_dir, machine, commit):
        if found.commit_hash == commit.hash and found.env_name == suite.env.name:
            present = set(found.get_result_keys(suite.benchmarks))
            for name, of_name in itertools.groupby(cases, key=lambda case: case.name):
                if name in present:
                    row = combinations_of(found, name, suite.benchmarks[name]["params"])
                    by_index = {i: value for i, _, value in row}
                    values |= {case.full: by_index[i] for case in of_name if (i := case.index or 0) in by_index}
    return values


def combinations_of(
    found: Any, name: str, params: list[list[str]]
) -> Iterator[tuple[int, tuple[str, ...], float | None]]:
    """Each combination that both a result file and today's benchmark have, with its place among today's.

    asv gives None, as if they had failed, for those that the file lacks.
    """
    had = set(itertools.product(*(found.get_result_params(name) or [])))
    row = found.get_result_value(name, params)
    for i, (values, value) in enumerate(zip(itertools.product(*params), row, strict=True)):
        if values in had:
            yield i, values, None if value is None else float(value)
