"""Tensor formats: their sizes, and the way between them and float32.

===========  ==========================  ===========================================================
dtype        elements -> bytes           values
===========  ==========================  ===========================================================
``f32``      1 -> 4                      binary32
``f16``      1 -> 2                      binary16, rounded to nearest even
``bf16``     1 -> 2                      upper half of binary32, rounded to nearest even
``i2_s``     128 -> 32, and 32 at the    -s, 0, +s with one scale s for the tensor
             end
``qk256``    256 of a row -> 64          -2, -1, +1, +2, without a scale
``bitnet32`` 32 -> 10                    -2s, -s, 0, +s with a float16 scale s for each 32
``q8_0``     32 of a row -> 34           -127s to 127s with a float16 scale s for each 32
``q6_k``     256 of a row -> 210         -32s to 31s, s an int8 for each 16 times a float16 for each 256
===========  ==========================  ===========================================================

``i2_s_64`` and ``i2_s_row4`` are two other orders of the same codes that exist in the wild. ``pack5``, five ternary
weights a byte, exists in memory alone (:func:`bitnet_core.kernels.pack`). The remaining members of :class:`DType` are
known by their size alone, so that a file holding them can be listed.
"""

from __future__ import annotations

import math
from enum import Enum
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from bitnet_core._lib import call, default_threads, ffi, kernels_for, lib, new_error, raise_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

__all__ = ["DType", "dequantize", "nbytes", "quantize"]

_ROWS: dict[str, tuple[int, Any]] = {
    ffi.string(lib.bnc_dtype_at(i).name).decode(): (i, lib.bnc_dtype_at(i)) for i in range(lib.bnc_dtype_count())
}
_PACKINGS = {
    lib.BNC_PACK_FLAT: "flat",
    lib.BNC_PACK_ROW: "row",
    lib.BNC_PACK_PADDED: "padded",
    lib.BNC_PACK_ROW4: "row4",
}
_SCALE_RULES = {"absmean": lib.BNC_SCALE_ABSMEAN, "absmax": lib.BNC_SCALE_ABSMAX}
_Number = TypeVar("_Number", np.float32, np.uint8)
_LAYOUTS = {"128": "i2_s", "64": "i2_s_64", "row4": "i2_s_row4"}


class DType(str, Enum):
    """A tensor format; the members are the rows of the C library's table.

    A member's value is its name, and either stands for it: ``DType.I2_S == DType("i2_s") == "i2_s"``.
    """

    _ignore_ = ["name_of_row"]  # noqa: RUF012 - a directive to Enum, not an attribute
    for name_of_row in _ROWS:
        vars()[name_of_row.upper()] = name_of_row

    def __str__(self) -> str:
        return str(self.value)

    @property
    def number(self) -> int:
        """The number by which the C library knows it."""
        return _ROWS[self.value][0]

    @property
    def gguf_type(self) -> int:
        """The type id in a GGUF file; several formats share 36, and -1 exists in memory alone."""
        return int(_ROWS[self.value][1].gguf_type)

    @property
    def packing(self) -> str:
        """How the blocks lie.

        ``"flat"``: over all elements, rows do not matter; ``"row"``: row by row, a row is whole blocks; ``"padded"``:
        row by row, the last block is padded; ``"row4"``: four rows together, a block is one column of them.
        """
        return _PACKINGS[_ROWS[self.value][1].packing]

    @property
    def block(self) -> int:
        """Elements of a block."""
        return int(_ROWS[self.value][1].block)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return int(_ROWS[self.value][1].block_bytes)

    @property
    def row_bytes(self) -> int:
        """Further bytes at each row."""
        return int(_ROWS[self.value][1].row_bytes)

    @property
    def tail_bytes(self) -> int:
        """Further bytes after the whole tensor."""
        return int(_ROWS[self.value][1].tail_bytes)

    @property
    def convertible(self) -> bool:
        """Whether :func:`quantize` and :func:`dequantize` know it."""
        return bool(_ROWS[self.value][1].convertible)


def nbytes(dtype: DType | str, shape: int | Sequence[int]) -> int:
    """Bytes that a tensor takes.

    Parameters
    ----------
    dtype
        Any member of :class:`DType`, convertible or not.
    shape
        numpy's order, ``(..., ne0)``: the last axis is the row length, the axes before it are rows.

    Raises
    ------
    ValueError
        An unknown dtype, an empty shape, or one that is not a whole number of blocks.

    Examples
    --------
    >>> nbytes("i2_s", (2560, 2560))
    1638432
    """
    n_rows, ne0 = _matrix(_shape(shape))
    return _nbytes(_member(dtype), n_rows, ne0)


