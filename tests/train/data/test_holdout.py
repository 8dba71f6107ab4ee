"""The split: stable, of the stated size, together for what is one design, and published as it is."""

import json
from collections import Counter
from pathlib import Path

import pytest

from triptych.train.data.art import STYLES
from triptych.train.data.composition import TINTS
from triptych.train.data.concepts import Concept
from triptych.train.data.holdout import Split, family, publish, share, split

ANIMALS = {f"{n:04x}": Concept(f"{n:04x}", f"animal {n}", (), (), 3) for n in range(4000)}
FOUND = split(ANIMALS, dict.fromkeys(ANIMALS, STYLES), [])


def test_it_is_the_same_everywhere():
    assert share("colour", "1f408", "blue") == pytest.approx(0.2885405, abs=1e-7)
    assert split(ANIMALS, dict.fromkeys(ANIMALS, STYLES), []) == FOUND


def test_shares():
    codes = list(ANIMALS)
    assert len(FOUND.concepts) / 4000 == pytest.approx(0.03, abs=0.01)
    assert len(FOUND.styles) / 4000 == pytest.approx(0.10, abs=0.015)
    assert len(FOUND.synonyms) / 4000 == pytest.approx(0.10, abs=0.015)
    tints = [FOUND.colours(code, tint) for code in codes for tint in TINTS]
    assert 1 - sum(tints) / len(tints) == pytest.approx(0.15, abs=0.01)
    pairs = [FOUND.pairs(first, second) for first, second in zip(codes, reversed(codes), strict=True)]
    assert 1 - sum(pairs) / len(pairs) == pytest.approx(0.10, abs=0.015)


def test_every_design_is_withheld_about_as_often_and_fluent_as_one():
    counts = Counter(FOUND.styles.values())
    assert set(counts) == {family(style) for style in STYLES}
    assert min(counts.values()) > len(FOUND.styles) / 14
    code = next(code for code, design in FOUND.styles.items() if design == "fluent")
    assert [style for style in STYLES if FOUND.draws(code, style)] == list(STYLES[2:])


def test_concepts_with_few_styles_keep_them():
    assert not split(ANIMALS, dict.fromkeys(ANIMALS, STYLES[:3]), []).styles


def test_the_same_thing_by_another_person_is_withheld_with_it():
    labels = [label for n in range(300) for label in (f"job {n}", f"man job {n}", f"job {n} face")]
    people = {str(n): Concept(str(n), label, (), (), 1) for n, label in enumerate(labels)}
    held = split(people, {}, []).concepts
    assert held
    assert all({str(int(code) // 3 * 3 + k) for k in range(3)} <= held for code in held)


def test_everyday_concepts_are_spared():
    found = split(ANIMALS, dict.fromkeys(ANIMALS, STYLES), list(ANIMALS))
    assert not found.concepts
    assert "fluent" not in found.styles.values()


def test_publish(tmp_path):
    publish(FOUND, ANIMALS, list(ANIMALS)[:40], TINTS, tmp_path / "docs/list.json")
    listed = json.loads((tmp_path / "docs/list.json").read_text())
    assert set(listed["concepts"]) == FOUND.concepts
    assert {code: design for code, (_, design) in listed["styles"].items()} == FOUND.styles
    assert all(not FOUND.colours(code, tint) for code, tints in listed["colours"].items() for tint in tints.split())
    assert len(listed["pair_examples"]) > 100


def test_the_published_list_is_that_of_this_code():
    listed = json.loads((Path(__file__).parents[3] / "docs/heldout-mini-image.json").read_text())
    parts = Split(frozenset(listed["concepts"]), {}, frozenset(listed["synonyms"]))
    assert all(share("synonym", code) < 0.1 for code in parts.synonyms)
    assert all(share("style", code) < 0.1 for code in listed["styles"])
    assert all(not parts.colours(code, tint) for code, tints in listed["colours"].items() for tint in tints.split())
