"""`python -m tracking review`: two commits, a verdict for each benchmark.

asv builds both and finds the benchmarks; a pair of workers makes rounds (pair.py), which are kept as they come
(rounds.py); a verdict follows from the rounds of a benchmark (verdict.py) and ends its measuring; the others get more
until the budget is used. Run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import platform
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from tracking import commits, machine, provenance, report, results, verdict
from tracking.command import amount, perform
from tracking.errors import TrackingError
from tracking.pair import Pair
from tracking.progress import Progress, clock
from tracking.rounds import Store
from tracking.suite import Suite, check_pattern
from tracking.surroundings import IGNORED, locked, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracking.commits import Commit
    from tracking.report import Report
    from tracking.rounds import Round
    from tracking.suite import Case, Side

CHANGED = {verdict.WORSE, verdict.BETTER}
PLACE = Path(".asv") / "review"
# What can be decided within the default budget; ONLY=. is all. Left out: what does not change with our commits (other
# projects, the machine itself), what is measured a second time beside the machine's limit (roofline: the dashboard's),
# of the grid of kernels all but one large shape on one thread, since the engine's benchmarks have more threads, and
# tails: in 20 minutes 14 of them took a sixth of the time and none was decided.
DEFAULT_BENCH = r"^(?!peers\.|canary\.|roofline\.)(?!.*_p95\b|.*'gguf')(?!kernels\.(?!.*'2b/ffn_down 2560x6912', 1\b))"
# What a time that changed is held against, when it was not asked for: counts, so one round of them is enough.
COUNTS = r"^instructions\."


@dataclass(frozen=True)
class Options:
    """What a review is asked for."""

    base: str = ""  # "": the parent of head
    head: str = "HEAD"
    bench: str = DEFAULT_BENCH
    budget: float = 20.0  # minutes of measuring, all runs of this review together
    fresh: bool = False  # forget earlier rounds
    machine: str = ""
    name: str = ""  # tells reviews of the same commits apart
    keep_results: bool = True  # in asv's files
    with_counts: bool = True  # what else moved, when a time changed


def main(argv: list[str]) -> int:
    """Parse, review, and end with the report's status; what a person can mend is one line and status 2."""
    options = parse(argv)
    console = Console(highlight=False, soft_wrap=True)
    kept = "its rounds are kept, and the same command goes on with them"
    return perform("review", console, lambda: review(Path.cwd(), options, console).status, kept=kept)


def parse(argv: list[str]) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tracking review", description="Compare two commits.")
    add = parser.add_argument
    add("--base", default="", help="the revision to compare with; the parent of HEAD when there is none")
    add("--head", default="HEAD", help="the revision that is judged (default: HEAD)")
    add(
        "--bench",
        default=DEFAULT_BENCH,
        help="a regular expression on file.Class.method('parameter', 1); "
        "the default is what 20 minutes can decide, . is all",
    )
    add("--budget", type=minutes, default=20.0, help="minutes of measuring (default: 20)")
    add("--fresh", action="store_true", help="forget the rounds of an earlier run")
    add("--machine", default="", help="asv's name for this machine")
    found = parser.parse_args(argv)
    return Options(**{key: value for key, value in vars(found).items() if value != ""} | {"base": found.base})


def minutes(text: str) -> float:
    """A number of minutes that something can be measured in."""
    return amount(text, "minutes", 7 * 24 * 60, "above 0 and below a week")


def review(root: Path, options: Options, console: Console) -> Report:
    """Measure until all is decided or the budget used, then write everything that a review leaves."""
    commits.check_root(root)
    check_pattern(options.bench)
    head = commits.find(root, options.head)
    base = commits.find(root, options.base) if options.base else commits.parent(root, head)
    if base.hash == head.hash:
        raise TrackingError(f"{base.name} and {head.name} are the same commit, {head.short}: nothing to compare")
    folder = root / PLACE / folder_name(base, head, options)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(root):
        return Review(root, folder, base=base, head=head, options=options, console=console).run()


def folder_name(base: Commit, head: Commit, options: Options) -> str:
    """Where the rounds of a review lie: another selection is another review."""
    parts = [base.short, head.short]
    if options.bench != DEFAULT_BENCH:
        parts.append(hashlib.sha256(options.bench.encode()).hexdigest()[:6])
    return "-".join([*parts, options.name] if options.name else parts)


