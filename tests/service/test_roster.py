"""Which provider is meant by a name, and what is said of models that are gone."""

import pytest

from triptych.errors import Gone, UnknownName
from triptych.service import default
from triptych.service.config import Config


@pytest.fixture
def roster(home, monkeypatch):
    return default(Config(home / "data", home / "cache", home / "config.toml")).roster


@pytest.mark.parametrize(
    ("name", "provider", "card"),
    [
        ("mini-image", "local", "mini-image"),
        ("sdxl", "local", "sdxl"),
        ("nano banana pro", "google", "gemini-3-pro-image"),
        ("DALL·E 3", "openai", "dall-e-3"),
        ("veo 3.1", "vertex", "veo-3.1-generate-001"),
        ("flux-2-pro", "bfl", "flux-2-pro"),
        ("openai-compatible:some/model", "openai-compatible", "openai-compatible:some/model"),
    ],
)
def test_names_and_what_they_mean(roster, name, provider, card):
    found, taken = roster.found(name)
    assert (found.name, taken.name) == (provider, card)


def test_what_nobody_has_is_told_with_what_is_written_most_like_it(roster):
    with pytest.raises(UnknownName, match=r"'midjourny'.*midjourney"):
        roster.found("midjourny")
    with pytest.raises(UnknownName, match="Did you mean 'gpt-image-2'"):
        roster.found("gpt-image-22")


@pytest.mark.parametrize("name", ["suno", "udio", "midjourney", "musiclm"])
def test_what_has_no_interface_is_told_with_what_there_is(roster, name):
    with pytest.raises(Gone, match=r"has no public API"):
        roster.found(name)


@pytest.mark.parametrize(
    ("name", "date"),
    [("dall-e-3", "2026-05-12"), ("sora-2", "2026-09-24"), ("imagen 4", "2026-08-17"), ("veo 3", "2026-06-30")],
)
def test_what_was_shut_down_is_refused_and_not_unknown(roster, name, date):
    assert roster.found(name)
    with pytest.raises(Gone, match=f"was shut down on {date}"):
        roster.living(name)


def test_a_gateway_may_serve_what_is_gone(roster, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    provider, card, told = roster.living("dall-e-3")
    assert (provider.name, card.name) == ("openai", "dall-e-3")
    assert "was shut down on 2026-05-12; the base URL is asked" in told[0]
    assert roster.successor("dall-e-3").name != "dall-e-3"  # who asks for one gets one


def test_what_takes_the_place_of_what_is_gone(roster):
    assert roster.successor("dall-e-3").name.startswith("gpt-image-2.6")
    assert roster.successor("suno").media == "audio"
    assert roster.successor("mini-image").name == "mini-image"
    with pytest.raises(UnknownName):
        roster.successor("nothing like it")


def test_what_is_missing_is_told_without_the_network(roster, monkeypatch):
    assert roster.lacks("mini-image") == ""
    assert roster.lacks("flux-2-pro") == "needs BFL_API_KEY"
    monkeypatch.setenv("BFL_API_KEY", "k")
    assert roster.lacks("flux-2-pro") == ""
    assert roster.lacks("suno") == "nobody here runs it"


def test_every_card_of_a_vendor_has_facts_and_every_model_of_one_has_a_card(roster):
    from triptych.catalogue import entries

    hosts = {"fal", "replicate", "huggingface", "openai-compatible"}
    cards = set(roster.cards())
    there = {one.name for one in entries().values() if one.provider and one.provider not in hosts}
    assert there - cards == set()
    assert {name for name in cards if name not in there and name not in ("toy", "slow")} == set()
