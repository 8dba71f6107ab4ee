"""Cards out of hosts' schemas, and requests in hosts' words, held against jsonschema, which nobody of ours wrote."""

import jsonschema
import pytest
from hosts import CLIP, FLUX, PRESETS, fal, size
from wares import png

from triptych.errors import InvalidField, PriceUnknown
from triptych.providers.hosted import cards as hosted
from triptych.providers.hosted.outputs import assets
from triptych.providers.hosted.schema import inlined, misfit
from triptych.providers.wire.vendor import Data, Link
from triptych.types import Request

ABOUT = {"family": "fal", "license": "x", "summary": "y"}


def card(properties, media="image", required=("prompt",), name="fal:a/b"):
    root = fal("a/b", properties, required=required)
    return hosted.card(name, root["components"]["schemas"]["TheInput"], root, media, ABOUT, id="a/b")


def body(card, prompt="a cat", **fields):
    request = card.resolve(Request(card.name, prompt, **fields))
    hosted.check(card, request)
    return hosted.body(card, request, {name: f"https://x/{name}" for name in request.inputs})


def test_what_means_the_same_goes_by_the_projects_names():
    made = card(FLUX)
    assert {"prompt", "steps", "seed", "guidance_scale", "count", "output_format"} <= made.fields.keys()
    assert {axis.name: axis.default for axis in made.axes} == {"width": 1024, "height": 768}
    assert (made.fields["steps"].default, made.fields["steps"].maximum) == (28, 50)
    assert made.fields["acceleration"].choices == ("none", "regular", "high")
    assert made.fields["enable_safety_checker"].choices == ("true", "false")
    assert "sync_mode" not in made.fields
    assert made.settings["batch"] == 4


def test_a_default_of_the_hosts_is_left_out_and_all_else_is_in_its_words():
    made = card(FLUX)
    assert body(made) == {"prompt": "a cat"}
    assert body(made, width=512, height=768, seed=7, steps=20, guidance_scale=2) == {
        "prompt": "a cat", "image_size": {"width": 512, "height": 768}, "seed": 7, "num_inference_steps": 20,
        "guidance_scale": 2,
    }  # fmt: skip
    options = {"output_format": "png", "enable_safety_checker": "false", "loras": '[{"path": "a/b", "scale": 1.5}]'}
    assert body(made, count=3, options=options) == {
        "prompt": "a cat", "num_images": 3, "output_format": "png", "enable_safety_checker": False,
        "loras": [{"path": "a/b", "scale": 1.5}],
    }  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_sizes(preset):
    made = card({**FLUX, "image_size": size(preset)})
    width, height = (axis.default for axis in made.axes)
    assert body(made, width=width, height=height) == {"prompt": "a cat"}
    assert body(made, width=width + 8)["image_size"] == {"width": width + 8, "height": height}


def test_a_default_size_in_pixels_and_one_that_nobody_can_tell():
    made = card({**FLUX, "image_size": size({"width": 2048, "height": 2048}, "auto")})
    assert [axis.default for axis in made.axes] == [2048, 2048]
    assert body(made) == {"prompt": "a cat"}
    made = card({**FLUX, "image_size": size("auto", "auto", "auto_2K")})
    assert made.axes == ()
    assert made.fields["image_size"].default == "auto"
    assert body(made) == {"prompt": "a cat"}
    assert body(made, options={"image_size": "auto_2K"})["image_size"] == "auto_2K"
    assert body(made, options={"image_size": "640x480"})["image_size"] == {"width": 640, "height": 480}
    with pytest.raises(InvalidField, match=r"image_size: 'large' given, .*auto_2K, WIDTHxHEIGHT in pixels allowed"):
        body(made, options={"image_size": "large"})
    with pytest.raises(InvalidField, match="width"):
        body(made, width=512)


def test_width_and_height_of_their_own():
    sides = {"width": {"type": "integer", "default": 1024, "multipleOf": 64}, "height": {"type": "integer"}}
    made = card({"prompt": {"type": "string"}, **sides})
    assert made.axes == ()
    assert {"host_width", "host_height"} <= made.fields.keys()
    assert body(made, options={"host_width": 640, "host_height": 384}) == {
        "prompt": "a cat",
        "width": 640,
        "height": 384,
    }
    with pytest.raises(InvalidField, match="host_width: 100 given, a multiple of 64"):
        body(made, options={"host_width": 100})
    sides["height"] = {"type": "integer", "default": 768, "minimum": 256, "maximum": 1440}
    made = card({"prompt": {"type": "string"}, **sides})
    assert [(axis.name, axis.default, axis.multiple) for axis in made.axes] == [("width", 1024, 64), ("height", 768, 1)]
    assert body(made, height=512) == {"prompt": "a cat", "height": 512}


