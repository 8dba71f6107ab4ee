"""Cards resolve requests: every default filled in, everything else refused with what is allowed."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InvalidField
from triptych.types import PLAIN, Artifact, Axis, Card, Field, Request

PNG = Artifact("image/png", b"...")

CARD = Card(
    name="toy",
    family="toy",
    media="image",
    axes=(Axis("height", 512, 64, 1024, multiple=8), Axis("width", 512, 64, 1024, multiple=8)),
    fields={
        "prompt": Field("str", minimum=1, maximum=20),
        "negative_prompt": Field("str", default="", maximum=20),
        "seed": Field("int", minimum=0, maximum=4294967295),
        "count": Field("int", default=1, minimum=1, maximum=8),
        "steps": Field("int", default=20, minimum=1, maximum=100),
        "guidance_scale": Field("float", default=5.0, minimum=1, maximum=30),
        "sampler": Field("str", default="euler", choices=("euler", "heun")),
        "strength": Field("float", default=0.7, minimum=0, maximum=1),
        "eta": Field("float", default=0.0, minimum=0),
        "init": Field("artifact"),
    },
    license="MIT",
)
CLIP = Card(
    name="clip",
    family="toy",
    media="video",
    axes=(Axis("duration", 5, 1, 10, rate=16, multiple=4, offset=1), *CARD.axes),
    fields={"prompt": Field("str", minimum=1)},
    license="MIT",
)


def ask(**fields) -> Request:
    return Request("toy", fields.pop("prompt", "a fox"), **fields)


def test_every_default_is_filled_in_but_the_seed():
    resolved = CARD.resolve(ask())
    assert (resolved.height, resolved.width, resolved.steps, resolved.guidance_scale) == (512, 512, 20, 5.0)
    assert (resolved.sampler, resolved.negative_prompt, resolved.seed, resolved.count) == ("euler", "", None, 1)
    assert dict(resolved.options) == {"eta": 0.0}
    assert CARD.lengths(resolved) == (512, 512)


def test_the_strength_is_filled_in_only_where_there_is_something_to_start_from():
    assert CARD.resolve(ask()).strength is None
    assert CARD.resolve(ask(inputs={"init": PNG})).strength == 0.7
    assert CARD.resolve(ask(inputs={"init": PNG}, strength=1)).strength == 1.0
    with pytest.raises(InvalidField, match=r"strength: 0\.5 given, none without an init"):
        CARD.resolve(ask(strength=0.5))


@given(
    height=st.integers(8, 128).map(lambda n: 8 * n),
    steps=st.integers(1, 100),
    scale=st.one_of(st.integers(1, 30), st.floats(1, 30)),
    seed=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    start=st.booleans(),
)
def test_a_resolved_request_resolves_to_itself(height, steps, scale, seed, start):
    inputs = {"init": PNG} if start else {}
    resolved = CARD.resolve(ask(height=height, steps=steps, guidance_scale=scale, seed=seed, inputs=inputs))
    assert (resolved.height, resolved.steps, resolved.guidance_scale, resolved.seed) == (height, steps, scale, seed)
    assert isinstance(resolved.guidance_scale, float)
    assert CARD.resolve(resolved) == resolved


WRONG = {
    "size 7": ({"height": 7, "width": 7}, ["height: 7", "64 to 1024 pixels in steps of 8", "Nearest: 64."]),
    "not a multiple": ({"width": 517}, ["width: 517", "in steps of 8", "Nearest: 520."]),
    "too large": ({"height": 4096}, ["height: 4096", "Nearest: 1024."]),
    "negative size": ({"height": -512}, ["height: -512", "Nearest: 64."]),
    "fraction of a pixel": ({"height": 512.5}, ["512.5", "Nearest: 512."]),
    "size as text": ({"height": "512"}, ["'512'", "64 to 1024 pixels"]),
    "size true": ({"height": True}, ["True"]),
    "size nan": ({"height": math.nan}, ["nan", "64 to 1024"]),
    "size inf": ({"height": math.inf}, ["inf", "Nearest: 1024."]),
    "size huge": ({"height": 10**400}, ["64 to 1024"]),
    "empty prompt": ({"prompt": ""}, ["prompt: '' given", "text of at least 1 and at most 20 characters"]),
    "blank prompt": ({"prompt": "  \n"}, ["prompt", "at least 1"]),
    "no prompt": ({"prompt": None}, ["prompt: None given", "text"]),
    "long prompt": ({"prompt": "x" * 21}, ["at most 20 characters"]),
    "steps zero": ({"steps": 0}, ["steps: 0", "a whole number, at least 1 and at most 100"]),
    "steps negative": ({"steps": -5}, ["steps: -5"]),
    "steps fraction": ({"steps": 20.0}, ["steps: 20.0", "a whole number"]),
    "steps true": ({"steps": True}, ["steps: True"]),
    "scale nan": ({"guidance_scale": math.nan}, ["guidance_scale: nan", "a number, at least 1 and at most 30"]),
    "scale inf": ({"guidance_scale": math.inf}, ["guidance_scale: inf"]),
    "scale below none": ({"guidance_scale": 0.5}, ["at least 1"]),
    "scale text": ({"guidance_scale": "7"}, ["'7'"]),
    "scale huge": ({"guidance_scale": 10**400}, ["guidance_scale"]),
    "count zero": ({"count": 0}, ["count: 0"]),
    "count true": ({"count": True}, ["count: True"]),
    "seed negative": ({"seed": -1}, ["seed: -1", "at least 0 and at most 4294967295"]),
    "seed too large": ({"seed": 2**32}, ["seed: 4294967296"]),
    "unknown sampler": ({"sampler": "eular"}, ["'eular'", "one of euler, heun"]),
    "unknown option": ({"options": {"et": 1.0}}, ["et: 1.0", "toy does not take it", "eta"]),
    "unknown option none": ({"options": {"et": None}}, ["et: None", "toy does not take it"]),
    "option out of range": ({"options": {"eta": -0.1}}, ["eta: -0.1", "a number, at least 0"]),
    "a field as option": ({"options": {"steps": 5}}, ["options.steps: 5", "only steps of the request as its own"]),
    "the prompt as option": ({"options": {"prompt": "a cat"}}, ["options.prompt"]),
    "an input as option": ({"options": {"init": PNG}}, ["options.init", "among its inputs"]),
    "an axis it lacks": ({"duration": 3.0}, ["duration: 3.0", "toy does not take it"]),
    "a spacing it lacks": ({"spacing": "karras"}, ["spacing: 'karras'", "toy does not take it", "height, width"]),
    "unknown input": ({"inputs": {"mask": PNG}}, ["mask: 'a file of type image/png'", "toy does not take it"]),
    "input of another kind": ({"inputs": {"steps": PNG}}, ["steps: 'a file of type image/png'"]),
    "input that is no file": ({"inputs": {"init": "fox.png"}}, ["init: 'fox.png'", "a file"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_with_what_can(name):
    fields, parts = WRONG[name]
    with pytest.raises(InvalidField) as caught:
        CARD.resolve(ask(**fields))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", [*PLAIN, "prompt"])
def test_a_card_that_takes_nothing_refuses_every_field_by_name(name):
    bare = replace(CARD, axes=(), fields={})
    value = {"count": 2, "seed": 0, "steps": 1, "guidance_scale": 1.0, "strength": 1.0}.get(name, "x")
    with pytest.raises(InvalidField) as caught:
        bare.resolve(replace(Request("toy", ""), **{name: value}))
    assert caught.value.field == name
    assert bare.resolve(Request("toy", "")).count == 1


def test_a_card_without_axes_refuses_sizes():
    bare = replace(CARD, axes=(), fields={})
    with pytest.raises(InvalidField, match="height"):
        bare.resolve(Request("toy", "", height=64))


@pytest.mark.parametrize(("seconds", "frames"), [(1, 17), (5, 81), (2.5, 41), (4.99, 81), (5.07, 85), (10, 161)])
def test_seconds_are_rounded_up_to_whole_blocks(seconds, frames):
    """4 k + 1 frames at 16 frames per second, never shorter than was asked."""
    assert CLIP.axes[0].length(seconds) == frames
    assert frames >= seconds * 16
    assert CLIP.resolve(Request("clip", "x", duration=seconds)).duration == float(seconds)


def test_seconds_outside_their_range_are_refused():
    with pytest.raises(InvalidField, match=r"duration: 11 given, 1 to 10 seconds allowed. Nearest: 10."):
        CLIP.axes[0].length(11)
    with pytest.raises(InvalidField, match=r"duration: nan given, 1 to 10 seconds allowed.$"):
        CLIP.axes[0].length(math.nan)


@given(st.integers(9, 97))
def test_an_axis_with_an_offset_takes_its_own_form_alone(value):
    axis = Axis("width", 33, 9, 97, multiple=8, offset=1)
    if value % 8 == 1:
        assert axis.length(value) == value
        return
    with pytest.raises(InvalidField) as caught:
        axis.length(value)
    assert "in steps of 8 (8 k + 1)" in str(caught.value)
    nearest = int(str(caught.value).rsplit(" ", 1)[1].rstrip("."))
    assert axis.length(nearest) == nearest
    assert abs(nearest - value) <= 4


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Field("int"), "a whole number"),
        (Field("int", minimum=1), "a whole number, at least 1"),
        (Field("float", maximum=0.5), "a number, at most 0.5"),
        (Field("str", maximum=500), "text of at most 500 characters"),
        (Field("str", choices=("a", "b")), "one of a, b"),
        (Field("artifact"), "a file"),
    ],
)
def test_fields_say_what_they_allow(entry, text):
    assert entry.allowed() == text


def test_vocabulary_needs_no_tensor_library():
    code = "import sys, triptych.types, triptych.errors; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
