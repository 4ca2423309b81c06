"""A pair of workers, one a side, and the rounds they make.

A round of a benchmark: each side sets it up in a process of its own, then short slices alternate, base head head base,
so that what drifts slower than a slice hits both and what drifts steadily cancels; and both begin on the same
processor, since one may be slower than its neighbour for minutes. Workers live for one pass over the
benchmarks: the addresses and pages that a process happens to get change its speed by a percent or two, for as long as
it lives, so rounds of one process would agree with each other and mislead. That is why a round, not a slice, is the
unit of evidence.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tracking.errors import TrackingError, tail
from tracking.rounds import SIDES, Round
from tracking.verdict import COUNTED

if TYPE_CHECKING:
    from typing_extensions import Self

    from tracking.suite import Case, Side, Suite

WORKER = Path(__file__).with_name("worker.py")
SLICE_SECONDS = 0.02  # of what is quick; a slice is at least one sample
ROUND_SECONDS = 0.5  # of slices, when more than MIN_PAIRS fit into it
MIN_PAIRS, MOST_PAIRS = 2, 16
LOW = 0.1  # the quantile of times that is taken as undisturbed; of anything else it is the median
START_SECONDS = 60.0
UNIT_OF_TIME = "seconds"


class WorkerError(Exception):
    """A benchmark failed on a side; the text says how."""


class Worker:
    """The process that measures one side."""

    def __init__(self, side: Side, benchmark_dir: Path, folder: Path, env: dict[str, str]) -> None:
        self.side = side
        self.benchmark_dir = benchmark_dir
        self.folder = folder  # where its benchmarks run: nothing to import lies there
        self.env = env
        self.process: subprocess.Popen[bytes] | None = None
        self.caches: dict[str, Path] = {}

    def start(self) -> None:
        """Begin, or begin again: a new process, which imports the suite while others may start."""
        self.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        env = os.environ | self.env | {"PYTHONPATH": str(self.side.site), "ASV_COMMIT": self.side.commit.hash}
        with (self.folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.side.python), str(WORKER), str(self.benchmark_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env=env,
                start_new_session=True,  # so that what it starts can be ended with it
            )

    def wait(self) -> None:
        """Until the suite is imported."""
        try:
            self._receive(START_SECONDS)
        except WorkerError as error:
            said = tail((self.folder / "worker.log").read_text(encoding="utf-8", errors="replace"))
            raise TrackingError(f"the worker of {self.side.label} does not start: {error}", said) from None

    def stop(self) -> None:
        """End it and all it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()
        self.process = None

    def ask(self, order: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send an order and wait for its reply; a worker that does not answer is ended."""
        if self.process is None:
            self.start()
            self.wait()
        stdin, _ = self._pipes()
        try:
            stdin.write((json.dumps(order) + "\n").encode())
            stdin.flush()
        except BrokenPipeError:
            self.stop()
            raise WorkerError("the worker has ended") from None
        return self._receive(timeout)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self.process is None or self.process.stdin is None or self.process.stdout is None:
            raise WorkerError("the worker has not been started")
        return self.process.stdin, self.process.stdout

    def _receive(self, timeout: float) -> dict[str, Any]:
        descriptor = self._pipes()[1].fileno()
        data, end = b"", time.monotonic() + timeout
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            part = os.read(descriptor, 1 << 16) if ready else b""
            if not part:
                self.stop()
                raise WorkerError(
                    "the worker has ended" if ready else f"no answer within {timeout:.0f} s (its timeout)"
                )
            data += part
        reply: dict[str, Any] = json.loads(data)
        if "error" in reply:
            raise WorkerError(reply["error"].strip())
        return reply

    def open(self, case: Case) -> str | None:
        """Set a benchmark up; why it is skipped, if it is."""
        order = {"id": case.id, "folder": str(self.folder), "cached": False, "fresh": case.kind == "peakmemory"}
        if case.cache_key is not None:
            order |= {"folder": str(self._cache(case, case.cache_key)), "cached": True}
        reason = self.ask({"open": order}, case.timeout).get("skip")
        return None if reason is None else str(reason)

    def _cache(self, case: Case, key: str) -> Path:
        """The folder with what setup_cache returned, made once in a review."""
        if key not in self.caches:
            folder = self.folder / f"cache{len(self.caches)}"
            folder.mkdir(exist_ok=True)
            self.ask({"cache": {"id": case.id, "folder": str(folder)}}, case.timeout)
            self.caches[key] = folder
        return self.caches[key]


class Pair:
    """The workers of base and head; a context manager, which ends them."""

    def __init__(self, suite: Suite, sides: tuple[Side, Side], folder: Path) -> None:
        env = {key: str(value) for key, value in suite.env.env_vars.items()}
        env |= {"ASV": "true", "ASV_CONF_DIR": str(suite.root)}  # what asv tells its benchmarks
        self.workers = {
            side.label: Worker(side, suite.benchmark_dir, folder / f"worker-{side.label}", env) for side in sides
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.stop()

    def renew(self) -> None:
        """New processes, for the next pass."""
        for worker in self.workers.values():
            worker.start()
        for worker in self.workers.values():
            worker.wait()

    def round(self, case: Case, first: str) -> Round:
        """Measure a benchmark on both sides, beginning with one of them; failures and skips are part of the result."""
        found = Round(case.full)
        begin = time.monotonic()
        order = SIDES if first == "base" else SIDES[::-1]
        opened = [side for side in order if self._open(case, side, found)]
        if len(opened) == len(SIDES):
            self._measure(case, order, found)
        for side in opened:
            if side not in found.failed:
                self._attempt(found, side, lambda worker: worker.ask({"close": True}, case.timeout))
        if found.failed or found.skipped:
            found.pairs, found.low = [], {}
        found.seconds = round(time.monotonic() - begin, 4)
        return found

    def _open(self, case: Case, side: str, found: Round) -> bool:
        reason = self._attempt(found, side, lambda worker: worker.open(case))
        if reason is not None:
            found.skipped[side] = reason
        return side not in found.failed and side not in found.skipped

    def _measure(self, case: Case, order: tuple[str, ...], found: Round) -> None:
        """Slices in the order a b b a, as many pairs as are worth it."""
        n_pairs, begin = 1, time.monotonic()
        values: dict[str, list[float]] = {side: [] for side in order}
        while len(found.pairs) < n_pairs:
            swapped = order if len(found.pairs) % 2 == 0 else order[::-1]
            slices = {side: self._slice(case, side, found) for side in swapped}
            if found.failed:
                return
            base, head = (significant(statistics.median(slices[side])) for side in SIDES)
            found.pairs.append((base, head))
            for side in order:
                values[side] += slices[side]
            if len(found.pairs) == 1:
                n_pairs = pairs_wanted(case, time.monotonic() - begin)
        low = LOW if case.unit == UNIT_OF_TIME else 0.5
        found.low = {side: significant(quantile(values[side], low)) for side in order}
        for moved in found.moved.values():
            for name in moved:
                moved[name] = significant(moved[name] / n_pairs)

    def _slice(self, case: Case, side: str, found: Round) -> list[float]:
        order = {"slice": SLICE_SECONDS, "turn": len(found.pairs) // 2}  # both sides first, on each processor
        reply = self._attempt(found, side, lambda worker: worker.ask(order, case.timeout))
        if reply is None:
            return []
        values: list[float] = reply["values"]
        if not all(0 < value < math.inf for value in values):
            self._attempt(found, side, lambda worker: worker.ask({"close": True}, case.timeout))
            found.failed[side] = f"gave {min(values)}, which cannot be compared"
        moved = found.moved.setdefault(side, {})
        for name, amount in reply["moved"].items():
            moved[name] = moved.get(name, 0.0) + amount
        return values

    def _attempt(self, found: Round, side: str, action: Any) -> Any:
        """What a worker answers; its failure is written down, and the other side goes on."""
        try:
            return action(self.workers[side])
        except WorkerError as error:
            found.failed[side] = str(error)
            return None


def significant(value: float) -> float:
    """As many digits as are worth keeping."""
    return float(f"{value:.7g}")


def quantile(values: list[float], q: float) -> float:
    """The q quantile, between neighbours where it falls between them."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def pairs_wanted(case: Case, seconds: float) -> int:
    """How many pairs of slices make a round, when one takes so many seconds.

    Bytes and instructions are counted, mostly in processes of their own, and not drowned in noise: one pair.
    """
    if case.unit in COUNTED:
        return 1
    return min(MOST_PAIRS, max(MIN_PAIRS, 2 * int(ROUND_SECONDS / seconds / 2)))
