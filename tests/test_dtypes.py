"""Formats against vectors of other programs, numpy references, each other's levels, and every kind of bad input."""

import ctypes
import doctest
import hashlib
import math
import mmap
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitnet_core import _lib, dtypes
from bitnet_core._lib import ffi, lib
from bitnet_core.dtypes import DType, dequantize, nbytes, quantize

VECTORS = Path(__file__).parent / "vectors"
ISAS = [name for i, name in enumerate(_lib.isa_names()) if lib.bnc_isa_supported(i)]
TERNARY = {"i2_s": "128", "i2_s_64": "64", "i2_s_row4": "row4"}
CONVERTIBLE = ["f32", "f16", "bf16", "i2_s", "i2_s_64", "i2_s_row4", "qk256", "bitnet32", "q8_0", "q6_k"]
UNIT = {"i2_s": 128, "i2_s_64": 64, "bitnet32": 32, "q8_0": 32, "q6_k": 256}  # what a row is made of; others: 1
MIB = 1 << 18  # floats in 1 MiB: at least what a thread gets, and the size from which outputs are streamed


def floats(*bits):
    return np.array(bits, np.uint32).view(np.float32)


def same_bits(a, b):
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def ternary_of(w, scale):
    """What the formats promise, as they say it."""
    with np.errstate(all="ignore"):
        return np.clip(np.round(w.astype(np.float32) / np.float32(scale)), -1, 1).astype(np.int8)


def pack_fields(t, width):
    """Groups of four fields of ``width`` ternary values."""
    c = (t.reshape(-1, 4, width) + 1).astype(np.uint8)
    return (c[:, 0] << 6 | c[:, 1] << 4 | c[:, 2] << 2 | c[:, 3]).reshape(-1)


def pack_sequential(codes):
    c = codes.reshape(-1, 4).astype(np.uint8)
    return c[:, 0] | c[:, 1] << 2 | c[:, 2] << 4 | c[:, 3] << 6


def pack_ternary(t, dtype, scale):
    width = {"i2_s": 32, "i2_s_64": 16, "i2_s_row4": t.shape[-1]}[dtype]
    return np.concatenate([pack_fields(t, width), np.float32([scale] + [0] * 7).view(np.uint8)])


# ---- the table ----


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("f32", (0, "flat", 1, 4, 0, 0, True)),
        ("f16", (1, "flat", 1, 2, 0, 0, True)),
        ("bf16", (30, "flat", 1, 2, 0, 0, True)),
        ("i2_s", (36, "flat", 128, 32, 0, 32, True)),
        ("i2_s_64", (36, "flat", 64, 16, 0, 32, True)),
        ("i2_s_row4", (36, "row4", 4, 1, 0, 32, True)),
        ("qk256", (36, "padded", 256, 64, 0, 0, True)),
        ("bitnet32", (36, "flat", 32, 10, 0, 0, True)),
        ("q8_0", (8, "row", 32, 34, 0, 0, True)),
        ("q6_k", (14, "row", 256, 210, 0, 0, True)),
        ("tq2_0", (35, "row", 256, 66, 0, 0, False)),
        ("iq2_bn", (135, "row", 64, 16, 4, 0, False)),
        ("pack5", (-1, "padded", 320, 64, 0, 0, False)),
    ],
)
def test_member_shows_its_row(name, row):
    d = DType(name)
    assert (d.gguf_type, d.packing, d.block, d.block_bytes, d.row_bytes, d.tail_bytes, d.convertible) == row
    assert d == name == str(d) == f"{d}"
    assert getattr(DType, name.upper()) is d


def test_members_are_the_table():
    assert [d.number for d in DType] == list(range(lib.bnc_dtype_count()))
    assert [d.value for d in DType if d.convertible] == CONVERTIBLE


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [
        ("f32", 5, 20),
        ("bf16", (2, 3, 4), 48),
        ("i2_s", (2560, 6912), 2560 * 6912 // 4 + 32),
        ("i2_s_64", (1, 64), 48),
        ("i2_s_row4", (4, 3), 35),
        ("qk256", (3, 257), 384),
        ("qk256", 1, 64),
        ("bitnet32", (1, 64), 20),
        ("q8_0", (3, 64), 204),
        ("q6_k", (3, 512), 1260),
        ("tq2_0", (3, 512), 396),
        ("iq2_bn", (3, 128), 108),
    ],
)
def test_nbytes(dtype, shape, expected):
    assert nbytes(dtype, shape) == expected
    assert nbytes(DType(dtype), shape) == expected


def test_module_examples_run():
    assert doctest.testmod(dtypes).attempted >= 6
    assert doctest.testmod(dtypes).failed == 0


# ---- vectors that other programs wrote (docs/formats.md) ----


@pytest.mark.parametrize(
    ("dtype", "file", "sha256"),
    [
        ("i2_s", "i2s.bin", "b240d811ea0730fa"),
        ("i2_s_64", "i2s_arm64.bin", "ba227d32a4122b90"),
        ("i2_s_row4", "i2s_r4.bin", "0ff715176ce3ccc9"),
        ("bitnet32", "bitnet32.bin", "b43aa7a4e911b86f"),
    ],
)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_bytes_equal_the_vectors(dtype, file, sha256, isa, n_threads):
    w = np.load(VECTORS / "t.npy").astype(np.float32) * np.float32(1.25)
    how = {"isa": isa, "n_threads": n_threads, "layout": TERNARY.get(dtype, "128")}
    name = "i2_s" if dtype in TERNARY else dtype
    packed = quantize(w, name, **how, **({"scale": 1.25} if dtype in TERNARY else {}))
    assert packed.tobytes() == (VECTORS / file).read_bytes()
    assert hashlib.sha256(packed).hexdigest().startswith(sha256)
    assert same_bits(dequantize((VECTORS / file).read_bytes(), name, w.shape, **how), w)


def test_vector_is_the_documented_generator():
    s, t = 1, []
    for _ in range(8 * 256):
        s = (s * 1103515245 + 12345) % 2**31
        t.append((s >> 16) % 3 - 1)
    assert np.array_equal(np.load(VECTORS / "t.npy"), np.int8(t).reshape(8, 256))


