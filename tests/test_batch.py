"""A batch gives each sequence the tokens it would get alone, whoever runs beside it, joins or leaves."""

import os
import threading
import time

import numpy as np
import pytest
from small_model import small_model

from bitnet_core import ContextOverflowError, LiveViewsError, Model, SamplingParams, SessionBusyError
from bitnet_core._lib import ffi, lib
from bitnet_core.batch import _Member
from bitnet_core.workspace import Workspace

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


@pytest.fixture
def model(tmp_path):
    with Model.from_file(small_model().write(tmp_path / "model.gguf"), n_threads=2) as model:
        yield model


def alone(model, prompt, params, **options):
    with model.session(**options) as session:
        return list(session.generate(prompt, params))


def mixed_requests(n_vocab, n=9):
    """Prompts of many lengths, and every way to draw a token: all of the head, its best, penalties, seeds."""
    rng = np.random.default_rng(5)
    ways = [
        {"temperature": 0.0},
        {"temperature": 0.9, "top_k": 7},
        {"temperature": 1.2, "top_k": 0, "top_p": 0.95},
        {"temperature": 0.0, "repetition_penalty": 1.4},
    ]
    return [
        (
            rng.integers(0, n_vocab, int(rng.integers(1, 30))),
            SamplingParams(max_tokens=int(rng.integers(1, 25)), seed=i, ignore_eos=i % 2 == 0, **ways[i % len(ways)]),
        )
        for i in range(n)
    ]


# ---- the tokens ----


@pytest.mark.parametrize("dtype", ["i2_s", "qk256"])
@pytest.mark.parametrize("head", ["exact", "screened"])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_tokens_are_those_of_a_session(tmp_path, isa, dtype, head, n_threads):
    path = small_model(dtype=dtype, n_vocab=700, tied=False).write(tmp_path / "m.gguf")
    with (
        Model.from_file(path, isa=isa, head=head, n_threads=n_threads) as model,
        model.batch(n_seq=4, n_batch=16) as batch,
    ):
        requests = mixed_requests(700)
        expected = [alone(model, *request) for request in requests]
        sequences = [batch.join(*request) for request in requests]  # more than have a place: five wait
        assert len(batch.waiting) == len(requests)
        for sequence, token in batch:
            assert sequence.tokens[-1] == token
        assert [sequence.tokens for sequence in sequences] == expected


def test_sequences_join_and_leave_at_any_time(model):
    """Whoever comes and goes, what a sequence has got is the beginning of what it would get alone."""
    rng = np.random.default_rng(1)
    requests = mixed_requests(model.config.n_vocab, 40)
    expected = [alone(model, *request) for request in requests]
    left = 0
    with model.batch(n_seq=3, n_batch=8) as batch:
        live, n_joined = {}, 0
        while n_joined < len(requests) or batch.running or batch.waiting:
            while n_joined < len(requests) and rng.random() < 0.4:
                live[n_joined] = batch.join(*requests[n_joined])
                n_joined += 1
            if live and rng.random() < 0.1:
                batch.leave(live[int(rng.choice(list(live)))])
            batch.step()
            assert len(batch.running) <= 3
            for i in [i for i, sequence in live.items() if sequence.finish_reason]:
                sequence = live.pop(i)
                assert sequence.tokens == expected[i][: len(sequence.tokens)]
                if sequence.finish_reason == "left":
                    left += 1
                else:
                    assert sequence.tokens == expected[i]
    assert 0 < left < len(requests)


@pytest.mark.parametrize("kv_dtype", ["f16", "f32"])
def test_generate(model, kv_dtype):
    prompts = [[1, 2, 3], [4], list(range(40))]
    with model.batch(kv_dtype=kv_dtype) as batch:
        tokens = batch.generate(prompts, GREEDY)
        assert not batch.running
    assert tokens == [alone(model, prompt, GREEDY, kv_dtype=kv_dtype) for prompt in prompts]


def test_long_contexts_of_different_depths(tmp_path):
    """Chunks of attention are shared out over ragged rows: lengths around their edges of 256."""
    path = small_model(n_ctx=1100, n_layer=1).write(tmp_path / "m.gguf")
    lengths = (1, 255, 256, 257, 700, 1085)
    prompts = [np.arange(n) % 300 for n in lengths]
    for n_threads in (1, 2, 3):
        with Model.from_file(path, n_threads=n_threads) as model, model.batch() as batch:
            assert batch.generate(prompts, GREEDY) == [alone(model, prompt, GREEDY) for prompt in prompts]


# ---- how a sequence ends ----


