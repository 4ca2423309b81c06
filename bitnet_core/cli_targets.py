"""``bitnet targets`` and ``bitnet verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitnet_core.cli_arguments import FileDtype, Isa, Threads, Weights

# Each command imports what it needs when it runs, so that none waits for the modules of another.
# ruff: noqa: PLC0415
# Typer reads the annotations of a command, so what they name is imported when the module is.
# ruff: noqa: TC001, TC003

__all__ = ["targets", "verify"]


def targets(
    model: Annotated[
        Path | None, typer.Argument(help="Default: the model that is found, else a synthetic one.", show_default=False)
    ] = None,
    *,
    receipt: Annotated[Path | None, typer.Option(help="Also write the receipt, a JSON file.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short run; the synthetic model, if needed, is the tiny one.")
    ] = False,
    threads: Threads = None,
    isa: Isa = None,
    weights: Weights = "file",
    dtype: FileDtype = None,
) -> None:
    """Measure a model against the project's targets; exit with 1 if a figure is beyond its baseline.

    Example: bitnet targets model.gguf --receipt receipt.json
    """
    from bitnet_core import receipt as receipts
    from bitnet_core.discovery import model_or_synthetic, qk256_model
    from bitnet_core.files import check_destination
    from bitnet_core.targets import Report, Verdict, measure
    from bitnet_core.terminal import console, print_table, progress_bar, spinner

    if receipt is not None:
        check_destination(receipt)  # before minutes of measuring
    if model is None:
        with progress_bar("writing a synthetic model") as progress:
            model = qk256_model() or model_or_synthetic("tiny" if quick else "2b", progress=progress)[0]
    with spinner() as step:
        report = measure(
            model,
            n_threads=threads,
            n_runs=1 if quick else 3,
            n_tokens=8 if quick else 32,
            isa=isa,
            weights=weights,
            dtype=dtype,
            progress=step,
        )
    out = console()
    out.print(report.heading())
    styles = {Verdict.FAIL: "bold red", Verdict.TARGET: "green"}
    row_styles = [styles.get(m.verdict, "") for m in report.measurements]
    print_table(out, Report.COLUMNS, [m.cells() for m in report.measurements], styles=row_styles)
    print_table(out, Report.DETAIL_COLUMNS, [m.detail_cells() for m in report.measurements])
    if receipt is not None:
        with progress_bar("hashing the model") as progress:
            sha256 = receipts.file_sha256(model, progress=progress)
        receipts.write(receipt, receipts.make(report, sha256))
        typer.echo(f"receipt: {receipt}")
    if report.failed:
        raise typer.Exit(1)


def verify(
    receipt: Annotated[Path, typer.Argument(help="What `bitnet targets --receipt` wrote.", show_default=False)],
) -> None:
    """Check a receipt; exit with 1 and say what is wrong if it is not that of a real run.

    Example: bitnet verify receipt.json
    """
    from bitnet_core import receipt as receipts

    problems = receipts.verify(receipts.read(receipt))
    for problem in problems:
        typer.echo(f"{receipt}: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{receipt}: sound")
