"""The recipe inside: ours comes back exactly, and other programs find what they look for."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_parsers import ParserManager

from triptych import media
from triptych.errors import FileProblem, NoRecipe
from triptych.media import image
from triptych.media.parameters import parameters
from triptych.media.recipe import ROOM, exif, to_text

KINDS = ["image/png", "image/webp", "image/jpeg"]
PICTURE = Image.new("RGB", (8, 8), "red")


def with_prompt(recipe, prompt, negative=""):
    return {**recipe, "request": {**recipe["request"], "prompt": prompt, "negative_prompt": negative}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_comes_back_exactly(kind, recipe):
    assert media.read_recipe(image.encode(PICTURE, kind, recipe), "x") == recipe


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(st.characters(), max_size=80), kind=st.sampled_from(KINDS))
def test_every_prompt_comes_back(prompt, kind):
    recipe = {
        "triptych": 1,
        "request": {"prompt": prompt},
        "model": {"name": "m", "weights": {}},
        "versions": {"triptych": "0"},
    }
    data = image.encode(PICTURE, kind, recipe)
    assert media.read_recipe(data, "x") == recipe
    assert prompt.encode("utf-8", "replace").decode().replace("\0", "") in (media.read_parameters(data, "x") or "")


def test_lone_surrogates_of_a_command_line_come_back(recipe):
    odd = with_prompt(recipe, "caf\udce9")
    for kind in KINDS:
        assert media.read_recipe(image.encode(PICTURE, kind, odd), "x") == odd


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["a red fox", 'ein "Fuchs", 狐 🦊', "two\nlines", "steps: 3, seed: 4"])
def test_prompt_readers_understand_it(kind, prompt, recipe):
    data = image.encode(PICTURE, kind, with_prompt(recipe, prompt, "blur, noise"))
    found = ParserManager().parse(io.BytesIO(data))
    assert found.generator.name == "AUTOMATIC1111"
    assert [one.value for one in found.prompts] == [prompt]
    assert [one.value for one in found.negative_prompts] == ["blur, noise"]
    [sampler] = found.samplers
    assert (sampler.name, sampler.parameters["seed"]) == ("DPM++ 2M", "4294967295")
    assert (sampler.parameters["steps"], sampler.parameters["cfg_scale"]) == ("20", "3.5")
    assert (sampler.model.name, sampler.model.hash) == ("toy", "0123456789")


def test_the_last_line_is_pairs(recipe):
    lines = parameters(with_prompt(recipe, "a fox", "blur")).split("\n")
    assert lines[:2] == ["a fox", "Negative prompt: blur"]
    assert lines[2] == (
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3.5, Seed: 4294967295, "
        "Size: 40x24, Model hash: 0123456789, Model: toy, Version: triptych 0.1.0"
    )


def test_a_picture_that_was_changed_says_how_much(recipe):
    request = {**recipe["request"], "strength": 0.5}
    assert "Denoising strength: 0.5" in parameters({**recipe, "request": request, "inputs": {"init": {}}})
    assert "Denoising strength" not in parameters({**recipe, "request": request})


def test_values_with_marks_are_quoted(recipe):
    odd = {**recipe, "model": {"name": 'my, model: "x"', "weights": {}}}
    assert 'Model: "my, model: \\"x\\""' in parameters(odd)


@pytest.mark.parametrize("kind", KINDS)
def test_files_without_a_recipe_say_so(kind):
    with pytest.raises(NoRecipe, match="does not say how it was made"):
        media.read_recipe(image.encode(PICTURE, kind, {}), "x")


def test_parameters_of_other_programs_are_found():
    from PIL.PngImagePlugin import PngInfo

    info, out = PngInfo(), io.BytesIO()
    info.add_text("parameters", "a cat\nSteps: 1, Seed: 2, Size: 8x8")
    PICTURE.save(out, "PNG", pnginfo=info)
    assert media.read_parameters(out.getvalue(), "x").startswith("a cat")
    with pytest.raises(NoRecipe):
        media.read_recipe(out.getvalue(), "x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"triptych": 2, "request": {}}', "version 2"),
        ('{"triptych": 1', "damaged"),
        ('{"triptych": 1}', "no request"),
        ('["triptych"]', "no request"),
        ("nonsense", "damaged"),
    ],
)
def test_damaged_and_future_recipes_are_refused(text, told):
    from PIL.PngImagePlugin import PngInfo

    info, out = PngInfo(), io.BytesIO()
    info.add_text("triptych", text)
    PICTURE.save(out, "PNG", pnginfo=info)
    with pytest.raises(FileProblem, match=told) as raised:
        media.read_recipe(out.getvalue(), "x")
    assert not isinstance(raised.value, NoRecipe)


def test_long_prompts_give_way_to_the_recipe_and_too_long_ones_are_refused(recipe):
    long = with_prompt(recipe, "fox " * 7_500)  # 30 kB as JSON, 60 kB more as UTF-16
    data = image.encode(PICTURE, "image/jpeg", long)
    assert media.read_recipe(data, "x") == long
    assert media.read_parameters(data, "x") is None
    with pytest.raises(FileProblem, match=r"Save as \.png"):
        exif(with_prompt(recipe, "x" * ROOM))
    assert media.read_recipe(image.encode(PICTURE, "image/png", with_prompt(recipe, "x" * ROOM)), "x")


def test_the_text_is_ascii_json(recipe):
    assert to_text(recipe).isascii()
    assert json.loads(to_text(recipe)) == recipe
