"""The Gemini API: bodies as the SDK and the specification have them, states, refusals, costs, files, restarts."""

import asyncio
import json
from dataclasses import replace

import pytest
from google_media import b64, captured, clip, mp4, picture, png, same, shared, sound, valid
from loopback import KEY, Loopback, Says, account, made, remote

from triptych.errors import (
    BadAnswer,
    Cancelled,
    InDoubt,
    InvalidField,
    KeyRefused,
    NeedsAction,
    OutOfCredit,
    PriceUnknown,
    ProviderError,
    RateLimited,
    Refused,
)
from triptych.media import read_recipe
from triptych.providers import google_interactions, google_words
from triptych.providers.google import Google
from triptych.providers.wire import tables
from triptych.types import Artifact, Request, Ticket

PRO, BANANA, OMNI, SONG = "gemini-3-pro-image", "gemini-nano-banana-2.1", "gemini-omni-1.1-flash", "lyria-3.5"
PATH = "/v1/interactions"
FURTHER = {f"reference_{number}": picture() for number in range(2, 15)}


@pytest.fixture
def server():
    found = Loopback()
    yield found
    found.close()


@pytest.fixture
def google(server, tmp_path):
    return remote(Google(), server.url, tmp_path)


def interaction(*contents, status="completed", **rest):
    steps = [{"type": "thought", "content": [{"type": "image", "data": b64(png("red"))}]}]
    told = {"id": "int_1", "status": status, "steps": [*steps, {"type": "model_output", "content": list(contents)}]}
    return Says(body={**told, **rest})


def image(colour="teal"):
    return {"type": "image", "data": b64(png(colour)), "mime_type": "image/png"}


def asked(model, prompt="a cat", **rest):
    inputs = {name: rest.pop(name) for name in list(rest) if isinstance(rest[name], Artifact)}
    plain = {name: rest.pop(name) for name in ("seed", "count", "duration", "width", "height") if name in rest}
    return Request(model, prompt, inputs=inputs, options=rest, **plain)


def sent(google, server, request):
    """The body of a request that is answered with a failure, as it was sent."""
    server.on("POST", ".*", Says(400, {"error": {"message": "no"}}))
    resolved = asyncio.run(google.resolve(request)).request
    with pytest.raises(ProviderError):
        asyncio.run(google.submit(resolved))
    return server.requests[-1]


# what is sent


