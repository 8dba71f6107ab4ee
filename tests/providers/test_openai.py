"""OpenAI: what is sent is what its SDK sends and its specification allows; what comes is saved, its cost is told."""

import asyncio
import base64
import io
import json
from pathlib import Path

import numpy
import pytest
from loopback import KEY, Loopback, Says, account, made, remote
from openai_media import events_of, file, half_white, mp4, png, recipe_of, submitted
from PIL import Image

from triptych.catalogue import entries
from triptych.errors import (
    BadAnswer,
    Expired,
    InDoubt,
    InvalidField,
    KeyRefused,
    NotSetUp,
    OutOfCredit,
    PriceUnknown,
    ProviderError,
    RateLimited,
    Refused,
)
from triptych.providers.openai import OpenAI
from triptych.providers.remote import Remote
from triptych.providers.wire.http import Pace
from triptych.types import Artifact, Progress, Request, Ticket

SHARED = Path(__file__).parents[2].parent / "shared" / "specs"
CASES = json.loads((Path(__file__).parent / "captures" / "openai.json").read_text())["cases"]
USAGE = {
    "input_tokens": 1010,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 1000},
    "output_tokens": 1756,
    "total_tokens": 2766,
}
SDK = ("accept", "connection", "content-length", "content-type", "user-agent")  # which a client sends of itself


@pytest.fixture
def server():
    found = Loopback()
    yield found
    found.close()


@pytest.fixture
def openai(server, tmp_path):
    return remote(OpenAI(), f"{server.url}/v1", tmp_path / "tickets")


def drawn(number=1, **rest):
    inline = base64.b64encode(png()).decode()
    return Says(body={"created": 1, "data": [{"b64_json": inline}] * number, "usage": USAGE, **rest})


def sse(*events):
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return Says(body=text, headers={"content-type": "text/event-stream"})


def clip(status, progress=0, **rest):
    told = {"id": "video_1", "object": "video", "model": "sora-2", "status": status, "progress": progress}
    return Says(body={**told, "seconds": "8", "size": "1280x720", "error": None, **rest})


def run(work):
    return asyncio.run(work)


def events(provider, ticket):
    async def all_of_it():
        return [event async for event in provider.watch(ticket)]

    return run(all_of_it())


def schema(name):
    path = SHARED / "openai_media_openapi.normalised_2026-11.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    validators = pytest.importorskip("jsonschema")
    told = json.loads(path.read_text())
    whole = {**told["components"]["schemas"][name], "components": told["components"]}
    return validators.Draft202012Validator(whole)


# What is sent ---------------------------------------------------------------------------------------------------------

PLAIN = {"quality": "xhigh", "background": "transparent", "output_format": "webp", "output_compression": 80}
WANTED = {
    "generate": Request(
        "gpt-image-2.6-flare",
        "a fox",
        count=3,
        width=1536,
        height=1024,
        options={**PLAIN, "moderation": "low", "complexity": "high", "safety_identifier": "u1"},
    ),
    "generate streamed": Request("gpt-image-2.5-flare", "a fox", options={"partial_images": 2}),
    "dall-e-3": Request("dall-e-3", "a fox", width=1792, height=1024, options={"quality": "hd", "style": "natural"}),
    "dall-e-2 edit": Request(
        "dall-e-2", "a fox", count=2, width=512, height=512, inputs={"init": file(), "mask": half_white()}
    ),
    "edit with mask": Request(
        "gpt-image-2.6-sunburst",
        "a fox",
        inputs={"reference": file(colour="red"), "mask": half_white(), "init": file()},
        options={"size": "auto", "quality": "high"},
    ),
    "edit with markup, streamed": Request(
        "gpt-image-2.5-flare",
        "a fox",
        inputs={"init": file(), "markup": file(mode="RGBA", colour=(255, 0, 0, 0))},
        options={"partial_images": 3},
    ),
    "video": Request("sora-2", "a fox", duration=8, width=1280, height=720),
    "video remix": Request("sora-2", "a wolf", options={"remix": "video_1"}),
}


def sent(server, tmp_path, request):
    """The first request that comes of one of ours."""
    told = account("openai", f"{server.url}/v1", settings={"organization": "org-1", "project": "proj-1"})
    server.on("POST", "/v1/images/.*", Says(400, {"error": {"message": "enough"}}))
    server.on("POST", "/v1/videos.*", Says(400, {"error": {"message": "enough"}}))
    with pytest.raises(ProviderError):
        run(submitted(Remote(OpenAI(), lambda: told, tmp_path), request))
    return server.requests[0]


