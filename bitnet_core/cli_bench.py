"""``bitnet bench``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitnet_core.cli_arguments import FileDtype, whole_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

# Each command imports what it needs when it runs, so that none waits for the modules of another.
# ruff: noqa: PLC0415
# Typer reads the annotations of a command, so what they name is imported when the module is.
# ruff: noqa: TC003

__all__ = ["bench"]


class _Output(str, Enum):
    MD = "md"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="GGUF files.", show_default=False)],
    *,
    n_prompt: Annotated[
        list[str] | None, typer.Option("-p", "--n-prompt", help="Tokens of a prompt; 0: no such test. Default: 512.")
    ] = None,
    n_gen: Annotated[
        list[str] | None, typer.Option("-n", "--n-gen", help="Tokens to generate; 0: no such test. Default: 128.")
    ] = None,
    pg: Annotated[
        list[str] | None, typer.Option("-pg", metavar="PP,TG", help="Also a prompt and a generation as one test.")
    ] = None,
    n_depth: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--n-depth",
            help="Tokens before the test, as seeded noise in the KV cache, not evaluated. Default: 0.",
        ),
    ] = None,
    threads: Annotated[
        list[str] | None,
        typer.Option("-t", "--threads", help="Default: BITNET_THREADS, else the physical cores."),
    ] = None,
    n_batch: Annotated[
        list[str] | None,
        typer.Option("-b", "--batch-size", help="Tokens of a prompt in one pass over the weights. Default: 256."),
    ] = None,
    cache_type: Annotated[
        list[str] | None, typer.Option("-ctk", "--cache-type", help="Keys and values: f16, f32 or q8_0. Default: f16.")
    ] = None,
    isa: Annotated[
        list[str] | None, typer.Option(help="Level of kernels, see `bitnet cpu`. Default: the best here.")
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="How tokens are found: exact, screened, proven or auto. Default: auto, by the size of the head."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Ternary matrices: file, packed (1.6 bits a weight, in memory) or auto, by measurement. Default: file."
        ),
    ] = None,
    repetitions: Annotated[int, typer.Option("-r", "--repetitions", help="Of each test.", min=1)] = 5,
    output: Annotated[_Output, typer.Option("-o", "--output", help="What goes to standard output.")] = _Output.MD,
    dtype: FileDtype = None,
) -> None:
    """Measure speed with llama-bench's options and fields, beside what the machine can do at best.

    Options of type list take 1,2 or 128-512*2, or are given again; every combination is a test.
    Prompts are seeded random ids, generation is greedy, each test is warmed up. Ctrl-C keeps the tests that are done.

    Example: bitnet bench model.gguf -p 512 -n 128 -t 1,2 -o json
    """
    from bitnet_core import bench as benches
    from bitnet_core import bench_output
    from bitnet_core.terminal import status_line

    settings: dict[str, Any] = {
        "n_prompt": n_prompt and benches.numbers("-p", n_prompt),
        "n_gen": n_gen and benches.numbers("-n", n_gen),
        "pg": pg and [_pair("-pg", text) for text in pg],
        "n_depth": n_depth and benches.numbers("-d", n_depth),
        "n_threads": threads and benches.numbers("-t", threads),
        "n_batch": n_batch and benches.numbers("-b", n_batch),
        "type_k": _names(cache_type),
        "isa": _names(isa),
        "head": _names(head),
        "weights": _names(weights),
    }
    given = {name: values for name, values in settings.items() if values}
    cases = benches.plan(models, dtype=dtype, **given)
    benches.check(cases)
    columns = {*given, *(["model_filename"] if len(models) > 1 else [])}
    with status_line() as progress:
        records = benches.run(cases, n_repetitions=repetitions, progress=progress)
        for line in bench_output.lines(records, output.value, columns=columns):
            progress("")
            typer.echo(line)


def _names(texts: Sequence[str] | None) -> list[str]:
    return [part.strip() for text in texts or () for part in text.split(",")]


def _pair(option: str, text: str) -> tuple[int, int]:
    numbers = whole_numbers(option, text)
    if len(numbers) != 2:
        raise ValueError(f"{option} takes two numbers, of a prompt and of tokens to generate, not {text!r}")
    return numbers[0], numbers[1]
