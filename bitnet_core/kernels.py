"""What the machine and the library can do, and the bare kernels: for tests, benchmarks and bug reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_core._lib import call, default_threads, ffi, isa_names, kernels_for, lib
from bitnet_core.dtypes import DType, nbytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Kernel",
    "available",
    "chosen_isa",
    "cpu_features",
    "fill",
    "int8_peak",
    "isa_levels",
    "matmul",
    "pack",
    "read_sum",
]


@dataclass(frozen=True)
class Kernel:
    """One implementation of one operation: ``name`` is ``op_dtype_isa``; ``dtype`` is None where there is none."""

    name: str
    op: str
    dtype: str | None
    isa: str


def cpu_features() -> tuple[str, ...]:
    """Instruction sets that this processor and operating system offer, of those the library knows."""
    return tuple(ffi.string(lib.bnc_cpu_features()).decode().split())


def isa_levels(*, supported_only: bool = True) -> tuple[str, ...]:
    """Named levels of kernels, slow to fast; what ``isa=`` and ``BITNET_ISA`` accept.

    >>> isa_levels()[0]
    'scalar'
    """
    return tuple(n for i, n in enumerate(isa_names()) if not supported_only or lib.bnc_isa_supported(i))


def chosen_isa(isa: str | None = None) -> str:
    """The level that ``isa``, else ``BITNET_ISA``, else the machine selects."""
    return str(isa_names()[lib.bnc_kernels_isa(kernels_for(isa))])


def kernel_at(index: int) -> Kernel:
    """Row ``index`` of the library's list of kernels."""
    info = lib.bnc_kernel_at(index)
    dtype = None if info.dtype < 0 else ffi.string(lib.bnc_dtype_at(info.dtype).name).decode()
    return Kernel(ffi.string(info.name).decode(), ffi.string(info.op).decode(), dtype, isa_names()[info.isa])


def available() -> list[Kernel]:
    """Every kernel in this build, whether or not the machine can run it."""
    return [kernel_at(i) for i in range(lib.bnc_kernel_count())]


def matmul(
    w: Any,
    dtype: str | DType,
    n_rows: int,
    q: NDArray[np.int8],
    *,
    isa: str | None = None,
    n_threads: int | None = 1,
    repeat: int = 1,
) -> NDArray[np.int32]:
    """Multiply packed ternary weights with int8 activations, exactly.

    Parameters
    ----------
    w
        Packed bytes of a matrix (n_rows, ne0), as :func:`bitnet_core.quantize` makes them. Its scale is not applied.
    dtype
        ``i2_s`` (ne0 a multiple of 128), ``qk256``, or ``pack5``, which :func:`pack` makes.
    n_rows
        Rows of the matrix.
    q
        int8 activations of shape (n_tokens, ne0) or (ne0,). One token takes the gemv kernel, more the gemm kernel.
    repeat
        Do the same product this many times: a benchmark's inner loop, without crossings from Python.

    Returns
    -------
    int32 array of shape (n_tokens, n_rows), or (n_rows,).

    Examples
    --------
    >>> import numpy as np
    >>> from bitnet_core import quantize
    >>> w = np.eye(2, 128, dtype=np.float32)
    >>> matmul(quantize(w, "i2_s", scale=1.0), "i2_s", 2, np.arange(128, dtype=np.int8))
    array([0, 1], dtype=int32)
    """
    if q.dtype != np.int8 or q.ndim not in (1, 2):
        raise TypeError(f"q must be an int8 array of one or two dimensions, not {q.dtype} of {q.ndim}")
    tokens = np.ascontiguousarray(np.atleast_2d(q))
    y = np.empty((tokens.shape[0], n_rows), np.int32)
    packed = ffi.from_buffer("uint8_t[]", w)
    call(
        lib.bnc_matmul_i32,
        kernels_for(isa),
        DType(dtype).number,
        packed,
        len(packed),
        n_rows,
        tokens.shape[1],
        ffi.from_buffer("int8_t[]", tokens),
        tokens.shape[0],
        ffi.from_buffer("int32_t[]", y),
        default_threads(n_threads),
        repeat,
    )
    return y if q.ndim == 2 else y[0]


