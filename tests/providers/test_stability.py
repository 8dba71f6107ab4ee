"""Stability AI: what is sent where, what its answers mean, and what becomes of the files."""

import asyncio
import base64
import json

import pytest
from loopback import KEY, Loopback, Says
from wares import again, fits, jpeg, picture, png, remote, run, sound, submit, watch, wav

from triptych.errors import (
    BadAnswer,
    Cancelled,
    Expired,
    InDoubt,
    InvalidField,
    KeyRefused,
    OutOfCredit,
    ProviderError,
    RateLimited,
    Refused,
    Unreachable,
)
from triptych.media import read_recipe
from triptych.providers.stability import Stability
from triptych.types import Artifact, Request

SPEC = "stability_openapi.derived.json"
PICTURE = {"image": base64.b64encode(picture()).decode(), "finish_reason": "SUCCESS", "seed": 7}
SOUND = {"audio": base64.b64encode(sound()).decode(), "finish_reason": "SUCCESS", "seed": 7}


@pytest.fixture
def there():
    server = Loopback()
    yield server
    server.close()


@pytest.fixture
def here(there, tmp_path):
    return remote(Stability(), there.url, tmp_path / "tickets")


def asked(there, here, model, prompt="a cat", **fields):
    """The request that another becomes."""
    body = {**PICTURE, **SOUND, "id": "s1"}
    there.on("POST", "/v2beta/.*", Says(200, body))
    submit(here, Request(model, prompt, **fields))
    return there.asked("POST")[-1]


def said(one):
    """A multipart body as an object, numbers as numbers; files stay bytes."""
    found = {}
    for name, file, _, data in one.parts:
        found[name] = data if file else _number(data.decode())
    return found


def _number(text):
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, int | float) else text


def test_a_picture_comes_with_its_seed_and_the_recipe_inside(there, here):
    there.on("POST", "/v2beta/stable-image/generate/core", Says(200, PICTURE))
    result = run(here, Request("stable-image-core", "a cat", negative_prompt="a dog", seed=7))
    one = there.asked("POST")[0]
    assert one.headers["authorization"] == f"Bearer {KEY}"
    assert one.headers["accept"] == "application/json"
    assert one.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert said(one) == {"prompt": "a cat", "negative_prompt": "a dog", "seed": 7}
    assert (result.cost, result.cost_from) == (0.03, "list")
    assert read_recipe(result.artifacts[0].data, "made.png")["told"] == [{"seed": 7}]


