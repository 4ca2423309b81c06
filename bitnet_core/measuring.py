"""How the figures of :mod:`bitnet_core.targets` are taken."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bitnet_core import dtypes, kernels, memory
from bitnet_core._lib import default_threads
from bitnet_core._version import __version__
from bitnet_core.exceptions import BitNetError
from bitnet_core.model import Model
from bitnet_core.sampling import SamplingParams
from bitnet_core.targets import Measurement, Report, number, targets_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bitnet_core.gguf import TensorInfo
    from bitnet_core.session import Session

__all__ = ["cpu_name", "measure_model"]

_MIB = 1024 * 1024
_PROMPT_TOKENS = 8
_MAX_TENSORS = 10
_LEAST_ABSMEAN = 1e-5
_MAX_DECODE_S = 10.0  # a run of decoding ends then, even if it has not made all its tokens


def measure_model(
    path: str | os.PathLike[str],
    *,
    n_threads: int | None,
    n_runs: int,
    n_tokens: int,
    isa: str | None,
    weights: str,
    dtype: str | None,
    progress: Callable[[str], None] | None,
) -> Report:
    """Measure a model; see :func:`bitnet_core.targets.measure`."""
    if n_runs < 1 or n_tokens < 2:
        raise ValueError(f"n_runs must be at least 1 and n_tokens at least 2, not {n_runs} and {n_tokens}")
    subject = _Subject(str(Path(path).absolute()), default_threads(n_threads), isa, dtype, weights)
    subject.open().close()  # what is wrong with the file is said by this process
    begin = progress or (lambda _step: None)
    begin("memory")  # first, since it also brings the whole file into the page cache
    footprint = _footprint_of_child(subject)
    begin("load")
    loads_s = [_load_seconds(subject) for _ in range(1 + n_runs)][1:]  # the first one does not count: it warms up
    with subject.open() as model:
        begin("quantize and dequantize")
        conversions = [_convert(model) for _ in range(1 + n_runs)][1:]
        begin("decode")
        with model.session() as session:
            prompt = _prompt(model.config.n_vocab)
            runs = [_decode(session, prompt, n_tokens) for _ in range(n_runs)]
            used = session.kernels_used()
        environment = _environment(model)
        config = asdict(model.config)
        synthetic = model.metadata.get("bitnet_core.synthetic")
        file_bytes = model.reader.size
    samples: dict[str, Sequence[float]] = {
        "load_s": loads_s,
        "memory_ratio": [footprint["growth_peak"] / file_bytes],
        "peak_memory_mb": [footprint["process_peak"] / _MIB],
        "quantize_mb_s": [run.float_mib / run.quantize_s for run in conversions],
        "dequantize_mb_s": [run.float_mib / run.dequantize_s for run in conversions],
        "tokens_per_second": [1000 / run.average_ms for run in runs],
        "average_token_latency_ms": [run.average_ms for run in runs],
        "first_token_latency_ms": [run.first_ms for run in runs],
    }
    notes = _notes(footprint, conversions, runs)
    is_qk256 = config["dtype"] == "qk256" or bool(os.environ.get("BITNET_QK256_MODEL"))
    median_run = sorted(runs, key=lambda run: run.average_ms)[len(runs) // 2]
    return Report(
        model=Path(subject.path),
        file_bytes=file_bytes,
        config=config,
        synthetic=synthetic,
        environment=environment,
        n_runs=n_runs,
        kernels=used,
        deterministic=n_runs > 1 and all(_same_start(runs[0].tokens, run.tokens) for run in runs),
        tokens_generated=len(median_run.tokens),
        total_time_ms=median_run.first_ms + sum(median_run.later_ms),
        measurements=tuple(
            Measurement(target, tuple(samples[target.metric]), notes.get(target.metric, ""))
            for target in targets_for("qk256" if is_qk256 else config["dtype"])
        ),
    )


@dataclass(frozen=True)
class _Subject:
    """What is measured, and how it is opened."""

    path: str
    n_threads: int
    isa: str | None
    dtype: str | None
    weights: str

    def open(self) -> Model:
        return Model.from_file(
            self.path, n_threads=self.n_threads, isa=self.isa, dtype=self.dtype, weights=self.weights
        )


# ---- load and memory ----


def _load_seconds(subject: _Subject) -> float:
    start = time.perf_counter()
    with subject.open() as model, model.session():
        return time.perf_counter() - start


def _footprint_of_child(subject: _Subject) -> dict[str, int]:
    """Return what a fresh interpreter needs to load the model and to generate two tokens after a prompt, in bytes."""
    code = (
        "import json, sys; job = json.loads(sys.argv[1]); sys.path[:] = job['sys_path']; "
        f"from {__name__} import _print_footprint; _print_footprint(job['subject'])"
    )
    job = json.dumps({"sys_path": sys.path, "subject": asdict(subject)})
    command = [sys.executable, "-c", code, job]
    child = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this package's own code
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise BitNetError(f"the process that measures memory failed: {reason}")
    return dict(json.loads(child.stdout))


def _print_footprint(subject_fields: dict[str, Any]) -> None:
    """Be that interpreter. Everything is imported by now, so the baseline is taken here."""
    subject = _Subject(**subject_fields)
    with contextlib.ExitStack() as alive:  # what is measured must live until the growth is known
        with memory.Growth(interval=0.005) as growth:
            model = alive.enter_context(subject.open())
            session = alive.enter_context(model.session())
            # The prompt is not random: numpy.random would be imported late, and it takes 5 MB.
            prompt = [i % model.config.n_vocab for i in range(_PROMPT_TOKENS)]
            list(session.generate(prompt, _greedy(2)))
        process_peak = memory.peak()
    footprint = {
        "peak_anonymous": growth.peak_anonymous,
        "file_backed": growth.file_backed,
        "growth_peak": growth.peak,
        "process_peak": process_peak,
    }
    sys.stdout.write(json.dumps(footprint))


# ---- quantize and dequantize ----


@dataclass(frozen=True)
class _Conversion:
    float_mib: float
    packed_mib: float
    quantize_s: float
    dequantize_s: float


def _convert(model: Model) -> _Conversion:
    """Take the first matrices of the model to float32 and back; the codes must be those of the file."""
    dtype = model.config.dtype
    matrices = [info for info in model.reader.infos if info.dtype == dtype][:_MAX_TENSORS]
    largest = max(math.prod(info.shape) for info in matrices)
    floats = np.zeros(largest, np.float32)
    floats.fill(1)  # touches every page, so that no timing pays for that
    quantize_s = dequantize_s = 0.0
    for info in matrices:
        seconds = _there_and_back(model, info, floats[: math.prod(info.shape)].reshape(info.shape))
        if seconds is None:
            raise BitNetError(f"{info.name}: dequantized and quantized again, it has other codes than in the file")
        dequantize_s += seconds[0]
        quantize_s += seconds[1]
    float_mib = sum(4 * math.prod(info.shape) for info in matrices) / _MIB
    return _Conversion(float_mib, sum(info.nbytes for info in matrices) / _MIB, quantize_s, dequantize_s)


def _there_and_back(model: Model, info: TensorInfo, x: NDArray[np.float32]) -> tuple[float, float] | None:
    """Dequantize a tensor into x and quantize that; return the seconds of both, None if the codes are not the same.

    All but the tail, which holds the scale, is compared.
    """
    dtype = dtypes.DType(model.config.dtype)
    packed = model.reader.tensors[info.name]
    n_codes = packed.size - dtype.tail_bytes
    scale, expected = _way_back(packed, n_codes)
    start = time.perf_counter()
    dtypes.dequantize(packed, dtype, info.shape, out=x, isa=model.isa, n_threads=model.n_threads)
    middle = time.perf_counter()
    again = dtypes.quantize(x, dtype, scale=scale, isa=model.isa, n_threads=model.n_threads)
    end = time.perf_counter()
    return (middle - start, end - middle) if np.array_equal(again[:n_codes], expected) else None


def _way_back(packed: NDArray[np.uint8], n_codes: int) -> tuple[str | float, NDArray[np.uint8]]:
    """Return the scale to quantize a dequantized tensor with, and the codes that this must give.

    The mean magnitude is at most the scale of the file, so with "absmean" what is not 0 becomes -1 or +1 again; but
    "absmean" goes down to 1e-5 only, and a smaller scale has to be given.
    """
    codes = packed[:n_codes]
    if n_codes == packed.size:  # no scale
        return "absmean", codes
    scale = float(packed[n_codes : n_codes + 4].view("<f4")[0])
    if abs(scale) < np.finfo(np.float32).tiny:  # its multiples are 0 or nearly: all become 0, code 1
        return "absmean", np.full_like(codes, 0x55)
    if scale < 0:
        codes = np.uint8(0xAA) - codes  # x is -(+1) * |scale|: each of the four codes c comes back as 2 - c
    return (abs(scale) if abs(scale) < _LEAST_ABSMEAN else "absmean"), codes


# ---- decode ----


@dataclass(frozen=True)
class _Decoding:
    tokens: tuple[int, ...]
    first_ms: float
    later_ms: tuple[float, ...]

    @property
    def average_ms(self) -> float:
        return statistics.fmean(self.later_ms)


def _prompt(n_vocab: int) -> list[int]:
    """Draw tokens, the same for the same seed."""
    text = os.environ.get("BITNET_SEED") or "42"
    if not text.isdecimal():
        raise ValueError(f"BITNET_SEED must be a whole number, not {text!r}")
    drawn = np.random.default_rng(int(text)).integers(n_vocab, size=_PROMPT_TOKENS)
    return [int(token) for token in drawn]


def _decode(session: Session, prompt: list[int], n_tokens: int) -> _Decoding:
    """Generate greedily and time each token."""
    session.rewind(0)
    tokens: list[int] = []
    times_ms: list[float] = []
    begin = last = time.perf_counter()
    for token in session.generate(prompt, _greedy(n_tokens)):
        now = time.perf_counter()
        tokens.append(token)
        times_ms.append((now - last) * 1000)
        if len(tokens) >= 2 and now - begin > _MAX_DECODE_S:
            break
        last = time.perf_counter()
    return _Decoding(tuple(tokens), times_ms[0], tuple(times_ms[1:]))


def _greedy(n_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=n_tokens, ignore_eos=True)


def _same_start(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    n = min(len(a), len(b))
    return a[:n] == b[:n]


# ---- words around the numbers ----


def _notes(footprint: dict[str, int], conversions: list[_Conversion], runs: list[_Decoding]) -> dict[str, str]:
    def packed_side(seconds: Callable[[_Conversion], float]) -> str:
        return f"packed side {number(statistics.median(run.packed_mib / seconds(run) for run in conversions))} MB/s"

    later_ms = [ms for run in runs for ms in run.later_ms]
    p50, p95 = np.quantile(later_ms, [0.5, 0.95])
    anonymous, file_backed = footprint["peak_anonymous"] / _MIB, footprint["file_backed"] / _MIB
    return {
        "memory_ratio": f"anonymous {number(anonymous)} MB, file-backed {number(file_backed)} MB",
        "quantize_mb_s": packed_side(lambda run: run.quantize_s),
        "dequantize_mb_s": packed_side(lambda run: run.dequantize_s),
        "average_token_latency_ms": f"p50 {number(p50)}, p95 {number(p95)} of {len(later_ms)} tokens",
    }


def _environment(model: Model) -> dict[str, Any]:
    return {
        "bitnet_core": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "os": platform.platform(),
        "cpu": cpu_name(),
        "cpu_features": list(kernels.cpu_features()),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // _MIB,
        "n_threads": model.n_threads,
        "isa": model.isa,
        "weights": str(model.packing),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith("BITNET_")},
    }


def cpu_name() -> str:
    """Return what the processor calls itself, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