@pytest.mark.parametrize("case", [one for one in CASES if one["method"] == "POST"], ids=lambda one: one["case"])
def test_a_request_is_the_sdk_s(server, tmp_path, case):
    asked = sent(server, tmp_path, WANTED[case["case"]])
    assert (asked.method, asked.path) == (case["method"], case["path"])
    theirs = {name for name in case["headers"] if not name.startswith("x-stainless")} - {*SDK}
    assert theirs == {"authorization", "openai-organization", "openai-project"}
    assert theirs <= asked.headers.keys()
    assert asked.headers["openai-organization"] == "org-1"
    if case.get("json"):
        assert asked.json == case["json"]
        return
    ours = [(name, kind if called else None) for name, called, kind, _ in asked.parts]
    assert sorted(ours, key=str) == sorted(((one["name"], one["type"]) for one in case["parts"]), key=str)
    plain = {name: data.decode() for name, called, _, data in asked.parts if not called}
    assert plain == {one["name"]: one["text"] for one in case["parts"] if one["text"] is not None}


@pytest.mark.parametrize(
    "name", ["openai images.generate stream", "openai images.edit", "openai videos.create_and_poll"]
)
def test_a_request_has_what_was_captured_of_the_sdk(server, tmp_path, name):
    path = SHARED / "captured_sdk_requests.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    case = next(one for one in json.loads(path.read_text()) if one["case"].startswith(name))
    request = {
        "openai images.generate stream": Request("gpt-image-2.6-flare", "a cat", options={"partial_images": 1}),
        "openai images.edit": Request(
            "gpt-image-2.6-sunburst", "x", inputs={"init": file(), "reference": file(), "mask": half_white()}
        ),
        "openai videos.create_and_poll": Request(
            "sora-2", "a cat", width=1280, height=720, inputs={"init": file((1280, 720))}
        ),
    }[name]
    asked = sent(server, tmp_path, request)
    assert f"/openai{asked.path}" == case["path"]
    if "json" in case:
        said = asked.json
        assert {name: value for name, value in said.items() if name not in ("n", "size")} == case["json"]
        return
    theirs = [part["headers"].split('name="')[1].split('"')[0] for part in case["multipart"]]
    ours = [name for name, *_ in asked.parts if name != "size" or "size" in theirs]
    assert sorted(ours) == sorted(theirs)
    assert ours[-len(request.inputs) :] == theirs[-len(request.inputs) :]


@pytest.mark.parametrize("name", ["generate", "generate streamed", "dall-e-3", "video remix"])
def test_a_body_is_what_the_specification_allows(server, tmp_path, name):
    validator = schema("CreateVideoRemixBody" if "remix" in name else "CreateImageRequest")
    said = sent(server, tmp_path, WANTED[name]).json
    assert list(validator.iter_errors(said)) == []
    assert said.keys() <= validator.schema["properties"].keys()
    assert list(validator.iter_errors({**said, "prompt": 7}))  # it does look


@pytest.mark.parametrize("name", ["edit with mask", "edit with markup, streamed", "video"])
def test_parts_are_what_the_specification_allows(server, tmp_path, name):
    validator = schema("CreateVideoMultipartBody" if name == "video" else "CreateImageEditRequest")
    parts = sent(server, tmp_path, WANTED[name]).parts
    plain = {name: data.decode() for name, called, _, data in parts if not called}
    numbers = {"n", "partial_images"}
    said = {
        name: int(value) if name in numbers else value == "true" if name == "stream" else value
        for name, value in plain.items()
    }
    files = {name: ["bytes"] if name.endswith("[]") else "bytes" for name, called, *_ in parts if called}
    assert list(validator.iter_errors({**said, **files})) == []
    assert {name for name, *_ in parts} <= validator.schema["properties"].keys()


def test_the_mask_is_transparent_where_ours_is_white(server, tmp_path):
    asked = sent(server, tmp_path, WANTED["edit with mask"])
    (name, called, kind, data) = asked.parts[-1]
    assert (name, called, kind) == ("mask", "mask.png", "image/png")
    alpha = numpy.asarray(Image.open(io.BytesIO(data)).getchannel("A"))
    assert alpha.shape == (64, 64)
    assert (alpha[:, :32] == 0).all()
    assert (alpha[:, 32:] == 255).all()