def test_i2_s_group_is_half_a_tq2_0_block():
    """TQ2_0 of the gguf package holds the same four fields in a byte, in reverse order, and a float16 scale a block."""
    t = np.random.default_rng(1).integers(-1, 2, (7, 512)).astype(np.float32)
    tq2 = gguf.quants.quantize(t, gguf.GGMLQuantizationType.TQ2_0).reshape(-1, 66)[:, :64]
    swapped = (tq2 & 3) << 6 | (tq2 >> 2 & 3) << 4 | (tq2 >> 4 & 3) << 2 | tq2 >> 6
    assert np.array_equal(quantize(t, "i2_s", scale=1)[:-32], swapped.reshape(-1))


# ---- ternary formats ----


def near_half(scale):
    """Floats around the two thresholds, with everything else that could confuse a comparison."""
    s = np.float32(scale)
    out = [np.float32(0), np.float32(-0.0), s, s * np.float32(0.75), floats(1)[0], np.finfo(np.float32).max]
    for step in (np.float32(np.inf), np.float32(0)):
        w = s / np.float32(2)
        for _ in range(5):
            out.append(w)
            w = np.nextafter(w, step)
    out = np.float32(out)
    return np.resize(np.concatenate([out, -out]), (4, 128))


@pytest.mark.parametrize("dtype", TERNARY)
@pytest.mark.parametrize("isa", ISAS)
def test_ternary_rule_at_its_thresholds(dtype, isa):
    scales = np.random.default_rng(2).uniform(0.5, 2, 200).astype(np.float32) * np.float32(2.0) ** np.arange(-100, 100)
    tiny = floats(0x00800000, 0x00800001, 0x00800003, 0x00FFFFFF, 0x01000001)
    for scale in [*scales, *tiny, np.float32(1), np.float32(1.25), np.finfo(np.float32).max]:
        w = near_half(scale)
        packed = quantize(w, "i2_s", scale=scale, layout=TERNARY[dtype], isa=isa, n_threads=1)
        assert np.array_equal(packed, pack_ternary(ternary_of(w, scale), dtype, scale)), scale


@pytest.mark.parametrize("dtype", TERNARY)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(4, 128), (8, 8640), (4, 5, 64), (12, 32), (516, 2560)])
def test_ternary_round_trip(dtype, isa, shape):
    rng = np.random.default_rng(3)
    w = rng.standard_normal(shape, np.float32)
    how = {"layout": TERNARY[dtype], "isa": isa, "n_threads": 3}
    packed = quantize(w, "i2_s", scale=0.7, **how)
    t = ternary_of(w, 0.7)
    assert np.array_equal(packed, pack_ternary(t.reshape(-1, shape[-1]), dtype, 0.7))
    back = dequantize(packed, "i2_s", shape, **how)
    assert same_bits(back, t * np.float32(0.7))
    assert np.array_equal(quantize(back, "i2_s", scale=0.7, **how), packed)
    assert np.abs(w - back).max() <= max(0.35, np.abs(w).max() - 0.7) * 1.0001


def scale_of(packed):
    assert not packed[-28:].any()
    return packed[-32:-28].view(np.float32)[0]


def absmean_of(w):
    """The documented order: 16 float32 lanes in each chunk of 4096, chunks in double."""
    m = np.abs(w.reshape(-1))
    chunks = np.pad(m, (0, -m.size % 4096)).reshape(-1, 256, 16)
    lanes = np.zeros((len(chunks), 16), np.float32)
    for k in range(256):
        lanes = lanes + chunks[:, k]
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half:]
    return np.float32(sum(float(s) for s in lanes[:, 0]) / m.size)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("shape", [(1, 128), (4, 1056), (4, 3200), (1032, 1024)])
def test_absmean(isa, n_threads, shape):
    w = np.random.default_rng(4).standard_normal(shape, np.float32) * np.float32(0.02)
    packed = quantize(w, "i2_s", isa=isa, n_threads=n_threads)
    scale = scale_of(packed)
    assert scale == absmean_of(w)
    assert scale == pytest.approx(np.abs(w.astype(np.float64)).mean(), rel=2**-22)
    assert np.array_equal(packed, pack_ternary(ternary_of(w, scale), "i2_s", scale))