def quantize(
    array: ArrayLike,
    dtype: DType | str,
    *,
    scale: str | float = "absmean",
    layout: str = "128",
    isa: str | None = None,
    n_threads: int | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Pack an array of numbers into the bytes of a tensor.

    Parameters
    ----------
    array
        Shape ``(..., ne0)``; one axis is one row. C-contiguous float32 is used where it lies. Other floats and integers
        are first rounded to float32, to nearest even. All values must be finite.
    dtype
        A convertible format: ``f32``, ``f16``, ``bf16``, ``i2_s``, ``qk256``, ``bitnet32``, ``q8_0`` or ``q6_k``.
    scale
        For ``i2_s``: ``"absmean"``, the mean of the magnitudes but at least 1e-5, as BitNet b1.58 defines it [1]_;
        ``"absmax"``, the largest magnitude, or 1e-5 if all are 0; or the scale itself, rounded to float32. The values
        become ``clip(round(array / scale), -1, 1)``, halves rounded to even. The other formats take no scale, or find
        their own: they ignore the two rules and allow no number but 1.
    layout
        For ``i2_s``: ``"128"``, that of the published models; ``"64"``, groups of 64 as Arm builds of bitnet.cpp have
        written them since November 2025; ``"row4"``, four rows together.
    isa
        Level of the kernels; default: ``BITNET_ISA``, else the best of this machine. The bytes do not depend on it.
    n_threads
        Default: ``BITNET_THREADS``, else the physical cores. The bytes do not depend on it. A thread gets at least
        1 MiB of float32, so small arrays take fewer.
    out
        Where to write: a writeable C-contiguous uint8 array of one axis and ``nbytes(dtype, array.shape)`` bytes that
        shares no memory with the array. What it holds after an error is unspecified. Default: a new one, whose pages
        the system makes as they are first written: with one output for many tensors that happens once.

    Returns
    -------
    numpy.ndarray
        uint8, one axis of ``nbytes(dtype, array.shape)`` bytes; ``out`` if it was given.

    Raises
    ------
    ValueError
        A value that is not finite or too large for the format (the message names the first such element), an empty
        array, a shape that is not a whole number of blocks, an unknown dtype, layout, scale or level, an unfit ``out``.
    TypeError
        An array of something else than numbers that float32 can stand for, or an ``out`` that is no uint8 array.

    References
    ----------
    .. [1] S. Ma et al., "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits", 2024, equations 1 to 3.

    Examples
    --------
    >>> import numpy as np
    >>> weights = np.tile(np.float32([0.5, -0.5, 0.1, 0.0]), (2, 64))
    >>> packed = quantize(weights, "i2_s", scale=0.5)
    >>> packed.size == nbytes("i2_s", weights.shape)
    True
    >>> dequantize(packed, "i2_s", weights.shape)[0, :4]
    array([ 0.5, -0.5,  0. ,  0. ], dtype=float32)
    """
    member = _convertible(dtype, layout)
    rule, value = _scale_rule(member, scale)
    x = _as_float32(array)
    n_rows, ne0 = _matrix(x.shape)
    packed = _as_out(out, np.uint8, (_nbytes(member, n_rows, ne0),), x)
    call(
        lib.bnc_quantize,
        kernels_for(isa),
        member.number,
        ffi.from_buffer("float[]", x),
        n_rows,
        ne0,
        rule,
        value,
        ffi.from_buffer("uint8_t[]", packed, require_writable=True),
        packed.nbytes,
        default_threads(n_threads),
    )
    return packed


def dequantize(
    buffer: Buffer | NDArray[Any],
    dtype: DType | str,
    shape: int | Sequence[int],
    *,
    layout: str = "128",
    isa: str | None = None,
    n_threads: int | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Unpack the bytes of a tensor into float32.

    Parameters
    ----------
    buffer
        ``bytes``, an array, or anything else whose memory is contiguous: exactly ``nbytes(dtype, shape)`` bytes.
    dtype, layout, isa, n_threads
        As for :func:`quantize`.
    shape
        numpy's order, ``(..., ne0)``.
    out
        Where to write: a writeable C-contiguous float32 array of this shape that shares no memory with the buffer.
        Default: a new one.

    Returns
    -------
    numpy.ndarray
        float32 of this shape; ``out`` if it was given.

    Raises
    ------
    ValueError
        A buffer of another length, an ``i2_s`` byte that holds code 3 or a scale that is not finite (the message names
        the position, and nothing is written), an unknown dtype, layout or level, an unfit ``out``.
    TypeError
        A buffer without memory to look at, or an ``out`` that is no float32 array.

    Examples
    --------
    >>> dequantize(bytes([0b11_10_01_00]) + bytes(63), "qk256", 4)
    array([-2., -1.,  1.,  2.], dtype=float32)
    """
    member = _convertible(dtype, layout)
    dims = _shape(shape)
    n_rows, ne0 = _matrix(dims)
    expected = _nbytes(member, n_rows, ne0)
    view = memoryview(cast("Any", buffer))  # numpy's stubs call an array a Buffer from Python 3.12 on only
    if not view.c_contiguous:
        raise ValueError("the buffer must be C-contiguous: pass a copy of it")
    if view.nbytes != expected:
        raise ValueError(f"a {member} tensor of shape {dims} takes {expected} bytes; the buffer has {view.nbytes}")
    x = _as_out(out, np.float32, dims, np.asarray(view))
    call(
        lib.bnc_dequantize,
        kernels_for(isa),
        member.number,
        ffi.from_buffer("uint8_t[]", view),
        view.nbytes,
        n_rows,
        ne0,
        ffi.from_buffer("float[]", x, require_writable=True),
        default_threads(n_threads),
    )
    return x


def _member(dtype: DType | str) -> DType:
    try:
        return DType(dtype)
    except ValueError:
        raise ValueError(f"dtype {dtype!r} does not exist; there are: {', '.join(DType)}") from None


def _convertible(dtype: DType | str, layout: str) -> DType:
    """Find the format that a dtype and a layout name together."""
    names = [d.value for d in DType if d.convertible]
    if dtype not in names:
        reason = "is known by its size alone" if dtype in _ROWS else "does not exist"
        raise ValueError(f"dtype {str(dtype)!r} {reason}; convertible are: {', '.join(names)}")
    member = DType(dtype)
    if layout not in _LAYOUTS:
        raise ValueError(f"layout {layout!r} does not exist; there are: {', '.join(_LAYOUTS)}")
    if layout == "128":
        return member
    if member is not DType("i2_s"):
        raise ValueError(f"layout={layout!r} is a layout of i2_s; {member} has only one")
    return DType(_LAYOUTS[layout])


def _scale_rule(dtype: DType, scale: str | float) -> tuple[int, float]:
    """Translate to the C library's rule and its number, 1 where it goes unused."""
    if isinstance(scale, str):
        if scale not in _SCALE_RULES:
            raise ValueError(f"scale {scale!r} does not exist; there are: {', '.join(_SCALE_RULES)}, or a number")
        return _SCALE_RULES[scale], 1.0
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"scale must be 'absmean', 'absmax' or a number, not {type(scale).__name__}")
    if not dtype.tail_bytes and scale != 1:
        raise ValueError(f"{dtype} has no scale of the tensor to set; leave out scale={scale!r}")
    return lib.BNC_SCALE_GIVEN, float(scale)


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    dims = shape if isinstance(shape, tuple | list) else (shape,)
    return tuple(int(d.__index__()) for d in dims)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Split a shape into rows and row length."""
    if not shape or min(shape) < 1:
        raise ValueError(f"a tensor needs at least one element and one axis; the shape is {shape}")
    return math.prod(shape[:-1]), shape[-1]


def _nbytes(dtype: DType, n_rows: int, ne0: int) -> int:
    if n_rows * ne0 >= 2**63:
        raise ValueError(f"a {dtype} tensor of {n_rows} x {ne0} is larger than any memory")
    err = new_error()
    total = lib.bnc_dtype_nbytes(dtype.number, n_rows, ne0, err)
    if total < 0:
        raise_error(err)
    return int(total)


def _as_float32(array: ArrayLike) -> NDArray[np.float32]:
    """Pass on an array that C can read; round and copy any other."""
    x = np.asarray(array)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"quantize takes floats or integers, not {x.dtype}")
    if x.dtype == np.float32 and x.dtype.isnative:
        return np.require(x, requirements=["C", "A"])
    with np.errstate(over="ignore"):
        rounded = x.astype(np.float32, order="C")
    if x.dtype.itemsize > 4 and not np.isfinite(rounded).all():
        i = int(np.isfinite(rounded).argmin())
        if np.isfinite(x.flat[i]):  # else C says what it is
            row, column = divmod(i, x.shape[-1])
            raise ValueError(f"element {i} (row {row}, column {column}) is {x.flat[i]}, which float32 cannot hold")
    return rounded


def _as_out(
    out: NDArray[_Number] | None, dtype: type[_Number], shape: tuple[int, ...], source: NDArray[Any]
) -> NDArray[_Number]:
    """Check the caller's array, or make one."""
    if out is None:
        return np.empty(shape, dtype)
    name = np.dtype(dtype).name
    if not isinstance(out, np.ndarray) or out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"out must be a {name} array, not {getattr(out, 'dtype', type(out).__name__)}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; the tensor has {shape}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out must be C-contiguous, aligned and writeable")
    if np.may_share_memory(out, source):
        raise ValueError(f"out shares memory with the {'buffer' if dtype is np.float32 else 'array'}")
    return out
