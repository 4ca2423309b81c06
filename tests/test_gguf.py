"""The GGUF reader: what it reads, what it refuses and where it says the fault is, and how long its views live."""

from __future__ import annotations

import contextlib
import doctest
import errno
import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import gguf as reference
import gguf_bytes as gb
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bitnet_core.gguf
from bitnet_core._lib import ffi, lib
from bitnet_core.exceptions import GGUFError, LiveViewsError, ShardedFileError
from bitnet_core.gguf import GGUFReader, TensorInfo

VECTORS = Path(__file__).parent / "vectors"
MINI = VECTORS / "mini.gguf"
TINY_A = VECTORS / "oracle" / "tiny_a.gguf"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc or relies on Linux's limits")

HUGE = (2**31, 2**32 - 1, 2**61, 2**63, 2**64 - 1)


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="model.gguf"):
        path = tmp_path / name
        path.write_bytes(bytes(content))
        return path

    return write_file


@pytest.fixture
def refused(write):
    """Open content and return the GGUFError; whatever is wrong is found with and without mapping."""

    def open_file(content, **options):
        path = write(content)
        with pytest.raises(GGUFError) as mapped:
            GGUFReader(path, **options)
        with pytest.raises(GGUFError) as read:
            GGUFReader(path, mmap=False, **options)
        assert str(mapped.value) == str(read.value)
        return mapped.value

    return open_file


def f32(name, *values, **fields):
    return gb.Tensor(name, (len(values),), 0, np.array(values, "<f4").tobytes(), **fields)


def file_of_36(ne0, n_rows, nbytes, *, kvs=(), alignment=32, then=True):
    """A file with a tensor of type id 36 whose data take nbytes, and, if then, another behind it."""
    tensors = [gb.Tensor("w", (ne0, n_rows), 36, bytes(nbytes))]
    if then:
        tensors.append(f32("norm", 1.0, 2.0))
    kvs = [*kvs, gb.kv("general.alignment", gb.U32, alignment)]
    return gb.File(kvs=kvs, tensors=tensors, alignment=alignment, pad_last=False)


