"""Random ternary models of real shapes: what tests and benchmarks run when no trained model is at hand.

A synthetic file is a complete GGUF model - every tensor, a whole vocabulary and merge list - whose weights are drawn
at random. It costs an engine what a trained model of that shape costs, and is laid out as other engines ask. What it
generates means nothing.

The bytes depend on nothing but preset, formats, seed, architecture and ``GENERATOR_VERSION``: not on threads, numpy's
version or the platform's mathematics, because only raw 64-bit draws of a bit generator, exact table look-ups and the
library's own quantizers are used. Each block of each tensor has its own stream, keyed by its name, so they can be made
in any order.

Magnitudes are chosen so that a forward pass stays of order 1 (variances below; a normalised input has variance 1):

* ``i2_s``: y = sum of ne0 terms t*x*d with E[t^2] = 2/3, so the scale d = 1/sqrt(ne0 * 2/3) gives y variance 1.
* ``tq2_0`` holds the values of ``i2_s``, but that each block of 256 has the scale as a float16.
* ``qk256`` has no scale, E[code^2] = (4+1+1+4)/4 = 5/2; the norm in front of a matrix carries 1/sqrt(ne0 * 5/2).
* The residual starts as an embedding row, deviation 1, and gains variance 1 twice a layer, so that token, attention
  and feed-forward network all have their say.
* The head is the embedding again: logits are embedding rows times normalised residual times output_norm. Weights of
  3/sqrt(n_embd) give the logits a plausible deviation of 3. Were they all positive, the input token's own row, still in
  the residual, would give it sqrt(n_embd) / sqrt(1 + 2 n_layer) deviations more than chance - 6 in the largest preset -
  and greedy decoding would repeat its input for ever; with random signs that sum has mean zero.

Example
-------
>>> import tempfile, pathlib
>>> folder = tempfile.TemporaryDirectory()
>>> path = write_model(pathlib.Path(folder.name) / "tiny.gguf", "tiny", seed=1)
>>> path.stat().st_size == layout("tiny", seed=1).file_size
True
>>> folder.cleanup()
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import os
import struct
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_core import dtypes
from bitnet_core.files import cache_dir, locked_folder
from bitnet_core.gguf_writer import GGUFWriter
from bitnet_core.synthetic_vocabulary import make_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    Progress = Callable[[int, int], None]  # (bytes done, bytes in total)

__all__ = [
    "ARCHITECTURES",
    "DTYPES",
    "GENERATOR_VERSION",
    "HEADS",
    "PRESETS",
    "Layout",
    "Preset",
    "TensorLayout",
    "cached_model",
    "cached_path",
    "layout",
    "write_model",
]

GENERATOR_VERSION = 1
"""Part of every cached file's name; goes up whenever the bytes of any preset change."""

DTYPES = ("i2_s", "qk256", "tq2_0")
"""Formats a synthetic model can have its matrices in; ``tq2_0`` is for llama.cpp, :class:`bitnet_core.Model` does not
run it."""

HEADS = ("f16", "q8_0", "q6_k")
"""Formats it can have its embedding in, which is also its head."""

ARCHITECTURES = ("bitnet-b1.58", "bitnet-25", "bitnet")
"""Architectures that can be declared: those that :class:`bitnet_core.Model` runs."""

# What cached_path makes, of any version.
_CACHED_NAMES = r"[0-9a-z]+-[0-9a-z_]+(-head-[0-9a-z_]+)?(-bitnet[-.0-9a-z]*)?-seed[0-9]+-v[0-9]+\.gguf"


@dataclass(frozen=True)
class Preset:
    """The shape of a model; hyper-parameters under GGUF's names."""

    name: str
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_ctx: int
    n_vocab: int
    n_special: int  # the last tokens of the vocabulary: control tokens, the first of them begins a text
    n_merges: int

    @property
    def n_embd_head(self) -> int:
        """Elements of one attention head."""
        return self.n_embd // self.n_head


