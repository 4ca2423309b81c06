"""What rounds say about a benchmark: worse, better, same, or that one cannot tell.

Every stored metric is better when it is lower, so a ratio head / base above 1 is worse. A round gives one number: the
log of the ratio of the sides' lower deciles, over all values of its alternating slices. Other work on a machine only
ever adds time, so the low end is the code's own and the rest is the machine's (Chen and Revels, arXiv:1608.04295, take
the minimum; a decile does not hang on one lucky value). Rounds are processes of their own, with other rounds between
them, and are taken as independent. From them:

**Interval.** Student's t for a trimmed mean with winsorized variance (Tukey and McLaughlin, Sankhya A 25, 1963), an
eighth cut off at each end: a burst of other work on the machine spoils a round or two without making all the others
worthless. Untrimmed at fewer than 8 rounds, where t errs to the wide side for heavy tails (Benjamini, JASA 78, 1983).

**Looking again and again.** Rounds are added until something is decided, and each look is a chance to be fooled. There
are looks after 5, 7, 10, 14, 20 ... rounds and no others; look k may spend 1 / (k (k + 1)) of the error allowed, which
sums to 1 (Bonferroni over looks; Armitage, McPherson and Rowe, JRSS A 132, 1969, is the reason, Lan and DeMets,
Biometrika 70, 1983, the idea of spending). It holds however looks depend on each other. The first look that decides is
final, so a verdict depends on the rounds alone, not on when a review was interrupted.

**Many benchmarks.** "Worse" and "better" share FALSE_ALARMS over the whole review (Bonferroni), however many benchmarks
it has. "Same" is one claim a benchmark, each allowed FALSE_SAME.

**What matters.** With enough rounds a difference of 0.1 % can be told, and matters to nobody; two builds of the same
text differ by that. "Worse" means that the whole interval lies beyond `least`: certainly more than that. "Same" means
that the whole interval lies within `same` on both sides (equivalence testing by two one-sided tests; Schuirmann,
J. Pharmacokin. Biopharm. 15, 1987). Neither is "cannot tell": too few rounds, or too noisy a machine.

**Counts.** Instructions are a function of the program: the same number EXACT_ROUNDS times on each side is that number,
and their ratio has no noise. Bytes are few values that come back, so that rounds may agree by chance and let the
interval shrink to nothing. If the sides do not differ, the chance that n rounds of each part them whole is at most
2 / C(2n, n) (every order is as likely; Fisher, The Design of Experiments, 1935); if they differ by the margin of
"same", the chance that all lie within it is at most 2 / 2^n, since all of a side would lie on one side of its median.
What agrees after more rounds agreed after fewer, so looks need not share these chances. Before they are small enough no
look decides.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracking.rounds import Round

WORSE, BETTER, SAME, UNKNOWN = "worse", "better", "same", "cannot tell"

FALSE_ALARMS = 0.05  # chance that a review without any difference has a "worse" or "better" at all
FALSE_SAME = 0.05  # chance that a benchmark that differs by as much as `same` is called "same"; of more, far less
FIRST_LOOK, NEXT_LOOK = 5, 1.4
TRIM = 1 / 8  # of the rounds, at each end
EXACT_ROUNDS = 2
FEW_SPREADS = 2.6  # of the mean, that an interval of some ten rounds is wide to each side


@dataclass(frozen=True)
class Limits:
    """Relative differences of a metric that matter."""

    least: float  # more than this is worse or better, when it is certain
    same: float  # less than this is the same, when it is certain
    slack: float = 0.0  # in the metric's unit: less than this is the same too, however small the whole is

    def same_at(self, value: float) -> float:
        """The relative difference that is the same for a metric of this size."""
        return max(self.same, self.slack / value)


TIME = Limits(0.01, 0.03)
TWO_PAGES = 8192.0  # memory comes in pages, and a process has one more or less of them each time
LIMITS = {"seconds": TIME, "bytes": Limits(0.005, 0.01, TWO_PAGES), "instructions": Limits(0.0025, 0.0025)}
COUNTED = {"bytes", "instructions"}
EXACT = {"instructions"}


@dataclass(frozen=True)
class Verdict:
    """A word, and what it rests on.

    Attributes
    ----------
    word : str
        WORSE, BETTER, SAME or UNKNOWN.
    ratio, low, high : float
        head / base, and the interval that decided, or the one for "worse" and "better" when nothing did.
    n : int
        Rounds that were used.
    """

    word: str
    ratio: float
    low: float
    high: float
    n: int

    @property
    def decided(self) -> bool:
        """Whether more rounds would be wasted."""
        return self.word != UNKNOWN


def decide(rounds: Sequence[Round], unit: str, n_benchmarks: int) -> Verdict:
    """The verdict on one benchmark of a review that has so many.

    >>> from tracking.rounds import Round
    >>> fifth_slower = [Round("b", low={"base": 1.0, "head": 1.19 + 0.01 * (i % 3)}) for i in range(5)]
    >>> decide(fifth_slower, "seconds", 1).word
    'worse'
    """
    limits = LIMITS.get(unit, TIME)
    if unit in EXACT and (exact := _decide_exact(rounds, limits)) is not None:
        return exact
    ratios = [log_ratio(one) for one in rounds]
    margin = limits.same_at(statistics.median(one.low["base"] for one in rounds)) if rounds else limits.same
    limits = replace(limits, same=margin)
    alarm, same = FALSE_ALARMS / n_benchmarks, FALSE_SAME
    verdict = None
    for k, n in enumerate(looks(), 1):
        if n > len(ratios):
            break
        share = 1 / (k * (k + 1))
        verdict = _look(ratios[:n], limits, alarm * share, 2 * same * share)
        if (
            verdict.decided
            and unit in COUNTED
            and chance_agreement(n, verdict.word) > (same if verdict.word == SAME else alarm)
        ):
            verdict = replace(verdict, word=UNKNOWN)
        if verdict.decided:
            return verdict
    if verdict is None:  # too few for any look
        middle = math.exp(statistics.median(ratios)) if ratios else math.nan
        return Verdict(UNKNOWN, middle, 0.0, math.inf, len(ratios))
    return verdict


def log_ratio(found: Round) -> float:
    """What a round says: log(head / base) of the undisturbed values."""
    return math.log(found.low["head"] / found.low["base"])


def looks() -> Iterator[int]:
    """After how many rounds the data may be looked at: 5, 7, 10, 14, 20, 28 ..."""
    return (round(FIRST_LOOK * NEXT_LOOK**k) for k in count())


def next_look(n: int, unit: str) -> int:
    """The first look after n rounds of a metric."""
    if unit in EXACT and n < EXACT_ROUNDS:
        return EXACT_ROUNDS
    return next(look for look in looks() if look > n)


def rounds_to_go(rounds: Sequence[Round], unit: str) -> int:
    """How many more rounds may decide, if they are like those so far; at least to the next look.

    A guess to spend time by, of which no verdict knows: an interval shrinks with the root of its rounds, and has to
    lie within `same` or beyond `least`, whichever is easier.
    """
    n, limits = len(rounds), LIMITS.get(unit, TIME)
    to_look = next_look(n, unit) - n
    if n < FIRST_LOOK or unit in EXACT:
        return to_look
    ratios = [log_ratio(one) for one in rounds]
    middle = abs(statistics.median(ratios))
    room = max(math.log1p(limits.same) - middle, middle - math.log1p(limits.least))
    wanted = (FEW_SPREADS * statistics.stdev(ratios) / room) ** 2
    return max(to_look, math.ceil(wanted) - n)


def _look(ratios: Sequence[float], limits: Limits, alarm: float, same: float) -> Verdict:
    """One look; alarm and same are the chances, of both ends together, that the interval misses."""
    middle, low, high = interval(ratios, alarm)
    n, limit = len(ratios), math.log1p(limits.least)
    if low > limit or high < -limit:
        return Verdict(WORSE if low > 0 else BETTER, math.exp(middle), math.exp(low), math.exp(high), n)
    _, near, far = interval(ratios, same)
    if max(-near, far) < math.log1p(limits.same):
        return Verdict(SAME, math.exp(middle), math.exp(near), math.exp(far), n)
    return Verdict(UNKNOWN, math.exp(middle), math.exp(low), math.exp(high), n)


def _decide_exact(rounds: Sequence[Round], limits: Limits) -> Verdict | None:
    """The verdict when each side always gave the same number; else None."""
    base, head = ({one.low[side] for one in rounds} for side in ("base", "head"))
    if len(rounds) < EXACT_ROUNDS or len(base) > 1 or len(head) > 1:
        return None
    ratio = head.pop() / base.pop()
    certain = math.log(ratio)
    word = SAME if abs(certain) <= math.log1p(limits.least) else WORSE if certain > 0 else BETTER
    return Verdict(word, ratio, ratio, ratio, len(rounds))


def chance_agreement(n: int, word: str) -> float:
    """The chance that n rounds of few values, which come back, agree on a word that is wrong.

    >>> round(chance_agreement(5, WORSE), 4), chance_agreement(6, SAME)
    (0.0079, 0.03125)
    """
    return 2 / 2**n if word == SAME else 2 / math.comb(2 * n, n)


# ---- the interval ----


def interval(values: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """The trimmed mean, and an interval that misses what it estimates with chance alpha, both ends together."""
    ordered = sorted(values)
    n, cut = len(ordered), int(TRIM * len(ordered))
    kept = ordered[cut : n - cut]
    middle = math.fsum(kept) / len(kept)
    winsorized = [kept[0]] * cut + kept + [kept[-1]] * cut
    spread = statistics.stdev(winsorized) / ((1 - 2 * cut / n) * math.sqrt(n))
    half = t_quantile(alpha, len(kept) - 1) * spread
    return middle, middle - half, middle + half


@lru_cache(maxsize=4096)
def t_quantile(alpha: float, df: int) -> float:
    """The t that Student's |T| with df degrees of freedom exceeds with chance alpha.

    >>> round(t_quantile(0.05, 9), 3)
    2.262
    """
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, df) > alpha else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)


def _beyond(theta: float, df: int) -> float:
    """P(|T| > sqrt(df) tan(theta)): the finite sums for whole df, Abramowitz and Stegun 26.7.3 and 26.7.4."""
    cos, sin = math.cos(theta), math.sin(theta)
    odd = df % 2
    term = cos if odd else 1.0
    total = 0.0
    for i in range(1 + odd, df, 2):
        total += term
        term *= cos * cos * i / (i + 1)
    within = 2 / math.pi * (theta + sin * total) if odd else sin * total
    return 1.0 - within
