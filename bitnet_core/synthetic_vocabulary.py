"""A made-up vocabulary of any size: every token is made of syllables, every merge joins two tokens to a third.

Trained vocabularies cannot be shipped, and an engine only needs one that is consistent. Syllables are
consonant-vowel ("ba") or consonant-vowel-consonant ("bak"); a consonant followed by a vowel always begins a
syllable, so a word splits into syllables in exactly one way, and different syllables make different words. A word
of k syllables joins at any of its k-1 boundaries; both halves are shorter words, all of which are tokens too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Vocabulary", "make_vocabulary"]

_NORMAL, _CONTROL = 1, 3  # tokenizer.ggml.token_type

# 16 open and 24 closed syllables make names of about the length that real tokens have.
_OPEN = tuple(c + v for c in "bdgk" for v in "aeio")
_CLOSED = tuple(syllable + coda for syllable, coda in zip(_OPEN + _OPEN, "lmnprstvlmnprstvmnlrsnvt", strict=False))
_MAX_SYLLABLES = 4

# The control tokens of Llama 3, in its order: what stands first must not move.
_CONTROLS = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "<|eot_id|>",
}


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, the merges that make them by rank, and the ids of the tokens that begin and end a text."""

    tokens: list[str]
    token_types: list[int]
    merges: list[str]
    bos: int
    eos: int


def make_vocabulary(n_vocab: int, n_special: int, n_merges: int) -> Vocabulary:
    """Make a byte-level BPE vocabulary: 256 byte characters, words, and ``n_special`` control tokens at the end.

    Raises
    ------
    ValueError
        Words of one to four syllables do not give that many tokens or merges.
    """
    n_words = n_vocab - 256 - n_special
    levels = _words(n_words)
    merges = list(itertools.islice(_merges(levels), n_merges))
    if n_words < len(_OPEN + _CLOSED) or sum(map(len, levels)) < n_words or len(merges) < n_merges:
        raise ValueError(f"no vocabulary has {n_vocab} tokens, {n_special} of them special, and {n_merges} merges")
    words = ["".join(word) for level in levels for word in level]
    bos = n_vocab - n_special
    token_types = [_NORMAL] * bos + [_CONTROL] * n_special
    return Vocabulary(_byte_characters() + words + _controls(n_special), token_types, merges, bos, bos + 1)


def _words(n_words: int) -> list[list[tuple[str, ...]]]:
    """Return the first n_words words, shortest first, as syllables; one list for each number of syllables."""
    levels: list[list[tuple[str, ...]]] = []
    for n_syllables in range(1, _MAX_SYLLABLES + 1):
        left = n_words - sum(map(len, levels))
        levels.append(list(itertools.islice(itertools.product(_OPEN + _CLOSED, repeat=n_syllables), max(left, 0))))
    return levels


def _merges(levels: list[list[tuple[str, ...]]]) -> Iterator[str]:
    for (syllable,) in levels[0]:
        yield f"{syllable[:-1]} {syllable[-1]}"
    for n_syllables, level in enumerate(levels[1:], start=2):
        for cut in range(1, n_syllables):
            for word in level:
                yield "".join(word[:cut]) + " " + "".join(word[cut:])


def _byte_characters() -> list[str]:
    """Return the characters of byte-level BPE: the printable bytes as themselves, then stand-ins for the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _controls(n_special: int) -> list[str]:
    reserved = itertools.count()
    return [_CONTROLS.get(i) or f"<|reserved_special_token_{next(reserved)}|>" for i in range(n_special)]