def test_the_init_comes_before_the_references(server, tmp_path):
    inputs = {"reference_2": file(colour="blue"), "reference": file(colour="red"), "init": file(colour="green")}
    asked = sent(server, tmp_path, Request("gpt-image-2", "a fox", inputs=inputs))
    pictures = [data for name, *_, data in asked.parts if name == "image[]"]
    assert pictures == [png(colour=colour) for colour in ("green", "red", "blue")]


# What comes -----------------------------------------------------------------------------------------------------------


def test_pictures_come_with_the_answer_and_their_cost(server, openai):
    server.on("POST", "/v1/images/generations", drawn(2, quality="high", size="1024x1024"))
    result = run(made(openai, Request("gpt-image-2.5-flare", "a fox", count=2)))
    assert [Image.open(io.BytesIO(one.data)).size for one in result.artifacts] == [(64, 64)] * 2
    assert result.cost_from == "usage"
    assert result.cost == pytest.approx((10 * 5 + 1000 * 8 + 1756 * 30) / 1e6)
    assert recipe_of(result.artifacts[1].data)["index"] == 1
    assert result.recipe["told"][0]["quality"] == "high"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_organization_goes_where_the_key_goes(server, tmp_path):
    stranger = Loopback()
    stranger.on("GET", ".*", Says(body=mp4()))
    server.on("POST", "/v1/videos", clip("completed", 100))
    away = Says(302, headers={"location": f"{stranger.url}/clip.mp4"})
    server.on("GET", ".*/content", away)
    told = account("openai", f"{server.url}/v1", settings={"organization": "org-1"})
    run(made(Remote(OpenAI(), lambda: told, tmp_path), Request("sora-2", "a fox")))
    stranger.close()
    assert server.asked("GET")[0].headers["openai-organization"] == "org-1"
    assert "openai-project" not in server.asked("GET")[0].headers
    assert not {"openai-organization", "authorization"} & stranger.requests[0].headers.keys()


def test_what_was_cached_costs_less(server, openai):
    usage = {**USAGE, "input_tokens_details": {**USAGE["input_tokens_details"]}}
    usage["input_tokens_details"]["cached_tokens_details"] = {"text_tokens": 4, "image_tokens": 600}
    server.on("POST", "/v1/images/generations", drawn(usage=usage))
    cost = run(made(openai, Request("gpt-image-2", "a fox"))).cost
    assert cost == pytest.approx((6 * 5 + 4 * 1.25 + 400 * 8 + 600 * 2 + 1756 * 30) / 1e6)


@pytest.mark.parametrize("usage", [None, {}, "1", {"input_tokens_details": 3}, {"output_tokens": "many"}])
def test_an_odd_usage_is_none(server, openai, usage):
    server.on("POST", "/v1/images/generations", drawn(usage=usage))
    result = run(made(openai, Request("gpt-image-2", "a fox")))
    assert result.cost_from == "list"
    assert result.cost == openai.price(Request("gpt-image-2", "a fox")).most


def test_more_than_ten_are_several_calls(server, openai):
    server.on("POST", "/v1/images/generations", lambda asked: drawn(asked.json["n"]))
    result = run(made(openai, Request("gpt-image-2", "a fox", count=23)))
    assert [asked.json["n"] for asked in server.requests] == [10, 10, 3]
    assert len(result.artifacts) == 23
    assert [recipe_of(one.data)["index"] for one in result.artifacts] == list(range(23))


