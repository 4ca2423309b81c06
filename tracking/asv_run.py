"""Running asv's commands, and what they leave: the status and the log."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tracking.asv_command import EXIT_FULL
from tracking.errors import TrackingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMAND = Path(__file__).with_name("asv_command.py")
PATIENCE = 20.0  # seconds that an interrupted asv has to end its workers
# What pip says of a failure below it, which has the reason.
PIP = re.compile(
    r"ERROR: Failed (to build|building)|subprocess-exited-with-error|note: This error originates|exit code: "
    r"|did not run successfully"
)
SPACE = 64 << 20  # bytes; with less than this free, whatever failed did so for want of it


def run(root: Path, args: Sequence[str], env: dict[str, str] | None = None, log: Path | None = None) -> int:
    """Run an asv command in the repository; its status.

    What it says is seen as it comes, or is added to the log. It gets a session of its own, so that Ctrl-C reaches it
    from here alone, once, and it can end its workers.
    """
    with _opened(log) as out:
        # What is inherited is the lock: should this process be killed, the checkout is free when asv ends too.
        process = subprocess.Popen(
            [sys.executable, str(COMMAND), *args],
            cwd=root,
            env=env,
            stdout=out,
            stderr=out and subprocess.STDOUT,
            start_new_session=True,
            close_fds=False,
        )
        try:
            status = process.wait()
        except BaseException:
            _end(process)
            raise
    if status == EXIT_FULL:
        raise TrackingError(no_space(root), log.read_text(encoding="utf-8", errors="replace") if log else "")
    return status


def measure_args(commit: str, patterns: Sequence[str], machine: str, *, quick: bool) -> list[str]:
    """The arguments that measure one commit, by asv.

    Samples are recorded so that two commits can be compared by a test of significance, not by their medians alone.
    """
    args = ["run", f"{commit}^!", "--machine", machine, "--record-samples", "--show-stderr", "--no-pull"]
    for pattern in patterns:
        args += ["-b", pattern]
    return [*args, "--attribute", "rounds=1"] if quick else args  # half the samples, and half the time


def last_word(text: str) -> str:
    """The line of a long output that says why: a compiler's first error, else the last one that names one."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" ·-=│╰─>") and not PIP.search(line)]
    compiler = [line for line in lines if re.search(r":\d+: (fatal )?error: ", line)]
    named = [line for line in lines if re.search(r"\berror\b|Error:", line, re.IGNORECASE)]
    return (compiler[:1] or named or lines or ["it gave no reason"])[-1]


def is_full(root: Path) -> bool:
    """Whether there is so little room that builds and results fail for it."""
    return shutil.disk_usage(root).free < SPACE


def no_space(root: Path) -> str:
    """One line for a full disk."""
    free = shutil.disk_usage(root).free >> 20
    return f"the disk is full ({free} MB free in {root}): what was measured is kept; make room, and run it again"


@contextlib.contextmanager
def _opened(log: Path | None) -> Iterator[IO[bytes] | None]:
    if log is None:
        sys.stdout.flush()
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        yield file


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let asv end its workers, but not wait for ever."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
