"""The ``bitnet`` command."""

from __future__ import annotations

import errno
import json
import math
import platform
import sys
import time
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bitnet_core.exceptions import BitNetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bitnet_core.gguf import GGUFReader
    from bitnet_core.model import Model

# Each command imports what it needs when it runs, so that none waits for the modules of another.
# ruff: noqa: PLC0415

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


# ---- arguments that several commands take ----


class _Layout(str, Enum):
    GROUPS_OF_128 = "128"
    GROUPS_OF_64 = "64"
    ROW4 = "row4"


class _Output(str, Enum):
    MD = "md"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


_Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF file.", show_default=False)]
_Threads = Annotated[int | None, typer.Option(help="Default: BITNET_THREADS, else the physical cores.")]
_Isa = Annotated[str | None, typer.Option(help="Level of kernels, see `bitnet cpu`. Default: the best here.")]
_FileDtype = Annotated[
    str | None, typer.Option(help="What tensor type id 36 means (i2_s or qk256), if the file does not say.")
]
_Weights = Annotated[
    str, typer.Option(help="Ternary matrices: file, packed (1.6 bits a weight, in memory), or auto, by measurement.")
]
_LayoutOption = Annotated[_Layout, typer.Option(help="Order of the codes of i2_s.")]


# ---- commands ----


@app.command()
def info(
    model: _Model,
    *,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, tensors included.")] = False,
    dtype: _FileDtype = None,
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
                (one_line(i.name), i.dtype or f"type id {i.gguf_type}", _by(i.shape), f"{i.offset:,}", f"{i.nbytes:,}")
                for i in reader.infos
            ]
            print_table(out, ("tensor", "dtype", "shape", "offset", "bytes"), lines, right_from=2)


@app.command()
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

    _refuse_existing(out, force=force)
    with progress_bar(f"writing {out}") as progress:
        write_model(out, preset, dtype=dtype, head_dtype=head, seed=seed, arch=arch, progress=progress)
    typer.echo(f"{out}: {out.stat().st_size:,} bytes")