@pytest.mark.parametrize("name", ["generate", "edit"])
def test_previews_come_before_the_picture(server, openai, name):
    kind = "image_generation" if name == "generate" else "image_edit"
    inputs = {} if name == "generate" else {"init": file()}
    parts = [base64.b64encode(png(colour=colour)).decode() for colour in ("black", "grey")]
    partial = [
        {"type": f"{kind}.partial_image", "b64_json": one, "partial_image_index": place}
        for place, one in enumerate([*parts, "%%%"])
    ]
    last = {"type": f"{kind}.completed", "b64_json": base64.b64encode(png()).decode(), "usage": USAGE}
    server.on("POST", "/v1/images/.*", sse(*partial, last))
    request = Request("gpt-image-2.5-flare", "a fox", inputs=inputs, options={"partial_images": 3})
    told = events_of(openai, request)
    shown = [event for event in told if isinstance(event, Progress) and event.stage == "drawing"]
    assert [one.fraction for one in shown] == [0.25, 0.5, 0.75]
    assert [one.preview and one.preview.data for one in shown] == [png(colour="black"), png(colour="grey"), None]
    assert len(told[-1].artifacts) == 1
    assert told[-1].cost == pytest.approx((10 * 5 + 1000 * 8 + 1756 * 30) / 1e6)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (sse({"type": "error", "error": {"code": "moderation_blocked", "message": "no"}}), Refused),
        (sse({"type": "error", "error": {"code": "server_error", "message": "no"}}), ProviderError),
        (sse(), BadAnswer),
        (sse({"type": "image_generation.partial_image", "b64_json": "", "partial_image_index": 0}), BadAnswer),
        (sse({"type": "image_generation.completed", "b64_json": "AAA"}), BadAnswer),
        (Says(body="event: a\ndata: {}\n\n", headers={"content-type": "text/event-stream"}, cut=9), ProviderError),
        (Says(500, "no"), InDoubt),
        (Says(401, {"error": {"message": "no"}}), KeyRefused),
    ],
)
def test_a_stream_that_ends_in_nothing(server, openai, answer, error):
    server.on("POST", "/v1/images/generations", answer)
    with pytest.raises(error):
        events_of(openai, Request("gpt-image-2", "a fox", options={"partial_images": 1}))
    assert len(server.requests) == 1


def test_a_server_that_does_not_stream_is_heard_all_the_same(server, openai):
    server.on("POST", "/v1/images/generations", drawn())
    told = events_of(openai, Request("gpt-image-2", "a fox", options={"partial_images": 2}))
    assert len(told[-1].artifacts) == 1


def test_a_stream_does_not_outlive_its_process(server, openai, tmp_path):
    first = {"type": "image_generation.partial_image", "b64_json": "", "partial_image_index": 0}
    server.on("POST", "/v1/images/generations", sse(first))
    ticket = run(submitted(openai, Request("gpt-image-2", "a fox", options={"partial_images": 1})))
    fresh = remote(OpenAI(), f"{server.url}/v1", tmp_path / "tickets")
    with pytest.raises(InDoubt, match="see your account"):
        events(fresh, ticket)
    assert len(server.requests) == 1


def test_dall_e_may_answer_with_a_url(server, openai):
    server.on("GET", "/one.png", Says(body=png(), headers={"content-type": "image/png"}))
    told = {"url": f"{server.url}/one.png", "revised_prompt": "a red fox"}
    server.on("POST", "/v1/images/generations", Says(body={"created": 1, "data": [told]}))
    result = run(made(openai, Request("dall-e-3", "a fox")))
    assert len(result.artifacts) == 1
    assert result.recipe["told"] == [{"revised_prompts": ["a red fox"]}]
    assert (result.cost, result.cost_from) == (0.04, "list")
    assert "authorization" not in server.asked("GET")[0].headers


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "moderation_blocked", "type": "image_generation_user_error", "message": "unsafe"}, Refused),
        (400, {"code": "content_policy_violation", "type": "invalid_request_error", "message": "unsafe"}, Refused),
        (429, {"code": "insufficient_quota", "type": "insufficient_quota", "message": "no money"}, OutOfCredit),
        (400, {"code": "billing_hard_limit_reached", "type": "invalid_request_error", "message": "no"}, OutOfCredit),
        (401, {"code": "invalid_api_key", "message": f"wrong key {KEY}"}, KeyRefused),
        (403, {"code": None, "message": "verify your organization"}, KeyRefused),
        (404, {"code": "model_not_found", "message": "no such model"}, ProviderError),
        (400, {"code": None, "message": "bad"}, ProviderError),
    ],
)
def test_a_refusal_is_told_in_its_words(server, openai, status, error, kind):
    server.on("POST", "/v1/images/generations", Says(status, {"error": error}))
    with pytest.raises(kind) as caught:
        run(made(openai, Request("gpt-image-2", "a fox")))
    assert type(caught.value) is kind
    assert error["message"].replace(KEY, "[key]") in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body", ["<html>no</html>", "", b"\xff\xfe", "[]", "[1]", '"no"', "null", '{"error": 7}', '{"error": {}}']
)
@pytest.mark.parametrize("status", [400, 418])
def test_an_odd_error_is_an_error_too(server, openai, body, status):
    server.on("POST", "/v1/images/generations", Says(status, body))
    with pytest.raises(ProviderError, match=f"OpenAI answered {status}"):
        run(made(openai, Request("gpt-image-2", "a fox")))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"created": 1, "data": [], "error": {"code": "moderation_blocked", "message": "unsafe"}}, Refused),
        ({"created": 1, "data": []}, ProviderError),
        ({"created": 1}, ProviderError),
        ({"data": "none"}, ProviderError),
        ({"data": [None, 3, {"b64_json": ""}]}, ProviderError),
        ({"data": [{"b64_json": "AAA"}]}, BadAnswer),
        ({"data": [{"b64_json": "<!-- -->"}]}, BadAnswer),
        ({"data": [{"b64_json": base64.b64encode(b"<html>").decode()}]}, BadAnswer),
    ],
)
def test_a_200_without_a_picture_is_no_success(server, openai, body, kind):
    server.on("POST", "/v1/images/generations", Says(body=body))
    with pytest.raises(kind) as caught:
        run(made(openai, Request("gpt-image-2", "a fox")))
    assert type(caught.value) is kind


