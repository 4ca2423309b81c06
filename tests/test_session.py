"""Evaluation: against Hugging Face's network, against numpy, and against itself in every way it may be cut."""

import ctypes
import ctypes.util
import json
import multiprocessing
import platform
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from small_model import BF16_TYPE, F32_TYPE, Q6_K_TYPE, Q8_0_TYPE, small_model

import bitnet_core.session as session_module
from bitnet_core import ContextOverflowError, Model, SamplingParams, SessionBusyError, UnsupportedModelError
from bitnet_core._lib import call, ffi, lib, new_error
from bitnet_core.dtypes import nbytes
from bitnet_core.kernels import isa_levels
from bitnet_core.session import token_array

GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


@pytest.fixture
def model(tmp_path):
    with Model.from_file(small_model().write(tmp_path / "model.gguf"), n_threads=2) as model:
        yield model


@pytest.fixture
def session(model):
    with model.session() as session:
        yield session


# ---- the oracle: docs in tests/vectors/README.md ----


def oracle(vectors, name):
    folder = vectors / "oracle"
    assert "BitNetForCausalLM" in json.loads((folder / f"{name}.json").read_text())["oracle"]
    return folder / f"{name}.gguf", np.load(folder / f"{name}.tokens.npy"), np.load(folder / f"{name}.logits.npy")


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_oracle_to_the_last_digits(vectors, isa):
    """With a float32 cache every row of tiny_a is within 1e-4 of float32 transformers: no code rounds the other way."""
    path, tokens, logits = oracle(vectors, "tiny_a")
    with Model.from_file(path, isa=isa) as model, model.session(kv_dtype="f32") as session:
        np.testing.assert_allclose(session.eval(tokens, all_logits=True), logits, rtol=0, atol=1e-4)


# Least cosine, and least fraction of equal argmaxes, of each type of cache.
ORACLE_LIMITS = {"f32": (0.999, 0.95), "f16": (0.999, 0.90), "q8_0": (0.998, 0.90)}


@pytest.mark.parametrize("name", ["tiny_a", "tiny_b"])
@pytest.mark.parametrize("kv_dtype", ORACLE_LIMITS)
def test_oracle(vectors, isa, name, kv_dtype):
    cosine, equal_argmax = ORACLE_LIMITS[kv_dtype]
    path, tokens, expected = oracle(vectors, name)
    with Model.from_file(path, isa=isa) as model, model.session(kv_dtype=kv_dtype) as session:
        logits = session.eval(tokens, all_logits=True)
    assert cosines(logits, expected).min() >= cosine
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() >= equal_argmax


# ---- numpy: what the oracle's two shapes do not have ----

SHAPES = {
    "squared relu": {},
    "silu": {"arch": "bitnet"},
    "separate head": {"tied": False},
    "f32 head": {"head_type": F32_TYPE},
    "bf16 head": {"head_type": BF16_TYPE, "tied": False},
    "q8_0 head": {"head_type": Q8_0_TYPE},
    "q6_k head": {"head_type": Q6_K_TYPE, "n_embd": 256, "n_rot": 64, "tied": False},
    "partial rotation": {"n_rot": 16},
    "one kv head": {"n_head_kv": 1},
    "no grouping": {"n_head_kv": 4},
    "head of 12": {"n_embd": 384, "n_head": 32, "n_head_kv": 8, "n_rot": 12},
    "qk256": {"dtype": "qk256"},
    "qk256 with padded rows": {"dtype": "qk256", "n_embd": 320, "n_head": 4, "n_ff": 200, "n_rot": 80},
    "small base": {"freq_base": 100.0, "rms_eps": 1e-3},
}


