"""What others' lists say, compared with what is known: against the price map that the facts were read from, too."""

import json
from datetime import date
from pathlib import Path

import pytest

from triptych.catalogue import entries, kept, refresh, shipped, use
from triptych.catalogue.kept import Found
from triptych.errors import FileProblem

DAY = date(2026, 12, 20)
MAP = Path(__file__).parents[3] / "shared" / "specs" / "litellm_media_prices.json"


@pytest.fixture
def known():
    return shipped()


def openai(**models):
    """Their list, with a model that makes texts."""
    entries = [{"id": "gpt-6", "object": "model"}]
    return [{"object": "list", "data": entries + [{"id": name, **told} for name, told in models.items()]}]


def test_openais_list_is_read():
    told = {
        "gpt-image-2": {},
        "gpt-image-1.5": {"shutdown_date": "2026-12-01"},
        "dall-e-3": {"shutdown_date": 1778544000},
    }
    found = refresh.models("openai", openai(**told))
    assert found == {"gpt-image-2": None, "gpt-image-1.5": date(2026, 12, 1), "dall-e-3": date(2026, 5, 12)}


def test_googles_list_is_read_page_by_page():
    pages = [
        {"models": [{"name": "models/gemini-3-pro-image"}, {"name": "models/gemini-3.8-flash"}], "nextPageToken": "x"},
        {"models": [{"name": "models/lyria-3.5"}]},
    ]
    assert refresh.models("google", pages) == {"gemini-3-pro-image": None, "lyria-3.5": None}


@pytest.mark.parametrize(
    "answers", [[{}], [{"data": []}], [{"data": [{"id": "gpt-6"}]}], [{"data": ["x"]}], [{"data": None}]]
)
def test_what_is_no_list_is_refused(answers):
    with pytest.raises((KeyError, TypeError, ValueError)):
        refresh.models("openai", answers)


def test_what_is_new_is_told(known):
    seen = {
        "gpt-image-3": None,  # nobody knew it
        "gpt-image-2-2026-04-21": None,  # a snapshot of one that is known
        "gpt-image-2": date(2027, 6, 1),  # will end
        "gpt-image-1.5": date(2026, 12, 1),  # as it was known
        "sora-2": None,  # is back
        "gpt-image-2.6-flare": None,
    }
    found, changes = refresh.listed("openai", seen, known, date(2026, 11, 26))
    told = {(change.model, change.what) for change in changes}
    assert {("gpt-image-3", "new"), ("gpt-image-2", "ends"), ("sora-2", "alive")} <= told
    assert told - {("gpt-image-3", "new"), ("gpt-image-2", "ends"), ("sora-2", "alive")} == {
        (entry.name, "missing")
        for entry in known.values()
        if entry.provider == "openai"
        and entry.name not in seen
        and entry.lifecycle.state_on(date(2026, 11, 26)) in ("active", "deprecated")
    }
    assert set(found) == {"gpt-image-2", "gpt-image-1.5", "sora-2", "gpt-image-2.6-flare"}
    texts = {change.model: str(change) for change in changes}
    assert texts["gpt-image-2"] == "gpt-image-2: shut down on 2027-06-01 (no date before)"
    assert "new in the list of openai" in texts["gpt-image-3"]


def test_what_a_list_says_lies_over_what_was_known(known):
    found = {
        "gpt-image-2": Found(listed=DAY, ends=date(2027, 6, 1), list_source="their list"),
        "sora-2": Found(listed=DAY, list_source="their list"),
        "gemini-2.5-flash-image": Found(listed=DAY, list_source="their list"),
        "gemini-3-pro-image": Found(priced=DAY, prices={"image": 0.1, "image@4K": 9.0}, price_source="a map"),
        "gone-since": Found(listed=DAY),
    }
    over = kept.over(known, found)
    assert set(over) == set(known)
    life = over["gpt-image-2"].lifecycle
    assert (life.state, life.ends, life.checked, life.source) == ("deprecated", date(2027, 6, 1), DAY, "their list")
    assert (over["sora-2"].lifecycle.state, over["sora-2"].lifecycle.ends) == ("active", None)
    nano = over["gemini-2.5-flash-image"].lifecycle  # that it ends was told elsewhere
    assert (nano.state, nano.ends, nano.checked) == ("deprecated", date(2027, 3, 15), DAY)
    pro = next(
        row for row in over["gemini-3-pro-image"].prices if row.per == "image" and "1K" in row.when["image_size"]
    )
    assert (pro.dollars, pro.checked, pro.source) == (0.1, DAY, "a map")
    assert over["lyria-3.5"] == known["lyria-3.5"]