def test_files_seconds_and_sound_of_a_clip():
    made = card(CLIP, "video", ("prompt", "image_url"))
    assert [axis.allowed() for axis in made.axes] == ["5 to 10 seconds in steps of 5"]
    start, end = {"init": png()}, {"last_frame": png()}
    assert body(made, inputs=start) == {"prompt": "a cat", "image_url": "https://x/init"}
    assert body(made, inputs=start | end, duration=10, options={"audio": "off"}, guidance_scale=1) == {
        "prompt": "a cat", "image_url": "https://x/init", "tail_image_url": "https://x/last_frame", "duration": "10",
        "generate_audio": False, "cfg_scale": 1,
    }  # fmt: skip
    with pytest.raises(InvalidField, match="init: None given, something: it is required"):
        body(made)
    with pytest.raises(InvalidField, match=r"negative_prompt: .* at most 2500"):
        body(made, inputs=start, negative_prompt="x" * 2501)


@pytest.mark.parametrize(
    ("schema", "given", "sent"),
    [
        ({"type": "string", "enum": ["4s", "6s", "8s"], "default": "8s"}, 6, "6s"),
        ({"type": "integer", "enum": [5, 8], "default": 5}, 8, 8),
        ({"enum": ["auto", "4", "12"], "type": "string", "default": "4"}, 12, "12"),
        ({"type": "integer", "minimum": 2, "maximum": 12, "default": 5}, 7, 7),
        ({"type": "number", "minimum": 0.5, "maximum": 22, "default": 3}, 0.7, 0.7),
    ],
)
def test_durations_as_hosts_say_them(schema, given, sent):
    made = card({"prompt": {"type": "string"}, "duration": schema}, "video")
    assert body(made, duration=given) == {"prompt": "a cat", "duration": sent}


def test_a_duration_between_those_on_offer_is_refused():
    made = card({"prompt": {"type": "string"}, "duration": {"enum": ["4", "6", "12"], "default": "4"}}, "video")
    with pytest.raises(InvalidField, match="duration: 8 given, one of 4, 6, 12"):
        body(made, duration=8)


def test_a_duration_without_a_default_keeps_its_name_and_has_no_price_by_the_second():
    made = card({"prompt": {"type": "string"}, "duration": {"enum": ["auto", "4"], "default": "auto"}}, "video")
    assert made.axes == ()
    assert made.fields["host_duration"].choices == ("auto", "4")
    assert body(made, options={"host_duration": "4"}) == {"prompt": "a cat", "duration": "4"}
    with pytest.raises(InvalidField, match="duration"):
        body(made, duration=4)
    request = made.resolve(Request(made.name, "a cat"))
    with pytest.raises(PriceUnknown, match="by the second"):
        hosted.price(made, request, "fal:bytedance/seedance-2.0/text-to-video")


def test_lists_of_files_are_numbered():
    images = {"type": "array", "items": {"type": "string"}, "maxItems": 3}
    made = card({"prompt": {"type": "string"}, "image_urls": images}, required=("prompt", "image_urls"))
    assert [name for name in made.fields if name.startswith("reference")] == ["reference", "reference_2", "reference_3"]
    assert body(made, inputs={"reference": png(), "reference_3": png()})["image_urls"] == [
        "https://x/reference", "https://x/reference_3",
    ]  # fmt: skip
    with pytest.raises(InvalidField, match="reference: None given"):
        body(made)


def test_names_that_mean_something_else_here():
    made = card(
        {
            "prompt": {"type": "string"},
            "strength": {"type": "number", "default": 1},  # of no init
            "model": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "lora_url": {"type": "string"},
            "pose_image_url": {"type": "string"},
            "scale": {"type": "integer", "enum": [2, 4], "default": 2},
            "extra": {},
        }
    )
    assert {"host_strength", "host_model", "lora_url", "pose_image_url", "scale", "extra"} <= made.fields.keys()
    assert (made.fields["lora_url"].kind, made.fields["pose_image_url"].kind) == ("str", "artifact")
    options = {"host_strength": 0.5, "host_model": "b", "lora_url": "https://l", "scale": "4", "extra": '{"a": [1]}'}
    assert body(made, inputs={"pose_image_url": png()}, options=options) == {
        "prompt": "a cat", "strength": 0.5, "model": "b", "lora_url": "https://l", "scale": 4, "extra": {"a": [1]},
        "pose_image_url": "https://x/pose_image_url",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loras": "[{]"}, "loras: .* JSON"),
        ({"loras": '[{"scale": 1}]'}, r"loras\[0\].path: None given, something: it is required"),
        ({"loras": '[{"path": "a", "scale": 9}]'}, r"loras\[0\].scale: 9 given, at most 4"),
        ({"loras": '[{"path": "a"}, {"path": "b"}, {"path": "c"}]'}, "loras: .* at most 2 entries"),
        ({"loras": '{"path": "a"}'}, "loras: .* a list"),
        ({"output_format": "gif"}, "output_format"),
        ({"sync_mode": "true"}, "sync_mode"),
    ],
)
def test_what_the_schema_forbids_is_refused(options, words):
    with pytest.raises(InvalidField, match=words):
        body(card(FLUX), options=options)


