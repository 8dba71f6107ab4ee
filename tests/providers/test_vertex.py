"""Vertex AI: bodies as the SDK and Google's discovery document have them, operations, refusals, tokens, gateways."""

import asyncio
import json

import pytest
from google_media import b64, captured, clip, discovered_valid, mp4, picture, png, same, shared, sound
from loopback import KEY, Loopback, Says, account, made, remote

from triptych.errors import (
    BadAnswer,
    Cancelled,
    InvalidField,
    KeyRefused,
    NotSetUp,
    PriceUnknown,
    ProviderError,
    Refused,
)
from triptych.media import read_recipe
from triptych.providers import google_content, vertex_predict
from triptych.providers.remote import Remote
from triptych.providers.vertex import Vertex
from triptych.providers.wire.account import Account
from triptych.providers.wire.http import Wire
from triptych.types import Artifact, Request, Ticket

PLACE = "/v1beta1/projects/p/locations/us-central1/publishers/google/models"
VEO, IMAGEN, LYRIA, BANANA = "veo-3.1-generate-001", "imagen-4.0-generate-001", "lyria-002", "gemini-3.1-flash-image"
OPERATION = f"{PLACE.removeprefix('/v1beta1/')}/{VEO}/operations/op1"
SETTINGS = {"project": "p", "location": "us-central1"}


@pytest.fixture
def server():
    found = Loopback()
    yield found
    found.close()


@pytest.fixture
def vertex(server, tmp_path):
    return remote(Vertex(), server.url, tmp_path, settings=SETTINGS)


def asked(model, prompt="a cat", **rest):
    inputs = {name: rest.pop(name) for name in list(rest) if isinstance(rest[name], Artifact)}
    names = ("seed", "count", "duration", "negative_prompt")
    plain = {name: rest.pop(name) for name in names if name in rest}
    return Request(model, prompt, inputs=inputs, options=rest, **plain)


def sent(vertex, server, request):
    """A request that is answered with a failure, as it was sent."""
    server.on("POST", ".*", Says(400, {"error": {"message": "no"}}))
    resolved = asyncio.run(vertex.resolve(request)).request
    with pytest.raises(ProviderError):
        asyncio.run(vertex.submit(resolved))
    return server.requests[-1]


# what is sent


def test_a_clip_between_frames_is_asked_for_as_the_sdk_does(vertex, server):
    options = {"aspect_ratio": "16:9", "resolution": "1080p", "person_generation": "allow_adult"}
    request = asked(VEO, "a", init=picture(), last_frame=picture(), seed=1, negative_prompt="b", **options)
    one, wanted = sent(vertex, server, request), shared("vertex generate_videos veo3.1")
    same(one, wanted, "/vertex")
    assert one.json["parameters"] == wanted["json"]["parameters"]
    assert one.headers["authorization"] == f"Bearer {KEY}"
    discovered_valid(one.json, "GoogleCloudAiplatformV1PredictLongRunningRequest")


def test_the_other_ways_of_a_clip(vertex, server):
    options = {
        "audio": "off",
        "enhance_prompt": "on",
        "compression_quality": "LOSSLESS",
        "storage_uri": "gs://bucket/clips",
    }
    one = sent(vertex, server, asked(VEO, "a", reference=picture(), count=2, seed=1, **options))
    same(one, captured("veo references"))
    assert one.json["parameters"] == captured("veo references")["json"]["parameters"]
    same(sent(vertex, server, asked(VEO, "a", init=clip(), seed=1)), captured("veo extend"))
    one = sent(vertex, server, asked(VEO, "a", init=picture(), duration=4, seed=1, resize_mode="PAD"))
    same(one, captured("veo resize"))
    assert one.json["parameters"] == captured("veo resize")["json"]["parameters"]


@pytest.mark.parametrize(
    "name", ["imagen-4.0-generate-001", "imagen-4.0-fast-generate-001", "imagen-4.0-ultra-generate-001"]
)
def test_imagen_in_its_three_variants(vertex, server, name):
    request = asked(name, **({"image_size": "2K"} if "fast" not in name else {}))
    one = sent(vertex, server, request)
    assert one.path == f"{PLACE}/{name}:predict"
    size = {} if "fast" in name else {"sampleImageSize": "2K"}
    assert one.json == {
        "instances": [{"prompt": "a cat"}],
        "parameters": {"sampleCount": 1, **size, "includeRaiReason": True},
    }
    discovered_valid(one.json, "GoogleCloudAiplatformV1PredictRequest")