# Row lengths are multiples of 256, so that every format fits without padding.
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", 256, 2, 4, 2, 512, 512, 512, 16, 240),
        Preset("125m", 768, 16, 12, 3, 2048, 2048, 32000, 256, 61336),
        # The shape of 1bitLLM/bitnet_b1_58-large, with heads of 128 instead of 96.
        Preset("700m", 1536, 24, 12, 12, 4096, 2048, 32000, 256, 61336),
        # microsoft/bitnet-b1.58-2B-4T, to the tensor.
        Preset("2b", 2560, 30, 20, 5, 6912, 4096, 128256, 256, 280147),
    )
}
"""The shapes by name: ``tiny`` (below 1 MB), ``125m``, ``700m`` and ``2b`` (that of BitNet b1.58 2B-4T)."""

_RMS_EPS = 1e-5
_ROPE_FREQ_BASE = 500000.0
_FILE_TYPES = {"i2_s": 40, "qk256": 40, "tq2_0": 37}  # those that go with tensors of id 36 and 35
_LOGIT_DEVIATION = 3.0
_NORM_JITTER = 0.1
_BLOCK = 1 << 20  # bytes made at a time, scales not counted, less what is not a whole block of the format
_I2_S_TAIL = 32  # scale and padding after the codes of a tensor
_TQ2_0_CODES, _TQ2_0_BYTES = 64, 66  # of a block: without and with its float16 scale
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)


@dataclass(frozen=True)
class TensorLayout:
    """One tensor of a synthetic model; the shape is in numpy's order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    magnitude: float  # f32: mean, but for the sign; i2_s, tq2_0: scale; qk256: not used; others: deviation
    random_signs: bool = False

    @property
    def code_bytes(self) -> int:
        """Bytes without the tail that I2_S has, and the scales that TQ2_0 has."""
        if self.dtype == "tq2_0":
            return self.nbytes // _TQ2_0_BYTES * _TQ2_0_CODES
        return self.nbytes - (_I2_S_TAIL if self.dtype == "i2_s" else 0)

    @property
    def n_blocks(self) -> int:
        """Pieces the data is made in; a tail belongs to the last one."""
        return math.ceil(self.code_bytes / self.bytes_at_a_time)

    @property
    def bytes_at_a_time(self) -> int:
        """Bytes of a piece, but for the last, counted as in ``code_bytes``."""
        unit = _TQ2_0_CODES if self.dtype == "tq2_0" else dtypes.DType(self.dtype).block_bytes
        return _BLOCK - _BLOCK % unit


@dataclass(frozen=True)
class Layout:
    """What a synthetic file will hold, known without writing it."""

    preset: Preset
    dtype: str
    head_dtype: str
    tensors: tuple[TensorLayout, ...]
    header_size: int
    file_size: int


def layout(
    preset: str, dtype: str = "i2_s", *, head_dtype: str = "f16", seed: int = 42, arch: str = "bitnet-b1.58"
) -> Layout:
    """Return the tensors and the exact size of the file that :func:`write_model` would write.

    Raises
    ------
    ValueError
        An unknown preset, dtype, head_dtype or architecture, or a negative seed.
    """
    writer = GGUFWriter(f"{preset}.gguf")  # only declared to: it creates nothing
    tensors = _declare(writer, preset, dtype, head_dtype, seed=seed, arch=arch)
    header_size = len(writer.header())
    return Layout(PRESETS[preset], dtype, head_dtype, tensors, header_size, header_size + writer.data_size)


def write_model(
    path: str | os.PathLike[str],
    preset: str,
    *,
    dtype: str = "i2_s",
    head_dtype: str = "f16",
    seed: int = 42,
    arch: str = "bitnet-b1.58",
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic model; the file appears under its name only when it is complete, replacing an older one.

    Parameters
    ----------
    path : str or os.PathLike
        The file; its folder must exist.
    preset : str
        A key of ``PRESETS``.
    dtype : {"i2_s", "qk256", "tq2_0"}
        Format of the matrices; norms are F32, as in the published model. With the same seed, the ternary values of
        "tq2_0" are those of "i2_s".
    head_dtype : {"f16", "q8_0", "q6_k"}
        Format of the embedding, which is also the head; F16 in the published model.
    seed : int
        Not negative. Same arguments, same bytes.
    arch : str
        GGUF architecture; "bitnet" for engines that know no other (it means SiLU instead of squared ReLU).
    progress : callable, optional
        Called with (bytes written, bytes in total) about once a megabyte, from the calling thread.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    ValueError
        An unknown preset, dtype, head_dtype or architecture, or a negative seed.
    OSError
        The disk is too small (checked before anything is written), or writing fails.
    """
    with GGUFWriter(path) as writer:
        tensors = _declare(writer, preset, dtype, head_dtype, seed=seed, arch=arch)
        total = writer.file_size
        done = total - writer.data_size
        blocks = _in_parallel(_jobs(tensors, seed))
        try:
            for tensor in tensors:
                for_tensor = itertools.islice(blocks, tensor.n_blocks)
                writer.write_tensor(tensor.name, _reported(for_tensor, done, total, progress))
                done += writer.padded(tensor.nbytes)
        finally:
            blocks.close()
    if progress is not None:
        progress(total, total)
    return Path(path)


