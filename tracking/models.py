"""The model that a run measures, and the benchmarks that it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from bitnet_core import ModelNotFoundError, discovery, synthetic
from tracking.errors import TrackingError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

KINDS = {
    "given": "found",
    "2b": "synthetic, random weights in the shape of 2B-4T",
    "tiny": "synthetic, random weights in the shape of a toy",
}


def choose(console: Console, *, quick: bool) -> tuple[Path, str]:
    """The model for this run and its name among the benchmarks' parameters: "tiny", "given" or "2b"."""
    if quick:
        return synthetic.cached_model("tiny"), "tiny"
    try:
        return discovery.find_model().resolve(), "given"
    except ModelNotFoundError:
        return _written(console), "2b"
    except FileNotFoundError as error:
        raise TrackingError(str(error)) from None


def _written(console: Console) -> Path:
    """The synthetic 2b model; a progress bar shows while it is written, which happens once."""
    columns: tuple[Any, ...] = (TextColumn("[bold]writing the synthetic 2b model[/bold]"), BarColumn())
    bar = Progress(*columns, DownloadColumn(), TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # not before there is something to show
        bar.update(task, completed=done, total=total)

    try:
        return synthetic.cached_model("2b", progress=show)
    finally:
        bar.stop()


def select(name: str, only: str = "") -> str:
    """The regular expression by which asv chooses parameters: those of tiny, and of the model that is there.

    A parameter that belongs to a model begins with the model's name (see benchmarks/common.py). What is not chosen
    keeps its earlier result, so that a quick run never erases a full one. "2b" and "given" share the shapes of 2b.
    """
    left_out = {
        "tiny": "'(2b|given)",
        "2b": "'given'" if _has_qk256() else "'(given|2b-qk256)'",
        "given": "'(2b|2b-qk256)'",
    }
    return f"^(?!.*{left_out[name]})(?=.*(?:{only}))"


def _has_qk256() -> bool:
    """Whether the synthetic 2b model in QK256 was written earlier; it is measured only then."""
    return synthetic.cached_path("2b", dtype="qk256").is_file()