PATHS = [
    ("stable-image-ultra", {}, "stable-image/generate/ultra", {"prompt"}),
    ("stable-image-ultra", {"inputs": {"init": png()}}, "stable-image/generate/ultra", {"prompt", "image", "strength"}),
    ("stability-sd3.5-large", {}, "stable-image/generate/sd3", {"prompt", "model"}),
    (
        "stability-sd3.5-medium",
        {"inputs": {"init": png()}, "strength": 0.5, "guidance_scale": 5},
        "stable-image/generate/sd3",
        {"prompt", "model", "mode", "image", "strength", "cfg_scale"},
    ),
    (
        "stable-image-inpaint",
        {"inputs": {"init": png(), "mask": png()}, "options": {"grow_mask": 5}},
        "stable-image/edit/inpaint",
        {"prompt", "image", "mask", "grow_mask"},
    ),
    (
        "stable-image-erase",
        {"prompt": "", "inputs": {"init": png(), "mask": png()}},
        "stable-image/edit/erase",
        {"image", "mask"},
    ),
    (
        "stable-image-outpaint",
        {"prompt": "", "inputs": {"init": png()}, "options": {"left": 64, "creativity": 0.4}},
        "stable-image/edit/outpaint",
        {"image", "left", "creativity"},
    ),
    (
        "stable-image-search-and-replace",
        {"inputs": {"init": jpeg()}, "options": {"search_prompt": "a dog"}},
        "stable-image/edit/search-and-replace",
        {"prompt", "image", "search_prompt"},
    ),
    (
        "stable-image-search-and-recolor",
        {"inputs": {"init": jpeg()}, "options": {"select_prompt": "a dog"}},
        "stable-image/edit/search-and-recolor",
        {"prompt", "image", "select_prompt"},
    ),
    (
        "stable-image-remove-background",
        {"prompt": "", "inputs": {"init": png()}},
        "stable-image/edit/remove-background",
        {"image"},
    ),
    (
        "stable-image-control-sketch",
        {"inputs": {"control": png()}, "options": {"control_strength": 0.6}},
        "stable-image/control/sketch",
        {"prompt", "image", "control_strength"},
    ),
    (
        "stable-image-control-structure",
        {"inputs": {"control": png()}},
        "stable-image/control/structure",
        {"prompt", "image"},
    ),
    (
        "stable-image-control-style",
        {"inputs": {"reference": png()}, "options": {"fidelity": 0.6, "aspect_ratio": "16:9"}},
        "stable-image/control/style",
        {"prompt", "image", "fidelity", "aspect_ratio"},
    ),
    (
        "stable-image-control-style-transfer",
        {"prompt": "", "inputs": {"init": png(), "reference": png()}},
        "stable-image/control/style-transfer",
        {"init_image", "style_image"},
    ),
    ("stable-image-upscale-fast", {"prompt": "", "inputs": {"init": png()}}, "stable-image/upscale/fast", {"image"}),
    (
        "stable-image-upscale-conservative",
        {"inputs": {"init": png()}, "options": {"creativity": 0.3}},
        "stable-image/upscale/conservative",
        {"prompt", "image", "creativity"},
    ),
    (
        "stable-image-upscale-creative",
        {"inputs": {"init": png()}, "options": {"style_preset": "anime"}},
        "stable-image/upscale/creative",
        {"prompt", "image", "style_preset"},
    ),
    (
        "stable-audio-2",
        {"duration": 12.5, "steps": 40, "guidance_scale": 7},
        "audio/stable-audio-2/text-to-audio",
        {"prompt", "model", "duration", "steps", "cfg_scale"},
    ),
    (
        "stable-audio-2.5",
        {"inputs": {"init": wav()}, "strength": 0.6},
        "audio/stable-audio-2/audio-to-audio",
        {"prompt", "model", "duration", "audio", "strength"},
    ),
    (
        "stable-audio-2.5",
        {"inputs": {"init": wav()}, "options": {"mask_start": 2, "mask_end": 4}},
        "audio/stable-audio-2/inpaint",
        {"prompt", "duration", "audio", "mask_start", "mask_end"},
    ),
    (
        "stable-audio-3",
        {"options": {"output_format": "wav"}},
        "audio/stable-audio/text-to-audio",
        {"prompt", "model", "duration", "output_format"},
    ),
    (
        "stable-audio-3",
        {"inputs": {"init": wav()}, "guidance_scale": 2, "options": {"mask_end": 4}},
        "audio/stable-audio/inpaint",
        {"prompt", "model", "duration", "audio", "cfg_scale", "mask_end"},
    ),
]


@pytest.mark.parametrize(("model", "fields", "path", "names"), PATHS)
def test_every_work_has_its_address_and_its_parts(there, here, model, fields, path, names):
    one = asked(there, here, model, **{"prompt": "a cat", **fields})
    body = said(one)
    seeded = {"seed"} if "seed" in here.card(model).fields else set()
    assert one.path == f"/v2beta/{path}"
    assert set(body) == names | seeded
    assert body.get("seed", 1) >= 1
    files = {name: (file, kind) for name, file, kind, _ in one.parts if file}
    assert all(kind.startswith(("image/", "audio/")) for _, kind in files.values())
    if path in ("stable-image/generate/ultra", "stable-image/generate/core", "stable-image/edit/inpaint") or (
        path in ("stable-image/generate/sd3", "audio/stable-audio-2/text-to-audio", "audio/stable-audio/text-to-audio")
    ):
        text = {name: "file" if isinstance(value, bytes) else value for name, value in body.items()}
        fits(SPEC, f"/v2beta/{path}", text, "multipart/form-data")


