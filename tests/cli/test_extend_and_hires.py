"""Pictures beyond one walk: drawn on beyond their edges, walked once more at a larger size, masks that stay soft."""

import io
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

import triptych
from triptych import client
from triptych.errors import InvalidField
from triptych.media import image
from triptych.media.canvas import filled, seam
from triptych.media.margins import Margins
from triptych.types import Progress


def ramp(size=(64, 48)):
    """A picture without two equal pixels in a row."""
    x, y = numpy.meshgrid(numpy.arange(size[0]), numpy.arange(size[1]))
    return Image.fromarray(numpy.stack([x * 3, y * 4, (x * y) % 256], -1).astype(numpy.uint8))


def opened(path):
    with Image.open(path) as picture:
        return numpy.asarray(picture.convert("RGB")).astype(int)


@pytest.fixture
def toy(home):
    ramp().save("init.png")
    return triptych.load("toy")


def test_the_canvas_holds_the_picture_and_goes_on_smoothly():
    margins = Margins(left=40, bottom=30)
    old = numpy.asarray(ramp())
    canvas = numpy.asarray(filled(ramp(), margins))
    assert canvas.shape == (78, 104, 3)
    assert (canvas[:48, 40:] == old).all()
    beside = abs(canvas[:48, 39].astype(int) - old[:, 0])
    assert beside.max() <= 8
    flat = filled(Image.new("RGB", (16, 16), (9, 90, 200)), Margins(right=20, top=3))
    assert set(flat.get_flattened_data()) == {(9, 90, 200)}


def test_the_seam_is_soft_and_only_where_it_is_extended():
    mask = seam((64, 48), Margins(left=40, bottom=30), 16)
    assert mask.shape == (78, 104)
    assert (mask[:, :40] == 1).all()
    assert (mask[48:] == 1).all()
    assert (mask[: 48 - 16, 40 + 16 :] == 0).all()
    row = mask[0, 40:57]
    assert (numpy.diff(row) <= 0).all()
    assert 0.9 < row[0] < 1
    assert 0 < row[12] < row[8] < row[4]
    assert (seam((8, 8), Margins(left=4), 100)[:, 4 + 4 :] == 0).all()


def test_old_pixels_stay_and_it_is_made_again_to_the_last_bit(ask):
    ramp((128, 112)).save("init.png")
    code, told = ask("make", "a fox", "-m", "toy", "--init", "init.png", "--extend", "left=48,top=16", "-o", "x.png")
    assert (code, told["warnings"]) == (0, [])
    made, old = opened("x.png"), opened("init.png")
    assert made.shape == (128, 176, 3)
    assert (made[16 + 32 :, 48 + 32 :] == old[32:, 32:]).all()
    assert made[:, :48].std() > 0
    assert (made[16:, 48:] != old).any()
    request = told["recipe"]["request"]
    assert (request["width"], request["height"], request["strength"]) == (176, 128, 0.95)
    assert request["options"]["extend"] == "left=48,top=16"
    assert ask("again", "x.png", "-o", "y.png")[0] == 0
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()


def test_nothing_is_pasted_where_that_is_not_wanted(toy):
    given = {"seed": 7, "init": "init.png", "extend": "right=16"}
    whole = toy.make("a fox", **given, paste="nothing").media[0].picture()
    assert (numpy.asarray(whole)[:, :30] != numpy.asarray(ramp())[:, :30]).any()


def test_sizes_are_rounded_up_and_that_is_said(toy):
    ramp((50, 41)).save("odd.png")
    made = toy.make("a fox", seed=7, init="odd.png", extend="left=10")
    assert made.media[0].picture().size == (64, 48)
    assert made.warnings == ("extend was rounded up to left=14,bottom=7: toy makes 64 x 48 in all",)


WRONG = [
    ({"extend": "left=64"}, "extend.*only beside init"),
    ({"extend": "sideways=64", "init": "init.png"}, "left=128,top=64"),
    ({"extend": "left=1,left=2", "init": "init.png"}, "each once"),
    ({"extend": "left=0", "init": "init.png"}, "at least one pixel"),
    ({"extend": "", "init": "init.png"}, "extend"),
    ({"extend": 5, "init": "init.png"}, "extend"),
    ({"extend": "left=200", "init": "init.png"}, r"264 x 48 in all\)' given, a width of 8 to 256 pixels"),
    ({"extend": "left=8", "init": "init.png", "width": 64}, "Leave the size out"),
    ({"extend": "left=8", "init": "init.png", "mask": "init.png"}, "none beside mask"),
    ({"extend": "left=8", "init": "init.png", "hires": 2}, "none beside hires"),
    ({"paste": "kept", "init": "init.png"}, "only beside mask"),
    ({"hires": 5}, "at most 4"),
    ({"hires": 4, "width": 128}, "4 times 128 is 512 pixels"),
    ({"hires_strength": 0.5}, "only beside hires"),
    ({"hires_steps": 5}, "only beside hires"),
]