def test_finish_reasons(model):
    free = alone(model, [1, 2], SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))
    stop = free[4]
    with model.batch(n_ctx=20) as batch:
        stopped = batch.join([1, 2], SamplingParams(temperature=0, max_tokens=30, stop=(stop,), ignore_eos=True))
        counted = batch.join([1, 2], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
        full = batch.join([1, 2], SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))
        nothing = batch.join([1, 2], SamplingParams(temperature=0, max_tokens=0))
        dropped = batch.join([1, 2], GREEDY)
        batch.step()
        batch.leave(dropped)
        batch.leave(dropped)
        list(batch)
    assert (stopped.finish_reason, stopped.tokens) == ("stop", free[: free.index(stop)])
    assert (counted.finish_reason, counted.tokens) == ("length", free[:3])
    assert (full.finish_reason, full.tokens) == ("context", free[:19])  # the last one has no place of its own
    assert (nothing.finish_reason, nothing.tokens) == ("length", [])
    assert (dropped.finish_reason, dropped.tokens) == ("left", free[:1])
    assert repr(counted) == "<Sequence 2+3 tokens, length>"


def test_memory_follows_the_sequences(model):
    with model.batch(n_seq=2) as batch:
        assert batch.kv_bytes == 0
        first = batch.join([1], GREEDY)
        second = batch.join([1], GREEDY)
        third = batch.join([1], GREEDY)
        batch.step()
        with model.session() as session:
            assert batch.kv_bytes == 2 * session.kv_bytes
        assert batch.running == (first, second)
        assert batch.waiting == (third,)
        batch.leave(first)
        batch.leave(third)
        assert batch.running == (second,)
        assert batch.waiting == ()


def test_weights_are_read_once_a_step(model):
    with model.batch() as batch, model.session() as session:
        session.eval([1])
        one = session.reads
        batch.join([1], SamplingParams(temperature=1, top_k=0, ignore_eos=True))
        batch.join([1], SamplingParams(temperature=1, top_k=0, ignore_eos=True))
        batch.step()
        embedding_row = model.config.n_embd * 2
        assert batch.reads.weight_bytes == one.weight_bytes + embedding_row
        assert batch.reads.kv_bytes == 2 * one.kv_bytes
        assert any(name.startswith("gemm_") for name in batch.kernels_used())


# ---- what goes wrong ----


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([], ValueError, "at least one token"),
        ([1, 300], ValueError, "token 300 at index 1 is not in the vocabulary: 0 to 299"),
        ([-1], ValueError, "token -1 at index 0"),
        ([[1]], ValueError, "flat sequence"),
        ([1.5], TypeError, "must be integers"),
        ([1] * 65, ContextOverflowError, "65 tokens do not fit a context of 64"),
    ],
)
def test_a_bad_prompt_changes_nothing(model, tokens, error, message):
    with model.batch() as batch:
        good = batch.join([1, 2], GREEDY)
        batch.step()
        with pytest.raises(error, match=message):
            batch.join(tokens)
        list(batch)
        assert good.tokens == alone(model, [1, 2], GREEDY)


def test_a_bad_prompt_of_several_leaves_nobody_behind(model):
    with model.batch() as batch:
        with pytest.raises(ValueError, match="token 300 at index 0"):
            batch.generate([[1, 2], [300]], GREEDY)
        assert batch.waiting == ()
        assert batch.generate([[1, 2]], GREEDY) == [alone(model, [1, 2], GREEDY)]


