"""Replicate: cards out of a version's description, predictions, uploads, and what its answers mean."""

import asyncio
import json
from pathlib import Path

import pytest
from hosts import SCHNELL, cog, replicate
from loopback import KEY, Loopback, Says, account
from wares import again, captured, clip, picture, png, remote, run, submit, watch

from triptych.errors import (
    BadAnswer,
    Cancelled,
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
    UnknownName,
    Unreachable,
)
from triptych.media import read_recipe
from triptych.providers.replicate import Replicate
from triptych.types import Artifact, Request

ID = "black-forest-labs/flux-schnell"
NAME = f"replicate:{ID}"
VERSION = "c0ffee"


@pytest.fixture
def there():
    server = Loopback()
    yield server
    server.close()


def at(server, folder, **rest):
    told = account("replicate", server.url, **rest)
    return remote(Replicate(lambda: told), server.url, folder, **rest)


@pytest.fixture
def here(there, tmp_path):
    return at(there, tmp_path / "tickets")


def prediction(there, status="starting", **more):
    place = f"{there.url}/v1/predictions/p1"
    told = {"id": "p1", "status": status, "version": "v1", "urls": {"get": place, "cancel": f"{place}/cancel"}}
    return told | {"output": None, "error": None} | more


def takes(there, *looks, path=f"/v1/models/{ID}/predictions", model=None):
    there.on("GET", f"/v1/models/{ID}", Says(200, model or replicate(SCHNELL)))
    there.on("POST", path, Says(201, prediction(there)))
    there.on("GET", "/v1/predictions/p1", *(looks or (done(there),)))
    there.on("GET", "/out/.*", Says(200, picture(), {"content-type": "image/png"}))


def done(there, *names, **more):
    output = [f"{there.url}/out/{name}" for name in names or ("a.png",)]
    return Says(200, prediction(there, "succeeded", **{"output": output, "metrics": {"predict_time": 1.5}} | more))


def test_a_prediction_comes_true_and_the_key_stays_at_home(there, here):
    log = "seed 7\n  0%|          | 0/4\r 50%|#####     | 2/4"
    takes(there, Says(200, prediction(there, "processing", logs=log)), done(there))
    ticket = submit(here, Request(NAME, "a cat", seed=7))
    assert ticket.state == "queued"
    *steps, result = watch(here, ticket)
    assert [(step.fraction, step.stage) for step in steps] == [(0.5, "processing"), (1, "fetched")]
    told = read_recipe(result.artifacts[0].data, "made.png")["told"][0]
    assert told == {"id": "p1", "version": "v1", "metrics": {"predict_time": 1.5}}
    assert (result.cost, result.cost_from) == (0.003, "list")
    assert there.asked("POST")[0].headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in there.asked("GET", "/out/.*")[0].headers


def test_the_card_is_as_the_version_says(there, here):
    takes(there)
    card = here.card(NAME)
    assert list(card.fields)[:3] == ["prompt", "aspect_ratio", "count"]
    assert card.fields["aspect_ratio"].choices == ("1:1", "16:9", "9:16", "3:2")
    assert card.fields["output_format"].choices == ("webp", "jpeg", "png")
    assert (card.fields["init"].kind, card.fields["strength"].default) == ("artifact", 0.8)
    assert (card.fields["guidance_scale"].maximum, card.license) == (10, "https://example.com/license")


def test_the_same_is_sent_as_by_replicates_own_client(there, here, tmp_path):
    takes(there)
    request = Request(NAME, "a cat", seed=7, count=2)
    run(here, request)
    theirs = captured("replicate")
    mine = there.asked("POST")[0]
    assert (mine.method, mine.path, mine.json) == tuple(
        theirs["model"]["requests"][0][k] for k in ("method", "path", "json")
    )
    assert [one.path for one in there.asked("GET", "/v1/predictions.*")] == [theirs["get"]["requests"][0]["path"]]
    assert set(theirs["model"]["requests"][0]["headers"]) <= set(mine.headers)
    waiting = at(there, tmp_path / "w", settings={"prefer": "wait=30", "cancel_after": "5m"})
    submit(waiting, request)
    mine = there.asked("POST")[-1]
    assert set(theirs["model wait"]["requests"][0]["headers"]) <= set(mine.headers)
    assert (mine.headers["prefer"], mine.headers["cancel-after"]) == ("wait=30", "5m")
    there.on("GET", f"/v1/models/{ID}/versions/abc123", Says(200, {"id": "abc123", "openapi_schema": cog(SCHNELL)}))
    there.on("POST", "/v1/predictions", Says(201, prediction(there)))
    submit(here, Request(f"{NAME}:abc123", "a cat", seed=7, count=2))
    mine, version = there.asked("POST")[-1], theirs["version"]["requests"][0]
    assert (mine.path, mine.json) == (version["path"], version["json"])


