"""A published dashboard whose every number is known: a scratch repository, made-up results, `asv publish`.

The names and parameters are those of the real suite, so that pages which pick benchmarks find them. Each value is known
by its commit's place; one benchmark becomes slower by 30 % at one commit, and nothing else changes by more than 0.2 %.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asv.benchmarks import Benchmarks
from asv.machine import Machine
from asv.results import Results
from asv.runner import BenchmarkResult

ROOT = Path(__file__).resolve().parent.parent
MACHINE = {"machine": "made-up", "os": "Linux", "arch": "x86_64", "cpu": "a made-up CPU", "num_cpu": "2", "ram": "8GB"}
ENV_NAME = "virtualenv-py3.11"
CONFIG = {
    "version": 1,
    "project": "bitnet-core",
    "repo": ".",
    "dvcs": "git",
    "branches": ["HEAD"],
    "environment_type": "virtualenv",
    "results_dir": ".asv/results",
    "html_dir": ".asv/html",
    "env_dir": ".asv/env",
    "benchmark_dir": "benchmarks",
    "plugins": [".tracking.dashboard.publisher"],
}
N_COMMITS = 12
PLANTED_AT = 8  # the place of the commit that is slower
PLANTED = "generate.Decode.track_token('tiny', 1)"
FACTOR = 1.3
WOBBLE = (1.0, 1.002, 0.998, 1.001)

# name: unit, names and values of the parameters, value of each combination
BENCHMARKS: dict[str, tuple[str, dict[str, list[str]], list[float]]] = {
    "generate.Decode.track_token": (
        "seconds",
        {"model": ["'tiny'", "'2b'"], "threads": ["1", "2"]},
        [0.002, 0.0012, 0.09, 0.05],
    ),
    "load.Load.track_open": ("seconds", {"model": ["'tiny'"], "pages": ["'warm'", "'cold'"]}, [0.0004, 0.003]),
    "canary.Read.track_gib": ("seconds", {}, [0.06]),
    "footprint.Size.track_shared_object": ("bytes", {}, [410_000.0]),
}


@dataclass
class Site:
    """Where it lies, and what is known of it."""

    root: Path
    commits: list[str] = field(default_factory=list)  # the oldest first

    @property
    def html(self) -> Path:
        return self.root / CONFIG["html_dir"]

    @property
    def results(self) -> Path:
        return self.root / CONFIG["results_dir"]


def make_site(root: Path, config: dict[str, Any] | None = None) -> Site:
    """A repository with results, not yet published."""
    site = Site(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / "asv.conf.json").write_text(json.dumps(CONFIG | (config or {})), encoding="utf-8")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    for place in range(N_COMMITS):
        date = f"2026-03-{place + 1:02}T12:00:00+0000"
        git(root, "commit", "-q", "--allow-empty", "-m", f"library: change {place}", date=date)
        site.commits.append(git(root, "rev-parse", "HEAD"))
    site.results.mkdir(parents=True)
    Machine.load(machine_name=MACHINE["machine"], _path=_machines(root)).save(str(site.results))
    Benchmarks(
        SimpleNamespace(results_dir=str(site.results), benchmark_dir=""), list(map(described, BENCHMARKS))
    ).save()
    for place in range(N_COMMITS):
        save_results(site, place)
    return site


def save_results(site: Site, place: int, env_name: str = ENV_NAME, times: float = 1.0) -> None:
    """Asv's file of one commit; times makes it slower altogether."""
    date = 1_772_366_400_000 + place * 86_400_000
    params = MACHINE | {"python": "3.11"}
    results = Results(params, {}, site.commits[place], date, "3.11", env_name, {})
    for name in BENCHMARKS:
        found = [times * value_of(full, place) for full in combinations(name)]
        samples = [[value * factor for factor in (0.9995, 1.0, 1.0, 1.0005)] for value in found]
        one = BenchmarkResult(found, samples, [1] * len(found), 0, "", None)
        results.add_result(described(name), one, record_samples=True)
    results.save(str(site.results))


def value_of(full: str, place: int) -> float:
    """What a combination measured at a commit."""
    name = full.partition("(")[0]
    value = BENCHMARKS[name][2][combinations(name).index(full)]
    if name.startswith("footprint"):
        return value
    return value * WOBBLE[place % len(WOBBLE)] * (FACTOR if full == PLANTED and place >= PLANTED_AT else 1.0)


def combinations(name: str) -> list[str]:
    """As asv's -b sees them, in its order."""
    params = BENCHMARKS[name][1]
    return [f"{name}({', '.join(one)})" if one else name for one in itertools.product(*params.values())]


def described(name: str) -> dict[str, Any]:
    """As asv's benchmarks.json has it."""
    unit, params, _ = BENCHMARKS[name]
    return {
        "name": name,
        "unit": unit,
        "params": list(params.values()),
        "param_names": list(params),
        "type": "track",
        "version": "1",
        "code": f"def {name.rpartition('.')[2]}(self): ...",
        "timeout": 60.0,
    }


def publish(site: Site, **env: str) -> subprocess.CompletedProcess[str]:
    """`asv publish`, as a user runs it."""
    command = [sys.executable, "-m", "asv", "publish", "--no-pull"]
    full = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(command, cwd=site.root, env=full, capture_output=True, text=True, check=False)


def git(root: Path, *args: str, date: str = "2026-03-01T12:00:00+0000") -> str:
    """What git says."""
    who = {f"GIT_{who}_{what}": "t@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = os.environ | who | {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    return subprocess.run(["git", *args], cwd=root, env=env, capture_output=True, text=True, check=True).stdout.strip()


def _machines(root: Path) -> str:
    """A file of asv's machines beside the user's."""
    path = root / ".git" / "machines.json"
    path.write_text(json.dumps({MACHINE["machine"]: MACHINE, "version": 1}), encoding="utf-8")
    return str(path)