@pytest.mark.parametrize("case", SHAPES, ids=lambda name: name.replace(" ", "_"))
def test_network_in_numpy(tmp_path, isa, case):
    recipe = small_model(**SHAPES[case])
    tokens = np.random.default_rng(0).integers(0, recipe.shape.n_vocab, 20)
    with Model.from_file(recipe.write(tmp_path / "m.gguf"), isa=isa) as model:
        logits = model.session(kv_dtype="f32").eval(tokens, all_logits=True)
    expected = recipe.logits(tokens)
    close = np.abs(logits - expected).max(axis=1) < 1e-3 * np.abs(expected).max()
    assert close.mean() >= 0.75  # a code that rounds the other way moves a row and those after it
    assert cosines(logits, expected).min() >= 0.999


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head_type", [Q8_0_TYPE, Q6_K_TYPE])
def test_heads_of_blocks_are_the_values_they_stand_for(tmp_path, isa, head_type, tied):
    """The bits of a float32 head and embedding that hold the same values; in float64, some x has these logits."""
    blocks = small_model(n_vocab=600, n_embd=256, n_rot=64, head_type=head_type, tied=tied)
    floats = small_model(n_vocab=600, n_embd=256, n_rot=64, head_type=F32_TYPE, tied=tied)
    for name in ("token_embd.weight", "output.weight")[: 1 if tied else 2]:
        floats.add_floats(name, blocks.weights[name], F32_TYPE)
    tokens, logits = np.arange(20) * 7, []
    for recipe in (blocks, floats):
        with Model.from_file(recipe.write(tmp_path / "m.gguf"), isa=isa) as model, model.session() as session:
            logits.append(session.eval(tokens, all_logits=True))
            assert session.reads.weight_bytes == model.bytes_per_token + 19 * nbytes(model.config.head_dtype, 256)
    assert logits[0].tobytes() == logits[1].tobytes()
    head = blocks.weights["token_embd.weight" if tied else "output.weight"].astype(np.float64)
    x = np.linalg.lstsq(head, logits[0].T.astype(np.float64), rcond=None)[0]  # 256 unknowns, 600 logits
    assert np.abs(head @ x - logits[0].T).max() < 1e-4 * np.abs(logits[0]).max()


# ---- log-probabilities ----


def logprobs_of(logits, targets):
    """In float64: log-softmax of each row at its target."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return (wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)))[np.arange(len(targets)), targets]


@pytest.mark.parametrize("n_batch", [1, 7, 256])
def test_logprobs(tmp_path, n_batch):
    path = small_model(n_ctx=200).write(tmp_path / "m.gguf")
    tokens = np.random.default_rng(3).integers(0, 300, 150)
    with Model.from_file(path) as model, model.session() as one, model.session(n_batch=n_batch) as other:
        expected = logprobs_of(one.eval(tokens, all_logits=True)[:-1], tokens[1:])
        got = other.logprobs(tokens)
        assert got.shape == (150,)
        assert got.dtype == np.float64
        assert np.isnan(got[0])
        assert np.abs(got[1:] - expected).max() < 1e-12
        assert got[1:].max() < 0
        assert (other.n_past, one.eval([5]).tobytes()) == (150, other.eval([5]).tobytes())
        assert np.isnan(other.logprobs([1])[0])  # the logits of 5 are not kept
        assert other.reads == one.reads._replace(kv_bytes=152 * one.reads.kv_bytes // 151)


def test_logprobs_of_generated_tokens(tmp_path):
    """After a generation the last token's logits are known; a new session knows those of all."""
    path = small_model().write(tmp_path / "m.gguf")
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    with Model.from_file(path) as model, model.session() as session, model.session() as fresh:
        generated = list(session.generate([1, 2, 3], params))
        every = np.arange(300)
        logprobs = fresh.logprobs([1, 2, 3, *generated])[3:]
        fresh.rewind(3)
        assert logprobs[0] == logprobs_of(np.tile(fresh_logits(fresh), (300, 1)), every).max()  # greedy
        after = session.logprobs([7, 8])
        fresh.rewind(0)
        assert np.array_equal(after, fresh.logprobs([1, 2, 3, *generated, 7, 8])[-2:])
        assert session.n_past == 17


def fresh_logits(session):
    """Logits after the third token, which is evaluated again."""
    session.rewind(2)
    return session.eval([3])


def test_logprobs_that_cannot_be_leave_the_session_as_it_was(tmp_path):
    with Model.from_file(small_model().write(tmp_path / "m.gguf")) as model, model.session(n_batch=2) as session:
        session.eval([1])
        for tokens, error in (([2, 3, 4, 300], ValueError), ([], ValueError), ([1] * 64, ContextOverflowError)):
            with pytest.raises(error):
                session.logprobs(tokens)
            assert session.n_past == 1


# ---- the same bits ----