def run_python(code, *arguments, timeout=60):
    """A fresh interpreter, so that memory and hanging can be judged; its last line of output."""
    done = subprocess.run(  # our own interpreter and code
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(bitnet_core.gguf.__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


# ---- what is read ----


def test_mini_file_is_the_documented_one_and_reads_as_such():
    assert bytes(gb.mini()) == MINI.read_bytes()
    with GGUFReader(MINI, strict=True) as reader:
        assert (reader.version, reader.alignment, reader.size) == (3, 32, 224)
        assert reader.path == MINI
        assert dict(reader.metadata) == {"general.architecture": "bitnet-b1.58", "general.alignment": 32}
        assert reader.infos == (TensorInfo("w", "i2_s", 36, (1, 128), 160, 64),)
        assert lib.bnc_gguf_data_offset(reader.handle) == 160
        assert bytes(reader.tensors["w"]) == gb.i2_s(gb.ternary_lcg(128), 0.75)


VALUES = {
    gb.U8: [255, 0],
    gb.I8: [-128, 127],
    gb.U16: [65535, 1],
    gb.I16: [-32768, 2],
    gb.U32: [2**32 - 1, 3],
    gb.I32: [-(2**31), 4],
    gb.F32: [0.15625, -2.5],
    gb.BOOL: [True, False],
    gb.STRING: ["ä b\n", ""],
    gb.U64: [2**64 - 1, 5],
    gb.I64: [-(2**63), 6],
    gb.F64: [1e300, 0.1],
}
NUMPY = {
    gb.U8: np.uint8,
    gb.I8: np.int8,
    gb.U16: np.uint16,
    gb.I16: np.int16,
    gb.U32: np.uint32,
    gb.I32: np.int32,
    gb.F32: np.float32,
    gb.BOOL: np.bool_,
    gb.U64: np.uint64,
    gb.I64: np.int64,
    gb.F64: np.float64,
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("mmap", [True, False])
def test_every_value_type_alone_and_in_arrays(write, version, mmap):
    kvs = [gb.kv(f"one.{t}", t, values[0]) for t, values in VALUES.items()]
    kvs += [gb.array_kv(f"many.{t}", t, values) for t, values in VALUES.items()]
    kvs += [gb.array_kv(f"none.{t}", t, []) for t in VALUES]
    with GGUFReader(write(gb.File(kvs=kvs, version=version)), mmap=mmap, strict=True) as reader:
        metadata = reader.metadata
        assert reader.version == version
        assert list(metadata) == [f"{kind}.{t}" for kind in ("one", "many", "none") for t in VALUES]
        assert len(metadata) == 36
        for t, values in VALUES.items():
            one, many, none = metadata[f"one.{t}"], metadata[f"many.{t}"], metadata[f"none.{t}"]
            assert one == values[0]
            assert type(one) is type(values[0])
            if t == gb.STRING:
                assert many == values
                assert none == []
            else:
                assert many.dtype == none.dtype == NUMPY[t]
                assert many.tolist() == values
                assert none.shape == (0,)


def test_arrays_of_metadata_are_copies_that_outlive_the_reader(write):
    reader = GGUFReader(write(gb.File(kvs=[gb.array_kv("a", gb.U32, [1, 2, 3])])))
    array = reader.metadata["a"]
    reader.close()
    array[0] = 7
    assert array.tolist() == [7, 2, 3]


def test_bytes_that_are_not_utf8_survive(write):
    token, name = b"\xff\xc3(", b"t\xe9"
    kvs = [gb.raw_kv("tokens", gb.ARRAY, gb.array(gb.STRING, [token, b"\xc3\xa4"])), gb.kv(b"k\xfe", gb.U8, 1)]
    with GGUFReader(write(gb.File(kvs=kvs, tensors=[f32(name, 1.5)]))) as reader:
        tokens = reader.metadata["tokens"]
        assert [t.encode("utf-8", "surrogateescape") for t in tokens] == [token, b"\xc3\xa4"]
        assert tokens[1] == "ä"
        assert reader.metadata[b"k\xfe".decode("utf-8", "surrogateescape")] == 1
        assert reader.tensors[name.decode("utf-8", "surrogateescape")].tolist() == [1.5]


TENSORS = [
    ("f32", 0, "<f4"),
    ("f16", 1, "<f2"),
    ("bf16", 30, "<u2"),
    ("i8", 24, "<i1"),
    ("i16", 25, "<i2"),
    ("i32", 26, "<i4"),
    ("i64", 27, "<i8"),
    ("f64", 28, "<f8"),
]


@pytest.mark.parametrize(("dtype", "type_id", "typestr"), TENSORS)
@pytest.mark.parametrize("dims", [(6,), (2, 3), (3, 1, 2), (1, 2, 1, 3)])
def test_tensors_that_numpy_knows_keep_type_and_shape(write, dtype, type_id, typestr, dims):
    data = np.arange(6, dtype=typestr)
    file = gb.File(tensors=[f32("before", 1.0), gb.Tensor("t", dims, type_id, data.tobytes())])
    with GGUFReader(write(file), strict=True) as reader:
        info = reader.info("t")
        assert (info.dtype, info.gguf_type, info.shape, info.nbytes) == (dtype, type_id, dims[::-1], data.nbytes)
        np.testing.assert_array_equal(reader.tensors["t"], data.reshape(dims[::-1]))
        assert reader.tensors["t"].dtype == data.dtype


# Bytes a row of ne0 = 512 takes: the table of docs/formats.md.
BLOCKS = [
    ("q4_0", 2, 288),
    ("q4_1", 3, 320),
    ("q5_0", 6, 352),
    ("q5_1", 7, 384),
    ("q8_0", 8, 544),
    ("q2_k", 10, 168),
    ("q3_k", 11, 220),
    ("q4_k", 12, 288),
    ("q5_k", 13, 352),
    ("q6_k", 14, 420),
    ("tq1_0", 34, 108),
    ("tq2_0", 35, 132),
    ("iq1_bn", 134, 106),
    ("iq2_bn", 135, 132),
]


@pytest.mark.parametrize(("dtype", "type_id", "row_bytes"), BLOCKS)
def test_tensors_in_blocks_are_their_bytes(write, dtype, type_id, row_bytes):
    data = np.random.default_rng(0).bytes(3 * row_bytes)
    file = gb.File(tensors=[gb.Tensor("t", (512, 3), type_id, data), f32("after", 1.0)])
    with GGUFReader(write(file), strict=True) as reader:
        assert reader.info("t") == TensorInfo("t", dtype, type_id, (3, 512), 128, 3 * row_bytes)
        view = reader.tensors["t"]
        assert (view.dtype, view.shape) == (np.uint8, (3 * row_bytes,))
        assert view.tobytes() == data
        assert reader.tensors["after"].tolist() == [1.0]
        del view


@pytest.mark.parametrize("alignment", [1, 2, 8, 64, 4096, 2**20])
def test_alignments_other_than_the_default(write, alignment):
    kvs = [gb.kv("general.alignment", gb.U32, alignment), gb.kv("odd", gb.BOOL, value=True)]
    tensors = [gb.Tensor("bytes", (3,), 24, b"\1\2\3"), f32("floats", 0.5, -1.0, 3.0)]
    with GGUFReader(write(gb.File(kvs=kvs, tensors=tensors, alignment=alignment)), strict=True) as reader:
        assert reader.alignment == alignment
        offsets = [info.offset for info in reader.infos]
        assert offsets[1] - offsets[0] == -(-3 // alignment) * alignment
        assert all(offset % alignment == 0 for offset in offsets)
        floats = reader.tensors["floats"]
        assert floats.flags.aligned == (offsets[1] % 4 == 0)
        assert floats.sum() == 2.5
        del floats


def test_iteration_is_in_the_order_of_the_file(write):
    names = ["z", "a", "m", "b10", "b9"]
    with GGUFReader(write(gb.File(tensors=[f32(name, i) for i, name in enumerate(names)]))) as reader:
        assert list(reader.tensors) == [info.name for info in reader.infos] == names
        assert len(reader.tensors) == 5
        assert [view.item() for view in reader.tensors.values()] == [0, 1, 2, 3, 4]


def test_tensors_may_lie_in_any_order_and_with_gaps(write):
    tensors = [f32("second", 2.0, offset=96), f32("first", 1.0, offset=32)]
    file = bytes(gb.File(tensors=tensors))
    start = len(file) - 64
    data = bytearray(128)
    data[32:36], data[96:100] = np.float32(1).tobytes(), np.float32(2).tobytes()
    path = write(file[:start] + data)
    with GGUFReader(path) as reader:
        assert {name: view.item() for name, view in reader.tensors.items()} == {"second": 2.0, "first": 1.0}
    with pytest.raises(GGUFError, match='"second" has offset 96; strict mode expects 0'):
        GGUFReader(path, strict=True)


def test_look_ups_by_name(write):
    kvs = [gb.kv("general.name", gb.STRING, "x"), gb.kv("general.nam", gb.U8, 3)]
    tensors = [f32("blk.0.attn_q.weight", 1.0), f32("blk.0.attn_q.weigh", 2.0)]
    with GGUFReader(write(gb.File(kvs=kvs, tensors=tensors))) as reader:
        assert reader.metadata["general.nam"] == 3
        assert reader.tensors["blk.0.attn_q.weigh"].item() == 2.0
        assert "general.name" in reader.metadata
        assert reader.metadata.get("general.name", 5) == "x"
        assert reader.metadata.get("general.names", 5) == 5
        assert reader.tensors.get("nothing") is None
        for absent in ("general.names", "", "general.name\0", "\ud800", 3, None):
            assert absent not in reader.metadata
            assert absent not in reader.tensors
        with pytest.raises(KeyError, match=r"no metadata key 'general.nme' among 2; did you mean 'general.name'"):
            reader.metadata["general.nme"]
        with pytest.raises(KeyError, match=r"no tensor 'blk.0.attn_k.weight' among 2; did you mean"):
            reader.tensors["blk.0.attn_k.weight"]
        with pytest.raises(KeyError, match=r"no tensor 'completely different' among 2'?\"?$"):
            reader.info("completely different")


def test_file_without_tensors_or_keys(write):
    for file in (gb.File(), gb.File(kvs=[gb.kv("a", gb.U8, 1)])):
        with GGUFReader(write(file), strict=True) as reader:
            assert len(reader.tensors) == 0
            assert reader.infos == ()
            assert len(reader.metadata) == len(file.kvs)


def test_reading_into_memory_equals_mapping():
    with GGUFReader(TINY_A) as mapped, GGUFReader(TINY_A, mmap=False) as read:
        assert mapped.infos == read.infos
        assert list(mapped.metadata) == list(read.metadata)
        for name in mapped.tensors:
            np.testing.assert_array_equal(mapped.tensors[name], read.tensors[name])


def test_repr_says_what_it_is():
    reader = GGUFReader(MINI)
    assert re.fullmatch(r"<GGUFReader '.*mini\.gguf': version 3, 2 keys, 1 tensors, 224 bytes>", repr(reader))
    assert "mini.gguf" in repr(reader.metadata)
    assert "mini.gguf" in repr(reader.tensors)
    reader.close()
    assert re.fullmatch(r"<GGUFReader '.*mini\.gguf', closed>", repr(reader))


def test_example_in_the_documentation(monkeypatch):
    monkeypatch.chdir(VECTORS.parent.parent)
    results = doctest.testmod(bitnet_core.gguf)
    assert results.attempted > 0
    assert results.failed == 0


# ---- against the reference implementation ----


def reference_metadata(path):
    fields = reference.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def plain(metadata):
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in metadata.items()}


def test_metadata_of_a_whole_model_equal_the_references(write):
    # The reference raises on tensor type id 36, so it gets the file without its tensors.
    content = bytearray(TINY_A.read_bytes())
    content[8:16] = bytes(8)
    path = write(content)
    with GGUFReader(TINY_A) as reader, GGUFReader(path) as without_tensors:
        expected = reference_metadata(path)
        assert plain(reader.metadata) == plain(without_tensors.metadata) == expected
        said = json.loads((TINY_A.with_suffix(".json")).read_text())
        assert reader.metadata["bitnet-b1.58.embedding_length"] == said["embd"]
        assert reader.info("blk.1.ffn_down.weight").shape == (said["embd"], said["ffn"])
        assert {info.dtype for info in reader.infos} == {"f16", "f32", "i2_s"}


def test_a_file_the_reference_wrote(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "reference.gguf"
    writer = reference.GGUFWriter(path, "bitnet-b1.58")
    writer.add_name("a name")
    writer.add_array("tokens", ["a", "", "ö"])
    writer.add_array("scores", [0.5, -1.0])
    writer.add_bool("flag", val=True)
    writer.add_uint64("big", 2**63)
    arrays = {
        "matrix": rng.standard_normal((3, 5), dtype=np.float32),
        "half": rng.standard_normal((7,)).astype(np.float16),
        "cube": rng.integers(-9, 9, (2, 3, 4), dtype=np.int32),
    }
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    quantized = reference.quants.quantize(
        rng.standard_normal((2, 256), dtype=np.float32), reference.GGMLQuantizationType.TQ2_0
    )
    writer.add_tensor("ternary", quantized, raw_dtype=reference.GGMLQuantizationType.TQ2_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFReader(path, strict=True) as reader:
        assert plain(reader.metadata) == reference_metadata(path)
        for name, array in arrays.items():
            np.testing.assert_array_equal(reader.tensors[name], array)
        assert reader.info("ternary").shape == (2, 256)
        assert reader.tensors["ternary"].tobytes() == quantized.tobytes()
        for tensor in reference.GGUFReader(path).tensors:
            info = reader.info(tensor.name)
            assert (info.offset, info.nbytes, info.gguf_type) == (
                tensor.data_offset,
                tensor.n_bytes,
                tensor.tensor_type,
            )
            assert info.shape == tuple(reversed(tensor.shape.tolist()))


def test_our_bytes_are_what_the_reference_reads(write):
    kvs = [gb.kv(f"one.{t}", t, values[0]) for t, values in VALUES.items()]
    kvs += [gb.array_kv(f"many.{t}", t, values) for t, values in VALUES.items()]
    path = write(gb.File(kvs=kvs, tensors=[f32("t", 1.0, 2.0)]))
    with GGUFReader(path) as reader:
        assert plain(reader.metadata) == reference_metadata(path)


# ---- what is refused: the header ----


@pytest.mark.parametrize("n", sorted({*range(224)} - {200}))
def test_mini_file_cut_short_anywhere(refused, n):
    error = refused(MINI.read_bytes()[:n])
    assert error.offset is not None
    assert 0 <= error.offset <= n


def test_mini_file_cut_to_what_another_format_takes(write):
    # 40 bytes are left, just what bitnet32 takes for 128 elements, so nothing is wrong with them. Only tiny tensors can
    # be taken for it: from 512 elements on bitnet32 takes more than i2_s, and a file cut short has less.
    path = write(MINI.read_bytes()[:200])
    with GGUFReader(path) as reader:
        assert reader.info("w").dtype == "bitnet32"
    with pytest.raises(GGUFError, match="takes 64 bytes, but the file ends 40 bytes after it begins"):
        GGUFReader(path, dtype="i2_s")


# The 8-byte counts, lengths and offsets of the mini file.
FIELDS = {
    "tensor_count": 0x08,
    "kv_count": 0x10,
    "key_length": 0x18,
    "value_length": 0x38,
    "second_key_length": 0x4C,
    "tensor_name_length": 0x6D,
    "ne0": 0x7A,
    "ne1": 0x82,
    "offset": 0x8E,
}


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("position", FIELDS.values(), ids=FIELDS)
def test_mini_file_with_a_huge_field(refused, position, value):
    content = bytearray(MINI.read_bytes())
    content[position : position + 8] = gb.u64(value)
    error = refused(content)
    assert error.offset is not None
    assert error.offset <= len(content)


def header(**fields):
    return gb.File(kvs=[gb.kv("a", gb.U8, 1)], tensors=[f32("t", 1.0)], **fields)


def with_kv(*kvs, **fields):
    return gb.File(kvs=list(kvs), tensors=[f32("t", 1.0)], **fields)


def with_tensor(*args, **fields):
    return gb.File(tensors=[gb.Tensor(*args, **fields)])


# name: (content, what the message says, byte position), in the order of docs/formats.md. A key begins at byte 24.
REFUSED = {
    # 1: size, magic, version, byte order
    "empty": (b"", "has 0 bytes; a GGUF header takes 24", 0),
    "short": (b"GGUF" + gb.u32(3), "has 8 bytes; a GGUF header takes 24", 8),
    "magic": (header(magic=b"GGUE"), "starts with 47 47 55 45, expected 47 47 55 46", 0),
    "magic-git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer", 0),
    "magic-html": (b"<!doctype html><html><head><title>404", "a web page", 0),
    "magic-zip": (b"PK\3\4" + bytes(40), "a zip archive", 0),
    "magic-ggjt": (b"tjgg" + bytes(40), "an old ggjt file", 0),
    "version-0": (header(version=0), "version 0 does not exist", 4),
    "version-1": (header(version=1), "version 1 has 32-bit counts", 4),
    "version-4": (header(version=4), "version 4 is newer", 4),
    "version-2^32-1": (header(version=2**32 - 1), "version 4294967295 is newer", 4),
    "big-endian-2": (header(version=0x02000000), "big-endian", 4),
    "big-endian-3": (header(version=0x03000000), "big-endian", 4),
    # 2: counts
    "kv-count-beyond-the-file": (header(n_kv=60), "the key count is 60; each takes at least 13 bytes", 16),
    "tensor-count-beyond-the-file": (header(n_tensors=60), "the tensor count is 60; each takes at least 32", 8),
    "kv-count-beyond-the-limit": (header(n_kv=65537), "the key count is 65537; this reader takes at most 65536", 16),
    "tensor-count-beyond-the-limit": (header(n_tensors=65537), "the tensor count is 65537; this reader takes", 8),
    "one-kv-too-many": (gb.File(kvs=[gb.kv("a", gb.STRING, "x" * 20)], n_kv=2), "the file ends inside a key: 8", 65),
    # 3: strings
    "key-beyond-the-file": (with_kv(gb.raw_kv("a", gb.U8, b"\1", key_length=500)), "ends inside a key: 500", 32),
    "key-too-long": (with_kv(gb.kv("a" * 65536, gb.U8, 1)), "a key of 65536 bytes; expected 1 to 65535", 24),
    "key-nul": (with_kv(gb.kv("a\0b", gb.U8, 1)), "a key contains a NUL", 24),
    "string-beyond-the-file": (with_kv(gb.raw_kv("a", 8, gb.string("x", 10**6))), "string 0 of 1 claims 1000000", 37),
    "string-2^64-1": (with_kv(gb.raw_kv("a", 8, gb.string("x", 2**64 - 1))), "claims 18446744073709551615 bytes", 37),
    "string-2^64-8": (with_kv(gb.raw_kv("a", 8, gb.string("x", 2**64 - 8))), "claims 18446744073709551608 bytes", 37),
    "string-cut": (
        bytes(gb.File(kvs=[gb.kv("a", 8, "x")]))[:41],
        "ends inside the length of a string: 8 bytes needed, 4",
        37,
    ),
    "tensor-name-too-long": (with_tensor("n" * 64, (1,), 0), "a tensor name of 64 bytes; expected 1 to 63", 24),
    "tensor-name-empty": (with_tensor("", (1,), 0), "a tensor name of 0 bytes", 24),
    "tensor-name-nul": (with_tensor("a\0", (1,), 0), "a tensor name contains a NUL", 24),
    "tensor-name-beyond-the-file": (with_tensor("a", (1,), 0, name_length=60), "ends inside a tensor name: 60", 32),
    # 4: values
    "value-type": (with_kv(gb.raw_kv("a", 13, b"\1")), 'the value type of key "a" is 13; ids go from 0 to 12', 33),
    "value-type-negative": (with_kv(gb.raw_kv("a", 2**32 - 1, b"\1")), "is 4294967295; ids go from", 33),
    "element-type": (with_kv(gb.raw_kv("a", 9, gb.u32(77) + gb.u64(1))), 'the element type of key "a" is 77', 37),
    "array-beyond-the-file": (with_kv(gb.raw_kv("a", 9, gb.array(gb.F32, [1], 999))), "claims 999 elements of at", 41),
    "strings-beyond-the-file": (with_kv(gb.raw_kv("a", 9, gb.array(gb.STRING, ["x"], 99))), "claims 99 elements", 41),
    "strings-run-out": (
        gb.File(kvs=[gb.raw_kv("a", 9, gb.array(gb.STRING, ["x" * 90], 9))]),
        "ends inside the len",
        147,
    ),
    "array-of-arrays": (with_kv(gb.raw_kv("a", 9, gb.u32(9) + gb.u64(1) + gb.array(4, [1]))), "array of arrays", 37),
    "value-cut": (bytes(gb.File(kvs=[gb.kv("a", gb.U64, 1)]))[:44], "ends inside a value: 8 bytes needed, 7 left", 37),
    # 5: keys
    "key-empty": (with_kv(gb.kv("", gb.U8, 1)), "a key of 0 bytes", 24),
    "key-twice": (with_kv(*[gb.kv(k, gb.U8, 1) for k in "bab"]), 'the key "b" occurs twice, as number 0 and 2', 60),
    # 6: alignment
    "alignment-0": (with_kv(gb.kv("general.alignment", gb.U32, 0)), "general.alignment is 0; expected a power", 53),
    "alignment-33": (with_kv(gb.kv("general.alignment", gb.U32, 33)), "is 33; expected a power of two", 53),
    "alignment-2^21": (with_kv(gb.kv("general.alignment", gb.U32, 2**21)), "is 2097152; expected", 53),
    "alignment-2^31": (with_kv(gb.kv("general.alignment", gb.U32, 2**31)), "is 2147483648; expected", 53),
    "alignment-2^32-1": (with_kv(gb.kv("general.alignment", gb.U32, 2**32 - 1)), "is 4294967295; expected", 53),
    "alignment-u64": (with_kv(gb.kv("general.alignment", gb.U64, 32)), "has value type 10; expected 4", 53),
    "alignment-string": (with_kv(gb.kv("general.alignment", gb.STRING, "32")), "has value type 8; expected 4", 53),
    "alignment-array": (with_kv(gb.array_kv("general.alignment", gb.U32, [32])), "has value type 9; expected 4", 65),
    # 7: dimensions
    "dims-0": (with_tensor("t", (), 0), 'tensor "t" has 0 dimensions; expected 1 to 4', 33),
    "dims-5": (with_tensor("t", (1,) * 5, 0, bytes(4)), "has 5 dimensions", 33),
    "dims-2^31": (with_tensor("t", (1,), 0, n_dims=2**31), "has 2147483648 dimensions", 33),
    "dims-2^32-1": (with_tensor("t", (1,), 0, n_dims=2**32 - 1), "has 4294967295 dimensions", 33),
    "dim-0": (with_tensor("t", (3, 0), 0), 'dimension 1 of tensor "t" is 0; expected at least 1', 45),
    "dim-2^63": (with_tensor("t", (2**63,), 24), "is 9223372036854775808; expected", 37),
    "dims-product": (with_tensor("t", (2**32, 2**31), 24), "and a product below 2^63", 45),
    "dims-cut": (bytes(with_tensor("t", (7, 7, 7, 7), 0))[:60], "ends inside a dimension: 8 bytes needed, 7 left", 53),
    # 9: sizes
    "elements-of-half-a-block": (
        with_tensor("t", (255,), 34, bytes(32)),
        'tensor "t": tq1_0 packs 256 elements of a row',
        45,
    ),
    "rows-of-half-a-block": (with_tensor("t", (128, 2), 35, bytes(66)), "tq2_0 packs 256 elements of a row", 53),
    "bytes-overflow": (
        with_tensor("t", (2**61, 2), 28, bytes(32)),
        "a f64 tensor of 2 x 2305843009213693952 is larger",
        53,
    ),
    # 10: inside the file
    "offset-odd": (
        with_tensor("t", (1,), 0, bytes(64), offset=4),
        "offset 4; expected a multiple of the alignment",
        49,
    ),
    "offset-beyond": (
        with_tensor("t", (1,), 0, bytes(64), offset=64),
        "has offset 64, but the data section has 64",
        49,
    ),
    "offset-2^64-32": (with_tensor("t", (1,), 0, bytes(64), offset=2**64 - 32), "offset 18446744073709551584, but", 49),
    "data-cut": (with_tensor("t", (17,), 0, bytes(64)), 'tensor "t" takes 68 bytes, but the file ends 64 bytes', 49),
    "unknown-type-beyond": (with_tensor("t", (1,), 99, bytes(64), offset=64), "has offset 64, but the data", 49),
    # 11: tensor names
    "tensor-name-twice": (
        gb.File(tensors=[f32("b", 1.0), f32("a", 1.0), f32("b", 1.0)]),
        'the tensor name "b" occurs twice, as number 0 and 2',
        24 + 2 * 33 + 8,
    ),
    # 12: overlap
    "overlap-same-place": (
        gb.File(tensors=[f32("a", 1.0), f32("b", 1.0, offset=0)]),
        "both have offset 0",
        24 + 33 + 25,
    ),
    "overlap-partly": (
        gb.File(tensors=[f32("b", *range(9), offset=0), f32("a", 1.0, offset=32)]),
        '"b" and "a" overlap: the second begins 32 bytes after the first, which takes 36',
        24 + 33 + 25,
    ),
    "overlap-with-unknown": (
        gb.File(tensors=[f32("a", *range(9)), gb.Tensor("b", (1,), 99, bytes(4), offset=32)]),
        '"a" and "b" overlap',
        24 + 33 + 25,
    ),
    # 13: the padding before the data section
    "data-section-missing": (
        bytes(with_tensor("t", (1,), 0))[:57],
        "ends before its data section, which begins at byte 64",
        57,
    ),
}


@pytest.mark.parametrize(("content", "message", "offset"), REFUSED.values(), ids=REFUSED)
def test_refused_with_position_and_reason(refused, content, message, offset):
    error = refused(content)
    assert message in str(error)
    assert error.offset == offset
    assert str(error).startswith(f"byte {offset}: ")


def test_message_names_are_short_and_printable(refused):
    name = "\x1b[31m\n" + "n" * 50
    error = refused(with_tensor(name, (1,), 0, n_dims=9))
    assert f'"?[31m?{"n" * 50}"' in str(error)
    error = refused(with_kv(gb.raw_kv("k" * 500, 13, b"")))
    assert f'"{"k" * 64}..."' in str(error)


def test_limits_are_inclusive(write):
    kvs = [gb.kv("k" * 65535, gb.U8, 1), *(gb.kv(f"{i}", gb.U8, 0) for i in range(65535))]
    with GGUFReader(write(gb.File(kvs=kvs, tensors=[f32("n" * 63, 1.0)])), strict=True) as reader:
        assert len(reader.metadata) == 65536
        assert reader.metadata["k" * 65535] == 1
        assert "n" * 63 in reader.tensors


def test_many_tensors_with_alike_names(write):
    # Every name shares 58 bytes with all others, in descending order: look-ups and the check for duplicates stay quick.
    tensors = [f32(f"{'n' * 58}{i:05d}", i) for i in reversed(range(20000))]
    file = bytes(gb.File(tensors=tensors))
    begin = time.perf_counter()
    with GGUFReader(write(file)) as reader:
        assert reader.tensors[f"{'n' * 58}{12345:05d}"].item() == 12345
        assert len(reader.infos) == 20000
    assert time.perf_counter() - begin < 5


def test_array_of_more_than_2_30_elements(write):
    path = write(gb.File(kvs=[gb.raw_kv("a", gb.ARRAY, gb.array(gb.U8, [], 2**30 + 1))]))
    os.truncate(path, 2**31)  # a hole: takes no space
    with pytest.raises(GGUFError, match='byte 41: key "a" holds 1073741825 elements; this reader takes 1073741824'):
        GGUFReader(path)


def test_string_longer_than_an_int32_counts(write):
    tail = gb.string("last")
    length = 2**31 + 5
    path = write(gb.File(kvs=[gb.raw_kv("a", gb.ARRAY, gb.u32(gb.STRING) + gb.u64(2) + gb.u64(length))]))
    start = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start + length)
        file.write(tail)
    with GGUFReader(path) as reader:
        kv = lib.bnc_gguf_kv_at(reader.handle, 0)
        offsets, lengths = ffi.new("uint64_t[2]"), ffi.new("uint64_t[2]")
        lib.bnc_gguf_kv_strings(kv, offsets, lengths)
        assert list(offsets) == [8, 8 + length + 8]
        assert list(lengths) == [length, 4]


def test_unknown_type_ids_are_listed_and_fail_only_when_read(write):
    tensors = [f32("a", 1.0), gb.Tensor("b", (7, 3), 38, bytes(40)), gb.Tensor("c", (5,), 2**32 - 1, bytes(8))]
    path = write(gb.File(tensors=[*tensors, f32("d", 4.0)]))
    with GGUFReader(path) as reader:
        info = reader.info("b")
        assert (info.dtype, info.gguf_type, info.shape, info.nbytes) == (None, 38, (3, 7), 0)
        assert info.offset == reader.info("a").offset + 32
        assert reader.info("c").gguf_type == 2**32 - 1
        assert reader.tensors["d"].item() == 4.0
        with pytest.raises(GGUFError, match="tensor 'b' has type id 38, which this library does not know"):
            reader.tensors["b"]
    with pytest.raises(GGUFError, match='"b" has type id 38, whose size is not known; strict mode expects known ids'):
        GGUFReader(path, strict=True)


def test_booleans_other_than_0_and_1(write):
    kvs = [gb.raw_kv("one", gb.BOOL, b"\2"), gb.raw_kv("many", gb.ARRAY, gb.u32(gb.BOOL) + gb.u64(3) + b"\0\xff\1")]
    path = write(gb.File(kvs=kvs))
    with GGUFReader(path) as reader:
        assert reader.metadata["one"] is True
        assert reader.metadata["many"].tolist() == [False, True, True]
    with pytest.raises(GGUFError, match='byte 39: a boolean of key "one" is 2; strict mode expects 0 or 1'):
        GGUFReader(path, strict=True)
    path = write(gb.File(kvs=kvs[1:]))
    with pytest.raises(GGUFError, match='byte 53: a boolean of key "many" is 255'):
        GGUFReader(path, strict=True)


def test_strict_demands_tensors_in_sequence(write):
    path = write(gb.File(tensors=[f32("a", 1.0, offset=32), f32("b", 2.0, offset=0)]))
    with GGUFReader(path) as reader:
        assert reader.tensors["b"].item() == 1.0
    with pytest.raises(GGUFError, match='byte 49: tensor "a" has offset 32; strict mode expects 0'):
        GGUFReader(path, strict=True)
    gap = bytes(gb.File(tensors=[f32("a", 1.0), f32("b", 2.0, offset=64)])) + bytes(32)
    with pytest.raises(GGUFError, match='"b" has offset 64; strict mode expects 32, the padded end'):
        GGUFReader(write(gap), strict=True)


# ---- what is refused: faults that other readers had ----


def strings_kv(count):
    return gb.raw_kv("a", gb.ARRAY, gb.u32(gb.STRING) + gb.u64(count))


# Known parser bugs. The rows about hyper-parameters and token ids are in the tests of model and tokenizer.
KNOWN_FAULTS = {
    "CVE-2024-21802 five dimensions": with_tensor("t", (1,) * 5, 0, bytes(32)),
    "CVE-2024-21802 2^31 dimensions": with_tensor("t", (1,), 0, bytes(32), n_dims=2**31),
    "CVE-2024-21825 array of 2^61": with_kv(gb.raw_kv("a", gb.ARRAY, gb.array(gb.U64, [1], 2**61))),
    "CVE-2024-21825 array of 2^63": with_kv(gb.raw_kv("a", gb.ARRAY, gb.array(gb.U16, [1], 2**63))),
    "CVE-2024-21836 2^61 tensors": header(n_tensors=2**61),
    "CVE-2024-21836 2^63 tensors": header(n_tensors=2**63),
    "CVE-2024-23605 2^61 keys": header(n_kv=2**61),
    "CVE-2024-23605 2^63 keys": header(n_kv=2**63),
    "CVE-2024-23496 key of 2^64-1": with_kv(gb.raw_kv("a", gb.U8, b"\1", key_length=2**64 - 1)),
    "CVE-2024-23496 string of 2^64-1": with_kv(gb.raw_kv("a", gb.STRING, gb.string("x", 2**64 - 1))),
    "CVE-2024-23496 name of 2^64-1": with_tensor("t", (1,), 0, bytes(32), name_length=2**64 - 1),
    "CVE-2025-53630 sum of sizes": gb.File(tensors=[gb.Tensor(name, (2**62, 1), 0, bytes(32)) for name in "ab"]),
    "CVE-2025-53630 sum of sizes in bytes": gb.File(
        tensors=[gb.Tensor(name, (2**63 - 1,), 24, bytes(32)) for name in "ab"]
    ),
    "llama.cpp issue 15711 tensors times overhead": header(n_tensors=2**64 // 368 + 1),
    "CVE-2025-49847 token of 2^31": with_kv(gb.raw_kv("a", gb.ARRAY, gb.array(gb.STRING, [], 1) + gb.u64(2**31))),
    "CVE-2026-33298 strides": with_tensor("t", (2**62, 4), 24, bytes(32)),
    "CVE-2026-33298 bytes": with_tensor("t", (2**60, 4), 0, bytes(32)),
    "CVE-2026-27940 strings of 2^62": with_kv(strings_kv(2**62)),
    "CVE-2026-27940 negative type id": with_kv(gb.raw_kv("a", 2**32 - 9, bytes(64))),
    "CVE-2026-27940 alignment": with_kv(gb.kv("general.alignment", gb.U32, 48)),
    "CVE-2026-27940 duplicate key": with_kv(gb.kv("a", gb.U8, 1), gb.kv("a", gb.U8, 2)),
    "PR 26318 padding wraps": with_kv(gb.kv("general.alignment", gb.U32, 2**31)),
    "PR 26318 alignment is u64": with_kv(gb.kv("general.alignment", gb.U64, 2**63)),
    "PR 26318 alignment is a string": with_kv(gb.kv("general.alignment", gb.STRING, "32")),
    "CVE-2026-7482 more elements than data": with_tensor("t", (1024, 1024), 1, bytes(2048)),
    "PyPI gguf array of 2^63 bytes": gb.File(kvs=[gb.raw_kv("a", gb.ARRAY, gb.u32(gb.U8) + gb.u64(2**63))]),
    "PyPI gguf array of 2^63 strings": gb.File(kvs=[strings_kv(2**63)]),
    "ik_llama.cpp alignment 0": with_kv(gb.kv("general.alignment", gb.U32, 0)),
    "ik_llama.cpp value type": with_kv(gb.raw_kv("a", 200, bytes(64))),
    "bitnet.c alignment 24": with_kv(gb.kv("general.alignment", gb.U32, 24)),
    "bitnet.c duplicate tensor": gb.File(tensors=[f32("a", 1.0), f32("a", 2.0)]),
    "bitnet.c nested array": with_kv(gb.raw_kv("a", gb.ARRAY, gb.u32(gb.ARRAY) + gb.u64(1) + gb.array(gb.U8, [1]))),
    "eabitnet counts": header(n_tensors=2**40, n_kv=2**40),
}


@pytest.mark.parametrize("content", KNOWN_FAULTS.values(), ids=KNOWN_FAULTS)
def test_faults_that_other_readers_had(refused, content):
    assert refused(content).offset is not None


def test_element_types_are_those_of_the_file(write):
    # PR 26690: scores were read as float32 whatever their type and length; here whoever asks is told both.
    kvs = [
        gb.array_kv("tokenizer.ggml.scores", gb.I8, [1, 2, 3]),
        gb.array_kv("tokenizer.ggml.token_type", gb.U16, [1]),
    ]
    with GGUFReader(write(gb.File(kvs=kvs))) as reader:
        scores, token_type = reader.metadata.values()
        assert (scores.dtype, scores.shape) == (np.int8, (3,))
        assert (token_type.dtype, token_type.shape) == (np.uint16, (1,))


BOUNDED = """
import resource, sys, time
from bitnet_core.gguf import GGUFReader, GGUFError
limit = 2**29 + resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
begin = time.perf_counter()
for mmap in (True, False):
    try:
        GGUFReader(sys.argv[1], mmap=mmap)
    except GGUFError as error:
        message = str(error)
print(time.perf_counter() - begin, message)
"""


@linux_only
@pytest.mark.parametrize("elem_type", [gb.U8, gb.STRING, gb.BOOL, gb.U64])
def test_tiny_file_with_a_huge_array_fails_at_once(write, elem_type):
    content = bytes(gb.File(kvs=[gb.raw_kv("", gb.ARRAY, gb.u32(elem_type) + gb.u64(2**63))]))
    content = content[:24] + gb.string("a") + content[32:]
    seconds, message = run_python(BOUNDED, write(content)).split(" ", 1)
    assert float(seconds) < 1
    assert "claims 9223372036854775808 elements" in message


# ---- what the operating system refuses ----


def test_missing_file(tmp_path):
    path = tmp_path / "no.gguf"
    with pytest.raises(FileNotFoundError) as caught:
        GGUFReader(path)
    assert caught.value.filename == str(path)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("mmap", [True, False])
def test_directory(tmp_path, mmap):
    with pytest.raises(IsADirectoryError) as caught:
        GGUFReader(tmp_path, mmap=mmap)
    assert caught.value.filename == str(tmp_path)


def test_fifo_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    code = """
import sys
from bitnet_core.gguf import GGUFReader
try:
    GGUFReader(sys.argv[1])
except OSError as error:
    print(error)
"""
    assert "expected a regular file, not a pipe, socket or device" in run_python(code, path)


def test_device():
    with pytest.raises(OSError, match="expected a regular file") as caught:
        GGUFReader("/dev/zero")
    assert caught.value.errno == errno.EINVAL


def test_unreadable_file(write):
    path = write(MINI.read_bytes())
    path.chmod(0)
    nobody = 65534
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(nobody)  # root may read everything
    try:
        with pytest.raises(PermissionError) as caught:
            GGUFReader(path)
    finally:
        if is_root:
            os.seteuid(0)
    assert caught.value.filename == str(path)


def test_link_to_itself(tmp_path):
    path = tmp_path / "loop.gguf"
    path.symlink_to(path)
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.ELOOP))):
        GGUFReader(path)


def test_path_with_a_nul_is_not_cut_at_it(tmp_path):
    with pytest.raises(ValueError, match="contains a NUL character"):
        GGUFReader(f"{MINI}\0{tmp_path}")


@linux_only  # other systems demand UTF-8
def test_path_of_any_bytes(tmp_path):
    path = tmp_path / os.fsdecode("mödel \udcff.gguf".encode("utf-8", "surrogateescape"))
    path.write_bytes(MINI.read_bytes())
    with GGUFReader(str(path)) as reader:
        assert reader.path == path


def test_descriptor_is_closed_at_once():
    count = psutil.Process().num_fds()
    with GGUFReader(MINI):
        assert psutil.Process().num_fds() == count
    with pytest.raises(GGUFError):
        GGUFReader(__file__)
    assert psutil.Process().num_fds() == count


@linux_only
def test_no_address_space(write):
    path = write(b"GGUF")
    os.truncate(path, 2**33)  # a hole: takes no space
    code = BOUNDED.replace("except GGUFError as error:", "except (OSError, MemoryError) as error:").replace(
        "message = str(error)", "message = globals().get('message', '') + f'{type(error).__name__} {error} '"
    )
    output = run_python(code, path)
    assert f"OSError [Errno 12] Cannot allocate memory (mmap): '{path}'" in output
    assert "MemoryError could not allocate 8589934592 bytes" in output


# ---- type id 36 ----

# Shapes for which the formats' sizes, exact and padded, differ from each other.
SHAPES_OF_36 = [(1024, 9), (256, 40), (2560, 4), (128, 96), (6912, 2)]


@pytest.mark.parametrize("then", [True, False], ids=["followed", "last"])
@pytest.mark.parametrize("shape", SHAPES_OF_36)
@pytest.mark.parametrize("dtype", ["i2_s", "bitnet32"])
@pytest.mark.parametrize("alignment", [32, 256])
def test_36_is_told_by_its_exact_size(write, dtype, shape, then, alignment):
    ne0, n_rows = shape
    nbytes = gb.SIZES_OF_36[dtype](ne0, n_rows)
    with GGUFReader(write(file_of_36(ne0, n_rows, nbytes, then=then, alignment=alignment))) as reader:
        assert reader.info("w") == TensorInfo("w", dtype, 36, (n_rows, ne0), reader.info("w").offset, nbytes)
        assert reader.tensors["w"].shape == (nbytes,)


@pytest.mark.parametrize("ne0", [1024, 300])
@pytest.mark.parametrize("then", [True, False], ids=["followed", "last"])
def test_36_that_could_be_qk256_is_not_guessed(write, ne0, then):
    nbytes = gb.SIZES_OF_36["qk256"](ne0, 5)
    path = write(file_of_36(ne0, 5, nbytes, then=then))
    with pytest.raises(GGUFError, match=rf'{nbytes} bytes that qk256 takes.*ambiguous; say dtype="qk256"') as caught:
        GGUFReader(path)
    assert caught.value.offset == path.read_bytes().index(gb.u32(36) + gb.u64(0))
    with GGUFReader(path, dtype="qk256") as reader:
        assert (reader.info("w").dtype, reader.info("w").nbytes) == ("qk256", nbytes)


def test_36_is_qk256_where_the_file_says_so(write):
    key = "bitnet_core.qk256"
    nbytes = gb.SIZES_OF_36["qk256"](300, 5)
    with GGUFReader(write(file_of_36(300, 5, nbytes, kvs=[gb.kv(key, gb.BOOL, value=True)]))) as reader:
        assert reader.info("w").dtype == "qk256"
    with pytest.raises(GGUFError, match="ambiguous"):
        GGUFReader(write(file_of_36(300, 5, nbytes, kvs=[gb.kv(key, gb.BOOL, value=False)])))
    with pytest.raises(GGUFError, match=r"bitnet_core.qk256 has value type 8; expected 7 \(bool\)"):
        GGUFReader(write(file_of_36(300, 5, nbytes, kvs=[gb.kv(key, gb.STRING, "true")])))
    # The caller's word counts more than the file's, and both more than the size.
    i2_s = write(file_of_36(1024, 4, 1024 + 32, kvs=[gb.kv(key, gb.BOOL, value=True)]))
    with GGUFReader(i2_s) as reader:
        assert (reader.info("w").dtype, reader.info("w").nbytes) == ("qk256", 1024)
    with GGUFReader(i2_s, dtype="i2_s") as reader:
        assert (reader.info("w").dtype, reader.info("w").nbytes) == ("i2_s", 1056)


def test_36_of_a_size_that_fits_two_formats_is_the_published_one(write):
    assert gb.SIZES_OF_36["i2_s"](512, 1) == gb.SIZES_OF_36["bitnet32"](512, 1) == 160
    with GGUFReader(write(file_of_36(512, 1, 160))) as reader:
        assert reader.info("w").dtype == "i2_s"
    # 256 elements: i2_s takes 96 bytes, bitnet32 takes 80, which the padding before a next tensor makes 96.
    with GGUFReader(write(file_of_36(256, 1, 80))) as reader:
        assert reader.info("w").dtype == "i2_s"
    with GGUFReader(write(file_of_36(256, 1, 80, then=False))) as reader:
        assert reader.info("w").dtype == "bitnet32"
    # Padded to a large alignment, more of them look alike: 4096 elements take 1056 bytes or 1280, which is 5 * 256.
    for dtype in ("i2_s", "bitnet32"):
        with GGUFReader(write(file_of_36(1024, 4, gb.SIZES_OF_36[dtype](1024, 4), alignment=256))) as reader:
            assert (reader.info("w").dtype, reader.info("w").nbytes) == ("i2_s", 1056)


@pytest.mark.parametrize("surplus", [32, 64, 96, 128])
def test_36_of_no_exact_size_is_refused_without_tolerance(write, surplus):
    path = write(file_of_36(2048, 64, 32800 + surplus))
    message = (
        f'tensor "w" has type id 36, which several formats share, and none fits its {32800 + surplus} bytes exactly '
        "(i2_s takes 32800, bitnet32 takes 40960, qk256 takes 32768): say dtype= to choose one"
    )
    with pytest.raises(GGUFError, match=re.escape(message)):
        GGUFReader(path)
    with GGUFReader(path, dtype="i2_s") as reader:
        assert reader.info("w").nbytes == 32800


def test_36_formats_that_do_not_divide_are_no_candidates(write):
    with pytest.raises(GGUFError, match=r"\(i2_s does not divide, bitnet32 does not divide, qk256 takes 64\)"):
        GGUFReader(write(file_of_36(33, 1, 96)))
    with GGUFReader(write(file_of_36(96, 1, 30, then=False))) as reader:  # 96 is no multiple of 128
        assert reader.info("w").dtype == "bitnet32"


@pytest.mark.parametrize("dtype", gb.SIZES_OF_36)
def test_36_as_the_caller_says(write, dtype):
    nbytes = gb.SIZES_OF_36[dtype](1024, 8)
    with GGUFReader(write(file_of_36(1024, 8, nbytes)), dtype=dtype) as reader:
        assert (reader.info("w").dtype, reader.info("w").nbytes) == (dtype, nbytes)
        assert reader.info("norm").dtype == "f32"
    with pytest.raises(GGUFError, match=rf"takes {nbytes} bytes, but the file ends {nbytes - 1} bytes"):
        GGUFReader(write(file_of_36(1024, 8, nbytes - 1, then=False)), dtype=dtype)


def test_36_as_the_caller_says_must_still_fit(write):
    with pytest.raises(GGUFError, match='tensor "w": i2_s packs 128 elements at a time'):
        GGUFReader(write(file_of_36(96, 1, 64)), dtype="i2_s")
    with pytest.raises(GGUFError, match='"w" and "norm" overlap'):
        GGUFReader(write(file_of_36(1024, 8, 2048)), dtype="bitnet32")


def test_dtype_may_be_an_enum_member_and_must_be_a_choice():
    class Named:
        value = "i2_s"

    with GGUFReader(MINI, dtype=Named()) as reader:
        assert reader.info("w").dtype == "i2_s"
    for dtype in ("f16", "tq2_0", "nothing", 36):
        with pytest.raises(ValueError, match="choices: i2_s, i2_s_64, i2_s_row4, qk256, bitnet32"):
            GGUFReader(MINI, dtype=dtype)


def test_options_of_the_c_function_are_checked():
    for dtype in (-2, 0, 10**6):
        err, out = ffi.new("bnc_error *"), ffi.new("bnc_gguf **")
        options = ffi.new("bnc_gguf_options *", {"use_mmap": 1, "dtype_of_36": dtype})
        assert lib.bnc_gguf_open(bytes(MINI), options, out, err) == lib.BNC_ERR_ARGUMENT
        assert out[0] == ffi.NULL


# ---- parts of a split model ----


def shard(no, count, key_type=gb.U16):
    kvs = [gb.kv("split.no", key_type, no), gb.kv("split.count", key_type, count)]
    return gb.File(kvs=[*kvs, gb.kv("split.tensors.count", gb.I32, 9)], tensors=[f32("a", 1.0)])


@pytest.mark.parametrize("key_type", [gb.U16, gb.U32, gb.I32, gb.U64])
def test_a_part_says_which_others_are_missing(write, key_type):
    write(b"", "m-00003-of-00004.gguf")
    path = write(shard(1, 4, key_type), "m-00002-of-00004.gguf")
    with pytest.raises(
        ShardedFileError, match=r"is part 2 of 4 of a split model; beside it are missing: m-00001"
    ) as caught:
        GGUFReader(path)
    assert caught.value.missing == ("m-00001-of-00004.gguf", "m-00004-of-00004.gguf")


def test_many_missing_parts_are_counted(write):
    with pytest.raises(ShardedFileError, match=r"m-00009-of-00300\.gguf and 291 more\. ") as caught:
        GGUFReader(write(shard(0, 300), "m-00001-of-00300.gguf"))
    assert len(caught.value.missing) == 299


def test_a_part_whose_siblings_are_there_must_be_merged(write):
    write(shard(0, 2), "m-00001-of-00002.gguf")
    path = write(shard(1, 2), "m-00002-of-00002.gguf")
    with pytest.raises(ShardedFileError, match=r"Merge them first: llama-gguf-split --merge m-00001-of-") as caught:
        GGUFReader(path)
    assert caught.value.missing == ()


@pytest.mark.parametrize("name", ["m.gguf", "m-00001-of-00002.gguf", "m-00002-of-00003.gguf", "m-2-of-2.gguf"])
def test_a_part_under_another_name(write, name):
    with pytest.raises(
        ShardedFileError, match="part 2 of 2 of a split model, but its name is not PREFIX-00002-of-00002"
    ):
        GGUFReader(write(shard(1, 2), name))


def test_a_part_of_one_is_whole(write):
    with GGUFReader(write(shard(0, 1), "m-00001-of-00001.gguf")) as reader:
        assert reader.tensors["a"].item() == 1.0


@pytest.mark.parametrize(
    ("kvs", "message"),
    [
        ([gb.kv("split.count", gb.STRING, "2")], "split.count is '2'; expected a whole number up to 65535"),
        ([gb.kv("split.count", gb.BOOL, value=True)], "split.count is True; expected"),
        ([gb.kv("split.count", gb.U64, 2**63)], "split.count is 9223372036854775808; expected"),
        ([gb.kv("split.count", gb.I32, -2)], "split.count is -2; expected"),
        ([gb.array_kv("split.count", gb.U16, [2])], "expected a whole number"),
        ([gb.kv("split.count", gb.U16, 2), gb.kv("split.no", gb.U16, 2)], "split.no is 2, but split.count is 2"),
        ([gb.kv("split.count", gb.U16, 2), gb.kv("split.no", gb.F32, 1)], "split.no is 1.0; expected"),
    ],
)
def test_unsound_split_keys(write, kvs, message):
    with pytest.raises(GGUFError, match=re.escape(message)):
        GGUFReader(write(gb.File(kvs=kvs)))


# ---- the life of views ----


def is_mapped(path):
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("mmap", [True, False])
def test_views_are_read_only_for_good(mmap):
    with GGUFReader(TINY_A, mmap=mmap) as reader:
        for name in ("blk.0.attn_norm.weight", "blk.0.attn_q.weight", "token_embd.weight"):
            view = reader.tensors[name]
            for array in (view, view[1:], view.reshape(-1), view.view(np.uint8), np.asarray(view), view.T):
                assert not array.flags.writeable
                assert not array.flags.owndata
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.flags.writeable = True
                with pytest.raises(ValueError, match="read-only"):
                    array[0] = 0
            assert memoryview(view).readonly
            del view, array


def test_views_copy_nothing():
    with GGUFReader(TINY_A) as reader:
        one, two = reader.tensors["token_embd.weight"], reader.tensors["token_embd.weight"]
        assert one is not two
        assert one.ctypes.data == two.ctypes.data
        assert np.shares_memory(one, two)
        del one, two


def test_close_with_live_views_names_them_and_leaves_the_reader_usable():
    reader = GGUFReader(TINY_A)
    view = reader.tensors["output_norm.weight"]
    rows = reader.tensors["token_embd.weight"][3:5]
    flat = rows.reshape(-1)
    del rows
    with pytest.raises(LiveViewsError, match=r"2 arrays or models use it \(output_norm.weight, token_embd.weight\)"):
        reader.close()
    assert not reader.closed
    assert reader.metadata["general.architecture"] == "bitnet-b1.58"
    del view
    with pytest.raises(LiveViewsError, match=r"1 arrays or models use it \(token_embd.weight\)"):
        reader.close()
    buffer = memoryview(flat)
    del flat
    with pytest.raises(LiveViewsError):
        reader.close()
    del buffer
    reader.close()
    reader.close()
    assert reader.closed


def test_closed_reader_raises_value_error():
    reader = GGUFReader(MINI)
    metadata, tensors = reader.metadata, reader.tensors
    reader.close()
    for use in (
        lambda: reader.handle,
        lambda: reader.infos,
        lambda: reader.info("w"),
        lambda: metadata["general.alignment"],
        lambda: metadata.get("general.alignment"),
        lambda: "general.alignment" in metadata,
        lambda: list(reader.metadata),
        lambda: len(metadata),
        lambda: tensors["w"],
        lambda: "w" in tensors,
        lambda: list(tensors),
        lambda: len(reader.tensors),
        lambda: reader.hold("a test"),
        reader.__enter__,
    ):
        with pytest.raises(ValueError, match=r"the reader of '.*mini.gguf' is closed"):
            use()
    assert reader.size == 224


def test_holds_count_as_live_until_released():
    reader = GGUFReader(MINI)
    hold = reader.hold("the model")
    with reader.hold("a benchmark") as second:
        assert second.handle == reader.handle
        with pytest.raises(LiveViewsError, match=r"2 arrays or models use it \(a benchmark, the model\)"):
            reader.close()
    with pytest.raises(LiveViewsError, match="the model"):
        reader.close()
    hold.release()
    hold.release()
    third = reader.hold("another")
    del third
    reader.close()


def test_end_of_a_with_block():
    with pytest.raises(LiveViewsError), GGUFReader(MINI) as reader:
        view = reader.tensors["w"]
    del view
    reader.close()

    def fail_with_a_view(reader):
        view = reader.tensors["w"]
        raise RuntimeError(f"{view.size}")

    # The frame of fail_with_a_view lives as long as its exception, and that is the one to see.
    reader = GGUFReader(MINI)
    with pytest.raises(RuntimeError, match="64"), reader:
        fail_with_a_view(reader)


@linux_only
def test_mapping_lives_as_long_as_its_last_view(write):
    path = write(TINY_A.read_bytes())
    gc.disable()  # reference counts alone must do
    try:
        reader = GGUFReader(path)
        view = reader.tensors["output_norm.weight"][1:]
        expected = view.copy()
        gone = weakref.ref(reader)
        del reader
        assert gone() is None
        assert is_mapped(path)
        np.testing.assert_array_equal(view, expected)
        del view
        assert not is_mapped(path)
        reader = GGUFReader(path)
        assert is_mapped(path)
        reader.close()
        assert not is_mapped(path)
        reader = GGUFReader(path)
        del reader
        assert not is_mapped(path)
        with pytest.raises(ShardedFileError):
            GGUFReader(write(shard(1, 2), "shard"))
        assert not is_mapped(path.with_name("shard"))
    finally:
        gc.enable()


@linux_only
def test_file_is_not_mapped_when_read_into_memory(write):
    path = write(MINI.read_bytes())
    with GGUFReader(path, mmap=False) as reader:
        path.write_bytes(b"")  # would be a SIGBUS at the next access if it were
        assert bytes(reader.tensors["w"]) == MINI.read_bytes()[160:]


def test_threads_read_at_once_while_one_tries_to_close():
    reader = GGUFReader(TINY_A)
    expected = {name: view.tobytes() for name, view in reader.tensors.items()}
    tokens = reader.metadata["tokenizer.ggml.tokens"]
    barrier, failures = threading.Barrier(5), []

    def read(seed):
        try:
            barrier.wait()
            for name in np.random.default_rng(seed).permutation(list(expected)).tolist():
                assert reader.tensors[name].tobytes() == expected[name]
                assert reader.metadata["tokenizer.ggml.tokens"] == tokens
        except Exception as error:  # noqa: BLE001  # reported below, in the main thread
            failures.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    while any(thread.is_alive() for thread in threads):
        hold = reader.hold("the main thread")
        with pytest.raises(LiveViewsError):
            reader.close()
        hold.release()
    assert failures == []
    reader.close()


def test_close_during_reads_by_threads_never_pulls_the_file_away():
    for _ in range(20):
        reader = GGUFReader(MINI)
        outcomes = []

        def read(reader=reader, outcomes=outcomes):
            try:
                while True:
                    outcomes.append(reader.tensors["w"][0] == 0xA6 and reader.metadata["general.alignment"] == 32)
                    time.sleep(1e-4)  # or there is always a hold
            except ValueError as error:
                outcomes.append("is closed" in str(error))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not reader.closed:
            with contextlib.suppress(LiveViewsError):
                reader.close()
        for thread in threads:
            thread.join()
        assert len(outcomes) >= 3
        assert all(outcomes)


def test_close_waits_for_a_read_on_another_thread():
    reader = GGUFReader(MINI)
    reading, go_on, failures = threading.Event(), threading.Event(), []

    def read():
        with reader._reading():
            reading.set()
            go_on.wait()

    def close():
        try:
            reader.close()
        except LiveViewsError as error:
            failures.append(error)

    threads = [threading.Thread(target=read), threading.Thread(target=close)]
    threads[0].start()
    reading.wait()
    threads[1].start()
    threads[1].join(0.05)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert reader.closed


# ---- memory ----

ANONYMOUS = """
import sys
from bitnet_core.gguf import GGUFReader
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
GGUFReader(sys.argv[1]).close()
before = anonymous()
reader = GGUFReader(sys.argv[2])
opened = anonymous() - before
tokens, merges = reader.metadata["tokenizer.ggml.tokens"], reader.metadata["tokenizer.ggml.merges"]
print(opened, anonymous() - before, len(tokens), tokens[-1], len(merges), merges[-1].replace(" ", "_"))
"""


@linux_only
def test_opening_a_full_vocabulary_takes_no_memory_until_asked(write):
    content = gb.vocabulary()
    assert len(content) > 8_000_000
    opened, decoded, *rest = run_python(ANONYMOUS, MINI, write(content)).split()
    assert int(opened) < 2048  # KiB
    assert int(decoded) > 10_000
    assert rest == ["128256", "token128255", "280147", "146_280146"]


# ---- any bytes at all ----

MIXED = bytes(
    gb.File(
        kvs=[
            gb.kv("general.alignment", gb.U32, 32),
            gb.array_kv("tokens", gb.STRING, ["a", "bc", ""]),
            gb.array_kv("scores", gb.F32, [1.0, 2.0]),
            gb.kv("flag", gb.BOOL, value=True),
            gb.kv("name", gb.STRING, "mixed"),
        ],
        tensors=[
            gb.Tensor("w", (128, 2), 36, bytes(96)),
            f32("norm", 1.0, 2.0),
            gb.Tensor("tq", (256,), 35, bytes(66)),
            gb.Tensor("unknown", (3,), 40, bytes(3)),
        ],
    )
)


def read_everything(path, **options):
    """Open a file that may be anything; whatever opens can be read to its last byte."""
    try:
        reader = GGUFReader(path, **options)
    except GGUFError as error:
        assert error.offset is None or error.offset <= path.stat().st_size  # noqa: PT017  # success is fine, too
        return False
    with reader:
        for key, value in reader.metadata.items():
            assert key in reader.metadata
            assert value is not None
        end = 0
        for info in sorted(reader.infos, key=lambda info: info.offset):
            assert end <= info.offset <= reader.size
            end = info.offset + info.nbytes
            if info.dtype is not None:
                assert reader.tensors[info.name].nbytes == info.nbytes == len(reader.tensors[info.name].tobytes())
        assert end <= reader.size
    return True


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "fuzzed.gguf"


edits = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, 2**16), st.integers(0, 255)),
    st.tuples(st.just("u32"), st.integers(0, 2**16), st.sampled_from([0, 1, 2, 7, 8, 9, 12, 13, 36, 2**31, 2**32 - 1])),
    st.tuples(st.just("u64"), st.integers(0, 2**16), st.sampled_from([0, 1, 2, 4, 31, 32, 64, 65536, *HUGE])),
    st.tuples(st.just("cut"), st.integers(0, 2**16), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0, 2**16), st.integers(1, 64)),
    st.tuples(st.just("delete"), st.integers(0, 2**16), st.integers(1, 64)),
)


