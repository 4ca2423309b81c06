"""Verdicts on made-up rounds whose answer is known."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from tracking import verdict
from tracking.rounds import Round
from tracking.verdict import BETTER, SAME, UNKNOWN, WORSE, decide


def made_up(ratios: list[float]) -> list[Round]:
    return [Round("b", [(1.0, ratio)], {"base": 1.0, "head": ratio}) for ratio in ratios]


def counted(pairs: list[tuple[float, float]]) -> list[Round]:
    return [Round("b", [pair], {"base": pair[0], "head": pair[1]}) for pair in pairs]


def noise(seed: int, n: int, *, spread: float, effect: float = 0.0) -> list[float]:
    """Ratios with heavy tails (Student's t with 3 degrees of freedom) that remember a fifth of the last one."""
    rng = random.Random(seed)  # noqa: S311  # to be the same each time
    values, last = [], 0.0
    for _ in range(n):
        tail = rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2) / 3)
        last = 0.2 * last + math.sqrt(1 - 0.04) * spread * tail
        values.append(math.exp(effect + last))
    return values


# ---- known answers ----


@pytest.mark.parametrize(
    ("ratio", "word"), [(1.0, SAME), (1.005, SAME), (1.05, WORSE), (1.1, WORSE), (0.9, BETTER), (1 / 1.05, BETTER)]
)
def test_quiet_rounds_give_the_word(ratio: float, word: str) -> None:
    rounds = made_up([ratio * (1 + 0.001 * (-1) ** i) for i in range(5)])
    found = decide(rounds, "seconds", 20)
    assert found.word == word
    assert found.low < found.ratio < found.high
    assert found.ratio == pytest.approx(ratio, rel=1e-3)
    assert found.n == 5


def test_noisy_rounds_cannot_tell() -> None:
    found = decide(made_up([0.8, 1.3, 1.0, 0.7, 1.4, 1.05, 0.95]), "seconds", 20)
    assert found.word == UNKNOWN
    assert found.low < 0.9
    assert found.high > 1.1


@pytest.mark.parametrize("n", range(5))
def test_too_few_rounds_cannot_tell(n: int) -> None:
    found = decide(made_up([2.0] * n), "seconds", 1)
    assert (found.word, found.n, found.low, found.high) == (UNKNOWN, n, 0.0, math.inf)


def test_a_difference_that_is_certain_and_matters_to_nobody_is_the_same() -> None:
    assert decide(made_up([1.004 + 0.0001 * (i % 2) for i in range(10)]), "seconds", 1).word == SAME


def test_one_spoiled_round_of_eight_does_not_hide_the_answer() -> None:
    quiet = [1.05 + 0.002 * (-1) ** i for i in range(10)]
    spoiled = [*quiet]
    spoiled[3] = 3.0
    found = decide(made_up(spoiled), "seconds", 20)
    assert found.word == WORSE
    assert found.ratio == pytest.approx(1.05, abs=0.01)


def test_more_benchmarks_ask_for_more_evidence() -> None:
    ratios = [1.06, 1.02, 1.07, 1.03, 1.05]
    assert decide(made_up(ratios), "seconds", 1).word == WORSE
    assert decide(made_up(ratios), "seconds", 1000).word == UNKNOWN


def test_the_first_decision_is_final() -> None:
    """What comes after it, or how the rounds were cut into runs, changes nothing."""
    quiet = [1.1 + 0.001 * (-1) ** i for i in range(5)]
    assert decide(made_up(quiet + [0.5] * 40), "seconds", 20) == decide(made_up(quiet), "seconds", 20)


def test_rounds_between_looks_are_not_looked_at() -> None:
    ratios = [1.06, 1.0, 1.09, 0.98, 1.08]
    assert decide(made_up([*ratios, 9.0]), "seconds", 20) == decide(made_up(ratios), "seconds", 20)


