"""What this package raises where a person can do something about it."""

from __future__ import annotations

TAIL = 15  # lines of a long output that are worth reading


class TrackingError(Exception):
    """What went wrong and what to do, in one line; `details` may hold the end of somebody else's output."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = tail(details)


def first_line(error: Exception) -> str:
    """What somebody else's error says first."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def tail(text: str, lines: int = TAIL) -> str:
    """The last lines of an output."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
