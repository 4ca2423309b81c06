"""One side of a review: a process in that side's environment that runs slices of benchmarks when it is told to.

    python worker.py BENCHMARK_DIR [ORDER]

Run by the environment's Python, where nothing but asv_runner and the benchmarks' own needs are installed, so this file
imports nothing of its package. Orders and replies are JSON, a line each, on stdin and stdout:

    {"open": {...}}     fork, set the benchmark up    {"open": true} or {"skip": why}
    {"slice": seconds,  run it for about so long,     {"values": [...], "moved": {...}}
     "turn": n}         begun on the nth processor
    {"close": true}     tear it down, end the fork    {"closed": true}
    {"cache": {...}}    run a setup_cache             {"cached": true}

Whatever goes wrong is the reply {"error": text}, and ends the fork. Imports are done once in this process; each fork
starts from them in milliseconds, holds its own memory, and takes nothing else with it when it crashes. A benchmark
that measures the process's own memory gets a new interpreter instead ("fresh").
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

del sys.path[0]  # this file's folder: its neighbours are not for the benchmarks

from asv_runner.discovery import get_benchmark_from_name  # noqa: E402
from asv_runner.setup_cache import _setup_cache  # noqa: E402

# asv's timed kinds would calibrate and warm up for seconds; here each run is one sample.
ONE_SAMPLE = {"repeat": 1, "warmup_time": 0, "rounds": 1}


def main() -> int:
    """Answer orders until there are none."""
    benchmark_dir = sys.argv[1]
    # Benchmarks may print: that goes to the log with stderr, replies go where stdout was.
    replies = os.dup(1)
    os.dup2(2, 1)
    if len(sys.argv) > 2:  # a fresh interpreter for one benchmark; its stdout is the replies' end
        serve(benchmark_dir, json.loads(sys.argv[2]), replies)
        return 0
    import_suite(benchmark_dir)
    reply(replies, {"ready": os.getpid()})
    for order in orders():
        if "open" in order:
            status = in_fresh(benchmark_dir, order["open"], replies) if order["open"]["fresh"] else None
            if status is None:
                status = in_fork(serve, benchmark_dir, order["open"], replies)
        else:
            status = in_fork(make_cache, benchmark_dir, order["cache"], replies)
        if status:
            reply(replies, {"error": ended(status)})
    return 0


def orders() -> Iterator[dict[str, Any]]:
    """Each order as it comes. Unbuffered, since forks read from the same place."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        while line := stdin.readline():
            yield json.loads(line)


def reply(out: int, message: dict[str, Any]) -> None:
    """One line, at once."""
    data = (json.dumps(message) + "\n").encode()
    while data:
        data = data[os.write(out, data) :]


def import_suite(benchmark_dir: str) -> None:
    """Import what every fork would import again; what fails here fails there too, and is reported then."""
    names = sorted(path.stem for path in Path(benchmark_dir).glob("*.py") if path.stem != "__init__")
    for name in names:
        with contextlib.suppress(Exception):
            get_benchmark_from_name(benchmark_dir, f"{name}.no_such_benchmark")


# ---- processes ----


def in_fork(run: Callable[..., None], *args: Any) -> int:
    """Run in a forked child; its wait status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run(*args)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def in_fresh(benchmark_dir: str, order: dict[str, Any], replies: int) -> int:
    """Run in a new interpreter; its wait status."""
    command = [sys.executable, __file__, benchmark_dir, json.dumps(order)]
    code = subprocess.run(command, stdout=replies, check=False).returncode
    return -code if code < 0 else code << 8


def ended(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"the benchmark's process was ended by signal {os.WTERMSIG(status)}"
    return f"the benchmark's process ended with status {os.waitstatus_to_exitcode(status)}"


# ---- one benchmark ----


def make_cache(benchmark_dir: str, order: dict[str, Any], replies: int) -> None:
    """Run a setup_cache in the folder where its users will look for it."""
    try:
        os.chdir(order["folder"])
        _setup_cache((benchmark_dir, order["id"], "{}"))
    except Exception:
        reply(replies, {"error": traceback.format_exc()})
    else:
        reply(replies, {"cached": True})


def serve(benchmark_dir: str, order: dict[str, Any], replies: int) -> None:
    """Set one combination of parameters up, and run slices of it until it is closed."""
    benchmark = None
    try:
        os.chdir(order["folder"])
        benchmark = get_benchmark_from_name(benchmark_dir, order["id"], extra_params=ONE_SAMPLE)
        benchmark.set_cache(pickle.loads(Path("cache.pickle").read_bytes()) if order["cached"] else None)
        reason = skip_reason(benchmark)
        reply(replies, {"open": True} if reason is None else {"skip": reason})
        if reason is None:
            answer_slices(benchmark, replies)
    except Exception:
        reply(replies, {"error": traceback.format_exc()})


def skip_reason(benchmark: Any) -> str | None:
    """Set up; why the benchmark skips itself, if it does. asv prints the exception, of which people want the words."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        skipped = benchmark.do_setup()
    sys.stderr.write(said.getvalue())
    if not skipped:
        return None
    reason = said.getvalue().strip().removeprefix("asv: skipped: ")
    words = re.fullmatch(r"""NotImplementedError\((['"])(.*)\1\)""", reason, re.DOTALL)
    return (words[2] if words else reason) or "never makes sense (skip_params)"


def answer_slices(benchmark: Any, replies: int) -> None:
    """Until closed; then torn down."""
    for order in orders():
        if "close" in order:
            benchmark.do_teardown()
            reply(replies, {"closed": True})
            return
        begin_on(order["turn"])
        reply(replies, run_slice(benchmark, order["slice"]))


def begin_on(turn: int) -> None:
    """Move this thread to the processor whose turn it is, and leave it free to go where it might before.

    Two processes that run in turn keep a processor each, and of two processors of a virtual machine one may be slower
    for as long as a neighbour's work shares its core: a difference between processors that looks like one of the sides.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        try:
            os.sched_setaffinity(0, {allowed[turn % len(allowed)]})
        except OSError:  # some containers forbid it: then rounds spread more, and more of them are needed
            return
        os.sched_setaffinity(0, allowed)


def run_slice(benchmark: Any, seconds: float) -> dict[str, Any]:
    """Values of about so many seconds, at least one; and what else the process did, a value each."""
    os.environ["BITNET_BENCH_SECONDS"] = repr(seconds)  # benchmarks/common.py samples so long
    values: list[float] = []
    before, begin = counters(), time.perf_counter()
    while not values or time.perf_counter() - begin < seconds:
        result = benchmark.do_run()
        values += result["samples"] if isinstance(result, dict) else [result]
    after = counters()
    moved = {name: (after[name] - before[name]) / len(values) for name in before}
    return {"values": [float(value) for value in values], "moved": moved}


def counters() -> dict[str, float]:
    """What this process and its ended children have done so far; the names stand in the report."""
    found = {"CPU seconds": 0.0, "page faults": 0.0, "page faults from disk": 0.0, "context switches": 0.0}
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        found["CPU seconds"] += usage.ru_utime + usage.ru_stime
        found["page faults"] += usage.ru_minflt
        found["page faults from disk"] += usage.ru_majflt
        found["context switches"] += usage.ru_nvcsw + usage.ru_nivcsw
    with contextlib.suppress(OSError):  # Linux alone, and not in every container
        rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
        found["bytes read"] = float(rows["rchar"])
        found["bytes from disk"] = float(rows["read_bytes"])
    return found


if __name__ == "__main__":
    sys.exit(main())
