"""Packed weights: five trits a byte, against numpy, and models that read them against the same models from the file."""

from __future__ import annotations

import gc
import os
from dataclasses import replace

import numpy as np
import psutil
import pytest
from small_model import small_model
from test_cli import bitnet
from test_kernels import product, random_codes

from bitnet_core import GGUFError, GGUFReader, Model, SamplingParams, UnsupportedModelError, dtypes, kernels, memory
from bitnet_core import model as model_module
from bitnet_core.bench import plan, run
from bitnet_core.gguf_writer import GGUFWriter
from bitnet_core.synthetic import cached_model, write_model

GREEDY = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
# Rows longer than a block of 320, and of no whole number of them; heads and neighbours of sizes that no split divides.
SHAPE = {"n_embd": 384, "n_head": 3, "n_head_kv": 1, "n_rot": 128, "n_ff": 896, "n_vocab": 301}


def digits_of(packed):
    """(n, 5): the first digits of byte / 256 in base 3."""
    b, digits = packed.astype(np.int64).ravel(), []
    for _ in range(5):
        digits.append(3 * b // 256)
        b = 3 * b % 256
    return np.stack(digits, axis=-1)


def values_of(packed, n_rows, ne0):
    """The matrix (n_rows, ne0) that pack5 bytes stand for."""
    blocks = digits_of(packed).reshape(n_rows, -1, 64, 5) - 1
    return blocks.transpose(0, 1, 3, 2).reshape(n_rows, -1)[:, :ne0]


def level_packs(isa):
    """Whether the kernels that a level chooses for packed matrices are of no lower level than those for the file's."""
    levels = kernels.isa_levels()
    up_to = levels[: levels.index(isa) + 1]

    def best(op, dtype):
        return max(up_to.index(k.isa) for k in kernels.available() if (k.op, k.dtype) == (op, dtype) and k.isa in up_to)

    return all(best(op, "pack5") >= best(op, "i2_s") for op in ("gemv", "gemm"))


# ---- the format ----


@pytest.mark.parametrize(("n_rows", "ne0"), [(1, 128), (5, 256), (3, 384), (7, 640), (13, 2560), (2, 6912)])
def test_packed_rows_hold_the_values(isa, n_rows, ne0):
    w, values = random_codes("i2_s", n_rows, ne0)
    packed = kernels.pack(w, "i2_s", (n_rows, ne0), isa=isa)
    assert packed.size == dtypes.nbytes("pack5", (n_rows, ne0)) == n_rows * -(-ne0 // 320) * 64
    np.testing.assert_array_equal(values_of(packed, n_rows, ne0), values)
    padding = values_of(packed, n_rows, -(-ne0 // 320) * 320)[:, ne0:]
    assert not padding.any()


def test_all_243_fives_are_written_and_read():
    fives = np.stack(np.meshgrid(*[[-1, 0, 1]] * 5, indexing="ij"), axis=-1).reshape(243, 5)
    values = np.zeros((4, 320), np.float32)
    for row in range(4):
        part = fives[64 * row : 64 * row + 64]
        for field in range(5):
            values[row, 64 * field : 64 * field + len(part)] = part[:, field]
    w = dtypes.quantize(np.pad(values, ((0, 0), (0, 64))), "i2_s", scale=1.0)
    packed = kernels.pack(w, "i2_s", (4, 384)).reshape(4, 2, 64)[:, 0].ravel()
    np.testing.assert_array_equal(digits_of(packed[:243]) - 1, fives)
    assert np.unique(packed[:243]).size == 243


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_every_byte_means_its_five_digits(isa, n_tokens):
    """The bytes that packing never writes, too: no kernel may differ on them."""
    w = np.arange(256, dtype=np.uint8)
    q = np.random.default_rng(1).integers(-128, 128, (n_tokens, 320), dtype=np.int8)
    expected = product(values_of(w, 4, 320), q)
    np.testing.assert_array_equal(kernels.matmul(w, "pack5", 4, q, isa=isa), expected)
    np.testing.assert_array_equal(kernels.matmul(w, "pack5", 4, q[0], isa=isa), expected[0])


@pytest.mark.parametrize("ne0", [128, 256, 384, 640, 2560, 6912, 8192])
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5, 16])
def test_matmul_is_that_of_the_file(isa, ne0, n_tokens):
    w, values = random_codes("i2_s", 13, ne0)
    packed = kernels.pack(w, "i2_s", (13, ne0))
    q = np.random.default_rng(2).integers(-128, 128, (n_tokens, ne0), dtype=np.int8)
    for n_threads in (1, 2, 3):
        y = kernels.matmul(packed, "pack5", 13, q, isa=isa, n_threads=n_threads)
        np.testing.assert_array_equal(y, product(values, q))


@pytest.mark.parametrize(("byte", "value"), [(0, -1), (255, 1)])
@pytest.mark.parametrize("activation", [127, -128])
@pytest.mark.parametrize("n_tokens", [1, 2])
def test_the_largest_sums_of_long_rows_do_not_wrap(isa, byte, value, activation, n_tokens):
    """Three times 320 * 1024 columns: the sums of one lane must be taken out in between."""
    ne0 = 3 * 320 * 1024 + 640
    w = np.full(dtypes.nbytes("pack5", (5, ne0)), byte, np.uint8)
    q = np.full((n_tokens, ne0), activation, np.int8)
    y = kernels.matmul(w, "pack5", 5, q, isa=isa)
    np.testing.assert_array_equal(y, np.full((n_tokens, 5), value * activation * ne0))


def test_a_code_without_meaning_is_not_packed():
    w, _ = random_codes("i2_s", 300, 128)
    w = w.copy()
    w[32 * 290 + 7] |= 0b11 << 4
    w[32 * 299] |= 0b11
    with pytest.raises(ValueError, match=f"byte {32 * 290 + 7} holds code 3"):
        kernels.pack(w, "i2_s", (300, 128))


def test_four_values_cannot_be_packed():
    w, _ = random_codes("qk256", 4, 256)
    with pytest.raises(UnsupportedModelError, match="qk256 cannot be packed: only i2_s has three values"):
        kernels.pack(w, "qk256", (4, 256))


@pytest.mark.parametrize(
    ("n_bytes", "shape", "message"),
    [
        (64, (1, 128), "1 x 128 of i2_s take 64 bytes, packed 64, not 65 and 64"),
        (0, (1, 100), "rows of 100 columns do not start on a i2_s group"),
        (0, (0, 128), "at least one element"),
    ],
)
def test_wrong_sizes_are_named(n_bytes, shape, message):
    with pytest.raises(ValueError, match=message):
        kernels.pack(bytes(n_bytes + 1), "i2_s", shape)


def test_no_file_holds_it(tmp_path):
    assert dtypes.DType("pack5").gguf_type == -1
    path = small_model().write(tmp_path / "m.gguf")
    with pytest.raises(ValueError, match="dtype='pack5' is not what type id 36 can mean"):
        GGUFReader(path, dtype="pack5")
    with GGUFWriter(tmp_path / "w.gguf") as writer, pytest.raises(ValueError, match="no file can hold type id -1"):
        writer.add_tensor("w", (1, 320), gguf_type=dtypes.DType("pack5").gguf_type, nbytes=64)
    with pytest.raises(ValueError, match="'pack5' is known by its size alone"):
        dtypes.quantize(np.zeros((1, 320), np.float32), "pack5")
    recipe = small_model()
    name = "blk.0.attn_q.weight"
    recipe.tensors[name] = replace(recipe.tensors[name], type_id=2**32 - 1)
    with pytest.raises(UnsupportedModelError, match=f"tensor {name} is an unknown type"):
        Model.from_file(recipe.write(tmp_path / "no.gguf"))


# ---- models ----


def everything(path, isa, weights, n_threads=2):
    """Logits of a prompt in one piece and token by token, tokens, and the kernels that ran."""
    model = Model.from_file(path, isa=isa, weights=weights, n_threads=n_threads)
    with model, model.session(n_batch=7) as session:
        prompt = session.eval(np.arange(20), all_logits=True)
        single = session.eval([21])
        tokens = list(session.generate([22], GREEDY))
        return prompt, single, tokens, session.kernels_used()


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_logits_and_tokens_are_those_of_the_file(tmp_path, isa, n_threads):
    if not level_packs(isa):
        pytest.skip(f"packed weights would be slower at {isa}")
    path = small_model(**SHAPE).write(tmp_path / "m.gguf")
    *expected, used_file = everything(path, isa, "file", n_threads)
    *got, used = everything(path, isa, "packed", n_threads)
    for a, b in zip(expected[:2], got[:2], strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))
    assert got[2] == expected[2]
    assert {f"gemv_pack5_{isa}", f"gemm_pack5_{isa}"} <= set(used)
    assert not any("_i2_s_" in name for name in used)
    assert not any("pack5" in name for name in used_file)


def test_what_would_be_slower_is_refused(tmp_path):
    if "avx2" not in kernels.isa_levels():
        pytest.skip("no level without a kernel for packed weights")
    path = small_model().write(tmp_path / "m.gguf")
    reason = "packed weights would be slower here: the best gemv for them is gemv_pack5_scalar, for the file's it is"
    with pytest.raises(UnsupportedModelError, match=f"{reason} gemv_i2_s_avx2"):
        Model.from_file(path, isa="avx2", weights="packed")
    with Model.from_file(path, isa="avx2", weights="auto") as model:
        assert model.packing.weights == "file"
        assert reason in model.packing.reason
        assert model.packing.gain is None
    path.unlink()  # nothing of the failed call holds it, or Windows would say so


def test_qk256_models_stay_in_the_file(tmp_path):
    path = small_model(dtype="qk256").write(tmp_path / "m.gguf")
    with pytest.raises(UnsupportedModelError, match="qk256 cannot be packed"):
        Model.from_file(path, weights="packed")
    with Model.from_file(path, weights="auto") as model:
        assert (model.packing.weights, model.packing.nbytes) == ("file", 0)
        assert "qk256 cannot be packed" in model.packing.reason


@pytest.mark.parametrize(("at_least", "chosen"), [(0.0, "packed"), (1e9, "file")])
def test_auto_goes_by_the_measured_gain(tmp_path, monkeypatch, at_least, chosen):
    monkeypatch.setattr(model_module, "_PACK_FROM", at_least)
    path = small_model(**SHAPE).write(tmp_path / "m.gguf")
    with Model.from_file(path, weights="auto", isa="scalar") as model:
        packing = model.packing
        assert packing.weights == chosen
        assert packing.gain > 0
        assert packing.seconds > 0
        assert (packing.nbytes > 0) == (chosen == "packed")
        expected = "" if chosen == "packed" else f"packed weights are {packing.gain:.2f} times as fast, which is not"
        assert packing.reason.startswith(expected)
        assert bool(packing.reason) == bool(expected)
    *_, tokens, _ = everything(path, "scalar", "auto")
    assert tokens == everything(path, "scalar", "file")[2]


def test_the_default_is_the_file(tmp_path):
    path = small_model().write(tmp_path / "m.gguf")
    with Model.from_file(path) as model:
        assert (model.packing.weights, model.packing.nbytes, model.packing.seconds) == ("file", 0, 0)
        assert "packed" not in repr(model)
    with pytest.raises(ValueError, match="weights must be one of file, packed, auto, not 'fast'"):
        Model.from_file(path, weights="fast")


def test_bytes_a_token_are_those_of_the_tensors(tmp_path):
    recipe = small_model(**SHAPE)
    path = recipe.write(tmp_path / "m.gguf")
    matrices = [t for name, t in recipe.tensors.items() if ".attn_" in name or ".ffn_" in name]
    matrices = [t for t in matrices if t.type_id == 36]
    packed = sum(t.dims[1] * -(-t.dims[0] // 320) * 64 for t in matrices)
    others = sum(len(t.data) for t in recipe.tensors.values()) - sum(len(t.data) for t in matrices)
    with Model.from_file(path, weights="packed", isa="scalar") as model, model.session() as session:
        assert model.packing.nbytes == packed
        assert f"i2_s packed: {packed / 1e6:.1f} MB in" in repr(model)
        assert model.config.dtype == "i2_s"
        assert model.bytes_per_token == packed + others + 2 * 384
        session.eval([1, 2, 3])
        assert session.reads.weight_bytes == packed + others + 3 * 2 * 384


def test_a_code_without_meaning_is_named(tmp_path):
    recipe = small_model(**SHAPE)
    name = "blk.1.ffn_up.weight"
    data = bytearray(recipe.tensors[name].data)
    data[500 * 96 + 5] |= 0b1100
    recipe.tensors[name] = replace(recipe.tensors[name], data=bytes(data))
    path = recipe.write(tmp_path / "m.gguf")
    with GGUFReader(path) as reader:
        offset = reader.info(name).offset
    for weights in ("packed", "auto"):
        with pytest.raises(GGUFError, match=f"tensor {name} holds code 3, .* cannot be packed") as caught:
            Model.from_file(path, weights=weights, isa="scalar")
        assert caught.value.offset == offset + 500 * 96 + 5
    with Model.from_file(path, isa="scalar") as model:  # from the file it counts as 2, as documented
        assert model.packing.weights == "file"


def test_without_a_mapping(tmp_path):
    path = small_model(**SHAPE).write(tmp_path / "m.gguf")
    expected = everything(path, "scalar", "file")[0]
    with Model.from_file(path, mmap=False, weights="packed", isa="scalar") as model, model.session() as session:
        np.testing.assert_array_equal(session.eval(np.arange(20), all_logits=True), expected)


def test_the_files_pages_are_given_back(tmp_path):
    """One copy of the matrices, not two; and closing the model frees it."""
    process = psutil.Process()
    if not hasattr(process.memory_info(), "shared"):
        pytest.skip("this system does not tell file-backed pages apart")
    if not level_packs(kernels.chosen_isa()):
        pytest.skip(f"packed weights would be slower at {kernels.chosen_isa()}")
    path = write_model(tmp_path / "m.gguf", "125m")
    gc.collect()
    before = process.memory_info()
    with Model.from_file(path, weights="packed") as model:
        after = process.memory_info()
        packed = model.packing.nbytes
        assert packed > 16e6
        assert after.shared - before.shared < packed / 4
        assert after.rss - before.rss < 1.5 * packed
    assert process.memory_info().rss - before.rss < packed / 2


@pytest.mark.skipif(bool(os.environ.get("BITNET_SKIP_SLOW_TESTS")), reason="BITNET_SKIP_SLOW_TESTS is set")
def test_the_2b_model():
    """What it reads a token, from the sizes of its tensors; the same tokens; never the file and the copy in memory."""
    if not level_packs(kernels.chosen_isa()):
        pytest.skip(f"packed weights would be slower at {kernels.chosen_isa()}")
    path = cached_model("2b")
    with memory.Growth() as growth:
        model = Model.from_file(path, weights="packed")
    with model, Model.from_file(path) as plain:
        infos = [info for info in model.reader.infos if info.dtype == "i2_s"]
        packed = sum(info.shape[0] * -(-info.shape[1] // 320) * 64 for info in infos)
        norms = sum(info.nbytes for info in model.reader.infos if info.dtype == "f32")
        assert model.packing.nbytes == packed == 418775040
        assert 0.8 * packed < growth.anonymous < packed + (32 << 20)
        assert growth.file_backed < 64 << 20
        if growth.peak_is_exact:  # what is measured, 128 MiB of the file, is there twice for a moment
            assert growth.peak < packed + (192 << 20) < 1.1 * model.reader.size
        tokens = []
        for each in (model, plain):
            with each.session(64) as session:
                tokens.append(list(session.generate([1, 2, 3], replace(GREEDY, max_tokens=4))))
                reads = session.reads
            if each is model:
                row = 2 * model.config.n_embd
                assert reads.weight_bytes == packed + norms + row + model.screen_bytes + reads.exact_rows * row
                assert reads.weight_bytes <= 630e6
        assert tokens[0] == tokens[1]


# ---- the command ----


def test_commands_pack(tiny_model, tiny_qk256_model):
    options = ["--isa", "scalar", "--weights", "packed"]
    result = bitnet("generate", tiny_model, "--ids", "1,2,3", "-n", 12, "--temperature", 0, *options)
    plain = bitnet("generate", tiny_model, "--ids", "1,2,3", "-n", 12, "--temperature", 0)
    assert result.stdout == plain.stdout
    assert "scalar, weights packed: " in result.stderr
    assert "packed" not in plain.stderr
    stays = bitnet("generate", tiny_qk256_model, "--ids", "1", "-n", 1, "--weights", "auto")
    assert "weights from the file (qk256 cannot be packed: " in stays.stderr
    report = bitnet("targets", tiny_qk256_model, "--quick", "--weights", "auto")
    assert "qk256, from the file (qk256 cannot be packed: " in report.stdout
    table = bitnet("bench", tiny_model, "-p", "4", "-n", "0", "-r", 1, "--isa", "scalar", "--weights", "file,packed")
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.stdout.splitlines()]
    assert [row[header.index("weights")] for row in rows] == ["file", "packed"]


def test_bench_records_the_packing(tiny_model):
    cases = plan([tiny_model], n_prompt=[], n_gen=[2], isa=["scalar"], weights=["file", "packed"])
    file, packed = run(cases, n_repetitions=1)
    assert (file["weights"], file["packed_bytes"], file["pack_s"], file["pack_gain"]) == ("file", 0, 0.0, None)
    with Model.from_file(tiny_model, weights="packed", isa="scalar") as model:
        assert packed["packed_bytes"] == model.packing.nbytes
    assert packed["weights"] == "packed"
    assert min(packed["pack_s"], packed["pack_gain"]) > 0


def test_bench_measures_the_gain_with_the_threads_of_the_case(tiny_model, monkeypatch):
    packed_with = []
    real = model_module._pack

    def noting(handle, weights, n_threads):
        packed_with.append((weights, n_threads))
        return real(handle, weights, n_threads)

    monkeypatch.setattr(model_module, "_pack", noting)
    options = {"n_prompt": [], "n_gen": [1], "isa": ["scalar"], "n_threads": [1, 3]}
    records = list(run(plan([tiny_model], weights=["packed"], **options), n_repetitions=1))
    assert packed_with == [("packed", 1), ("packed", 3)]
    assert [record["n_threads"] for record in records] == [1, 3]
    packed_with.clear()
    list(run(plan([tiny_model], **options), n_repetitions=1))
    assert len(packed_with) == 1  # from the file one model serves all
