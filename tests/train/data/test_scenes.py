"""Scenes: a function of the seed, true to their captions, and never of what is withheld."""

import pickle
from collections import Counter

import numpy as np
import pytest

from triptych.errors import UnknownName
from triptych.train.data.art import STYLES
from triptych.train.data.captions import STYLE_WORDS
from triptych.train.data.casting import KINDS, usual
from triptych.train.data.composition import GROUNDS, TINTS
from triptych.train.data.lexicon import everyday
from triptych.train.data.scenes import MIX, Scenes


@pytest.fixture(scope="module")
def scenes(folder):
    return Scenes(folder, size=48)


@pytest.fixture(scope="module")
def many(scenes):
    return [scenes.scene(seed) for seed in range(3000)]


def same(one, other):
    return one.caption == other.caption and one.boxes == other.boxes and (one.pixels == other.pixels).all()


def test_a_scene_depends_on_its_seed_alone(scenes, many, folder):
    again = Scenes(folder, size=48)
    assert all(same(many[seed], again.scene(seed)) for seed in (2999, 0, 17, 17))
    assert len({scene.caption for scene in many}) > 1000


def test_pickling_is_cheap_and_changes_nothing(scenes, many):
    packed = pickle.dumps(scenes)
    assert len(packed) < 1000
    assert same(pickle.loads(packed).scene(5), many[5])


def test_kinds_come_as_often_as_the_mix_says(many):
    counts = Counter(scene.kind for scene in many)
    assert set(counts) == set(MIX) == set(KINDS)
    assert all(counts[kind] / len(many) == pytest.approx(share, abs=0.03) for kind, share in MIX.items())


def test_an_unknown_kind_is_named(folder):
    with pytest.raises(UnknownName, match="upside down"):
        Scenes(folder, mix={"upside": 1})


def test_training_never_sees_what_is_withheld(scenes, many):
    split, lexicon = scenes.repertoire.split, scenes.repertoire.lexicon
    assert split.concepts
    assert split.styles
    assert split.synonyms
    for scene in many:
        assert scene.withheld == ""
        assert all(split.draws(code, scene.style) for code in scene.codes)
        assert not scene.colour or split.colours(scene.codes[0], scene.colour)
        assert len(scene.codes) == 1 or split.pairs(*scene.codes)
        for code, name in zip(scene.codes, scene.names, strict=True):
            assert code not in split.synonyms or name not in lexicon.synonyms(code)


def test_evaluation_sees_nothing_else(scenes, folder):
    split, ways = scenes.repertoire.split, Counter()
    held = Scenes(folder, size=48, held_out=True, mix=dict.fromkeys(KINDS, 1.0))
    for seed in range(1500):
        scene = held.scene(seed)
        ways[scene.withheld] += 1
        assert {
            "style": split.styles.get(scene.codes[0]) is not None and not split.draws(scene.codes[0], scene.style),
            "concept": scene.codes[0] in split.concepts,
            "synonym": scene.codes[0] in split.synonyms and scene.names[0] != scenes.things()[scene.codes[0]].label,
            "colour": bool(scene.colour) and not split.colours(scene.codes[0], scene.colour),
            "pair": len(scene.codes) == 2 and not split.pairs(*scene.codes),
        }[scene.withheld]
        assert scene.withheld != "style" or scene.style_said
    assert set(ways) == {"style", "concept", "synonym", "colour", "pair"}


def test_captions_say_what_there_is(many):
    for scene in many:
        assert all(name in scene.caption or scene.kind == "three" for name in scene.names)
        assert ("three" in scene.caption) == (scene.kind == "three")
        assert not scene.colour or scene.colour in scene.caption
        words = STYLE_WORDS[scene.style]
        assert not scene.style_said or any(word in scene.caption for word in (*words.adjectives, *words.phrases))
        plain_white = scene.ground.pattern == "plain" and scene.ground.first == "white"
        assert plain_white or scene.ground.first in scene.caption


def test_captions_that_name_no_style_show_3d_wherever_it_may_be_shown(scenes, many):
    for scene in many:
        if not scene.style_said and len(scene.codes) == 1 and "3d" in scenes.repertoire.trained[scene.codes[0]]:
            assert scene.style == "3d"
    assert {scene.style for scene in many} == set(STYLES)
    assert sum(scene.style_said for scene in many) / len(many) == pytest.approx(0.45, abs=0.03)


def test_a_portrait_is_what_a_bare_name_asks_for(scenes):
    for code, styles in list(scenes.repertoire.trained.items())[:50]:
        portrait = scenes.portrait(code, 3)
        assert portrait.codes == (code,)
        assert not portrait.style_said
        assert portrait.style == usual(tuple(styles))
        assert (portrait.ground.first, portrait.ground.pattern) == ("white", "plain")
        assert same(portrait, scenes.portrait(code, 3))


def test_relations_hold_in_the_picture(many):
    for scene in (scene for scene in many if scene.relation):
        first, second = (scene.caption.index(name) for name in scene.names)
        (left, top, _, _), (other_left, other_top, _, _) = scene.boxes
        assert left < other_left if scene.kind == "beside" else top < other_top
        if scene.relation in ("left of", "above"):
            assert first < second
        if scene.relation in ("right of", "below"):
            assert first > second


def test_boxes_hold_what_is_drawn_and_the_rest_is_ground(many):
    for scene in many[:500]:
        if scene.ground.pattern == "plain":
            outside = np.ones((48, 48), bool)
            for left, top, right, bottom in scene.boxes:
                assert 0 <= left < right <= 48
                assert 0 <= top < bottom <= 48
                outside[top:bottom, left:right] = False
            assert (scene.pixels[outside] == GROUNDS[scene.ground.first]).all()


def test_a_single_object_is_large_and_central(many):
    for scene in (scene for scene in many if scene.kind == "single"):
        [(left, top, right, bottom)] = scene.boxes
        assert 0.75 * 48 <= max(right - left, bottom - top) <= 0.95 * 48
        assert abs(left + right - 48) <= 4
        assert abs(top + bottom - 48) <= 4


def test_white_is_the_usual_ground_and_goes_unsaid(many):
    white = [scene for scene in many if scene.ground.pattern == "plain" and scene.ground.first == "white"]
    assert len(white) / len(many) == pytest.approx(0.57, abs=0.04)
    assert sum("white" in scene.caption for scene in white) / len(white) < 0.12


def test_things_list_every_concept(scenes):
    things = scenes.things()
    assert things["a002"].label == "cat"
    assert things["a002"].head == "cat"
    assert all(set(thing.trained) <= set(thing.sprites) for thing in things.values())
    unseen = {code for code, thing in things.items() if not thing.trained}
    assert unseen == scenes.repertoire.split.concepts


def test_everyday_names_are_one_a_thing():
    names = [name for given in everyday().values() for name in given]
    assert len(names) == len(set(names))
    assert len(TINTS) == 9
