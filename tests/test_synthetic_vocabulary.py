"""The made-up vocabulary is consistent: that is all that engines ask of it."""

import pytest

from bitnet_core.synthetic import PRESETS
from bitnet_core.synthetic_vocabulary import make_vocabulary


@pytest.fixture(params=PRESETS.values(), ids=lambda preset: preset.name)
def preset(request):
    return request.param


def test_vocabulary_is_consistent(preset):
    made = make_vocabulary(preset.n_vocab, preset.n_special, preset.n_merges)
    tokens = set(made.tokens)
    assert len(made.tokens) == len(tokens) == len(made.token_types) == preset.n_vocab
    assert len(set(made.merges)) == len(made.merges) == preset.n_merges
    ids = {token: i for i, token in enumerate(made.tokens)}
    for merge in made.merges:
        left, right = merge.split(" ")
        # Both halves exist, and are made before the whole: so every word can be reached.
        assert max(ids[left], ids[right]) < ids[left + right] < made.bos
    reachable = {merge.replace(" ", "") for merge in made.merges}
    assert reachable == set(made.tokens[256 : made.bos])


def test_byte_characters_come_first(preset):
    made = make_vocabulary(preset.n_vocab, preset.n_special, preset.n_merges)
    # GPT-2's map: bytes 0x21-0x7e, 0xa1-0xac and 0xae-0xff are themselves, the 68 others U+0100 and on.
    assert made.tokens[:3] == ["!", '"', "#"]
    assert made.tokens[93:95] == ["~", "¡"]
    assert made.tokens[187:189] == ["ÿ", "Ā"]
    assert made.tokens[188 + 32] == "Ġ"  # the space
    assert made.tokens[255] == "Ń"
    assert all(len(token) == 1 for token in made.tokens[:256])


def test_control_tokens_come_last():
    made = make_vocabulary(128256, 256, 280147)
    assert (made.bos, made.eos) == (128000, 128001)
    assert made.tokens[128000] == "<|begin_of_text|>"
    assert made.tokens[128001] == "<|end_of_text|>"
    assert made.tokens[128006:128010] == [
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|reserved_special_token_4|>",
        "<|eot_id|>",
    ]
    assert made.tokens[128255] == "<|reserved_special_token_250|>"
    assert made.token_types == [1] * 128000 + [3] * 256


@pytest.mark.parametrize(
    ("n_vocab", "n_special", "n_merges"),
    [(300, 16, 1), (512, 16, 241), (40 + 1600 + 64000 + 2560000 + 256 + 2, 1, 10)],
)
def test_impossible_vocabulary(n_vocab, n_special, n_merges):
    with pytest.raises(ValueError, match="no vocabulary has"):
        make_vocabulary(n_vocab, n_special, n_merges)