def test_the_same_is_sent_as_in_the_shared_captures(there, here):
    path = Path(__file__).parents[2].parent / "shared" / "specs" / "captured_sdk_requests.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    cases = [one for one in json.loads(path.read_text()) if one["case"].startswith("replicate")]
    posts = {one["path"].removeprefix("/replicate"): one for one in cases if one["method"] == "POST"}
    large = Artifact("image/png", picture(1024, 1024) + b"\0" * 300_000)
    takes(there)
    there.on("POST", "/v1/files", Says(201, {"urls": {"get": f"{there.url}/v1/files/f1"}}))
    run(here, Request(NAME, "a cat", seed=1, inputs={"init": large}))
    mine, theirs = there.asked("POST", "/v1/files")[0], posts["/v1/files"]
    assert [part[0] for part in mine.parts] == ["content"]
    assert "content" in theirs["multipart"][0]["headers"]
    assert there.asked("POST", ".*predictions")[0].json["input"]["image"] == f"{there.url}/v1/files/f1"
    looked = next(one for one in cases if one["method"] == "GET")["path"].removeprefix("/replicate")
    assert looked.rpartition("/")[0] == there.asked("GET", "/v1/predictions/.*")[0].path.rpartition("/")[0]


def test_a_large_file_is_uploaded_and_a_small_one_goes_along(there, here):
    takes(there)
    there.on("POST", "/v1/files", Says(201, {"urls": {"get": f"{there.url}/v1/files/f1"}}))
    large = Artifact("image/png", picture(1024, 1024) + b"\0" * 300_000)
    submit(here, Request(NAME, "a cat", inputs={"init": large}, strength=0.5))
    name, _, mime, data = there.asked("POST", "/v1/files")[0].parts[0]
    assert (name, mime, data) == ("content", "image/png", large.data)
    theirs = captured("replicate")["file"]["requests"][0]
    assert (theirs["path"], theirs["parts"]) == ("/v1/files", ["content"])
    assert there.asked("POST")[-1].json["input"] | {"seed": 0} == {
        "prompt": "a cat", "image": f"{there.url}/v1/files/f1", "prompt_strength": 0.5, "seed": 0,
    }  # fmt: skip
    submit(here, Request(NAME, "a cat", inputs={"init": png(64, 64)}))
    assert there.asked("POST")[-1].json["input"]["image"].startswith("data:image/png;base64,")
    assert len(there.asked("POST", "/v1/files")) == 1


def test_a_model_that_is_not_official_is_asked_for_by_its_version(there, here):
    takes(there, path="/v1/predictions", model=replicate(SCHNELL, is_official=False))
    run(here, Request(NAME, "a cat"))
    assert there.asked("POST")[0].json["version"].startswith("c846a699")


def test_what_a_model_makes_is_told_by_its_example_or_its_name(there, here):
    plain = {"prompt": {"type": "string"}}
    there.on("GET", "/v1/models/o/clip", Says(200, replicate(plain, "https://replicate.delivery/x/out.mp4")))
    there.on("GET", "/v1/models/o/song", Says(200, replicate(plain, {"audio": "https://replicate.delivery/x/out.wav"})))
    there.on("GET", "/v1/models/o/none", Says(200, replicate(plain)))
    assert here.card("replicate:o/clip").media == "video"
    assert here.card("replicate:o/song").media == "audio"
    with pytest.raises(InvalidField, match="replicate:o/none#image, replicate:o/none#video"):
        here.card("replicate:o/none")
    there.on("POST", "/v1/models/o/none/predictions", Says(201, prediction(there)))
    there.on("GET", "/v1/predictions/p1", done(there, output=f"{there.url}/clips/a"))
    there.on("GET", "/clips/a", Says(200, clip()))
    assert run(here, Request("replicate:o/none#video", "a cat")).artifacts[0].mime == "video/mp4"


@pytest.mark.parametrize(
    "output",
    ["{}/out/a.webp", ["{}/out/a.png"], {"image": "{}/out/a.png", "mask": "{}/m.png"}, [{"url": "{}/out/a"}]],
)
def test_outputs_in_every_form(there, here, output):
    takes(there, done(there, output=json.loads(json.dumps(output).replace("{}", there.url))))
    assert len(run(here, Request(NAME, "a cat")).artifacts) == 1


@pytest.mark.parametrize(
    ("look", "kind", "words"),
    [
        ({"status": "failed", "error": "CUDA out of memory"}, ProviderError, "out of memory"),
        ({"status": "failed", "error": "NSFW content detected. Try another prompt."}, Refused, "NSFW"),
        ({"status": "canceled"}, Cancelled, "Replicate stopped it"),
        ({"status": "aborted"}, ProviderError, "Replicate failed: aborted"),
        ({"status": "succeeded", "output": []}, ProviderError, "no such file"),
        ({"status": "succeeded", "output": None, "data_removed": True}, Expired, "an hour"),
        ({"status": "succeeded", "output": "data:image/png;base64,abc"}, BadAnswer, "not whole base64"),
    ],
)
def test_what_ends_otherwise(there, here, look, kind, words):
    takes(there, Says(200, prediction(there) | look))
    with pytest.raises(kind, match=words):
        run(here, Request(NAME, "a cat"))
    assert len(there.asked("POST")) == 1


