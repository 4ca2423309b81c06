"""Speed of models under llama-bench's test names and record fields, and how near it is to what the machine can do.

A case is ``ppN`` (a prompt of N tokens in one call), ``tgN`` (N tokens generated one by one), or one after the other;
``@ dN`` says that N tokens stand before it. Each is warmed up once (the whole prompt, one generated token) and then
repeated; prompts are seeded random ids, generation is greedy. At a depth, the KV cache holds seeded noise: the time is
that of real tokens, their evaluation is saved.

A record has llama-bench's fields, where they mean something here, and at its end these:

========================  =============================================================================================
``isa``, ``head``         level of kernels; how tokens are found, ``exact``, ``screened`` or ``proven``
``weights``               where the ternary matrices were read from, ``file`` or ``packed``
``packed_bytes``          memory of the packed ones, 0 without
``pack_s``                seconds that measuring and packing took
``pack_gain``             :attr:`Packing.gain`; null if it was not measured
``bytes_per_token``       read from memory, mean of all tokens: weights, and when generating the KV cache, too
``gb_s``                  these bytes by the median time, in 1e9 bytes a second
``read_gb_s``             median speed of plain reads of 256 MiB, taken before each repetition
``bandwidth_fraction``    the first by the second; above 1 where the weights fit the processor's caches
``macs_per_token``        int8 multiply-accumulates of the ternary matrices
``gmac_s``                these by the median time, in 1e9 a second
``int8_peak_gmac_s``      median speed of them from registers, taken like ``read_gb_s``; null without a prompt
``int8_peak_fraction``    the one by the other; null without a prompt
========================  =============================================================================================

``avg_*`` and ``stddev_*`` are llama-bench's: the mean and the sample deviation, 0 for one repetition.

Example
-------
>>> import tempfile
>>> from bitnet_core.synthetic import write_model
>>> folder = tempfile.TemporaryDirectory()
>>> path = write_model(folder.name + "/tiny.gguf", "tiny")
>>> cases = plan([path], n_prompt=[64], n_gen=[], n_depth=[0, 128])
>>> [record["n_depth"] for record in run(cases, n_repetitions=2)]
[0, 128]
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitnet_core import kernels
from bitnet_core._version import __version__
from bitnet_core.exceptions import ContextOverflowError
from bitnet_core.measuring import cpu_name
from bitnet_core.model import Model
from bitnet_core.sampling import SamplingParams

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from bitnet_core.session import Session

__all__ = ["FIELDS", "Case", "check", "numbers", "plan", "run"]

FIELDS: dict[str, type | tuple[type, ...]] = {
    "build_commit": str,
    "build_number": int,
    "cpu_info": str,
    "gpu_info": str,
    "backends": str,
    "model_filename": str,
    "model_type": str,
    "model_size": int,
    "model_n_params": int,
    "n_batch": int,
    "n_ubatch": int,
    "n_threads": int,
    "type_k": str,
    "type_v": str,
    "flash_attn": bool,
    "use_mmap": bool,
    "embeddings": bool,
    "n_prompt": int,
    "n_gen": int,
    "n_depth": int,
    "test_time": str,
    "avg_ns": int,
    "stddev_ns": int,
    "avg_ts": float,
    "stddev_ts": float,
    "samples_ns": list,
    "samples_ts": list,
    "isa": str,
    "head": str,
    "weights": str,
    "packed_bytes": int,
    "pack_s": float,
    "pack_gain": (float, type(None)),
    "bytes_per_token": float,
    "gb_s": float,
    "read_gb_s": float,
    "bandwidth_fraction": float,
    "macs_per_token": int,
    "gmac_s": float,
    "int8_peak_gmac_s": (float, type(None)),
    "int8_peak_fraction": (float, type(None)),
}
"""What a record holds, in its order, with the types of the values."""

_SEED = 42
_READ_BYTES = 256 << 20  # more than one core's share of any last-level cache
_N_READS = 4  # in one call: a single one, 10 ms long, comes out about a tenth slower
_PEAK_NS = 5_000_000  # a measurement of the peak lasts this long at least, or starting the threads would show
_PEAK_MACS = 1 << 22, 1 << 34  # a thread: what it begins with, and where it stops trying
_MAX_NUMBERS = 1000  # of a range: more tests than anybody waits for, and a slip like 1-1000000000 must not fill memory
_MAX_DIGITS = 9  # of a number: all of them fit the library's int32
_RANGE = re.compile(r"([0-9]+)-([0-9]+)(?:([+*])([0-9]+))?")

_clock = time.perf_counter_ns


# ---- what to measure ----


@dataclass(frozen=True)
class Case:
    """One test: a model, how it is opened, and what is evaluated. None leaves the choice to the library."""

    path: Path
    n_prompt: int
    n_gen: int
    n_depth: int = 0
    n_threads: int | None = None
    n_batch: int | None = None
    type_k: str = "f16"
    isa: str | None = None
    head: str = "auto"
    dtype: str | None = None
    weights: str = "file"

    @property
    def name(self) -> str:
        """As llama-bench writes it: ``pp512``, ``tg128``, ``pp512+tg128 @ d1024``."""
        parts = [f"{kind}{n}" for kind, n in (("pp", self.n_prompt), ("tg", self.n_gen)) if n]
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def n_ctx(self) -> int:
        """Positions it needs."""
        return self.n_depth + self.n_prompt + self.n_gen

    def open_model(self) -> Model:
        """Open the model as the case wants it."""
        return Model.from_file(
            self.path,
            n_threads=self.n_threads,
            isa=self.isa,
            head=self.head,
            dtype=self.dtype,
            weights=self.weights,
        )

    def open_session(self, model: Model) -> Session:
        """Start a sequence as long as the case.

        Raises
        ------
        ContextOverflowError
            The model's context is shorter.
        """
        if self.n_ctx > model.config.n_ctx:
            raise ContextOverflowError(
                f"{self.path}: {self.name} needs {self.n_ctx} positions, the model's context has {model.config.n_ctx}"
            )
        return model.session(self.n_ctx, kv_dtype=self.type_k, n_threads=self.n_threads, n_batch=self.n_batch)


def plan(
    paths: Sequence[str | os.PathLike[str]],
    *,
    n_prompt: Sequence[int] = (512,),
    n_gen: Sequence[int] = (128,),
    pg: Sequence[tuple[int, int]] = (),
    n_depth: Sequence[int] = (0,),
    n_threads: Sequence[int | None] = (None,),
    n_batch: Sequence[int | None] = (None,),
    type_k: Sequence[str] = ("f16",),
    isa: Sequence[str | None] = (None,),
    head: Sequence[str] = ("auto",),
    weights: Sequence[str] = ("file",),
    dtype: str | None = None,
) -> list[Case]:
    """Return every combination, one case for each prompt, each generation and each pair of both.

    Parameters
    ----------
    paths
        GGUF files.
    n_prompt, n_gen, n_depth
        Tokens; a 0 in the first two stands for no test.
    pg
        Pairs of both, measured one after the other as one test.
    n_threads, n_batch, type_k
        Of the session: ``n_batch`` tokens of a prompt go through in one pass, ``type_k`` is that of cached keys and
        values. None: the session's default.
    isa, head, weights, dtype
        See :meth:`Model.from_file`.

    Raises
    ------
    ValueError
        Nothing is left to measure, or a number is negative.
    """
    tests = [*((n, 0) for n in n_prompt), *((0, n) for n in n_gen), *pg]
    tests = [test for test in tests if test != (0, 0)]
    if not tests:
        raise ValueError("nothing to measure: no prompt, nothing to generate")
    if min(min(test) for test in tests) < 0 or min(n_depth, default=0) < 0:
        raise ValueError("numbers of tokens must be 0 or more")
    combinations = itertools.product(paths, isa, head, weights, n_depth, n_batch, type_k, n_threads, tests)
    return [
        Case(Path(path), *test, depth, threads, batch, kv, level, how, dtype, where)
        for path, level, how, where, depth, batch, kv, threads, test in combinations
    ]


def check(cases: Iterable[Case]) -> None:
    """Open everything once, so that what is wrong with any case is said before the first is measured.

    Raises
    ------
    BitNetError, OSError, ValueError
        As :meth:`Model.from_file`, :meth:`Case.open_session` and :meth:`Model.session` raise them.
    """
    for group in _by_model(cases):
        with group[0].open_model() as model:
            for case in group:
                case.open_session(model).close()


def numbers(option: str, texts: Iterable[str]) -> list[int]:
    """Read whole numbers as llama-bench writes lists of them.

    Commas stand between them; ``first-last``, ``first-last+step`` and ``first-last*factor`` are ranges.

    Raises
    ------
    ValueError
        The text is something else, a number has more than 9 digits, or a range more than 1000 values; the message
        names the option.

    Examples
    --------
    >>> numbers("-p", ["16,32", "128-512*2"])
    [16, 32, 128, 256, 512]
    """
    return [n for text in texts for part in text.split(",") for n in _range(option, part.strip())]


def _range(option: str, part: str) -> list[int]:
    if part.isascii() and part.isdecimal():
        if len(part.lstrip("0")) > _MAX_DIGITS:
            raise ValueError(f"{option}: {part} is more than any model takes")
        return [int(part)]
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(f"{option} takes whole numbers with commas between them, or a range like 128-512*2: {part!r}")
    first, last, sign, by = int(match[1]), int(match[2]), match[3] or "+", int(match[4] or 1)
    if by < 1 or (sign == "*" and (by == 1 or first == 0)):
        raise ValueError(f"{option}: the range {part!r} would never end")
    found: list[int] = []
    while first <= last:
        if len(found) == _MAX_NUMBERS:
            raise ValueError(
                f"{option}: the range {part!r} has more than {_MAX_NUMBERS} values; give it a step or factor"
            )
        found.append(first)
        first = first * by if sign == "*" else first + by
    if not found:
        raise ValueError(f"{option}: the range {part!r} is empty")
    return found


def _model_of(case: Case) -> tuple[object, ...]:
    # What packing gains, and whether "auto" packs, is measured with the threads of the model.
    threads = None if case.weights == "file" else case.n_threads
    return case.path, case.isa, case.head, case.weights, case.dtype, threads


def _by_model(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """Neighbours that share an open model."""
    for _, group in itertools.groupby(cases, key=_model_of):
        yield list(group)


# ---- measuring ----


def run(
    cases: Iterable[Case], *, n_repetitions: int = 5, progress: Callable[[str], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Measure one case after the other.

    Parameters
    ----------
    cases
        See :func:`plan`. :func:`check` them first, or what is wrong with the last shows at the end.
    n_repetitions
        How often each is measured.
    progress
        Is called with the step that begins, never while the clock runs.

    Yields
    ------
    dict
        A record of the fields in ``FIELDS``, when its case is done.

    Raises
    ------
    ValueError
        ``n_repetitions`` is below 1.
    """
    if n_repetitions < 1:
        raise ValueError(f"the number of repetitions must be at least 1, not {n_repetitions}")
    return _run(list(cases), n_repetitions, progress or (lambda _step: None))


