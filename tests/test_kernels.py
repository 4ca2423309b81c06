"""Integer kernels against numpy's int64, at every level; and the table of kernels."""

import numpy as np
import pytest
from small_model import qk256

from bitnet_core import dtypes, kernels

N_THREADS = (1, 2, 3)


def random_codes(dtype, n_rows, ne0, seed=0):
    """Packed bytes, and the values they stand for."""
    rng = np.random.default_rng(seed)
    if dtype == "qk256":
        values = rng.choice(np.array([-2, -1, 1, 2]), (n_rows, ne0))
        return np.frombuffer(qk256(values), np.uint8), values
    values = rng.integers(-1, 2, (n_rows, ne0))
    return dtypes.quantize(values.astype(np.float32), dtype, scale=1.0, isa="scalar"), values


def product(values, q):
    return (q.astype(np.int64) @ values.T.astype(np.int64)).astype(np.int32)


@pytest.mark.parametrize("dtype", ["i2_s", "qk256"])
@pytest.mark.parametrize("ne0", [128, 256, 384, 2560, 6912, 8192])
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5, 16])
def test_matmul_is_the_integer_product(isa, dtype, ne0, n_tokens):
    packed, values = random_codes(dtype, 13, ne0)
    q = np.random.default_rng(1).integers(-128, 128, (n_tokens, ne0), dtype=np.int8)
    for n_threads in N_THREADS:
        y = kernels.matmul(packed, dtype, 13, q, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(y, product(values, q))


@pytest.mark.parametrize("ne0", [1, 3, 100, 255, 257, 700])
def test_matmul_of_padded_rows(isa, ne0):
    packed, values = random_codes("qk256", 6, ne0)
    q = np.random.default_rng(2).integers(-127, 128, (3, ne0), dtype=np.int8)
    np.testing.assert_array_equal(kernels.matmul(packed, "qk256", 6, q, isa=isa), product(values, q))
    np.testing.assert_array_equal(kernels.matmul(packed, "qk256", 6, q[0], isa=isa), product(values, q[:1])[0])


@pytest.mark.parametrize(("dtype", "value"), [("i2_s", 1), ("i2_s", -1), ("qk256", 2), ("qk256", -2)])
@pytest.mark.parametrize("activation", [127, -128])
@pytest.mark.parametrize("n_tokens", [1, 4])
def test_sums_of_the_largest_magnitude_do_not_wrap(isa, dtype, value, activation, n_tokens):
    """What wraps the int16 sums of bitnet.cpp's AVX2 kernel: every product at its largest, 4096 columns and more."""
    ne0 = 8192
    fill = {("i2_s", 1): 0xAA, ("i2_s", -1): 0x00, ("qk256", 2): 0xFF, ("qk256", -2): 0x00}[dtype, value]
    packed = np.full(dtypes.nbytes(dtype, (5, ne0)), fill, np.uint8)
    q = np.full((n_tokens, ne0), activation, np.int8)
    y = kernels.matmul(packed, dtype, 5, q, isa=isa)
    np.testing.assert_array_equal(y, np.full((n_tokens, 5), value * activation * ne0))


@pytest.mark.parametrize("n_tokens", [1, 2])
def test_code_3_counts_as_2_at_every_level(isa, n_tokens):
    """No sound file holds it, but a kernel must not wrap, crash or differ between levels on it."""
    packed = np.full(dtypes.nbytes("i2_s", (4, 4096)), 0xFF, np.uint8)
    q = np.full((n_tokens, 4096), -128, np.int8)
    np.testing.assert_array_equal(
        kernels.matmul(packed, "i2_s", 4, q, isa=isa), np.full((n_tokens, 4), 2 * -128 * 4096)
    )


def test_worked_example(isa, vectors):
    """The example of docs/formats.md: the test matrix, and activations quantized by hand."""
    x = np.array([(((37 * i) % 101) - 50) / 16 for i in range(256)], np.float32)
    s = np.float32(127) / np.float32(3.125)
    q = np.round(x * s).astype(np.int8)
    assert q[:12].tolist() == [-127, -33, 61, -102, -8, 86, -76, 18, 112, -51, 43, -119]
    packed = np.frombuffer((vectors / "i2s.bin").read_bytes(), np.uint8)
    y = kernels.matmul(packed, "i2_s", 8, q, isa=isa)
    assert y.tolist() == [4, -577, -286, 247, 292, -1635, 1220, 142]


def test_repeat_changes_nothing(isa):
    packed, values = random_codes("i2_s", 8, 256)
    q = np.random.default_rng(3).integers(-127, 128, (2, 256), dtype=np.int8)
    np.testing.assert_array_equal(kernels.matmul(packed, "i2_s", 8, q, isa=isa, repeat=5), product(values, q))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_rows": 9}, "9 x 256 of i2_s take 608 bytes, not 544"),
        ({"n_rows": 0}, "0 x 256"),
        ({"dtype": "f16"}, "no kernel multiplies f16"),
        ({"dtype": "bitnet32"}, "no kernel multiplies bitnet32"),
        ({"q": np.zeros(100, np.int8)}, "100 columns"),
        ({"repeat": 0}, "repeat"),
        ({"n_threads": 0}, "n_threads must be 1 to 256, not 0"),
        ({"isa": "avx9"}, "isa='avx9' is not a known level; known: scalar"),
    ],
)
def test_wrong_arguments_are_named(vectors, changes, message):
    arguments = {
        "w": (vectors / "i2s.bin").read_bytes(),
        "dtype": "i2_s",
        "n_rows": 8,
        "q": np.zeros((1, 256), np.int8),
    } | changes
    with pytest.raises(ValueError, match=message):
        kernels.matmul(
            arguments.pop("w"), arguments.pop("dtype"), arguments.pop("n_rows"), arguments.pop("q"), **arguments
        )