@pytest.mark.parametrize("isa", ISAS)
def test_absmax(isa):
    w = np.random.default_rng(5).standard_normal((4, 3200), np.float32)
    w[2, 77] = -9
    packed = quantize(w, "i2_s", scale="absmax", isa=isa)
    assert np.array_equal(packed, pack_ternary(ternary_of(w, 9), "i2_s", 9))
    small = np.full((1, 128), 2e-7, np.float32)
    assert scale_of(quantize(small, "i2_s", scale="absmax", isa=isa)) == np.float32(2e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scale", ["absmean", "absmax"])
def test_zeros_have_the_smallest_scale(scale, isa):
    packed = quantize(np.zeros((3, 128), np.float32), "i2_s", scale=scale, isa=isa)
    assert (packed[:-32] == 0x55).all()
    assert scale_of(packed) == np.float32(1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_absmean_is_at_least_its_minimum_and_never_overflows(isa):
    assert scale_of(quantize(np.full(128, 1e-9, np.float32), "i2_s", isa=isa)) == np.float32(1e-5)
    huge = np.full((2, 4096), np.finfo(np.float32).max)
    packed = quantize(huge, "i2_s", isa=isa)
    assert scale_of(packed) == huge[0, 0]
    assert (packed[:-32] == 0xAA).all()


@pytest.mark.parametrize("scale", [0, -1, -0.0, math.nan, math.inf, 1e-39, 1e300])
def test_given_scale_must_be_normal_and_positive(scale):
    with pytest.raises(ValueError, match="the scale must be a normal float32 above 0"):
        quantize(np.zeros(128, np.float32), "i2_s", scale=scale)


@pytest.mark.parametrize("layout", TERNARY.values())
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("n_rows", "ne0"), [(4, 128), (4096, 1024)])
def test_code_3_is_refused_where_it_first_stands(layout, isa, n_rows, ne0):
    how = {"layout": layout, "isa": isa, "n_threads": 4}
    clean = quantize(np.zeros((n_rows, ne0), np.float32), "i2_s", **how)
    codes = clean.size - 32
    out = np.full((n_rows, ne0), 7, np.float32)
    for at, byte in [(0, 0xC0), (1, 0x30), (codes // 2 + 5, 0x0C), (codes - 1, 0x03), (63, 0xFF), (codes - 97, 0x5F)]:
        for later in (at, codes - 1):
            packed = clean.copy()
            packed[[at, later]] = byte
            with pytest.raises(ValueError, match=f"^byte {at} holds code 3, which stands for no ternary value$"):
                dequantize(packed, "i2_s", (n_rows, ne0), out=out, **how)
    assert (out == 7).all()
    clean[codes + 4 :] = 0xFF  # the rest of the tail means nothing
    assert not dequantize(clean, "i2_s", (n_rows, ne0), **how).any()


@pytest.mark.parametrize("isa", ISAS)
def test_every_byte_without_code_3_is_read(isa):
    bytes_ = np.uint8([b for b in range(256) if not b & b >> 1 & 0x55])
    packed = np.concatenate([np.resize(bytes_, 96), np.float32([-3] + [0] * 7).view(np.uint8)])
    codes = packed[:-32].reshape(3, 32)[:, None] >> np.uint8([6, 4, 2, 0])[None, :, None] & 3
    expected = (codes.reshape(-1).astype(np.float32) - 1) * np.float32(-3)
    assert same_bits(dequantize(packed, "i2_s", 384, isa=isa), expected)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_scale_in_the_tail_must_be_finite(scale):
    packed = quantize(np.zeros(256, np.float32), "i2_s")
    packed[64:68] = np.float32([scale]).view(np.uint8)
    with pytest.raises(ValueError, match="the scale at byte 64 is not finite"):
        dequantize(packed, "i2_s", 256)


# ---- qk256 ----


def qk256_of(x):
    """Nearest in exact arithmetic; of two as near the smaller magnitude, of those +1."""

    def code(v):
        return min((2, 1, 3, 0), key=lambda c: abs(Fraction(float(v)) - (-2, -1, 1, 2)[c]))

    x = np.pad(x, ((0, 0), (0, -x.shape[1] % 256)))
    return pack_sequential(np.uint8([code(v) for v in x.reshape(-1)]))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("ne0", [1, 3, 31, 255, 256, 257, 511, 1408])
def test_qk256(isa, ne0):
    x = np.random.default_rng(ne0).normal(0, 1.4, (3, ne0)).astype(np.float32)
    packed = quantize(x, "qk256", isa=isa)
    assert np.array_equal(packed, qk256_of(x))
    codes = packed.reshape(3, -1)[:, :, None] >> np.uint8([0, 2, 4, 6]) & 3
    values = np.float32([-2, -1, 1, 2])[codes.reshape(3, -1)]
    assert (values[:, ne0:] == 1).all()
    assert same_bits(dequantize(packed, "qk256", x.shape, isa=isa), np.ascontiguousarray(values[:, :ne0]))


@pytest.mark.parametrize("isa", ISAS)
def test_qk256_thresholds(isa):
    edges = np.float32([0, -0.0, 1.5, -1.5, 1, -1, 2, -2, 3e38, -3e38, 1e-45, -1e-45])
    x = np.concatenate([edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(-9))])[None]
    packed = quantize(x, "qk256", isa=isa)
    assert np.array_equal(packed, qk256_of(x))
    first = [1, 1, 1, -1, 1, -1, 2, -2, 2, -2, 1, -1]
    assert dequantize(packed, "qk256", x.shape, isa=isa)[0, :12].tolist() == first


# ---- bitnet32 ----


def bitnet32_of(x):
    x = x.reshape(-1, 32)
    scale = np.abs(x).max(axis=1, keepdims=True)
    quotient = np.divide(x, scale, out=np.zeros_like(x), where=scale > 0).astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(quotient) + 0.5), quotient)  # halves away from zero
    codes = pack_sequential(np.clip(rounded, -2, 1) + 2).reshape(-1, 8)
    return np.hstack([codes, scale.astype(np.float16).view(np.uint8)]).reshape(-1)


@pytest.mark.parametrize("isa", ISAS)
def test_bitnet32(isa):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((300, 96), np.float32) * np.float32(2.0) ** rng.integers(-40, 12, (300, 1))
    x = x.astype(np.float32)
    packed = quantize(x, "bitnet32", isa=isa)
    assert np.array_equal(packed, bitnet32_of(x))
    blocks = packed.reshape(-1, 10)
    codes = (blocks[:, :8, None] >> np.uint8([0, 2, 4, 6]) & 3).reshape(-1, 32)
    scale = np.ascontiguousarray(blocks[:, 8:]).view(np.float16).astype(np.float32)
    assert codes.min() == 1
    assert same_bits(
        dequantize(packed, "bitnet32", x.shape, isa=isa), ((codes.astype(np.float32) - 2) * scale).reshape(x.shape)
    )


@pytest.mark.parametrize("isa", ISAS)
def test_bitnet32_halves_and_zeros(isa):
    x = np.zeros((220, 32), np.float32)
    tops = np.random.default_rng(7).uniform(1e-3, 6e4, 200).astype(np.float32)
    tops = np.concatenate([tops, floats(*range(1, 16), 0x00800001), np.float32([65519.996, 1, 2, 3])])
    for row, top in zip(x, tops, strict=True):
        half = top / np.float32(2)
        edges = np.float32([half, np.nextafter(half, np.float32(0)), np.nextafter(half, top)])
        row[:] = np.resize(np.concatenate([edges, -edges, [np.float32(0), np.float32(-0.0)]]), 32)
        row[5] = -top
    assert np.array_equal(quantize(x, "bitnet32", isa=isa), bitnet32_of(x))
    assert quantize(np.zeros(32, np.float32), "bitnet32", isa=isa).tobytes() == b"\xaa" * 8 + b"\0\0"


