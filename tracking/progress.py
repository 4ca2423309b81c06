"""How far a long measurement is, and how long it may still take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from rich.console import Console
    from typing_extensions import Self

EVERY = 30.0  # seconds between lines where there is no terminal


class Progress:
    """A bar in a terminal, a line now and then elsewhere; a context manager.

    Parameters
    ----------
    console : rich.console.Console
        Where it shows.
    seconds : float
        The whole time.
    """

    def __init__(self, console: Console, seconds: float) -> None:
        self.console = console
        self.seconds = seconds
        self.last = -EVERY
        columns = (BarColumn(20), TextColumn("{task.fields[state]}"), TextColumn("{task.description}", style="dim"))
        self.bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self.task = self.bar.add_task("", total=seconds, state="") if self.bar else None

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, text: str, done: int, total: int, left: float) -> None:
        """What is being done, how much is done, and the seconds left."""
        state = f"{done} of {total} decided, {_clock(left)} left"
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self.seconds - left, state=state, description=text)
        elif time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            self.console.print(f"review: {state} ({text})", markup=False)


def _clock(seconds: float) -> str:
    return f"{max(0, int(seconds)) // 60}:{max(0, int(seconds)) % 60:02}"
