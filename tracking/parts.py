"""One commit measured file by file of benchmarks: asv writes when it ends, so an interruption loses one file's.

What an interrupted run measured is noted in .asv/bench/<machine>/<commit>-<what>.json, and the same run again goes on
behind it. A run that reaches its end forgets that, for to run it again is to measure again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tracking import asv_run, provenance, report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracking.commits import Commit
    from tracking.suite import Case, Suite


class Parts:
    """A measurement of one commit.

    Parameters
    ----------
    suite : Suite
        The benchmarks.
    commit : Commit
        What is measured.
    machine : str
        As asv knows it.
    selection : str
        A regular expression, as asv's -b takes it.
    quick : bool
        With half the samples.
    model : str
        Which one is measured: a run with another goes on behind nothing.
    """

    def __init__(self, suite: Suite, commit: Commit, machine: str, selection: str, *, quick: bool, model: str) -> None:
        self.suite, self.commit, self.machine = suite, commit, machine
        self.selection, self.quick = selection, quick
        self.written = provenance.result_of(suite.results_dir, machine, commit.hash, suite.env.name)
        run = [commit.hash, suite.env.name, selection, str(quick), model, suite.digest()]
        what = hashlib.sha256(json.dumps(run).encode()).hexdigest()[:12]
        self.note = suite.root / ".asv" / "bench" / machine / f"{commit.short}-{what}.json"

    def measure(
        self, cases: Sequence[Case], say: Callable[[str], None], env: Mapping[str, str]
    ) -> tuple[int, list[str]]:
        """Run what is not done of their files; asv's status, 2 where a benchmark failed, and its last arguments."""
        names = [name for name, _ in itertools.groupby(case.file for case in cases)]
        done = self.done()
        if done:
            say(f"{', '.join(done)}: measured by the run that was interrupted (FRESH=1 measures all again)")
        worst, args = 0, list[str]()
        for n, name in enumerate(names, 1):
            if name in done:
                continue
            say(f"{n} of {len(names)} files of benchmarks: {name}")
            args = asv_run.measure_args(
                self.commit.hash, [pattern(name, self.selection)], self.machine, quick=self.quick
            )
            status = asv_run.run(self.suite.root, args, dict(env))
            if status not in (0, 2):
                return status, args
            worst = max(worst, status)
            done.append(name)
            self.note.parent.mkdir(parents=True, exist_ok=True)
            report.write_whole(self.note, json.dumps(done))
        return worst, args

    def discover(self) -> list[Case]:
        """The selected benchmarks; the commit is built for it."""
        self.suite.prepare()
        with tempfile.TemporaryDirectory() as folder:
            self.suite.build(self.commit, "measured", Path(folder))
        cases, _ = self.suite.discover(self.commit, self.selection)
        return cases

    def done(self) -> list[str]:
        """What the same run measured before it was interrupted, and is still there."""
        try:
            found: list[str] = json.loads(self.note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []
        return found if self.written.is_file() else []

    def forget(self) -> None:
        """The run is at its end, or is to begin again."""
        self.note.unlink(missing_ok=True)


def pattern(name: str, selection: str) -> str:
    """What selects the same, of one file."""
    return rf"(?={re.escape(name)}\.){selection}"