def test_bits_do_not_depend_on_level_threads_or_blocks(tmp_path):
    """Every level of kernels, 1 to 4 threads, one block, many blocks, token by token: one answer."""
    head_of_12 = small_model(n_embd=384, n_head=32, n_head_kv=8, n_rot=12, n_ff=512).write(tmp_path / "12.gguf")
    head_of_96 = small_model(n_embd=384, n_head=4, n_head_kv=1, n_rot=32, n_ff=512).write(tmp_path / "96.gguf")
    tokens = np.random.default_rng(1).integers(0, 300, 50)
    for path, kv_dtype in [(head_of_12, "f16"), (head_of_12, "f32"), (head_of_96, "f16"), (head_of_96, "q8_0")]:
        answers = []
        for level in isa_levels():
            with Model.from_file(path, isa=level) as model:
                for n_threads, n_batch in [(1, None), (2, 1), (2, 7), (3, 16), (4, 50)]:
                    with model.session(kv_dtype=kv_dtype, n_threads=n_threads, n_batch=n_batch) as session:
                        answers.append(session.eval(tokens, all_logits=True))
                with model.session(kv_dtype=kv_dtype) as session:
                    answers.append(np.stack([session.eval([token]) for token in tokens]))
        assert len(answers) == 6 * len(isa_levels())
        for answer in answers:
            np.testing.assert_array_equal(answer, answers[0])


def test_bits_over_several_chunks_of_attention(tmp_path):
    """Attention is cut at fixed positions: a context of three chunks has one answer as well, and it is numpy's."""
    recipe = small_model(n_ctx=700, n_layer=1, n_embd=256, n_head=8, n_head_kv=2)
    path = recipe.write(tmp_path / "m.gguf")
    tokens = np.random.default_rng(1).integers(0, 300, 530)
    with Model.from_file(path, isa="scalar", n_threads=1) as model, model.session(kv_dtype="f32") as session:
        expected = session.eval(tokens, all_logits=True)
    assert cosines(expected, recipe.logits(tokens)).min() >= 0.999
    for kv_dtype, cosine in (("f32", 1 - 1e-6), ("f16", 0.999), ("q8_0", 0.998)):
        answers = []
        for level in isa_levels():
            for n_threads, n_batch in [(1, 1), (2, 256), (3, 17), (2, 600)]:
                with (
                    Model.from_file(path, isa=level, n_threads=n_threads) as model,
                    model.session(kv_dtype=kv_dtype, n_batch=n_batch) as session,
                ):
                    answers.append(session.eval(tokens, all_logits=True))
        for answer in answers:
            np.testing.assert_array_equal(answer, expected if kv_dtype == "f32" else answers[0])
        assert cosines(answers[0], expected).min() >= cosine


def test_last_logits_are_the_last_row(session):
    tokens = [5, 9, 200, 31]
    rows = session.eval(tokens, all_logits=True)
    session.rewind(0)
    np.testing.assert_array_equal(session.eval(tokens), rows[-1])


def test_reads_are_those_of_all_blocks_of_a_call(model):
    with model.session(n_batch=4) as session:
        session.eval([1, 2, 3, 4])
        first = session.reads
        session.eval([5, 6, 7, 8])
        second = session.reads
        session.rewind(0)
        session.eval([1, 2, 3, 4, 5, 6, 7, 8])
        both = session.reads
        assert both.kv_bytes == first.kv_bytes + second.kv_bytes
        assert both.exact_rows == model.config.n_vocab  # the head is read once, for the last token
        head = 2 * model.config.n_vocab * model.config.n_embd
        assert both.weight_bytes == first.weight_bytes + second.weight_bytes - head
        next(session.generate([9], SamplingParams(temperature=0, max_tokens=1)))
        assert session.reads.weight_bytes == model.bytes_per_token


def test_qk256_model_named_by_the_caller(tmp_path):
    recipe = small_model(dtype="qk256")
    with Model.from_file(recipe.write(tmp_path / "a.gguf")) as model:
        expected = model.session().eval([1, 2, 3])
    recipe.kvs.pop("bitnet_core.qk256")
    with Model.from_file(recipe.write(tmp_path / "b.gguf"), dtype="qk256") as model:
        np.testing.assert_array_equal(model.session().eval([1, 2, 3]), expected)