def test_imagen_with_every_option_is_the_sdks(vertex, server):
    options = {"aspect_ratio": "16:9", "add_watermark": "off", "image_size": "2K", "person_generation": "ALLOW_ADULT",
               "safety_setting": "BLOCK_ONLY_HIGH", "enhance_prompt": "on", "output_format": "jpeg"}  # fmt: skip
    one = sent(vertex, server, asked(IMAGEN, count=2, negative_prompt="dogs", seed=5, **options))
    same(one, captured("imagen"))
    assert one.json == captured("imagen")["json"]


def test_a_picture_of_gemini(vertex, server):
    options = {"aspect_ratio": "16:9", "image_size": "2K", "output_format": "png", "person_generation": "ALLOW_ADULT"}
    one = sent(vertex, server, asked(BANANA, reference=picture(), seed=3, **options))
    same(one, captured("vertex content"))
    assert one.json["generationConfig"] == captured("vertex content")["json"]["generationConfig"]
    discovered_valid(one.json, "GoogleCloudAiplatformV1GenerateContentRequest")


def test_every_choice_of_gemini_is_what_the_discovery_document_allows(vertex):
    card = vertex.card(BANANA)
    for option, field in card.fields.items():
        for choice in field.choices:
            resolved = asyncio.run(vertex.resolve(asked(BANANA, **{option: choice}))).request
            discovered_valid(google_content.body(card, resolved), "GoogleCloudAiplatformV1GenerateContentRequest")


def test_lyria_2_is_sent_a_seed_and_no_number_of_samples(vertex, server):
    one = sent(vertex, server, asked(LYRIA, "lofi", seed=3, negative_prompt="drums"))
    assert one.path == f"{PLACE}/lyria-002:predict"
    assert one.json == {"instances": [{"prompt": "lofi", "seed": 3, "negative_prompt": "drums"}], "parameters": {}}