@pytest.mark.parametrize("isa", ISAS)
def test_bitnet32_reads_code_0(isa):
    packed = bytes([0b11_10_01_00] * 8) + np.float16(0.5).tobytes()
    assert dequantize(packed, "bitnet32", 32, isa=isa)[:4].tolist() == [-1, -0.5, 0, 0.5]


# ---- q8_0 and q6_k, against the gguf package ----


def of_gguf(dtype):
    return getattr(gguf.GGMLQuantizationType, dtype.upper())


def blocks_of_all_sizes(rng, n_rows, ne0):
    """Normal rows of magnitudes from 2^-140 to 2^20, with zeros, zero rows and equal magnitudes among them."""
    x = rng.standard_normal((n_rows, ne0)) * 2.0 ** rng.integers(-140, 20, (n_rows, 1))
    x[rng.random(x.shape) < 0.1] = 0
    x[n_rows // 2] = 0
    x[n_rows // 3] = rng.choice([-3.7, 3.7], ne0)
    return x.astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
def test_q8_0_is_that_of_gguf(isa):
    x = blocks_of_all_sizes(np.random.default_rng(14), 300, 96)
    packed = quantize(x, "q8_0", isa=isa)
    with np.errstate(over="ignore", divide="ignore"):
        inverse_exists = np.isfinite(1 / (np.abs(x.reshape(-1, 32)).max(axis=1) / np.float32(127)))
        inverse_exists |= ~x.reshape(-1, 32).any(axis=1)
    assert 5 < (~inverse_exists).sum() < 100
    expected = gguf.quants.quantize(np.where(inverse_exists[:, None], x.reshape(-1, 32), 0), of_gguf("q8_0"))
    assert np.array_equal(packed, expected.reshape(-1))
    junk = np.random.default_rng(15).integers(0, 256, packed.size, np.uint8)
    for data in (packed, junk):
        back = dequantize(data, "q8_0", x.shape, isa=isa)
        with np.errstate(invalid="ignore"):  # scales that are infinite
            oracle = gguf.quants.dequantize(data.reshape(len(x), -1), of_gguf("q8_0"))
        assert np.array_equal(back, oracle, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS)
def test_q8_0_vector_and_halves(isa):
    x = (np.arange(32, dtype=np.float32) - np.float32(15.5)) / np.float32(7)
    vector = "77248189919aa2aab2bac3cbd3dbe3ecf4fc040c141d252d353d464e565e666f777f"
    assert quantize(x, "q8_0", isa=isa).tobytes().hex() == vector
    x = np.resize(np.float32([127, 0.5, 1.5, 2.5, 0.49999997, 1.4999999, 126.49999]), 32)  # d = 1
    x[16:] *= -1
    codes = np.int8([127, 1, 2, 3, 0, 1, 126])
    assert np.array_equal(np.abs(quantize(x, "q8_0", isa=isa)[2:].view(np.int8)), np.resize(codes, 32))
    assert np.array_equal(np.sign(quantize(x, "q8_0", isa=isa)[2:].view(np.int8)), np.sign(x) * (np.abs(x) >= 0.5))


@pytest.mark.parametrize("isa", ISAS)
def test_q6_k_is_read_as_gguf_reads_it(isa):
    vector = np.concatenate([np.uint8((37 * np.arange(208) + 11) % 256), np.float16([0.5]).view(np.uint8)])
    w = dequantize(vector, "q6_k", 256, isa=isa)
    assert w[:8].tolist() == [-715.5, 848, 291.5, -265, -821.5, 742, 185.5, -371]
    assert hashlib.sha256(w).hexdigest().startswith("59b04fb417bc6ef8")
    junk = np.random.default_rng(16).integers(0, 256, 500 * 210, np.uint8)
    back = dequantize(junk, "q6_k", (250, 512), isa=isa)
    with np.errstate(invalid="ignore"):  # scales that are infinite
        oracle = gguf.quants.dequantize(junk.reshape(250, 420), of_gguf("q6_k"))
    assert np.array_equal(back, oracle, equal_nan=True)


def q6_k_values_of(x):
    """What the written blocks stand for, as docs/formats.md says how they are chosen."""
    groups = x.reshape(-1, 16, 16)
    step = np.abs(groups).max(axis=2) / np.float32(31)
    d = (step.max(axis=1, keepdims=True) / np.float32(127)).astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(d > 0, np.float32(1) / d, np.float32(0))
        scales = np.minimum(np.rint(step * inverse), 127).astype(np.float32)
        to_code = np.where(scales > 0, np.float32(1) / (d * scales), np.float32(0))
    codes = np.clip(np.rint(groups * to_code[:, :, None]), -32, 31).astype(np.float32)
    return (d[:, :, None] * scales[:, :, None] * codes).reshape(x.shape)


@pytest.mark.parametrize("isa", ISAS)
def test_q6_k_quantizer(isa):
    rng = np.random.default_rng(17)
    x = blocks_of_all_sizes(rng, 300, 512)
    x *= np.float32(2.0) ** np.repeat(rng.integers(-9, 1, (300, 32)), 16, axis=1)  # groups of one block differ
    back = dequantize(quantize(x, "q6_k", isa=isa), "q6_k", x.shape, isa=isa)
    assert np.array_equal(back, q6_k_values_of(x))
    normal = rng.standard_normal((64, 2560), np.float32)
    error = normal - dequantize(quantize(normal, "q6_k", isa=isa), "q6_k", normal.shape)
    assert 0.01 < np.sqrt(np.mean(error**2)) < 0.025  # a step is about 2 / 31, over sqrt(12): 0.019


# ---- float formats ----


def finite_below(limit, count, seed):
    bits = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)
    x = bits.view(np.float32)
    return x[np.abs(x) < limit]  # NaN is not below it either


@pytest.mark.parametrize("isa", ISAS)
def test_f16_to_and_from_all_halves(isa):
    halves = np.arange(65536, dtype=np.uint16)
    back = dequantize(halves.view(np.uint8), "f16", 65536, isa=isa)
    number = ~np.isnan(halves.view(np.float16))
    with np.errstate(invalid="ignore"):  # a signalling NaN
        expected = halves.view(np.float16).astype(np.float32)
    assert same_bits(back[number], expected[number])
    payload = halves[~number].astype(np.uint32)
    quiet = (payload & 0x8000) << 16 | 0x7FC00000 | (payload & 0x3FF) << 13
    assert np.array_equal(back[~number].view(np.uint32), quiet)
    finite = np.isfinite(back)
    for cut in (0, 1, 5):  # whole and broken vectors
        packed = quantize(back[finite][cut:], "f16", isa=isa)
        assert np.array_equal(packed.view(np.uint16), halves[finite][cut:])


@pytest.mark.parametrize("isa", ISAS)
def test_f16_rounds_to_nearest_even(isa):
    halves = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / np.float32(2)  # exact
    near = [np.nextafter(ties, np.float32(9e4)), np.nextafter(ties, np.float32(0))]
    last = np.float32([65504, 65519.996, 1e-45, 2.0**-25, np.nextafter(np.float32(2.0**-25), np.float32(1))])
    x = np.concatenate([ties, *near, last, finite_below(65520, 300000, 8)])
    x = np.concatenate([x, -x])
    assert np.array_equal(quantize(x, "f16", isa=isa).view(np.uint16), x.astype(np.float16).view(np.uint16))


def bf16_of(x):
    """The nearer of the two neighbours; the even one halfway between them."""
    low = x.view(np.uint32) & np.uint32(0xFFFF0000)
    high = low + np.uint32(0x10000)
    with np.errstate(over="ignore"):
        below = np.abs(x.astype(np.float64) - low.view(np.float32).astype(np.float64))
        above = np.abs(high.view(np.float32).astype(np.float64) - x.astype(np.float64))
    odd = (low >> 16 & 1).astype(bool)
    return (np.where((above < below) | ((above == below) & odd), high, low) >> 16).astype(np.uint16)


@pytest.mark.parametrize("isa", ISAS)
def test_bf16(isa):
    x = floats(0x40490FDB, 0x000116C2, 0x80000000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7F7FFF)
    expected = [0x4049, 0x0001, 0x8000, 0x3F80, 0x3F82, 0x3F81, 0x7F7F]
    assert quantize(x, "bf16", isa=isa).view(np.uint16).tolist() == expected
    x = finite_below(floats(0x7F7F8000)[0], 300001, 9)
    ties = floats(*range(0x00008000, 0x7F7F8000, 0x10000))
    x = np.concatenate([x, ties, -ties])
    assert np.array_equal(quantize(x, "bf16", isa=isa).view(np.uint16), bf16_of(x))
    every = np.arange(65536, dtype=np.uint16)
    back = dequantize(every.view(np.uint8), "bf16", 65536, isa=isa)
    assert np.array_equal(back.view(np.uint32), every.astype(np.uint32) << 16)


@pytest.mark.parametrize("isa", ISAS)
def test_f32_is_a_copy(isa):
    x = finite_below(np.inf, 100003, 10)
    packed = quantize(x, "f32", isa=isa)
    assert packed.tobytes() == x.tobytes()
    assert same_bits(dequantize(packed, "f32", x.shape, isa=isa), x)
    back = dequantize(x, "f32", x.shape)  # a buffer of floats is its bytes
    assert same_bits(back, x)
    assert not np.shares_memory(back, x)


# ---- values that no format takes ----


@pytest.mark.parametrize("dtype", CONVERTIBLE)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scale", ["absmean", 1])
@pytest.mark.parametrize(
    ("bad", "text"), [(math.nan, "nan"), (-math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_first_value_that_is_not_finite_is_named(dtype, isa, scale, bad, text):
    how = {"isa": isa, "scale": scale}
    for at in (0, 1, 255, 4 * 768 - 1, 4 * 768 - 9):
        x = np.ones((4, 768), np.float32)
        x.reshape(-1)[[at, -1]] = bad
        with pytest.raises(ValueError, match=re.escape(f"element {at} (row {at // 768}, column {at % 768}) is {text}")):
            quantize(x, dtype, **how)


@pytest.mark.parametrize("dtype", CONVERTIBLE)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scale", ["absmean", "absmax", 1])
def test_first_bad_value_is_named_whichever_thread_finds_it(dtype, isa, scale):
    how = {"isa": isa, "scale": scale, "n_threads": 4}
    x = np.ones((1024, 1024), np.float32)
    for first, second in [(7, 5000), (262143, 262144), (300000, 600000), (1000003, 1048575), (1048574, 1048575)]:
        x.reshape(-1)[[first, second]] = (math.inf, math.nan)
        where = f"element {first} (row {first // 1024}, column {first % 1024}) is inf"
        with pytest.raises(ValueError, match=re.escape(where)):
            quantize(x, dtype, **how)
        x.reshape(-1)[[first, second]] = 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("dtype", "limit", "what"),
    [
        ("f16", np.float32(65520), "float16 holds magnitudes below 65520"),
        ("bitnet32", np.float32(65520), "the float16 scale of a block holds magnitudes below 65520"),
        ("q8_0", np.float32(8321040), "the float16 scale of a block holds magnitudes below 8321040"),
        ("q6_k", np.float32(257952240), "the float16 scale of a block holds magnitudes below 257952240"),
        ("bf16", floats(0x7F7F8000)[0], "bfloat16 holds magnitudes below 3.39617753e+38"),
    ],
)
def test_finite_value_that_would_become_infinite_is_named(isa, dtype, limit, what):
    x = np.ones((3, 256), np.float32)
    x[1, 3] = np.nextafter(limit, np.float32(0))
    assert np.isfinite(dequantize(quantize(x, dtype, isa=isa), dtype, x.shape)).all()
    x[1, 5] = -limit
    with pytest.raises(ValueError, match=re.escape(f"element 261 (row 1, column 5) is {-limit:.9g}: {what}")):
        quantize(x, dtype, isa=isa)
    x[2, 0], x[1, 60] = limit, math.nan
    with pytest.raises(ValueError, match=re.escape(f"element 261 (row 1, column 5) is {-limit:.9g}: {what}")):
        quantize(x, dtype, isa=isa)
    x[1, 4] = math.nan
    with pytest.raises(ValueError, match=re.escape("element 260 (row 1, column 4) is nan")):
        quantize(x, dtype, isa=isa)


def test_float64_beyond_float32_is_named():
    x = np.ones((2, 4))
    x[1, 2] = -1e300
    with pytest.raises(
        ValueError, match=re.escape("element 6 (row 1, column 2) is -1e+300, which float32 cannot hold")
    ):
        quantize(x, "f32")
    x[0, 3] = math.nan
    with pytest.raises(ValueError, match=re.escape("element 3 (row 0, column 3) is nan")):
        quantize(x, "f32")


# ---- arguments ----


def test_arrays_of_other_types_are_rounded_first():
    x = np.random.default_rng(11).standard_normal((6, 256))
    single = x.astype(np.float32)
    packed = quantize(single, "i2_s")
    assert np.array_equal(quantize(x, "i2_s"), packed)
    assert np.array_equal(quantize(x.tolist(), "i2_s"), packed)
    assert np.array_equal(quantize(single.astype(">f4"), "i2_s"), packed)
    assert np.array_equal(quantize(np.asfortranarray(single), "i2_s"), packed)
    assert np.array_equal(quantize(np.repeat(single, 2, axis=1)[:, ::2], "i2_s"), packed)
    odd = np.frombuffer(b"x" + single.tobytes(), np.float32, offset=1)
    assert not odd.flags.aligned
    assert np.array_equal(quantize(odd, "i2_s"), packed)
    single.flags.writeable = False
    assert np.array_equal(quantize(single, "i2_s"), packed)
    half = x.astype(np.float16)
    assert np.array_equal(quantize(half, "f32").view(np.float32), half.astype(np.float32).reshape(-1))
    t = np.load(VECTORS / "t.npy")
    assert np.array_equal(quantize(t, "i2_s", scale=1)[:-32], quantize(t.astype(float), "i2_s", scale=1)[:-32])


@pytest.mark.parametrize("array", [[1j] * 128, ["a"] * 128, [None] * 128, [True] * 128, np.zeros(128, "V4")])
def test_arrays_of_no_numbers_are_refused(array):
    with pytest.raises(TypeError, match="quantize takes floats or integers, not"):
        quantize(array, "i2_s")


def test_unknown_names_are_answered_with_the_known_ones():
    x = np.zeros(256, np.float32)
    known = re.escape(f"convertible are: {', '.join(CONVERTIBLE)}")
    with pytest.raises(ValueError, match="dtype 'q2_s' does not exist; " + known):
        quantize(x, "q2_s")
    with pytest.raises(ValueError, match="dtype 'tq2_0' is known by its size alone; " + known):
        dequantize(bytes(66), DType("tq2_0"), 256)
    with pytest.raises(ValueError, match=r"dtype 'nope' does not exist; there are: f32, f16, .*, iq2_bn"):
        nbytes("nope", 1)
    with pytest.raises(ValueError, match="layout '32' does not exist; there are: 128, 64, row4"):
        quantize(x, "i2_s", layout="32")
    with pytest.raises(ValueError, match="layout='64' is a layout of i2_s; qk256 has only one"):
        quantize(x, "qk256", layout="64")
    with pytest.raises(ValueError, match="scale 'max' does not exist; there are: absmean, absmax, or a number"):
        quantize(x, "i2_s", scale="max")
    with pytest.raises(TypeError, match="scale must be 'absmean', 'absmax' or a number, not bool"):
        quantize(x, "i2_s", scale=True)
    with pytest.raises(ValueError, match="qk256 has no scale of the tensor to set"):
        quantize(x, "qk256", scale=2.0)
    with pytest.raises(ValueError, match="is not a known level"):
        quantize(x, "i2_s", isa="mmx")


@pytest.mark.parametrize("n_threads", [0, -1, 257])
def test_number_of_threads_is_checked(n_threads):
    with pytest.raises(ValueError, match=f"n_threads must be 1 to 256, not {n_threads}"):
        quantize(np.zeros(128, np.float32), "i2_s", n_threads=n_threads)
    err = _lib.new_error()
    x, out = ffi.new("float[128]"), ffi.new("uint8_t[64]")
    status = lib.bnc_quantize(lib.bnc_kernels_get(-1), DType("i2_s").number, x, 1, 128, 1, 0, out, 64, n_threads, err)
    assert status == lib.BNC_ERR_ARGUMENT
    assert ffi.string(err.message).decode() == f"n_threads must be 1 to 256, not {n_threads}"


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        ("i2_s", (1, 127), "i2_s packs 128 elements at a time"),
        ("bitnet32", (3, 33), "bitnet32 packs 32 elements at a time"),
        ("q8_0", (2, 48), "q8_0 packs 32 elements of a row at a time"),
        ("q6_k", (2, 128), "q6_k packs 256 elements of a row at a time"),
        ("f32", (), "at least one element and one axis"),
        ("f32", (3, 0), "at least one element and one axis"),
        ("qk256", 0, "at least one element and one axis"),
        ("f32", (2**62, 4), "larger than any memory"),
        ("f32", (2**40, 2**21), "larger than any memory"),
    ],
)
def test_shapes_that_do_not_fit(dtype, shape, message):
    with pytest.raises(ValueError, match=message):
        nbytes(dtype, shape)
    with pytest.raises(ValueError, match=message):
        dequantize(b"", dtype, shape)
    if np.prod(shape, dtype=float) < 1000:
        with pytest.raises(ValueError, match=message):
            quantize(np.zeros(shape, np.float32), dtype)


def test_row4_needs_four_rows():
    with pytest.raises(ValueError, match="i2_s_row4 packs 4 rows at a time"):
        quantize(np.zeros((6, 128), np.float32), "i2_s", layout="row4")


@pytest.mark.parametrize("dtype", CONVERTIBLE)
@pytest.mark.parametrize("off", [-1, 1])
def test_length_must_be_exact(dtype, off):
    size = nbytes(dtype, (4, 256))
    message = f"a {dtype} tensor of shape (4, 256) takes {size} bytes; the buffer has {size + off}"
    with pytest.raises(ValueError, match=re.escape(message)):
        dequantize(bytes(size + off), dtype, (4, 256))
    err = _lib.new_error()
    x, packed = ffi.new("float[]", 1024), ffi.new("uint8_t[]", size + 1)
    kernels, number = lib.bnc_kernels_get(-1), DType(dtype).number
    said = f"a {dtype} tensor of 4 x 256 takes {size} bytes, not {size + off}"
    for status in (
        lib.bnc_quantize(kernels, number, x, 4, 256, lib.BNC_SCALE_ABSMEAN, 0, packed, size + off, 1, err),
        lib.bnc_dequantize(kernels, number, packed, size + off, 4, 256, x, 1, err),
    ):
        assert status == lib.BNC_ERR_ARGUMENT
        assert ffi.string(err.message).decode() == said


def test_library_refuses_what_has_no_conversion():
    err = _lib.new_error()
    x, packed = ffi.new("float[256]"), ffi.new("uint8_t[66]")
    status = lib.bnc_dequantize(lib.bnc_kernels_get(-1), DType("tq2_0").number, packed, 66, 1, 256, x, 1, err)
    assert status == lib.BNC_ERR_ARGUMENT
    assert ffi.string(err.message) == b"tq2_0 is known by its size alone: there is no conversion"


def test_buffers_of_all_kinds():
    x = np.random.default_rng(12).standard_normal((4, 256), np.float32)
    packed = quantize(x, "i2_s")
    back = dequantize(packed, "i2_s", (4, 256))
    flat = packed.tobytes()
    for buffer in (flat, bytearray(flat), memoryview(flat), packed.reshape(-1, 32), packed.view(np.float16)):
        assert same_bits(dequantize(buffer, "i2_s", [4, 256]), back)
    assert same_bits(dequantize(packed, "i2_s", 1024), back.reshape(-1))
    assert same_bits(dequantize(np.frombuffer(b"x" + flat, np.uint8, offset=1), "i2_s", (4, 256)), back)
    with pytest.raises(ValueError, match="must be C-contiguous"):
        dequantize(np.repeat(packed, 2)[::2], "i2_s", (4, 256))
    with pytest.raises(TypeError):
        dequantize("text", "i2_s", (4, 256))


def test_out_is_used_or_refused():
    packed = quantize(np.ones((4, 256), np.float32), "f32")
    out = np.zeros((4, 256), np.float32)
    assert dequantize(packed, "f32", (4, 256), out=out) is out
    assert (out == 1).all()
    for wrong in (np.zeros((4, 256)), out.astype(">f4"), bytearray(4096)):
        with pytest.raises(TypeError, match="out must be a float32 array, not"):
            dequantize(packed, "f32", (4, 256), out=wrong)
    with pytest.raises(ValueError, match=re.escape("out has shape (1024,); the tensor has (4, 256)")):
        dequantize(packed, "f32", (4, 256), out=out.reshape(-1))
    with pytest.raises(ValueError, match="out shares memory with the buffer"):
        dequantize(out, "f32", (4, 256), out=out)
    frozen = out.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(bytearray(4097), np.float32, offset=1).reshape(4, 256)
    for unfit in (frozen, np.zeros((256, 4), np.float32).T, unaligned):
        with pytest.raises(ValueError, match="out must be C-contiguous, aligned and writeable"):
            dequantize(packed, "f32", (4, 256), out=unfit)


def test_out_of_quantize_is_used_or_refused():
    x = np.random.default_rng(14).standard_normal((4, 256), np.float32)
    expected = quantize(x, "i2_s")
    out = np.full(expected.size, 7, np.uint8)
    assert quantize(x, "i2_s", out=out) is out
    assert np.array_equal(out, expected)
    for wrong in (out.view(np.int8), bytearray(out.size)):
        with pytest.raises(TypeError, match="out must be a uint8 array, not"):
            quantize(x, "i2_s", out=wrong)
    with pytest.raises(ValueError, match=re.escape(f"out has shape ({out.size + 1},); the tensor has ({out.size},)")):
        quantize(x, "i2_s", out=np.zeros(out.size + 1, np.uint8))
    with pytest.raises(ValueError, match="out shares memory with the array"):
        quantize(x, "f32", out=x.view(np.uint8).reshape(-1))
    frozen = out.copy()
    frozen.flags.writeable = False
    for unfit in (frozen, np.zeros(2 * out.size, np.uint8)[::2]):
        with pytest.raises(ValueError, match="out must be C-contiguous, aligned and writeable"):
            quantize(x, "i2_s", out=unfit)


# ---- levels against each other ----


def outcome(function, *args, **kwargs):
    """The bytes of a result, or the message of a refusal."""
    try:
        return function(*args, **kwargs).tobytes()
    except ValueError as e:
        return str(e)


@pytest.mark.skipif(len(ISAS) == 1, reason="this machine has the scalar level alone")
@pytest.mark.parametrize("dtype", CONVERTIBLE)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_levels_agree(dtype, data):
    ne0 = data.draw(st.integers(1, 70)) * UNIT.get(dtype, 1)
    n_rows = data.draw(st.integers(1, 3)) * (4 if dtype == "i2_s_row4" else 1)
    seed = data.draw(st.integers(0, 2**32 - 1))
    spread = data.draw(st.sampled_from([0, 1, 20, 300]))
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):
        x = (rng.standard_normal((n_rows, ne0)) * 2.0 ** rng.uniform(-spread, spread, (n_rows, ne0))).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = 0
    scale = data.draw(st.sampled_from(["absmean", "absmax", 1]))
    packed = [outcome(quantize, x, dtype, scale=scale, isa=isa) for isa in ISAS]
    assert all(p == packed[0] for p in packed)
    junk = rng.integers(0, 256, nbytes(dtype, x.shape), np.uint8)
    if data.draw(st.booleans()):  # without code 3, or none of the ternary formats would get past the scan
        junk &= ~(junk >> 1 & 0x55)
    back = [outcome(dequantize, junk, dtype, x.shape, isa=isa) for isa in ISAS]
    assert all(b == back[0] for b in back)