def test_files_go_as_they_are_with_their_types(there, here):
    init, mask = jpeg(), png()
    one = asked(there, here, "stable-image-inpaint", inputs={"init": init, "mask": mask})
    assert [part for part in one.parts if part[1]] == [
        ("image", "image.jpeg", "image/jpeg", init.data),
        ("mask", "mask.png", "image/png", mask.data),
    ]


def test_several_samples_have_seeds_of_their_own(there, here):
    there.on("POST", "/v2beta/.*", Says(200, PICTURE))
    result = run(here, Request("stable-image-core", "a cat", seed=7, count=3))
    assert [said(one)["seed"] for one in there.asked("POST")] == [7, 8, 9]
    assert len(result.artifacts) == 3
    assert result.cost == pytest.approx(0.09)


def test_the_seed_of_the_last_sample_is_held_against_the_range_before_the_first_is_paid(there, here):
    there.on("POST", "/v2beta/.*", Says(200, PICTURE))
    with pytest.raises(InvalidField, match="1 to 4294967292 with count 3"):
        submit(here, Request("stable-image-core", "a cat", seed=4294967293, count=3))
    assert there.requests == []
    submit(here, Request("stable-image-core", "a cat", seed=4294967292, count=3))
    assert [said(one)["seed"] for one in there.asked("POST")] == [4294967292, 4294967293, 4294967294]


def test_a_seed_of_their_own_choice_is_never_asked_for(there, here):
    with pytest.raises(InvalidField) as caught:
        submit(here, Request("stable-image-core", "a cat", seed=0))
    assert caught.value.field == "seed"


@pytest.mark.parametrize(
    ("answer", "mime"),
    [
        (Says(200, SOUND), "audio/mpeg"),
        (Says(200, sound(), {"content-type": "audio/mpeg", "finish-reason": "SUCCESS", "seed": "7"}), "audio/mpeg"),
        (Says(200, wav().data, {"content-type": "audio/wav", "seed": "7"}), "audio/wav"),
    ],
)
def test_a_sound_comes_in_json_or_as_it_is(there, here, answer, mime):
    there.on("POST", "/v2beta/.*", answer)
    result = run(here, Request("stable-audio-2.5", "rain", duration=3))
    assert result.artifacts[0].mime == mime
    assert result.recipe["told"] == [{"seed": 7}]


def waits(there, path, *answers):
    there.on("POST", "/v2beta/.*", Says(202, {"id": "s1"}))
    there.on("GET", f"/v2beta/{path}/s1", *answers)


def test_a_large_picture_is_waited_for(there, here):
    told = {"result": PICTURE["image"], "finish_reason": "SUCCESS", "seed": 7}
    waits(there, "results", Says(202, {"id": "s1", "status": "in-progress"}), Says(200, told))
    ticket = submit(here, Request("stable-image-upscale-creative", "a cat", inputs={"init": png()}))
    assert ticket.state == "queued"
    *steps, result = watch(here, again(ticket))
    assert [step.stage for step in steps] == ["in-progress", "fetched"]
    assert (result.artifacts[0].mime, result.cost) == ("image/png", 0.6)
    assert {one.headers["accept"] for one in there.asked("GET")} == {"application/json"}
    assert {one.headers["authorization"] for one in there.asked("GET")} == {f"Bearer {KEY}"}


def test_a_long_sound_is_waited_for_and_found_again_after_a_restart(there, here, tmp_path):
    waits(there, "audio/results", Says(202, {}), Says(429, {}), Says(200, sound(), {"content-type": "audio/mpeg"}))
    ticket = again(submit(here, Request("stable-audio-3", "rain", duration=300, seed=4)))
    *_, result = watch(remote(Stability(), there.url, tmp_path / "elsewhere"), ticket)
    assert (result.artifacts[0].mime, result.cost, result.cost_from) == ("audio/mpeg", 0.26, "list")
    assert {one.headers["accept"] for one in there.asked("GET")} == {"audio/*"}
    assert len(there.asked("POST")) == 1


