"""fal: any model by its path, its card out of fal's own description, its queue, and what its answers mean."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from hosts import CLIP, FLUX, fal
from loopback import KEY, Loopback, Says, account
from wares import again, captured, clip, fits, picture, png, remote, run, sound, submit, watch

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
from triptych.providers.fal import Fal
from triptych.types import Artifact, Progress, Request

ID = "fal-ai/flux/dev"
NAME = f"fal:{ID}"
SPEC = "fal_queue_openapi.derived.json"
TAKEN = "/{owner}/{app}"


@pytest.fixture
def there():
    server = Loopback()
    yield server
    server.close()


def at(server, folder, **rest):
    settings = {
        "schema": f"{server.url}/openapi.json",
        "upload": f"{server.url}/storage/auth/token?storage_type=fal-cdn-v3",
    }
    settings |= rest.pop("settings", {})
    told = account("fal", server.url, settings=settings, **rest)
    return remote(Fal(lambda: told), server.url, folder, settings=settings, **rest)


@pytest.fixture
def here(there, tmp_path):
    return at(there, tmp_path / "tickets")


def describes(there, properties=FLUX, id=ID, **rest):
    there.on("GET", rf"/openapi\.json\?endpoint_id={id.replace('/', '%2F')}", Says(200, fal(id, properties, **rest)))


def takes(there, *looks, result=None, id=ID, job="/fal-ai/flux/requests/r1", **rest):
    """A queue that takes a request, answers these looks and then gives a result."""
    describes(there, id=id, **rest)
    taken = {"status": "IN_QUEUE", "request_id": "r1", "queue_position": 2, "response_url": f"{there.url}{job}"}
    taken |= {"status_url": f"{there.url}{job}/status", "cancel_url": f"{there.url}{job}/cancel"}
    there.on("POST", f"/{id}", Says(200, taken))
    there.on("GET", f"{job}/status.*", *(looks or (done(),)))
    there.on("GET", job, result or gives(there, f"{there.url}/signed/a.png"))
    there.on("GET", "/signed/.*", Says(200, picture(), {"content-type": "image/png"}))


def done(**more):
    return Says(200, {"status": "COMPLETED", "logs": None, "metrics": {}} | more)


def gives(there, *urls, **more):
    return Says(200, {"images": [{"url": url, "content_type": "image/png"} for url in urls], "seed": 7} | more)


def test_a_picture_comes_out_of_the_queue_and_the_key_stays_at_home(there, here):
    takes(
        there,
        Says(202, {"status": "IN_QUEUE", "queue_position": 1}),
        Says(202, {"status": "IN_PROGRESS", "logs": []}),
        Says(200, {"status": "NEVER_HEARD_OF"}),
        done(),
    )
    ticket = submit(here, Request(NAME, "a cat", seed=7))
    assert ticket.state == "queued"
    *steps, result = watch(here, ticket)
    assert [step.stage for step in steps if isinstance(step, Progress)] == [
        "in the queue, 1 before it", "in_progress", "never_heard_of", "fetched",
    ]  # fmt: skip
    told = read_recipe(result.artifacts[0].data, "made.png")
    assert told["model"]["name"] == NAME
    assert told["told"] == [{"request_id": "r1", "seed": 7}]
    assert (result.cost, result.cost_from) == (pytest.approx(0.025), "list")
    post = there.asked("POST")[0]
    assert post.headers["authorization"] == f"Key {KEY}"
    assert len(there.asked("POST")) == 1
    assert "authorization" not in there.asked("GET", "/signed.*")[0].headers


def test_what_is_completed_at_once_is_asked_for_all_the_same(there, here):
    takes(there)
    there.on("POST", f"/{ID}", Says(200, {"status": "COMPLETED", "request_id": "r1"}))
    assert len(run(here, Request(NAME, "a cat")).artifacts) == 1


def test_the_same_is_sent_as_by_fal_client(there, here, tmp_path):
    takes(there)
    request = Request(NAME, "a cat", seed=7, steps=20, width=512, height=768)
    run(here, request)
    theirs = captured("fal")["get"]["requests"]
    ours = [one for one in there.requests if "openapi" not in one.path and "signed" not in one.path]
    assert [(one.method, one.path) for one in ours] == [(one["method"], one["path"]) for one in theirs]
    assert all(set(one["headers"]) <= set(mine.headers) for one, mine in zip(theirs, ours, strict=True))
    assert ours[0].json == theirs[0]["json"]
    fits(SPEC, TAKEN, ours[0].json)
    low = at(there, tmp_path / "low", settings={"priority": "low", "start_timeout": "30"})
    submit(low, request)
    theirs = captured("fal")["submit low"]["requests"][0]
    assert set(theirs["headers"]) <= set(there.asked("POST")[-1].headers)


def test_the_same_is_sent_as_in_the_shared_captures(there, here):
    path = Path(__file__).parents[2].parent / "shared" / "specs" / "captured_sdk_requests.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    theirs = {one["case"]: one for one in json.loads(path.read_text())}["fal submit"]
    takes(there)
    submit(here, Request(NAME, "a cat", seed=1, width=1024, height=576))
    mine = there.asked("POST")[0]
    assert theirs["path"].removeprefix("/falq") == mine.path
    assert theirs["json"].keys() == mine.json.keys()


def test_a_large_file_is_uploaded_as_by_fal_client_with_a_token_of_its_own(there, here):
    takes(
        there, properties=CLIP, output={"video": {}}, required=("prompt", "image_url"), result=Says(200, video(there))
    )
    there.on("GET", "/signed/.*", Says(200, clip()))
    token = {"token": "t1", "token_type": "Bearer", "base_url": there.url, "expires_at": "2099-01-01T00:00:00+00:00"}
    there.on("POST", "/storage/auth/token.*", Says(200, token))
    there.on("POST", "/files/upload", Says(200, {"access_url": f"{there.url}/files/x.png"}))
    large = Artifact("image/png", picture(2048, 2048) + b"\0" * 300_000)
    submit(here, Request(NAME, "a cat", inputs={"init": large, "last_frame": png(64, 64)}))
    theirs = captured("fal")["upload"]["requests"]
    ours = [one for one in there.asked("POST") if "flux" not in one.path]
    assert [(one.method, one.path) for one in ours] == [(one["method"], one["path"]) for one in theirs]
    assert [set(one["headers"]) <= set(mine.headers) for one, mine in zip(theirs, ours, strict=True)] == [True, True]
    assert (ours[1].headers["authorization"], ours[1].headers["content-type"]) == ("Bearer t1", "image/png")
    assert ours[1].body == large.data
    body = there.asked("POST", f"/{ID}")[0].json
    assert body["image_url"] == f"{there.url}/files/x.png"
    assert body["tail_image_url"].startswith("data:image/png;base64,")


def video(there):
    return {"video": {"url": f"{there.url}/clips/a.mp4", "content_type": "video/mp4"}}


def test_a_clip_and_a_sound(there, here):
    takes(there, properties=CLIP, output={"video": {}}, required=("prompt",), result=Says(200, video(there)))
    there.on("GET", "/clips/a.mp4", Says(200, clip(), {"content-type": "video/mp4"}))
    result = run(here, Request(NAME, "a cat", duration=10))
    assert result.artifacts[0].mime == "video/mp4"
    assert there.asked("POST")[0].json == {
        "prompt": "a cat",
        "duration": "10",
    }
    assert "fps" not in here.card(NAME).fields
    song = {"audio_file": {"url": f"{there.url}/songs/a.mp3", "content_type": "audio/mpeg"}}
    properties = {"prompt": {"type": "string"}}
    takes(
        there, properties=properties, output={"audio_file": {}}, id="a/song", job="/a/song/requests/r1",
        result=Says(200, song),
    )  # fmt: skip
    there.on("GET", "/songs/a.mp3", Says(200, sound(), {"content-type": "audio/mpeg"}))
    assert run(here, Request("fal:a/song", "a song")).artifacts[0].mime == "audio/mpeg"


def test_what_a_model_makes_is_told_by_its_result_or_its_shelf_or_its_name(there, here):
    plain = {"prompt": {"type": "string"}}
    describes(there, plain, "a/shelf", output={"result": {}}, category="text-to-video")
    describes(there, plain, "a/none", output={"result": {}}, category="utility")
    assert here.card("fal:a/shelf").media == "video"
    with pytest.raises(InvalidField, match="fal:a/none#image, fal:a/none#video or fal:a/none#audio"):
        here.card("fal:a/none")
    assert here.card("fal:a/none#audio").media == "audio"


def test_samples_are_dealt_out_as_many_as_the_host_makes_at_once(there, here):
    takes(there, result=gives(there, f"{there.url}/signed/a.png"))
    result = run(here, Request(NAME, "a cat", count=6, seed=7))
    bodies = [one.json for one in there.asked("POST")]
    assert [(one["num_images"], one["seed"]) for one in bodies] == [(4, 7), (2, 11)]
    assert len(result.artifacts) == 2
    assert result.warnings == ("1 of 4 came", "1 of 2 came")


def test_pictures_that_its_filter_blackened_are_left_out(there, here):
    links = [f"{there.url}/signed/a.png", f"{there.url}/signed/b.png"]
    takes(there, result=gives(there, *links, has_nsfw_concepts=[True, False]))
    result = run(here, Request(NAME, "a cat", count=2))
    assert len(result.artifacts) == 1
    assert result.warnings == ("1 of 2 came: its filter holds 1 to be unsafe",)
    assert [one.path for one in there.asked("GET", "/signed.*")] == ["/signed/b.png"]


@pytest.mark.parametrize(
    ("look", "result", "kind", "words"),
    [
        (done(), {"images": [{"url": "https://x/a.png"}], "has_nsfw_concepts": [True]}, Refused, "unsafe"),
        (done(), {"images": []}, ProviderError, "holds no such file"),
        (done(error="it burned", error_type="runner_error"), None, ProviderError, "it burned"),
        (done(error="not that", error_type="content_policy_violation"), None, Refused, "not that"),
        (done(error="NSFW content detected"), None, Refused, "NSFW"),
        (done(), Says(422, {"detail": [{"loc": ["body", "prompt"], "msg": "too long", "type": "value_error"}]}),
         ProviderError, "body.prompt too long"),
        (done(), Says(422, {"detail": [{"msg": "flagged", "type": "content_policy_violation"}]}), Refused, "flagged"),
    ],
)  # fmt: skip
def test_failures_that_come_as_success(there, here, look, result, kind, words):
    takes(there, look, result=result if isinstance(result, Says) else Says(200, result))
    with pytest.raises(kind, match=words):
        run(here, Request(NAME, "a cat"))
    assert len(there.asked("POST")) == 1


@pytest.mark.parametrize(
    ("says", "kind", "words"),
    [
        (Says(401, {"detail": "Cannot access application"}), KeyRefused, "fal.ai/dashboard/keys"),
        (Says(403, {"detail": "User is locked. Reason: Exhausted balance."}), OutOfCredit, "Exhausted"),
        (Says(403, {"detail": "Forbidden"}), KeyRefused, "Forbidden"),
        (Says(422, {"detail": [{"loc": ["body"], "msg": "no", "type": "x"}]}), ProviderError, "body no"),
        (Says(422, {"detail": "no"}, {"x-fal-error-type": "content_policy_violation"}), Refused, "no"),
        (Says(429, {"detail": "slow down"}, {"retry-after": "500"}), RateLimited, "500"),
        (Says(404, "<html>gone</html>", {"content-type": "text/html"}), ProviderError, "no words"),
        (Says(400, "[]"), ProviderError, "400"),
        (Says(500, {"detail": "oops"}), InDoubt, "oops"),
        (Says(503, ""), InDoubt, "503"),
        (Says(200, {"status": "IN_QUEUE"}), BadAnswer, "which request"),
        (Says(200, "not json"), BadAnswer, "not whole JSON"),
    ],
)
def test_what_goes_wrong_when_it_is_sent(there, here, says, kind, words):
    describes(there)
    there.on("POST", f"/{ID}", says)
    with pytest.raises(kind, match=words) as caught:
        run(here, Request(NAME, "a cat"))
    assert KEY not in str(caught.value)
    assert len(there.asked("POST")) == 1


def test_a_paid_request_is_sent_again_after_429_and_in_no_other_case(there, here):
    takes(there)
    first(there, Says(429, {}, {"retry-after": "0"}), taken(there))
    assert run(here, Request(NAME, "a cat")).artifacts
    assert len(there.asked("POST")) == 2


def first(there, *says):
    """Before anything else that is told for it, a request is answered so."""
    there._rules.insert(0, ("POST", re.compile(f"/{ID}"), list(says)))


def taken(there):
    job = f"{there.url}/fal-ai/flux/requests/r1"
    return Says(
        200, {"request_id": "r1", "response_url": job, "status_url": f"{job}/status", "cancel_url": f"{job}/cancel"}
    )


def test_urls_that_an_answer_leaves_out_are_where_the_protocol_puts_them(there, here):
    takes(there)
    first(there, Says(200, {"request_id": "r1"}))
    assert run(here, Request(NAME, "a cat")).artifacts


def test_the_key_does_not_follow_a_url_to_a_stranger(there, here):
    takes(there)
    stranger = {"request_id": "r1", "response_url": "https://evil.example/r", "status_url": "https://evil.example/s"}
    first(there, Says(200, stranger))
    with pytest.raises(BadAnswer, match="the key was not sent"):
        run(here, Request(NAME, "a cat"))


def test_cancelling_asks_the_queue(there, here):
    takes(there, Says(202, {"status": "IN_PROGRESS"}))
    there.on("PUT", ".*/cancel", Says(202, {"status": "CANCELLATION_REQUESTED"}))
    ticket = submit(here, Request(NAME, "a cat"))
    with pytest.raises(Cancelled):
        stopped(here, ticket)
    mine, theirs = there.asked("PUT")[0], captured("fal")["cancel"]["requests"][1]
    assert (mine.method, mine.path) == (theirs["method"], theirs["path"])
    there.on("PUT", ".*/cancel", Says(400, {"status": "ALREADY_COMPLETED"}))


def stopped(provider, ticket):
    async def both():
        await provider.cancel(ticket)
        return [event async for event in provider.watch(ticket)]

    return asyncio.run(both())


def test_after_a_restart_a_ticket_needs_no_description(there, here, tmp_path):
    takes(there, Says(202, {"status": "IN_PROGRESS"}), done())
    ticket = submit(here, Request(NAME, "a cat", seed=7))
    there._rules = [rule for rule in there._rules if "openapi" not in rule[1].pattern]
    other = at(there, tmp_path / "tickets")
    assert watch(other, again(ticket))[-1].cost == pytest.approx(0.025)
    takes(there)
    ticket = submit(here, Request(NAME, "a cat", seed=7))
    there._rules = [rule for rule in there._rules if "openapi" not in rule[1].pattern]
    elsewhere = at(there, tmp_path / "nothing")
    result = watch(elsewhere, again(ticket))[-1]
    assert result.artifacts[0].mime == "image/png"
    assert result.recipe["model"]["name"] == NAME
    assert len(there.asked("GET", "/openapi.*")) == 1


def test_a_result_that_is_gone(there, here):
    takes(there, result=gives(there, f"{there.url}/lost/a.png"))
    there.on("GET", "/lost/.*", Says(404, ""))
    with pytest.raises(Expired):
        run(here, Request(NAME, "a cat"))


def test_names_that_are_none_say_what_to_do(there, here, tmp_path):
    there.on("GET", "/openapi.*", Says(404, {"detail": "not found"}))
    for name in ("fal:no/such", "fal:nothing", "fal:a/b:c0ffee"):
        with pytest.raises(UnknownName, match=r"OWNER/NAME of any model at https://fal.ai/models.*fal:fal-ai/flux/dev"):
            here.card(name)
    with pytest.raises(UnknownName):
        here.card("gpt-image-2")
    there.close()
    with pytest.raises(Unreachable, match="look at the network, proxy and base URL"):
        at(there, tmp_path).card(NAME)


def test_a_description_that_cannot_be_read(there, here):
    there.on("GET", "/openapi.*", Says(200, {"paths": {"/x": {"post": None}}}), Says(200, "<html>"), Says(500, ""))
    for words in ("cannot be read", "not whole JSON", "500"):
        with pytest.raises(ProviderError, match=words):
            here.card(NAME)


def test_the_public_description_is_asked_for_without_the_key(there, tmp_path):
    site = Loopback()
    site.on("GET", "/openapi.*", Says(307, "", {"location": f"{site.url}/other.json"}))
    site.on("GET", "/other.json", Says(200, fal(ID, FLUX)))
    here = at(there, tmp_path, settings={"schema": f"{site.url}/openapi.json"})
    assert here.card(NAME).fields["steps"].default == 28
    assert [one.headers.get("authorization") for one in site.requests] == [None, None]
    site.close()


def test_prices(there, here, tmp_path):
    describes(there)
    describes(there, id="a/b")
    assert here.price(Request(NAME, "a cat", count=2)).most == pytest.approx(0.05)
    assert here.price(Request(NAME, "a cat", width=1536, height=1280)).most == pytest.approx(0.05)
    with pytest.raises(PriceUnknown):
        here.price(Request("fal:a/b", "a cat"))
    with pytest.raises(NotSetUp, match="FAL_KEY"):
        submit(at(there, tmp_path, key=None), Request(NAME, "a cat"))