def test_sides_are_exchangeable() -> None:
    ratios = noise(7, 20, spread=0.01, effect=0.04)
    forth, back = decide(made_up(ratios), "seconds", 20), decide(made_up([1 / r for r in ratios]), "seconds", 20)
    assert (forth.word, back.word) == (WORSE, BETTER)
    assert forth.ratio == pytest.approx(1 / back.ratio)
    assert forth.low == pytest.approx(1 / back.high)


# ---- counts ----


def test_instructions_need_two_rounds() -> None:
    assert decide(counted([(1000000, 1005000)] * 2), "instructions", 300).word == WORSE
    assert decide(counted([(1000000, 995000)] * 2), "instructions", 300).word == BETTER
    assert decide(counted([(1000000, 1001000)] * 2), "instructions", 300).word == SAME
    assert decide(counted([(1000000, 1005000)]), "instructions", 300).word == UNKNOWN


def test_instructions_that_differ_from_round_to_round_are_treated_like_bytes() -> None:
    pairs = [(1000000.0, 1005000.0), (1000001.0, 1005000.0)]
    assert decide(counted(pairs), "instructions", 300).word == UNKNOWN
    assert decide(counted(pairs * 5), "instructions", 300).word == WORSE


@pytest.mark.parametrize(("n_benchmarks", "n"), [(1, 5), (20, 7), (400, 10)])
def test_bytes_that_agree_need_so_many_rounds_that_it_is_no_chance(n_benchmarks: int, n: int) -> None:
    for head, word in ((1020000, WORSE), (980000, BETTER)):
        pairs: list[tuple[float, float]] = [(1000000, head)] * n
        assert decide(counted(pairs), "bytes", n_benchmarks).word == word
        assert decide(counted(pairs[1:]), "bytes", n_benchmarks).word == UNKNOWN
    assert decide(counted([(1000000, 1000000)] * 7), "bytes", n_benchmarks).word == SAME
    assert decide(counted([(1000000, 1000000)] * 6), "bytes", n_benchmarks).word == UNKNOWN


def test_bytes_of_two_values_are_hardly_ever_taken_for_a_difference() -> None:
    """Both sides have either of two sizes 1.2 % apart: what agrees in a few rounds does so by chance."""
    wrong = 0
    for seed in range(400):
        rng = random.Random(seed)  # noqa: S311  # to be the same each time
        pairs = [(rng.choice((1e6, 1.012e6)), rng.choice((1e6, 1.012e6))) for _ in range(53)]
        wrong += decide(counted(pairs), "bytes", 1).word in {WORSE, BETTER}
    assert wrong <= 0.05 * 400


def test_seconds_are_never_counts() -> None:
    assert decide(counted([(1.0, 1.5)] * 4), "seconds", 1).word == UNKNOWN
    assert decide(counted([(1.0, 1.5)] * 5), "seconds", 400).word == WORSE


# ---- the method ----


@pytest.mark.parametrize(
    ("alpha", "df", "expected"),
    [  # tables of Student's t, both ends together
        *[(0.05, 1, 12.706), (0.05, 2, 4.303), (0.05, 30, 2.042), (0.01, 3, 5.841), (0.01, 4, 4.604)],
        *[(0.001, 5, 6.869), (0.001, 10, 4.587), (0.0001, 6, 9.082), (0.0001, 7, 7.885)],
    ],
)
def test_t_quantile(alpha: float, df: int, expected: float) -> None:
    assert verdict.t_quantile(alpha, df) == pytest.approx(expected, abs=6e-4)


def test_t_quantile_far_out_is_finite_and_ordered() -> None:
    far = [verdict.t_quantile(10.0**-k, 13) for k in range(1, 9)]
    assert all(a < b < 100 for a, b in itertools.pairwise(far))


def test_the_interval_is_students_when_nothing_is_cut() -> None:
    middle, low, high = verdict.interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.05)
    assert middle == pytest.approx(3.0)
    assert (high - low) / 2 == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)