def test_a_picture_is_asked_for_as_the_sdk_does(google, server):
    request = asked(BANANA, reference=picture(), seed=7, aspect_ratio="16:9", image_size="2K")
    one = sent(google, server, request)
    same(one, shared("google interactions image"), "/google")
    assert one.headers["x-goog-api-key"] == KEY
    content = one.json["input"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image"]
    assert content[1]["data"] == b64(png())
    assert one.json["response_format"] == {"type": "image", "aspect_ratio": "16:9", "image_size": "2K"}
    assert one.json["generation_config"] == {"seed": 7}


def test_a_picture_from_words_with_every_format(google, server):
    options = {"aspect_ratio": "1:1", "image_size": "4K", "output_format": "jpeg", "delivery": "uri"}
    one = sent(google, server, asked(PRO, seed=7, **options))
    same(one, captured("image"))
    assert one.json == captured("image")["json"]


def test_what_is_changed_comes_before_what_shall_be_seen(google, server):
    inputs = {"reference_2": picture("blue"), "reference": picture("green"), "init": picture("red")}
    content = sent(google, server, asked(PRO, **inputs)).json["input"][0]["content"]
    assert [part.get("data") for part in content[1:]] == [b64(png(one)) for one in ("red", "green", "blue")]


def test_a_clip_between_two_frames(google, server):
    request = asked(
        "gemini-omni-1.2-flash", init=picture(), last_frame=picture("red"), seed=7, duration=8,
        aspect_ratio="16:9", resolution="1080p",
    )  # fmt: skip
    one = sent(google, server, request)
    same(one, captured("video"))
    assert one.json["background"] is True
    assert one.json["generation_config"]["video_config"] == {"task": "image_to_video"}
    assert one.json["response_format"]["duration"] == "8s"


def test_a_clip_that_is_changed_keeps_its_length(google, server):
    one = sent(google, server, asked(OMNI, "a dog", init=clip(), seed=7))
    same(one, captured("video edit"))


@pytest.mark.parametrize(
    ("inputs", "options", "task"),
    [
        ({}, {}, "text_to_video"),
        ({"init": picture()}, {}, "image_to_video"),
        ({"reference": picture(), "reference_2": clip()}, {}, "reference_to_video"),
        ({"init": clip()}, {"task": "extend"}, "extend"),
        ({}, {"previous_interaction_id": "int_0"}, None),
        ({}, {"previous_interaction_id": "int_0", "task": "edit"}, "edit"),
    ],
)
def test_the_task_of_a_clip(google, server, inputs, options, task):
    body = sent(google, server, asked(OMNI, **inputs, **options)).json
    assert body["generation_config"].get("video_config", {}).get("task") == task
    assert body.get("previous_interaction_id") == options.get("previous_interaction_id")
    valid(body, "CreateModelInteraction")


def test_frames_and_references_when_the_prompt_says_which_is_which(google, server):
    words = "[# Sources <FIRST_FRAME>@Image1] [# References <IMAGE_REF_0>@Image2] a woman walks"
    body = sent(google, server, asked(OMNI, words, init=picture(), reference=picture("red"))).json
    assert "video_config" not in body["generation_config"]


def test_music(google, server):
    same(sent(google, server, asked(SONG, "lofi")), shared("google interactions music"), "/google")
    request = asked("lyria-3-pro-preview", "lofi", reference=picture(), audio_format="wav")
    same(sent(google, server, request), captured("music from a picture"))


@pytest.mark.parametrize("name", sorted(Google().cards()))
def test_every_card_resolves_prices_and_sends_what_the_specification_allows(google, server, name):
    resolved = asyncio.run(google.resolve(asked(name))).request
    assert google.price(resolved).most > 0
    assert google.card(name).resolve(resolved) == resolved
    body = google_interactions.body(google.card(name), resolved)
    valid(body, "CreateModelInteraction")


@pytest.mark.parametrize("name", sorted(Google().cards()))
def test_every_choice_of_every_card_is_what_the_specification_allows(google, name):
    card = google.card(name)
    for option, field in card.fields.items():
        for choice in field.choices if option != "task" else ():
            resolved = asyncio.run(google.resolve(asked(name, **{option: choice}))).request
            valid(google_interactions.body(card, resolved), "CreateModelInteraction")


def test_the_other_wire_is_the_sdks(google, server):
    options = {"wire": "generateContent", "aspect_ratio": "16:9", "image_size": "2K"}
    same(sent(google, server, asked(PRO, seed=3, **options)), shared("google generate_content image"), "/google")
    one = sent(google, server, asked(PRO, seed=3, init=picture(), **options))
    same(one, captured("content with a picture"))
    inline = one.json["contents"][0]["parts"][1]["inlineData"]
    assert inline == {"mimeType": "image/png", "data": b64(png())}


def test_a_version_for_gateways_that_know_no_other(server, tmp_path):
    google = remote(Google(), server.url, tmp_path, settings={"api_version": "v1beta"})
    assert sent(google, server, asked(PRO)).path == "/v1beta/interactions"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked(PRO, init=Artifact("image/gif", b"GIF89a")), "init"),
        (asked(PRO, init=picture(), reference=picture(), **FURTHER), "pictures"),
        (asked(PRO, mask=picture()), "mask"),
        (asked(BANANA, image_size="512"), "image_size"),
        (asked(PRO, wire="generateContent", background="on"), "background"),
        (asked(PRO, wire="generateContent", delivery="uri"), "delivery"),
        (asked(PRO, wire="generateContent", output_format="jpeg"), "output_format"),
        (asked(OMNI, last_frame=picture()), "last_frame"),
        (asked(OMNI, init=clip(), last_frame=picture()), "last_frame"),
        (asked(OMNI, init=picture(), reference=picture()), "reference"),
        (asked(OMNI, **{f"reference{end}": picture() for end in ("", "_2", "_3", "_4")}), "reference"),
        (asked(OMNI, task="extend"), "task"),
        (asked(OMNI, init=clip(), duration=5), "duration"),
        (asked(OMNI, duration=11), "duration"),
        (asked("gemini-omni-1.2-flash", init=picture(), last_frame=picture(), duration=12), "duration"),
        (asked(SONG, seed=1), "seed"),
        (asked(SONG, reference=clip()), "reference"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_anything_is_sent(google, server, request_, field):
    with pytest.raises(InvalidField) as told:
        asyncio.run(google.resolve(request_))
    assert told.value.field == field
    assert not server.requests


# what comes


def test_a_picture_comes_to_the_disk_with_its_recipe_and_its_cost(google, server):
    usage = {
        "input_tokens_by_modality": [{"modality": "text", "tokens": 10}, {"modality": "image", "tokens": 1120}],
        "output_tokens_by_modality": [{"modality": "image", "tokens": 1120}],
        "total_thought_tokens": 100,
    }
    server.on("POST", PATH, interaction(image(), {"type": "text", "text": "Here it is."}, usage=usage))
    result = asyncio.run(made(google, asked(PRO, init=picture(), seed=5)))
    assert result.cost_from == "usage"
    assert result.cost == pytest.approx((10 * 2 + 1120 * 2 + 1120 * 120 + 100 * 12) / 1e6)
    recipe = read_recipe(result.artifacts[0].data, "it")
    assert recipe["request"]["seed"] == 5
    assert recipe["told"] == [{"id": "int_1", "text": "Here it is."}]


def test_usage_without_what_was_made_or_of_no_known_price_is_no_cost():
    card = Google().cards()[PRO]
    assert tables.usage_cost(card, {"text_in": 10}) is None
    assert tables.usage_cost(card, {"image_out": 10, "smell_in": 1}) is None
    assert tables.usage_cost(card, {}) is None
    assert google_interactions.tokens({"usage": {"input_tokens_by_modality": "many"}}) == {}


def test_several_samples_are_several_requests_with_seeds_in_a_row(google, server):
    server.on("POST", PATH, interaction(image("teal")), interaction(image("red")), interaction(image("blue")))
    result = asyncio.run(made(google, asked(BANANA, count=3, seed=41)))
    assert len(result.artifacts) == 3
    assert [one.json["generation_config"]["seed"] for one in server.requests] == [41, 42, 43]
    assert (result.cost, result.cost_from) == (pytest.approx(3 * 0.0336), "list")


def test_a_clip_is_submitted_asked_for_and_fetched_with_the_key(google, server):
    usage = {"input_tokens_by_modality": [{"modality": "text", "tokens": 100}],
             "output_tokens_by_modality": [{"modality": "video", "tokens": 46000}]}  # fmt: skip
    uri = f"{server.url}/v1beta/files/abc"
    done = interaction({"type": "video", "uri": uri, "mime_type": "video/mp4"}, usage=usage)
    server.on("POST", PATH, Says(body={"id": "int_1", "status": "queued"}))
    running, odd = (Says(body={"id": "int_1", "status": word}) for word in ("in_progress", "dreaming"))
    server.on("GET", f"{PATH}/int_1\\?stream=false", running, odd, done)
    server.on("GET", "/v1beta/files/abc:download\\?alt=media", Says(body=mp4(), headers={"content-type": "video/mp4"}))
    result = asyncio.run(made(google, asked(OMNI, seed=1)))
    assert result.cost == pytest.approx((100 * 1.5 + 46000 * 17.5) / 1e6)
    polls = server.asked("GET", f"{PATH}.*")
    same(polls[0], shared("google interactions get"), "/google")
    assert len(polls) == 3
    assert server.asked("GET", ".*alt=media")[0].headers["x-goog-api-key"] == KEY
    assert read_recipe(result.artifacts[0].data, "it")["model"]["name"] == OMNI


def test_the_key_stays_here_where_a_file_lies_elsewhere(google, server):
    other = Loopback()
    server.on("POST", PATH, interaction({"type": "video", "uri": f"{other.url}/clip.mp4"}))
    other.on("GET", "/clip.mp4", Says(body=mp4()))
    asyncio.run(made(google, asked(OMNI)))
    assert KEY not in json.dumps(other.requests[0].headers)
    other.close()


def test_music_comes_with_its_words(google, server):
    contents = (
        {"type": "text", "text": "[Verse] la la"},
        {"type": "audio", "data": b64(sound()), "mime_type": "audio/mp3"},
    )
    server.on("POST", PATH, interaction(*contents))
    result = asyncio.run(made(google, asked(SONG, "lofi")))
    assert (result.cost, result.cost_from) == (0.08, "list")
    assert read_recipe(result.artifacts[0].data, "it")["told"][0]["text"] == "[Verse] la la"


def test_a_ticket_survives_a_restart(google, server, tmp_path):
    server.on("POST", PATH, Says(body={"id": "int_1", "status": "in_progress"}))
    resolved = asyncio.run(google.resolve(asked(OMNI))).request
    ticket = asyncio.run(google.submit(resolved))
    assert ticket.state == "running"
    again = Ticket(ticket.provider, ticket.request, json.loads(json.dumps(dict(ticket.handle))), ticket.state)
    server.on("GET", f"{PATH}/int_1.*", interaction({"type": "video", "data": b64(mp4())}))

    async def watched():
        return [event async for event in remote(Google(), server.url, tmp_path).watch(again)]

    assert asyncio.run(watched())[-1].artifacts[0].mime == "video/mp4"
    assert len(server.asked("POST")) == 1


def test_a_running_clip_is_stopped_there(google, server):
    server.on("POST", PATH, Says(body={"id": "int_1", "status": "in_progress"}))
    server.on("GET", f"{PATH}/int_1.*", Says(body={"id": "int_1", "status": "in_progress"}))
    server.on("POST", f"{PATH}/int_1/cancel", Says(body={"id": "int_1", "status": "cancelled"}))

    async def stopped():
        ticket = await google.submit((await google.resolve(asked(OMNI))).request)
        async for _ in google.watch(ticket):
            await google.cancel(ticket)

    with pytest.raises(Cancelled, match="stopped on request"):
        asyncio.run(stopped())
    same(server.asked("POST", ".*/cancel")[0], captured("cancel"))


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        (interaction({"type": "text", "text": "I cannot draw that."}), Refused, "I cannot draw that"),
        (interaction(), ProviderError, "has no image"),
        (interaction(status="failed", errors=[{"code": "SAFETY", "message": "Not this."}]), Refused, "Not this"),
        (interaction(status="failed", errors=[{"code": "internal", "message": "Oops."}]), ProviderError, "Oops"),
        (interaction(status="failed", error={"message": "It was blocked for safety reasons."}), Refused, "blocked"),
        (interaction(image(), status="incomplete"), ProviderError, "incomplete"),
        (interaction(status="budget_exceeded"), ProviderError, "budget_exceeded"),
        (interaction(status="cancelled"), Cancelled, "cancelled"),
        (interaction({"type": "image", "data": "@@@"}), BadAnswer, "base64"),
        (interaction({"type": "image", "data": b64(png()[:60])}), BadAnswer, "kept as"),
        (Says(body="<html>hello</html>", headers={"content-type": "text/html"}), BadAnswer, "not whole JSON"),
        (
            Says(body={"id": "x", "status": "completed", "steps": {"a": 1}, "usage": [], "errors": 7}),
            ProviderError,
            "has no image",
        ),
        (Says(503, {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}), InDoubt, "overloaded"),
    ],
)
def test_an_answer_without_a_picture_says_why(google, server, told, kind, words):
    server.on("POST", PATH, told)
    with pytest.raises(ProviderError if kind is not Cancelled else Cancelled, match=words) as found:
        asyncio.run(made(google, asked(PRO)))
    assert type(found.value) is kind
    assert len(server.asked("POST", PATH)) == 1


