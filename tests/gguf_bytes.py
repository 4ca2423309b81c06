"""Byte strings of GGUF files, sound and unsound: every field can be given a value of its own.

Written from the description of the format, and not with the library's own writer, so that a mistake made in both cannot
hide in the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def string(text, length=None):
    data = text if isinstance(text, bytes) else text.encode()
    return u64(len(data) if length is None else length) + data


def scalar(type_id, value):
    return string(value) if type_id == STRING else struct.pack("<" + _FORMATS[type_id], value)


def array(elem_type, values, count=None):
    """An array's encoding behind the value type: element type, count, elements."""
    elements = b"".join(scalar(elem_type, value) for value in values)
    return u32(elem_type) + u64(len(values) if count is None else count) + elements


def raw_kv(key, type_id, encoded, key_length=None):
    return string(key, key_length) + u32(type_id) + encoded


def kv(key, type_id, value):
    return raw_kv(key, type_id, scalar(type_id, value))


def array_kv(key, elem_type, values):
    return raw_kv(key, ARRAY, array(elem_type, values))


@dataclass
class Tensor:
    """One tensor; ``offset`` None places it behind the one before, ``n_dims`` None counts ``dims``."""

    name: str | bytes
    dims: tuple[int, ...]
    type_id: int
    data: bytes = b""
    offset: int | None = None
    n_dims: int | None = None
    name_length: int | None = None


@dataclass
class File:
    """The parts of a file; ``bytes(file)`` puts them together."""

    kvs: list[bytes] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    version: int = 3
    alignment: int = 32
    n_kv: int | None = None
    n_tensors: int | None = None
    magic: bytes = b"GGUF"
    pad_last: bool = True

    def __bytes__(self):
        header = self.magic + u32(self.version)
        header += u64(len(self.tensors) if self.n_tensors is None else self.n_tensors)
        header += u64(len(self.kvs) if self.n_kv is None else self.n_kv)
        header += b"".join(self.kvs)
        data = b""
        for tensor in self.tensors:
            offset = len(data) if tensor.offset is None else tensor.offset
            n_dims = len(tensor.dims) if tensor.n_dims is None else tensor.n_dims
            header += string(tensor.name, tensor.name_length) + u32(n_dims) + b"".join(map(u64, tensor.dims))
            header += u32(tensor.type_id) + u64(offset)
            data += tensor.data
            if tensor is not self.tensors[-1] or self.pad_last:
                data += self.padding(len(data))
        return header + (self.padding(len(header)) + data if self.tensors else b"")

    def padding(self, position):
        return bytes(-position % self.alignment)


# Bytes a tensor of n_rows rows of ne0 elements takes, for the formats that share type id 36.
SIZES_OF_36 = {
    "i2_s": lambda ne0, n_rows: ne0 * n_rows // 4 + 32,
    "i2_s_64": lambda ne0, n_rows: ne0 * n_rows // 4 + 32,
    "i2_s_row4": lambda ne0, n_rows: ne0 * n_rows // 4 + 32,
    "bitnet32": lambda ne0, n_rows: ne0 * n_rows // 32 * 10,
    "qk256": lambda ne0, n_rows: n_rows * -(-ne0 // 256) * 64,
}
TYPE_36 = 36


def ternary_lcg(n):
    """The test vector's ternary values: docs/formats.md."""
    state, values = 1, []
    for _ in range(n):
        state = (state * 1103515245 + 12345) % 2**31
        values.append((state >> 16) % 3 - 1)
    return values


def i2_s(values, scale):
    """Microsoft's packing of ternary values: 128 of them in 32 bytes, the first 32 in the top bits."""
    packed = bytearray()
    for group in range(0, len(values), 128):
        for p in range(32):
            codes = [values[group + p + 32 * k] + 1 for k in range(4)]
            packed.append(codes[0] << 6 | codes[1] << 4 | codes[2] << 2 | codes[3])
    return bytes(packed) + struct.pack("<f", scale) + bytes(28)


def mini():
    """The file tests/vectors/mini.gguf."""
    return File(
        kvs=[kv("general.architecture", STRING, "bitnet-b1.58"), kv("general.alignment", U32, 32)],
        tensors=[Tensor("w", (128, 1), TYPE_36, i2_s(ternary_lcg(128), 0.75))],
    )


def vocabulary(n_tokens=128_256, n_merges=280_147):
    """A file whose header is that of a real model with a byte-pair vocabulary; about as many bytes, too."""
    tokens = b"".join(string(f"token{i}") for i in range(n_tokens))
    merges = b"".join(string(f"{i % 1000} {i}") for i in range(n_merges))
    return bytes(
        File(
            kvs=[
                kv("general.architecture", STRING, "bitnet-b1.58"),
                raw_kv("tokenizer.ggml.tokens", ARRAY, u32(STRING) + u64(n_tokens) + tokens),
                raw_kv("tokenizer.ggml.scores", ARRAY, u32(F32) + u64(n_tokens) + bytes(4 * n_tokens)),
                raw_kv("tokenizer.ggml.token_type", ARRAY, u32(I32) + u64(n_tokens) + u32(1) * n_tokens),
                raw_kv("tokenizer.ggml.merges", ARRAY, u32(STRING) + u64(n_merges) + merges),
            ],
            tensors=[Tensor("output_norm.weight", (8,), 0, bytes(32))],
        )
    )
