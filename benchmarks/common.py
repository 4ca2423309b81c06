"""What the benchmarks share: models, sampling, skipping, the page cache.

Nothing of bitnet_core is imported here or in any benchmark file when it is loaded: the suite of today also measures old
commits, whose API may lack what a benchmark needs. ``need()`` imports it during setup, and skips.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import mmap
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

# Parameters are literals, equal on every machine and commit; what is not there is skipped in setup. A parameter that
# belongs to a model begins with the model's name, so that `-b` can choose by it and a series never mixes models.
MODELS = ["tiny", "2b", "given"]
ISAS = ["scalar", "avx2", "avxvnni", "avx512vnni", "amx"]
FAST_ISAS = ["avx2", "avxvnni", "avx512vnni", "amx"]
THREADS = [1, 2]

SECONDS = 0.3  # sampling time of one parameter combination in one round
MOST = 64  # samples of one parameter combination in one round
# Seconds before the samples. A thread that slept may be woken on the processor of the one that woke it (a halted
# virtual processor does not count as idle), and as long as both take turns there every few microseconds the system
# takes their caches for warm and leaves them: for 50 ms a token of the tiny model takes 120 us instead of 30.
WARM_UP = 0.1


def need(module: str, *names: str) -> Any:
    """Import a module of bitnet_core; skip the benchmark when the measured commit does not have it, or one of names.

    A package that does not import at all is a failure, not a skip.
    """
    importlib.import_module("bitnet_core")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise NotImplementedError(f"this commit has no {module}") from None
    lacking = [name for name in names if not hasattr(found, name)]
    if lacking:
        raise NotImplementedError(f"{module} of this commit has no {', '.join(lacking)}")
    return found


def all_threads() -> int:
    """How many threads make "all": the physical cores this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def need_threads(n_threads: int) -> None:
    """Skip where the machine has fewer cores than threads are asked for."""
    if n_threads > all_threads():
        raise NotImplementedError(f"{n_threads} threads need as many cores; there are {all_threads()}")


def need_isa(isa: str) -> None:
    """Skip a level that this machine or commit does not have."""
    if isa not in need("bitnet_core.kernels", "isa_levels").isa_levels():
        raise NotImplementedError(f"no {isa} here")


def need_argument(function: Callable[..., object], name: str) -> None:
    """Skip when a function or class of the measured commit does not take an argument of that name."""
    if name not in inspect.signature(function).parameters:
        raise NotImplementedError(f"{function.__name__} of this commit has no {name}")


def need_convertible(dtype: str) -> None:
    """Skip a format that this commit does not convert."""
    if dtype not in [known.value for known in need("bitnet_core.dtypes", "DType").DType if known.convertible]:
        raise NotImplementedError(f"this commit does not convert {dtype}")


def model_path(name: str) -> Path:
    """Where a model of ``MODELS``, or "2b-qk256", lies; skip when it is not there.

    "tiny" is written on first use. The 2b files are not, for they take 1.2 GB: `make bench` or ``cached_model`` puts
    them into the cache. "given" is the file that ``BITNET_GGUF`` names, by its absolute path, since asv runs elsewhere.
    """
    if name == "given":
        return _given_path()
    synthetic = need("bitnet_core.synthetic", "cached_model", "cached_path")
    preset, _, dtype = name.partition("-")
    if preset == "tiny":
        return Path(synthetic.cached_model(preset))
    path = Path(synthetic.cached_path(preset, dtype=dtype or "i2_s"))
    if not path.is_file():
        raise NotImplementedError(f"no {path}; bitnet_core.synthetic.cached_model({preset!r}) writes it")
    return path


def _given_path() -> Path:
    text = os.environ.get("BITNET_GGUF", "")
    if not text:
        raise NotImplementedError("BITNET_GGUF names no model")
    path = Path(text)
    if not path.is_absolute():
        raise ValueError(f"BITNET_GGUF must be an absolute path here, not {text!r}")
    if not path.is_file():
        raise FileNotFoundError(f"BITNET_GGUF={text}: no such file")
    return path


def sampled(rounds: int = 2):
    """Mark a ``track_`` method that returns ``samples()``: asv runs it in ``rounds`` fresh processes and pools them.

    The unit is the second, which asv shows as ms or us; the method's name says of what: ``track_token``, ``track_gib``.
    asv takes ``rounds`` of a ``track_`` benchmark from the function alone, not from the class.
    """

    def mark(function):
        function.unit = "seconds"
        function.rounds = rounds
        return function

    return mark