def test_a_sequence_leaves_the_batch_it_joined(model):
    with model.batch() as batch, model.batch() as other:
        sequence = batch.join([1, 2], GREEDY)
        for step in (batch.step, lambda: None):  # while it waits, and while it runs
            with pytest.raises(ValueError, match="not in this batch"):
                other.leave(sequence)
            step()
        list(batch)
        assert sequence.finish_reason == "length"
        other.leave(sequence)  # it has finished: nothing is left to drop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_seq": 0}, "n_seq must be at least 1"),
        ({"n_seq": 1025}, "n_seq must be 1 to 1024"),
        ({"n_seq": 20_000}, "n_seq must be 1 to 1024"),
        ({"n_seq": 8, "n_batch": 7}, r"n_batch \(7\) must be at least n_seq \(8\)"),
        ({"n_ctx": 65}, "n_ctx must be 1 to 64, the model's context, not 65"),
        ({"kv_dtype": "q4"}, "kv_dtype must be one of"),
    ],
)
def test_bad_options(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.batch(**options)


def test_closing(model):
    batch = model.batch()
    running = batch.join([1], GREEDY)
    batch.step()
    waiting = batch.join([1], GREEDY)
    with pytest.raises(LiveViewsError, match="1 session is still open"):
        model.close()
    batch.close()
    batch.close()
    assert running.finish_reason == waiting.finish_reason == "left"
    for use in (lambda: batch.join([1]), batch.step, lambda: batch.n_batch):
        with pytest.raises(ValueError, match="is closed"):
            use()
    assert repr(batch) == "<Batch closed>"


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_an_interrupted_step_drew_comes_with_the_next(model, monkeypatch, temperature):
    """Ctrl-C after the evaluation and before its tokens are noted: nothing is drawn twice, as the seed has moved on."""
    params = SamplingParams(temperature=temperature, top_k=50, max_tokens=12, ignore_eos=True)
    prompts = [[1, 2, 3], [4], [5, 6]]
    expected = [alone(model, prompt, params) for prompt in prompts]
    with model.batch() as batch:
        sequences = [batch.join(prompt, params) for prompt in prompts]
        batch.step()
        batch.step()
        real = Workspace.eval

        def interrupted(self, *args):
            real(self, *args)
            raise KeyboardInterrupt

        monkeypatch.setattr(Workspace, "eval", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batch.step()
        monkeypatch.undo()
        assert [sequence.tokens for sequence in sequences] == [tokens[:2] for tokens in expected]
        batch.leave(sequences[1])
        late = batch.join([7], params)
        assert batch.step() == [(sequences[0], expected[0][2]), (sequences[2], expected[2][2])]
        list(batch)
        assert [sequences[0].tokens, sequences[2].tokens] == [expected[0], expected[2]]
        assert late.tokens == alone(model, [7], params)


def test_an_interrupt_between_two_sequences(model, monkeypatch):
    """The first knows of its token, the second learns of its own with the next step."""
    first_expected, second_expected = alone(model, [1, 2], GREEDY), alone(model, [3], GREEDY)
    with model.batch() as batch:
        first, second = batch.join([1, 2], GREEDY), batch.join([3], GREEDY)
        batch.step()
        real = _Member.take

        def interrupted(self, *args):
            if self.sequence is second:
                raise KeyboardInterrupt
            return real(self, *args)

        monkeypatch.setattr(_Member, "take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batch.step()
        monkeypatch.undo()
        assert (first.tokens, second.tokens) == (first_expected[:2], second_expected[:1])
        assert batch.step() == [(second, second_expected[1])]
        list(batch)
        assert (first.tokens, second.tokens) == (first_expected, second_expected)


def test_a_step_that_failed_is_made_again(model, monkeypatch):
    """Nothing was evaluated: nothing is noted."""
    with model.batch() as batch:
        sequence = batch.join([1, 2, 3], GREEDY)

        def failing(*_):
            raise MemoryError

        monkeypatch.setattr(Workspace, "eval", failing)
        with pytest.raises(MemoryError):
            batch.step()
        monkeypatch.undo()
        list(batch)
        assert sequence.tokens == alone(model, [1, 2, 3], GREEDY)


def test_one_thread_steps_at_a_time(tmp_path):
    path = small_model(n_layer=8, n_ff=1024).write(tmp_path / "m.gguf")
    with Model.from_file(path, isa="scalar", n_threads=1) as model, model.batch() as batch:
        sequence = batch.join([1] * 40, GREEDY)
        worker = threading.Thread(target=batch.step)
        worker.start()
        busy = 0
        while worker.is_alive() and not busy:
            try:
                batch.step()
            except SessionBusyError:
                busy += 1
                other = batch.join([2], GREEDY)  # may come from any thread, also during a step
                batch.leave(other)
            time.sleep(0.001)
        worker.join()
        list(batch)
        assert busy
        assert sequence.tokens == alone(model, [1] * 40, GREEDY)
        assert other.finish_reason == "left"


def test_the_library_checks_requests(model):
    """Below Python: the same session twice, another workspace's, too many; and nothing has moved."""
    workspace = Workspace(model, n_threads=1, n_seq=2)
    stranger = Workspace(model, n_threads=1)
    a, b = workspace.new_session(None, "f16"), workspace.new_session(None, "f16")
    token = ffi.new("int32_t *", 1)

    def evaluate(*sessions, n_tokens=1):
        requests = ffi.new("bnc_request[]", [{"session": s, "tokens": token, "n_tokens": n_tokens} for s in sessions])
        workspace.eval(requests, len(sessions))

    for sessions, message in (
        ((a, a), "requests 0 and 1 are of the same session"),
        ((a, stranger.new_session(None, "f16")), "request 1 is of another workspace"),
        ((a, b, a), "1 to 2 sessions can be evaluated together, not 3"),
        ((), "not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(*sessions)
    with pytest.raises(ValueError, match="at least one token"):
        evaluate(a, b, n_tokens=0)
    assert [lib.bnc_session_n_past(s) for s in (a, b)] == [0, 0]
    evaluate(a, b)
    evaluate(b)
    assert [lib.bnc_session_n_past(s) for s in (a, b)] == [1, 2]
    with pytest.raises(ValueError, match="n_ctx must be 1 to 64"):
        workspace.new_session(65, "f16")


# ---- pinning ----


def test_pinned_threads_give_the_same_tokens_and_leave_the_caller_alone(model):
    if not hasattr(os, "sched_getaffinity"):
        with pytest.raises(OSError, match="bind"), model.session(pin=True):
            pass
        return
    before = os.sched_getaffinity(0)
    expected = alone(model, [1, 2], GREEDY)
    for n_threads in (1, 2, 5):
        assert alone(model, [1, 2], GREEDY, pin=True, n_threads=n_threads) == expected
        with model.batch(pin=True, n_threads=n_threads) as batch:
            assert batch.generate([[1, 2]], GREEDY) == [expected]
    assert os.sched_getaffinity(0) == before