def cached_model(
    preset: str,
    *,
    dtype: str = "i2_s",
    head_dtype: str = "f16",
    seed: int = 42,
    arch: str = "bitnet-b1.58",
    progress: Progress | None = None,
) -> Path:
    """Return a synthetic model in the cache folder, written on first use.

    The folder is ``BITNET_CACHE_DIR``, else the user's cache folder of this system. The file's name states all that
    determines its bytes; a file of any other size than it must have is written anew. Two processes that ask at once
    share one file: the second waits for the first.

    Parameters
    ----------
    preset, dtype, head_dtype, seed, arch, progress
        As for :func:`write_model`; ``progress`` is not called when the file is there.

    Returns
    -------
    pathlib.Path
        The file, absolute.
    """
    size = layout(preset, dtype, head_dtype=head_dtype, seed=seed, arch=arch).file_size
    path = cached_path(preset, dtype=dtype, head_dtype=head_dtype, seed=seed, arch=arch)
    if not _has_size(path, size):
        with locked_folder(path.parent, _CACHED_NAMES):
            if not _has_size(path, size):
                write_model(path, preset, dtype=dtype, head_dtype=head_dtype, seed=seed, arch=arch, progress=progress)
    return path


def cached_path(
    preset: str, *, dtype: str = "i2_s", head_dtype: str = "f16", seed: int = 42, arch: str = "bitnet-b1.58"
) -> Path:
    """Return where :func:`cached_model` keeps that model, whether or not it is there; absolute."""
    kind = _kind(dtype, head_dtype, "-") + ("" if arch == "bitnet-b1.58" else f"-{arch}")
    return cache_dir().absolute() / f"{preset}-{kind}-seed{seed}-v{GENERATOR_VERSION}.gguf"


def _kind(dtype: str, head_dtype: str, joint: str) -> str:
    """Name the formats of a model; one with an F16 head by its matrices alone, as before there were others."""
    return dtype if head_dtype == "f16" else f"{dtype}{joint}head{joint}{head_dtype}"


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _reported(
    blocks: Iterator[NDArray[np.uint8]], done: int, total: int, progress: Progress | None
) -> Iterator[NDArray[np.uint8]]:
    for block in blocks:
        yield block
        done += block.nbytes
        if progress is not None:
            progress(done, total)


# ---- what the file holds ----


