"""The ``bitnet`` command."""

from __future__ import annotations

import errno
import json
import math
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bitnet_core.cli_arguments import FileDtype, Isa, ModelFile, Threads, Weights, axes, refuse_existing, whole_numbers
from bitnet_core.cli_bench import bench
from bitnet_core.cli_convert import dequantize, quantize
from bitnet_core.cli_targets import targets, verify
from bitnet_core.exceptions import BitNetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bitnet_core.gguf import GGUFReader
    from bitnet_core.model import Model

# Each command imports what it needs when it runs, so that none waits for the modules of another.
# ruff: noqa: PLC0415
# Typer reads the annotations of a command, so what they name is imported when the module is.
# ruff: noqa: TC003

__all__ = ["app", "main"]

_MIB = 1024 * 1024
_CTRL_C = 130  # 128 + SIGINT, as a shell reports it


class _Group(TyperGroup):
    """Commands whose foreseeable errors are one line, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("bitnet: interrupted", err=True)
            raise typer.Exit(_CTRL_C) from None
        except (BitNetError, OSError, ValueError, MemoryError) as error:
            if ctx.params.get("traceback") or getattr(error, "errno", None) == errno.EPIPE:  # typer knows about EPIPE
                raise
            typer.echo(f"bitnet: {_error_text(error)}", err=True)
            raise typer.Exit(1) from None


def _error_text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BitNetError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; what ``bitnet`` and ``python -m bitnet_core`` call."""
    app(prog_name="bitnet")


def _print_version(value: bool) -> None:
    if value:
        from bitnet_core._version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Read, quantize, run and measure BitNet b1.58 models on a CPU."""
    _ = traceback, version  # the first is read by _Group, the second by its callback


# ---- commands; longer ones have files of their own ----


def info(
    model: ModelFile,
    *,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, tensors included.")] = False,
    dtype: FileDtype = None,
) -> None:
    """Show what a GGUF file holds: metadata, hyper-parameters, tensors.

    Example: bitnet info model.gguf --tensors
    """
    from bitnet_core.gguf import GGUFReader
    from bitnet_core.terminal import console, one_line, print_table

    with GGUFReader(model, dtype=dtype) as reader:
        config, reason = _config_of(model, dtype)
        if as_json:
            typer.echo(json.dumps(_info_as_json(reader, config, reason), indent=2))
            return
        out = console()
        out.print(f"{model}: GGUF version {reader.version}, {reader.size:,} bytes, {len(reader.infos)} tensors")
        print_table(out, ("key", "value"), [(one_line(key), one_line(value)) for key, value in reader.metadata.items()])
        if config is None:
            out.print(f"\nnot a model that can be run here: {reason}\n")
        else:
            print_table(out, ("hyper-parameter", "value"), [(name, str(value)) for name, value in config.items()])
        print_table(out, ("dtype", "tensors", "elements", "MiB"), _totals(reader), right_from=1)
        if tensors:
            lines = [
                (one_line(i.name), i.dtype or f"type id {i.gguf_type}", axes(i.shape), f"{i.offset:,}", f"{i.nbytes:,}")
                for i in reader.infos
            ]
            print_table(out, ("tensor", "dtype", "shape", "offset", "bytes"), lines, right_from=2)


def synth(
    preset: Annotated[str, typer.Argument(help="tiny, 125m, 700m or 2b.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.", show_default=False)],
    *,
    dtype: Annotated[str, typer.Option(help="Format of the matrices: i2_s, qk256, or tq2_0 for llama.cpp.")] = "i2_s",
    head: Annotated[str, typer.Option(help="Format of the embedding and head: f16, q8_0 or q6_k.")] = "f16",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.", min=0)] = 42,
    arch: Annotated[
        str, typer.Option(help="GGUF architecture to declare: bitnet-b1.58, bitnet-25, or bitnet for llama.cpp.")
    ] = "bitnet-b1.58",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a model with random ternary weights, in the shape of a real one.

    Example: bitnet synth 2b model.gguf --seed 7
    """
    from bitnet_core.synthetic import write_model
    from bitnet_core.terminal import progress_bar

    refuse_existing(out, force=force)
    with progress_bar(f"writing {out}") as progress:
        write_model(out, preset, dtype=dtype, head_dtype=head, seed=seed, arch=arch, progress=progress)
    typer.echo(f"{out}: {out.stat().st_size:,} bytes")