class Review:
    """One review, in the order of its steps."""

    def __init__(
        self, root: Path, folder: Path, *, base: Commit, head: Commit, options: Options, console: Console
    ) -> None:
        self.root, self.folder = root, folder
        self.base, self.head = base, head
        self.options, self.console = options, console
        self.notes: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        """One line, told apart from those of other programs by its beginning."""
        self.console.print(f"review: {text}", markup=False, style=style or None)

    def note(self, text: str) -> None:
        """A line that also belongs into the report."""
        self.notes.append(text)
        self.say(text, "yellow")

    def run(self) -> Report:
        """All of it."""
        self.say(f"{self.head.short} ({self.head.subject}) against {self.base.short} ({self.base.subject})")
        if self.options.keep_results:
            self.series = results.remember_machine(self.options.machine)
        self.look()
        with surroundings(self.root):
            suite = Suite(self.root)
            sides = self.build(suite)
            cases, counts = suite.discover(self.head, self.options.bench, COUNTS)
            store = self.open_store(suite)
            self.measure(suite, sides, cases, store)
            if self.options.with_counts:
                self.count(suite, sides, cases, counts, store)
            found = self.conclude(cases, counts, store, sides)
            report.save(found, self.folder)
            report.print_table(found, self.console)
            if self.options.keep_results:
                self.save_results(suite, store, sides)
        where = self.folder.relative_to(self.root)
        results_too = ", and asv's results of both commits" if self.options.keep_results else ""
        self.say(f"written: {where}/review.md, review.json{results_too}")
        return found

    def look(self) -> None:
        """See what may disturb."""
        if commits.inputs(self.root, self.base) == commits.inputs(self.root, self.head):
            self.note("both commits build the same: a difference between them would be chance, or the build's own")
        changed = commits.changed_files(self.root)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            self.note(
                f"the working tree is dirty ({', '.join(changed[:3])}{more}): commits are measured, so changes of the "
                "library are not; changes of the benchmarks are"
            )
        for name in IGNORED:
            if os.environ.get(name):
                self.note(f"{name} is ignored: each benchmark names its level and threads")
        self.machine = machine.look()
        for text in self.machine.warnings:
            self.say(text, "yellow")

    def build(self, suite: Suite) -> tuple[Side, Side]:
        """Both sides, ready to be imported; head last, since asv then finds it installed."""
        with self.console.status("review: making the benchmark environment, once"):
            suite.prepare()
        sides = []
        for commit, label in ((self.base, "base"), (self.head, "head")):
            with self.console.status(f"review: building {commit.short}"):
                sides.append(suite.build(commit, label, self.folder))
        return sides[0], sides[1]

    def open_store(self, suite: Suite) -> Store:
        """The rounds so far."""
        key = {"base": self.base.hash, "head": self.head.hash, "suite": suite.digest(), "machine": platform.node()}
        given = os.environ.get("BITNET_GGUF")
        if given and Path(given).is_file():
            key["given"] = provenance.file_of(Path(given), self.root / provenance.HASHES)["sha256"]
        store = Store(self.folder / "rounds.jsonl", key, fresh=self.options.fresh)
        self.skipped_before = {
            full for full, rounds in store.by_benchmark.items() if any(one.skipped for one in rounds)
        }
        if store.set_aside:
            self.note(
                "the benchmarks, or the model that is given, changed since the earlier rounds, which are kept in "
                f"{store.set_aside.name}"
            )
        if store.rounds:
            self.say(f"going on with {len(store.rounds)} rounds of {store.seconds / 60:.1f} minutes")
        return store

    # ---- measuring ----

    def measure(self, suite: Suite, sides: tuple[Side, Side], cases: list[Case], store: Store) -> None:
        """Passes over what is undecided, each with new workers, until there is none or no time."""
        begin, before = time.monotonic(), max(store.spent, seconds_of(cases, store))

        def left() -> float:
            return 60 * self.options.budget - before - (time.monotonic() - begin)

        if left() <= 0:
            self.say(f"the budget of {self.options.budget:g} minutes is used; a larger BUDGET goes on")
            return
        watch = machine.Steal()
        seconds = 60 * self.options.budget
        progress = Progress(self.console, "review", seconds)
        with spending(store, begin, before), progress, Pair(suite, sides, self.folder) as pair:
            n_pass = 0
            while left() > 0 and (wanted := self.wanted(cases, store, left())):
                n_pass += 1
                done = self.n_done(cases, store)
                pair.renew()
                for case in wanted:
                    if left() <= 0:
                        break
                    state = f"{done} of {len(cases)} done, {clock(left())} left"
                    progress.show(f"pass {n_pass}: {case.full}", state, seconds - left())
                    n_before = len(store.by_benchmark.get(case.full, []))
                    store.add(pair.round(case, "head" if n_before % 2 else "base"))
                    self.skipped_before.discard(case.full)
        if watch.percent() > machine.MUCH_STEAL:
            self.note(f"the hypervisor took {watch.percent():.0f} % of the processors away while it was measured")

    def wanted(self, cases: list[Case], store: Store, left: float) -> list[Case]:
        """What the next pass measures: all that is new, and what may be decided in the time left, cheapest first."""
        rounds = store.by_benchmark
        verdicts = self.verdicts(cases, store)
        needs = []
        for case in cases:
            found = rounds.get(case.full, [])
            # What was missing, a model or a program, may be there now.
            if not found or case.full in self.skipped_before:
                needs.append((0.0, case))
            elif case.full in verdicts and not verdicts[case.full].decided:
                cost = statistics.median(one.seconds for one in found)
                needs.append((cost * verdict.rounds_to_go(found, case.unit), case))
        chosen: list[Case] = []
        for need, case in sorted(needs, key=lambda item: item[0]):
            left -= need
            if left > 0 or not chosen:
                chosen.append(case)
        return chosen

    def verdicts(self, cases: list[Case], store: Store) -> dict[str, verdict.Verdict]:
        """Of each benchmark that both sides can run. What is skipped is not counted as tested."""
        rounds = store.by_benchmark
        measurable = [case for case in cases if all(one.measured for one in rounds.get(case.full, []))]
        return {case.full: verdict.decide(rounds.get(case.full, []), case.unit, len(measurable)) for case in measurable}

    def n_done(self, cases: list[Case], store: Store) -> int:
        """How many need no more rounds."""
        verdicts = self.verdicts(cases, store)
        return sum(case.full not in verdicts or verdicts[case.full].decided for case in cases)

    def count(
        self, suite: Suite, sides: tuple[Side, Side], cases: list[Case], counts: list[Case], store: Store
    ) -> None:
        """When a time changed: what both sides count, once each, since a count says whether it is the code's own."""
        verdicts = self.verdicts(cases, store)
        changed = any(
            case.unit not in verdict.COUNTED and verdicts[case.full].word in CHANGED
            for case in cases
            if case.full in verdicts
        )
        known = {one.full for one in store.rounds if one.measured or one.failed}
        wanted = [case for case in counts if case.full not in known]
        if not changed or not wanted:
            return
        with self.console.status("") as status, Pair(suite, sides, self.folder) as pair:
            for i, case in enumerate(wanted):
                status.update(escape(f"review: what else moved: {case.full}, {len(wanted) - i} left"))
                store.add(pair.round(case, "base"))
        outcomes = [found for case in counts for found in store.by_benchmark[case.full]]
        for found in outcomes:
            if found.failed:
                self.note(f"{found.full} could not be counted: {report.by_side(found.failed)}")
        if all(found.skipped for found in outcomes):
            self.note(f"instructions could not be counted: {report.by_side(outcomes[0].skipped)}")

    # ---- the outcome ----

    def conclude(self, cases: list[Case], counts: list[Case], store: Store, sides: tuple[Side, Side]) -> Report:
        """The report."""
        rounds = store.by_benchmark
        verdicts = self.verdicts(cases, store)
        rows = [
            report.make_row(
                case,
                rounds.get(case.full, []),
                verdicts.get(case.full),
                report.again_command(self.base.short, self.head.short, case.full),
            )
            for case in cases
        ]
        add_counts(rows, [found for case in counts for found in rounds.get(case.full, []) if found.measured])
        base, head = (describe(side) for side in sides)
        spent = seconds_of(cases, store) / 60
        return report.Report(base, head, self.machine.as_dict(), models_of(rows), self.notes, spent, rows)

    def save_results(self, suite: Suite, store: Store, sides: tuple[Side, Side]) -> None:
        """Asv's files of both commits, and where their numbers come from."""
        rounds: dict[str, list[Round]] = store.by_benchmark
        for side in sides:
            results.save(suite, side.commit, side.label, rounds, self.series)
            provenance.save(suite, side, self.series)


