"""Every row of the catalogue: complete, dated, and leading somewhere."""

import re
import sys
from collections import Counter
from datetime import date

import pytest

from triptych import cards, catalogue, families
from triptych.catalogue import ABILITIES, SUBJECTS, Lifecycle, lifecycle, names
from triptych.catalogue.entries import UNITS, files
from triptych.errors import FileProblem

TODAY = date(2026, 11, 26)
ALL = list(catalogue.shipped().values())
EACH = pytest.mark.parametrize("entry", ALL, ids=[entry.name for entry in ALL])

SYSTEMS = {  # ../shared/systems.md, and section 0 of apis.md: what of each must be there, by state on TODAY
    "sd15": "active",
    "sdxl": "active",
    "sdxl-refiner": "active",
    "sdxl-turbo": "active",
    "sd3-medium": "active",
    "sd3.5-large": "active",
    "flux1-dev": "active",
    "flux1-schnell": "active",
    "flux-pro": "unknown",
    "flux-pro-1.1": "active",
    "flux-pro-1.1-ultra": "active",
    "flux-kontext-max": "active",
    "flux-2-pro": "active",
    "flux-3-image": "active",
    "dall-e-2": "shut_down",
    "dall-e-3": "shut_down",
    "gpt-image-1": "shut_down",
    "gpt-image-1.5": "deprecated",
    "gpt-image-1-mini": "deprecated",
    "chatgpt-image-latest": "deprecated",
    "gpt-image-2.6-sunburst": "active",
    "imagen-4.0-generate-001": "shut_down",
    "imagen-4.0-fast-generate-001": "shut_down",
    "imagen-4.0-ultra-generate-001": "shut_down",
    "gemini-3-pro-image": "active",
    "gemini-nano-banana-2.1": "active",
    "gemini-3.1-flash-image": "deprecated",
    "sora-2": "shut_down",
    "sora-2-pro": "shut_down",
    "veo-2.0-generate-001": "shut_down",
    "veo-3.0-generate-001": "shut_down",
    "veo-3.1-generate-001": "unknown",
    "gemini-omni-1.2-flash": "active",
    "wan2.1": "active",
    "wan2.2": "active",
    "musiclm": "no_public_api",
    "lyria-3.5": "active",
    "lyria-3-clip-preview": "active",
    "lyria-002": "active",
    "musicgen": "active",
    "stable-audio-open": "active",
    "stable-audio-2.5": "active",
    "stable-image-core": "active",
    "stable-video": "shut_down",
    "suno": "no_public_api",
    "udio": "no_public_api",
    "midjourney": "no_public_api",
    "eleven-music-v2.5": "active",
    "ace-step": "active",
}


@pytest.mark.parametrize(("name", "state"), SYSTEMS.items())
def test_every_system_is_there_and_as_it_was_found(name, state):
    assert catalogue.shipped()[name].lifecycle.state_on(TODAY) == state


@EACH
def test_every_entry_says_what_it_is(entry):
    for text in (entry.name, entry.title, entry.vendor, entry.family, entry.summary):
        assert text == text.strip() != ""
    assert entry.weights_licence
    assert entry.outputs_licence
    assert set(entry.makes) <= {"image", "video", "audio"} != set(entry.takes)
    assert entry.makes
    assert set(entry.takes) <= {"text", "image", "video", "audio"}
    assert entry.takes
    assert not set(entry.abilities) - set(ABILITIES)
    assert not set(entry.good_at) - set(SUBJECTS)
    assert all(grade in range(1, 6) for grade in entry.good_at.values())
    assert entry.source or not entry.good_at
    assert not entry.summary.endswith(".")
    assert entry.parameters is None or 0 < entry.parameters < 100
    assert entry.target in ("", "eps", "v", "flow", "tokens")
    assert entry.longest is None or 0 < entry.longest <= 600
    assert entry.largest is None or all(64 <= side <= 8192 for side in entry.largest)


@EACH
def test_every_lifecycle_has_sane_dates_and_a_source(entry):
    life = entry.lifecycle
    assert life.source
    assert life.state in ("active", "deprecated", "shut_down", "no_public_api", "unknown")
    assert date(2026, 11, 23) <= life.checked <= date.today()
    if life.since and life.ends:
        assert life.since <= life.ends
    assert life.since is None or date(2022, 1, 1) <= life.since <= life.checked
    if life.state == "shut_down":
        assert life.ends is not None
        assert life.ends <= life.checked
    if life.state == "deprecated":
        assert life.ends is not None
        assert life.ends > life.checked
    if life.state in ("active", "unknown", "no_public_api"):
        assert life.ends is None
    if life.state == "unknown" or (not entry.provider and life.state == "active"):
        assert life.note, "says why"


