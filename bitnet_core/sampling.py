"""How the next token is chosen."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

__all__ = ["SamplingParams"]

_MAX_SEED = 2**64 - 1


def _default_seed() -> int:
    text = os.environ.get("BITNET_SEED", "")
    if not text:
        return 42
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"BITNET_SEED must be a whole number, not {text!r}") from None


def _default_temperature() -> float:
    return 0.0 if os.environ.get("BITNET_DETERMINISTIC", "") not in ("", "0") else 0.7


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Parameters of one generation; checked when made.

    The order is: repetition penalty, then at temperature 0 the most probable token (the lowest id wins a tie), else
    temperature, top-k, softmax, top-p, draw.

    Attributes
    ----------
    temperature
        0 or more. The default is 0.7, or 0 with ``BITNET_DETERMINISTIC`` set.
    top_k
        Keep this many of the most probable tokens; 0 keeps all.
    top_p
        Keep the shortest list of tokens whose probability reaches this; 1 keeps all.
    repetition_penalty
        Divides positive and multiplies negative logits of tokens that the session already holds; 1 changes nothing.
    max_tokens
        Stop after this many.
    seed
        Of the random stream; default ``BITNET_SEED``, else 42. The same seed, prompt and model give the same tokens on
        any number of threads and any level of kernels.
    stop
        Token ids that end the generation; they are not yielded. The model's end tokens end it, too.
    ignore_eos
        True: the model's end tokens are tokens like any other, for measurements of a given length.

    Examples
    --------
    >>> SamplingParams(temperature=0.0, max_tokens=8).top_k
    50
    """

    temperature: float = field(default_factory=_default_temperature)
    top_k: int = 50
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    max_tokens: int = 100
    seed: int = field(default_factory=_default_seed)
    stop: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("temperature", self.temperature >= 0 and math.isfinite(self.temperature), "0 or more and finite"),
            ("top_k", 0 <= self.top_k < 2**31, "0 (all) to 2147483647"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            (
                "repetition_penalty",
                self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty),
                "above 0 and finite",
            ),
            ("max_tokens", self.max_tokens >= 0, "0 or more"),
            ("seed", 0 <= self.seed <= _MAX_SEED, f"0 to {_MAX_SEED}"),
        ):
            if not ok:
                raise ValueError(f"{name} must be {expected}, not {getattr(self, name)}")
        stop = tuple(self.stop)
        if not all(isinstance(token, int) for token in stop):
            raise TypeError("stop takes token ids; stop strings need a tokenizer, which this version does not have")
        object.__setattr__(self, "stop", stop)  # a frozen instance: any iterable becomes a tuple once, here
