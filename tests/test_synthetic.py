"""Synthetic models: shapes, bytes, and that what they compute is sane."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from bitnet_core import Model, SamplingParams, dequantize, synthetic
from bitnet_core.gguf import GGUFReader
from bitnet_core.synthetic import DTYPES, HEADS, PRESETS, cached_model, cached_path, layout, write_model

# Of the complete tiny files with seed 42: what a cached file of this GENERATOR_VERSION holds may never change.
SHA256 = {
    "i2_s": "59a045ed8fa0eeb54ec2f2a14913df01d878dc9949a0766530cbebac9d376986",
    "qk256": "89a9de626a19ffab33958a82bed3c18f0f8bddba5499dcd7a8a04073231ea036",
    "tq2_0": "992045a623bb0839275e8df884c9260e085068ff0695c145112516cd821aa70f",
}

# The keys of microsoft/bitnet-b1.58-2B-4T-gguf in their order, where ? stands for the architecture.
PUBLISHED_KEYS = [
    "general.architecture",
    "general.name",
    "?.vocab_size",
    "?.context_length",
    "?.embedding_length",
    "?.block_count",
    "?.feed_forward_length",
    "?.rope.dimension_count",
    "?.attention.head_count",
    "?.attention.head_count_kv",
    "tokenizer.ggml.add_bos_token",
    "?.attention.layer_norm_rms_epsilon",
    "?.rope.freq_base",
    "general.file_type",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.chat_template",
    "general.quantization_version",
]


RUNNABLE = ("i2_s", "qk256")  # tq2_0 is for llama.cpp


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return {dtype: write_model(folder / f"{dtype}.gguf", "tiny", dtype=dtype) for dtype in DTYPES}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("BITNET_CACHE_DIR", str(folder))
    return folder


# ---- what a file holds ----


def test_2b_is_the_published_shape():
    """Sizes and names of microsoft/bitnet-b1.58-2B-4T-gguf, as in docs/formats.md."""
    made = layout("2b")
    assert len(made.tensors) == 332
    assert Counter(t.dtype for t in made.tensors) == {"f16": 1, "f32": 121, "i2_s": 210}
    sizes = {t.name: (t.shape, t.nbytes) for t in made.tensors}
    assert sizes["token_embd.weight"] == ((128256, 2560), 656_670_720)
    assert sizes["output_norm.weight"] == ((2560,), 10_240)
    assert {name.removeprefix("blk.29."): size for name, size in sizes.items() if name.startswith("blk.29.")} == {
        "attn_norm.weight": ((2560,), 10_240),
        "ffn_norm.weight": ((2560,), 10_240),
        "attn_sub_norm.weight": ((2560,), 10_240),
        "ffn_sub_norm.weight": ((6912,), 27_648),
        "attn_q.weight": ((2560, 2560), 1_638_432),
        "attn_output.weight": ((2560, 2560), 1_638_432),
        "attn_k.weight": ((640, 2560), 409_632),
        "attn_v.weight": ((640, 2560), 409_632),
        "ffn_gate.weight": ((6912, 2560), 4_423_712),
        "ffn_up.weight": ((6912, 2560), 4_423_712),
        "ffn_down.weight": ((2560, 6912), 4_423_712),
    }
    assert made.file_size - made.header_size == 1_179_449_920
    assert 8_000_000 < made.header_size < 8_700_000  # the published one is 8.35 MB
    assert sum(np.prod(t.shape) for t in made.tensors) == 2_412_820_480


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_fit_every_format(preset):
    shape = PRESETS[preset]
    assert shape.n_embd_head in (64, 128)
    assert shape.n_embd % 256 == shape.n_ff % 256 == 0
    assert shape.n_head % shape.n_head_kv == 0
    weights = sum(int(np.prod(t.shape)) for t in layout(preset).tensors)
    low, high = {"tiny": (1e6, 2e6), "125m": (120e6, 130e6), "700m": (680e6, 740e6), "2b": (2.4e9, 2.5e9)}[preset]
    assert low < weights < high


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_file(tiny, dtype):
    path = tiny[dtype]
    made = layout("tiny", dtype)
    assert path.stat().st_size == made.file_size <= 1_000_000
    with GGUFReader(path, strict=True) as reader:  # sequential offsets, known types, as other engines demand
        assert {i.name: (i.dtype, i.shape, i.nbytes) for i in reader.infos} == {
            t.name: (t.dtype, t.shape, t.nbytes) for t in made.tensors
        }
        meta = reader.metadata
        expected = [key.replace("?", "bitnet-b1.58") for key in PUBLISHED_KEYS]
        assert [key for key in meta if key in expected] == expected
        assert set(meta) - set(expected) == {"tokenizer.ggml.pre", "bitnet_core.synthetic"} | (
            {"bitnet_core.qk256"} if dtype == "qk256" else set()
        )
        assert meta["bitnet-b1.58.vocab_size"] == len(meta["tokenizer.ggml.tokens"]) == 512
        assert meta["general.file_type"] == (37 if dtype == "tq2_0" else 40)
        assert meta["tokenizer.ggml.pre"] == "llama-bpe"
        assert meta["tokenizer.ggml.tokens"][meta["tokenizer.ggml.bos_token_id"]] == "<|begin_of_text|>"
        assert meta["tokenizer.ggml.tokens"][meta["tokenizer.ggml.eos_token_id"]] == "<|end_of_text|>"
        assert not meta["tokenizer.ggml.scores"].any()


def test_key_types_are_exact(tiny):
    """Other engines compare the type ids: all counts u32 (4), reals f32 (6)."""
    data = tiny["i2_s"].read_bytes()
    for key in ("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"):
        assert type_id(data, f"bitnet-b1.58.{key}") == 4
    for key in ("rope.dimension_count", "attention.head_count", "attention.head_count_kv"):
        assert type_id(data, f"bitnet-b1.58.{key}") == 4
    for key in ("attention.layer_norm_rms_epsilon", "rope.freq_base"):
        assert type_id(data, f"bitnet-b1.58.{key}") == 6
    for key in ("general.file_type", "general.quantization_version", "tokenizer.ggml.bos_token_id"):
        assert type_id(data, key) == 4
    assert type_id(data, "tokenizer.ggml.add_bos_token") == 7


def type_id(data, key):
    """The type id behind a key, found by its bytes."""
    encoded = len(key).to_bytes(8, "little") + key.encode()
    at = data.index(encoded) + len(encoded)
    return int.from_bytes(data[at : at + 4], "little")


def test_tq2_0_holds_the_values_of_i2_s(tiny):
    """As the gguf package reads them: the same trits, the scale as near as a float16 comes; all else is equal."""
    with GGUFReader(tiny["i2_s"]) as ours, GGUFReader(tiny["tq2_0"]) as theirs:
        for info in ours.infos:
            a, b = np.array(ours.tensors[info.name]), np.array(theirs.tensors[info.name])
            if info.dtype == "i2_s":
                assert theirs.info(info.name).dtype == "tq2_0"
                a = dequantize(a, "i2_s", info.shape)
                b = gguf.quants.dequantize(b.reshape(info.shape[0], -1), gguf.GGMLQuantizationType.TQ2_0)
                assert np.array_equal(np.sign(a), np.sign(b))
                assert np.array_equal(a.astype(np.float16), b.astype(np.float16))
            else:
                assert np.array_equal(a, b)


def test_tq2_0_blocks_are_those_of_i2_s(monkeypatch):
    """A tensor that is made in several pieces: each has the codes of the same piece in I2_S."""
    monkeypatch.setattr(synthetic, "_BLOCK", 1 << 16)
    ours, theirs = (
        next(t for t in layout("125m", dtype).tensors if t.name == "blk.0.ffn_up.weight") for dtype in ("i2_s", "tq2_0")
    )
    assert theirs.n_blocks == ours.n_blocks == 6
    pieces = [synthetic._make_block(theirs, 42, i) for i in range(6)]
    assert sum(piece.size for piece in pieces) == theirs.nbytes
    for i, piece in enumerate(pieces):
        blocks = piece.reshape(-1, 66)
        first, _, _, last = (blocks[:, :64] >> shift & 3 for shift in (6, 4, 2, 0))
        codes = synthetic._make_block(ours, 42, i)[: 64 * len(blocks)].reshape(-1, 64)
        assert np.array_equal(last, codes >> 6)
        assert np.array_equal(first, codes & 3)
        assert (blocks[:, 64:].copy().view("<f2") == np.float16(ours.magnitude)).all()


def test_other_architecture(tmp_path):
    path = write_model(tmp_path / "x.gguf", "tiny", arch="bitnet")
    with Model.from_file(path) as model:
        assert model.config.arch == "bitnet"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "3b"}, "preset '3b' is not one of: tiny, 125m, 700m, 2b"),
        ({"preset": "tiny", "dtype": "f32"}, "dtype 'f32' is not one of: i2_s, qk256, tq2_0"),
        ({"preset": "tiny", "head_dtype": "q4_0"}, "head_dtype 'q4_0' is not one of: f16, q8_0, q6_k"),
        ({"preset": "tiny", "seed": -1}, "seed must not be negative"),
    ],
)
def test_unknown_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_model(tmp_path / "x.gguf", **arguments)
    with pytest.raises(ValueError, match=message):
        layout(**arguments)
    assert list(tmp_path.iterdir()) == []


# ---- its bytes ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_never_change(tiny, dtype):
    assert hashlib.sha256(tiny[dtype].read_bytes()).hexdigest() == SHA256[dtype]


@pytest.mark.parametrize("n_workers", [1, 7])
def test_bytes_do_not_depend_on_workers_or_blocks_made_ahead(tiny, tmp_path, monkeypatch, n_workers):
    monkeypatch.setattr(os, "cpu_count", lambda: n_workers)
    path = write_model(tmp_path / "x.gguf", "tiny")
    assert path.read_bytes() == tiny["i2_s"].read_bytes()


def test_a_tensor_of_many_blocks(monkeypatch):
    """Blocks differ, have the exact sizes, and the tail comes once, at the end."""
    tensor = next(t for t in layout("125m").tensors if t.name == "blk.0.ffn_up.weight")
    monkeypatch.setattr(synthetic, "_BLOCK", 1 << 16)
    blocks = [synthetic._make_block(tensor, 42, i) for i in range(tensor.n_blocks)]
    assert len(blocks) == 6
    assert sum(block.size for block in blocks) == tensor.nbytes
    assert blocks[-1][-32:].view("<f4")[0] == np.float32(1 / np.sqrt(768 * 2 / 3))
    assert not blocks[-1][-28:].any()
    assert len({block[:1000].tobytes() for block in blocks}) == 6


def test_seed_and_name_choose_the_bytes(tiny, tmp_path):
    other = write_model(tmp_path / "x.gguf", "tiny", seed=43)
    with GGUFReader(tiny["i2_s"]) as a, GGUFReader(other) as b:
        for info in a.infos:
            assert not np.array_equal(a.tensors[info.name], b.tensors[info.name])
        assert not np.array_equal(a.tensors["blk.0.ffn_up.weight"], a.tensors["blk.0.ffn_gate.weight"])
        assert not np.array_equal(a.tensors["blk.0.attn_q.weight"], a.tensors["blk.1.attn_q.weight"])


def test_distributions_i2_s(tiny):
    with GGUFReader(tiny["i2_s"]) as reader:
        for info in reader.infos:
            if info.dtype == "i2_s":
                d = np.float32(1 / np.sqrt(info.shape[1] * 2 / 3))
                w = dequantize(reader.tensors[info.name], "i2_s", info.shape)
                values, counts = np.unique(w, return_counts=True)
                assert np.array_equal(values, [-d, 0, d])
                # Each a third; the deviation of a share is sqrt(2/9/n).
                assert np.abs(counts / w.size - 1 / 3).max() < 5 * np.sqrt(2 / 9 / w.size)
        embd = np.array(reader.tensors["token_embd.weight"], np.float32)
        assert abs(embd.mean()) < 0.02
        assert abs(embd.std() - 1) < 0.02
        norm = np.array(reader.tensors["blk.0.ffn_norm.weight"])
        assert abs(norm.mean() - 1) < 0.03
        assert 0.07 < norm.std() < 0.13
        head = np.array(reader.tensors["output_norm.weight"])
        assert abs(np.abs(head).mean() - 3 / 16) < 0.01
        assert abs((head > 0).mean() - 0.5) < 0.15


def test_distributions_qk256(tiny):
    with GGUFReader(tiny["qk256"]) as reader:
        info = reader.info("blk.0.ffn_down.weight")
        w = dequantize(reader.tensors[info.name], "qk256", info.shape)
        values, counts = np.unique(w, return_counts=True)
        assert np.array_equal(values, [-2, -1, 1, 2])
        assert np.abs(counts / w.size - 1 / 4).max() < 5 * np.sqrt(3 / 16 / w.size)
        norm = np.array(reader.tensors["blk.0.ffn_sub_norm.weight"])
        assert abs(norm.mean() * np.sqrt(512 * 5 / 2) - 1) < 0.03


# ---- what it computes ----


@pytest.mark.parametrize("dtype", RUNNABLE)
def test_forward_pass_is_sane(tiny, dtype):
    with Model.from_file(tiny[dtype], validate=True) as model, model.session() as session:
        assert model.config.dtype == dtype
        logits = session.eval(np.random.default_rng(1).integers(512, size=64), all_logits=True)
        assert np.isfinite(logits).all()
        assert 2 < logits.std() < 4.5  # 3 by design
        assert np.abs(logits).max() < 30
        ids = list(session.generate([5], SamplingParams(temperature=0, max_tokens=60)))
        assert len(set(ids)) >= 15  # does not repeat itself for ever


@pytest.mark.parametrize("head_dtype", HEADS)
def test_heads(tmp_path, head_dtype):
    """Rows of any format have deviation 1, the file the size it said, and the model runs."""
    path = write_model(tmp_path / "x.gguf", "tiny", head_dtype=head_dtype)
    made = layout("tiny", head_dtype=head_dtype)
    assert path.stat().st_size == made.file_size
    embedding = made.tensors[0]
    with Model.from_file(path) as model, model.session() as session:
        assert (model.config.head_dtype, model.config.tied_head) == (head_dtype, True)
        data = np.array(model.reader.tensors[embedding.name])
        rows = dequantize(data.view(np.uint8), head_dtype, embedding.shape)
        assert 0.98 < rows.std() < 1.02
        assert np.unique(rows[0]).size > 60
        assert 2 < session.eval([1, 2, 3]).std() < 4.5


def test_pieces_of_a_head_are_whole_blocks():
    """2^20 is no multiple of 34 or 210."""
    for head_dtype, block_bytes in (("q8_0", 34), ("q6_k", 210)):
        embedding = layout("125m", head_dtype=head_dtype).tensors[0]
        assert embedding.bytes_at_a_time % block_bytes == 0
        assert (embedding.n_blocks - 1) * embedding.bytes_at_a_time < embedding.nbytes
        assert embedding.n_blocks * embedding.bytes_at_a_time >= embedding.nbytes


# ---- writing ----


def test_progress_counts_up_to_the_size(tmp_path):
    seen = []
    path = write_model(tmp_path / "x.gguf", "tiny", progress=lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    done = [d for d, _ in seen]
    assert {total for _, total in seen} == {size}
    assert done == sorted(done)
    assert done[-1] == size
    assert len(seen) == 25  # tiny has 24 tensors of one block


def test_interrupted_writing_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(tmp_path / "x.gguf", "tiny", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_noticed_first(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=10**9))
    with pytest.raises(OSError, match=r"needs 1,132\.\d MiB, the disk has 953\.7 MiB free"):
        write_model(tmp_path / "x.gguf", "2b")
    assert list(tmp_path.iterdir()) == []


# ---- the cache ----


def test_cached_model_is_written_once(cache):
    first = []
    path = cached_model("tiny", progress=lambda *_: first.append(1))
    assert path == cached_path("tiny") == cache / "tiny-i2_s-seed42-v1.gguf"
    assert first
    before = path.stat()
    again = []
    assert cached_model("tiny", progress=lambda *_: again.append(1)) == path
    assert not again
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert list(cache.iterdir()) == [path]


@pytest.mark.usefixtures("cache")
def test_cached_file_of_another_size_is_replaced():
    path = cached_model("tiny")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert cached_model("tiny").read_bytes() == whole


def test_cached_models_are_kept_apart(cache):
    names = {cached_model("tiny", dtype=dtype, seed=seed).name for dtype in DTYPES for seed in (1, 2)}
    for arch in synthetic.ARCHITECTURES:
        path = cached_model("tiny", arch=arch)
        names.add(path.name)
        with GGUFReader(path) as reader:
            assert reader.metadata["general.architecture"] == arch
    names |= {cached_model("tiny", head_dtype=head_dtype, seed=1).name for head_dtype in HEADS[1:]}
    assert len(names) == 2 * len(DTYPES) + 3 + 2
    assert {path.name for path in cache.iterdir()} == names


def test_processes_share_one_file(cache):
    code = "import sys; from bitnet_core.synthetic import cached_model; print(cached_model('tiny').stat().st_ino)"
    command = [sys.executable, "-c", code]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    inodes = {child.communicate(timeout=60)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(inodes) == 1
    assert len(list(cache.iterdir())) == 1


def test_what_a_killed_writer_left_of_a_cached_model_is_removed(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    monkeypatch.setenv("BITNET_CACHE_DIR", str(tmp_path))
    mine = [tmp_path / f".{name}-seed7-v1.gguf.1234abcd.tmp" for name in ("2b-qk256", "2b-i2_s-bitnet-25")]
    other = tmp_path / ".editor.tmp"
    for file in (*mine, other):
        file.touch()
    path = synthetic.cached_model("tiny")
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_architectures_are_those_that_run():
    table = (Path(__file__).parent.parent / "csrc" / "arch.def").read_text(encoding="utf-8")
    assert tuple(re.findall(r'^ARCH\("(.*?)"', table, re.MULTILINE)) == synthetic.ARCHITECTURES
