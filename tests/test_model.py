"""Binding a file to a model: what is accepted, and what every refusal says."""

import gc
import threading

import numpy as np
import psutil
import pytest
from gguf_bytes import F32, F64, I32, I64, STRING, U32, Tensor, array_kv, i2_s, kv
from small_model import BF16_TYPE, F16_TYPE, F32_TYPE, Q6_K_TYPE, Q8_0_TYPE, TYPE_36, Shape, small_model

from bitnet_core import GGUFError, GGUFReader, LiveViewsError, Model, UnsupportedModelError

ARCH = "bitnet-b1.58"


def opened(recipe, tmp_path, **options):
    return Model.from_file(recipe.write(tmp_path / "model.gguf"), **options)


def test_config_has_the_files_hyper_parameters(tmp_path):
    recipe = small_model(n_rot=16, freq_base=500000.0)
    with opened(recipe, tmp_path, isa="scalar", n_threads=3) as model:
        c, s = model.config, recipe.shape
        for name in ("arch", "n_vocab", "n_ctx", "n_embd", "n_layer", "n_head", "n_head_kv", "n_rot", "n_ff"):
            assert getattr(c, name) == getattr(s, name)
        assert (c.n_embd_head, c.dtype, c.head_dtype, c.tied_head) == (32, "i2_s", "f16", True)
        assert (c.rms_eps, c.rope_freq_base) == (np.float32(1e-5), 500000.0)
        assert (model.isa, model.n_threads) == ("scalar", 3)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["i2_s", "qk256"])
def test_bytes_per_token_is_the_sum_of_what_is_read(tmp_path, dtype, tied):
    recipe = small_model(dtype=dtype, tied=tied)
    expected = 0
    for name, tensor in recipe.tensors.items():
        if name == "token_embd.weight" and not tied:
            continue  # one row of it, below
        expected += len(tensor.data) - (32 if tensor.type_id == TYPE_36 and dtype == "i2_s" else 0)
    with opened(recipe, tmp_path) as model:
        assert model.bytes_per_token == expected + 2 * recipe.shape.n_embd


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "bitnet-25", "bitnet"])
@pytest.mark.parametrize("head_type", [F32_TYPE, F16_TYPE, BF16_TYPE, Q8_0_TYPE, Q6_K_TYPE])
def test_architectures_and_head_types_open(tmp_path, arch, head_type):
    with opened(small_model(arch=arch, n_embd=256, head_type=head_type, tied=False), tmp_path) as model:
        assert model.config.arch == arch
        names = {F32_TYPE: "f32", F16_TYPE: "f16", BF16_TYPE: "bf16", Q8_0_TYPE: "q8_0", Q6_K_TYPE: "q6_k"}
        assert model.config.head_dtype == names[head_type]


def test_hyper_parameters_may_have_any_integer_width(tmp_path):
    recipe = small_model()
    recipe.kvs["n"] = kv(f"{ARCH}.attention.key_length", I64, 32)
    with opened(recipe, tmp_path) as model:
        assert model.config.n_embd_head == 32


def without(name):
    def change(recipe):
        (recipe.tensors if name in recipe.tensors else recipe.kvs).pop(name)

    return change


def with_kv(key, type_id, value):
    return lambda recipe: recipe.kvs.__setitem__(key, kv(key, type_id, value))


def with_array(key, elem_type, values):
    return lambda recipe: recipe.kvs.__setitem__(key, array_kv(key, elem_type, values))


def with_tensor(name, dims, type_id, data):
    return lambda recipe: recipe.tensors.__setitem__(name, Tensor(name, dims, type_id, data))


def with_scale(name, scale):
    def change(recipe):
        tensor = recipe.tensors[name]
        tensor.data = tensor.data[:-32] + np.float32(scale).tobytes() + bytes(28)

    return change