@pytest.mark.parametrize("word", ["requires_action", "requires_continuation"])
def test_what_waits_for_the_user_is_said(google, server, word):
    server.on("POST", PATH, Says(body={"id": "int_1", "status": word}))
    server.on("GET", f"{PATH}/int_1.*", Says(body={"id": "int_1", "status": word}))
    with pytest.raises(NeedsAction, match=word):
        asyncio.run(made(google, asked(PRO)))


INVALID_KEY = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
               "details": [{"@type": "x/ErrorInfo", "reason": "API_KEY_INVALID"}]}  # fmt: skip
DAILY = {"code": 429, "message": "You exceeded your quota.", "status": "RESOURCE_EXHAUSTED",
         "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}]}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"error": INVALID_KEY}, KeyRefused, "API key not valid"),
        (400, [{"error": INVALID_KEY}], KeyRefused, "aistudio"),
        (401, {"error": {"code": 401, "message": "no", "status": "UNAUTHENTICATED"}}, KeyRefused, "UNAUTHENTICATED"),
        (403, {"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}, KeyRefused, "may not"),
        (404, {"error": {"code": 404, "message": "gone", "status": "NOT_FOUND"}}, ProviderError, "no longer there"),
        (429, {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}, RateLimited, "slow"),
        (429, {"error": DAILY}, OutOfCredit, "quota"),
        (
            400,
            {"error": {"code": "invalid_request", "message": "bad seed"}},
            ProviderError,
            "bad seed .invalid_request",
        ),
        (400, {"error": {"message": "The prompt was blocked by our safety filters."}}, Refused, "blocked"),
        (400, {"error": {"message": "Enable billing.", "status": "FAILED_PRECONDITION"}}, OutOfCredit, "billing"),
        (400, "<html>what</html>", ProviderError, "what"),
        (400, "", ProviderError, "no words"),
        (400, [], ProviderError, "400"),
        (400, {"error": "plain"}, ProviderError, "plain"),
    ],
)
def test_an_error_is_told_in_the_vendors_words(google, server, status, body, kind, words):
    server.on("POST", PATH, Says(status, body))
    with pytest.raises(ProviderError, match=words) as found:
        asyncio.run(made(google, asked(PRO)))
    assert type(found.value) is kind
    assert len(server.requests) == (4 if kind is RateLimited else 1)
    assert KEY not in str(found.value)


# the other wire


def content(*parts, **rest):
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", **rest}]}


def test_the_other_wire_gives_a_picture_and_its_cost(google, server):
    details = {
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}],
        "thoughtsTokenCount": 50,
    }
    inline = {"inlineData": {"mimeType": "image/png", "data": b64(png())}}
    thought = {"inlineData": {"mimeType": "image/png", "data": b64(png("red"))}, "thought": True}
    told = content({"text": "Here."}, thought, inline) | {"usageMetadata": details}
    server.on("POST", f"/v1/models/{PRO}:generateContent", Says(body=told))
    result = asyncio.run(made(google, asked(PRO, wire="generateContent")))
    assert len(result.artifacts) == 1
    assert result.cost == pytest.approx((10 * 2 + 1120 * 120 + 50 * 12) / 1e6)
    assert result.cost_from == "usage"


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        (content(finishReason="IMAGE_SAFETY", finishMessage="Unsafe."), Refused, "IMAGE_SAFETY: Unsafe"),
        (content(finishReason="PROHIBITED_CONTENT"), Refused, "PROHIBITED_CONTENT"),
        (content(finishReason="IMAGE_RECITATION"), Refused, "IMAGE_RECITATION"),
        (content(finishReason="IMAGE_PROHIBITED_CONTENT"), Refused, "IMAGE_PROHIBITED"),
        (content(finishReason="NO_IMAGE"), ProviderError, "NO_IMAGE"),
        (content({"text": "Which cat?"}, finishReason="IMAGE_OTHER"), ProviderError, "IMAGE_OTHER: Which cat"),
        ({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "Not so."}}, Refused, "OTHER: Not so"),
        ({"candidates": [{"content": None}, 7]}, ProviderError, "no word of why"),
        ({}, ProviderError, "no word of why"),
    ],
)
def test_the_other_wire_refuses_with_status_200(google, server, told, kind, words):
    server.on("POST", ".*:generateContent", Says(body=told))
    with pytest.raises(ProviderError, match=words) as found:
        asyncio.run(made(google, asked(PRO, wire="generateContent")))
    assert type(found.value) is kind