@contextlib.contextmanager
def spending(store: Store, begin: float, before: float) -> Iterator[None]:
    """However it ends, what of the budget is used by then stands with the rounds."""
    try:
        yield
    finally:
        store.spend(before + time.monotonic() - begin)


def seconds_of(cases: Sequence[Case], store: Store) -> float:
    """What the rounds of these benchmarks took; what was counted on top of them is beyond the budget."""
    return sum(one.seconds for case in cases for one in store.by_benchmark.get(case.full, []))


def describe(side: Side) -> dict[str, str]:
    """A commit and its build, for the report."""
    return {
        "commit": side.commit.hash,
        "short": side.commit.short,
        "subject": side.commit.subject,
        "compiler": machine.compiler_of(side),
        "isa": machine.isa_of(side),
    }


def add_counts(rows: Sequence[report.Row], counted: Sequence[Round]) -> None:
    """To each time that changed, what changed among bytes and instructions."""
    moved = [
        f"{row.benchmark} {report.percent(row.ratio or 1.0)}"
        for row in rows
        if row.unit in verdict.COUNTED and row.word in CHANGED
    ]
    least = verdict.LIMITS["instructions"].least
    ratios = {found.full: math.exp(verdict.log_ratio(found)) for found in counted}
    moved += [f"{name} {report.percent(ratio)}" for name, ratio in ratios.items() if abs(ratio - 1) > least]
    if ratios and not moved:
        moved = [f"instructions: unchanged in the {len(ratios)} hot paths that were counted"]
    for row in rows:
        if row.unit not in verdict.COUNTED and row.word in CHANGED:
            row.moved += moved


def models_of(rows: Sequence[report.Row]) -> list[str]:
    """The models that were measured, and the file of the one that was given."""
    used = [row.benchmark for row in rows if row.ratio is not None]
    found = [name for name in provenance.MODELS if any(re.search(rf"'{name}'", full) for full in used)]
    return [f"given ({os.environ.get('BITNET_GGUF')})" if name == "given" else name for name in found]
