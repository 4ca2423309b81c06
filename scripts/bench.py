"""`make bench`: find a model, run the asv suite on the checked-out commit, publish the dashboard, print the targets.

Run by the Python of .venv, from anywhere. Everything it makes lies under .asv/, except the synthetic model (in the
cache folder, see BITNET_CACHE_DIR) and what asv remembers of this machine (~/.asv-machine.json, asv's own file).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tracking/ is not installed

from tracking import asv_run, commits, models, surroundings  # noqa: E402
from tracking.command import perform  # noqa: E402
from tracking.errors import TrackingError  # noqa: E402

if TYPE_CHECKING:
    from tracking.commits import Commit
    from tracking.suite import Suite

console = Console(highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """One line of this program, told apart from asv's by its beginning."""
    console.print("[bold]bench:[/bold]", Text(text, style))


def main() -> int:
    """Parse the options and do it all; 0 when every benchmark succeeded, 2 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the tiny preset alone: 2 minutes instead of 10")
    parser.add_argument(
        "--smoke", action="store_true", help="try each tiny benchmark once in this environment, save nothing"
    )
    parser.add_argument("--fresh", action="store_true", help="do not go on where the same run was interrupted")
    parser.add_argument("--only", default="", help="a regular expression; see benchmarks/README.md")
    parser.add_argument("--machine", default="", help="asv's name for this machine")
    options = parser.parse_args()
    kept = "it saves nothing" if options.smoke else "what was measured is kept, and the same command goes on"
    return perform("bench", console, lambda: act(options), kept=kept)


def act(options: argparse.Namespace) -> int:
    """What is asked for."""
    os.chdir(ROOT)
    from tracking.results import remember_machine  # these need asv, which the tests of the rest do without
    from tracking.suite import check_pattern

    check_pattern(options.only)
    machine = remember_machine(options.machine)
    if options.smoke:
        return smoke(machine, options.only)
    with surroundings.locked(ROOT):
        return bench(quick=options.quick, only=options.only, machine=machine, fresh=options.fresh)


def bench(*, quick: bool, only: str, machine: str, fresh: bool) -> int:
    """Measure the commit, publish, print the targets, and say what failed."""
    from tracking.parts import Parts  # these need asv, too
    from tracking.results import values_of
    from tracking.suite import Suite

    commit = commits.find(ROOT, "HEAD")
    say_commit(commit)
    env = asv_environment()
    model, name = models.choose(console, quick=quick)
    say(f"model: {model} ({models.KINDS[name]})")
    if name == "given":
        env["BITNET_GGUF"] = str(model)
    selection = models.select(name, only)
    with surroundings.surroundings(ROOT):
        os.environ.update(env)  # names the model
        suite = Suite(ROOT)
        parts = Parts(suite, commit, machine, selection, quick=quick, model=str(model))
        if fresh:
            parts.forget()
        with console.status("building the commit"):
            cases = parts.discover()
        status, asv = parts.measure(cases, say, env)
        if status not in (0, 2):
            reason = asv_run.no_space(ROOT) if asv_run.is_full(ROOT) else f"asv ended with {status} before it measured"
            say(f"{reason}; to see more: .venv/bin/python -m asv -v {shlex.join(asv)}")
            return status
        recorded = record(suite, commit, machine)
        values = values_of(suite, commit, machine, cases)
    failed = [full for full, value in values.items() if value is None]
    published = asv_run.run(ROOT, ["publish", "--no-pull"], env)
    untargeted = print_targets(model)
    say("open the dashboard with: make preview" if published == 0 else f"asv publish ended with {published}")
    for line in failed:
        say(f"failed: {line}", "red")
    parts.forget()
    return (2 if failed else status) or recorded or published or untargeted


def smoke(machine: str, only: str) -> int:
    """Every benchmark of the tiny preset once, with the package as it lies here; asv's status 2 means one failed."""
    env = asv_environment() | {"BITNET_BENCH_SECONDS": "0"}
    command = ["run", "--environment", f"existing:{sys.executable}", "--quick", "--dry-run", "--show-stderr"]
    return asv_run.run(ROOT, [*command, "-b", models.select("tiny", only), "--machine", machine], env)


def say_commit(commit: Commit) -> None:
    """Name the commit that is measured, and what is not measured because it is not committed."""
    changed = commits.changed_files(ROOT)
    files = f"{len(changed)} file{'s' if len(changed) > 1 else ''}"
    dirty = f"; the working tree is dirty: what is not committed ({files}) is not measured"
    say(f"measuring commit {commit.short} ({commit.subject}){dirty if changed else ''}", "yellow" if changed else "")


def asv_environment() -> dict[str, str]:
    """The variables asv and everything below it runs with."""
    for name in surroundings.IGNORED:
        if os.environ.get(name):
            say(f"{name} is ignored: a series always means the machine's best kernels, and names its threads")
    return surroundings.asv_environment(ROOT)


def record(suite: Suite, commit: Commit, machine: str) -> int:
    """Where the numbers of this run come from, beside them; 1 when it cannot be told."""
    from tracking import provenance

    try:
        with console.status("recording what was measured with"):
            provenance.save_commit(suite, commit, machine)
    except TrackingError as error:
        console.print(error.details, markup=False, style="dim")
        say(f"what was measured with could not be recorded: {error}", "red")
        return 1
    return 0


def print_targets(model: Path) -> int:
    """The contract's table for the model, one line a metric, by the package as it lies here; 1 if it cannot be run."""
    from bitnet_core import targets
    from bitnet_core.exceptions import BitNetError

    try:
        with console.status("measuring the targets") as status:
            report = targets.measure(model, progress=lambda step: status.update(f"measuring the targets: {step}"))
    except (BitNetError, OSError, ValueError) as error:
        say(f"the targets could not be measured: {error}", "red")
        return 1
    say("the targets, measured just now by the package as it lies here, apart from asv's runs:")
    console.print(report.table(), markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