@pytest.mark.parametrize("name", sorted(Vertex().cards()))
def test_every_card_resolves_and_prices(vertex, name):
    resolved = asyncio.run(vertex.resolve(asked(name))).request
    assert vertex.price(resolved).most > 0
    assert vertex.card(name).resolve(resolved) == resolved
    assert (resolved.seed is None) == name.startswith("imagen")  # its seeds take the watermark away


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked(IMAGEN, seed=1), "seed"),
        (asked(IMAGEN, seed=1, add_watermark="on"), "seed"),
        (asked("imagen-4.0-fast-generate-001", image_size="2K"), "image_size"),
        (asked(VEO, ""), "prompt"),
        (asked(VEO, duration=5), "duration"),
        (asked(VEO, last_frame=picture()), "last_frame"),
        (asked(VEO, init=clip(), last_frame=picture()), "last_frame"),
        (asked(VEO, init=picture(), reference=picture()), "reference"),
        (asked(VEO, reference=picture(), duration=6), "duration"),
        (asked(VEO, "", reference=picture()), "prompt"),
        (asked(VEO, init=clip(), duration=4), "duration"),
        (asked(VEO, init=Artifact("image/webp", b"RIFF")), "init"),
        (asked(VEO, resize_mode="PAD"), "resize_mode"),
        (asked(VEO, storage_uri="https://example.org"), "storage_uri"),
        (asked("veo-3.0-generate-001", init=clip()), "init"),
        (asked("veo-3.0-generate-001", last_frame=picture()), "last_frame"),
        (asked("veo-2.0-generate-001", audio="on"), "audio"),
        (asked(BANANA, reference=clip()), "reference"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_sent(vertex, server, request_, field):
    with pytest.raises(InvalidField) as told:
        asyncio.run(vertex.resolve(request_))
    assert told.value.field == field
    assert not server.requests


# what comes


def done(**response):
    return Says(body={"name": OPERATION, "done": True, "response": response})


def begun(server, *answers):
    server.on("POST", f"{PLACE}/{VEO}:predictLongRunning", Says(body={"name": OPERATION}))
    server.on("POST", f"{PLACE}/{VEO}:fetchPredictOperation", *answers)


def test_an_operation_is_asked_for_until_its_clips_are_here(vertex, server):
    half = Says(body={"name": OPERATION, "metadata": {"progressPercent": 50}})
    video = {"bytesBase64Encoded": b64(mp4()), "mimeType": "video/mp4"}
    begun(server, Says(body={"name": OPERATION, "done": False}), half, done(videos=[video, video]))

    async def watched():
        ticket = await vertex.submit((await vertex.resolve(asked(VEO, count=2, seed=1))).request)
        return [event async for event in vertex.watch(ticket)]

    *progress, result = asyncio.run(watched())
    assert 0.5 in [one.fraction for one in progress]
    polls = server.asked("POST", ".*:fetchPredictOperation")
    same(polls[0], shared("vertex poll"), "/vertex")
    assert polls[0].json == {"operationName": OPERATION}
    discovered_valid(polls[0].json, "GoogleCloudAiplatformV1FetchPredictOperationRequest")
    assert len(result.artifacts) == 2
    assert (result.cost, result.cost_from) == (pytest.approx(2 * 8 * 0.4), "list")
    assert read_recipe(result.artifacts[1].data, "it")["index"] == 1


def test_clips_that_were_filtered_are_not_paid_for(vertex, server):
    video = {"bytesBase64Encoded": b64(mp4())}
    begun(server, done(videos=[video], raiMediaFilteredCount=1, raiMediaFilteredReasons=["Not that."]))
    result = asyncio.run(made(vertex, asked(VEO, count=2)))
    assert (len(result.artifacts), result.cost) == (1, pytest.approx(8 * 0.4))
    assert read_recipe(result.artifacts[0].data, "it")["told"] == [{"filtered": "Not that."}]


def test_more_samples_than_four_are_asked_for_again(vertex, server):
    video = {"bytesBase64Encoded": b64(mp4())}
    begun(server, done(videos=[video] * 4), done(videos=[video]))
    result = asyncio.run(made(vertex, asked(VEO, count=5, seed=10)))
    assert len(result.artifacts) == 5
    told = [one.json["parameters"] for one in server.asked("POST", ".*LongRunning")]
    assert [(one["sampleCount"], one["seed"]) for one in told] == [(4, 10), (1, 14)]


def test_a_clip_in_cloud_storage_is_fetched_with_the_token(server, tmp_path):
    vertex = remote(Vertex(), server.url, tmp_path, settings=SETTINGS | {"storage": server.url})
    begun(server, done(videos=[{"gcsUri": "gs://bucket/clips/a b.mp4", "mimeType": "video/mp4"}]))
    server.on("GET", r"/storage/v1/b/bucket/o/clips%2Fa%20b.mp4\?alt=media", Says(body=mp4()))
    asyncio.run(made(vertex, asked(VEO, storage_uri="gs://bucket/clips")))
    assert server.asked("GET")[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_ticket_survives_a_restart_and_another_location(server, vertex, tmp_path):
    begun(server, done(videos=[{"bytesBase64Encoded": b64(mp4())}]))
    ticket = asyncio.run(vertex.submit(asyncio.run(vertex.resolve(asked(VEO))).request))
    again = Ticket(ticket.provider, ticket.request, json.loads(json.dumps(dict(ticket.handle))), ticket.state)
    moved = remote(Vertex(), server.url, tmp_path, settings={"project": "q", "location": "europe-west4"})

    async def watched():
        return [event async for event in moved.watch(again)]

    assert len(asyncio.run(watched())[-1].artifacts) == 1
    assert len(server.asked("POST", ".*LongRunning")) == 1


def test_there_is_no_way_to_stop_it(vertex, server):
    begun(server, Says(body={"name": OPERATION}))

    async def stopped():
        ticket = await vertex.submit((await vertex.resolve(asked(VEO))).request)
        async for _ in vertex.watch(ticket):
            await vertex.cancel(ticket)

    with pytest.raises(Cancelled, match="is charged"):
        asyncio.run(stopped())


POLICY = "The prompt could not be submitted. It violates our usage guidelines. Support codes: 58061214"


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        (done(raiMediaFilteredCount=1, raiMediaFilteredReasons=["Against the rules."]), Refused, "Against the rules"),
        (done(raiMediaFilteredCount=1), Refused, "filtered"),
        (done(), ProviderError, "has no clip"),
        (Says(body={"done": True, "response": []}), ProviderError, "has no clip"),
        (Says(body={"done": True, "error": {"code": 1, "message": "stopped"}}), Cancelled, "stopped"),
        (Says(body={"done": True, "error": {"code": 3, "message": POLICY}}), Refused, "58061214"),
        (Says(body={"done": True, "error": {"code": 13, "message": "internal"}}), ProviderError, "internal"),
        (done(videos=[{"bytesBase64Encoded": "@@"}]), BadAnswer, "base64"),
        (done(videos=[{"bytesBase64Encoded": b64(mp4()[:200])}]), BadAnswer, "kept as"),
        (done(videos=[{"bytesBase64Encoded": b64(png())}]), BadAnswer, "kept as"),
    ],
)
def test_an_operation_without_a_clip_says_why(vertex, server, told, kind, words):
    begun(server, told)
    with pytest.raises(kind, match=words) as found:
        asyncio.run(made(vertex, asked(VEO)))
    assert type(found.value) is kind


