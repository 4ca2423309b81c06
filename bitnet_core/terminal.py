"""What the ``bitnet`` command prints with: tables, a progress bar, a line that says what is running."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["console", "one_line", "print_table", "progress_bar", "spinner", "status_line"]

_LONG_TEXT = 100


def console() -> Console:
    """Return standard output, so wide that nothing is cut: a terminal breaks a long line, a pipe keeps it."""
    return _plain_console(width=10_000)


def _plain_console(**options: Any) -> Console:
    # What is printed comes from files and arguments: no markup, no emoji codes, no guessed colours.
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True, **options)


def print_table(
    out: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right_from: int | None = None,
    styles: Sequence[str] = (),
) -> None:
    """Print a table in its natural width, and an empty line.

    Parameters
    ----------
    out : rich.console.Console
        See :func:`console`.
    columns, rows : sequences of str
        Heads and cells.
    right_from : int, optional
        Index of the first of the columns that hold numbers, which are aligned to the right.
    styles : sequence of str
        A rich style for each row.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, column in enumerate(columns):
        is_number = right_from is not None and i >= right_from
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(*row, style=styles[i] if styles else "")
    out.print(table)
    out.print()


@contextlib.contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error from the first report on; nothing where that is not a terminal."""
    out = _plain_console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:

        def report(done: int, total: int) -> None:
            task = bar.task_ids[0] if bar.task_ids else bar.add_task(text)
            bar.update(task, completed=done, total=total)

        yield report


@contextlib.contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """Show the running step on standard error; nothing where that is not a terminal."""
    out = _plain_console(stderr=True)
    if not out.is_terminal:
        yield lambda _step: None
        return
    with out.status("measuring") as status:
        yield lambda step: status.update(f"measuring: {step}")


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Show the running step on standard error and nothing else: no thread runs beside what is measured.

    Where that is not a terminal, nothing is shown. An empty step removes the last one, so that a line can be printed.
    """
    if not sys.stderr.isatty():
        yield lambda _step: None
        return

    def show(step: str) -> None:
        sys.stderr.write(f"\r{step}\x1b[K")  # to the start of the line; and what is left of the last one is erased
        sys.stderr.flush()

    try:
        yield show
    finally:
        show("")


def one_line(value: Any) -> str:
    """Write a value of a file in one line, with nothing in it that a terminal would obey."""
    if hasattr(value, "__len__") and not isinstance(value, str):
        return f"{len(value):,} values"
    whole = str(value)
    start = whole[:_LONG_TEXT]  # cut before it is escaped: a file may hold gigabytes of text
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return text if len(whole) <= _LONG_TEXT else f"{text}... ({len(whole):,} characters)"
