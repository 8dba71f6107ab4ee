"""Prices of requests against the figures of ../shared/apis.md."""

from datetime import date

import pytest

from triptych.catalogue import shipped
from triptych.catalogue.entries import PriceRow
from triptych.catalogue.pricing import listed, shown
from triptych.errors import PriceUnknown
from triptych.types import Artifact, Request

DAY = date(2026, 11, 23)


def price(model, prompt="a fox", **given):
    plain = {name: given.pop(name) for name in ("width", "height", "duration", "count", "inputs") if name in given}
    return listed(shipped()[model].prices, Request(model, prompt, options=given, **plain))


EXACT = [  # as the vendors' lists of 2026-11-23 have them
    ("gemini-3-pro-image", {}, 0.134),
    ("gemini-3-pro-image", {"image_size": "2K", "count": 4}, 4 * 0.134),
    ("gemini-nano-banana-2.1", {"image_size": "1K"}, 0.0336),
    ("gemini-3.1-flash-image", {"image_size": "512"}, 0.045),
    ("gemini-3.1-flash-image", {"image_size": "1K"}, 0.067),
    ("gemini-3.1-flash-lite-image", {}, 0.0336),
    ("gemini-2.5-flash-image", {}, 0.039),
    ("imagen-4.0-generate-001", {}, 0.04),
    ("imagen-4.0-fast-generate-001", {}, 0.02),
    ("imagen-4.0-ultra-generate-001", {}, 0.06),
    ("veo-3.1-generate-001", {"duration": 8.0, "resolution": "1080p"}, 3.20),
    ("veo-3.1-generate-001", {"duration": 8.0, "resolution": "4k"}, 4.80),
    ("veo-3.1-fast-generate-001", {"duration": 8.0, "resolution": "720p"}, 0.80),
    ("veo-3.1-fast-generate-001", {"duration": 4.0, "resolution": "1080p"}, 0.48),
    ("veo-3.1-fast-generate-001", {"duration": 6.0, "resolution": "4k"}, 1.80),
    ("veo-2.0-generate-001", {"duration": 8.0}, 4.00),
    ("lyria-3.5", {}, 0.08),
    ("lyria-3-clip-preview", {}, 0.04),
    ("lyria-002", {"count": 2}, 0.12),
    ("sora-2", {"duration": 12.0}, 1.20),
    ("sora-2-pro", {"duration": 4.0, "width": 1280, "height": 720}, 1.20),
    ("sora-2-pro", {"duration": 4.0, "width": 1792, "height": 1024}, 2.00),
    ("flux-2-pro", {"width": 1024, "height": 1024}, 0.03),
    ("flux-2-pro", {"width": 2048, "height": 2048}, 0.03 + 3 * 0.015),
    ("flux-2-max", {"width": 1536, "height": 1024}, 0.07 + 0.03),
    ("flux-2-flex", {"width": 2048, "height": 1024, "count": 2}, 2 * (0.05 + 0.05)),
    ("flux-2-klein-4b", {"width": 1024, "height": 1024}, 0.014),
    ("flux-2-klein-9b", {"width": 512, "height": 512}, 0.015),
    ("flux-3-image", {"resolution": "768sq"}, 0.041),
    ("flux-3-image", {"resolution": "4k"}, 0.607),
    ("flux-3-video", {"mode": "t2v", "resolution": "hd", "duration": 10.0}, 1.70),
    ("flux-kontext-pro", {}, 0.04),
    ("flux-kontext-max", {}, 0.08),
    ("flux-pro-1.1", {"width": 1440, "height": 1440}, 0.04),
    ("flux-pro-1.1-ultra", {}, 0.06),
    ("flux-pro-1.0-fill", {}, 0.05),
    ("bfl-flux-dev", {}, 0.025),
    ("stable-image-ultra", {}, 0.08),
    ("stable-image-core", {}, 0.03),
    ("stability-sd3.5-large", {}, 0.065),
    ("stability-sd3.5-large-turbo", {}, 0.04),
    ("stability-sd3.5-medium", {}, 0.035),
    ("stable-image-inpaint", {}, 0.05),
    ("stable-image-upscale-creative", {}, 0.60),
    ("stable-image-upscale-conservative", {}, 0.40),
    ("stable-image-upscale-fast", {}, 0.02),
    ("stable-audio-2.5", {"duration": 30.0}, 0.20),
    ("stable-audio-3", {"duration": 300.0}, 0.26),
    ("replicate:black-forest-labs/flux-1.1-pro", {}, 0.04),
    ("replicate:black-forest-labs/flux-dev", {}, 0.025),
    ("replicate:black-forest-labs/flux-schnell", {}, 0.003),
    ("fal:fal-ai/flux/dev", {"width": 1024, "height": 1024}, 0.025),
    ("fal:fal-ai/flux/dev", {"width": 2048, "height": 1024}, 0.05),
]


