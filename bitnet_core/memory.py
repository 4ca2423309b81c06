"""How much memory this process has resident, and of which kind.

Pages of a mapped file and pages the program allocated are different things: the system drops the first when it needs
room and reads them again, the second it cannot. A model used where it lies in the file is nearly all of the first
kind. So they are counted apart.

============  =====================================  ==============================================================
              Linux                                  other systems (through psutil)
============  =====================================  ==============================================================
anonymous     RssAnon + RssShmem                     memory unique to the process (an approximation)
file_backed   RssFile                                the rest of the resident memory (an approximation)
peak          VmHWM, which ``reset_peak`` sets back  ``ru_maxrss`` (macOS), since the start of the process
============  =====================================  ==============================================================
"""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Growth", "Usage", "current", "peak", "reset_peak"]

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Usage:
    """Resident memory in bytes."""

    anonymous: int
    file_backed: int

    @property
    def total(self) -> int:
        """Both kinds together: the resident set size."""
        return self.anonymous + self.file_backed


def current() -> Usage:
    """Return what is resident now."""
    if sys.platform == "linux":
        status = _linux_status()
        return Usage(status["RssAnon"] + status["RssShmem"], status["RssFile"])
    info = psutil.Process().memory_full_info()
    return Usage(info.uss, max(info.rss - info.uss, 0))


def peak() -> int:
    """Return the largest resident set, in bytes, since ``reset_peak`` or, where that is not possible, ever."""
    if sys.platform == "linux":
        return _linux_status()["VmHWM"]
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # noqa: PLC0415 - does not exist on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def reset_peak() -> bool:
    """Let :func:`peak` start anew from what is resident now; False where the system cannot (other than Linux)."""
    with contextlib.suppress(OSError):  # the file is missing, or a container forbids it: the answer is False
        _CLEAR_REFS.write_text("5")
        return True
    return False


class Growth:
    """Memory that a block of code adds.

    After the block: ``anonymous``, ``file_backed`` and ``total`` are what is resident at its end beyond its
    beginning, ``peak`` is the most that was resident at any moment beyond the beginning. All in bytes.

    Linux records the peak of the sum only. With an ``interval``, a thread looks at both kinds that often, and
    ``peak_anonymous`` is the largest value seen: a lower bound, that misses what lives shorter than the interval.
    Without, ``peak_anonymous`` knows only the end of the block. Where the peak cannot be reset, an earlier higher
    peak of the process hides that of the block, and ``peak`` is also a lower bound: ``peak_is_exact`` says which.

    Parameters
    ----------
    interval : float, optional
        Seconds between two looks of the sampling thread.

    Examples
    --------
    >>> with Growth() as growth:
    ...     block = bytearray(b"x") * 20_000_000
    >>> growth.anonymous > 15_000_000 and growth.peak >= growth.anonymous
    True
    """

    def __init__(self, interval: float | None = None) -> None:
        self.interval = interval
        self.anonymous = self.file_backed = self.peak = self.peak_anonymous = 0
        self.peak_is_exact = False
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self.baseline = current()
        self.peak_is_exact = reset_peak()
        self._old_peak = peak()
        if self.interval is not None:
            self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        now, highest = current(), peak()
        if self.interval is not None:
            self._stop.set()
            self._sampler.join()
        self.anonymous = now.anonymous - self.baseline.anonymous
        self.file_backed = now.file_backed - self.baseline.file_backed
        self.peak_is_exact = self.peak_is_exact or highest > self._old_peak
        known = highest if self.peak_is_exact else now.total
        self.peak = max(known - self.baseline.total, self.total, self.peak)
        self.peak_anonymous = max(self.peak_anonymous, self.anonymous)

    @property
    def total(self) -> int:
        """Growth of both kinds together at the end of the block."""
        return self.anonymous + self.file_backed

    def _sample(self) -> None:
        while not self._stop.wait(self.interval):
            now = current()
            self.peak = max(self.peak, now.total - self.baseline.total)
            self.peak_anonymous = max(self.peak_anonymous, now.anonymous - self.baseline.anonymous)


def _linux_status() -> dict[str, int]:
    """Return the memory lines of /proc/self/status, in bytes."""
    fields: dict[str, int] = {}
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value[:-3]) * 1024
    return fields
