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
    name : str
        Of the command, which begins a line.
    total : float
        What a full bar means.
    """

    def __init__(self, console: Console, name: str, total: float) -> None:
        self.console = console
        self.name = name
        self.last = -EVERY
        texts = ("{task.fields[state]}", "none"), ("{task.description}", "dim")
        columns = (BarColumn(20), *(TextColumn(text, style=style, markup=False) for text, style in texts))
        self.bar = Bar(*columns, console=console, transient=True, refresh_per_second=2) if console.is_terminal else None
        self.task = self.bar.add_task("", total=total, state="") if self.bar else None

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, text: str, state: str, completed: float) -> None:
        """What is being done, how far it is in words, and of the total."""
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=completed, state=state, description=text)
        elif time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            self.console.print(f"{self.name}: {state} ({text})", markup=False)


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02}" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"
