"""`make bench`: find a model, run the asv suite on the checked-out commit, publish the dashboard, print the targets.

Run by the Python of .venv, from anywhere. Everything it makes lies under .asv/, except the synthetic model (in the
cache folder, see BITNET_CACHE_DIR) and what asv remembers of this machine (~/.asv-machine.json, asv's own file).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tracking/ is not installed

from tracking import surroundings  # noqa: E402
from tracking.surroundings import IGNORED  # noqa: E402

RESULTS = ROOT / ".asv" / "results"
console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line of this program, told apart from asv's by its beginning."""
    console.print(f"[bold]bench:[/bold] {text}")


def main() -> int:
    """Parse the options and do it all; 0 when every benchmark succeeded."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the tiny preset alone: 2 minutes instead of 10")
    parser.add_argument(
        "--smoke", action="store_true", help="try each tiny benchmark once in this environment, save nothing"
    )
    parser.add_argument("--only", default="", help="a regular expression; see benchmarks/README.md")
    parser.add_argument("--machine", default=platform.node() or "unnamed", help="asv's name for this machine")
    options = parser.parse_args()
    os.chdir(ROOT)
    from tracking.results import remember_machine  # needs asv, which the tests of the rest do without

    machine = remember_machine(options.machine)
    if options.smoke:
        return smoke(machine, options.only)
    return bench(quick=options.quick, only=options.only, machine=machine)


def bench(*, quick: bool, only: str, machine: str) -> int:
    """Measure the commit, publish, print the targets, and say what failed."""
    commit = say_commit()
    env = asv_environment()
    model, name = choose_model(quick=quick)
    if name == "given":
        env["BITNET_GGUF"] = str(model)
    selection = select(name, only)
    # Samples are recorded so that two commits can be compared by a test of significance, not by their medians alone.
    asv = [
        "run",
        f"{commit}^!",
        "-b",
        selection,
        "--machine",
        machine,
        "--record-samples",
        "--show-stderr",
        "--no-pull",
    ]
    if quick:
        asv += ["--attribute", "rounds=1"]  # half the samples, and half the time
    status = run_asv(asv, env)
    failed = failures(RESULTS / machine, commit, selection) if status == 2 else []
    if status not in (0, 2):
        say(f"asv ended with {status} before it measured; its reason: .venv/bin/python -m asv -v {' '.join(asv)!r}")
        return status
    published = run_asv(["publish", "--no-pull"], env)
    untargeted = print_targets(model)
    say("open the dashboard with: make preview" if published == 0 else f"asv publish ended with {published}")
    for line in failed:
        say(f"[red]failed[/red]: {line}")
    return status or published or untargeted


def smoke(machine: str, only: str) -> int:
    """Every benchmark of the tiny preset once, with the package as it lies here; asv's status 2 means one failed."""
    env = asv_environment() | {"BITNET_BENCH_SECONDS": "0"}
    command = ["run", "--environment", f"existing:{sys.executable}", "--quick", "--dry-run", "--show-stderr"]
    return run_asv([*command, "-b", select("tiny", only), "--machine", machine], env)


# ---- what is measured ----


def git(*args: str) -> str:
    """What git says, without the line's end; its own message stands on stderr when it fails."""
    done = subprocess.run(["git", *args], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("bench: asv measures commits, so it needs a git checkout with at least one commit")
    return done.stdout.rstrip("\n")


def say_commit() -> str:
    """Name the commit that is measured, and what is not measured because it is not committed."""
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain").splitlines()
    subject = git("log", "-1", "--format=%s")
    files = f"{len(changed)} file{'s' if len(changed) > 1 else ''}"
    dirty = f"; [yellow]the working tree is dirty: what is not committed ({files}) is not measured[/yellow]"
    say(f"measuring commit {commit[:8]} ({subject}){dirty if changed else ''}")
    return commit


def choose_model(*, quick: bool) -> tuple[Path, str]:
    """The model for this run and its name among the benchmarks' parameters: "tiny", "given" or "2b"."""
    from bitnet_core import ModelNotFoundError, discovery, synthetic

    if quick:
        path, name = synthetic.cached_model("tiny"), "tiny"
    else:
        try:
            path, name = discovery.find_model().resolve(), "given"
        except ModelNotFoundError:
            path, name = written_model(synthetic), "2b"
        except FileNotFoundError as error:
            sys.exit(f"bench: {error}")
    kind = (
        "found"
        if name == "given"
        else f"synthetic, random weights in the shape of {'2B-4T' if name == '2b' else 'a toy'}"
    )
    say(f"model: {path} ({kind})")
    return path, name


def written_model(synthetic: Any) -> Path:
    """The synthetic 2b model; a progress bar shows while it is written, which happens once."""
    columns = (TextColumn("[bold]bench:[/bold] writing the synthetic 2b model"), BarColumn(), DownloadColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # not before there is something to show
        bar.update(task, completed=done, total=total)

    try:
        return synthetic.cached_model("2b", progress=show)
    finally:
        bar.stop()


def select(name: str, only: str = "") -> str:
    """The regular expression by which asv chooses parameters: those of tiny, and of the model that is there.

    A parameter that belongs to a model begins with the model's name (see benchmarks/common.py). What is not chosen
    keeps its earlier result, so that a quick run never erases a full one. "2b" and "given" share the shapes of 2b.
    """
    left_out = {
        "tiny": "'(2b|given)",
        "2b": "'given'" if cached_qk256() else "'(given|2b-qk256)'",
        "given": "'(2b|2b-qk256)'",
    }
    return f"^(?!.*{left_out[name]})(?=.*(?:{only}))"


def cached_qk256() -> bool:
    """Whether the synthetic 2b model in QK256 was written earlier; it is measured only then."""
    from bitnet_core import synthetic

    return synthetic.cached_path("2b", dtype="qk256").is_file()


# ---- asv ----


def asv_environment() -> dict[str, str]:
    """The variables asv and everything below it runs with."""
    for name in IGNORED:
        if os.environ.get(name):
            say(f"{name} is ignored: a series always means the machine's best kernels, and names its threads")
    return surroundings.asv_environment(ROOT)


def run_asv(args: list[str], env: dict[str, str]) -> int:
    """Run an asv command in the repository's root; what it prints is seen as it comes."""
    console.file.flush()
    return subprocess.run([sys.executable, "-m", "asv", *args], env=env, cwd=ROOT, check=False).returncode


def failures(folder: Path, commit: str, selection: str) -> list[str]:
    """The selected benchmarks, with parameters, that have no result: in asv's files null failed, NaN was skipped."""
    failed = []
    for path in sorted(folder.glob(f"{commit[:8]}-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        columns = found["result_columns"]
        for name, row in found["results"].items():
            record = dict(zip(columns, row, strict=False))
            combinations = list(itertools.product(*(record.get("params") or [])))
            values = record.get("result") or [None] * len(combinations)
            for combination, value in zip(combinations, values, strict=True):
                full = f"{name}({', '.join(combination)})" if combination else name
                if value is None and re.search(selection, full):
                    failed.append(full)
    return failed


# ---- targets ----


def print_targets(model: Path) -> int:
    """The contract's table for the model, one line a metric, by the package as it lies here; 1 if it cannot be run."""
    from bitnet_core import targets
    from bitnet_core.exceptions import BitNetError

    try:
        with console.status("measuring the targets") as status:
            report = targets.measure(model, progress=lambda step: status.update(f"measuring the targets: {step}"))
    except (BitNetError, OSError, ValueError) as error:
        say(f"[red]the targets could not be measured[/red]: {error}")
        return 1
    console.print(report.table(), markup=False)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; nothing of this run was kept")