FILTERED = {**PICTURE, "finish_reason": "CONTENT_FILTERED"}
MODERATED = {"id": "e1", "name": "content_moderation", "errors": ["Your request was flagged by our moderation."]}


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Says(200, FILTERED), Refused, "CONTENT_FILTERED"),
        (Says(200, picture(), {"content-type": "image/png", "finish-reason": "CONTENT_FILTERED"}), Refused, "FILTERED"),
        (Says(200, {"finish_reason": "ERROR", "seed": 1}), ProviderError, "ERROR"),
        (Says(200, {"errors": ["the model is warm no more"]}), ProviderError, "warm no more"),
        (Says(200, b"", {"content-type": "image/png"}), ProviderError, "empty"),
        (Says(200, {**PICTURE, "image": PICTURE["image"][:101]}), BadAnswer, "base64"),
        (Says(200, "{", {"content-type": "application/json"}), BadAnswer, "whole JSON"),
        (Says(200, b"<html>", {"content-type": "text/html"}), BadAnswer, "a medium is due"),
        (Says(403, MODERATED), Refused, "flagged"),
        (Says(403, {"id": "e", "name": "unauthorized", "errors": ["no access"]}), KeyRefused, "no access"),
        (Says(401, {"id": "e", "name": "unauthorized", "errors": ["bad key"]}), KeyRefused, "bad key"),
        (
            Says(402, {"id": "e", "name": "payment_required", "errors": ["You lack credits"]}),
            OutOfCredit,
            "lack credits",
        ),
        (Says(413, {"id": "e", "name": "payload_too_large", "errors": ["10MiB"]}), ProviderError, "10MiB"),
        (Says(422, {"errors": {"image": "too odd"}}), ProviderError, "too odd"),
        (Says(400, []), ProviderError, "400"),
        (Says(404, "<html>nothing</html>"), ProviderError, "nothing"),
        (Says(429, {"id": "e", "name": "rate_limit_exceeded", "errors": ["slow down"]}), RateLimited, "slow down"),
        (Says(500, {"id": "e", "name": "internal_error", "errors": ["oops"]}), InDoubt, "oops"),
        (Says(200, PICTURE, cut=200), InDoubt, "may have been made"),
    ],
)
def test_what_is_no_picture_says_why_and_nothing_is_paid_twice(there, here, answer, error, words):
    there.on("POST", "/v2beta/.*", answer)
    with pytest.raises(error, match=words) as caught:
        run(here, Request("stable-image-core", "a cat"))
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert len(there.asked("POST")) == (3 if error is RateLimited else 1)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Says(403, MODERATED), Refused, "flagged"),
        (Says(404, {"id": "e", "name": "not_found", "errors": ["no such generation"]}), Expired, "no such"),
        (Says(200, {**FILTERED, "result": "AAAA"}), Refused, "CONTENT_FILTERED"),
        (Says(500, {"name": "internal_error", "errors": ["oops"]}), Unreachable, "oops"),
    ],
)
def test_what_comes_of_a_wait_may_be_a_refusal(there, here, answer, error, words):
    waits(there, "results", Says(202, {}), answer)
    with pytest.raises(error, match=words) as caught:
        run(here, Request("stable-image-upscale-creative", "a cat", inputs={"init": png()}))
    assert type(caught.value) is error
    assert len(there.asked("POST")) == 1


def test_a_wait_without_an_id_cannot_be(there, here):
    there.on("POST", "/v2beta/.*", Says(202, {}))
    with pytest.raises(BadAnswer, match="no id"):
        submit(here, Request("stable-audio-3", "rain"))


