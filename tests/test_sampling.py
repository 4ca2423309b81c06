"""The sampler against the same rules in numpy, with the same random stream."""

import numpy as np
import pytest

from bitnet_core import SamplingParams
from bitnet_core._lib import call, ffi, lib, new_error

MASK = 2**64 - 1


def xoshiro(seed):
    """xoshiro256** (Blackman and Vigna) seeded by splitmix64, in Python's integers; yields floats in [0, 1)."""
    state, x = [], seed
    for _ in range(4):
        x = (x + 0x9E3779B97F4A7C15) & MASK
        z = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        state.append(z ^ z >> 31)

    def rotl(v, k):
        return (v << k | v >> (64 - k)) & MASK

    while True:
        result = (rotl((state[1] * 5) & MASK, 7) * 9) & MASK
        t = (state[1] << 17) & MASK
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= t
        state[3] = rotl(state[3], 45)
        yield (result >> 40) / 2**24


class Sampler:
    """The library's sampler, bare."""

    def __init__(self, n_vocab, params):
        fields = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
        out = ffi.new("bnc_sampler **")
        call(lib.bnc_sampler_new, n_vocab, ffi.new("bnc_sampling *", {f: getattr(params, f) for f in fields}), out)
        self.handle = ffi.gc(out[0], lib.bnc_sampler_free)

    def accept(self, token):
        call(lib.bnc_sampler_accept, self.handle, token)

    def sample(self, logits):
        return lib.bnc_sampler_sample(self.handle, ffi.from_buffer("float[]", np.ascontiguousarray(logits, np.float32)))


def reference(logits, params, seen, uniform):
    """The contract's order, in float64; None where two candidates are too near for float32 to say."""
    x = np.asarray(logits, np.float64).copy()
    for token in seen:
        x[token] = x[token] / params.repetition_penalty if x[token] > 0 else x[token] * params.repetition_penalty
    if params.temperature == 0:
        return int(np.argmax(x))
    order = np.lexsort((np.arange(x.size), -x))
    order = order[: params.top_k or x.size]
    p = np.exp((x[order] - x[order[0]]) / params.temperature)
    cumulative = np.cumsum(p / p.sum())
    n = int(np.searchsorted(cumulative, params.top_p * (1 - 1e-12))) + 1 if params.top_p < 1 else len(p)
    edges = np.cumsum(p[:n]) / p[:n].sum()
    near_p = params.top_p < 1 and np.abs(cumulative - params.top_p).min() < 1e-5
    if near_p or np.abs(edges[:-1] - uniform).min(initial=1) < 1e-5:
        return None
    return int(order[np.searchsorted(edges, uniform, side="right")])


PARAMS = {
    "defaults": {},
    "greedy": {"temperature": 0.0},
    "hot": {"temperature": 3.0, "top_k": 0, "top_p": 1.0},
    "cold": {"temperature": 0.05},
    "top-k alone": {"top_k": 3, "top_p": 1.0},
    "top-k 1": {"top_k": 1},
    "top-k beyond the vocabulary": {"top_k": 10**6},
    "top-p alone": {"top_k": 0, "top_p": 0.5},
    "top-p tiny": {"top_p": 1e-6},
    "penalty": {"repetition_penalty": 1.5},
    "greedy with penalty": {"temperature": 0.0, "repetition_penalty": 2.0},
}


@pytest.mark.parametrize("case", PARAMS, ids=lambda name: name.replace(" ", "_"))
def test_against_the_rules_in_numpy(case):
    params = SamplingParams(**({"temperature": 0.7, "seed": 7} | PARAMS[case]))
    sampler, uniform = Sampler(500, params), xoshiro(7)
    rng, seen, compared = np.random.default_rng(0), set(), 0
    for _ in range(200):
        logits = (3 * rng.standard_normal(500)).astype(np.float32)
        u = next(uniform) if params.temperature else 0.5
        expected = reference(logits, params, seen, u)
        token = sampler.sample(logits)
        if expected is not None:
            assert token == expected
            compared += 1
        sampler.accept(token)
        seen.add(token)
    assert compared > 180


def test_frequencies_follow_the_probabilities():
    p = np.array([0.5, 0.25, 0.15, 0.1])
    sampler = Sampler(4, SamplingParams(temperature=1.0, top_k=0, top_p=1.0, seed=3))
    counts = np.bincount([sampler.sample(np.log(p)) for _ in range(20000)], minlength=4)
    chi2 = ((counts - 20000 * p) ** 2 / (20000 * p)).sum()
    assert chi2 < 16.3  # 3 degrees of freedom, 0.1 %


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_ties_go_to_the_lowest_id(temperature):
    sampler = Sampler(6, SamplingParams(temperature=temperature, top_k=1))
    assert sampler.sample([0, 2, 1, 2, 2, 0]) == 1


def test_equal_logits_keep_the_lowest_ids_in_top_k():
    sampler = Sampler(50, SamplingParams(temperature=1.0, top_k=4, top_p=1.0))
    assert {sampler.sample(np.zeros(50)) for _ in range(200)} == {0, 1, 2, 3}


def test_penalty_lowers_both_signs():
    sampler = Sampler(3, SamplingParams(temperature=0.0, repetition_penalty=2.0))
    sampler.accept(0)
    assert sampler.sample([3.0, 2.0, 1.0]) == 1
    assert sampler.sample([-1.0, -1.5, -3.0]) == 1


def test_tiny_temperature_does_not_overflow():
    sampler = Sampler(3, SamplingParams(temperature=1e-38, top_k=0, top_p=1.0))
    assert {sampler.sample([1e30, 2e30, 3e30]) for _ in range(50)} == {2}


def test_seed_decides_the_stream():
    logits = np.random.default_rng(1).standard_normal(100)

    def draw(seed):
        sampler = Sampler(100, SamplingParams(seed=seed))
        return [sampler.sample(logits) for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or more and finite, not -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": -1}, "top_k must be 0"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, not 0"),
        ({"top_p": 1.5}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"seed": 2**64}, "seed must be 0 to"),
    ],
)
def test_bad_parameters(changes, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(**changes)


def test_stop_strings_are_refused():
    with pytest.raises(TypeError, match="stop takes token ids"):
        SamplingParams(stop=("end",))


def test_library_checks_for_itself():
    """The C interface does not lean on Python's checks."""
    sampling = ffi.new("bnc_sampling *", {"temperature": -1.0, "top_p": 1.0, "repetition_penalty": 1.0})
    err = new_error()
    assert lib.bnc_sampler_new(10, sampling, ffi.new("bnc_sampler **"), err) == lib.BNC_ERR_ARGUMENT
    assert b"temperature" in ffi.string(err.message)
    with pytest.raises(ValueError, match="token 10 is not in the vocabulary: 0 to 9"):
        Sampler(10, SamplingParams()).accept(10)


def test_environment_gives_defaults(monkeypatch):
    monkeypatch.delenv("BITNET_DETERMINISTIC", raising=False)
    monkeypatch.delenv("BITNET_SEED", raising=False)
    assert (SamplingParams().temperature, SamplingParams().seed) == (0.7, 42)
    monkeypatch.setenv("BITNET_DETERMINISTIC", "1")
    monkeypatch.setenv("BITNET_SEED", "5")
    assert (SamplingParams().temperature, SamplingParams().seed) == (0.0, 5)
    monkeypatch.setenv("BITNET_SEED", "five")
    with pytest.raises(ValueError, match="BITNET_SEED must be a whole number"):
        SamplingParams()