SCHEMAS = [
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 4},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5, "multipleOf": 0.5},
    {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"},
    {"enum": ["a", 1, True, None]},
    {"const": 0},
    {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "array", "items": {"type": "integer"}, "minItems": 1}]},
    {"type": "array", "items": {"type": "string"}, "maxItems": 1},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "boolean"},
    {},
]
VALUES = [0, 1, 2.5, 3, 4, 0.5, -1, 1.0, "", "a", "ab", "bb", "abcd", True, False, [], ["a"], ["a", "b"], [1], [1.5],
          {}, {"a": 1}, {"a": "b"}, {"a": 1, "b": 2}]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_a_value_fits_where_jsonschema_says_so(schema):
    for value in VALUES:
        ours = misfit(value, inlined(schema, {})) is None
        assert ours == jsonschema.Draft202012Validator(schema).is_valid(value), value


def test_references_choices_and_null_are_put_in_place():
    root = {"components": {"schemas": {"a/b": {"type": "string", "enum": ["x"], "title": "t"}}}}
    root["components"]["schemas"]["self"] = {"properties": {"more": {"$ref": "#/components/schemas/self"}}}
    told = inlined({"allOf": [{"$ref": "#/components/schemas/a~1b"}], "default": "x", "title": "u"}, root)
    assert told == {"type": "string", "enum": ["x"], "title": "u", "default": "x"}
    assert inlined({"type": ["integer", "null"], "default": 1}, root) == {"default": 1, "type": "integer"}
    assert inlined({"anyOf": [{"type": "null"}, {"type": "string"}]}, root) == {"type": "string"}
    assert inlined({"$ref": "#/components/schemas/self"}, root)["properties"]["more"]["properties"]
    assert inlined({"$ref": "#/nowhere"}, root) == {}


LINK = "https://x/a"


@pytest.mark.parametrize(
    ("told", "media", "found"),
    [
        ({"images": [{"url": LINK, "content_type": "image/png"}, {"url": LINK + "b"}]}, "image", [LINK]),
        ({"images": [{"url": LINK}], "mask": {"url": LINK + "m.png"}}, "image", [LINK]),
        ({"video": {"url": LINK}, "thumbnail": {"url": LINK + ".png"}}, "video", [LINK]),
        ({"audio_file": {"url": LINK + ".mp3"}}, "audio", [LINK + ".mp3"]),
        ([LINK + ".webp", LINK + ".png"], "image", [LINK + ".webp", LINK + ".png"]),
        (LINK + ".mp4?sig=1", "video", [LINK + ".mp4?sig=1"]),
        ({"wav": LINK + ".wav", "sheet": LINK + ".png"}, "audio", [LINK + ".wav"]),
        ({"sheet": LINK + ".png"}, "audio", []),
        ({"text": "no link"}, "image", []),
        (None, "image", []),
        ("data:image/png;base64,aGk=", "image", [b"hi"]),
        ({"data": [{"b64_json": "aGk="}]}, "image", [b"hi"]),
    ],
)
def test_results_are_found_wherever_a_host_puts_them(told, media, found):
    plain = [one.url if isinstance(one, Link) else one.data for one in assets(told, media)]
    assert plain == found
    assert all(isinstance(one, Data | Link) for one in assets(told, media))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("fal:fal-ai/flux/dev", ("fal-ai/flux/dev", "", "")),
        ("fal:fal-ai/flux-pro/v1.1#image", ("fal-ai/flux-pro/v1.1", "", "image")),
        ("fal:a/b:c0ffee", ("a/b", "c0ffee", "")),
        ("fal:flux", None),
        ("fal:../x", None),
        ("fal:a/../b", None),
        ("fal:a/b?x=1", None),
        ("replicate:a/b", None),
    ],
)
def test_names_have_parts(name, parts):
    found = hosted.named(name, "fal")
    assert (found and (found.id, found.version, found.told)) == parts
