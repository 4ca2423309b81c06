"""Read GGUF files: metadata on demand, tensors as arrays that look into the file.

The file is mapped and checked once, in C, before anything is believed; nothing is copied. What is read later cannot
fail: metadata is decoded when it is asked for, a tensor is a read-only view of the mapping.

::

    with GGUFReader("model.gguf") as reader:
        reader.metadata["general.architecture"]      # 'bitnet-b1.58'
        reader.info("token_embd.weight").shape       # (128256, 2560)
        reader.tensors["output_norm.weight"].mean()  # float32 view of the file

A file on disk must not be changed while it is mapped: if another process cuts it short, the operating system ends this
one (SIGBUS) where the missing bytes are touched. ``mmap=False`` reads it into memory instead.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_core._lib import call, ffi, lib
from bitnet_core.exceptions import GGUFError, LiveViewsError, ShardedFileError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

__all__ = ["GGUFReader", "TensorInfo"]

# GGUF value type id -> how one element lies in the file.
_VALUE_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("<u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# Tensor dtypes that numpy has, too; bfloat16 it has not, so its bits are shown. All others are bytes.
_ARRAY_DTYPES = {
    "f32": "<f4",
    "f64": "<f8",
    "f16": "<f2",
    "bf16": "<u2",
    "i8": "<i1",
    "i16": "<i2",
    "i32": "<i4",
    "i64": "<i8",
}

# Lends the handle of a reader for the length of a with block.
_Reading = Callable[[], AbstractContextManager[Any]]

# The id of tensor types that does not say which format it means.
_SHARED_ID = 36

_SHARD_NAME = re.compile(r"(?P<prefix>.*)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_MAX_SHARDS = 65535  # split.count is a u16

# Looking for similar names costs about 10 us a name.
_MAX_NAMES_TO_COMPARE = 4096


@dataclass(frozen=True)
class TensorInfo:
    """What a file says about one tensor.

    Attributes
    ----------
    name
        Its name; bytes that are not UTF-8 appear as surrogates.
    dtype
        Its format, a name of :class:`bitnet_core.DType`, or None where the file's type id is unknown to this library.
    gguf_type
        The type id as it stands in the file.
    shape
        Dimensions in numpy's order: rows first, the length of a row last.
    offset
        Byte position of its data in the file.
    nbytes
        Bytes of its data, 0 where ``dtype`` is None.
    """

    name: str
    dtype: str | None
    gguf_type: int
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class _Hold:
    """Keeps the mapping alive and ``close()`` away, until it is released or garbage collected.

    ``live`` maps the identity of every hold of a reader to what it is for. Single operations on a dict are atomic, so
    that a hold can go on any thread, and in a garbage collection that starts inside ``close()``.
    """

    __slots__ = ("_live", "handle")

    def __init__(self, reader: GGUFReader, live: dict[int, str], what: str) -> None:
        self._live = live
        live[id(self)] = what
        self.handle = reader.handle  # after the entry in live: nothing can close the reader in between

    def release(self) -> None:
        """Let go; ``handle`` must not be used any more. May be called again."""
        self._live.pop(id(self), None)
        self.handle = None

    def __del__(self) -> None:
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()


class _ArrayBase:
    """What the array of a tensor stands on.

    numpy keeps it as ``base`` of the array and of everything cut from it. It offers no buffer, so numpy refuses to make
    such an array writeable.
    """

    __slots__ = ("__array_interface__", "_hold")

    def __init__(self, hold: _Hold, data: Any, shape: tuple[int, ...], typestr: str) -> None:
        self._hold = hold
        read_only = True
        self.__array_interface__ = {
            "version": 3,
            "data": (int(ffi.cast("uintptr_t", data)), read_only),
            "shape": shape,
            "typestr": typestr,
        }


def _text(pointer: Any, n: int) -> str:
    return str(ffi.buffer(pointer, n)[:], "utf-8", "surrogateescape")


def _bytes(name: object) -> bytes:
    """As ``name`` would stand in a file; empty, which no name is, where it could not."""
    try:
        return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else b""
    except UnicodeEncodeError:
        return b""


def _missing(kind: str, name: object, names: list[str]) -> KeyError:
    close = difflib.get_close_matches(str(name), names, 3) if len(names) <= _MAX_NAMES_TO_COMPARE else []
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return KeyError(f"no {kind} {name!r} among {len(names)}{hint}")


def _decode_strings(kv: Any) -> list[str]:
    offsets = np.empty(kv.count, np.uint64)
    lengths = np.empty(kv.count, np.uint64)
    lib.bnc_gguf_kv_strings(kv, ffi.from_buffer("uint64_t[]", offsets), ffi.from_buffer("uint64_t[]", lengths))
    data = ffi.buffer(kv.data, kv.nbytes)
    return [
        data[begin:end].decode("utf-8", "surrogateescape")
        for begin, end in zip(offsets.tolist(), (offsets + lengths).tolist(), strict=True)
    ]


def _decode(kv: Any) -> Any:
    if kv.elem_type == _STRING:
        strings = _decode_strings(kv)
        return strings if kv.type == _ARRAY else strings[0]
    values = np.frombuffer(ffi.buffer(kv.data, kv.nbytes)[:], _VALUE_DTYPES[kv.elem_type])
    if kv.elem_type == _BOOL:
        values = values != 0  # a boolean of 2 is an error in strict mode only
    return values.copy() if kv.type == _ARRAY else values[0].item()


class _Metadata(Mapping[str, Any]):
    """See :attr:`GGUFReader.metadata`. Nothing is cached: the tokens of a large vocabulary take tens of megabytes."""

    def __init__(self, reader: GGUFReader, reading: _Reading) -> None:
        self._reader = reader
        self._reading = reading

    def __getitem__(self, key: str) -> Any:
        with self._reading() as handle:
            i = self._find(handle, key)
            if i < 0:
                raise _missing("metadata key", key, list(self))
            return _decode(lib.bnc_gguf_kv_at(handle, i))

    # Mapping's own would decode a value, or look for similar names, to answer the next two.

    def __contains__(self, key: object) -> bool:
        with self._reading() as handle:
            return self._find(handle, key) >= 0

    def get(self, key: str, default: Any = None) -> Any:
        """Value of ``key``, else ``default``."""
        with self._reading() as handle:
            i = self._find(handle, key)
            return default if i < 0 else _decode(lib.bnc_gguf_kv_at(handle, i))

    def __iter__(self) -> Iterator[str]:
        with self._reading() as handle:
            kvs = [lib.bnc_gguf_kv_at(handle, i) for i in range(lib.bnc_gguf_kv_count(handle))]
            names = [_text(kv.key, kv.key_len) for kv in kvs]
        return iter(names)

    def __len__(self) -> int:
        with self._reading() as handle:
            return int(lib.bnc_gguf_kv_count(handle))

    def __repr__(self) -> str:
        return f"<metadata of {self._reader!r}>"

    @staticmethod
    def _find(handle: Any, key: object) -> int:
        name = _bytes(key)
        return int(lib.bnc_gguf_kv_find(handle, name, len(name)))


class _Tensors(Mapping[str, "NDArray[Any]"]):
    """See :attr:`GGUFReader.tensors`."""

    def __init__(self, reader: GGUFReader, reading: _Reading) -> None:
        self._reader = reader
        self._reading = reading

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._reader.info(name)
        if info.dtype is None:
            raise GGUFError(f"tensor {name!r} has type id {info.gguf_type}, which this library does not know")
        hold = self._reader.hold(name)
        data = lib.bnc_gguf_tensor_at(hold.handle, _find_tensor(hold.handle, name)).data
        typestr = _ARRAY_DTYPES.get(info.dtype)
        if typestr is None:
            return np.asarray(_ArrayBase(hold, data, (info.nbytes,), "|u1"))
        return np.asarray(_ArrayBase(hold, data, info.shape, typestr))

    # Mapping's own would make an array to answer this.
    def __contains__(self, name: object) -> bool:
        with self._reading() as handle:
            return _find_tensor(handle, name) >= 0

    def get(self, name: str, default: Any = None) -> Any:
        """View of the tensor ``name``, else ``default``."""
        if name in self:
            return self[name]
        return default

    def __iter__(self) -> Iterator[str]:
        return iter([info.name for info in self._reader.infos])

    def __len__(self) -> int:
        with self._reading() as handle:
            return int(lib.bnc_gguf_tensor_count(handle))

    def __repr__(self) -> str:
        return f"<tensors of {self._reader!r}>"


def _find_tensor(handle: Any, name: object) -> int:
    encoded = _bytes(name)
    return int(lib.bnc_gguf_tensor_find(handle, encoded, len(encoded)))


def _info_of(tensor: Any) -> TensorInfo:
    dtype = ffi.string(lib.bnc_dtype_at(tensor.dtype).name).decode() if tensor.dtype >= 0 else None
    return TensorInfo(
        name=_text(tensor.name, tensor.name_len),
        dtype=dtype,
        gguf_type=tensor.gguf_type,
        shape=tuple(tensor.ne[i] for i in reversed(range(tensor.n_dims))),
        offset=tensor.offset,
        nbytes=tensor.nbytes,
    )


def _dtype_of_36(dtype: Any) -> int:
    """Index of the dtype that the caller says id 36 means, or -1 where they do not say."""
    if dtype is None:
        return -1
    name = getattr(dtype, "value", dtype)  # a member of DType, or its name
    rows = [lib.bnc_dtype_at(i) for i in range(lib.bnc_dtype_count())]
    choices = {ffi.string(row.name).decode(): i for i, row in enumerate(rows) if row.gguf_type == _SHARED_ID}
    if name not in choices:
        raise ValueError(f"dtype={name!r} is not what type id {_SHARED_ID} can mean; choices: {', '.join(choices)}")
    return choices[name]


class GGUFReader:
    """A GGUF file (version 2 or 3), checked as a whole and mapped into memory.

    Reading is safe from any number of threads at once. As a context manager it closes itself at the end of the block,
    which raises :class:`~bitnet_core.LiveViewsError` if arrays that look into the file are still there.

    Parameters
    ----------
    path
        The file.
    mmap
        False reads the whole file into memory instead of mapping it, for file systems where it may change or vanish.
    dtype
        What type id 36 means in this file: ``"i2_s"``, ``"i2_s_64"``, ``"i2_s_row4"``, ``"qk256"`` or ``"bitnet32"``,
        as a string or a :class:`bitnet_core.DType`. None finds out from the key ``bitnet_core.qk256`` or the exact size
        of each tensor, and fails where that is ambiguous.
    strict
        Also demand what other engines demand: tensors laid one after the other in the order of their infos, type ids
        that are known, and boolean values of 0 or 1.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    version : int
        2 or 3.
    alignment : int
        Tensor data begins at multiples of so many bytes.
    size : int
        Bytes of the whole file.

    Raises
    ------
    GGUFError
        The file breaks a rule of the format; ``offset`` is the byte position.
    ShardedFileError
        The file is one part of a split model.
    OSError
        The operating system cannot open or map it.
    ValueError
        ``dtype`` is not one of the choices, or the reader is used after ``close()``.

    Examples
    --------
    >>> from bitnet_core.gguf import GGUFReader
    >>> with GGUFReader("tests/vectors/mini.gguf") as reader:
    ...     reader.metadata["general.architecture"], reader.info("w").dtype, reader.info("w").shape
    ('bitnet-b1.58', 'i2_s', (1, 128))
    """

    def __init__(
        self, path: str | os.PathLike[str], *, mmap: bool = True, dtype: Any = None, strict: bool = False
    ) -> None:
        self.path = Path(path)
        self._handle: Any = None
        self._live: dict[int, str] = {}
        self._lock = threading.RLock()  # reentrant: a garbage collection inside may close this very reader
        name = os.fsencode(self.path)
        if b"\0" in name:
            raise ValueError(f"the path {str(self.path)!r} contains a NUL character")
        options = ffi.new(
            "bnc_gguf_options *", {"use_mmap": mmap, "dtype_of_36": _dtype_of_36(dtype), "strict": strict}
        )
        out = ffi.new("bnc_gguf **")
        call(lib.bnc_gguf_open, name, options, out, filename=str(self.path))
        self._handle = ffi.gc(out[0], lib.bnc_gguf_close)
        self.version = int(lib.bnc_gguf_version(self._handle))
        self.alignment = int(lib.bnc_gguf_alignment(self._handle))
        self.size = int(lib.bnc_gguf_file_size(self._handle))
        try:
            _refuse_shard(self)
        except GGUFError:
            self.close()
            raise

    @property
    def handle(self) -> Any:
        """The ``bnc_gguf *`` of the C library. Whoever keeps it must keep a :meth:`hold`, too."""
        handle = self._handle
        if handle is None:
            raise self._closed()
        return handle

    def _closed(self) -> ValueError:
        return ValueError(f"the reader of {str(self.path)!r} is closed")

    def hold(self, what: str) -> _Hold:
        """Keep the file open while a part of this library uses :attr:`handle`.

        ``close()`` raises, naming ``what``, until the returned object is released, left as a context manager, or
        garbage collected.
        """
        with self._lock:
            return _Hold(self, self._live, what)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """Lend the handle. ``close()`` waits on other threads, and raises in a finalizer that runs on this one."""
        with self._lock, self.hold("a read that is going on") as hold:
            yield hold.handle

    # Made anew each time: kept ones would form a cycle, and the mapping would wait for the garbage collector.

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Keys and values, in the order of the file, decoded each time they are asked for.

        Numbers, booleans and strings are Python's own, arrays of numbers and booleans numpy arrays (copies), arrays of
        strings lists. Bytes that are not UTF-8 appear as surrogates.
        """
        return _Metadata(self, self._reading)

    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Read-only views of the file by name, in its order.

        f32, f16, f64 and integer tensors have numpy's own types and the shape of :class:`TensorInfo`; bf16, which numpy
        lacks, comes as its bits in uint16; every other format as a flat uint8 array of ``nbytes``, ready for
        :func:`bitnet_core.dequantize`. A view of a type that this library does not know is a GGUFError.
        """
        return _Tensors(self, self._reading)

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """What the file says about each tensor, in its order."""
        with self._reading() as handle:
            n = lib.bnc_gguf_tensor_count(handle)
            return tuple(_info_of(lib.bnc_gguf_tensor_at(handle, i)) for i in range(n))

    def info(self, name: str) -> TensorInfo:
        """Return what the file says about the tensor ``name``; KeyError where there is none."""
        with self._reading() as handle:
            i = _find_tensor(handle, name)
            if i < 0:
                raise _missing("tensor", name, list(self.tensors))
            return _info_of(lib.bnc_gguf_tensor_at(handle, i))

    @property
    def closed(self) -> bool:
        """Whether ``close()`` has given the mapping back."""
        return self._handle is None

    def close(self) -> None:
        """Give the mapping back. May be called again.

        Raises
        ------
        LiveViewsError
            Arrays or models still use the mapping; the reader stays open. Without ``close()`` the mapping goes when the
            reader and everything that uses it are gone.
        """
        with self._lock:
            live = list(self._live.values())
            if live:
                names = ", ".join(sorted(set(live))[:5]) + (", ..." if len(set(live)) > 5 else "")
                raise LiveViewsError(
                    f"{str(self.path)!r} cannot be closed: {len(live)} arrays or models use it ({names}); delete them "
                    "first"
                )
            if self._handle is not None:
                handle, self._handle = self._handle, None
                ffi.release(handle)

    def __enter__(self) -> Self:
        if self.closed:
            raise self._closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except LiveViewsError:
            # The frames of an exception on its way out keep their arrays alive: that exception is the one to see. The
            # mapping goes with the last of the arrays.
            if kind is None:
                raise

    def __repr__(self) -> str:
        if self.closed:
            return f"<GGUFReader {str(self.path)!r}, closed>"
        return (
            f"<GGUFReader {str(self.path)!r}: version {self.version}, {len(self.metadata)} keys, "
            f"{len(self.tensors)} tensors, {self.size:,} bytes>"
        )


def _split_number(reader: GGUFReader, key: str, default: int) -> int:
    value = reader.metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SHARDS:
        raise GGUFError(f"{key} is {reprlib.repr(value)}; expected a whole number up to {_MAX_SHARDS}")
    return value


def _refuse_shard(reader: GGUFReader) -> None:
    """Raise when the file is one part of several, and say what to do about it."""
    count = _split_number(reader, "split.count", 1)
    if count <= 1:
        return
    no = _split_number(reader, "split.no", 0)
    if no >= count:
        raise GGUFError(f"split.no is {no}, but split.count is {count}: expected 0 to {count - 1}")
    part = f"{str(reader.path)!r} is part {no + 1} of {count} of a split model"
    match = _SHARD_NAME.fullmatch(reader.path.name)
    if match is None or (int(match["no"]), int(match["count"])) != (no + 1, count):
        raise ShardedFileError(
            f"{part}, but its name is not PREFIX-{no + 1:05d}-of-{count:05d}.gguf, so the other parts cannot be told; "
            "rename the parts and merge them with: llama-gguf-split --merge FIRST_PART OUT.gguf"
        )
    names = [f"{match['prefix']}-{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)]
    missing = tuple(name for name in names if not (reader.path.parent / name).exists())
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise ShardedFileError(
            f"{part}; beside it are missing: {', '.join(missing[:8])}{more}. Fetch them, then merge the parts into one",
            missing,
        )
    raise ShardedFileError(
        f"{part}; all parts are there, but a model must be one file that can be mapped. Merge them first: "
        f"llama-gguf-split --merge {names[0]} OUT.gguf"
    )
