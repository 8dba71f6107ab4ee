"""Prompts to conditionings: diffusers' pipelines on the same towers, closed forms of weights, turns, learned words."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from towers import pair
from transformers import CLIPTokenizer

from triptych.engine.text.clip import END
from triptych.errors import InvalidField
from triptych.text.chunks import framed
from triptych.text.clip_tokens import merges, vocabulary
from triptych.text.encode import RULES, ClipEncoder, Tower
from triptych.text.inversion import Inversion

PROMPTS = ["a (red:1.3) fox, [from:to:3] BREAK the 1st snow", ""]


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer(vocab=vocabulary(), merges=merges(), model_max_length=77)


def encoder(rule, **options):
    inversions = options.pop("inversions", ())
    return ClipEncoder([Tower(pair(16)[1], **options)], RULES[rule], inversions)


def tokens(encode, *texts, steps=1):
    (turn,) = encode(texts, steps)
    return turn.cond.tokens


@pytest.mark.parametrize("skipped", [None, 1])
def test_it_is_diffusers_stable_diffusion(tokenizer, skipped):
    theirs = pair(16)[0]
    theirs.__dict__["text_model"] = theirs  # transformers 5 has no such part any more, and diffusers still asks for it
    pipe = StableDiffusionPipeline(None, theirs, tokenizer, None, None, None, None, requires_safety_checker=False)
    with torch.no_grad():
        cond, uncond = pipe.encode_prompt(PROMPTS[0], "cpu", 1, True, PROMPTS[1], clip_skip=skipped)
    ours = tokens(encoder("none", skip=1 + (skipped or 0)), *PROMPTS, steps=10)
    torch.testing.assert_close(ours[:1], cond, rtol=1e-5, atol=1e-5)
    unskipped = tokens(encoder("none"), *PROMPTS, steps=10)  # diffusers skips for the prompt alone
    torch.testing.assert_close(unskipped[1:], uncond, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("skipped", [None, 1])
def test_it_is_diffusers_stable_diffusion_xl(tokenizer, skipped):
    second = CLIPTokenizer(vocab=vocabulary(), merges=merges(), pad_token="!", model_max_length=77)
    (their_l, our_l), (their_g, our_g) = pair(16), pair(24, projected=20)
    pipe = StableDiffusionXLPipeline(None, their_l, their_g, tokenizer, second, None, None)
    with torch.no_grad():
        cond, uncond, *pooled = pipe.encode_prompt(
            PROMPTS[0], device="cpu", negative_prompt="a dog", clip_skip=skipped, do_classifier_free_guidance=True
        )
    for skip, tokens, row in ((2 + (skipped or 0), cond, 0), (2, uncond, 1)):  # as above
        towers = [Tower(our_l, skip, normed=False), Tower(our_g, skip, normed=False, pad=0, pooled=True)]
        (turn,) = ClipEncoder(towers, RULES["none"])([PROMPTS[0], "a dog"], 10)
        torch.testing.assert_close(turn.cond.tokens[row : row + 1], tokens, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(turn.cond.vector, torch.cat(pooled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_without_weights_all_rules_are_one(rule):
    plain = tokens(encoder("none"), "a red fox", "")
    torch.testing.assert_close(tokens(encoder(rule), "a red fox", ""), plain, rtol=1e-5, atol=1e-5)


def test_a1111_multiplies_and_restores_the_mean():
    plain, weighted = tokens(encoder("none"), "a red fox"), tokens(encoder("a1111"), "a (red:1.3) [fox]")
    factors = torch.ones(77, 1)
    factors[2], factors[3] = 1.3, 1 / 1.1
    expected = plain * factors
    torch.testing.assert_close(weighted, expected * plain.mean() / expected.mean(), rtol=1e-5, atol=1e-5)


def test_a1111_leaves_alone_what_has_no_mean():
    hidden = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]])
    weights = torch.tensor([[1.0, 1.5]])
    weighted = RULES["a1111"].weigh(hidden, weights, lambda: hidden)
    torch.testing.assert_close(weighted, hidden * weights[..., None])


def test_a1111_restores_the_mean_of_each_chunk():
    long = "cat " * 75
    plain, weighted = tokens(encoder("none"), f"{long}dog"), tokens(encoder("a1111"), f"(cat:1.5) {'cat ' * 74}dog")
    torch.testing.assert_close(weighted[:, 77:], plain[:, 77:])
    torch.testing.assert_close(weighted[:, :77].mean(), plain[:, :77].mean())
    assert not torch.allclose(weighted[:, 1], plain[:, 1])


def test_comfy_moves_away_from_the_empty_prompt():
    plain, empty = tokens(encoder("none"), "a red fox"), tokens(encoder("none"), "")
    weighted = tokens(encoder("comfy"), "a (red:1.5) (fox:0)")
    torch.testing.assert_close(weighted[:, 2], empty[:, 2] + 1.5 * (plain[:, 2] - empty[:, 2]))
    torch.testing.assert_close(weighted[:, 3], empty[:, 3])
    torch.testing.assert_close(weighted[:, [0, 1, *range(4, 77)]], plain[:, [0, 1, *range(4, 77)]])


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_cut_and_all_prompts_have_the_same_count_of_chunks(rule):
    encode = encoder(rule)
    said = tokens(encode, "cat " * 200, "a dog")
    assert said.shape == (2, 3 * 77, 16)
    torch.testing.assert_close(said[1, :77], tokens(encode, "a dog")[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(said[1, 77:154], tokens(encode, "")[0], rtol=1e-5, atol=1e-5)


def test_prompts_that_change_have_turns_of_one_shape():
    encode = encoder("a1111")
    turns = encode(["a [cat:dog BREAK fox:.5]", "[|blue]"], 4)
    assert [turn.last for turn in turns] == [1, 2, 3, 4]
    expected = [("a cat", ""), ("a cat", "blue"), ("a dog BREAK fox", ""), ("a dog BREAK fox", "blue")]
    for turn, (cond, uncond) in zip(turns, expected, strict=True):
        still = tokens(encode, cond, uncond, "BREAK BREAK")[:2]
        torch.testing.assert_close(turn.cond.tokens, still, rtol=1e-5, atol=1e-5)


def test_turns_that_say_the_same_share_their_conditioning():
    turns = encoder("a1111")(["[a|b]"], 4)
    assert turns[0].cond is turns[2].cond
    assert turns[0].cond is not turns[1].cond


def test_the_pooled_vector_is_that_of_the_first_chunk():
    encode = ClipEncoder([Tower(pair(24, projected=20)[1], 2, normed=False, pad=0, pooled=True)], RULES["a1111"])
    (long,), (short,) = encode(["a (fox:1.4) BREAK a dog"], 1), encode(["a fox"], 1)
    assert long.cond.vector.shape == (1, 20)
    torch.testing.assert_close(long.cond.vector, short.cond.vector)


def test_learned_words_stand_for_their_vectors():
    net = pair(16)[1]
    vectors = net.embeddings.token_embedding.weight[[2368, 320]].detach()  # cat, a
    encode = encoder("a1111", inversions=[Inversion("My-Style", (vectors,))])
    said = tokens(encode, "a (my-style:1.2), fox")
    torch.testing.assert_close(said, tokens(encode, "a (cat a:1.2), fox"), rtol=1e-5, atol=1e-5)
    assert encode.chunks("my-style")[0].ids == (49408, 49409)
    assert encoder("comfy", inversions=[Inversion("s", (vectors,))]).chunks("embedding:s s")[0].ids[:2] == (
        49408,
        49409,
    )


def test_what_is_refused():
    with pytest.raises(InvalidField, match="AND"):
        encoder("a1111")(["a cat AND a dog"], 1)
    assert tokens(encoder("none"), "a cat AND a dog").shape == (1, 77, 16)
    for skip in (0, 4):
        with pytest.raises(InvalidField, match="clip_skip"):
            Tower(pair(16)[1], skip)


def test_weights_and_tokens_keep_the_type_of_the_tower():
    net = pair(16, seed=1)[1].to(torch.bfloat16)
    (turn,) = ClipEncoder([Tower(net)], RULES["a1111"])(["a (cat:1.2)"], 1)
    assert turn.cond.tokens.dtype == torch.bfloat16


def test_ids_are_those_that_a_tower_reads():
    assert framed(encoder("none").chunks("a fox"), END)[0][0, :4].tolist() == [49406, 320, 3240, END]