def test_the_interval_cuts_and_winsorizes() -> None:
    """Tukey and McLaughlin by hand: of 8 values one is cut at each end; the two next to them are counted twice."""
    values = [-50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 900.0]
    winsorized = [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0]
    mean = sum(winsorized) / 8
    deviation = math.sqrt(sum((x - mean) ** 2 for x in winsorized) / 7)
    half = 2.571 * deviation / (0.75 * math.sqrt(8))
    middle, low, high = verdict.interval(values, 0.05)
    assert middle == pytest.approx(3.5)
    assert (middle - low, high - middle) == (pytest.approx(half, abs=2e-3), pytest.approx(half, abs=2e-3))


def test_looks_are_few_and_their_shares_sum_to_one() -> None:
    assert list(itertools.islice(verdict.looks(), 6)) == [5, 7, 10, 14, 19, 27]
    assert [verdict.next_look(n, "seconds") for n in (0, 4, 5, 9, 10)] == [5, 5, 7, 10, 14]
    assert [verdict.next_look(n, "instructions") for n in (0, 1, 2, 5)] == [2, 2, 5, 7]
    assert sum(1 / (k * (k + 1)) for k in range(1, 100000)) == pytest.approx(1, abs=1e-4)


def test_rounds_to_go_are_fewer_for_what_is_quiet_or_far_away() -> None:
    def to_go(ratios: list[float], unit: str = "seconds") -> int:
        return verdict.rounds_to_go([Round("b", low={"base": 1.0, "head": math.exp(x)}) for x in ratios], unit)

    assert [to_go([0.0] * n) for n in (0, 4, 5, 9)] == [5, 1, 2, 1], "to the next look"
    assert [to_go([0.0] * n, "instructions") for n in (0, 1, 2)] == [2, 1, 3]
    assert to_go([0.0, 0.5, 0.0, 0.5, 0.0, 0.5], "instructions") == 1, "counts that differ are no matter of more rounds"
    noisy = [-0.1, -0.05, 0.0, 0.05, 0.1]
    # 2.6 x 0.079 over the 0.0296 within which all is the same
    assert to_go(noisy) == math.ceil((2.6 * statistics.stdev(noisy) / math.log(1.03)) ** 2) - 5 == 44
    assert to_go([0.5 + x for x in noisy]) == 2, "certainly worse soon"
    between = [0.02 + x for x in noisy]  # neither worse than 1 % nor the same within 3 % is near
    assert to_go(between) > 4 * to_go(noisy)
    # At 2.9 % nothing will be the same within 3 %, and worse than 1 % only 0.0187 away.
    assert to_go([math.log(1.029) + x for x in noisy]) == pytest.approx((2.6 * 0.0791 / 0.0187) ** 2 - 5, abs=3)


# ---- error rates, by simulation ----


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.08])
def test_without_a_difference_hardly_any_verdict_is_wrong(spread: float) -> None:
    """1000 benchmarks in reviews of 20, up to 53 rounds: at most 1 in 100 wrong, whatever the noise."""
    words = [decide(made_up(noise(seed, 53, spread=spread)), "seconds", 20).word for seed in range(1000)]
    assert words.count(WORSE) + words.count(BETTER) <= 5
    if spread <= 0.02:
        assert words.count(UNKNOWN) <= 50


@pytest.mark.parametrize(("effect", "spread", "least"), [(0.05, 0.01, 0.99), (0.05, 0.02, 0.95), (0.1, 0.03, 0.99)])
def test_a_difference_that_matters_is_found(effect: float, spread: float, least: float) -> None:
    ratios = [noise(seed, 53, spread=spread, effect=math.log1p(effect)) for seed in range(400)]
    words = [decide(made_up(one), "seconds", 20).word for one in ratios]
    assert words.count(WORSE) >= least * 400
    assert words.count(BETTER) == 0
    assert words.count(SAME) <= 0.01 * 400


def test_a_difference_at_the_margin_is_seldom_called_the_same() -> None:
    ratios = [noise(seed, 27, spread=0.02, effect=math.log1p(verdict.TIME.same)) for seed in range(1000)]
    words = [decide(made_up(one), "seconds", 20).word for one in ratios]
    assert words.count(SAME) <= 1.3 * verdict.FALSE_SAME * 1000
