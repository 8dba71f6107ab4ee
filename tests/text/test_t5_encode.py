"""Prompts by T5: diffusers' and transformers' ways on the same tower, weights in closed form, turns, what is kept."""

import pytest
import torch
from diffusers import FluxPipeline
from t5_texts import own
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from triptych.engine.text.t5 import T5Text
from triptych.errors import InvalidField
from triptych.text import spiece
from triptych.text.encode import RULES
from triptych.text.kept import Kept
from triptych.text.t5_encode import T5Encoder, T5Tower
from triptych.text.t5_tokens import END, SENTINELS, shipped

WIDTH, LENGTH = 16, 24


@pytest.fixture(scope="module")
def pair():
    """transformers' encoder and ours, with its weights and the table of T5."""
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 32128}
    theirs = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **sizes)).eval()
    ours = T5Text(WIDTH, 2, 4, hidden=24, head=4, activation="gelu", gated=True).eval()
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if "embed_tokens" not in name})
    return theirs, ours


class Coming:
    """A tower that counts how often it came."""

    def __init__(self, net):
        self.net, self.count = net, 0

    def __call__(self):
        self.count += 1
        return self.net


def encoder(pair, rule="none", kept=None, dtype=torch.float32, **options):
    told = {"length": LENGTH, "most": LENGTH, "name": "tower"} | options
    net = (
        pair[1]
        if dtype == torch.float32
        else T5Text(WIDTH, 2, 4, hidden=24, head=4, activation="gelu", gated=True).to(dtype)
    )
    return T5Encoder(T5Tower(Coming(net), "cpu", dtype, **told), shipped(), RULES[rule], kept)


def tokens(encode, *texts, steps=1):
    (turn,) = encode(texts, steps)
    return turn.cond.tokens


@pytest.fixture(scope="module")
def tokenizer():
    pieces = spiece.parsed(own(), "T5")
    vocabulary = [(piece.text, piece.score) for piece in pieces.items] + [(token, 0.0) for token in SENTINELS]
    return T5Tokenizer(vocab=vocabulary, _spm_precompiled_charsmap=pieces.charsmap)


PROMPTS = ["a (red:1.3) fox [from:to:3] BREAK the 1st snow", ""]


def test_it_is_diffusers_flux(pair, tokenizer):
    pipe = FluxPipeline(None, None, None, None, pair[0], tokenizer, None)
    with torch.no_grad():
        said = pipe._get_t5_prompt_embeds(PROMPTS, max_sequence_length=LENGTH, device="cpu", dtype=torch.float32)
    (turn,) = encoder(pair)(PROMPTS, 10)
    torch.testing.assert_close(turn.cond.tokens, said, rtol=1e-5, atol=1e-5)
    assert turn.cond.mask is None