NAN_NORM = np.array([1] * 5 + [np.nan] + [1] * 122, "<f4").tobytes()
HALF_MATRIX = i2_s([0] * 128 * 64, 1.0)
UNSUPPORTED = {
    "no architecture": (without("general.architecture"), "general.architecture is missing"),
    "architecture is a number": (with_kv("general.architecture", U32, 1), "missing or no string"),
    "unknown architecture": (
        with_kv("general.architecture", STRING, "llama"),
        "architecture 'llama' is not supported; supported: bitnet-b1.58, bitnet-25, bitnet",
    ),
    "no layers key": (without(f"{ARCH}.block_count"), f"{ARCH}.block_count is missing"),
    "100000 layers": (with_kv(f"{ARCH}.block_count", U32, 100000), "block_count must be an integer from 1 to 512"),
    "no layers": (with_kv(f"{ARCH}.block_count", U32, 0), "block_count must be an integer from 1 to 512"),
    "negative layers": (with_kv(f"{ARCH}.block_count", I32, -1), "block_count must be an integer"),
    "layers as float": (with_kv(f"{ARCH}.block_count", F32, 2.0), "block_count must be an integer"),
    "more layers than tensors": (with_kv(f"{ARCH}.block_count", U32, 3), r"tensor blk.2.attn_norm.weight is missing"),
    "fewer layers than tensors": (with_kv(f"{ARCH}.block_count", U32, 1), "has no place in architecture"),
    "heads not a multiple": (with_kv(f"{ARCH}.attention.head_count_kv", U32, 3), "4 heads are not a multiple of 3"),
    "more kv heads": (
        with_kv(f"{ARCH}.attention.head_count_kv", U32, 8),
        "head_count_kv must be an integer from 1 to 4",
    ),
    "no heads": (with_kv(f"{ARCH}.attention.head_count", U32, 0), "attention.head_count must be an integer from 1"),
    "rotation beyond the head": (with_kv(f"{ARCH}.rope.dimension_count", U32, 64), "must be an integer from 2 to 32"),
    "odd rotation": (with_kv(f"{ARCH}.rope.dimension_count", U32, 31), "rope.dimension_count 31 is odd"),
    "odd head": (with_kv(f"{ARCH}.attention.key_length", U32, 31), "31 keys and 31 values"),
    "eps is NaN": (
        with_kv(f"{ARCH}.attention.layer_norm_rms_epsilon", F32, float("nan")),
        "layer_norm_rms_epsilon must be a finite positive float32",
    ),
    "eps is a double": (with_kv(f"{ARCH}.attention.layer_norm_rms_epsilon", F64, 1e-5), "must be a finite positive"),
    "eps is missing": (without(f"{ARCH}.attention.layer_norm_rms_epsilon"), "layer_norm_rms_epsilon is missing"),
    "base is negative": (with_kv(f"{ARCH}.rope.freq_base", F32, -1.0), "rope.freq_base must be a finite positive"),
    "scaled rotation": (with_kv(f"{ARCH}.rope.scaling.type", STRING, "yarn"), "scaled rotary positions"),
    "context of 2^32": (with_kv(f"{ARCH}.context_length", U32, 2**32 - 1), "context_length must be an integer"),
    "embedding length differs": (with_kv(f"{ARCH}.embedding_length", U32, 256), r"imply \{256, 300\}"),
    "vocabulary differs": (with_kv(f"{ARCH}.vocab_size", U32, 299), r"token_embd.weight has shape \{128, 300, 1, 1\}"),
    "no embedding": (without("token_embd.weight"), "tensor token_embd.weight is missing"),
    "no norm": (without("output_norm.weight"), "tensor output_norm.weight is missing"),
    "no sub-norm": (without("blk.1.ffn_sub_norm.weight"), "tensor blk.1.ffn_sub_norm.weight is missing"),
    "no matrix": (without("blk.0.attn_k.weight"), "tensor blk.0.attn_k.weight is missing"),
    "misshapen matrix": (
        with_tensor("blk.0.attn_q.weight", (128, 64), TYPE_36, HALF_MATRIX),
        r"tensor blk.0.attn_q.weight has shape \{128, 64, 1, 1\}; the hyper-parameters imply \{128, 128\}",
    ),
    "three dimensions": (
        with_tensor("blk.0.attn_norm.weight", (64, 2, 1), F32_TYPE, bytes(512)),
        r"attn_norm.weight has shape \{64, 2, 1, 1\}",
    ),
    "norm in f16": (
        with_tensor("blk.0.attn_norm.weight", (128,), F16_TYPE, bytes(256)),
        "blk.0.attn_norm.weight is f16; norms are f32",
    ),
    "norm with NaN": (
        with_tensor("blk.0.attn_norm.weight", (128,), F32_TYPE, NAN_NORM),
        "blk.0.attn_norm.weight: element 5 is not finite",
    ),
    "matrix in f16": (
        with_tensor("blk.0.attn_v.weight", (128, 64), F16_TYPE, bytes(2 * 128 * 64)),
        "blk.0.attn_v.weight is f16; matrices are i2_s or qk256",
    ),
    "matrix of an unknown type": (
        with_tensor("blk.0.attn_v.weight", (128, 64), 77, bytes(32)),
        "blk.0.attn_v.weight is an unknown type",
    ),
    "embedding in q4_0": (
        with_tensor("token_embd.weight", (128, 300), 2, bytes(300 * 4 * 18)),
        "token_embd.weight is q4_0; embeddings and heads are f32, f16, bf16, q8_0 or q6_k",
    ),
    "head in q8_0 of another shape": (
        with_tensor("output.weight", (128, 299), 8, bytes(299 * 4 * 34)),
        r"output.weight has shape \{128, 299, 1, 1\}; the hyper-parameters imply \{128, 300\}",
    ),
    "scale is infinite": (with_scale("blk.1.ffn_up.weight", np.inf), "blk.1.ffn_up.weight: its scale is not finite"),
    "control characters in a name": (
        with_kv("general.architecture", STRING, "a\x1b]0;title\x07"),
        r"architecture '\"?a[^\x1b]*",
    ),
    "unknown tensor": (
        with_tensor("blk.0.attn_q.bias", (128,), F32_TYPE, bytes(512)),
        "tensor blk.0.attn_q.bias has no place in architecture bitnet-b1.58",
    ),
    "tokens are numbers": (with_array("tokenizer.ggml.tokens", U32, [1, 2]), "tokens must be an array of strings"),
    "scores are bytes": (with_array("tokenizer.ggml.scores", 1, [1] * 300), "scores must be an array of float32"),
    "scores are no array": (with_kv("tokenizer.ggml.scores", F32, 1.0), "scores must be an array of float32"),
    "more tokens than rows": (with_array("tokenizer.ggml.tokens", STRING, ["a"] * 301), "has 301 elements"),
    "end token out of range": (
        with_kv("tokenizer.ggml.eos_token_id", U32, 300),
        "eos_token_id is not a token id below 300",
    ),
}