@pytest.mark.parametrize(("model", "given", "dollars"), EXACT, ids=[f"{m} {g}" for m, g, _ in EXACT])
def test_a_request_costs_what_the_list_says(model, given, dollars):
    found = price(model, **given)
    assert found.exact
    assert found.most == pytest.approx(dollars, abs=1e-9)


RANGES = [  # $17.50 a million tokens, about $0.10 a second; pictures by tokens
    ("gemini-omni-1.2-flash", {"duration": 10.0, "resolution": "720p"}, 1.00),
    ("gpt-image-2.5-flare", {"quality": "high", "width": 1024, "height": 1024}, 0.0527),
    ("gpt-image-1.5", {"quality": "medium"}, 0.034),
    ("gpt-image-1.5", {"quality": "high"}, 0.133),
]


@pytest.mark.parametrize(("model", "given", "dollars"), RANGES, ids=[f"{m} {g}" for m, g, _ in RANGES])
def test_what_is_known_about_lies_in_its_range_which_says_why(model, given, dollars):
    found = price(model, **given)
    assert not found.exact
    assert found.why
    assert found.least - 0.001 <= dollars <= found.most  # the prompt costs a little


def test_high_quality_costs_more_than_low():
    def most(quality):
        return price("gpt-image-2.6-flare", quality=quality, width=1024, height=1024).most

    assert most("low") < most("medium") < most("high")


UNKNOWN = [
    ("eleven-music-v2.5", {"duration": 60.0}),
    ("eleven-sound-effects", {"duration": 5.0}),
    ("huggingface:black-forest-labs/FLUX.1-dev", {}),
    ("veo-3.1-generate-001", {"resolution": "720p"}),  # for how long?
    ("flux-2-pro", {}),  # how large?
    ("suno", {}),
]


@pytest.mark.parametrize(("model", "given"), UNKNOWN, ids=[f"{m} {g}" for m, g in UNKNOWN])
def test_what_nobody_knows_is_not_free(model, given):
    with pytest.raises(PriceUnknown, match="--unpriced"):
        price(model, **given)


def row(per, dollars, **when):
    return PriceRow(per, "a list", DAY, when, dollars)


def test_the_row_that_says_most_holds_and_units_are_added():
    rows = (
        row("image", 1.0),
        row("image", 2.0, quality="high"),
        row("image", 4.0, quality="high", width=8),
        row("request", 0.5),
    )
    asked = Request("m", "p", width=8, height=8, options={"quality": "high"})
    assert listed(rows, asked).most == 4.5
    assert listed(rows, Request("m", "p", width=9, options={"quality": "high"})).most == 2.5
    assert listed(rows, Request("m", "p", width=9, options={"quality": "low"})).most == 1.5
    assert listed(tuple(reversed(rows)), asked).most == 4.5


def test_a_field_that_is_not_given_is_an_empty_text():
    rows = (row("image", 1.0, size=["", "1K"]), row("image", 2.0, size="4K"))
    assert [listed(rows, Request("m", "p", options=said)).most for said in ({}, {"size": "1K"}, {"size": "4K"})] == [
        1,
        1,
        2,
    ]
    with pytest.raises(PriceUnknown):
        listed(rows, Request("m", "p", options={"size": "2K"}))


def test_what_comes_along_is_counted_and_alone_is_no_price():
    picture = Artifact("image/png", b"")
    beside = (row("input_image", 0.25), row("thousand_characters", 0.5))
    asked = Request("m", "x" * 500, inputs={"init": picture, "reference": picture, "mask": picture}, count=2)
    assert listed((*beside, row("image", 1.0)), asked).most == 2 * (1 + 2 * 0.25 + 0.5 * 0.5)
    with pytest.raises(PriceUnknown):
        listed(beside, asked)
    with pytest.raises(PriceUnknown):
        listed((row("million_tokens", 30.0, kind="image_out"),), asked)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lyria-3.5", "$0.08 a song"),
        ("veo-3.1-generate-001", "$0.40 to $0.60 a second"),
        ("flux-2-pro", "$0.03 an image + $0.015 a further megapixel"),
        ("flux-3-image", "$0.041 to $0.607 an image"),
        ("imagen-4.0-generate-001", "$0.04 an image"),
        ("eleven-music-v2.5", ""),
    ],
)
def test_a_list_at_a_glance(name, told):
    assert shown(shipped()[name].prices) == told