def test_rate_limits_are_waited_for(server, openai):
    limited = Says(429, {"error": {"code": "rate_limit_exceeded", "message": "slow"}}, {"retry-after-ms": "1"})
    server.on("POST", "/v1/images/generations", limited, drawn())
    assert run(made(openai, Request("gpt-image-2", "a fox"))).artifacts
    assert len(server.requests) == 2
    server.on("POST", "/v1/videos", limited)
    with pytest.raises(RateLimited):
        run(made(openai, Request("sora-2", "a fox")))


# Clips ----------------------------------------------------------------------------------------------------------------


def test_a_clip_is_looked_for_until_it_is_there(server, openai):
    server.on("POST", "/v1/videos", clip("queued"))
    server.on("GET", "/v1/videos/video_1", clip("in_progress", 40), clip("in_progress", 80), clip("completed", 100))
    server.on("GET", "/v1/videos/video_1/content", Says(body=mp4(), headers={"content-type": "video/mp4"}))
    request = Request("sora-2", "a fox", duration=8, width=1280, height=720, inputs={"init": file((1280, 720))})
    *told, result = events_of(openai, request)
    assert [round(one.fraction, 2) for one in told] == [0.4, 0.8, 1.0]
    assert [one.mime for one in result.artifacts] == ["video/mp4"]
    assert recipe_of(result.artifacts[0].data)["told"] == [{"id": "video_1"}]
    assert (result.cost, result.cost_from) == (pytest.approx(0.8), "list")
    content = server.asked("GET", ".*/content")
    assert [asked.headers["authorization"] for asked in content] == [f"Bearer {KEY}"]


def test_the_server_says_when_to_look_again(server, tmp_path):
    waited = []

    async def wait(seconds, _):
        waited.append(seconds)

    told = account("openai", f"{server.url}/v1")
    openai = Remote(OpenAI(), lambda: told, tmp_path, Pace(poll=7.0, wait=wait))
    soon = clip("in_progress", 10)
    soon.headers["openai-poll-after-ms"] = "2500"
    server.on("POST", "/v1/videos", clip("queued"))
    server.on("GET", "/v1/videos/video_1", soon, clip("failed", error={"code": "oops", "message": "it broke"}))
    with pytest.raises(ProviderError, match="it broke"):
        run(made(openai, Request("sora-2", "a fox")))
    assert waited[-1] == 2.5


def test_a_clip_is_found_again_after_a_restart(server, openai, tmp_path):
    server.on("POST", "/v1/videos", clip("queued"))
    server.on("GET", "/v1/videos/video_1", clip("completed", 100))
    server.on("GET", "/v1/videos/video_1/content", Says(body=mp4(), cut=1000), Says(body=mp4()))
    ticket = run(submitted(openai, Request("sora-2", "a fox")))
    handle = json.loads(json.dumps(dict(ticket.handle)))
    for folder in (tmp_path / "tickets", tmp_path / "elsewhere"):
        fresh = remote(OpenAI(), f"{server.url}/v1", folder)
        *_, result = events(fresh, Ticket(ticket.provider, ticket.request, handle, ticket.state))
        assert result.artifacts[0].mime == "video/mp4"
    assert len(server.asked("POST")) == 1


