"""The model that ships: it loads strictly, is its own repetition, and draws what short prompts say."""

from dataclasses import replace

import pytest
import torch

from triptych.errors import InvalidField
from triptych.families import cards, load
from triptych.model import decode, generate
from triptych.types import Request

CARD = cards()["mini-image"]


@pytest.fixture(scope="module")
def model():
    return load(CARD, "cpu", "float32")


def draw(model, prompt, **fields):
    *_, last = generate(model, CARD.resolve(Request("mini-image", prompt, **{"seed": 1, "steps": 8, **fields})))
    return decode(model, last.x_t)


def test_the_same_seed_is_the_same_picture_bit_for_bit(model):
    first, second = draw(model, "a red heart"), draw(model, "a red heart")
    assert first.shape == (1, 3, 128, 128)
    assert torch.equal(first, second)
    assert not torch.equal(first, draw(model, "a red heart", seed=2))


def test_four_at_once_are_four_seeds(model):
    together = draw(model, "a cat", count=4, seed=5)
    alone = torch.cat([draw(model, "a cat", seed=seed) for seed in range(5, 9)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)


def colour(picture):
    """The mean colour of what is not white."""
    pixels = picture[0].permute(1, 2, 0).reshape(-1, 3)
    return pixels[(pixels < 0.6).any(1)].mean(0)


def test_hearts_have_the_colour_that_is_asked_for(model):
    red, blue = colour(draw(model, "a red heart", steps=20)), colour(draw(model, "a blue heart", steps=20))
    assert red[0] > red[2] + 0.3
    assert blue[2] > blue[0] + 0.3


def test_the_background_is_the_one_that_is_asked_for(model):
    corner = draw(model, "a cat on a blue background", steps=20)[0, :, :8, :8].mean((1, 2))
    assert corner[2] > corner[0] + 0.5


def test_another_size_is_drawn_too(model):
    assert draw(model, "a cat", width=192, height=96).shape == (1, 3, 96, 192)


def test_prompts_of_too_many_tokens_are_refused_and_not_cut(model):
    request = CARD.resolve(Request("mini-image", "cat " * 40, seed=1))
    with pytest.raises(InvalidField, match="31 tokens"):
        next(generate(model, request))


def test_half_precision_of_the_processor_draws_nearly_the_same(model):
    exact = draw(model, "a red heart", steps=8)
    rough = draw(load(CARD, "cpu", "bfloat16"), "a red heart", steps=8)
    assert (exact - rough.float()).abs().mean() < 0.05


def test_a_card_without_its_weights_says_so():
    from triptych.errors import TriptychError

    lost = replace(CARD, settings={**CARD.settings, "weights": "nowhere.safetensors"})
    with pytest.raises(TriptychError, match=r"nowhere\.safetensors"):
        load(lost, "cpu", "float32")