def generate(
    model: ModelFile,
    *,
    ids: Annotated[str, typer.Option(help="The prompt as token ids, for example 1,2,3.", show_default=False)],
    n: Annotated[int, typer.Option("-n", "--max-tokens", help="Most tokens to generate.", min=0)] = 100,
    temperature: Annotated[float | None, typer.Option(help="0: the most probable token. Default: 0.7.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0: all. Default: 50.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1: all. Default: 0.9.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1: none. Default: 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: BITNET_SEED, else 42.")] = None,
    stop: Annotated[str, typer.Option(help="Token ids that end the generation.")] = "",
    threads: Threads = None,
    isa: Isa = None,
    weights: Weights = "file",
    dtype: FileDtype = None,
) -> None:
    """Continue a sequence of token ids, printing each as it comes; the speed goes to standard error.

    Example: bitnet generate model.gguf --ids 1,2,3 -n 20 --temperature 0
    """
    from bitnet_core.model import Model
    from bitnet_core.sampling import SamplingParams

    prompt = _token_ids("--ids", ids)
    given = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    params = SamplingParams(max_tokens=n, stop=tuple(_token_ids("--stop", stop)), **chosen)
    options: dict[str, Any] = {"n_threads": threads, "isa": isa, "dtype": dtype, "weights": weights}
    with Model.from_file(model, **options) as loaded, loaded.session() as session:
        times = [time.perf_counter()]
        for token in session.generate(prompt, params):
            typer.echo(f"{token} ", nl=False)
            sys.stdout.flush()
            times.append(time.perf_counter())
        typer.echo()
        typer.echo(_speed(len(prompt), times, _how(loaded, weights)), err=True)


def cpu() -> None:
    """Show what this processor offers and which kernels it gets; put this into a bug report.

    Example: bitnet cpu
    """
    from bitnet_core import kernels
    from bitnet_core._version import __version__

    chosen = kernels.chosen_isa()
    supported = kernels.isa_levels()
    typer.echo(f"bitnet-core {__version__}, Python {platform.python_version()}, {platform.platform()}")
    typer.echo(f"instruction sets: {' '.join(kernels.cpu_features()) or 'none that matter here'}")
    for level in kernels.isa_levels(supported_only=False):
        mark = "used" if level == chosen else "supported" if level in supported else "not supported"
        names = [kernel.name for kernel in kernels.available() if kernel.isa == level]
        typer.echo(f"{level} ({mark}): {' '.join(names)}")


# In the order of `bitnet --help`.
for _command in (info, synth, quantize, dequantize, generate, bench, targets, verify, cpu):
    app.command()(_command)


# ---- reading ----


def _token_ids(option: str, text: str) -> list[int]:
    from bitnet_core.terminal import one_line

    ids = whole_numbers(option, text)
    for token in ids:
        if not -(2**31) <= token < 2**31:  # what fits is compared with the vocabulary later
            raise ValueError(f"{option}: token ids are 0 to {2**31 - 1}; {one_line(token)} is none")
    return ids


# ---- showing ----


def _config_of(path: Path, dtype: str | None) -> tuple[dict[str, Any] | None, str]:
    """Return the hyper-parameters of a model, or why it cannot be run."""
    from bitnet_core.model import Model

    try:
        with Model.from_file(path, dtype=dtype) as model:
            return asdict(model.config), ""
    except BitNetError as error:
        return None, str(error)


def _info_as_json(reader: GGUFReader, config: Mapping[str, Any] | None, reason: str) -> dict[str, Any]:
    return {
        "path": str(reader.path),
        "size": reader.size,
        "version": reader.version,
        "alignment": reader.alignment,
        "metadata": {key: _jsonable(value) for key, value in reader.metadata.items()},
        "config": config,
        "not_runnable": reason or None,
        "tensors": [asdict(i) for i in reader.infos],
    }


def _jsonable(value: Any) -> Any:
    """Keep scalars as they are; of an array, which may be a vocabulary, tell the length."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return {"array_of": len(value)} if hasattr(value, "__len__") else value


def _totals(reader: GGUFReader) -> list[tuple[str, str, str, str]]:
    """Count tensors, elements and MiB of each format, in one pass: a file may have as many type ids as tensors."""
    totals: dict[str, list[int]] = {}
    for i in reader.infos:
        of_dtype = totals.setdefault(i.dtype or f"type id {i.gguf_type}", [0, 0, 0])
        for k, n in enumerate((1, math.prod(i.shape), i.nbytes)):
            of_dtype[k] += n
    return [(name, f"{n:,}", f"{size:,}", f"{nbytes / _MIB:,.1f}") for name, (n, size, nbytes) in totals.items()]


def _how(model: Model, weights: str) -> str:
    parts = [f"{model.n_threads} threads", model.isa]
    if weights != "file":
        parts.append(f"weights {model.packing}")
    return ", ".join(parts)


def _speed(n_prompt: int, times: Sequence[float], how: str) -> str:
    """Return the line under a generation; times are those of the start and of each token."""
    n_tokens = len(times) - 1
    parts = [how]
    if n_tokens:
        parts.append(f"first token after {n_prompt} of prompt in {times[1] - times[0]:.3f} s")
    if n_tokens > 1:
        seconds = times[-1] - times[1]
        parts.append(f"then {(n_tokens - 1) / seconds:.2f} tok/s ({1000 * seconds / (n_tokens - 1):.1f} ms/token)")
    return f"{n_tokens} tokens: " + ", ".join(parts)
