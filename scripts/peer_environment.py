"""The environment of `make peers`: .peers/, with llama-cpp-python compiled for this very machine.

PyPI has sources alone, so a C and a C++ compiler are needed; what else the build takes (cmake, ninja) comes from PyPI
where it is not installed. It is done once: what was installed, and how, is written down last.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

REQUIREMENT = "llama-cpp-python==0.3.36"
# What the build chooses by itself for a user's own machine, said aloud; only what is not measured is left out.
CMAKE_ARGS = "-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=ON -DLLAVA_BUILD=OFF"
STAMP = "installed.json"
BUILD_BYTES = 1 << 30  # while it is built; 150 MiB stay
_STEP = re.compile(r"\[(\d+)/(\d+)\]")  # ninja's, and that of make's numbers


class PeersError(Exception):
    """Why there is no comparison; one line for the user."""


def prepare(folder: Path, console: Console) -> Path:
    """Return the Python that has llama-cpp-python, installed on first use.

    Raises
    ------
    PeersError
        A compiler, the network or disk space is missing, or the build fails.
    """
    python = _python(folder)
    if not is_ready(folder):
        _check_compilers()
        folder.mkdir(exist_ok=True)
        for place in (folder, Path(tempfile.gettempdir())):
            _check_space(place)
        (folder / STAMP).unlink(missing_ok=True)
        _install(folder, python, console)
        (folder / STAMP).write_text(json.dumps(_wanted()), encoding="utf-8")
    return python


def is_ready(folder: Path) -> bool:
    """Whether the environment is there, complete, of this version and of this Python."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stamp == _wanted()) and _runs(_python(folder))


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _wanted() -> dict[str, str]:
    return {"requirement": REQUIREMENT, "cmake_args": CMAKE_ARGS, "python": sys.version}


def _runs(python: Path) -> bool:
    try:
        done = subprocess.run([python, "-c", "import llama_cpp"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _check_compilers() -> None:
    for variable, commands, debian, fedora in (
        ("CC", ("cc", "gcc", "clang"), "gcc", "gcc"),
        ("CXX", ("c++", "g++", "clang++"), "g++", "gcc-c++"),
    ):
        given = os.environ.get(variable)
        names = [shlex.split(given)[0]] if given else commands
        if not any(map(shutil.which, names)):
            raise PeersError(
                f"llama-cpp-python must be compiled, and there is no {variable} ({', '.join(names)}). Install it with:"
                f" apt install {debian} (Debian, Ubuntu) | dnf install {fedora} (Fedora)"
                " | xcode-select --install (macOS)"
            )


def _check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < BUILD_BYTES:
        need = f"{BUILD_BYTES / 2**30:.1f} GiB in {folder}"
        raise PeersError(f"building llama-cpp-python needs {need}, {free / 2**30:.1f} GiB are free")


def _install(folder: Path, python: Path, console: Console) -> None:
    console.print(f"[bold]peers:[/bold] installing {REQUIREMENT} in {folder.name}/ (from PyPI, compiled once, minutes)")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise PeersError(f"cannot make an environment in {folder}: {(made.stdout + made.stderr).strip()}")
    # Never a wheel from elsewhere or from an earlier day: it could be a generic build, or one with other options.
    pip = [python, "-m", "pip", "install", "-v", "--disable-pip-version-check", "--no-cache-dir"]
    command = [*pip, "--no-binary", "llama-cpp-python", REQUIREMENT]
    env = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1), **os.environ, "CMAKE_ARGS": CMAKE_ARGS}
    log = folder / "install.log"
    last: collections.deque[str] = collections.deque(maxlen=400)
    columns = (TextColumn("[bold]peers:[/bold] {task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        log.open("w", encoding="utf-8") as file,
        tempfile.TemporaryDirectory(prefix="peers-") as temp,  # not pip's own, since pip may be killed
        Progress(*columns, console=console, transient=True) as bar,
        _group([str(part) for part in command], env | {"TMPDIR": temp}) as process,
    ):
        task = bar.add_task("downloading", total=None)
        for line in process.stdout or ():
            file.write(line)
            last.append(line.strip())
            if step := _STEP.search(line):
                bar.update(task, description="compiling", completed=int(step[1]), total=int(step[2]))
        status = process.wait()
    if status:
        raise PeersError(f"{REQUIREMENT} was not installed; all of it is in {log}: {reason(last)}")
    if not _runs(python):
        raise PeersError(f"{REQUIREMENT} was installed, but cannot be imported; see {log}")


def reason(lines: collections.deque[str] | list[str]) -> str:
    """The line that says most of why pip failed, and what to do about it where that is known."""
    for pattern, advice in (
        (
            r"NewConnectionError|Name or service not known|name resolution|timed out|No matching distribution",
            "PyPI or a mirror of it",
        ),
        (r"No space left on device", "more space on the disk"),
        (r"Killed signal|Killed\)", "more memory, or CMAKE_BUILD_PARALLEL_LEVEL=1"),
    ):
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return f"this needs {advice}: {found[0][:200]}"
    errors = [line for line in lines if re.search(r"error", line, re.IGNORECASE)]
    return (errors or list(lines) or ["pip said nothing"])[0][:300]


@contextlib.contextmanager
def _group(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process whose children end with it, also when this one is interrupted."""
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
