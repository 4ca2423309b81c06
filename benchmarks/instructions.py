"""How many instructions the hot paths take: a count, the same each time, where a time would be lost in the noise.

valgrind runs a small C program (instructions.c) that is compiled with the csrc/ of the commit being measured, and
counts at a level that it knows. A count says nothing about memory or caches: a change of it is a question, its
sameness an answer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from benchmarks import common

HERE = Path(__file__).resolve().parent
WORKS = [
    "gemv i2_s",
    "gemv qk256",
    "gemm i2_s",
    "gemm qk256",
    "quantize i2_s",
    "quantize qk256",
    "dequantize i2_s",
    "dequantize f16",
    "open",
    "prompt of 64",
    "token, all logits",
    "token, screened",
]


class Callgrind:
    """Instructions of one piece of work, on one thread."""

    version = "1"
    timeout = 300
    unit = "instructions"
    params = [WORKS, ["scalar", "avx2"]]
    param_names = ["work", "isa"]

    def setup_cache(self):
        """Compile the program once; what is missing is said by each benchmark, as the reason why it is skipped."""
        try:
            return str(_compile(Path.cwd())), ""
        except _MissingError as error:
            return "", str(error)

    def setup(self, cache, work, isa):
        program, missing = cache
        if missing:
            raise NotImplementedError(missing)
        common.need_isa(isa)
        model = common.model_path("tiny")
        self.command = [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=counted"),
            *(program, work, isa, str(model)),
        ]

    def track_instructions(self, cache, work, isa):
        # An empty environment: the stack lies where it always lies, and no preloaded library takes part.
        environment = {"PATH": os.environ.get("PATH", "")}
        done = subprocess.run(self.command, env=environment, capture_output=True, text=True, check=False)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or not found or not int(found[1]):
            raise RuntimeError(f"{' '.join(self.command)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return int(found[1])


class _MissingError(Exception):
    pass


def _compile(folder: Path) -> Path:
    tools = {name: shutil.which(name) for name in ("valgrind", "cc")}
    for name, path in tools.items():
        if path is None:
            raise _MissingError(f"{name} is not installed")
    csrc, program = _csrc(folder), folder / "instructions"
    sources = [HERE / "instructions.c", *sorted(csrc.glob("*.c")), *sorted(csrc.glob("kernels/*.c"))]
    done = subprocess.run(
        [tools["cc"], "-std=c11", "-O2", "-g", "-pthread", f"-I{csrc}", *map(str, sources), "-lm", "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:300])
        raise _MissingError(f"instructions.c does not go with this commit's csrc: {first}")
    return program


def _csrc(folder: Path) -> Path:
    """The sources of the commit that asv measures, or of the working tree where asv was told to use it."""
    commit, project = os.environ.get("ASV_COMMIT"), os.environ.get("ASV_CONF_DIR")
    if not (commit and project):
        return HERE.parent / "csrc"
    archive = folder / "csrc.tar"
    command = ["git", "-C", project, "archive", f"--output={archive}", commit, "csrc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _MissingError(f"git has no csrc of {commit[:8]}: {done.stderr.strip()}")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / "csrc"
