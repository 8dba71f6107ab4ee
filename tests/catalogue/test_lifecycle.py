"""What is said of models that are gone, will go, or never could be asked."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from triptych.catalogue import alive, found, refuse, shipped, stale, successors, warning
from triptych.errors import Gone

TODAY = date(2026, 11, 26)


def refused(name, day=TODAY):
    with pytest.raises(Gone) as raised:
        refuse(found(name), day)
    return str(raised.value)


def test_dall_e_3_says_since_when_and_how_to_go_on():
    told = refused("dalle 3")
    assert told.startswith("DALL·E 3 was shut down on 2026-05-12. Closest today: gpt-image-2.6-flare ($0.0")
    assert "gpt-image-2.6-sunburst ($" in told
    assert "Run it with --successor, or set a base URL of a gateway that still serves it (" in told
    assert "[openai] base_url in config.toml" in told


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "sora",
            [
                "was shut down on 2026-09-24",
                "OpenAI has no successor",
                "gemini-omni-1.2-flash ($",
            ],
        ),
        ("imagen 4", ["was shut down on 2026-08-17", "gemini-3-pro-image ($0.134", "gemini-nano-banana-2.1"]),
        ("veo 3", ["was shut down on 2026-06-30", "gemini-omni-1.2-flash"]),
        ("midjourney", ["has no public API", "flux-2-max"]),
        ("suno", ["has no public API", "eleven-music-v2.5 (price not known)", "lyria-3.5 ($0.08 a song)"]),
        ("musiclm", ["has no public API", "lyria-3.5", "lyria-3-clip-preview"]),
        ("flux 1 pro", ["is run by nobody", "flux-pro-1.1 ($0.04 an image)"]),
        ("stable video", ["was shut down on 2025-07-24"]),
        ("wan", ["is run by nobody that can be asked here", "does not run here yet"]),
    ],
)
def test_what_cannot_be_asked_names_what_can(name, parts):
    told = refused(name)
    assert not [part for part in parts if part not in told]
    assert ("gateway" in told) == (found(name).provider != "")


def test_the_living_are_not_refused():
    for entry in shipped().values():
        if alive(entry, TODAY):
            refuse(entry, TODAY)


def test_a_deprecated_model_warns_with_the_date_and_then_is_gone():
    entry = found("gpt-image-1.5")
    refuse(entry, TODAY)
    assert warning(entry, TODAY).startswith(
        "GPT Image 1.5 will be shut down on 2026-12-01 (in 5 days). Closest that stays: gpt"
    )
    assert "was shut down on 2026-12-01" in refused("gpt-image-1.5", date(2026, 12, 1))
    assert warning(found("gpt-image-2.6-flare"), TODAY) == ""
    assert "2026-10-02" in warning(found("gemini-2.5-flash-image"), TODAY)
    assert "not certain" in warning(found("veo 3.1"), TODAY)


def test_a_price_can_be_told_another_way():
    with pytest.raises(Gone, match=r"gpt-image-2.6-flare \(a cent\)"):
        refuse(found("dall-e-3"), TODAY, lambda entry: "a cent")


def known(**chains):
    entry = shipped()["dall-e-3"]
    life = entry.lifecycle
    states = {"a": "shut_down", "b": "shut_down", "c": "active", "d": "unknown", "e": "active"}
    return {
        name: replace(
            entry,
            name=name,
            provider="" if name == "e" else "openai",
            lifecycle=replace(life, state=states[name], successors=tuple(chains.get(name, ""))),
        )
        for name in states
    }


def test_chains_lead_to_those_that_live():
    def after(**chains):
        some = known(**chains)
        return [one.name for one in successors(some["a"], TODAY, some)]

    assert after(a="b", b="c") == ["c"]
    assert after(a="b", b="a") == []
    assert after(a="ab", b="bca") == ["c"]
    assert after(a="dc") == ["c", "d"]  # what is certain first
    assert after(a="e", e="c") == ["c"]  # nobody runs e
    assert after(a="bc", b="c") == ["c"]
    assert after() == []


def test_old_knowledge_says_so():
    entry = found("gemini-3-pro-image")
    checked = entry.lifecycle.checked
    assert stale(entry, checked + timedelta(60)) == ""
    assert "61 days ago" in stale(entry, checked + timedelta(61))
    assert "triptych models --refresh" in stale(entry, checked + timedelta(400))
    assert "11 days ago" in stale(entry, checked + timedelta(11), days=10)
    assert stale(found("sd15"), date(2099, 1, 1)) == ""
