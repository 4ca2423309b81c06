"""Rounds: the unit of evidence, and the file that keeps them.

A round is both sides of one benchmark measured next to each other, in processes that nothing else was measured in. The
file has one JSON line a round, written and synchronized before the next round begins: an interruption loses at most
the round it falls into, and half a line at the end is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tracking.errors import TrackingError

if TYPE_CHECKING:
    from pathlib import Path

SIDES = ("base", "head")


@dataclass
class Round:
    """What one round of one benchmark gave.

    Attributes
    ----------
    full : str
        Name and parameters.
    pairs : list of (base, head)
        Medians of neighbouring slices, in the benchmark's unit; empty when there is nothing to compare.
    low : dict of side to float
        The undisturbed value: of times the lower decile of all values of the round's slices, of anything else their
        median. Their ratio is the evidence.
    moved : dict of side to dict of counter to float
        What else each side did, a value each: see worker.counters.
    skipped, failed : dict of side to str
        Why a side gave no values.
    seconds : float
        What the round took.
    """

    full: str
    pairs: list[tuple[float, float]] = field(default_factory=list)
    low: dict[str, float] = field(default_factory=dict)
    moved: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether both sides gave values."""
        return bool(self.pairs)

    def values(self, side: str) -> list[float]:
        """Medians of one side's slices."""
        return [pair[SIDES.index(side)] for pair in self.pairs]


class Store:
    """The rounds of one review, in a file that only grows.

    Parameters
    ----------
    path : Path
        The file; made when it is not there.
    key : dict
        What the rounds are of: commits, benchmarks, machine. Rounds of another key are not mixed in; they are set
        aside under another name, and taken back when that key is asked for again.
    fresh : bool
        Forget the rounds of this key.

    Attributes
    ----------
    by_benchmark : dict
        The rounds so far of each benchmark, in the order they were made.
    spent : float
        Seconds of the budget that were used when it was last said.
    set_aside : Path or None
        Where rounds of another key went now.
    """

    def __init__(self, path: Path, key: dict[str, str], *, fresh: bool = False) -> None:
        self.path = path
        self.key = key
        self.spent = 0.0
        self.by_benchmark: dict[str, list[Round]] = {}
        self.set_aside: Path | None = None
        lines = _complete_lines(path)
        if lines and lines[0].get("key") != key:
            self.set_aside = _place_of(path, lines[0].get("key"))
            path.replace(self.set_aside)
            ours = _place_of(path, key)
            if ours.is_file():
                ours.replace(path)
            lines = _complete_lines(path)
        if fresh:
            lines = []
        if lines:
            for line in lines[1:]:
                if "spent" in line:
                    self.spent = line["spent"]
                else:
                    self._count(_read(line))
        else:
            path.unlink(missing_ok=True)
            self._write({"key": key})

    def add(self, found: Round) -> None:
        """Keep a round, on the disk when this returns."""
        self._write(asdict(found))
        self._count(found)

    def spend(self, seconds: float) -> None:
        """Keep how much of the budget is used, which is more than what the rounds took."""
        self._write({"spent": seconds})
        self.spent = seconds

    def _count(self, found: Round) -> None:
        """A later round takes the place of those that a side could not run."""
        of_it = self.by_benchmark.setdefault(found.full, [])
        of_it[:] = [one for one in of_it if not one.skipped]
        of_it.append(found)

    @property
    def rounds(self) -> list[Round]:
        """All of them."""
        return [one for rounds in self.by_benchmark.values() for one in rounds]

    @property
    def seconds(self) -> float:
        """What all rounds took."""
        return sum(found.seconds for found in self.rounds)

    def _write(self, record: dict[str, Any]) -> None:
        """Append a line whole: what is left of one that was cut short before is cut away first."""
        data = (json.dumps(record) + "\n").encode()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            begin = end = _end_of_lines(descriptor)
            os.ftruncate(descriptor, begin)
            try:
                while data:
                    written = os.pwrite(descriptor, data, end)
                    data, end = data[written:], end + written
                os.fsync(descriptor)
            except OSError as error:
                os.ftruncate(descriptor, begin)
                raise TrackingError(
                    f"{self.path} could not be written ({error.strerror}); {len(self.rounds)} rounds are kept in it: "
                    "make room, and run the same command again"
                ) from None
        finally:
            os.close(descriptor)


def _end_of_lines(descriptor: int) -> int:
    """Where the last complete line of a file ends."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        begin = max(0, end - 65536)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _place_of(path: Path, key: Any) -> Path:
    """Beside the file, where rounds of a key wait."""
    of = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return path.with_suffix(f".{of[:12]}.jsonl")


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    data = path.read_bytes()
    try:
        return [_object(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    except ValueError as error:
        raise TrackingError(f"{path} is damaged ({error}); remove it to begin again") from None


def _object(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"{line[:20]!r} is no object")  # noqa: TRY004  # as the other damage is
    return found


def _read(line: dict[str, Any]) -> Round:
    return Round(**{**line, "pairs": [(base, head) for base, head in line["pairs"]]})