def pack(w: Any, dtype: str | DType, shape: tuple[int, int], *, isa: str | None = None) -> NDArray[np.uint8]:
    """Pack a ternary matrix to 1.6 bits a weight: what ``Model.from_file(weights="packed")`` keeps in memory.

    Parameters
    ----------
    w
        Packed bytes of a matrix, as :func:`bitnet_core.quantize` makes them. Its scale is left out.
    dtype
        ``i2_s``.
    shape
        Rows and ne0, a multiple of 128.

    Returns
    -------
    uint8 array: a ``pack5`` matrix for :func:`matmul`, each row a whole number of 64-byte blocks of 320 weights.

    Raises
    ------
    ValueError
        A byte holds code 3, or w has another length.
    UnsupportedModelError
        Another dtype, which has four values.

    Examples
    --------
    >>> from bitnet_core import quantize
    >>> w = np.eye(2, 640, dtype=np.float32)
    >>> packed = pack(quantize(w, "i2_s", scale=1.0), "i2_s", w.shape)
    >>> packed.size, matmul(packed, "pack5", 2, np.arange(640, dtype=np.int16).astype(np.int8))
    (256, array([0, 1], dtype=int32))
    """
    data = ffi.from_buffer("uint8_t[]", w)
    out = np.empty(nbytes("pack5", shape), np.uint8)
    target = ffi.from_buffer("uint8_t[]", out, require_writable=True)
    call(lib.bnc_pack, kernels_for(isa), DType(dtype).number, data, len(data), *shape, target, out.nbytes)
    return out


def read_sum(buffer: Any, *, n_threads: int | None = None, repeat: int = 1) -> int:
    """Read ``buffer`` (a multiple of 64 bytes) as fast as the machine can, and return what was read as one sum.

    Every thread reads eight far-apart streams with prefetch: a single stream leaves a third or more of the bandwidth
    unused. The sum is that of all 64-bit words, ``repeat`` times, modulo 2**64.
    """
    data = ffi.from_buffer("uint8_t[]", buffer)
    out = ffi.new("uint64_t *")
    call(lib.bnc_read_sum, data, len(data), default_threads(n_threads), repeat, out)
    return int(out[0])


def fill(buffer: Any, value: int = 0, *, streamed: bool = True, n_threads: int | None = None, repeat: int = 1) -> None:
    """Set every byte of ``buffer`` (a multiple of 64 bytes) to ``value``, ``repeat`` times, as fast as the machine can.

    With ``streamed`` the bytes go past the caches, where the machine can; ``buffer`` must then be aligned to 16 bytes.
    Without, the processor first reads each line that it is going to write. Which is faster depends on the machine: take
    the better.

    >>> data = bytearray(64)
    >>> fill(data, 7, streamed=False)
    >>> data == bytes([7]) * 64
    True
    """
    if not 0 <= value <= 255:
        raise ValueError(f"value must be 0 to 255, not {value}")
    data = ffi.from_buffer("uint8_t[]", buffer, require_writable=True)
    call(lib.bnc_fill, data, len(data), value, streamed, default_threads(n_threads), repeat)


def int8_peak(n_macs: int, *, isa: str | None = None, n_threads: int | None = None) -> int:
    """Do ``n_macs`` (a multiple of 4096) int8 multiply-accumulates from registers on each thread; return a checksum.

    The instruction is the one that the level's gemm uses, so the time is a floor for any kernel of that level. With amx
    the operands come from the first-level cache, without which no product can be had.
    """
    out = ffi.new("int64_t *")
    call(lib.bnc_int8_peak, kernels_for(isa), n_macs, default_threads(n_threads), out)
    return int(out[0])