def edited(content, changes):
    content = bytearray(content)
    for kind, position, value in changes:
        at = position % (len(content) + 1)
        if kind == "byte":
            content[at : at + 1] = bytes([value])
        elif kind == "u32":
            content[at : at + 4] = gb.u32(value)
        elif kind == "u64":
            content[at : at + 8] = gb.u64(value)
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = bytes(value)
        else:
            del content[at : at + value]
    return content


@settings(max_examples=600, derandomize=True, deadline=None, database=None)
@given(
    base=st.sampled_from([MINI.read_bytes(), MIXED]),
    changes=st.lists(edits, max_size=4),
    options=st.fixed_dictionaries(
        {"mmap": st.booleans(), "strict": st.booleans(), "dtype": st.sampled_from([None, "i2_s", "qk256"])}
    ),
)
def test_edited_files_open_or_are_refused(scratch, base, changes, options):
    scratch.write_bytes(edited(base, changes))
    read_everything(scratch, **options)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(content=st.binary(max_size=300), with_magic=st.booleans())
def test_arbitrary_bytes_open_or_are_refused(scratch, content, with_magic):
    scratch.write_bytes((b"GGUF" + gb.u32(3) if with_magic else b"") + content)
    read_everything(scratch)


def test_every_single_byte_changed(scratch):
    """Also a bound on memory: thousands of refused and opened files leave nothing behind."""
    opened = 0
    process = psutil.Process()
    read_everything(MINI)
    before = process.memory_info().rss
    for base in (MINI.read_bytes(), MIXED):
        for at in range(len(base)):
            for value in {base[at] ^ 1, base[at] ^ 0x80, 0, 0xFF} - {base[at]}:
                scratch.write_bytes(base[:at] + bytes([value]) + base[at + 1 :])
                opened += read_everything(scratch)
    assert opened > 500  # changed data, names, scalar values: still sound
    assert process.memory_info().rss - before < 2**25
