"""What a request of Stable Diffusion 3 or FLUX.1 may say besides: no T5, fast, batches, dtypes, little memory."""

import numpy as np
import pytest
import torch
from test_sd import SIZE, gradient, psnr
from tiny_flow import DIFFUSERS, LOADERS, ours, pictures, saved, theirs

from triptych.errors import InvalidField
from triptych.media import image
from triptych.model import generate, prepared
from triptych.providers.here.work import Preview
from triptych.types import Request

SCALES = {"sd3.5-medium": 5.0, "flux1-dev": 3.5}
NATIVE = {"t5_tokens": 77}


@pytest.fixture(scope="module", params=list(SCALES))
def both(request, tmp_path_factory):
    """The name of a card, its pipeline, and the model that is loaded from the same folder."""
    return request.param, *saved(request.param, tmp_path_factory.mktemp(request.param))


def made_ready(model, prompt="a red fox", **fields):
    said = {"seed": 7, "height": SIZE, "width": SIZE, "steps": 6, "options": DIFFUSERS} | fields
    resolved = model.card.resolve(Request(model.card.name, prompt, **said))
    return prepared(model, resolved, {}), resolved


def test_without_t5(both):
    name, pipe, model = both
    if name == "flux1-dev":
        with pytest.raises(InvalidField, match=r"t5: 'none' given.*cannot do without"):
            ours(model, options={**DIFFUSERS, "t5": "none"})
        return
    tower, pipe.text_encoder_3 = pipe.text_encoder_3, None
    other = theirs(pipe, guidance_scale=5.0)
    pipe.text_encoder_3 = tower
    # diffusers has one zero for each token that T5 would be told, which attention sees
    picture = ours(model, guidance_scale=5.0, options={**DIFFUSERS, "t5": "none"})
    assert psnr(picture, other) > 60
    assert psnr(picture, ours(model, guidance_scale=5.0)) < 60


@pytest.mark.parametrize("part", ["clip_l", "clip_g"])
def test_clip_is_needed(both, part):
    _, _, model = both
    if part in model.card.fields:
        with pytest.raises(InvalidField, match=f"{part}: 'none' given.*cannot do without"):
            ours(model, options={**DIFFUSERS, part: "none"})


def test_fast_leaves_out_blocks_between_full_steps(both):
    _, _, model = both
    walk = {"steps": 12}
    exact = ours(model, **walk)
    np.testing.assert_array_equal(ours(model, options={**DIFFUSERS, "fast": 1}, **walk), exact)
    for n in (2, 3, 6):
        assert 15 < psnr(ours(model, options={**DIFFUSERS, "fast": n}, **walk), exact) < 80
    np.testing.assert_array_equal(ours(model, **walk), exact)


def test_a_batch_is_its_samples_alone(both):
    _, _, model = both
    more = {"negative_prompt": "blue"} if model.card.family == "sd3" else {}
    together = pictures(model, count=3, **more)
    for number, picture in enumerate(together):
        assert psnr(ours(model, seed=7 + number, **more), picture) > 80
    assert psnr(together[0], together[1]) < 30


def test_a_batch_from_one_picture(both):
    _, _, model = both
    together = pictures(model, count=2, init=gradient(), strength=0.6, options=NATIVE)
    alone = ours(model, seed=8, init=gradient(), strength=0.6, options=NATIVE)
    assert psnr(alone, together[1]) > 80


def test_half_the_precision_is_the_picture_nearly(both):
    name, _, model = both
    half = LOADERS[model.card.family](model.card, "cpu", "bfloat16")
    exact, rough = (ours(one, guidance_scale=SCALES[name]) for one in (model, half))
    assert 25 < psnr(exact, rough) < 80
    assert psnr(ours(half, guidance_scale=SCALES[name], options={**DIFFUSERS, "fast": 2}), exact) > 20


@pytest.mark.parametrize("more", [{}, {"init": torch.zeros(1, 3, SIZE, SIZE)}], ids=["from nothing", "from a picture"])
def test_with_little_memory_components_come_one_after_the_other_and_the_picture_is_the_same(both, more):
    _, _, model = both
    walk = {"sampler": "euler", "count": 2, **more}
    exact = pictures(model, options={**NATIVE, "coding": "whole"}, **walk)
    rooms = made_ready(model, options=NATIVE)[0].codec.rooms
    names, most, came = sorted(rooms._components), [], rooms.use

    def use(wanted, work=0):
        came(wanted, work)
        most.append(sorted(name for name, one in rooms._components.items() if one.here))

    rooms.use = use
    try:
        picture = pictures(model, options={**NATIVE, "coding": "whole", "memory": "1MB"}, **walk)
    finally:
        del rooms.use
    assert names not in most
    assert {("network",), ("vae",), ("t5",)} <= {tuple(there) for there in most}
    np.testing.assert_array_equal(picture, exact)


def test_coding_in_strips_gives_the_same_picture(both):
    _, _, model = both
    fields = {"strength": 0.5, "init": gradient(), "steps": 4}
    whole, strips = (ours(model, **fields, options={**NATIVE, "coding": way}) for way in ("whole", "strips"))
    assert psnr(whole, strips) > 60


def test_words_that_t5_is_not_told_are_named(both):
    _, _, model = both
    tail = "under a very large lighthouse"
    ready, _ = made_ready(model, "a red fox " * 12 + tail, options={"t5_tokens": 32})
    [warning] = ready.warnings
    assert "more words than T5 is told" in warning
    assert tail in warning
    assert made_ready(model, "a red fox", options={"t5_tokens": 32})[0].warnings == ()


def test_a_prompt_that_changes_on_the_way(both):
    _, _, model = both
    walk = {"options": NATIVE}
    changing, first, last = (ours(model, text, **walk) for text in ("a [fox:dog:0.5]", "a fox", "a dog"))
    assert psnr(changing, first) < 60
    assert psnr(changing, last) < 60
    np.testing.assert_array_equal(ours(model, "a [fox:dog:1.0]", **walk), first)
    states = {text: walked(model, text) for text in ("a [fox:dog:0.5]", "a fox", "a dog")}
    same = [torch.equal(a, b) for a, b in zip(states["a [fox:dog:0.5]"], states["a fox"], strict=True)]
    assert same == [True] * 4 + [False] * 3  # three steps of six are told the first, which shows at the fourth state


def walked(model, prompt):
    ready, request = made_ready(model, prompt, options=NATIVE)
    return [step.x_t for step in generate(ready, request)]


def test_previews_are_small_pictures_of_what_is_predicted(both):
    _, _, model = both
    ready, request = made_ready(model)
    *_, last = generate(ready, request)
    shown = Preview(ready, 1.0, 1.0)(last.prediction.x_0)
    assert shown is not None
    assert image.picture(shown.data).size == (SIZE, SIZE)


def test_a_request_leaves_nothing_behind(both):
    name, _, model = both
    scale = SCALES[name]
    before = ours(model, guidance_scale=scale)
    ours(model, guidance_scale=scale, options={**DIFFUSERS, "quantize": "int8", "quantize_t5": "int8"})
    if name != "flux1-dev":
        ours(model, options={**DIFFUSERS, "t5": "none"})
    np.testing.assert_array_equal(ours(model, guidance_scale=scale), before)


def test_any_sampler_and_spacing_runs(both):
    _, _, model = both
    for sampler in model.card.fields["sampler"].choices:
        assert np.isfinite(ours(model, sampler=sampler, options=NATIVE, steps=4)).all()
    for spacing in model.card.fields["spacing"].choices:
        assert np.isfinite(ours(model, spacing=spacing, options=NATIVE, steps=4)).all()
