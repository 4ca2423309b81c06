"""A look at the machine before it is measured with: what it is, and what else it is doing."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tracking.errors import TrackingError

if TYPE_CHECKING:
    from tracking.suite import Side

BUSY = 10.0  # percent of a processor, from which a process is named
MOST_NAMED = 5
MUCH_STEAL = 1.0  # percent
COMPILER = re.compile(rb"(GCC: \([^)\x00]*\) [\d.]+|clang version [\w.+~-]+)")


def asv_name(asked: str = "") -> str:
    """What asv calls this machine, and its results lie under: what is asked for, else the host's name.

    Where asv was told of one machine alone (~/.asv-machine.json), that is the host, whatever its name. A name is a
    folder of the results, and part of an address.
    """
    host = platform.node() or "unnamed"
    name = asked or host
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise TrackingError(
            f"{name!r} is no name for a machine: letters, digits and . + - _, as in MACHINE=zen4-2cores"
        )
    try:
        told = json.loads((Path.home() / ".asv-machine.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return name
    known = [other for other in told if other != "version"] if isinstance(told, dict) else []
    return known[0] if name == host and len(known) == 1 else name


@dataclass
class Look:
    """What was seen in a moment, and what of it makes measuring doubtful.

    Attributes
    ----------
    load : float
        Processes that wanted to run in the last minute, this program's own start included.
    steal : float
        Percent of the processors' time that the hypervisor gave to others while it was looked.
    busy : list of str
        Other processes that took BUSY percent of a processor or more.
    warnings : list of str
        A line each.
    """

    cpu: str
    n_cpu: int
    memory_gib: float
    system: str
    python: str
    load: float
    steal: float
    governor: str
    turbo: str
    busy: list[str]
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Steal:
    """How much of the processors' time the hypervisor gives to others, from now on."""

    def __init__(self) -> None:
        self.begin = psutil.cpu_times()

    def percent(self) -> float:
        """Of all their time since."""
        now = psutil.cpu_times()
        total = sum(now[:8]) - sum(self.begin[:8])
        taken = getattr(now, "steal", 0.0) - getattr(self.begin, "steal", 0.0)
        return float(100 * taken / total) if total > 0 else 0.0


def look(seconds: float = 1.0) -> Look:
    """Watch the machine for a moment."""
    steal, running = Steal(), _processes()
    time.sleep(seconds)
    found = Look(
        cpu=cpu_name(),
        n_cpu=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
        steal=round(steal.percent(), 1),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo={"0": "on", "1": "off"}.get(_read("/sys/devices/system/cpu/intel_pstate/no_turbo"), "unknown"),
        busy=_busy(running),
    )
    found.warnings = list(_doubts(found))
    return found


def _doubts(found: Look) -> Any:
    if found.steal > MUCH_STEAL:
        yield f"the hypervisor takes {found.steal:.0f} % of the processors away"
    if found.load > 0.5 * found.n_cpu:
        yield f"load {found.load:.1f} on {found.n_cpu} processors before anything is measured"
    if found.busy:
        yield "other work: " + ", ".join(found.busy)
    if found.governor not in {"performance", "unknown"}:
        yield f"the frequency governor is {found.governor}; `cpupower frequency-set -g performance` holds it still"


def cpu_name() -> str:
    """The processor in the vendor's words."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else platform.machine()


def compiler_of(side: Side) -> str:
    """The compiler that a side's extension names as its maker."""
    found: set[str] = set()
    for path in sorted(side.site.rglob("*.so")):
        found |= {match.decode() for match in COMPILER.findall(path.read_bytes())}
    return ", ".join(sorted(found)) or "unknown"


def isa_of(side: Side) -> str:
    """The instruction set levels that a side's build can use here, best last; empty when it does not say."""
    code = "from bitnet_core import kernels; print(*kernels.isa_levels())"
    env = os.environ | {"PYTHONPATH": str(side.site)}
    done = subprocess.run(
        [str(side.python), "-c", code], capture_output=True, text=True, env=env, cwd=side.site, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _processes() -> list[psutil.Process]:
    """Every process but this one and those it descends from, each of which begins to count its time here."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid not in mine:
            try:
                process.cpu_percent()
            except psutil.Error:
                continue
            found.append(process)
    return found


def _busy(processes: list[psutil.Process]) -> list[str]:
    """The busiest since `_processes`, with their share of one processor."""
    shares = []
    for process in processes:
        try:
            share, name = process.cpu_percent(), process.name()
        except psutil.Error:
            continue
        if share >= BUSY:
            shares.append((share, name))
    return [f"{name} {share:.0f} %" for share, name in sorted(shares, reverse=True)[:MOST_NAMED]]