def test_activations_must_be_int8(vectors):
    with pytest.raises(TypeError, match="int8"):
        kernels.matmul((vectors / "i2s.bin").read_bytes(), "i2_s", 8, np.zeros(256, np.int32))


def test_every_operation_has_a_scalar_kernel_and_names_are_unique():
    rows = kernels.available()
    assert len({row.name for row in rows}) == len(rows)
    optional = {"arrange", "quantize_streamed"}  # what only faster kernels have
    scalar = {(row.op, row.dtype) for row in rows if row.isa == "scalar"}
    assert {(row.op, row.dtype) for row in rows if row.op not in optional} == scalar
    for row in rows:
        assert row.name == "_".join(part for part in (row.op, row.dtype, row.isa) if part)


def test_isa_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("BITNET_ISA", "scalar")
    assert kernels.chosen_isa() == "scalar"
    monkeypatch.delenv("BITNET_ISA")
    assert kernels.chosen_isa() == kernels.isa_levels()[-1]
    monkeypatch.setenv("BITNET_ISA", "Scalar")
    with pytest.raises(ValueError, match="BITNET_ISA='Scalar' is not a known level"):
        kernels.chosen_isa()


def test_threads_come_from_the_environment(monkeypatch, vectors):
    monkeypatch.setenv("BITNET_THREADS", "two")
    with pytest.raises(ValueError, match="BITNET_THREADS must be a whole number, not 'two'"):
        kernels.matmul((vectors / "i2s.bin").read_bytes(), "i2_s", 8, np.zeros(256, np.int8), n_threads=None)


@pytest.mark.parametrize("n_words", [8, 8 * 7, 8 * 129, 8 * 1024])
def test_read_sum_reads_every_word_once(n_words):
    data = np.random.default_rng(4).integers(0, 2**63, n_words, dtype=np.uint64)
    for n_threads in N_THREADS:
        assert kernels.read_sum(data, n_threads=n_threads, repeat=3) == int(data.sum(dtype=np.uint64)) * 3 % 2**64
    with pytest.raises(ValueError, match="multiple of 64"):
        kernels.read_sum(data[:-1])


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("lines", [1, 2, 7, 1000])
def test_fill_writes_every_byte_and_no_other(lines, streamed):
    room = np.zeros(64 * lines + 192, np.uint8)
    data = room[64 - room.ctypes.data % 64 :][: 64 * lines]
    for n_threads in (1, 2, 3):
        kernels.fill(data, 200 + n_threads, streamed=streamed, n_threads=n_threads, repeat=2)
        assert (data == 200 + n_threads).all()
        assert np.count_nonzero(room) == data.size


def test_fill_refuses_what_it_cannot_fill():
    data = np.zeros(192, np.uint8)
    with pytest.raises(ValueError, match="must be a positive multiple of 64"):
        kernels.fill(data[:-1], streamed=False)
    with pytest.raises(ValueError, match="aligned to 16"):
        kernels.fill(data[1 + -data.ctypes.data % 16 :][:64])
    with pytest.raises(ValueError, match="value must be 0 to 255, not 256"):
        kernels.fill(data, 256)
    data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels.fill(data)


def test_int8_peak_counts_every_product(isa):
    """Each product is one of 1..16 times 1, each as often as the others: the mean is 8.5."""
    assert kernels.int8_peak(4096 * 3, isa=isa, n_threads=2) == 2 * 4096 * 3 * 17 // 2
    with pytest.raises(ValueError, match="multiple of 4096"):
        kernels.int8_peak(1000, isa=isa)