def test_several_clips_are_several_calls(server, openai):
    server.on("POST", "/v1/videos", clip("queued", id="video_1"), clip("queued", id="video/2"))
    server.on("GET", "/v1/videos/video_1", clip("completed", 100))
    server.on("GET", "/v1/videos/video%2F2", clip("completed", 100, id="video/2"))
    server.on("GET", ".*/content", Says(body=mp4()))
    assert len(run(made(openai, Request("sora-2", "a fox", count=2))).artifacts) == 2


def test_a_clip_is_made_anew_and_costs_what_it_is(server, openai):
    server.on("POST", "/v1/videos/video_0/remix", clip("queued"))
    server.on("GET", "/v1/videos/video_1", clip("completed", 100, seconds="12", model="sora-2-pro", size="1792x1024"))
    server.on("GET", ".*/content", Says(body=mp4()))
    request = Request("sora-2-pro", "at night", options={"remix": "video_0"})
    result = run(made(openai, request))
    assert server.requests[0].json == {"prompt": "at night"}
    assert (result.cost, result.cost_from) == (pytest.approx(6.0), "usage")
    price = openai.price(request)
    assert (price.least, price.most) == (pytest.approx(1.2), pytest.approx(6.0))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (clip("failed", error={"code": "moderation_blocked", "message": "unsafe"}), Refused),
        (clip("failed", error={"code": "video_generation_failed", "message": "oops"}), ProviderError),
        (clip("failed"), ProviderError),
        (Says(body={"status": "completed"}), BadAnswer),
        (Says(body="[]"), BadAnswer),
        (Says(404, {"error": {"message": "no such video"}}), ProviderError),
    ],
)
def test_a_clip_that_never_comes(server, openai, answer, error):
    server.on("POST", "/v1/videos", clip("queued"))
    server.on("GET", "/v1/videos/video_1", clip("dreaming"), answer)
    with pytest.raises(error) as caught:
        run(made(openai, Request("sora-2", "a fox")))
    assert type(caught.value) is error


def test_a_clip_that_was_deleted_is_expired(server, openai):
    server.on("POST", "/v1/videos", clip("completed", 100))
    server.on("GET", "/v1/videos/video_1", clip("completed", 100))
    server.on("GET", ".*/content", Says(404))
    with pytest.raises(Expired):
        run(made(openai, Request("sora-2", "a fox")))


def test_there_is_no_way_to_stop_it(server, openai):
    server.on("POST", "/v1/videos", clip("queued"))
    server.on("GET", "/v1/videos/video_1", clip("in_progress", 1))

    async def stopped():
        ticket = await submitted(openai, Request("sora-2", "a fox"))
        async for _ in openai.watch(ticket):
            await openai.cancel(ticket)

    with pytest.raises(Exception, match="no way to stop it"):
        run(stopped())


# What may be asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(OpenAI().cards()))
def test_a_card_resolves_its_defaults_and_has_a_price(openai, name):
    resolved = run(openai.resolve(Request(name, "a fox"))).request
    assert run(openai.resolve(resolved)).request == resolved
    if name == "chatgpt-image-latest":
        with pytest.raises(PriceUnknown):
            openai.price(resolved)
    else:
        assert openai.price(resolved).most > 0


def test_every_card_has_its_facts():
    known = {name: entry for name, entry in entries().items() if entry.provider == "openai"}
    assert known.keys() == OpenAI().cards().keys()
    for name, card in OpenAI().cards().items():
        assert known[name].makes == (card.media,)
        for ability in ("mask", "reference"):
            assert (ability in known[name].abilities) is (ability in card.fields)


def big(mime, number):
    return Artifact(mime, b"\0" * number)