def test_companion_scale_multiplies(tmp_path):
    """A tensor blk.N.ROLE.scale of one float, as files of arch "bitnet" may have, beside the scale of I2_S."""
    from gguf_bytes import Tensor

    recipe = small_model()
    values, scale = recipe.weights["blk.0.attn_output.weight"]
    recipe.tensors["s"] = Tensor("blk.0.attn_output.scale", (1,), F32_TYPE, np.float32(0.5).tobytes())
    recipe.weights["blk.0.attn_output.weight"] = (values, scale * np.float32(0.5))
    with Model.from_file(recipe.write(tmp_path / "m.gguf")) as model:
        logits = model.session(kv_dtype="f32").eval([1, 2, 3], all_logits=True)
    assert cosines(logits, recipe.logits(np.array([1, 2, 3]))).min() >= 0.9999


# ---- bad calls leave the session as it was ----


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([], ValueError, "at least one token"),
        ([1, 300], ValueError, "token 300 at index 1 is not in the vocabulary: 0 to 299"),
        ([-1], ValueError, "token -1 at index 0"),
        ([2**31], ValueError, "must fit int32"),
        ([2**63], ValueError, "must fit int32"),
        ([1.5], TypeError, "must be integers"),
        ([[1, 2]], ValueError, "flat sequence"),
        ([1] * 65, ContextOverflowError, "65 tokens after 3 do not fit a context of 64|65 tokens"),
        ([1] * 62, ContextOverflowError, "62 tokens after 3 do not fit a context of 64"),
    ],
)
def test_bad_tokens_change_nothing(session, tokens, error, message):
    before = session.eval([1, 2, 3])
    with pytest.raises(error, match=message):
        session.eval(tokens)
    assert session.n_past == 3
    session.rewind(2)
    np.testing.assert_array_equal(session.eval([3]), before)


def test_a_bad_token_in_a_later_block_changes_nothing(model):
    with model.session(n_batch=2) as session:
        session.eval([1])
        with pytest.raises(ValueError, match="token 999"):
            session.eval([1, 2, 3, 4, 999])
        assert session.n_past == 1