def _declare(
    writer: GGUFWriter, preset_name: str, dtype: str, head_dtype: str, *, seed: int, arch: str
) -> tuple[TensorLayout, ...]:
    """Metadata in the published model's order, then the tensors. The types are exact: some engines insist on u32."""
    if preset_name not in PRESETS:
        raise ValueError(f"preset {preset_name!r} is not one of: {', '.join(PRESETS)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of: {', '.join(DTYPES)}")
    if head_dtype not in HEADS:
        raise ValueError(f"head_dtype {head_dtype!r} is not one of: {', '.join(HEADS)}")
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch {arch!r} is not one of: {', '.join(ARCHITECTURES)}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    preset = PRESETS[preset_name]
    vocabulary = make_vocabulary(preset.n_vocab, preset.n_special, preset.n_merges)
    bos, eos = vocabulary.bos, vocabulary.eos
    kvs: tuple[tuple[str, Any, str], ...] = (
        ("general.architecture", arch, "string"),
        ("general.name", f"bitnet-core synthetic {preset.name} {_kind(dtype, head_dtype, ' ')} seed {seed}", "string"),
        (f"{arch}.vocab_size", preset.n_vocab, "u32"),
        (f"{arch}.context_length", preset.n_ctx, "u32"),
        (f"{arch}.embedding_length", preset.n_embd, "u32"),
        (f"{arch}.block_count", preset.n_layer, "u32"),
        (f"{arch}.feed_forward_length", preset.n_ff, "u32"),
        (f"{arch}.rope.dimension_count", preset.n_embd_head, "u32"),
        (f"{arch}.attention.head_count", preset.n_head, "u32"),
        (f"{arch}.attention.head_count_kv", preset.n_head_kv, "u32"),
        ("tokenizer.ggml.add_bos_token", True, "bool"),
        (f"{arch}.attention.layer_norm_rms_epsilon", _RMS_EPS, "f32"),
        (f"{arch}.rope.freq_base", _ROPE_FREQ_BASE, "f32"),
        ("general.file_type", _FILE_TYPES[dtype], "u32"),
        ("tokenizer.ggml.model", "gpt2", "string"),
        ("tokenizer.ggml.pre", "llama-bpe", "string"),  # the published file lacks it, which misleads engines
        ("tokenizer.ggml.tokens", vocabulary.tokens, "[string]"),
        ("tokenizer.ggml.scores", np.zeros(preset.n_vocab, np.float32), "[f32]"),
        ("tokenizer.ggml.token_type", vocabulary.token_types, "[i32]"),
        ("tokenizer.ggml.merges", vocabulary.merges, "[string]"),
        ("tokenizer.ggml.bos_token_id", bos, "u32"),
        ("tokenizer.ggml.eos_token_id", eos, "u32"),
        ("tokenizer.ggml.padding_token_id", eos, "u32"),
        ("tokenizer.chat_template", _CHAT_TEMPLATE, "string"),
        ("general.quantization_version", 2, "u32"),
        ("bitnet_core.synthetic", f"preset {preset.name} seed {seed} version {GENERATOR_VERSION}", "string"),
        *([("bitnet_core.qk256", True, "bool")] if dtype == "qk256" else []),
    )
    for key, value, value_type in kvs:
        writer.add(key, value, value_type)
    tensors = tuple(_tensors(preset, dtype, head_dtype))
    for tensor in tensors:
        gguf_type = dtypes.DType(tensor.dtype).gguf_type
        writer.add_tensor(tensor.name, tensor.shape, gguf_type=gguf_type, nbytes=tensor.nbytes)
    return tensors