@pytest.mark.parametrize("case", UNSUPPORTED, ids=lambda name: name.replace(" ", "_"))
def test_unsupported_model_is_refused_by_name(tmp_path, case):
    change, message = UNSUPPORTED[case]
    recipe = small_model()
    change(recipe)
    with pytest.raises(UnsupportedModelError, match=message):
        opened(recipe, tmp_path)


def test_token_arrays_of_different_lengths_are_refused(tmp_path):
    recipe = small_model()
    with_array("tokenizer.ggml.tokens", STRING, ["a"] * 300)(recipe)
    with_array("tokenizer.ggml.token_type", I32, [1] * 299)(recipe)
    with pytest.raises(UnsupportedModelError, match="token_type has 299 elements; the vocabulary has 300"):
        opened(recipe, tmp_path)


def test_matrices_of_two_kinds_are_refused(tmp_path):
    recipe = small_model(dtype="qk256")
    name = "blk.1.attn_k.weight"
    recipe.tensors[name] = Tensor(name, (128, 64), TYPE_36, i2_s([0] * 128 * 64, 1.0))
    recipe.kvs.pop("bitnet_core.qk256")
    path = recipe.write(tmp_path / "model.gguf")
    with pytest.raises(GGUFError, match="qk256"):  # without the key, the sizes are ambiguous
        Model.from_file(path)