def test_it_cannot_be_stopped_there_and_says_so(there, here):
    waits(there, "audio/results", Says(202, {}))

    async def stopped():
        ticket = await here.submit((await here.resolve(Request("stable-audio-3", "rain"))).request)
        async for _ in here.watch(ticket):
            await here.cancel(ticket)

    with pytest.raises(Cancelled, match="no way to stop it"):
        asyncio.run(stopped())


WRONG = [
    ("stable-image-core", {"inputs": {"init": png()}}, "init"),
    ("stable-image-core", {"options": {"aspect_ratio": "4:3"}}, "aspect_ratio"),
    ("stable-image-core", {"width": 1024, "height": 700}, "size"),
    ("stability-sd3.5-large", {"options": {"output_format": "webp"}}, "output_format"),
    ("stability-sd3.5-large", {"inputs": {"init": png()}, "options": {"aspect_ratio": "1:1"}}, "aspect_ratio"),
    ("stability-sd3.5-large", {"strength": 0.5}, "strength"),
    ("stable-image-inpaint", {}, "init"),
    ("stable-image-inpaint", {"inputs": {"init": png(32, 256)}}, "init"),
    ("stable-image-erase", {"inputs": {"init": png()}}, "prompt"),
    ("stable-image-outpaint", {"inputs": {"init": png()}}, "left"),
    ("stable-image-outpaint", {"inputs": {"init": png(700, 64)}, "options": {"left": 8}}, "init"),
    ("stable-image-search-and-replace", {"inputs": {"init": png()}}, "search_prompt"),
    (
        "stable-image-remove-background",
        {"prompt": "", "inputs": {"init": png()}, "options": {"output_format": "jpeg"}},
        "output_format",
    ),
    ("stable-image-control-sketch", {}, "control"),
    ("stable-image-upscale-fast", {"prompt": "", "inputs": {"init": png(2048, 1024)}}, "init"),
    ("stable-image-upscale-fast", {"prompt": "", "inputs": {"init": Artifact("image/png", bytes(10485761))}}, "init"),
    ("stable-audio-2", {"duration": 200}, "duration"),
    ("stable-audio-2", {"steps": 8}, "steps"),
    ("stable-audio-2", {"inputs": {"init": wav()}, "options": {"mask_start": 1.0}}, "mask_start"),
    ("stable-audio-2.5", {"inputs": {"init": wav(2.0)}}, "init"),
    ("stable-audio-2.5", {"inputs": {"init": png()}}, "init"),
    ("stable-audio-2.5", {"options": {"mask_start": 1.0}}, "mask_start"),
    ("stable-audio-2.5", {"inputs": {"init": wav()}, "options": {"mask_start": 4.0, "mask_end": 2.0}}, "mask_end"),
    ("stable-audio-2.5", {"inputs": {"init": wav()}, "strength": 0.5, "options": {"mask_end": 2.0}}, "strength"),
    (
        "stable-audio-2.5",
        {"inputs": {"init": wav()}, "guidance_scale": 2, "options": {"mask_end": 2.0}},
        "guidance_scale",
    ),
]


@pytest.mark.parametrize(("model", "fields", "field"), WRONG)
def test_what_does_not_fit_is_refused_before_anything_is_sent(there, here, model, fields, field):
    with pytest.raises(InvalidField) as caught:
        submit(here, Request(model, **{"prompt": "a cat", **fields}))
    assert caught.value.field == field
    assert there.requests == []


def test_every_model_has_a_price(here):
    for name, card in here.cards().items():
        files = {
            one: png() if card.media == "image" else wav()
            for one in card.settings.get("required", ())
            if card.fields[one].kind == "artifact"
        }
        texts = {one: "a dog" for one in card.settings.get("required", ()) if card.fields[one].kind == "str"}
        options = texts | ({"left": 8} if "left" in card.fields else {})
        prompt = "a cat" if "prompt" in card.fields else ""
        assert here.price(Request(name, prompt, inputs=files, options=options)).most > 0