def test_context_can_be_filled_to_the_last_position(session):
    session.eval([1] * 63)
    assert np.isfinite(session.eval([2])).all()
    assert session.n_past == session.n_ctx == 64
    with pytest.raises(ContextOverflowError):
        session.eval([3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ctx": 65}, "n_ctx must be 1 to 64, the model's context, not 65"),
        ({"n_ctx": 0}, "n_ctx must be at least 1"),
        ({"n_batch": -1}, "n_batch must be at least 1"),
        ({"n_batch": 10**6}, "n_batch must be 1 to 16384"),
        ({"n_threads": 0}, "n_threads must be 1 to 256"),
        ({"n_threads": 257}, "n_threads must be 1 to 256"),
        ({"kv_dtype": "q4"}, "kv_dtype must be one of f16, f32, q8_0, not 'q4'"),
    ],
)
def test_bad_options(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.session(**options)


@pytest.mark.parametrize(
    ("shape", "head"), [({"n_embd": 384, "n_head": 8, "n_rot": 16}, 48), ({"n_embd": 1152, "n_head": 2}, 576)]
)
def test_a_q8_0_cache_needs_heads_of_whole_blocks(tmp_path, shape, head):
    message = f"a q8_0 cache needs heads of whole blocks of 32 elements, up to 512; this model's have {head}"
    with Model.from_file(small_model(n_layer=1, **shape).write(tmp_path / "m.gguf")) as model:
        with pytest.raises(UnsupportedModelError, match=message):
            model.session(kv_dtype="q8_0")
        assert np.isfinite(model.session().eval([1])).all()


# ---- position ----


def test_rewind(session):
    first = session.eval([1, 2, 3])
    session.eval([4, 5])
    session.rewind(2)
    assert session.n_past == 2
    np.testing.assert_array_equal(session.eval([3]), first)
    for n in (-1, 4):
        with pytest.raises(ValueError, match="can only rewind to 0 to 3"):
            session.rewind(n)


def test_fill_kv_is_seeded_noise(model):
    def logits(n, seed):
        with model.session() as session:
            session.fill_kv(n, seed)
            assert session.n_past == n
            return session.eval([7])

    np.testing.assert_array_equal(logits(30, 1), logits(30, 1))
    assert not np.array_equal(logits(30, 1), logits(30, 2))
    assert not np.array_equal(logits(30, 1), logits(31, 1))
    assert np.isfinite(logits(63, 1)).all()
    with model.session() as session, pytest.raises(ValueError, match="n_past must be 0 to 64, not 65"):
        session.fill_kv(65)


# ---- one thread at a time ----


def test_two_threads_in_one_session_raise(tmp_path):
    path = small_model(n_layer=8, n_ff=1024).write(tmp_path / "m.gguf")
    with Model.from_file(path, isa="scalar", n_threads=1) as model, model.session() as session:
        tokens = [1] * 60
        outcome = []
        worker = threading.Thread(target=lambda: outcome.append(session.eval(tokens)))
        worker.start()
        while not session._lock.locked():
            time.sleep(0)
        busy = 0
        while worker.is_alive():
            for call in (lambda: session.eval([1]), lambda: session.rewind(0), lambda: session.fill_kv(3)):
                try:
                    call()
                except SessionBusyError:
                    busy += 1
                else:
                    break  # the worker has left
            time.sleep(0.001)
        worker.join()
        assert busy > 0
        expected = model.session().eval(tokens)
        np.testing.assert_array_equal(outcome[0], expected)


def test_the_library_itself_refuses_a_second_caller(tmp_path):
    """Below Python's lock: of two threads that call into C at once, one is told so."""
    path = small_model(n_layer=8, n_ff=1024).write(tmp_path / "m.gguf")
    with Model.from_file(path, isa="scalar", n_threads=1) as model, model.session() as session:
        workspace = session._workspace
        tokens = np.ones(60, np.int32)
        data = ffi.from_buffer("int32_t[]", tokens)
        codes = []

        def work():
            request = ffi.new("bnc_request *", {"session": session.handle, "tokens": data, "n_tokens": tokens.size})
            codes.append(lib.bnc_eval(workspace.handle, request, 1, new_error()))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes) in ([lib.BNC_OK, lib.BNC_ERR_BUSY], [lib.BNC_OK, lib.BNC_ERR_CONTEXT])


def test_a_lock_left_by_an_interrupt_is_taken_back(session):
    session.eval([1])
    session._lock.acquire()  # as an interrupt between taking the lock and noting its owner leaves it
    assert session.eval([2]).shape == (300,)
    session._lock.acquire()
    session._owner = threading.get_ident()
    assert session.eval([2]).shape == (300,)
    assert not session._lock.locked()


def test_a_failed_call_keeps_the_pending_token(model):
    with model.session() as a, model.session() as b:
        tokens = list(a.generate([3, 1, 4], GREEDY))
        with pytest.raises(ValueError, match="token 999"):
            a.eval([999])
        assert a.n_past == 3 + 12
        np.testing.assert_array_equal(a.eval([9]), b.eval([3, 1, 4, *tokens, 9]))