@EACH
def test_every_successor_is_there_and_every_chain_ends_alive(entry):
    assert not set(entry.lifecycle.successors) - set(catalogue.shipped())
    if not lifecycle.alive(entry, TODAY) or entry.lifecycle.state == "deprecated":
        found = catalogue.successors(entry, TODAY, catalogue.shipped())
        assert found
        assert all(lifecycle.alive(one, TODAY) for one in found)
        assert found[0].lifecycle.state == "active"
        assert entry not in found


@EACH
def test_every_price_has_a_unit_a_source_and_a_day(entry):
    assert entry.prices == () or not entry.local
    for row in entry.prices:
        assert row.per in UNITS
        assert row.source
        assert date(2026, 11, 23) <= row.checked <= date.today()
        if row.dollars is None:
            assert row.least is not None
            assert row.most is not None
            assert 0 <= row.least <= row.most
            assert row.why
        else:
            assert row.dollars > 0
            assert row.least is row.most is None
        if row.per == "million_tokens":
            assert "kind" in row.when


def test_no_two_rows_of_a_unit_fit_equally_well():
    for entry in ALL:
        said = Counter((row.per, repr(sorted(row.when.items()))) for row in entry.prices)
        assert not [one for one, times in said.items() if times > 1], entry.name


def test_what_is_closed_is_a_vendors_and_what_is_open_has_a_licence():
    for entry in ALL:
        assert entry.weights_licence != "closed" or not entry.local
    assert {entry.weights_licence for entry in ALL if entry.local} == {
        "Apache-2.0",
        "CreativeML Open RAIL++-M",
        "CreativeML Open RAIL-M",
        "FLUX.1 [dev] Non-Commercial",
        "MIT",
        "Stability AI Community",
    }


def test_every_card_has_facts_that_agree_with_it():
    known = catalogue.shipped()
    shipped = {path.stem for path in families.HERE.glob("*.toml")}
    for name, card in families.cards().items():
        if card.family not in shipped:
            continue  # a family of somebody else
        assert (known[name].provider, known[name].family) == ("local", card.family)
        assert known[name].makes == (card.media,)
        assert known[name].weights_licence == card.license
        fields = {"negative": "negative_prompt", "seed": "seed", "loras": "loras", "mask": "mask", "control": "control"}
        can = {ability for ability, field in fields.items() if field in card.fields}
        assert can == set(known[name].abilities) & set(fields)


@pytest.mark.parametrize("path", sorted(families.HERE.parent.glob("providers/*.toml")), ids=lambda path: path.stem)
def test_a_vendors_cards_have_facts(path):
    for card in cards.table(path).get("cards", []):
        entry = catalogue.shipped()[card["name"]]
        assert entry.provider == path.stem
        assert card["media"] in entry.makes


def test_no_alias_is_a_name_or_said_twice():
    taken = {names.key(entry.name): entry.name for entry in ALL}
    assert len(taken) == len(ALL)
    for entry in ALL:
        for alias in entry.aliases:
            key = names.key(alias)
            assert taken.setdefault(key, entry.name) == entry.name, f"{alias} of {entry.name} is {taken[key]}"
            assert key != names.key(entry.name) or alias != entry.name


def test_a_deprecated_model_is_shut_down_when_its_day_has_come():
    life = Lifecycle("deprecated", "x", date(2026, 11, 23), ends=date(2026, 12, 1))
    assert life.state_on(date(2026, 11, 30)) == "deprecated"
    assert life.state_on(date(2026, 12, 1)) == "shut_down"
    assert Lifecycle("deprecated", "x", date(2026, 11, 23)).state_on(date(2099, 1, 1)) == "deprecated"
    assert Lifecycle("unknown", "x", date(2026, 11, 23)).state_on(date(2099, 1, 1)) == "unknown"


def test_a_broken_file_is_named(tmp_path, monkeypatch):
    broken = tmp_path / "broken.toml"
    monkeypatch.setattr(sys.modules["triptych.catalogue.entries"], "files", lambda: iter([broken]))
    for text in ("[[facts]", '[[facts]]\nname = "x"', '[[facts]]\nlifecycle = {}\ncolour = "red"'):
        broken.write_text(text)
        catalogue.shipped.cache_clear()
        cards._parsed.cache_clear()
        with pytest.raises(FileProblem, match=re.escape(str(broken))):
            catalogue.shipped()
    monkeypatch.undo()
    catalogue.shipped.cache_clear()
    assert len(list(files())) > 10