def samples(call, *, before=None, after=None, seconds=SECONDS, least=1, most=MOST, per=1.0) -> dict:
    """Time ``call()`` until ``seconds`` have gone by; at least ``least`` times, at most ``most`` times.

    Parameters
    ----------
    call : callable
        What is timed.
    before, after : callable, optional
        Run around each call, not timed: ``before()``, and ``after(result of the call)``.
    seconds, least, most : number
        When to stop. ``BITNET_BENCH_SECONDS`` overrides ``seconds``, for a dry run or a slice of a review, and leaves
        out the warm-up.
    per : float
        Each duration is divided by this: a number of tokens gives seconds a token.

    Returns
    -------
    dict
        What asv takes for a list of measurements, with median, quartiles and significance.
    """

    def timed():
        if before is not None:
            before()
        start = time.perf_counter()
        result = call()
        end = time.perf_counter()
        if after is not None:
            after(result)
        return (end - start) / per

    return repeated(timed, seconds=seconds, least=least, most=most)


def repeated(measure, *, seconds=SECONDS, least=1, most=MOST) -> dict:
    """Call ``measure()``, which returns its value itself, as often as ``samples()`` would."""
    given = os.environ.get("BITNET_BENCH_SECONDS")
    warm_up = 0.0 if given else WARM_UP
    seconds = float(given or seconds)
    found = []
    begin = time.perf_counter()
    while len(found) < least or (len(found) < most and time.perf_counter() - begin < warm_up + seconds):
        value = measure()
        if time.perf_counter() - begin >= warm_up:  # a first call that takes longer counts
            found.append(float(f"{value:.6g}"))
    return {"samples": found, "number": 1}


def compared(rounds: int = 1):
    """Mark a ``track_`` method that returns ``ratios()``; ``rounds`` as in ``sampled()``."""

    def mark(function):
        function.unit = "x"
        function.rounds = rounds
        return function

    return mark


def ratios(call, beside, *, seconds=2.0, most=15, per=1.0, per_beside=1.0) -> dict:
    """Time ``call()`` and ``beside()`` in turn, and return the ratio of each two: what drifts moves both.

    A first round warms up and is not counted. ``per`` and ``per_beside`` are what each does in a call, as in
    ``samples()``.
    """

    def turn():
        times = []
        for function, amount in ((beside, per_beside), (call, per)):
            start = time.perf_counter()
            function()
            times.append((time.perf_counter() - start) / amount)
        return times[1] / times[0]

    turn()
    return repeated(turn, seconds=seconds, most=most)


def quantile(measured: dict, q: float) -> float:
    """The ``q`` quantile of what ``samples()`` returned, for a benchmark that tracks one number."""
    return float(f"{np.quantile(measured['samples'], q):.6g}")


def same_logits(found: np.ndarray, expected: np.ndarray) -> None:
    """Check logits that must agree to the bit; "faster" must not be "wrong"."""
    assert np.isfinite(found).all(), "logits are not finite"
    assert np.array_equal(found, expected), f"logits differ by up to {np.abs(found - expected).max()}"


# ---- the page cache ----


def drop_page_cache(path: Path) -> None:
    """Make the system forget the file's pages, so that the next read comes from the disk; skip where it does not."""
    if not hasattr(os, "posix_fadvise"):
        raise NotImplementedError("this system has no posix_fadvise")
    with path.open("rb") as file:
        os.fsync(file.fileno())  # pages that are not written yet stay
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    resident = resident_fraction(path)
    if resident > 0.01:
        raise NotImplementedError(f"{resident:.0%} of the file stay in the page cache")


def resident_fraction(path: Path) -> float:
    """How much of a file lies in the page cache, by mincore(2)."""
    mincore = getattr(ctypes.CDLL(None, use_errno=True), "mincore", None)
    if mincore is None:
        raise NotImplementedError("this system has no mincore")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        view = np.frombuffer(mapping, np.uint8)
        pages = np.zeros(-(-view.size // mmap.PAGESIZE), np.uint8)
        address, vector = ctypes.c_void_p(view.ctypes.data), ctypes.c_void_p(pages.ctypes.data)
        failed = mincore(address, ctypes.c_size_t(view.size), vector)
        del view  # the mapping cannot be closed under it
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return float((pages & 1).mean())