def _run(cases: list[Case], n_repetitions: int, progress: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    commit, cpu = _build_commit(), cpu_name()
    buffer = np.ones(_READ_BYTES, np.uint8)  # written, so that its pages exist
    n_done = 0
    for group in _by_model(cases):
        with group[0].open_model() as model:
            for case in group:
                n_done += 1
                step = f"{n_done}/{len(cases)} {case.name}"
                with case.open_session(model) as session:
                    begun = datetime.now(timezone.utc)
                    rounds = _measure(case, session, buffer, n_repetitions, functools.partial(_say, progress, step))
                    record = {
                        "build_commit": commit,
                        "build_number": 0,
                        "cpu_info": cpu,
                        **_setting(case, session),
                        "test_time": begun.strftime("%Y-%m-%dT%H:%M:%SZ"),
                        **_figures(case, rounds, _macs_per_token(model)),
                        "isa": model.isa,
                        "head": model.head,
                        **_packing(model),
                    }
                yield {name: record[name] for name in FIELDS}


def _say(progress: Callable[[str], None], step: str, detail: str) -> None:
    progress(f"{step}: {detail}")


class _Round(NamedTuple):
    """One repetition, and what the machine could do at best just before."""

    ns: int
    n_bytes: int
    read_bytes_per_ns: float
    peak_macs_per_ns: float | None


def _measure(
    case: Case, session: Session, buffer: NDArray[np.uint8], n_repetitions: int, progress: Callable[[str], None]
) -> list[_Round]:
    ids = np.random.default_rng(_SEED).integers(session.model.config.n_vocab, size=case.n_prompt + case.n_gen)
    prompt, starts = ids[: case.n_prompt], ids[case.n_prompt :]
    progress("warm-up")
    if case.n_depth:
        session.fill_kv(case.n_depth, _SEED)
    _repeat(case, session, prompt, starts[:1])
    peak_macs = _peak_macs(session) if case.n_prompt else 0
    rounds = []
    for i in range(n_repetitions):
        progress(f"{i + 1} of {n_repetitions}")
        read_ns = _timed(lambda: kernels.read_sum(buffer, n_threads=session.n_threads, repeat=_N_READS))
        peak_ns = _peak_ns(session, peak_macs) if peak_macs else 0
        peak = peak_macs * session.n_threads / peak_ns if peak_macs else None
        rounds.append(_Round(*_repeat(case, session, prompt, starts), _N_READS * buffer.nbytes / read_ns, peak))
    return rounds


def _repeat(case: Case, session: Session, prompt: NDArray[np.int64], starts: NDArray[np.int64]) -> tuple[int, int]:
    """Evaluate the prompt, generate as many tokens as there are starts; nanoseconds, bytes read."""
    session.rewind(case.n_depth)
    ns = n_bytes = 0
    if prompt.size:
        ns += _timed(lambda: session.eval(prompt))
        n_bytes += session.reads.weight_bytes  # its keys and values are read from caches, while they are made
    if starts.size:
        more_ns, more_bytes = _generate(session, starts)
        ns, n_bytes = ns + more_ns, n_bytes + more_bytes
    return ns, n_bytes


def _generate(session: Session, starts: NDArray[np.int64]) -> tuple[int, int]:
    """As many evaluations as there are starts, from the first of them.

    Nothing runs on the clock but the generation itself; what it read is looked up in between.
    """
    params = SamplingParams(temperature=0, max_tokens=starts.size, seed=_SEED, ignore_eos=True)
    tokens = session.generate(starts[:1], params)
    ns = n_bytes = 0
    for _ in starts:
        begin = _clock()
        next(tokens)
        ns += _clock() - begin
        reads = session.reads
        n_bytes += reads.weight_bytes + reads.kv_bytes
    return ns, n_bytes


def _timed(work: Callable[[], object]) -> int:
    begin = _clock()
    work()
    return _clock() - begin


def _peak_ns(session: Session, n_macs: int) -> int:
    return _timed(lambda: kernels.int8_peak(n_macs, isa=session.model.isa, n_threads=session.n_threads))


def _peak_macs(session: Session) -> int:
    """How many a thread must do, so that it takes a while: levels differ a thousandfold."""
    n_macs, most = _PEAK_MACS
    while n_macs < most and _peak_ns(session, n_macs) < _PEAK_NS:
        n_macs *= 2
    return n_macs


# ---- records ----


def _setting(case: Case, session: Session) -> dict[str, Any]:
    model = session.model
    return {
        "gpu_info": "",
        "backends": "CPU",
        "model_filename": str(case.path),
        "model_type": f"{model.config.arch} {model.config.dtype}",
        "model_size": sum(info.nbytes for info in model.reader.infos),
        "model_n_params": sum(math.prod(info.shape) for info in model.reader.infos),
        "n_batch": session.n_batch,
        "n_ubatch": session.n_batch,  # llama.cpp's two sizes are one here: tokens in one pass over the weights
        "n_threads": session.n_threads,
        "type_k": session.kv_dtype,
        "type_v": session.kv_dtype,
        "flash_attn": False,
        "use_mmap": True,
        "embeddings": False,
        "n_prompt": case.n_prompt,
        "n_gen": case.n_gen,
        "n_depth": case.n_depth,
    }


def _packing(model: Model) -> dict[str, Any]:
    packing = model.packing
    return {
        "weights": packing.weights,
        "packed_bytes": packing.nbytes,
        "pack_s": packing.seconds,
        "pack_gain": packing.gain,
    }


def _figures(case: Case, rounds: Sequence[_Round], macs_per_token: int) -> dict[str, Any]:
    n_tokens = case.n_prompt + case.n_gen
    samples_ns = [r.ns for r in rounds]
    samples_ts = [n_tokens * 1e9 / ns for ns in samples_ns]
    median_ns = statistics.median(samples_ns)
    n_bytes = statistics.fmean(r.n_bytes for r in rounds)
    gb_s, read_gb_s = n_bytes / median_ns, statistics.median(r.read_bytes_per_ns for r in rounds)
    peaks = [r.peak_macs_per_ns for r in rounds if r.peak_macs_per_ns is not None]
    gmac_s, peak = macs_per_token * n_tokens / median_ns, statistics.median(peaks) if peaks else None
    return {
        "avg_ns": round(statistics.fmean(samples_ns)),
        "stddev_ns": round(_deviation(samples_ns)),
        "avg_ts": statistics.fmean(samples_ts),
        "stddev_ts": _deviation(samples_ts),
        "samples_ns": samples_ns,
        "samples_ts": samples_ts,
        "bytes_per_token": n_bytes / n_tokens,
        "gb_s": gb_s,
        "read_gb_s": read_gb_s,
        "bandwidth_fraction": gb_s / read_gb_s,
        "macs_per_token": macs_per_token,
        "gmac_s": gmac_s,
        "int8_peak_gmac_s": peak,
        "int8_peak_fraction": None if peak is None else gmac_s / peak,
    }


def _deviation(samples: Sequence[float]) -> float:
    return float(statistics.stdev(samples)) if len(samples) > 1 else 0.0


def _macs_per_token(model: Model) -> int:
    return sum(math.prod(info.shape) for info in model.reader.infos if info.dtype == model.config.dtype)


def _build_commit() -> str:
    """Commit of the checkout that the package lies in; of an installed package, the version."""
    root, git = Path(__file__).resolve().parent.parent, shutil.which("git")
    if git is None or not (root / ".git").exists():  # a file in a worktree; other repositories above do not count
        return __version__
    command = [git, "-C", str(root), "rev-parse", "--short=8", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no argument from outside
    return done.stdout.strip() if done.returncode == 0 else __version__