def test_what_was_checked_later_stays(known):
    early = date(2026, 1, 1)
    found = {"gemini-3-pro-image": Found(early, None, "old", early, {"image": 9.0}, "old")}
    assert kept.over(known, found)["gemini-3-pro-image"] == known["gemini-3-pro-image"]


def test_the_map_that_the_facts_came_from_changes_nothing(known):
    if not MAP.exists():
        pytest.skip(f"{MAP} is not here")
    found, changes = refresh.priced(json.loads(MAP.read_text()), known, DAY, "the map")
    assert [str(change) for change in changes] == []
    assert len(found) > 30
    assert {"lyria-3.5", "veo-3.1-generate-001", "flux-kontext-max", "gpt-image-2", "fal:fal-ai/flux/dev"} <= set(found)
    assert not [name for name in found if name.startswith("stable-image") and "inpaint" in name]  # ten times too low
    after = kept.over(known, found)
    for name, one in found.items():
        rows = {(row.per, str(row.when)): row.dollars for row in known[name].prices}
        assert {(row.per, str(row.when)): row.dollars for row in after[name].prices} == rows, name
        assert one.prices


def test_a_dearer_map_is_told_and_taken(known):
    prices = {
        "gpt-image-2": {"output_cost_per_image_token": 6e-05, "mode": "image_generation"},
        "vertex_ai/veo-3.1-fast-generate-001": {"output_cost_per_second": 0.1, "output_cost_per_second_4k": 0.33},
        "gemini/lyria-3.5": {"output_cost_per_image": 0.09},  # songs stand there under images
        "stability/inpaint": {"output_cost_per_image": 0.005, "mode": "image_edit"},
        "stability/stable-image-core": {"output_cost_per_image": 0.04, "mode": "image_generation"},
        "black_forest_labs/flux-pro-1.1": {"output_cost_per_image": "free"},
    }
    found, changes = refresh.priced(prices, known, DAY, "a map")
    assert {str(change) for change in changes} == {
        "gpt-image-2: million tokens, image out $60.00 ($30.00 before)",
        "veo-3.1-fast-generate-001: second, 4k $0.33 ($0.30 before)",
        "lyria-3.5: song $0.09 ($0.08 before)",
        "stable-image-core: image $0.04 ($0.03 before)",
    }
    assert [row.dollars for row in kept.over(known, found)["lyria-3.5"].prices] == [0.09]


def test_a_map_of_something_else_is_refused(known):
    with pytest.raises(ValueError, match="price map"):
        refresh.priced({"claude": {"input_cost_per_token": 1e-06}}, known, DAY, "a map")


def test_what_was_found_survives_the_disk(tmp_path, known):
    found = {
        "sora-2": Found(listed=DAY, ends=date(2027, 1, 1), list_source="their list"),
        "lyria-3.5": Found(priced=DAY, prices={"song": 0.09}, price_source="a map"),
    }
    place = tmp_path / "catalogue.json"
    assert kept.read(place) == {}
    place.write_text(json.dumps(kept.told(DAY, found)))
    assert kept.read(place) == found
    try:
        use(place)
        assert entries()["lyria-3.5"].prices[0].dollars == 0.09
        assert entries()["sora-2"].lifecycle.state_on(DAY) == "deprecated"
    finally:
        use(None)
    assert entries() is known


def test_the_later_finding_holds_part_by_part():
    first = Found(DAY, date(2027, 1, 1), "list", DAY, {"image": 1.0}, "map")
    later = date(2027, 2, 2)
    assert first | Found(listed=later) == Found(later, None, "", DAY, {"image": 1.0}, "map")
    assert first | Found(priced=later, prices={"image": 2.0}) == Found(
        DAY, date(2027, 1, 1), "list", later, {"image": 2.0}, ""
    )
    assert refresh.joined({"a": first}, {"b": first}) == {"a": first, "b": first}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "models": {}}', '{"version": 1, "models": {"x": {"ends": "soon"}}}']
)
def test_a_broken_file_says_what_to_do(tmp_path, text):
    place = tmp_path / "catalogue.json"
    place.write_text(text)
    with pytest.raises(FileProblem, match="triptych models --refresh"):
        kept.read(place)
