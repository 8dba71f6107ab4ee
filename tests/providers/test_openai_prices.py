"""What OpenAI's pictures cost before they are asked for, held against another list of the same prices."""

import json
from pathlib import Path

import pytest

from triptych.errors import PriceUnknown
from triptych.providers.openai import OpenAI
from triptych.providers.openai_prices import cost, tokens
from triptych.types import Artifact, Request

LIST = Path(__file__).parents[2].parent / "shared" / "specs" / "litellm_media_prices.json"
OPENAI = OpenAI()
EMPTY = Artifact("image/png", b"")


def price(model, prompt="a fox", **said):
    card = OPENAI.card(model)
    return OPENAI.price(card, card.resolve(Request(model, prompt, **said)))


def resold():
    """(model, quality, width, height, dollars) of fal, which asks what OpenAI asks, out of LiteLLM's price map."""
    for name, told in json.loads(LIST.read_text()).items():
        parts = name.split("/")
        if parts[0] == "fal_ai" and "-x-" in name and "gpt-image-2" in name and not name.endswith("/edit"):
            width, height = map(int, parts[2].split("-x-"))
            model = "gpt-image-2.5-flare" if "2.5" in name else "gpt-image-2"
            yield model, parts[1], width, height, told["output_cost_per_image"]


def test_tokens_are_those_that_the_resellers_bill():
    if not LIST.exists():
        pytest.skip(f"{LIST} is not here")
    found = list(resold())
    assert len(found) >= 90
    for model, quality, width, height, dollars in found:
        ours = tokens(OPENAI.card(model).settings["tokens"][quality], width, height) * 30e-6
        rounded = 0.00101 if model == "gpt-image-2" else 1e-9  # to the next tenth of a cent
        assert abs(ours - dollars) < rounded, (model, quality, width, height, ours, dollars)


@pytest.mark.parametrize(
    ("fineness", "width", "height", "number"),
    [  # OpenAI's calculator, as community.openai.com/t/1379464 quotes it
        (96, 1024, 1024, 7024),
        (96, 1536, 1024, 5488),
        (96, 1792, 1024, 5063),
        (96, 3584, 2048, 12329),
        # GPT Image 2.5 by quality, as s-anand.net has it of 2026-09-26
        (16, 1024, 1024, 196),
        (24, 1024, 1024, 439),
        (48, 1024, 1024, 1756),
        (64, 1024, 1024, 3122),
    ],
)
def test_tokens_are_those_of_the_calculator(fineness, width, height, number):
    assert tokens(fineness, width, height) == tokens(fineness, height, width) == number


@pytest.mark.parametrize(("quality", "seen"), [("low", 664), ("high", 1353)])
def test_what_was_seen_of_2_6_lies_within_its_price(quality, seen):
    """docs.laozhang.ai/api-capabilities/gpt-image-2-6: 1536 x 1024, measured on 2026-11-05."""
    told = price("gpt-image-2.6-flare", width=1536, height=1024, options={"quality": quality})
    assert told.least <= seen * 30e-6 <= told.most


def test_what_is_left_open_widens_the_price():
    exact = price("gpt-image-2.5-flare", options={"quality": "high"})
    assert exact.least == pytest.approx(0.05268 + 0.001 * 5 / 1000)
    assert exact.most == pytest.approx(0.05268 + 0.01 * 5 / 1000)
    any_size = price("gpt-image-2.5-flare", options={"quality": "high", "size": "auto"})
    assert any_size.least < exact.least < exact.most < any_size.most
    any_quality = price("gpt-image-2.5-flare")
    assert any_quality.least < exact.least < exact.most < any_quality.most
    previews = price("gpt-image-2.5-flare", options={"quality": "high", "partial_images": 2})
    assert previews.most - exact.most == pytest.approx(200 * 30e-6)
    inputs = {"init": EMPTY, "mask": EMPTY, "reference": EMPTY}
    assert price("gpt-image-2.5-flare", options={"quality": "high"}, inputs=inputs).most > exact.most + 0.02
    assert price("gpt-image-2.5-flare", options={"quality": "high"}, count=3).most == pytest.approx(3 * exact.most)


@pytest.mark.parametrize(
    ("model", "said", "dollars"),
    [
        ("dall-e-3", {}, 0.04),
        ("dall-e-3", {"width": 1024, "height": 1792, "options": {"quality": "hd"}}, 0.12),
        ("dall-e-2", {"width": 256, "height": 256, "count": 3}, 0.048),
        ("sora-2", {"duration": 12, "count": 2}, 2.4),
        ("sora-2-pro", {"width": 1792, "height": 1024}, 2.0),
        ("sora-2-pro", {}, 1.2),
    ],
)
def test_what_has_one_price_has_one(model, said, dollars):
    told = price(model, **said)
    assert told.exact
    assert told.most == pytest.approx(dollars)


def test_no_price_is_nothing():
    with pytest.raises(PriceUnknown):
        price("chatgpt-image-latest")


def test_words_that_are_made_cost_what_words_cost():
    usage = {
        "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
        "output_tokens": 1100,
        "output_tokens_details": {"text_tokens": 100, "image_tokens": 1000},
    }
    assert cost(OPENAI.card("gpt-image-1.5"), usage) == pytest.approx((1000 * 32 + 100 * 10) / 1e6)
    assert cost(OPENAI.card("gpt-image-2"), usage) == pytest.approx(1100 * 30 / 1e6)
    assert cost(OPENAI.card("dall-e-3"), usage) is None


def test_a_cached_token_without_a_kind_is_one_of_the_prompt():
    details = {"text_tokens": 100, "image_tokens": 10, "cached_tokens": 60}
    usage = {"input_tokens_details": details, "output_tokens": 0}
    assert cost(OPENAI.card("gpt-image-2"), usage) == pytest.approx((40 * 5 + 60 * 1.25 + 10 * 8) / 1e6)