@pytest.mark.parametrize(
    ("field", "model", "said"),
    [
        ("width", "gpt-image-2.6-flare", {"width": 1000, "height": 1024}),
        ("size", "gpt-image-2.6-flare", {"width": 3072, "height": 1008}),
        ("size", "gpt-image-2.6-flare", {"width": 3840, "height": 2176}),
        ("size", "gpt-image-2.6-flare", {"width": 800, "height": 800}),
        ("size", "gpt-image-2.6-flare", {"width": 2048, "height": 1024, "options": {"size": "auto"}}),
        ("size", "gpt-image-1.5", {"width": 1536, "height": 1536}),
        ("size", "dall-e-3", {"width": 1792, "height": 1792}),
        ("size", "dall-e-2", {"width": 768, "height": 768}),
        ("size", "sora-2", {"width": 1280, "height": 1280}),
        ("duration", "sora-2", {"duration": 5}),
        ("quality", "gpt-image-2", {"options": {"quality": "xhigh"}}),
        ("quality", "gpt-image-2.6-flare", {"options": {"quality": "hd"}}),
        ("complexity", "gpt-image-2.5-flare", {"options": {"complexity": "low"}}),
        ("markup", "gpt-image-2", {"inputs": {"init": file(), "markup": file()}}),
        ("background", "gpt-image-2", {"options": {"background": "transparent", "output_format": "jpeg"}}),
        ("output_compression", "gpt-image-2", {"options": {"output_compression": 5}}),
        ("moderation", "gpt-image-2", {"options": {"moderation": "low"}, "inputs": {"init": file()}}),
        ("input_fidelity", "gpt-image-1.5", {"options": {"input_fidelity": "high"}}),
        ("count", "gpt-image-2", {"options": {"partial_images": 1}, "count": 2}),
        ("partial_images", "gpt-image-2", {"options": {"partial_images": 4}}),
        ("init", "gpt-image-2", {"inputs": {"init": file(kind="GIF")}}),
        ("init", "gpt-image-2", {"inputs": {"init": big("image/png", 50_000_001)}}),
        ("mask", "gpt-image-2", {"inputs": {"mask": half_white()}}),
        ("mask", "gpt-image-2", {"inputs": {"reference": file(), "mask": half_white()}}),
        ("mask", "gpt-image-2", {"inputs": {"init": file(), "mask": half_white((32, 32))}}),
        ("mask", "gpt-image-2", {"inputs": {"init": file(), "mask": file(colour="black")}}),
        ("mask", "gpt-image-2", {"inputs": {"init": file(), "mask": big("image/png", 9)}}),
        ("init", "gpt-image-2", {"inputs": {"init": file(turned=True, kind="JPEG"), "mask": half_white()}}),
        ("markup", "gpt-image-2.5-flare", {"inputs": {"init": file(), "markup": file(), "mask": half_white()}}),
        ("markup", "gpt-image-2.5-flare", {"inputs": {"init": file(), "markup": file()}}),
        ("markup", "gpt-image-2.5-flare", {"inputs": {"init": file(), "markup": file(kind="WEBP")}}),
        ("init", "dall-e-2", {"inputs": {"init": file((64, 32)), "mask": half_white((64, 32))}}),
        ("init", "dall-e-2", {"inputs": {"init": file(kind="JPEG"), "mask": half_white()}}),
        ("mask", "dall-e-2", {"inputs": {"init": file()}}),
        ("init", "dall-e-3", {"inputs": {"init": file()}}),
        ("init", "sora-2", {"inputs": {"init": file()}}),
        ("duration", "sora-2", {"options": {"remix": "v"}, "duration": 8}),
        ("init", "sora-2", {"options": {"remix": "v"}, "inputs": {"init": file((720, 1280))}}),
        ("seed", "gpt-image-2", {"seed": 1}),
        ("negative_prompt", "gpt-image-2", {"negative_prompt": "dogs"}),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_sent(server, openai, field, model, said):
    with pytest.raises(InvalidField) as caught:
        run(submitted(openai, Request(model, "a fox", **said)))
    assert caught.value.field == field
    assert server.requests == []


def test_seventeen_pictures_are_too_many(openai):
    names = ["reference", *(f"reference_{number}" for number in range(2, 17))]
    sixteen = dict.fromkeys(names, file())
    assert run(openai.resolve(Request("gpt-image-2", "a fox", inputs=sixteen)))
    with pytest.raises(InvalidField, match="17 pictures"):
        run(openai.resolve(Request("gpt-image-2", "a fox", inputs={**sixteen, "init": file()})))


def test_without_a_key_nothing_is_sent(server, tmp_path):
    with pytest.raises(NotSetUp, match="OPENAI_API_KEY"):
        run(made(remote(OpenAI(), server.url, tmp_path, key=None), Request("gpt-image-2", "a fox")))
    assert server.requests == []


def test_the_key_is_nowhere_on_the_disk(server, openai, tmp_path):
    server.on("POST", "/v1/videos", clip("queued"))
    run(submitted(openai, Request("sora-2", "a fox")))
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