@app.command()
def quantize(
    array: Annotated[Path, typer.Argument(help="A .npy file of numbers; its last axis is a row.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(help="NAME.gguf: a file with one tensor. Other names: bare bytes.", show_default=False)
    ],
    *,
    dtype: Annotated[str, typer.Option(help="f32, f16, bf16, i2_s, qk256, bitnet32, q8_0 or q6_k.")] = "i2_s",
    scale: Annotated[str, typer.Option(help="For i2_s: absmean, absmax, or a number.")] = "absmean",
    layout: _LayoutOption = _Layout.GROUPS_OF_128,
    name: Annotated[str, typer.Option(help="Name of the tensor in NAME.gguf.")] = "weight",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    threads: _Threads = None,
    isa: _Isa = None,
) -> None:
    """Pack an array of floats into a tensor format.

    Example: bitnet quantize weights.npy weights.gguf --dtype i2_s --scale absmax
    """
    import numpy as np

    from bitnet_core.dtypes import dequantize as unpack
    from bitnet_core.dtypes import quantize as pack

    _refuse_existing(out, force=force)
    x = _load_npy(array)
    options: dict[str, Any] = {"layout": layout.value, "isa": isa, "n_threads": threads}
    packed = pack(x, dtype, scale=_scale(scale), **options)
    if out.suffix == ".gguf":
        if layout is not _Layout.GROUPS_OF_128:
            raise ValueError(f"a GGUF file cannot say that its layout is {layout.value}; write bare bytes instead")
        _write_one_tensor(out, name, dtype, x.shape, packed)
    else:
        _write_bytes(out, packed)
    error = np.abs(unpack(packed, dtype, x.shape, **options) - x)
    typer.echo(
        f"{out}: {dtype} {_by(x.shape)}, {packed.nbytes:,} bytes, {8 * packed.nbytes / x.size:.3f} bits an element; "
        f"error at most {error.max():.3g}, on average {error.mean():.3g}"
    )


@app.command()
def dequantize(
    packed: Annotated[Path, typer.Argument(help="A GGUF file, or the bare bytes of a tensor.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The .npy file to write, float32.", show_default=False)],
    *,
    tensor: Annotated[str | None, typer.Option(help="Which tensor of the GGUF file; default: the only one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Format of bare bytes, or of type id 36 in a GGUF file.")] = None,
    shape: Annotated[str | None, typer.Option(help="Shape of bare bytes, for example 2560,6912.")] = None,
    layout: _LayoutOption = _Layout.GROUPS_OF_128,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    threads: _Threads = None,
    isa: _Isa = None,
) -> None:
    """Unpack a tensor into a .npy file of float32.

    Example: bitnet dequantize model.gguf q.npy --tensor blk.0.attn_q.weight
    """
    from bitnet_core.dtypes import dequantize as unpack
    from bitnet_core.files import AtomicFile

    _refuse_existing(out, force=force)
    data, dtype, dims = _packed_tensor(packed, tensor, dtype, shape)
    x = unpack(data, dtype, dims, layout=layout.value, isa=isa, n_threads=threads)
    with AtomicFile(out) as file:
        import numpy as np

        np.save(file, x)
    typer.echo(f"{out}: float32 {_by(x.shape)}, from {dtype}")


@app.command()
def generate(
    model: _Model,
    *,
    ids: Annotated[str, typer.Option(help="The prompt as token ids, for example 1,2,3.", show_default=False)],
    n: Annotated[int, typer.Option("-n", "--max-tokens", help="Most tokens to generate.", min=0)] = 100,
    temperature: Annotated[float | None, typer.Option(help="0: the most probable token. Default: 0.7.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0: all. Default: 50.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1: all. Default: 0.9.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1: none. Default: 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: BITNET_SEED, else 42.")] = None,
    stop: Annotated[str, typer.Option(help="Token ids that end the generation.")] = "",
    threads: _Threads = None,
    isa: _Isa = None,
    weights: _Weights = "file",
    dtype: _FileDtype = None,
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


@app.command()
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
    dtype: _FileDtype = None,
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


@app.command()
def targets(
    model: Annotated[
        Path | None, typer.Argument(help="Default: the model that is found, else a synthetic one.", show_default=False)
    ] = None,
    *,
    receipt: Annotated[Path | None, typer.Option(help="Also write the receipt, a JSON file.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short run; the synthetic model, if needed, is the tiny one.")
    ] = False,
    threads: _Threads = None,
    isa: _Isa = None,
    weights: _Weights = "file",
    dtype: _FileDtype = None,
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


@app.command()
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


@app.command()
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


# ---- reading and writing ----


def _refuse_existing(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise FileExistsError(errno.EEXIST, "exists already; --force replaces it", str(path))


def _load_npy(path: Path) -> NDArray[Any]:
    import numpy as np

    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path} is not a .npy file")
        file.seek(0)
        x = np.load(file, allow_pickle=False)
    if x.dtype.kind not in "fiu" or x.size == 0:
        raise ValueError(f"{path} must hold numbers, at least one; it holds {x.dtype} of shape {x.shape}")
    return np.atleast_1d(x)


def _scale(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text  # a rule by name; quantize() knows which there are


def _write_bytes(path: Path, data: NDArray[np.uint8]) -> None:
    from bitnet_core.files import AtomicFile

    with AtomicFile(path) as file:
        file.write(data.data)


def _write_one_tensor(path: Path, name: str, dtype: str, shape: tuple[int, ...], packed: NDArray[np.uint8]) -> None:
    from bitnet_core.dtypes import DType
    from bitnet_core.gguf_writer import GGUFWriter

    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "tensor", "string")
        if dtype == "qk256":
            writer.add("bitnet_core.qk256", True, "bool")
        writer.add_tensor(name, shape, gguf_type=DType(dtype).gguf_type, nbytes=packed.nbytes)
        writer.write_tensor(name, packed)
        found = _dtype_that_is_read(writer.flush(), name)
        if found != dtype:  # several formats share a type id; nothing in the file tells them apart but the size
            raise ValueError(
                f"a GGUF file cannot say that this tensor is {dtype}: it would be read as {found or 'nothing known'}; "
                f"write bare bytes instead, to a name that does not end in .gguf"
            )


def _dtype_that_is_read(path: Path, name: str) -> str | None:
    from bitnet_core.exceptions import GGUFError
    from bitnet_core.gguf import GGUFReader

    try:
        with GGUFReader(path) as reader:
            return reader.info(name).dtype
    except GGUFError:
        return None


def _packed_tensor(
    path: Path, name: str | None, dtype: str | None, shape: str | None
) -> tuple[NDArray[np.uint8], str, tuple[int, ...]]:
    """Return bytes, format and shape of a tensor in a GGUF file, or of a file of bare bytes."""
    import numpy as np

    from bitnet_core.gguf import GGUFReader

    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if not is_gguf:
        if dtype is None or shape is None:
            raise ValueError(f"{path} is not a GGUF file; bare bytes need --dtype and --shape")
        return np.fromfile(path, np.uint8), dtype, tuple(_whole_numbers("--shape", shape))
    if shape is not None:
        raise ValueError(f"{path} is a GGUF file, which says the shape of each tensor itself; leave out --shape")
    with GGUFReader(path, dtype=dtype) as reader:
        if name is None:
            if len(reader.infos) != 1:
                raise ValueError(f"{path} has {len(reader.infos)} tensors; choose one with --tensor")
            name = reader.infos[0].name
        if name not in reader.tensors:
            raise ValueError(f"{path} has no tensor {name!r}; `bitnet info --tensors` lists them")
        found = reader.info(name)
        if found.dtype is None:
            raise ValueError(f"{path}: tensor {name!r} has type id {found.gguf_type}, which this library does not know")
        return np.array(reader.tensors[name]).reshape(-1).view(np.uint8), found.dtype, found.shape


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        from bitnet_core.terminal import one_line

        shown = one_line(repr(text))
        raise ValueError(f"{option} takes whole numbers with commas between them, not {shown}") from None


def _token_ids(option: str, text: str) -> list[int]:
    ids = _whole_numbers(option, text)
    for token in ids:
        if not -(2**31) <= token < 2**31:  # what fits is compared with the vocabulary later
            raise ValueError(f"{option}: token ids are 0 to {2**31 - 1}; {_shortened(token)} is none")
    return ids


def _shortened(value: int) -> str:
    from bitnet_core.terminal import one_line

    return one_line(value)


def _names(texts: Sequence[str] | None) -> list[str]:
    return [part.strip() for text in texts or () for part in text.split(",")]


def _pair(option: str, text: str) -> tuple[int, int]:
    numbers = _whole_numbers(option, text)
    if len(numbers) != 2:
        raise ValueError(f"{option} takes two numbers, of a prompt and of tokens to generate, not {text!r}")
    return numbers[0], numbers[1]


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


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _how(model: Model, weights: str) -> str:
    parts = [f"{model.n_threads} threads", model.isa]
    if weights != "file":
        reason = model.packing.reason and f" ({model.packing.reason})"
        parts.append(f"weights {model.packing}{reason}")
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