def _tensors(preset: Preset, dtype: str, head_dtype: str) -> Iterator[TensorLayout]:
    """Every tensor, under the names and in the order of the published model, except that layers count up."""
    n_embd, n_ff, n_kv = preset.n_embd, preset.n_ff, preset.n_head_kv * preset.n_embd_head

    def tensor(name: str, dtype: str, shape: tuple[int, ...], magnitude: float) -> TensorLayout:
        return TensorLayout(name, dtype, shape, dtypes.nbytes(dtype, shape), magnitude)

    def norm(name: str, ne0: int) -> TensorLayout:
        return tensor(name, "f32", (ne0,), 1 / math.sqrt(ne0 * 5 / 2) if dtype == "qk256" else 1.0)

    def matrix(name: str, n_rows: int, ne0: int) -> TensorLayout:
        return tensor(name, dtype, (n_rows, ne0), 1 / math.sqrt(ne0 * 2 / 3))

    yield tensor("token_embd.weight", head_dtype, (preset.n_vocab, n_embd), 1.0)
    for i in range(preset.n_layer):
        yield norm(f"blk.{i}.attn_norm.weight", n_embd)
        yield matrix(f"blk.{i}.ffn_down.weight", n_embd, n_ff)
        yield norm(f"blk.{i}.ffn_sub_norm.weight", n_ff)
        yield matrix(f"blk.{i}.ffn_gate.weight", n_ff, n_embd)
        yield matrix(f"blk.{i}.ffn_up.weight", n_ff, n_embd)
        yield norm(f"blk.{i}.ffn_norm.weight", n_embd)
        yield norm(f"blk.{i}.attn_sub_norm.weight", n_embd)
        yield matrix(f"blk.{i}.attn_k.weight", n_kv, n_embd)
        yield matrix(f"blk.{i}.attn_output.weight", n_embd, n_embd)
        yield matrix(f"blk.{i}.attn_q.weight", n_embd, n_embd)
        yield matrix(f"blk.{i}.attn_v.weight", n_kv, n_embd)
    output_norm = tensor("output_norm.weight", "f32", (n_embd,), _LOGIT_DEVIATION / math.sqrt(n_embd))
    yield replace(output_norm, random_signs=True)


# ---- its bytes ----


def _jobs(tensors: tuple[TensorLayout, ...], seed: int) -> Iterator[Callable[[], NDArray[np.uint8]]]:
    for tensor in tensors:
        for block in range(tensor.n_blocks):
            yield functools.partial(_make_block, tensor, seed, block)


def _make_block(tensor: TensorLayout, seed: int, block: int) -> NDArray[np.uint8]:
    """Return the bytes of one block, the same whenever and wherever it is made."""
    key = hashlib.sha256(f"bitnet_core.synthetic {GENERATOR_VERSION} {seed} {tensor.name} {block}".encode()).digest()
    bits = np.random.SFC64(np.random.SeedSequence(int.from_bytes(key, "little")))
    nbytes = min(tensor.bytes_at_a_time, tensor.code_bytes - block * tensor.bytes_at_a_time)
    data = _MAKERS[tensor.dtype](tensor, bits, nbytes)
    if tensor.dtype == "i2_s" and block == tensor.n_blocks - 1:
        tail = struct.pack("<f", tensor.magnitude).ljust(_I2_S_TAIL, b"\0")
        return np.concatenate([data, np.frombuffer(tail, np.uint8)])
    return data


