"""`python -m tracking history`: measure many commits, so that the dashboard has curves.

asv builds and measures one commit at a time, a file of benchmarks after the other, since it writes results when it
ends: an interruption loses one file's benchmarks of one commit, and the same command goes on behind them. The newest
and the oldest commit come first, then always the middle of the widest gap: the curve is useful early. What is measured
of a commit, benchmark and version is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asv.util import UserError
from rich.console import Console

from tracking import asv_run, commits, machine, models, provenance, report, results
from tracking.command import EXIT_UNMEASURED, amount, perform
from tracking.errors import TrackingError, first_line
from tracking.jumps import on_machine
from tracking.progress import Progress, clock
from tracking.suite import Suite, check_pattern
from tracking.surroundings import IGNORED, locked, surroundings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tracking.commits import Commit
    from tracking.suite import Case

PLACE = Path(".asv") / "history"
MEASURED, FAILED, SKIPPED, OPEN = "measured", "failed", "skipped", "open"
NO_BUILD = "does not build"
MOST_NAMED = 10
EXAMPLE = "example: python -m tracking history --revs main~20..main --only 'Gemv|Decode' --quick"


@dataclass(frozen=True)
class Options:
    """What a history is asked for."""

    revs: tuple[str, ...]
    only: str = ""
    machine: str = ""
    budget: float = math.inf  # hours of this run
    quick: bool = False
    all: bool = False  # also commits that build the same
    retry: bool = False  # also what failed, or was skipped


def main(argv: list[str]) -> int:
    """Parse and measure; 0 when each commit that builds has a result of each benchmark it can run."""
    options = parse(argv)
    console = Console(highlight=False, soft_wrap=True)
    kept = "what was measured is kept, and the same command goes on"
    return perform("history", console, lambda: history(Path.cwd(), options, console), kept=kept)


def parse(argv: list[str]) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tracking history", description="Measure a range of commits.", epilog=EXAMPLE
    )
    add = parser.add_argument
    add("--revs", nargs="+", required=True, help="ranges (main~20..main, along first parents), revisions, or ALL")
    add("--only", default="", help="a regular expression on file.Class.method('parameter', 1)")
    add("--machine", default="", help="asv's name for this machine")
    add("--budget", type=hours, default=math.inf, help="hours after which no further benchmarks are begun")
    add("--quick", action="store_true", help="the tiny preset alone, with half the samples")
    add("--all", action="store_true", help="measure commits too that build the same as the one before them")
    add("--retry", action="store_true", help="measure again what failed, or could not run")
    found = parser.parse_args(argv)
    words = tuple(itertools.chain.from_iterable(text.split() for text in found.revs))
    return Options(**vars(found) | {"revs": words})


def hours(text: str) -> float:
    """A number of hours that something can be measured in."""
    return amount(text, "hours", 1000, "above 0")


def history(root: Path, options: Options, console: Console) -> int:
    """Measure what is missing, publish, and say what was found."""
    commits.check_root(root)
    check_pattern(options.only)
    chosen = commits.several(root, options.revs)
    with locked(root), surroundings(root):
        return History(root, chosen, options, console).run()


# ---- which commits, in which order ----


def different(root: Path, chosen: Sequence[Commit]) -> list[Commit]:
    """The commits that do not build the same as the one before them."""
    found, before = [], None
    for commit in chosen:
        inputs = commits.inputs(root, commit)
        if inputs != before:
            found.append(commit)
        before = inputs
    return found


def bisected(chosen: Sequence[Commit]) -> list[Commit]:
    """The last, the first, then the middle of each gap, the widest gaps first."""
    if not chosen:
        return []
    last = len(chosen) - 1
    order, gaps = [last, 0] if last else [0], [(0, last)]
    while gaps:
        gaps.sort(key=lambda gap: gap[0] - gap[1])
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return [chosen[i] for i in order]


class History:
    """One history, in the order of its steps.

    Attributes
    ----------
    unbuilt : list of (Commit, str)
        What could not be measured at all, and why.
    unrecorded : list of (Commit, str)
        What has results, but no record of where they come from, and why.
    failed : dict of Commit to list of str
        Benchmarks that failed.
    """

    def __init__(self, root: Path, chosen: Sequence[Commit], options: Options, console: Console) -> None:
        self.root, self.chosen = root, chosen
        self.options, self.console = options, console
        self.machine = results.remember_machine(options.machine)
        self.place = root / PLACE / self.machine  # for what asv said
        self.place.mkdir(parents=True, exist_ok=True)
        self.cases: list[Case] = []  # once discovered
        self.unbuilt: list[tuple[Commit, str]] = []
        self.unrecorded: list[tuple[Commit, str]] = []
        self.failed: dict[Commit, list[str]] = {}
        self.seconds: list[float] = []  # of each commit that was measured now
        self.complete = 0  # commits that had nothing missing
        self.begin = time.monotonic()

    def say(self, text: str, style: str = "") -> None:
        """One line, told apart from those of other programs by its beginning."""
        self.console.print(f"history: {text}", markup=False, style=style or None)

    def run(self) -> int:
        """All of it."""
        wanted = self.choose()
        self.look()
        self.model, name = models.choose(self.console, quick=self.options.quick)
        self.say(f"model: {self.model} ({models.KINDS[name]})")
        if name == "given":
            os.environ["BITNET_GGUF"] = str(self.model)
        self.pattern = models.select(name, self.options.only)
        self.suite = Suite(self.root)
        with self.console.status("history: making the benchmark environment, once"):
            self.suite.prepare()
        if name == "given":
            self.refuse_another_model()
        done = self.measure(wanted)
        if self.cases:
            self.publish(wanted)
        return self.conclude(wanted, done)

    def choose(self) -> list[Commit]:
        """The commits to measure, in their order; the rest is named."""
        wanted = list(self.chosen) if self.options.all else different(self.root, self.chosen)
        first, last = self.chosen[0], self.chosen[-1]
        n = len(self.chosen)
        self.say(f"{n} commits from {first.short} to {last.short}" if n > 1 else f"{last.short} ({last.subject})")
        same = [commit.short for commit in self.chosen if commit not in wanted]
        if same:
            self.say(
                f"{len(same)} build the same as the one before them and are left out (--all measures them): "
                + listed(same)
            )
        return bisected(wanted)

    def look(self) -> None:
        """See what may disturb."""
        changed = commits.changed_files(self.root)
        if changed:
            self.say(
                f"the working tree is dirty ({listed(changed, 3)}): commits are measured, so changes of the library "
                "are not; changes of the benchmarks are",
                "yellow",
            )
        for name in IGNORED:
            if os.environ.get(name):
                self.say(f"{name} is ignored: each benchmark names its level and threads", "yellow")
        for text in machine.look().warnings:
            self.say(text, "yellow")

    def refuse_another_model(self) -> None:
        """A series is of one file: values of another one that was given would count as measured."""
        ours = provenance.file_of(self.model, self.root / provenance.HASHES)["sha256"]
        mend = "name a machine for this one (MACHINE=...), or unset BITNET_GGUF"
        for commit in self.chosen:
            place = self.suite.results_dir, self.machine, commit.hash, self.suite.env.name
            try:
                measured = provenance.measured_models(provenance.result_of(*place))
            except (UserError, ValueError):
                continue  # what is damaged is named when it is needed
            given = provenance.models_before(*place).get("given", {})
            if "given" in measured and given.get("sha256", ours) != ours:
                raise TrackingError(f"{commit.short} was measured with another model ({given['file']}): {mend}")
            if "given" in measured and "sha256" not in given:
                raise TrackingError(f"of {commit.short} it is not known which model was given: {mend}")

    # ---- measuring ----

    def measure(self, wanted: Sequence[Commit]) -> int:
        """One commit after the other; how many were looked at before the budget was used."""
        with Progress(self.console, "history", len(wanted)) as progress:
            for done, commit in enumerate(wanted):
                if self.used():
                    return done
                begin = time.monotonic()
                try:
                    if self.measure_one(commit, done, len(wanted), progress):
                        self.seconds.append(time.monotonic() - begin)
                except OutOfTime:
                    return done
                except Unmeasured as error:
                    if asv_run.is_full(self.root):
                        raise TrackingError(asv_run.no_space(self.root)) from None
                    self.unbuilt.append((commit, str(error)))
                    self.say(f"{commit.short} ({commit.subject}): {error}", "red")
        return len(wanted)

    def used(self) -> bool:
        """Whether the budget is."""
        return time.monotonic() - self.begin >= 3600 * self.options.budget

    def measure_one(self, commit: Commit, done: int, total: int, progress: Progress) -> bool:
        """Build a commit and measure what is missing of it; whether anything was."""

        def show(text: str, part: float = 0.0) -> None:
            left = f", {clock(self.left(total - done - part))} left" if self.seconds else ""
            progress.show(f"{commit.short} {commit.subject}: {text}", f"{done} of {total} commits{left}", done + part)

        if not self.cases or self.incomplete(commit):
            show("building")
            self.build(commit)
        groups = self.incomplete(commit)
        if groups:
            show("recording what is measured with")
            self.record(commit, groups)
        for n, (group, cases) in enumerate(groups.items()):
            if self.used():
                raise OutOfTime
            show(group, n / len(groups))
            self.measure_group(commit, cases)
        states = list(self.states(commit).values())
        failed = [case.full for case, state in zip(self.cases, states, strict=True) if state == FAILED]
        if failed:
            self.failed[commit] = failed
        if groups:
            counts = ", ".join(f"{states.count(s)} {s}" for s in (MEASURED, FAILED, SKIPPED, OPEN) if s in states)
            self.say(f"{done + 1} of {total}: {commit.short} ({commit.subject}): {counts}")
        else:
            self.complete += 1
        return bool(groups)

    def record(self, commit: Commit, groups: Mapping[str, Sequence[Case]]) -> None:
        """Where the numbers that follow come from: first, so that an interruption leaves none without."""
        try:
            provenance.save_commit(self.suite, commit, self.machine, itertools.chain.from_iterable(groups.values()))
        except TrackingError as error:
            if asv_run.is_full(self.root):
                raise TrackingError(asv_run.no_space(self.root)) from None
            self.unrecorded.append((commit, str(error)))
            with self.log_of(commit).open("a", encoding="utf-8") as file:
                file.write(f"{error}\n{error.details}\n")

    def build(self, commit: Commit) -> None:
        """Into asv's cache, from which asv installs it, and look what can be measured with it."""
        with tempfile.TemporaryDirectory(dir=self.place) as folder:
            try:
                self.suite.build(commit, "history", Path(folder))
            except TrackingError as error:
                with self.log_of(commit).open("a", encoding="utf-8") as file:
                    file.write(error.details + "\n")
                raise Unmeasured(f"{NO_BUILD}: {asv_run.last_word(error.details or str(error))}") from None
            self.discover(commit)

    def discover(self, commit: Commit) -> None:
        """The benchmarks, once; the same to the end, or the curve would mean two things."""
        if not self.cases:
            self.cases, _ = self.suite.discover(commit, self.pattern)
            self.digest = self.suite.digest()
        elif self.suite.digest() != self.digest:
            raise TrackingError("the benchmarks were changed while they were measured: run the same command again")

    def measure_group(self, commit: Commit, cases: Sequence[Case]) -> None:
        """The cases of one file, by asv, which writes them when it ends."""
        patterns = []
        for _, same in itertools.groupby(cases, key=lambda case: case.name):
            patterns.append(f"^(?:{'|'.join(re.escape(case.full) for case in same)})$")
        args = asv_run.measure_args(commit.hash, patterns, self.machine, quick=self.options.quick)
        log = self.log_of(commit)
        begin = log.stat().st_size if log.exists() else 0
        status = asv_run.run(self.root, args, log=log)
        if status not in (0, 2):
            said = log.read_bytes()[begin:].decode("utf-8", "replace")
            raise Unmeasured(f"asv ended with {status}: {asv_run.last_word(said)}")
        states = self.states(commit)
        nothing = {case.full: self.version(case) for case in cases if states[case.full] == OPEN}
        if nothing:  # asv ran it and had no value: it was skipped
            path = self.skipped_of(commit)
            path.parent.mkdir(parents=True, exist_ok=True)
            report.write_whole(path, json.dumps(self.skipped(commit) | nothing, indent=1))

    def left(self, n: float) -> float:
        """Seconds for so many commits, as long as those before took."""
        return n * sum(self.seconds) / len(self.seconds)

    # ---- what is measured ----

    def incomplete(self, commit: Commit) -> dict[str, list[Case]]:
        """What is missing of a commit, by the file of the benchmark."""
        states = self.states(commit)
        again = {OPEN, FAILED, SKIPPED} if self.options.retry else {OPEN}
        missing = [case for case in self.cases if states[case.full] in again]
        return {name: list(found) for name, found in itertools.groupby(missing, key=lambda case: case.file)}

    def states(self, commit: Commit) -> dict[str, str]:
        """Of each case: measured, failed, skipped, or open."""
        skipped = self.skipped(commit)
        values = self.values(commit)
        found = {}
        for case in self.cases:
            value = values.get(case.full, math.nan)
            if value is None:
                found[case.full] = FAILED
            elif not math.isnan(value):
                found[case.full] = MEASURED
            else:
                found[case.full] = SKIPPED if skipped.get(case.full) == self.version(case) else OPEN
        return found

    def values(self, commit: Commit) -> dict[str, float | None]:
        """What asv's file has of the benchmarks' present versions: null failed, NaN was skipped or never asked for."""
        try:
            return results.values_of(self.suite, commit, self.machine, self.cases)
        except (UserError, ValueError) as error:
            said = first_line(error)
            raise Unmeasured(f"its results file is damaged, remove it to measure again: {said}") from None

    def skipped(self, commit: Commit) -> dict[str, str]:
        """What had no value when it was tried, with its version: asv's files do not tell it from what was not tried."""
        try:
            found = json.loads(self.skipped_of(commit).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # a file that a cut of power damaged is worth one more try
        return found if isinstance(found, dict) else {}

    def version(self, case: Case) -> str:
        """Of the benchmark as it is now."""
        return str(self.suite.benchmarks[case.name]["version"])

    def skipped_of(self, commit: Commit) -> Path:
        """The file for what was skipped, among the results, so that it goes where they go."""
        folder: Path = self.suite.results_dir / self.machine
        return folder / SKIPPED / f"{commit.short}.json"

    def log_of(self, commit: Commit) -> Path:
        """All that asv said of a commit."""
        return self.place / f"{commit.short}.log"

    # ---- the outcome ----

    def publish(self, wanted: Sequence[Commit]) -> None:
        """The dashboard, and what it says of these commits."""
        log = self.place / "publish.log"
        log.unlink(missing_ok=True)
        with self.console.status("history: publishing the dashboard"):
            status = asv_run.run(self.root, ["publish", "--no-pull"], log=log)
        if status:
            raise TrackingError(
                "the dashboard could not be published; what was measured is kept", log.read_text(encoding="utf-8")
            )
        names = {case.full for case in self.cases}
        found = regressions(self.root / self.suite.conf.html_dir, wanted, self.machine, names)
        for line in found[:MOST_NAMED]:
            self.say(f"slower: {line}", "yellow")
        if len(found) > MOST_NAMED:
            self.say(f"and {len(found) - MOST_NAMED} more are slower", "yellow")
        if not found:
            self.say("no regression among these commits")
        self.say("look at the curves: make preview")

    def conclude(self, wanted: Sequence[Commit], done: int) -> int:
        """What could not be measured, and the status."""
        if self.complete:
            self.say(f"{self.complete} of {len(wanted)} commits were complete before")
        for commit, reason in self.unbuilt:
            self.say(f"not measured: {commit.short} ({commit.subject}): {reason}", "red")
        for commit, reason in self.unrecorded:
            self.say(f"where its numbers come from is not recorded: {commit.short} ({commit.subject}): {reason}", "red")
        for commit, failed in self.failed.items():
            log = self.log_of(commit).relative_to(self.root)
            self.say(f"failed on {commit.short}: {listed(failed, 3)}; see {log}", "red")
        if done < len(wanted):
            self.say(f"the budget is used: {done} of {len(wanted)} commits done, the same command goes on", "yellow")
        broken = any(not reason.startswith(NO_BUILD) for _, reason in self.unbuilt)
        nothing = done > 0 and not self.cases
        return EXIT_UNMEASURED if self.failed or self.unrecorded or broken or nothing else 0


class OutOfTime(Exception):  # noqa: N818  # expected
    """The budget is used before a commit is complete."""


class Unmeasured(Exception):  # noqa: N818  # not an error of the history, which goes on
    """Why a commit cannot be measured, in one line."""


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def regressions(html_dir: Path, chosen: Sequence[Commit], machine: str, names: Collection[str]) -> list[str]:
    """What of these benchmarks became worse in one of the commits, as asv finds it, worst first."""
    by_hash = {commit.hash: commit for commit in chosen}
    found = json.loads((html_dir / "regressions.json").read_text("utf-8"))
    hashes: dict[str, str] = json.loads((html_dir / "index.json").read_text("utf-8"))["revision_to_hash"]
    lines: list[tuple[float, str]] = []
    for jump in on_machine(found, machine):
        commit = by_hash.get(hashes[str(jump.since)])
        if commit and jump.name in names:
            where = commit.short if jump.before is None else f"{hashes[str(jump.before)][:8]}..{commit.short}"
            growth = jump.new / jump.old - 1 if jump.old else math.inf
            lines.append((growth, f"{100 * growth:+.1f} % {jump.name} in {where} ({commit.subject})"))
    return [line for _, line in sorted(lines, reverse=True)]