def test_masked_it_is_transformers_with_its_mask(pair, tokenizer):
    told = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        said = pair[0](**told).last_hidden_state
    (turn,) = encoder(pair, masked=True)(PROMPTS, 10)
    mask = told.attention_mask.bool()
    assert torch.equal(turn.cond.mask, mask)
    torch.testing.assert_close(turn.cond.tokens[mask], said[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_without_weights_all_rules_are_one(pair, rule):
    plain = tokens(encoder(pair), "a red fox", "")
    torch.testing.assert_close(tokens(encoder(pair, rule), "a red fox", ""), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", ["a1111", "comfy"])
def test_weights_move_tokens_away_from_the_empty_prompt(pair, rule):
    encode = encoder(pair, rule)
    plain, empty = tokens(encode, "a red fox"), tokens(encode, "")
    weighted = tokens(encode, "a (red:1.5) (fox:0)")
    ids = shipped().ids("a red fox")
    assert ids == shipped().ids("a") + shipped().ids("red") + shipped().ids("fox")
    start = len(shipped().ids("a"))
    red = slice(start, start + len(shipped().ids("red")))
    fox = slice(red.stop, len(ids))
    torch.testing.assert_close(weighted[:, red], empty[:, red] + 1.5 * (plain[:, red] - empty[:, red]))
    torch.testing.assert_close(weighted[:, fox], empty[:, fox])
    others = [n for n in range(LENGTH) if n not in range(red.start, fox.stop)]
    torch.testing.assert_close(weighted[:, others], plain[:, others], rtol=0, atol=0)


def test_break_parts_nothing_here_and_none_takes_all_for_text(pair):
    encode = encoder(pair, "a1111")
    torch.testing.assert_close(tokens(encode, "a fox BREAK a dog"), tokens(encode, "a fox a dog"))
    assert encoder(pair).row("(a:2)").ids == (*shipped().ids("(a:2)"), END)


def test_prompts_that_change_have_turns_of_one_shape(pair):
    encode = encoder(pair, "a1111", most=None, length=4)
    turns = encode(["a [cat:dog and a very long tail of words:.5]", "[|blue]"], 4)
    assert [turn.last for turn in turns] == [1, 2, 3, 4]
    assert len({turn.cond.tokens.shape for turn in turns}) == 1
    length = turns[0].cond.tokens.shape[1]
    said = [("a cat", ""), ("a cat", "blue"), ("a dog and a very long tail of words", "")]
    for turn, texts in zip(turns, said, strict=False):
        still = tokens(encoder(pair, length=length), *texts)
        torch.testing.assert_close(turn.cond.tokens, still, rtol=1e-5, atol=1e-5)
    turns = encode(["[a|b]"], 4)
    assert turns[0].cond is turns[2].cond


def test_what_does_not_fit_is_told(pair):
    encode = encoder(pair, "a1111", length=6, most=6)
    assert encode.cut(["one two three", "[four|five] six one two three four five"], 2) == ("four five",)
    assert tokens(encode, "one two three four five six seven").shape == (1, 6, WIDTH)
    whole = encoder(pair, "a1111", length=6, most=None)
    assert whole.cut(["one two three four five six seven"], 1) == ()
    assert tokens(whole, "one two three four five six seven").shape[1] > 6


def test_what_was_kept_is_said_without_the_tower(pair, tmp_path):
    encode = encoder(pair, "a1111", Kept(tmp_path))
    first = tokens(encode, "a (red:1.5) fox", "")
    assert encode.tower.come.count == 1
    again = encoder(pair, "a1111", Kept(tmp_path))
    assert torch.equal(tokens(again, "a (red:1.5) fox", ""), first)
    heavier = tokens(again, "a (red:1.2) fox", "")  # the same ids
    assert again.tower.come.count == 0
    assert not torch.equal(heavier, first)
    tokens(again, "a dog")
    assert again.tower.come.count == 1
    for other in ({"name": "another"}, {"masked": True}, {"length": 30, "most": 30}):
        once = encoder(pair, "a1111", Kept(tmp_path), **other)
        tokens(once, "a dog")
        assert once.tower.come.count == 1
    unnamed = encoder(pair, "a1111", Kept(tmp_path / "none"), name="")
    tokens(unnamed, "a dog")
    assert not (tmp_path / "none").exists()


def test_many_texts_are_told_a_few_at_a_time(pair):
    encode = encoder(pair, "a1111")
    texts = [f"a fox {number}" for number in range(11)]
    told = tokens(encode, *texts)
    assert encode.tower.come.count == 2
    torch.testing.assert_close(told[10:], tokens(encode, texts[10]), rtol=1e-5, atol=1e-5)


def test_tokens_keep_the_type_of_the_tower_and_what_is_refused(pair):
    assert tokens(encoder(pair, "a1111", dtype=torch.bfloat16), "a (cat:1.2)").dtype == torch.bfloat16
    with pytest.raises(InvalidField, match="AND"):
        encoder(pair, "a1111")(["a cat AND a dog"], 1)