# prices


def test_prices(google):
    def price(request):
        return google.price(asyncio.run(google.resolve(request)).request)

    assert str(price(asked(PRO, image_size="4K", count=2))) == "$0.48"
    assert str(price(asked(BANANA, image_size="4K"))) == "$0.113"
    assert str(price(asked(OMNI, duration=10))).startswith("$0.80 to $1.20")
    changed = price(asked(OMNI, init=clip()))
    assert (changed.least, changed.most) == (pytest.approx(3 * 0.08), pytest.approx(10 * 0.12))
    assert "as long as the clip" in changed.why


def test_a_gateway_sets_its_own_prices(server, tmp_path):
    gateway = remote(Google(), server.url, tmp_path, settings={"prices": "unknown"})
    with pytest.raises(PriceUnknown):
        gateway.price(asked(PRO))


def test_where_a_file_lies():
    def url(uri):
        return google_words.located(uri, "https://storage.googleapis.com/").url

    base = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    assert url(base) == f"{base}:download?alt=media"
    assert url(f"{base}:download?alt=media") == f"{base}:download?alt=media"
    assert url(f"{base}:download") == f"{base}:download?alt=media"
    assert url("https://example.org/clip.mp4") == "https://example.org/clip.mp4"
    wanted = "https://storage.googleapis.com/storage/v1/b/bucket/o/clips%2Fa%20b.mp4?alt=media"
    assert url("gs://bucket/clips/a b.mp4") == wanted
    own = account("google", "https://generativelanguage.googleapis.com")
    assert own.own
    assert own.belongs(base)
    assert not replace(own, base_url="https://example.org").belongs("https://storage.googleapis.com/x")
