"""Measuring the faster ways: what is made, in which order, and the numbers that come of it."""

import math

import pytest
from PIL import Image

import triptych
from triptych import calibration, media
from triptych.client import Made, Media
from triptych.errors import InvalidField
from triptych.families import cards
from triptych.providers.here.drift import Row, Tables
from triptych.service.config import config


def plan(model="sd15", prompts=("a", "b"), fast=(2, 3), merge=(0.5,), **given):
    return calibration.planned(cards()[model], prompts, given, fast, merge)


def test_every_combination_that_the_model_takes():
    assert [(way["fast"], way["merge"]) for way in plan().ways] == [(1, 0.5), (2, 0), (2, 0.5), (3, 0), (3, 0.5)]
    assert [dict(way) for way in plan("mini-image").ways] == [{"fast": 2}, {"fast": 3}]
    assert [dict(way) for way in plan(merge=(0.0,), fast=(1, 4, 4)).ways] == [{"fast": 4, "merge": 0}]


def test_what_is_exact_comes_before_its_ways_and_something_short_before_all():
    first, *rest = plan("mini-image", seed=5, steps=9).requests()
    assert (first.prompt, first.steps) == ("a", 2)
    assert [(one.prompt, one.options.get("fast", 1)) for one in rest] == [
        ("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)
    ]  # fmt: skip
    assert {(one.seed, one.steps) for one in rest} == {(5, 9)}
    assert plan("mini-image").exact[0].seed == 0
    assert plan("mini-image", steps=1).requests()[0].steps == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"model": "toy"}, "a model that takes fast"),
        ({"prompts": ()}, "0 prompts, 5 ways"),
        ({"fast": (1,), "merge": ()}, "2 prompts, 0 ways"),
    ],
)
def test_there_must_be_something_to_measure(asked, told):
    with pytest.raises(InvalidField, match=told):
        plan(**asked)


@pytest.mark.parametrize("name", ["fast", "merge", "max_drift"])
def test_what_is_exact_is_not_fast(name):
    with pytest.raises(InvalidField, match=f"{name}: 2 given.*what is being measured"):
        calibration.planned(cards()["sd15"], ["a"], {name: 2})


def made(level, seconds, count=1):
    """So many grey pictures of one level."""
    pictures = [media.keep(Image.new("RGB", (4, 4), (level,) * 3), {}) for _ in range(count)]
    recipe = {"request": {"prompt": "a", "model": "m", "steps": 9, "options": {"fast": 1, "dtype": "x"}}, "threads": 1}
    return Made(tuple(map(Media, pictures)), recipe, 0.0, seconds)


def test_numbers():
    asked = plan("mini-image")
    table = calibration.measured(
        asked, [made(0, 99), made(10, 8.0), made(11, 4.0), made(15, 2.0), made(10, 6.0), made(13, 2.0), made(10, 1.0)]
    )
    one, three, five = (20 * math.log10(255 / apart) for apart in (1, 3, 5))
    assert table.rows == (
        Row({"fast": 2}, 2.5, pytest.approx((one + three) / 2, abs=0.01), pytest.approx(three, abs=0.01)),
        Row({"fast": 3}, 5.0, pytest.approx((five + 100) / 2, abs=0.01), pytest.approx(five, abs=0.01)),
    )
    assert table.exact == 7.0
    assert table.settings == {"steps": 9, "options": {"dtype": "x"}, "threads": 1, "prompts": ["a", "b"]}


def test_nine_in_ten_leave_out_the_worst_of_ten():
    apart = list(range(1, 21))
    exact = [made(0, 1.0, count=20)]
    faster = Made(tuple(made(level, 1.0).media[0] for level in apart), {}, 0.0, 0.5)
    table = calibration.measured(plan("mini-image", prompts=("a",), fast=(2,)), [made(0, 9), *exact, faster])
    assert table.rows[0].kept == pytest.approx(20 * math.log10(255 / 18), abs=0.01)  # two of twenty are worse
    assert table.exact == 0.05


def test_a_call_keeps_what_it_returns_and_bounds_go_by_it(home):
    given = {"steps": 6, "width": 64, "height": 64}
    table = triptych.calibrate(prompts=["a red heart", "a frog"], fast=[2, 3], **given)
    assert [row.options for row in table.rows] == [{"fast": 2}, {"fast": 3}]
    assert all(5 < row.kept <= row.median <= 100 for row in table.rows)
    assert table.rows[0].kept > table.rows[1].kept
    assert table.settings["steps"] == 6
    model = triptych.load()
    assert Tables(config().drift).read(model.card) == table
    bound = table.rows[0].kept - 0.01
    found = model.make("a red heart", seed=0, max_drift=bound, **given)
    assert found.warnings == ()
    assert found.recipe["request"]["options"]["fast"] == (2 if table.rows[0].times > 1 else 1)
    assert "max_drift" not in found.recipe["request"]["options"]
    assert triptych.again(found.media[0].data).media[0].data == found.media[0].data
    with_warning = model.make("a red heart", seed=0, max_drift=100.0, **{**given, "steps": 2})
    assert any("measured at 6 steps" in warning for warning in with_warning.warnings)