def test_rows_that_do_not_start_on_a_group_are_refused(tmp_path):
    """1bitLLM's 3B has rows of 8640 = 67.5 groups: every known engine computes nonsense on such a file."""
    recipe = small_model(n_embd=64, n_head=2, n_head_kv=1)
    with pytest.raises(
        UnsupportedModelError, match=r"attn_q.weight: rows of 64 columns do not start on a i2_s group of 128"
    ):
        opened(recipe, tmp_path)


def test_end_tokens_are_declared_or_found_by_text(tmp_path):
    recipe = small_model()
    with_array("tokenizer.ggml.tokens", STRING, [f"t{i}" for i in range(200)] + ["<|eot_id|>"] + ["x"] * 99)(recipe)
    with_kv("tokenizer.ggml.eos_token_id", U32, 7)(recipe)
    with opened(recipe, tmp_path) as model:
        assert model.end_tokens == {7, 200}
    with_kv("tokenizer.ggml.eot_token_id", U32, 9)(recipe)
    with opened(recipe, tmp_path) as model:
        assert model.end_tokens == {7, 9}
    with opened(small_model(), tmp_path) as model:
        assert model.end_tokens == set()


def test_validate_finds_the_code_without_meaning(tmp_path):
    recipe = small_model()
    tensor = recipe.tensors["blk.1.ffn_down.weight"]
    tensor.data = tensor.data[:77] + b"\xc0" + tensor.data[78:]
    with opened(recipe, tmp_path) as model:
        offset = model.reader.info(tensor.name).offset
    with pytest.raises(GGUFError, match=r"blk.1.ffn_down.weight holds code 3") as caught:
        opened(recipe, tmp_path, validate=True)
    assert caught.value.offset == offset + 77
    with opened(small_model(), tmp_path, validate=True) as model:
        assert model.config.dtype == "i2_s"


def test_reading_into_memory_gives_the_same_logits(tmp_path):
    path = small_model().write(tmp_path / "model.gguf")
    with Model.from_file(path) as mapped, Model.from_file(path, mmap=False) as read:
        np.testing.assert_array_equal(mapped.session().eval([1, 2, 3]), read.session().eval([1, 2, 3]))


def test_failed_open_closes_the_file(tmp_path):
    recipe = small_model()
    without("output_norm.weight")(recipe)
    path = recipe.write(tmp_path / "model.gguf")
    with pytest.raises(UnsupportedModelError):
        Model.from_file(path)
    mapped = psutil.Process().memory_maps()
    assert not any(m.path == str(path) for m in mapped)


def test_close_waits_for_sessions_and_views(tmp_path):
    model = opened(small_model(), tmp_path)
    session = model.session()
    with pytest.raises(LiveViewsError, match="1 session is still open"):
        model.close()
    assert session.eval([1]).shape == (300,)
    session.close()
    view = model.reader.tensors["output_norm.weight"]
    with pytest.raises(LiveViewsError):
        model.close()
    assert model.session().eval([1]).shape == (300,)
    gc.collect()
    del view
    model.close()
    model.close()
    with pytest.raises(ValueError, match="the model is closed"):
        model.session()


def test_session_outlives_dropped_model(tmp_path):
    session = opened(small_model(), tmp_path).session()
    gc.collect()
    assert np.isfinite(session.eval([1, 2])).all()


def test_a_model_serves_several_threads_at_once(tmp_path):
    tokens = list(range(40))
    with opened(small_model(), tmp_path, n_threads=2) as model:
        expected = model.session().eval(tokens)
        results = [None] * 4

        def work(i):
            results[i] = model.session().eval(tokens)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            np.testing.assert_array_equal(result, expected)
        gc.collect()


def test_a_model_is_a_reader_too(tmp_path):
    recipe = small_model()
    with opened(recipe, tmp_path) as model:
        assert isinstance(model.reader, GGUFReader)
        assert model.metadata["general.architecture"] == Shape().arch
        assert "i2_s" in repr(model)
