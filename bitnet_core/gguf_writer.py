"""Write GGUF files, version 3: metadata with explicit types, then tensors streamed in the order they were declared.

The PyPI ``gguf`` package cannot write the type id of I2_S tensors (36), so this does. A file is written in three
steps: declare metadata, declare tensors, write the bytes of each tensor. It appears under its name only when it is
complete::

    with GGUFWriter("one.gguf") as writer:
        writer.add("general.architecture", "bitnet-b1.58", "string")
        writer.add_tensor("w", (1, 128), gguf_type=36, nbytes=64)
        writer.write_tensor("w", bytes(64))
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from bitnet_core.files import AtomicFile, check_free_space

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

__all__ = ["GGUFWriter"]

_MAGIC = 0x46554747
_VERSION = 3
_DEFAULT_ALIGNMENT = 32
_MAX_KEY = 65535
_MAX_NAME = 63  # the specification says 64, llama.cpp's buffer holds 63 and a terminator
_MAX_DIMS = 4
_ARRAY = 9
_BOOL = 7
_STRING = 8

# name -> (id in the file, struct and numpy format)
_NUMBERS = {
    "u8": (0, "<B"),
    "i8": (1, "<b"),
    "u16": (2, "<H"),
    "i16": (3, "<h"),
    "u32": (4, "<I"),
    "i32": (5, "<i"),
    "f32": (6, "<f"),
    "u64": (10, "<Q"),
    "i64": (11, "<q"),
    "f64": (12, "<d"),
}
_TYPE_IDS = {name: type_id for name, (type_id, _) in _NUMBERS.items()} | {"bool": _BOOL, "string": _STRING}


class GGUFWriter:
    """A GGUF file being written.

    Parameters
    ----------
    path : str or os.PathLike
        Where the complete file will be. Nothing is created before the first tensor is written, or ``close``.

    Attributes
    ----------
    alignment : int
        32, unless the key ``general.alignment`` is added.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.alignment = _DEFAULT_ALIGNMENT
        self._kvs: dict[str, bytes] = {}  # key -> encoded type and value
        self._tensors: dict[str, tuple[tuple[int, ...], int, int]] = {}  # name -> (shape, type id, nbytes)
        self._to_write: deque[str] = deque()  # names, in turn
        self._output: AtomicFile | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    # ---- declare ----

    def add(self, key: str, value: Any, value_type: str) -> None:
        """Add one key and its value.

        Parameters
        ----------
        key : str
            Up to 65,535 bytes, not used before.
        value : int, float, bool, str, or a sequence of them
            Must fit ``value_type`` exactly: no rounding, no wrapping (an ``f32`` takes the nearest float32).
        value_type : str
            One of u8 i8 u16 i16 u32 i32 f32 u64 i64 f64 bool string; in brackets for an array: ``"[u32]"``.

        Raises
        ------
        ValueError
            A duplicate or malformed key, an unknown type, or a value that does not fit it.
        """
        if value_type.startswith("[") and value_type.endswith("]"):
            encoded = _encode_array(key, value, value_type[1:-1])
        else:
            encoded = struct.pack("<I", _type_id(value_type)) + _encode(key, value, value_type)
        self._check_declaring()
        if not 1 <= len(key.encode()) <= _MAX_KEY or not key.isprintable():
            raise ValueError(f"key {key!r} must be 1 to {_MAX_KEY} printable bytes")
        if key in self._kvs:
            raise ValueError(f"key {key!r} is added twice")
        if key == "general.alignment":
            self.alignment = _checked_alignment(value, value_type)
        self._kvs[key] = encoded

    def add_tensor(self, name: str, shape: tuple[int, ...], *, gguf_type: int, nbytes: int) -> None:
        """Declare the next tensor.

        Parameters
        ----------
        name : str
            Up to 63 bytes, not used before.
        shape : tuple of int
            In numpy's order: the row length comes last (the file stores it first).
        gguf_type : int
            The type id, for example 0 for F32, 1 for F16, 36 for I2_S.
        nbytes : int
            Size of the data, tails and scales included, padding not.

        Raises
        ------
        ValueError
            A duplicate or malformed name, a bad shape, a type id that is none, or data already being written.
        """
        self._check_declaring()
        if not 0 <= gguf_type < 2**32:
            raise ValueError(f"tensor {name!r}: no file can hold type id {gguf_type}")
        encoded = name.encode()
        if not 1 <= len(encoded) <= _MAX_NAME or b"\0" in encoded:
            raise ValueError(f"tensor name {name!r} must be 1 to {_MAX_NAME} bytes without NUL")
        if name in self._tensors:
            raise ValueError(f"tensor {name!r} is declared twice")
        if not 1 <= len(shape) <= _MAX_DIMS or min(shape) < 1:
            raise ValueError(f"tensor {name!r}: shape {shape} must have 1 to {_MAX_DIMS} dimensions of at least 1")
        if nbytes < 1:
            raise ValueError(f"tensor {name!r}: nbytes must be at least 1, not {nbytes}")
        self._tensors[name] = (tuple(shape), gguf_type, nbytes)
        self._to_write.append(name)

    def header(self) -> bytes:
        """Return everything before the tensor data, padding included, as declared so far."""
        parts = [struct.pack("<IIQQ", _MAGIC, _VERSION, len(self._tensors), len(self._kvs))]
        parts += [part for key, encoded in self._kvs.items() for part in (_encode_string(key), encoded)]
        offset = 0
        for name, (shape, gguf_type, nbytes) in self._tensors.items():
            dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
            parts.append(_encode_string(name) + dims + struct.pack("<IQ", gguf_type, offset))
            offset += self.padded(nbytes)
        header = b"".join(parts)
        return header + bytes(self._padding(len(header)))

    @property
    def file_size(self) -> int:
        """Bytes of the complete file, as declared so far."""
        return len(self.header()) + self.data_size

    @property
    def data_size(self) -> int:
        """Bytes of all tensors with their padding, as declared so far."""
        return sum(self.padded(nbytes) for _, _, nbytes in self._tensors.values())

    def padded(self, nbytes: int) -> int:
        """Bytes that a tensor of ``nbytes`` bytes takes in the file."""
        return nbytes + self._padding(nbytes)

    # ---- write ----

    def write_tensor(self, name: str, data: Any) -> None:
        """Write the bytes of one tensor; the tensors come in the order of their declaration.

        The first call checks the free space of the disk and ends the declarations.

        Parameters
        ----------
        name : str
            The tensor whose turn it is.
        data : buffer, or iterable of buffers
            Exactly the declared number of bytes, in one piece or many.

        Raises
        ------
        ValueError
            It is another tensor's turn, or the number of bytes differs from the declaration.
        OSError
            The disk is too small, or writing fails.
        """
        if not self._to_write or self._to_write[0] != name:
            turn = repr(self._to_write[0]) if self._to_write else "none, all are written"
            raise ValueError(f"tensor {name!r} is out of turn; next is: {turn}")
        try:
            self._stream(self._started().file, name, data)
        except BaseException:
            self.abort()
            raise
        self._to_write.popleft()

    def flush(self) -> Path:
        """Hand what was written to the system and return where it lies until the file is complete, for a look at it."""
        output = self._started()
        output.file.flush()
        return output.temp

    def close(self) -> None:
        """Complete the file and give it its name; does nothing the second time.

        Raises
        ------
        ValueError
            A declared tensor was not written; the file is removed.
        """
        if self._closed:
            return
        if self._to_write:
            missing = self._to_write[0]
            self.abort()
            raise ValueError(f"tensor {missing!r} was declared but not written")
        output = self._started()
        self._closed = True
        output.commit()

    def abort(self) -> None:
        """Give up: remove what was written so far. ``path`` is not touched."""
        self._closed = True
        if self._output is not None:
            self._output.discard()

    # ---- helpers ----

    def _started(self) -> AtomicFile:
        """Return the output file; the first time, open it and write the header."""
        if self._closed:
            raise ValueError(f"{self.path}: the writer is closed")
        if self._output is None:
            header = self.header()
            check_free_space(self.path, len(header) + self.data_size)
            self._output = AtomicFile(self.path)
            self._output.file.write(header)
        return self._output

    def _stream(self, file: BinaryIO, name: str, data: Any) -> None:
        nbytes = self._tensors[name][2]
        done = 0
        chunks: Iterable[Any] = [data] if _is_buffer(data) else data
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            done += len(view)
            if done > nbytes:
                break
            file.write(view)
        if done != nbytes:
            relation = "more than" if done > nbytes else f"{done} of"
            raise ValueError(f"tensor {name!r}: {relation} the declared {nbytes} bytes were given")
        file.write(bytes(self._padding(nbytes)))

    def _check_declaring(self) -> None:
        if self._output is not None or self._closed:
            raise ValueError("metadata and tensors must be declared before the first tensor is written")

    def _padding(self, nbytes: int) -> int:
        return -nbytes % self.alignment