def test_interrupted_calls_leave_no_half_state(session, monkeypatch):
    """Ctrl-C is noticed when the library has come back: what it did is undone, or the sequence is empty."""
    list(session.generate([1, 2, 3], GREEDY))

    def interrupted(function, *arguments, **keywords):
        call(function, *arguments, **keywords)
        if function in (lib.bnc_session_rewind, lib.bnc_session_fill_kv):
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(session_module, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.rewind(5)
    assert session.n_past == 5
    monkeypatch.setattr(session_module, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.fill_kv(20)
    assert session.n_past == 0


def test_the_callers_array_may_change_meanwhile():
    tokens = np.array([1, 2, 3], np.int32)
    assert not np.shares_memory(token_array(tokens), tokens)


def test_the_callers_float_mode_changes_nothing(model):
    """Workers and caller round alike, whatever the caller has set."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    tokens = list(range(40))
    with model.session(n_threads=2) as session:
        expected = session.eval(tokens, all_logits=True)
        session.rewind(0)
        upward = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())
        if upward is None:
            pytest.skip("the number of the rounding mode is not known here")
        before = libm.fegetround()
        try:
            assert libm.fesetround(upward) == 0
            logits = session.eval(tokens, all_logits=True)
            assert libm.fegetround() == upward
        finally:
            libm.fesetround(before)
        np.testing.assert_array_equal(logits, expected)


def _eval_in_child(session, queue):
    try:
        session.eval([1])
    except SessionBusyError as error:
        queue.put(str(error))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told(session):
    session.eval([1])
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_eval_in_child, args=(session, queue))
    child.start()
    assert "before a fork()" in queue.get()
    child.join()
    assert child.exitcode == 0
    assert session.eval([2]).shape == (300,)


def test_closed_session(session):
    session.close()
    session.close()
    assert session.closed
    assert "closed" in repr(session)
    for use in (lambda: session.eval([1]), lambda: session.n_past, lambda: list(session.generate([1]))):
        with pytest.raises(ValueError, match="the session is closed"):
            use()


# ---- what ran ----


def test_kernels_used_are_recorded_by_dispatch(isa, tmp_path):
    with Model.from_file(small_model().write(tmp_path / "k.gguf"), isa=isa) as model, model.session() as session:
        assert session.kernels_used() == ()
        session.eval([1])
        used = session.kernels_used()
        assert f"gemv_i2_s_{isa}" in used
        assert f"gemm_i2_s_{isa}" not in used
        session.eval([1, 2])
        assert f"gemm_i2_s_{isa}" in session.kernels_used()
        assert not any("silu" in name or "qk256" in name or "scores_f32" in name for name in used)
    with Model.from_file(tmp_path / "k.gguf", isa=isa, n_threads=3) as model, model.session() as session:
        session.eval([1])  # one token has less work than there are threads: whoever does it, it is noted
        assert {name.rsplit("_", 1)[0] for name in session.kernels_used()} >= {"rms_norm", "q8", "exps", "quantize_f16"}


def test_memory_is_as_reported(model):
    with model.session(n_ctx=10, n_batch=4) as session:
        c = model.config
        assert session.n_batch == 4
        assert session.kv_bytes == c.n_layer * 2 * c.n_head_kv * 10 * c.n_embd_head * 2
        assert 0 < session.scratch_bytes < 1 << 20
    rows = c.n_layer * 2 * c.n_head_kv * 10
    with model.session(n_ctx=10, kv_dtype="q8_0") as session:
        assert session.kv_bytes == rows * (c.n_embd_head // 32 * 34)
        session.eval([1, 2])
        session.eval([3])
        assert session.reads.kv_bytes == rows // 10 * 3 * (c.n_embd_head // 32 * 34)


# ---- generation ----


def test_greedy_generation_is_argmax_step_by_step(model):
    with model.session() as a, model.session() as b:
        ids, tokens = [3, 1, 4], []
        logits = b.eval(ids)
        for _ in range(GREEDY.max_tokens):
            tokens.append(int(logits.argmax()))
            logits = b.eval(tokens[-1:])
        assert list(a.generate(ids, GREEDY)) == tokens


def test_generation_continues_the_session(model):
    """Two halves, with the session used in between, are one whole."""
    with model.session() as whole, model.session() as halves:
        expected = list(whole.generate([3, 1, 4], GREEDY))
        first = list(halves.generate([3, 1, 4], SamplingParams(temperature=0.0, max_tokens=5)))
        assert halves.n_past == 3 + 5
        second = list(halves.generate([], SamplingParams(temperature=0.0, max_tokens=7)))
        assert first + second == expected
        assert halves.n_past == whole.n_past == 3 + 12


def test_eval_after_generation_comes_after_the_last_token(model):
    with model.session() as a, model.session() as b:
        tokens = list(a.generate([3, 1, 4], GREEDY))
        rows = a.eval([7, 8], all_logits=True)
        assert rows.shape == (2, 300)
        np.testing.assert_array_equal(rows, b.eval([3, 1, 4, *tokens, 7, 8], all_logits=True)[-2:])


def test_rewind_over_the_last_generated_token(model):
    with model.session() as a:
        tokens = list(a.generate([3, 1, 4], GREEDY))
        a.rewind(a.n_past)
        a.rewind(a.n_past - 1)
        assert a.n_past == 3 + 11
        assert int(a.eval(tokens[-1:]).argmax()) == int(model.session().eval([3, 1, 4, *tokens]).argmax())


def test_penalty_covers_the_whole_sequence(model):
    """Tokens of earlier calls count, rewound ones do not."""
    params = SamplingParams(temperature=0.0, max_tokens=12, repetition_penalty=1.5)
    with model.session() as whole, model.session() as parts:
        expected = list(whole.generate([3, 1, 4, 1, 5], params))
        parts.eval([3, 1, 4, 7])
        parts.rewind(3)
        assert list(parts.generate([1, 5], params)) == expected


def test_an_iterator_dropped_early_leaves_a_usable_session(model):
    with model.session() as a, model.session() as b:
        tokens = []
        for token in a.generate([3, 1, 4], GREEDY):
            tokens.append(token)
            if len(tokens) == 3:
                break
        assert a.n_past == 6
        np.testing.assert_array_equal(a.eval([9]), b.eval([3, 1, 4, *tokens, 9]))


def test_generation_stops_at_a_full_context(model):
    with model.session(n_ctx=8) as session:
        tokens = list(session.generate([1, 2, 3], GREEDY))
        assert len(tokens) == 6  # five find a place, the sixth follows the last position
        assert session.n_past == 8
        with pytest.raises(ContextOverflowError):
            session.eval([1])
    with model.session(n_ctx=3) as session:
        assert len(list(session.generate([1, 2, 3], GREEDY))) == 1
        with pytest.raises(ContextOverflowError):
            list(session.generate([1], GREEDY))


def test_changing_the_session_ends_its_generation(model):
    with model.session() as session:
        iterator = session.generate([1, 2, 3], GREEDY)
        next(iterator)
        session.eval([5])
        with pytest.raises(RuntimeError, match="changed while generate"):
            next(iterator)


def test_generate_needs_a_token(session):
    with pytest.raises(ValueError, match="at least one token"):
        session.generate([])
    with pytest.raises(ValueError, match="token 300"):
        list(session.generate([300]))
    assert session.n_past == 0
    assert list(session.generate([1, 2], SamplingParams(max_tokens=0))) == []
    assert session.n_past == 2


def test_stop_tokens_end_the_generation_and_are_not_yielded(model):
    with model.session() as a, model.session() as b:
        tokens = list(a.generate([3, 1, 4], GREEDY))
        stop = tokens[4]
        params = SamplingParams(temperature=0.0, max_tokens=12, stop=(stop,))
        assert list(b.generate([3, 1, 4], params)) == tokens[: tokens.index(stop)]


def test_end_of_sequence_ends_the_generation(tmp_path):
    from gguf_bytes import U32, kv

    recipe = small_model()
    with Model.from_file(recipe.write(tmp_path / "a.gguf")) as model:
        tokens = list(model.session().generate([3, 1, 4], GREEDY))
    key = "tokenizer.ggml.eos_token_id"
    recipe.kvs[key] = kv(key, U32, tokens[2])
    with Model.from_file(recipe.write(tmp_path / "b.gguf")) as model:
        assert list(model.session().generate([3, 1, 4], GREEDY)) == tokens[: tokens.index(tokens[2])]
        on = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
        assert list(model.session().generate([3, 1, 4], on)) == tokens


@pytest.mark.parametrize(
    "params", [SamplingParams(max_tokens=20), SamplingParams(max_tokens=20, repetition_penalty=1.3)]
)
def test_sampled_tokens_do_not_depend_on_level_or_threads(tmp_path, params):
    path = small_model().write(tmp_path / "m.gguf")
    runs = []
    for level in isa_levels():
        for n_threads in (1, 2, 3):
            with Model.from_file(path, isa=level, n_threads=n_threads) as model, model.session() as session:
                runs.append(list(session.generate([3, 1, 4], params)))
    assert len(runs[0]) == 20
    assert all(run == runs[0] for run in runs)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are found in /proc")
def test_threads_that_slept_may_run_where_they_might_before(session):
    """A worker that was woken on the caller's processor is moved by forbidding it that one, for a moment."""

    def allowed():
        rows = (path.read_text() for path in Path("/proc/self/task").glob("*/status"))
        return {line for text in rows for line in text.splitlines() if line.startswith("Cpus_allowed:")}

    before = allowed()
    for _ in range(20):
        time.sleep(0.005)  # longer than a worker spins
        session.rewind(0)
        session.eval([1])
    assert allowed() == before
