"""Captions are English, and say no more than is to be said."""

import numpy as np
import pytest

from triptych.train.data.art import STYLES
from triptych.train.data.captions import RELATIONS, STYLE_WORDS, Ground, caption, one, posed, related, several
from triptych.train.data.words import head_noun, plural, with_article

PHRASES = """
a cat, an apple, an octopus, a unicorn, a ukulele, an umbrella, an hourglass, a ewe, an ear of corn, an ATM
sign, an OK hand, a T-Rex, a UFO, a one-piece swimsuit, an eight-pointed star, scissors, grapes, bread, french
fries, two hearts, one o'clock, ten-thirty, Mount Fuji, a bus, a compass, a lotus, a dress, a wrapped gift,
people holding hands, a person in bed, the Statue of Liberty, Santa Claus, a man's shoe, a slice of pizza, an
orange, a house, an empty nest, a European castle, glasses, roller skates, women wrestling, a face with tears
of joy, hundred points, a Christmas tree, an abacus, a wind chime
"""


@pytest.mark.parametrize("expected", PHRASES.strip().replace("\n", " ").split(", "))
def test_articles(expected):
    phrase = expected.removeprefix("the ").removeprefix("an ").removeprefix("a ")
    assert with_article(phrase) == expected


@pytest.mark.parametrize(
    ("one_thing", "many"),
    [
        ("cat", "cats"), ("slice of pizza", "slices of pizza"), ("mouse", "mice"), ("mouse face", "mouse faces"),
        ("cherry blossom", "cherry blossoms"), ("butterfly", "butterflies"), ("monkey", "monkeys"), ("fox", "foxes"),
        ("sheep", "sheep"), ("kitchen knife", "kitchen knives"), ("snowman", "snowmen"), ("bus", "buses"),
        ("cactus", "cacti"), ("tropical fish", "tropical fish"), ("face with tears of joy", "faces with tears of joy"),
        ("tomato", "tomatoes"), ("yo-yo", "yo-yos"), ("wolf", "wolves"), ("grapes", "grapes"), ("human", "humans"),
    ],
)  # fmt: skip
def test_plurals(one_thing, many):
    assert plural(one_thing) == many


def test_head_nouns():
    heads = {"smiling face with sunglasses": "face", "red heart": "heart", "bouquet": "bouquet", "ear of corn": "ear"}
    assert {label: head_noun(label) for label in heads} == heads


def every(make, count=400):
    return {make(np.random.default_rng(seed)) for seed in range(count)}


def test_a_silent_caption_names_neither_style_nor_ground():
    said = every(lambda rng: caption(rng, one("cat"), None, None))
    assert {"a cat", "cat", "a picture of a cat"} <= said
    assert all("background" not in text and "style" not in text for text in said)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_always_said_when_it_should_be(style):
    words = STYLE_WORDS[style]
    for text in every(lambda rng: caption(rng, one("cat", "blue"), style, None), 100):
        assert any(word in text for word in (*words.adjectives, *words.phrases))
        assert "blue cat" in text


def test_grounds_are_always_said_and_nothing_is_doubled():
    for ground in (Ground("plain", "sky blue"), Ground("stripes", "red", "white"), Ground("dots", "orange", "pink")):
        for text in every(lambda rng, ground=ground: caption(rng, one("owl"), "flat", ground), 200):
            assert ground.first in text
            assert ground.second in text
            assert text.count("owl") == 1
            assert "  " not in text
            assert ",," not in text
            assert " a a " not in text
            assert " a orange" not in text


def test_poses_counts_and_relations():
    assert every(lambda rng: posed(rng, "owl", "upside down").full) == {
        "an upside down owl", "an upside-down owl", "an owl upside down"
    }  # fmt: skip
    assert "tiny grapes" in every(lambda rng: posed(rng, "grapes", "tiny").full)
    assert every(lambda rng: several(rng, "puppy").full) == {"three puppies", "a row of three puppies"}
    assert "an owl below a cat" in every(lambda rng: related(rng, "owl", "cat", "below").full)
    assert all("{0}" in form and "{1}" in form for forms in RELATIONS.values() for form in forms)