def test_an_operation_without_a_name_is_a_bad_answer(vertex, server):
    server.on("POST", ".*", Says(body={"done": False}))
    with pytest.raises(BadAnswer, match="may be charged"):
        asyncio.run(made(vertex, asked(VEO)))


def test_imagen_gives_what_was_not_filtered(vertex, server):
    made_, filtered = {"bytesBase64Encoded": b64(png()), "mimeType": "image/png"}, {"raiFilteredReason": "Rule 7."}
    server.on("POST", ".*:predict", Says(body={"predictions": [made_, filtered, made_]}))
    result = asyncio.run(made(vertex, asked(IMAGEN, count=3)))
    assert (len(result.artifacts), result.cost) == (2, pytest.approx(2 * 0.04))
    server.on("POST", ".*", Says())


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, {"predictions": [{"raiFilteredReason": "Rule 7."}]}, Refused, "Rule 7"),
        (200, {"predictions": []}, ProviderError, "no prediction"),
        (200, {}, ProviderError, "no prediction"),
        (400, {"error": {"code": 400, "message": POLICY, "status": "INVALID_ARGUMENT"}}, Refused, "usage guidelines"),
        (401, {"error": {"code": 401, "message": "old token", "status": "UNAUTHENTICATED"}}, KeyRefused, "old token"),
    ],
)
def test_imagen_refuses(vertex, server, status, body, kind, words):
    server.on("POST", ".*:predict", Says(status, body))
    with pytest.raises(kind, match=words):
        asyncio.run(made(vertex, asked(IMAGEN)))


@pytest.mark.parametrize("name", ["bytesBase64Encoded", "audioContent"])
def test_music_of_lyria_2(vertex, server, name):
    server.on("POST", ".*:predict", Says(body={"predictions": [{name: b64(sound("WAV")), "mimeType": "audio/wav"}]}))
    result = asyncio.run(made(vertex, asked(LYRIA, "lofi", count=2, seed=8)))
    assert [one.mime for one in result.artifacts] == ["audio/wav"] * 2
    assert [one.json["instances"][0]["seed"] for one in server.requests] == [8, 9]
    assert result.cost == pytest.approx(0.12)


def test_a_picture_of_gemini_and_its_cost(vertex, server):
    usage = {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
             "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}  # fmt: skip
    parts = [{"inlineData": {"mimeType": "image/png", "data": b64(png())}}]
    told = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}], "usageMetadata": usage}
    server.on("POST", f"{PLACE}/{BANANA}:generateContent", Says(body=told))
    result = asyncio.run(made(vertex, asked(BANANA)))
    assert (result.cost, result.cost_from) == (pytest.approx((10 * 0.5 + 1120 * 60) / 1e6), "usage")


