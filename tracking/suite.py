"""What asv knows of this repository: its configuration, its environment, the benchmarks, and commits built for them.

asv does the work, by its own classes; it is pinned (see pyproject.toml), so what is private in it is used where it has
to be, here alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asv import environment
from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.console import log
from asv.plugin_manager import plugin_manager  # noqa: F401  # importing it is what makes git and virtualenv known
from asv.repo import get_repo
from asv.util import ProcessError, UserError

from tracking import asv_run
from tracking.errors import TrackingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracking.commits import Commit


@dataclass(frozen=True)
class Case:
    """One benchmark with one combination of its parameters."""

    name: str  # file.Class.method
    index: int | None  # of the combination; None without parameters
    full: str  # what asv's -b sees: name('tiny', 1)
    unit: str
    kind: str  # asv's type: track, time, peakmemory
    timeout: float
    cache_key: str | None  # names the setup_cache it needs

    @property
    def file(self) -> str:
        """The file that has it."""
        return self.name.partition(".")[0]

    @property
    def id(self) -> str:
        """What asv_runner finds it by."""
        return self.name if self.index is None else f"{self.name}-{self.index}"


@dataclass(frozen=True)
class Side:
    """A commit, built and unpacked: what one worker measures."""

    label: str  # "base" or "head"
    commit: Commit
    site: Path  # holds the package; first on the worker's path
    python: Path


class Suite:
    """The benchmarks of the working tree and the environment they run in.

    Parameters
    ----------
    root : Path
        The repository, with asv.conf.json in it. Becomes the working directory, as asv asks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        os.chdir(root)
        try:
            self.conf = Config.load("asv.conf.json")
            self.repo = get_repo(self.conf)
            self.env = next(iter(environment.get_environments(self.conf, None)))
        except (UserError, environment.EnvironmentUnavailable, StopIteration) as error:
            raise TrackingError(f"asv cannot work here: {error}") from None
        self.benchmark_dir = (root / self.conf.benchmark_dir).resolve()
        self.results_dir = root / self.conf.results_dir
        self.benchmarks: Any = None  # asv's, once discovered

    def digest(self) -> str:
        """Changes when a benchmark file does."""
        found = hashlib.sha256()
        for path in sorted(path for path in self.benchmark_dir.rglob("*") if path.suffix in {".py", ".c"}):
            found.update(path.relative_to(self.benchmark_dir).as_posix().encode() + b"\0" + path.read_bytes())
        return found.hexdigest()[:16]

    def prepare(self) -> None:
        """Make the environment, once; it needs the package index."""
        with quiet(), failing("the benchmark environment could not be made"):
            self.env.create()

    def build(self, commit: Commit, label: str, folder: Path) -> Side:
        """Build a commit's wheel, or find it in asv's cache, and unpack it into the folder."""
        cached = self.env._cache.get_cache_dir(commit.hash)  # noqa: SLF001
        if cached is None:
            with quiet(), failing(f"{commit.short} ({commit.subject}) does not build"):
                self.env.install_project(self.conf, self.repo, commit.hash)
            cached = self.env._cache.get_cache_dir(commit.hash)  # noqa: SLF001
        wheels = sorted(Path(cached or os.devnull).glob("*.whl"))
        if len(wheels) != 1:
            raise TrackingError(f"the build of {commit.short} left {len(wheels)} wheels instead of one")
        site = folder / label
        if not (site / ".complete").is_file():
            shutil.rmtree(site, ignore_errors=True)
            with quiet(), failing(f"the wheel of {commit.short} could not be unpacked"):
                options = ["--quiet", "--no-deps", "--no-index", "--target", str(site)]
                self.env.run_executable("python", ["-m", "pip", "install", *options, str(wheels[0])], cwd=str(folder))
            (site / ".complete").touch()
        return Side(label, commit, site, Path(self.env.find_executable("python")))

    def discover(self, commit: Commit, pattern: str, also: str = "") -> tuple[list[Case], list[Case]]:
        """The benchmarks of the working tree that a regular expression selects, and the others that `also` does."""
        check_pattern(pattern)
        with quiet(), failing("the benchmarks could not be imported; `make check-bench` says more"):
            self.benchmarks = Benchmarks.discover(
                self.conf, self.repo, [self.env], [commit.hash], regex=[pattern, also or pattern]
            )
        cases = list(self._cases())
        selected = [case for case in cases if re.search(pattern, case.full)]
        if not selected:
            raise TrackingError(f"no benchmark matches {pattern!r}")
        return selected, [case for case in cases if case not in selected]

    def _cases(self) -> Iterator[Case]:
        for name, found in sorted(self.benchmarks.items()):
            combinations = list(itertools.product(*found["params"])) if found["params"] else [()]
            selected = self.benchmarks.benchmark_selection[name]
            for index in range(len(combinations)) if selected is None else selected:
                values = combinations[index]
                yield Case(
                    name=name,
                    index=index if found["params"] else None,
                    full=f"{name}({', '.join(values)})" if values else name,
                    unit=found.get("unit", "unit"),
                    kind=found["type"],
                    timeout=float(found.get("timeout") or self.conf.default_benchmark_timeout),
                    cache_key=found.get("setup_cache_key"),
                )


def check_pattern(pattern: str) -> None:
    """Refuse what is no regular expression, before hours are spent on it."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise TrackingError(f"{pattern!r} is no regular expression: {error}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without asv's own lines."""
    with log.set_level("CRITICAL"), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def failing(message: str) -> Iterator[None]:
    """Asv's failures as one line, with the end of what the failed command said."""
    try:
        yield
    except ProcessError as error:
        said = "\n".join(str(text) for text in (error.stdout, error.stderr) if text) or str(error)
        if asv_run.is_full(Path.cwd()):
            raise TrackingError(asv_run.no_space(Path.cwd())) from None
        raise TrackingError(f"{message}: {asv_run.last_word(said)}", said) from None
    except UserError as error:
        if str(error) == "Interrupted.":  # what asv makes of Ctrl-C
            raise KeyboardInterrupt from None
        raise TrackingError(f"{message}: {error}") from None