def _make_f32(tensor: TensorLayout, bits: np.random.SFC64, nbytes: int) -> NDArray[np.uint8]:
    values = tensor.magnitude * (1 + _NORM_JITTER * _look_up(_gaussian(), _draws(bits, nbytes // 4)))
    if tensor.random_signs:
        values[_draws(bits, nbytes // 4) & 1 == 1] *= -1
    return values.astype("<f4").view(np.uint8)


def _make_f16(tensor: TensorLayout, bits: np.random.SFC64, nbytes: int) -> NDArray[np.uint8]:
    return _look_up(_gaussian_f16(tensor.magnitude), _draws(bits, nbytes // 2)).view(np.uint8)


def _make_quantized(tensor: TensorLayout, bits: np.random.SFC64, nbytes: int) -> NDArray[np.uint8]:
    dtype = dtypes.DType(tensor.dtype)
    draws = _draws(bits, nbytes // dtype.block_bytes * dtype.block)
    values = _look_up(_gaussian_f16(tensor.magnitude), draws).astype(np.float32)
    return dtypes.quantize(values, dtype, n_threads=1)


def _make_i2_s(_tensor: TensorLayout, bits: np.random.SFC64, nbytes: int) -> NDArray[np.uint8]:
    return _look_up(_four_trits(), _draws(bits, nbytes))


def _make_tq2_0(tensor: TensorLayout, bits: np.random.SFC64, nbytes: int) -> NDArray[np.uint8]:
    """Return the trits of I2_S in blocks: a byte has its four fields in reverse order, and a scale follows each 256."""
    blocks = np.empty((nbytes // _TQ2_0_CODES, _TQ2_0_BYTES), np.uint8)
    blocks[:, :_TQ2_0_CODES] = _look_up(_four_trits_reversed(), _draws(bits, nbytes)).reshape(-1, _TQ2_0_CODES)
    blocks[:, _TQ2_0_CODES:] = np.array([tensor.magnitude], "<f2").view(np.uint8)
    return blocks.reshape(-1)


def _make_qk256(_tensor: TensorLayout, bits: np.random.SFC64, nbytes: int) -> NDArray[np.uint8]:
    return _draws(bits, math.ceil(nbytes / 2)).view(np.uint8)[:nbytes]  # every code means something


_MAKERS: dict[str, Callable[[TensorLayout, np.random.SFC64, int], NDArray[np.uint8]]] = {
    "f32": _make_f32,
    "f16": _make_f16,
    "q8_0": _make_quantized,
    "q6_k": _make_quantized,
    "i2_s": _make_i2_s,
    "qk256": _make_qk256,
    "tq2_0": _make_tq2_0,
}


def _draws(bits: np.random.SFC64, n: int) -> NDArray[np.uint16]:
    """Draw n uniform 16-bit numbers, in the order a little-endian machine sees them."""
    return bits.random_raw(math.ceil(n / 4)).astype("<u8", copy=False).view("<u2")[:n]


def _look_up(table: NDArray[Any], draws: NDArray[np.uint16]) -> NDArray[Any]:
    return table.take(draws, mode="clip")  # all 65536 indices exist; this mode does not look for others


@functools.cache
def _gaussian() -> NDArray[np.float64]:
    """65536 equally likely values of a normal distribution: its quantiles, so no more than 4.3 deviations out."""
    normal = NormalDist()
    lower = np.array([normal.inv_cdf((i + 0.5) / 65536) for i in range(32768)])
    return np.concatenate([lower, -lower[::-1]])


@functools.cache
def _gaussian_f16(deviation: float) -> NDArray[np.float16]:
    return (_gaussian() * deviation).astype("<f2")


@functools.cache
def _four_trits() -> NDArray[np.uint8]:
    """Return a byte of four 2-bit codes 0, 1, 2 for each 16-bit draw; each byte has 65536/81 = 809.1 of them, +-1."""
    codes = range(3)
    bytes81 = [a << 6 | b << 4 | c << 2 | d for a in codes for b in codes for c in codes for d in codes]
    return np.repeat(np.array(bytes81, np.uint8), np.diff(-(-np.arange(82) * 65536 // 81)))


@functools.cache
def _four_trits_reversed() -> NDArray[np.uint8]:
    codes = _four_trits()
    return ((codes & 3) << 6 | (codes >> 2 & 3) << 4 | (codes >> 4 & 3) << 2 | codes >> 6).astype(np.uint8)


def _in_parallel(
    jobs: Iterator[Callable[[], NDArray[np.uint8]]],
) -> Generator[NDArray[np.uint8], None, None]:
    """Results in the order of the jobs, a few of them made ahead: memory stays bounded while the disk is slow."""
    n_workers = min(8, os.cpu_count() or 1)
    ahead: deque[Future[NDArray[np.uint8]]] = deque()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            for job in jobs:
                ahead.append(pool.submit(job))
                if len(ahead) > 2 * n_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