def test_prices(vertex):
    def price(request):
        return str(vertex.price(asyncio.run(vertex.resolve(request)).request))

    assert price(asked(VEO, resolution="4k", duration=4, count=2)) == "$4.80"
    assert price(asked("veo-3.1-fast-generate-001", resolution="1080p")) == "$0.96"
    assert price(asked(BANANA, image_size="512")) == "$0.045"
    with pytest.raises(PriceUnknown):
        price(asked(BANANA, image_size="4K"))


# where it goes


def where(request, **rest):
    """The URL that a request would go to at Google's own address, and whether the key may go there."""
    asked_at = []

    async def pay(path, **said):
        asked_at.append(path)
        raise ProviderError("enough")

    own = account("vertex", "https://aiplatform.googleapis.com", **rest)
    wire = Wire(own, Vertex().explain)
    wire.pay = pay  # type: ignore[method-assign]
    vertex = Vertex()
    with pytest.raises(ProviderError):
        asyncio.run(vertex.submit(wire, vertex.cards()[request.model], vertex.cards()[request.model].resolve(request)))
    assert own.own
    assert own.belongs(asked_at[0])
    return asked_at[0]


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ({}, "us-central1-aiplatform.googleapis.com"),
        ({"location": "europe-west4"}, "europe-west4-aiplatform.googleapis.com"),
        ({"location": "global"}, "aiplatform.googleapis.com"),
        ({"location": "eu"}, "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_the_host_is_the_locations(location, host):
    place = location.get("location", "us-central1")
    wanted = f"https://{host}/v1beta1/projects/p/locations/{place}/publishers/google/models/{VEO}:predictLongRunning"
    assert where(asked(VEO), settings={"project": "p", **location}) == wanted


@pytest.mark.parametrize("settings", [{"location": "evil.org/"}, {"form": "other"}])
def test_a_setting_that_cannot_be_is_told_and_leaves_nothing(server, tmp_path, settings):
    vertex = remote(Vertex(), server.url, tmp_path / "tickets", settings={"project": "p", **settings})
    with pytest.raises(NotSetUp, match=next(iter(settings))):
        asyncio.run(made(vertex, asked(VEO)))
    assert not [*(tmp_path / "tickets").glob("*")]


def test_a_project_is_needed_at_googles_own_address(tmp_path):
    own = Account(account("vertex", "").spec, account("vertex", "").key, "https://aiplatform.googleapis.com")
    vertex = Remote(Vertex(), lambda: own, tmp_path)
    with pytest.raises(NotSetUp, match=r"GOOGLE_CLOUD_PROJECT or project in .vertex."):
        asyncio.run(made(vertex, asked(VEO)))


def test_without_a_token_it_is_said_where_one_comes_from(server, tmp_path):
    vertex = remote(Vertex(), server.url, tmp_path, key=None)
    with pytest.raises(NotSetUp, match=r"GOOGLE_ACCESS_TOKEN.*gcloud auth print-access-token"):
        asyncio.run(made(vertex, asked(VEO)))


def test_a_gateway_that_speaks_as_the_gemini_api_did(server, tmp_path):
    vertex = remote(Vertex(), server.url, tmp_path, settings={"form": "gemini"})
    server.on("POST", f"/v1beta/models/{VEO}:predictLongRunning", Says(body={"name": "operations/op7"}))
    sample = {"video": {"uri": f"{server.url}/v1beta/files/f:download?alt=media"}}
    response = {"generateVideoResponse": {"generatedSamples": [sample]}}
    pending, ready = ({"name": "operations/op7"}, {"name": "operations/op7", "done": True, "response": response})
    server.on("GET", "/v1beta/operations/op7", Says(body=pending), Says(body=ready))
    server.on("GET", r"/v1beta/files/f:download\?alt=media", Says(body=mp4()))
    assert len(asyncio.run(made(vertex, asked(VEO))).artifacts) == 1


def test_the_project_that_pays_is_told_beside_the_token(server, tmp_path):
    vertex = remote(Vertex(), server.url, tmp_path, settings=SETTINGS | {"quota_project": "payer"})
    assert sent(vertex, server, asked(LYRIA)).headers["x-goog-user-project"] == "payer"


def test_an_operations_samples_may_be_plain():
    told = {"done": True, "response": {"generatedSamples": [{"video": {"encodedVideo": b64(b"x")}}]}}
    assert vertex_predict.operation(told, "https://storage.googleapis.com").state == "succeeded"