def _type_id(value_type: str) -> int:
    if value_type not in _TYPE_IDS:
        raise ValueError(f"value type {value_type!r} is not one of: {', '.join(_TYPE_IDS)}")
    return _TYPE_IDS[value_type]


def _checked_alignment(value: int, value_type: str) -> int:
    if value_type != "u32" or value < 8 or value & (value - 1):
        raise ValueError(f"general.alignment must be a u32, a power of two, at least 8; not {value} as {value_type}")
    return value


def _encode_string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _encode(key: str, value: Any, value_type: str) -> bytes:
    if value_type == "string":
        if not isinstance(value, str):
            raise ValueError(f"{key}: {value!r} is not a string")
        return _encode_string(value)
    if value_type == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{key}: {value!r} is not a bool")
        return struct.pack("<B", value)
    try:
        return struct.pack(_NUMBERS[value_type][1], value)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{key}: {value!r} is not a {value_type}: {error}") from None


def _encode_array(key: str, values: Sequence[Any] | NDArray[Any], element_type: str) -> bytes:
    head = struct.pack("<IIQ", _ARRAY, _type_id(element_type), len(values))
    if element_type in _NUMBERS:
        return head + _encode_numbers(key, np.asarray(values), element_type)
    return head + b"".join([_encode(key, value, element_type) for value in values])


def _encode_numbers(key: str, array: NDArray[Any], element_type: str) -> bytes:
    dtype = np.dtype(_NUMBERS[element_type][1])
    if array.size == 0:
        return b""
    if array.ndim != 1 or array.dtype.kind not in ("iu" if dtype.kind in "iu" else "iuf"):
        raise ValueError(f"{key}: an array of {element_type} cannot hold {array.dtype} of shape {array.shape}")
    if dtype.kind in "iu" and (array.min() < np.iinfo(dtype).min or array.max() > np.iinfo(dtype).max):
        raise ValueError(f"{key}: {array.min()} to {array.max()} is more than a {element_type} holds")
    return array.astype(dtype).tobytes()


def _is_buffer(data: object) -> bool:
    try:
        memoryview(data)  # type: ignore[arg-type]  # being refused is the answer
    except TypeError:
        return False
    return True
