"""The GGUF writer, held against the published layout and the PyPI reader."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from bitnet_core.gguf import GGUFReader
from bitnet_core.gguf_writer import GGUFWriter

MINI = Path(__file__).parent / "vectors" / "mini.gguf"


def test_minimal_file_byte_for_byte(tmp_path):
    expected = MINI.read_bytes()
    with GGUFWriter(tmp_path / "mini.gguf") as writer:
        writer.add("general.architecture", "bitnet-b1.58", "string")
        writer.add("general.alignment", 32, "u32")
        writer.add_tensor("w", (1, 128), gguf_type=36, nbytes=64)
        assert writer.file_size == 224
        writer.write_tensor("w", expected[160:])
    assert (tmp_path / "mini.gguf").read_bytes() == expected


VALUES = [
    ("u8", 255),
    ("i8", -128),
    ("u16", 65535),
    ("i16", -32768),
    ("u32", 2**32 - 1),
    ("i32", -(2**31)),
    ("f32", 1.5),
    ("u64", 2**64 - 1),
    ("i64", -(2**63)),
    ("f64", 0.1),
    ("bool", True),
    ("string", "Ġé模"),
    ("[u8]", [0, 255]),
    ("[i32]", np.array([-1, 2**31 - 1])),
    ("[f32]", np.zeros(3, np.float32)),
    ("[f64]", [1, 2.5]),
    ("[bool]", [True, False]),
    ("[string]", ["a", "", "é"]),
]


@pytest.mark.parametrize("alignment", [None, 8, 256])
def test_pypi_reader_sees_what_was_written(tmp_path, alignment):
    path = tmp_path / "all.gguf"
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 5)).astype(np.float32), rng.standard_normal((2, 3, 4)).astype(np.float16)
    with GGUFWriter(path) as writer:
        if alignment is not None:
            writer.add("general.alignment", alignment, "u32")
        for value_type, value in VALUES:
            writer.add(f"key.{value_type}", value, value_type)
        writer.add_tensor("x", x.shape, gguf_type=0, nbytes=x.nbytes)
        writer.add_tensor("y", y.shape, gguf_type=1, nbytes=y.nbytes)
        expected_size = writer.file_size
        writer.write_tensor("x", x)
        writer.write_tensor("y", (row for row in y))  # in pieces
    assert path.stat().st_size == expected_size
    reader = gguf.GGUFReader(path)
    for value_type, value in VALUES:
        found = reader.fields[f"key.{value_type}"].contents()
        assert np.array_equal(found, value), value_type
        name = value_type.strip("[]").upper()
        name = {"U": "UINT", "I": "INT", "F": "FLOAT"}[name[0]] + name[1:] if name[1:].isdigit() else name
        types = [t.name for t in reader.fields[f"key.{value_type}"].types]
        assert types == (["ARRAY", name] if value_type.startswith("[") else [name])
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert list(found) == ["x", "y"]
    assert np.array_equal(found["x"].data, x)
    assert np.array_equal(found["y"].data, y)
    assert all(tensor.data_offset % (alignment or 32) == 0 for tensor in reader.tensors)
    with GGUFReader(path, strict=True) as ours:
        assert ours.alignment == (alignment or 32)
        assert np.array_equal(ours.tensors["y"], y)


def test_file_without_tensors(tmp_path):
    with GGUFWriter(tmp_path / "empty.gguf") as writer:
        writer.add("a", [], "[u32]")
    with GGUFReader(tmp_path / "empty.gguf") as reader:
        assert list(reader.metadata) == ["a"]
        assert len(reader.tensors) == 0


@pytest.mark.parametrize(
    ("value", "value_type", "message"),
    [
        (-1, "u32", "not a u32"),
        (256, "u8", "not a u8"),
        (1.5, "i32", "not a i32"),
        (1e39, "f32", "not a f32"),
        (1, "bool", "not a bool"),
        (1, "string", "not a string"),
        (1, "int", "not one of"),
        ([1, 300], "[u8]", "more than a u8 holds"),
        ([1.5], "[u8]", "cannot hold float64"),
        ([[1]], "[u8]", "shape"),
        (["a", 1], "[string]", "not a string"),
        ([1], "[[u8]]", "not one of"),
    ],
)
def test_value_outside_its_type(tmp_path, value, value_type, message):
    writer = GGUFWriter(tmp_path / "x.gguf")
    with pytest.raises(ValueError, match=message):
        writer.add("key", value, value_type)
    writer.add("key", 1, "u8")  # the refused one left nothing behind
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "a\nb", "a\0", "x" * 65536])
def test_malformed_key(tmp_path, key):
    with pytest.raises(ValueError, match="printable bytes"):
        GGUFWriter(tmp_path / "x.gguf").add(key, 1, "u8")


@pytest.mark.parametrize(("value", "value_type"), [(0, "u32"), (48, "u32"), (4, "u32"), (32, "u64")])
def test_bad_alignment(tmp_path, value, value_type):
    with pytest.raises(ValueError, match="power of two"):
        GGUFWriter(tmp_path / "x.gguf").add("general.alignment", value, value_type)


@pytest.mark.parametrize(
    ("name", "shape", "nbytes", "message"),
    [
        ("", (1,), 4, "1 to 63 bytes"),
        ("é" * 32, (1,), 4, "1 to 63 bytes"),
        ("a\0b", (1,), 4, "without NUL"),
        ("w", (), 4, "dimensions"),
        ("w", (1, 1, 1, 1, 1), 4, "dimensions"),
        ("w", (2, 0), 4, "dimensions"),
        ("w", (1,), 0, "nbytes"),
        ("there", (1,), 4, "twice"),
    ],
)
def test_malformed_tensor(tmp_path, name, shape, nbytes, message):
    writer = GGUFWriter(tmp_path / "x.gguf")
    writer.add_tensor("there", (1,), gguf_type=0, nbytes=4)
    with pytest.raises(ValueError, match=message):
        writer.add_tensor(name, shape, gguf_type=0, nbytes=nbytes)


def test_duplicate_key(tmp_path):
    writer = GGUFWriter(tmp_path / "x.gguf")
    writer.add("key", 1, "u8")
    with pytest.raises(ValueError, match="'key' is added twice"):
        writer.add("key", 2, "u8")


def two_tensors(path):
    writer = GGUFWriter(path)
    writer.add_tensor("a", (8,), gguf_type=0, nbytes=32)
    writer.add_tensor("b", (8,), gguf_type=0, nbytes=32)
    return writer


def test_tensors_come_in_turn(tmp_path):
    with two_tensors(tmp_path / "x.gguf") as writer:
        with pytest.raises(ValueError, match="'b' is out of turn; next is: 'a'"):
            writer.write_tensor("b", bytes(32))
        writer.write_tensor("a", bytes(32))
        with pytest.raises(ValueError, match="before the first tensor"):
            writer.add("late", 1, "u8")
        with pytest.raises(ValueError, match="before the first tensor"):
            writer.add_tensor("late", (1,), gguf_type=0, nbytes=4)
        writer.write_tensor("b", bytes(32))
        with pytest.raises(ValueError, match="all are written"):
            writer.write_tensor("a", bytes(32))
    assert (tmp_path / "x.gguf").stat().st_size == writer.file_size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(31), "31 of the declared 32"),
        (bytes(33), "more than the declared 32"),
        ([bytes(16), bytes(8)], "24 of"),
        (iter([bytes(32), bytes(1)]), "more than"),
    ],
)
def test_wrong_number_of_bytes(tmp_path, data, message):
    writer = two_tensors(tmp_path / "x.gguf")
    with pytest.raises(ValueError, match=message):
        writer.write_tensor("a", data)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        writer.write_tensor("a", bytes(32))


def test_missing_tensor(tmp_path):
    writer = two_tensors(tmp_path / "x.gguf")
    writer.write_tensor("a", bytes(32))
    with pytest.raises(ValueError, match="'b' was declared but not written"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_the_old_file(tmp_path):
    def chunks():
        yield bytes(16)
        raise KeyboardInterrupt

    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), two_tensors(path) as writer:
        writer.write_tensor("a", chunks())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=100))
    writer = two_tensors(tmp_path / "x.gguf")
    with pytest.raises(OSError, match=r"needs 0\.0 MiB, the disk has 0\.0 MiB free"):
        writer.write_tensor("a", bytes(32))
    assert list(tmp_path.iterdir()) == []