@pytest.mark.parametrize(
    ("says", "kind", "words"),
    [
        (
            Says(401, {"title": "Unauthenticated", "detail": "no token", "status": 401}),
            KeyRefused,
            "account/api-tokens",
        ),
        (Says(402, {"title": "Insufficient credit", "detail": "top up"}), OutOfCredit, "top up"),
        (
            Says(422, {"title": "Input validation failed", "detail": "- input: prompt is required"}),
            ProviderError,
            "is req",
        ),
        (Says(422, {"detail": "flagged as sensitive"}), Refused, "sensitive"),
        (Says(429, {"detail": "Request was throttled."}, {"retry-after": "600"}), RateLimited, "600"),
        (Says(500, "<html>"), InDoubt, "500"),
        (Says(201, {"status": "starting"}), BadAnswer, "which prediction"),
        (Says(404, []), ProviderError, "no longer there"),
    ],
)
def test_what_goes_wrong_when_it_is_sent(there, here, says, kind, words):
    there.on("GET", f"/v1/models/{ID}", Says(200, replicate(SCHNELL)))
    there.on("POST", ".*", says)
    with pytest.raises(kind, match=words) as caught:
        run(here, Request(NAME, "a cat"))
    assert KEY not in str(caught.value)
    assert len(there.asked("POST")) == 1


def test_a_held_request_that_is_done_needs_no_look(there, here):
    takes(there, Says(500, ""))
    there._rules = [rule for rule in there._rules if rule[0] != "POST"]
    there.on("POST", ".*", done(there))
    ticket = submit(here, Request(NAME, "a cat"))
    assert ticket.state == "succeeded"
    assert len(watch(here, ticket)[-1].artifacts) == 1
    assert not there.asked("GET", "/v1/predictions.*")


def test_cancelling(there, here):
    takes(there, Says(200, prediction(there, "processing")))
    there.on("POST", "/v1/predictions/p1/cancel", Says(200, prediction(there, "canceled")))
    ticket = submit(here, Request(NAME, "a cat"))

    async def both():
        await here.cancel(ticket)
        return [event async for event in here.watch(ticket)]

    with pytest.raises(Cancelled):
        asyncio.run(both())
    assert there.asked("POST")[-1].path == captured("replicate")["cancel"]["requests"][0]["path"]


def test_after_a_restart_a_ticket_needs_no_description(there, here, tmp_path):
    takes(there, Says(200, prediction(there, "processing")), done(there))
    ticket = submit(here, Request(NAME, "a cat"))
    there._rules = [rule for rule in there._rules if "models" not in rule[1].pattern]
    result = watch(at(there, tmp_path / "nothing"), again(ticket))[-1]
    assert (result.artifacts[0].mime, result.cost) == ("image/png", 0.003)


def test_samples_are_dealt_out(there, here):
    takes(there, done(there, "a.png", "b.png", "c.png", "d.png"), done(there))
    result = run(here, Request(NAME, "a cat", count=5, seed=7))
    assert [(one.json["input"].get("num_outputs", 1), one.json["input"]["seed"]) for one in there.asked("POST")] == [
        (4, 7),
        (1, 11),
    ]
    assert len(result.artifacts) == 5
    assert (result.cost, result.warnings) == (pytest.approx(0.015), ())


def test_what_needs_mending_is_said_before_anything_is_sent(there, here, tmp_path):
    takes(there)
    there.on("GET", "/v1/models/.*", Says(404, {"detail": "not found"}))
    with pytest.raises(UnknownName, match=r"OWNER/NAME of any model at https://replicate.com/explore"):
        here.card("replicate:no/such")
    with pytest.raises(UnknownName):
        here.card("replicate:a/b/c")
    with pytest.raises(NotSetUp, match="REPLICATE_API_TOKEN"):
        at(there, tmp_path, key=None).card(NAME)
    with pytest.raises(NotSetUp, match="wait=60"):
        submit(at(there, tmp_path, settings={"prefer": "wait=99"}), Request(NAME, "a cat"))
    with pytest.raises(InvalidField, match="guidance_scale"):
        submit(here, Request(NAME, "a cat", guidance_scale=11))
    assert not there.asked("POST")
    there.on("GET", "/v1/models/o/n", Says(200, replicate({"prompt": {"type": "string"}}, "https://x/a.png")))
    assert here.price(Request(NAME, "a cat", count=3)).most == pytest.approx(0.009)
    there.close()
    with pytest.raises(Unreachable, match="look at the network"):
        at(there, tmp_path).card(NAME)


def test_an_unlisted_model_has_no_price(there, here):
    there.on("GET", "/v1/models/o/n", Says(200, replicate(SCHNELL, "https://x/a.png")))
    with pytest.raises(PriceUnknown):
        here.price(Request("replicate:o/n", "a cat"))


def test_a_model_without_a_version(there, here):
    there.on("GET", "/v1/models/o/n", Says(200, replicate(SCHNELL) | {"latest_version": None}))
    with pytest.raises(BadAnswer, match="no version"):
        here.card("replicate:o/n")