@pytest.mark.parametrize(("fields", "told"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_what_does_not_fit_is_refused_before_anything_is_made(toy, fields, told):
    with pytest.raises(InvalidField, match=told):
        toy.price("a fox", **fields)


def test_models_that_take_no_init_know_nothing_of_it(home):
    for name in ("extend", "hires", "paste"):
        assert name not in triptych.models()["slow"].fields
        assert name not in triptych.models()["mini-video"].fields
        assert name in triptych.models()["mini-image"].fields


def test_the_second_walk_is_larger_and_tells_where_it_is(toy):
    *told, made = toy.stream("a fox", seed=7, steps=8, hires=2, hires_strength=0.25, hires_steps=12)
    assert made.media[0].picture().size == (64, 64)
    assert made.recipe["request"]["width"] == 32
    steps = [(one.stage, one.step) for one in told if isinstance(one, Progress) and one.step]
    assert {one.steps for one in told if one.step} == {11}
    stages = list(dict.fromkeys(stage for stage, _ in steps))  # a watcher sees the newest, and may miss a short one
    assert stages == [one for one in ("denoising", "enlarging", "refining", "decoding") if one in stages]
    assert {"denoising", "refining"} <= {*stages}
    assert [number for _, number in steps] == sorted(number for _, number in steps)
    fractions = [one.fraction for one in told]
    assert fractions == sorted(fractions)
    assert triptych.again(made.media[0].data).media[0].data == made.media[0].data


def test_the_second_walk_is_an_init_at_the_larger_size(toy):
    first = toy.make("a fox", seed=7, steps=8).media[0].picture()
    out = io.BytesIO()
    first.resize((64, 64), Image.Resampling.LANCZOS).save(out, "PNG")
    by_hand = toy.make("a fox", seed=7, steps=8, init=out.getvalue(), strength=0.5)
    made = toy.make("a fox", seed=7, steps=8, hires=2)
    assert made.media[0].picture().tobytes() == by_hand.media[0].picture().tobytes()
    assert (
        made.recipe["request"]["options"] | {"hires_strength": 0.5, "hires_steps": 8}
        == made.recipe["request"]["options"]
    )


def test_a_factor_between_two_sizes_is_rounded_and_said(toy):
    made = toy.make("a fox", seed=7, hires=1.1)
    assert made.media[0].picture().size == (32, 32)
    assert made.warnings == ("hires 1.1 was rounded to 32 x 32, a size that toy can make",)


def test_several_at_once_a_trace_and_an_init(toy):
    made = toy.make("a fox", seed=7, count=3, batch_size=2, hires=1.5, trace="png", init="init.png")
    assert [one.picture().size for one in made.media] == [(96, 72)] * 3
    assert made.trace is not None
    alone = toy.make("a fox", seed=9, hires=1.5, init="init.png")
    assert alone.media[0].picture().tobytes() == made.media[2].picture().tobytes()


def test_what_failed_to_decode_goes_on(toy, breaks):
    breaks("nan")
    with pytest.raises(triptych.TriptychError):
        toy.make("a fox", seed=7, init="init.png", extend="left=8")
    breaks("")
    [job] = client.shared().jobs()
    client.portal().call(client.shared().resume(job.id))
    *_, last = client.follow(client.shared(), job.id)
    assert client.Made.of(last).media == toy.make("a fox", seed=7, init="init.png", extend="left=8").media


def test_soft_masks_stay_soft(toy):
    levels = numpy.linspace(0, 255, 64).round().astype(numpy.uint8)
    mask = Image.fromarray(numpy.tile(levels, (48, 1)))
    out = io.BytesIO()
    mask.save(out, "PNG")
    weights = image.weights(out.getvalue(), (48, 64))
    assert (weights[0, 0, 0].numpy() * 255).round().astype(int).tolist() == levels.tolist()
    given = {"seed": 7, "strength": 1, "init": "init.png", "mask": out.getvalue()}
    plain, pasted = (
        numpy.asarray(toy.make("a fox", **given, **more).media[0].picture()) for more in ({}, {"paste": "kept"})
    )
    share, old = levels[None, :, None] / 255, numpy.asarray(ramp())
    assert abs(pasted - (share * plain + (1 - share) * old)).max() <= 1
    assert (pasted[:, 0] == old[:, 0]).all()


def test_resolved_requests_resolve_to_themselves(toy):
    service = client.shared()
    for fields in ({"hires": 2}, {"init": "init.png", "extend": "left=8"}):
        job = client.portal().call(service.submit(client.request(toy.card, "a fox", **fields)))
        *_, last = client.follow(service, job.id)
        again = client.portal().call(service.submit(last.request))
        assert again.request == replace(last.request)
        list(client.follow(service, again.id))


def test_the_embedded_model(ask):
    ask("make", "a red apple", "--seed", 1, "--steps", 4, "-o", "apple.png")
    code, told = ask(
        "make", "a red apple", "--init", "apple.png", "--extend", "right=40", "--steps", 3, "-o", "wide.png"
    )
    assert (code, told["warnings"]) == (0, ["extend was rounded up to right=64: mini-image makes 192 x 128 in all"])
    assert (opened("wide.png")[:, :96] == opened("apple.png")[:, :96]).all()
    code, told = ask(
        "make", "a red apple", "--seed", 1, "--steps", 4, "--hires", 1.5, "--hires-steps", 4, "-o", "l.png"
    )
    assert (code, opened("l.png").shape) == (0, (192, 192, 3))


def test_models_that_see_their_init_walk_a_second_time_one_by_one(toy, monkeypatch):
    import toy as family

    load = family.load
    monkeypatch.setattr(family, "load", lambda *given: replace(load(*given), init="seen"))
    client.shared.cache_clear()
    with pytest.raises(InvalidField, match="batch_size: 2 given, 1 with hires"):
        triptych.load("toy").make("a fox", count=2, batch_size=2, hires=2)