@given(scale=st.floats(2.0**-126, 2.0**127, width=32), ulps=st.lists(st.integers(-3, 3), min_size=128, max_size=128))
@settings(deadline=None, max_examples=100, derandomize=True)
@example(scale=1.0, ulps=[0] * 128)
def test_ternary_rule_is_the_division(scale, ulps):
    half = (np.float32(scale) / np.float32(2)).view(np.int32)
    w = (half + np.int32(ulps)).view(np.float32) * np.float32([1, -1] * 64)
    for isa in ISAS:
        packed = quantize(w, "i2_s", scale=scale, isa=isa)
        assert np.array_equal(packed, pack_ternary(ternary_of(w, scale), "i2_s", scale))


# ---- threads, streamed outputs, memory beside the arrays ----


@pytest.mark.parametrize("dtype", CONVERTIBLE)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(4 * MIB // 1024, 1024), (1, 4 * MIB - 128), (1028, 1408), (8, 131100)])
def test_threads_and_alignment_move_no_bit(dtype, isa, shape):
    if dtype in ("q8_0", "q6_k"):
        shape = (shape[0], shape[1] // 256 * 256)
    if dtype == "i2_s_row4" and shape[0] % 4:
        shape = (4, shape[1] // 4)
    if dtype in ("i2_s", "i2_s_64", "bitnet32") and shape[1] % 128:
        shape = (shape[0], shape[1] // 128 * 128)
    x = np.random.default_rng(13).standard_normal(shape, np.float32)
    packed = quantize(x, dtype, isa="scalar", n_threads=1)
    back = dequantize(packed, dtype, shape, isa="scalar", n_threads=1)
    room = np.empty(x.size + 16, np.float32)
    start = -room.ctypes.data // 4 % 16
    bytes_room = np.empty(packed.size + 64, np.uint8)
    for n_threads in (1, 2, 3, 7):
        for shift in (0, 1, 4, 16):
            out = bytes_room[(shift - bytes_room.ctypes.data) % 64 :][: packed.size]
            out[...] = 7
            quantize(x, dtype, isa=isa, n_threads=n_threads, out=out)
            assert np.array_equal(out, packed)
        for shift in (0, 1, 4):  # 64-byte aligned, not at all, 16-byte aligned
            out = room[(start + shift) % 16 :][: x.size].reshape(shape)
            out[...] = 7
            dequantize(packed, dtype, shape, isa=isa, n_threads=n_threads, out=out)
            assert same_bits(out, back)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("dtype", "shape"), [("f32", (2, MIB + 24)), ("i2_s_row4", (8, 9000)), ("qk256", (700, 1000))])
def test_the_first_of_several_unfit_elements_is_named(dtype, shape, isa, n_threads):
    """Whatever the order in which the parts of a tensor are looked at."""
    rng = np.random.default_rng(15)
    x = rng.standard_normal(shape, np.float32)
    how = {"layout": TERNARY.get(dtype, "128"), "isa": isa, "n_threads": n_threads}
    for count in (1, 2, 5, 40):
        at = np.sort(rng.choice(x.size, count, replace=False))
        bad = x.copy()
        bad.reshape(-1)[at] = np.nan
        row, column = divmod(int(at[0]), shape[1])
        for scale in ("absmean", 1):
            with pytest.raises(ValueError, match=re.escape(f"element {at[0]} (row {row}, column {column}) is nan")):
                quantize(bad, "i2_s" if dtype in TERNARY else dtype, scale=scale, **how)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_threads_of_an_earlier_call_are_not_used_after_fork():
    x = np.random.default_rng(16).standard_normal((1024, 2048), np.float32)
    expected = quantize(x, "i2_s", n_threads=2)  # leaves a pool
    child = os.fork()
    if child == 0:
        same = False
        signal.alarm(30)  # who waits for threads that stayed behind waits for ever
        try:
            same = np.array_equal(quantize(x, "i2_s", n_threads=2), expected)
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(quantize(x, "i2_s", n_threads=2), expected)


def test_calls_at_the_same_time_share_no_pool():
    x = np.random.default_rng(17).standard_normal((1024, 1024), np.float32)
    expected = {n: quantize(x[: 512 * n], "i2_s", n_threads=1) for n in (1, 2)}

    def convert(i):
        return np.array_equal(quantize(x[: 512 * (1 + i % 2)], "i2_s", n_threads=2 + i % 3), expected[1 + i % 2])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(convert, range(60)))


class Guarded:
    """Memory whose last byte is followed by a page that must not be touched."""

    def __init__(self, size):
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.map = mmap.mmap(-1, room + mmap.PAGESIZE)
        base = ffi.cast("uintptr_t", ffi.from_buffer(self.map))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        assert protect(ctypes.c_void_p(int(base) + room), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
        self.array = np.frombuffer(self.map, np.uint8, size, room - size)
        self.pointer = ffi.cast("uint8_t *", int(base) + room - size)
        self.before = np.frombuffer(self.map, np.uint8, room - size)


@pytest.mark.parametrize("dtype", CONVERTIBLE)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("units", [1, 3, 5, 7, 33])
def test_nothing_beside_the_arrays_is_touched(dtype, isa, units):
    n_rows = 4 if dtype == "i2_s_row4" else 1
    ne0 = units * UNIT.get(dtype, 1)
    number, kernels = DType(dtype).number, lib.bnc_kernels_get(_lib.isa_names().index(isa))
    size = nbytes(dtype, (n_rows, ne0))
    x, packed = Guarded(4 * n_rows * ne0), Guarded(size)
    values = np.random.default_rng(units).standard_normal(n_rows * ne0, np.float32)
    x.array.view(np.float32)[:] = values
    floats_ = ffi.cast("float *", x.pointer)
    _lib.call(
        lib.bnc_quantize, kernels, number, floats_, n_rows, ne0, lib.BNC_SCALE_ABSMEAN, 0, packed.pointer, size, 1
    )
    x.array[:] = 0
    _lib.call(lib.bnc_dequantize, kernels, number, packed.pointer, size, n_rows, ne0, floats_, 1)
    expected = quantize(values.reshape(n_rows, ne0), dtype)
    assert np.array_equal(packed.array, expected)
    assert same_bits(x.array.view(np.float32), dequantize(expected, dtype, (n_rows, ne0)).reshape(-1))
    assert not packed.before.any()
    assert not x.before.any()
