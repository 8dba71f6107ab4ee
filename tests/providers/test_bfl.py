"""Black Forest Labs: what is sent, what its answers mean, and what becomes of the files."""

import asyncio
import base64
from dataclasses import replace

import pytest
from loopback import KEY, Loopback, Says
from wares import again, captured, clip, fits, jpeg, picture, png, remote, run, submit, watch

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
)
from triptych.media import read_recipe
from triptych.providers.bfl import BFL
from triptych.types import Artifact, Progress, Request

MP4 = Artifact("video/mp4", clip())
SPEC = "bfl_openapi.derived.json"


@pytest.fixture
def there():
    server = Loopback()
    yield server
    server.close()


@pytest.fixture
def here(there, tmp_path):
    return remote(BFL(), there.url, tmp_path / "tickets")


def tells(there, *polls, model="flux-pro-1.1", cost=4.0, file=None):
    """A vendor that takes a task and answers these, one look after the other."""
    there.on("POST", f"/v1/{model}", Says(200, {"id": "b1", "polling_url": f"{there.url}/eu/look?id=b1", "cost": cost}))
    there.on("GET", r"/eu/look\?id=b1", *polls)
    there.on("GET", "/signed.*", Says(200, picture() if file is None else file, {"content-type": "image/png"}))


def ready(there, **more):
    return Says(200, {"id": "b1", "status": "Ready", "result": {"sample": f"{there.url}/signed?x=1", "seed": 7} | more})


def sent(there, here, model, prompt="a cat", **fields):
    """The body that a request becomes."""
    path = {"bfl-flux-dev": "flux-dev"}.get(model, model)
    there.on("POST", f"/v1/{path}", Says(200, {"id": "b1", "polling_url": f"{there.url}/look"}))
    submit(here, Request(model, prompt, **fields))
    return there.asked("POST")[-1].json


def test_what_is_ready_at_once_is_asked_for_all_the_same(there, here):
    told = {"id": "b1", "polling_url": f"{there.url}/eu/look?id=b1", "status": "Ready"}
    tells(there, ready(there))
    there.on("POST", "/v1/flux-pro-1.1", Says(200, told))
    assert len(run(here, Request("flux-pro-1.1", "a cat")).artifacts) == 1


def test_a_picture_comes_with_its_cost_and_seed_and_the_key_stays_at_home(there, here):
    tells(
        there,
        Says(200, {"id": "b1", "status": "Pending"}),
        Says(200, {"id": "b1", "status": "Reasoning", "progress": 0.25}),
        Says(200, {"id": "b1", "status": "Generating", "progress": 75}),
        ready(there),
    )
    ticket = submit(here, Request("flux-pro-1.1", "a cat", seed=7))
    assert ticket.state == "queued"
    *steps, result = watch(here, ticket)
    assert [(step.fraction, step.stage) for step in steps] == [
        (0, "pending"),
        (0.25, "reasoning"),
        (0.75, "generating"),
        (1, "fetched"),
    ]
    assert all(isinstance(step, Progress) for step in steps)
    assert (result.cost, result.cost_from) == (0.04, "usage")
    made = result.artifacts[0]
    assert made.mime == "image/png"
    told = read_recipe(made.data, "made.png")
    assert (told["request"]["seed"], told["told"]) == (7, [{"seed": 7}])
    post = there.asked("POST")[0]
    assert post.headers["x-key"] == KEY
    assert "authorization" not in post.headers
    assert {one.headers["x-key"] for one in there.asked("GET", "/eu/look.*")} == {KEY}
    assert "x-key" not in there.asked("GET", "/signed.*")[0].headers
    assert len(there.asked("POST")) == 1


@pytest.mark.parametrize(
    ("model", "case", "fields"),
    [
        ("flux-pro-1.1", "flux-pro-1.1", {"width": 512, "height": 768, "inputs": {"reference": png()}}),
        (
            "flux-pro-1.1-ultra",
            "flux-pro-1.1-ultra",
            {
                "inputs": {"reference": png()},
                "options": {"aspect_ratio": "4:3", "raw": "on", "image_prompt_strength": 0.3},
            },
        ),
        ("bfl-flux-dev", "flux-dev", {"width": 512, "height": 768, "steps": 20, "guidance_scale": 2.5}),
        (
            "flux-kontext-pro",
            "flux-kontext-pro",
            {"inputs": {"init": png(), "reference": png()}, "options": {"aspect_ratio": "4:3"}},
        ),
        (
            "flux-pro-1.0-fill",
            "flux-pro-1.0-fill",
            {"inputs": {"init": png(), "mask": png()}, "steps": 20, "guidance_scale": 30},
        ),
        (
            "flux-pro-1.0-expand",
            "flux-pro-1.0-expand",
            {
                "inputs": {"init": png()},
                "steps": 20,
                "guidance_scale": 30,
                "options": {"top": 64, "right": 128, "bottom": 0, "left": 0},
            },
        ),
    ],
)
def test_flux_1_is_asked_for_as_their_own_client_asks(there, here, model, case, fields):
    theirs = captured("bfl")[case]
    upsampled = "on" if theirs["json"]["prompt_upsampling"] else "off"
    options = {"safety_tolerance": 3, "output_format": "png", "prompt_upsampling": upsampled} | fields.pop(
        "options", {}
    )
    body = sent(there, here, model, seed=7, options=options, **fields)
    asked = there.asked("POST")[0]
    assert (asked.method, asked.path) == (theirs["method"], theirs["path"])
    assert set(theirs["headers"]) <= set(asked.headers)
    short = {name: "[base64]" if isinstance(value, str) and len(value) > 200 else value for name, value in body.items()}
    assert short == theirs["json"]


BODIES = {
    "flux-3-image": {
        "options": {"resolution": "2k", "grounding": "off", "aspect_ratio": "16:9", "safety_tolerance": 4}
    },
    "flux-3-video": {"duration": 8, "options": {"resolution": "fhd", "audio": "off", "draft": "on"}},
    "flux-2-pro": {"seed": 3, "width": 1008, "height": 512, "options": {"output_format": "png"}},
    "flux-2-max": {"seed": 3, "options": {"safety_tolerance": 5}},
    "flux-2-flex": {"seed": 3, "steps": 20, "guidance_scale": 2, "options": {"prompt_upsampling": "off"}},
    "flux-2-klein-4b": {},
    "flux-2-klein-9b": {},
    "flux-kontext-pro": {"options": {"prompt_upsampling": "on"}},
    "flux-kontext-max": {"seed": 3, "options": {"aspect_ratio": "21:9"}},
    "flux-pro-1.1": {"options": {"safety_tolerance": 6}},
    "flux-pro-1.1-ultra": {"options": {"raw": "on"}},
}


@pytest.mark.parametrize("model", BODIES)
def test_bodies_are_as_the_description_says(there, here, model):
    body = sent(there, here, model, **BODIES[model])
    assert not any(value is None for value in body.values())
    fits(SPEC, f"/v1/{model}", body)


def test_pictures_go_along_in_order(there, here):
    pictures = [png(64 + 16 * number, 64) for number in range(8)]
    coded = [base64.b64encode(one.data).decode() for one in pictures]
    inputs = {"init": pictures[0], "reference": pictures[1]}
    inputs |= {f"reference_{number}": pictures[number] for number in range(2, 8)}
    several = sent(there, here, "flux-2-pro", inputs=inputs)
    names = ["input_image", *(f"input_image_{number}" for number in range(2, 9))]
    assert [several[name] for name in names] == coded
    listed = sent(there, here, "flux-3-image", inputs=inputs)
    assert listed["images"] == coded
    fits(SPEC, "/v1/flux-2-pro", several)
    fits(SPEC, "/v1/flux-3-image", listed)


FIRST, BETWEEN, LAST = png(256, 256), png(272, 256), png(288, 256)
B64 = {
    name: base64.b64encode(one.data).decode()
    for name, one in (("1", FIRST), ("2", BETWEEN), ("3", LAST), ("clip", MP4))
}


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        ({}, {"mode": "t2v", "duration": 5}),
        ({"duration": 20.0}, {"mode": "t2v", "duration": 20}),
        ({"inputs": {"init": FIRST}}, {"mode": "i2v", "duration": 5, "keyframes": [B64["1"]]}),
        (
            {"inputs": {"last_frame": LAST, "init": FIRST}},
            {"mode": "i2v", "duration": 5, "keyframes": [B64["1"], B64["3"]]},
        ),
        (
            {
                "inputs": {"init": FIRST, "keyframe": BETWEEN, "last_frame": LAST},
                "options": {"keyframe_seconds": "0, 1.5, 5"},
            },
            {"mode": "i2v", "duration": 5, "keyframes": [[0, B64["1"]], [1.5, B64["2"]], [5, B64["3"]]]},
        ),
        ({"inputs": {"init": MP4}}, {"mode": "v2v", "duration": 5, "start_video": B64["clip"]}),
        (
            {"prompt": "", "options": {"draft_cache": "https://x/y"}},
            {"mode": "draft_enhance", "draft_cache": "https://x/y"},
        ),
    ],
)
def test_a_clip_has_four_ways(there, here, fields, wire):
    fields = {"prompt": "a cat", **fields}
    body = sent(there, here, "flux-3-video", **fields)
    assert body == wire | ({"prompt": "a cat"} if fields["prompt"] else {})
    fits(SPEC, "/v1/flux-3-video", body)


def test_a_clip_is_made_and_its_draft_is_told(there, here):
    draft = f"{there.url}/draft"
    tells(there, ready(there, draft_cache=draft), model="flux-3-video", cost=85, file=clip())
    result = run(here, Request("flux-3-video", "a cat", options={"draft": "on"}))
    assert (result.artifacts[0].mime, result.cost) == ("video/mp4", 0.85)
    assert result.recipe["told"][0]["draft_cache"] == draft


def test_a_picture_keeps_its_size_unless_another_is_asked_for(there, here):
    init = {"init": png(1536, 1024)}
    assert "width" not in sent(there, here, "flux-2-pro", inputs=init)
    assert sent(there, here, "flux-2-pro", inputs=init, width=512)["width"] == 512
    assert sent(there, here, "flux-2-pro", inputs=init, options={"keep_size": "off"})["width"] == 1024
    assert sent(there, here, "flux-2-pro")["height"] == 1024


WRONG = [
    ("flux-2-pro", {"width": 1000}, "width"),
    ("flux-2-pro", {"width": 4096, "height": 2048}, "size"),
    (
        "flux-2-pro",
        {"inputs": {"init": png(), **{f"reference_{n}": png() for n in range(2, 9)}, "reference": png()}},
        "pictures",
    ),
    ("flux-2-pro", {"steps": 20}, "steps"),
    ("flux-2-pro", {"options": {"safety_tolerance": 6}}, "safety_tolerance"),
    ("flux-2-pro", {"inputs": {"init": Artifact("image/gif", b"GIF89a")}}, "init"),
    ("flux-2-flex", {"guidance_scale": 1}, "guidance_scale"),
    ("flux-3-image", {"seed": 3}, "seed"),
    ("flux-3-image", {"options": {"output_format": "png"}}, "output_format"),
    ("flux-3-video", {"duration": 4}, "duration"),
    ("flux-3-video", {"duration": 5.5}, "duration"),
    ("flux-3-video", {"duration": 16, "inputs": {"init": MP4}}, "init"),
    ("flux-3-video", {"inputs": {"init": MP4, "last_frame": png()}}, "init"),
    ("flux-3-video", {"inputs": {"last_frame": png()}}, "init"),
    ("flux-3-video", {"inputs": {"init": png(128, 256)}}, "init"),
    ("flux-3-video", {"inputs": {"init": png()}, "options": {"keyframe_seconds": "0, 2"}}, "keyframe_seconds"),
    ("flux-3-video", {"inputs": {"init": png()}, "options": {"keyframe_seconds": "soon"}}, "keyframe_seconds"),
    ("flux-3-video", {"inputs": {"init": png()}, "options": {"draft_cache": "x"}}, "draft_cache"),
    ("flux-3-video", {"options": {"mode": "v2v"}}, "mode"),
    ("flux-3-video", {"prompt": ""}, "prompt"),
    ("flux-pro-1.1", {"prompt": ""}, "prompt"),
    ("flux-pro-1.0-fill", {}, "init"),
    ("flux-pro-1.0-fill", {"inputs": {"init": jpeg()}}, "mask"),
    ("flux-pro-1.0-fill", {"inputs": {"init": jpeg(), "mask": png(64, 64)}}, "mask"),
    ("flux-pro-1.0-expand", {"inputs": {"init": png()}}, "top"),
    ("flux-pro-1.0-expand", {"inputs": {"init": png(128, 256)}, "options": {"top": 1}}, "init"),
    ("flux-kontext-pro", {"inputs": {"init": Artifact("image/png", bytes(20971521))}}, "init"),
]


@pytest.mark.parametrize(("model", "fields", "field"), WRONG)
def test_what_does_not_fit_is_refused_before_anything_is_sent(there, here, model, fields, field):
    with pytest.raises(InvalidField) as caught:
        submit(here, Request(model, **{"prompt": "a cat", **fields}))
    assert caught.value.field == field
    assert there.requests == []


def test_prices_are_those_of_the_list(here):
    def price(model, prompt="a cat", **fields):
        return here.price(Request(model, prompt, **fields))

    assert price("flux-pro-1.1", count=3).most == pytest.approx(0.12)
    assert price("flux-2-pro").most == pytest.approx(0.03)
    assert price("flux-2-pro", width=1040).most == pytest.approx(0.03 + 0.015)
    assert price("flux-2-pro", width=512, height=512).most == pytest.approx(0.03)
    assert price("flux-2-pro", inputs={"init": png(2048, 1536)}).least == pytest.approx(0.03 + 2 * 0.015)
    assert price("flux-3-video", duration=10).most == pytest.approx(1.7)
    assert price("flux-3-video", options={"resolution": "fhd"}).most == pytest.approx(1.45)
    assert price("flux-3-video", inputs={"init": MP4}).most == pytest.approx(2.05)
    assert not price("flux-3-video", options={"draft": "on"}).exact
    with pytest.raises(PriceUnknown):
        price("flux-3-video", "", options={"draft_cache": "https://x/y"})
    for name in here.cards():
        if "init" in here.card(name).fields or name.startswith("flux-pro-1.1"):
            inputs = {"init": png()} if name.startswith("flux-pro-1.0") else {}
            options = {"top": 8} if name.endswith("expand") else {}
            assert price(name, inputs=inputs, options=options).most > 0


@pytest.mark.parametrize("status", [200, 404, 503])
@pytest.mark.parametrize(
    ("word", "details", "error", "words"),
    [
        ("Request Moderated", {"Moderation Reasons": ["violence", "gore"]}, Refused, "violence, gore"),
        ("Content Moderated", None, Refused, "Content Moderated"),
        ("Error", {"error": "a node died"}, ProviderError, "a node died"),
        ("Task not found", None, ProviderError, "Task not found"),
    ],
)
def test_a_task_that_failed_is_known_by_its_word_whatever_the_http_status(
    there, here, status, word, details, error, words
):
    tells(there, Says(status, {"id": "b1", "status": word, "details": details}))
    with pytest.raises(error, match=words) as caught:
        run(here, Request("flux-pro-1.1", "a cat"))
    assert type(caught.value) is error
    assert len(there.asked("GET", "/eu.*")) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [({"status": "Ready", "result": None}, ProviderError), ({"status": "Ready", "details": "filtered"}, Refused)],
)
def test_a_success_without_a_picture_is_none(there, here, answer, error):
    tells(there, Says(200, {"id": "b1", **answer}))
    with pytest.raises(error) as caught:
        run(here, Request("flux-pro-1.1", "a cat"))
    assert type(caught.value) is error


def test_words_that_nobody_knows_yet_mean_that_it_is_still_at_it(there, here):
    tells(there, Says(200, {"id": "b1", "status": "Dreaming"}), Says(503, "busy"), ready(there))
    assert len(run(here, Request("flux-pro-1.1", "a cat")).artifacts) == 1


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (402, {"detail": "Insufficient credits"}, OutOfCredit, "Insufficient credits"),
        (401, {"detail": "Not authenticated"}, KeyRefused, "Not authenticated"),
        (403, {"detail": "Not authenticated - invalid key"}, KeyRefused, "invalid key"),
        (404, "<html>gone</html>", ProviderError, "gone"),
        (
            422,
            {"detail": [{"loc": ["body", "width"], "msg": "too small", "type": "x"}]},
            ProviderError,
            "width: too small",
        ),
        (422, {"detail": ["odd", {"no": "msg"}]}, ProviderError, "odd; "),
        (422, [], ProviderError, "422"),
        (400, {"detail": "Request Moderated"}, Refused, "Moderated"),
        (429, {"detail": "too many active tasks"}, RateLimited, "active tasks"),
        (500, {"detail": "oops"}, InDoubt, "oops"),
        (503, "", InDoubt, "503"),
        (200, {"id": "b1"}, BadAnswer, "where to look"),
        (200, "not JSON", BadAnswer, "whole JSON"),
    ],
)
def test_what_is_no_task_says_why(there, here, status, body, error, words):
    there.on("POST", "/v1/flux-pro-1.1", Says(status, body))
    with pytest.raises(error, match=words) as caught:
        submit(here, Request("flux-pro-1.1", "a cat"))
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert len(there.asked("POST")) == (3 if error is RateLimited else 1)


def test_a_ticket_outlives_the_process(there, here, tmp_path):
    tells(there, Says(200, {"id": "b1", "status": "Pending"}), ready(there))
    ticket = again(submit(here, Request("flux-pro-1.1", "a cat", count=2, seed=5)))
    there.close()  # of the first process nothing is left but the folder
    assert [one["handle"]["id"] for one in ticket.handle["leaves"]] == ["b1", "b1"]
    other = Loopback()
    tells(other, Says(200, {"id": "b1", "status": "Pending"}), ready(other))
    try:
        handle = {"id": "b1", "polling_url": f"{other.url}/eu/look?id=b1"}
        moved = {**ticket.handle, "leaves": [{**leaf, "handle": handle} for leaf in ticket.handle["leaves"]]}
        fresh = remote(BFL(), other.url, tmp_path / "elsewhere")
        *_, result = watch(fresh, replace(ticket, handle=moved))
        assert len(result.artifacts) == 2
        assert other.asked("POST") == []
        assert [one["seed"] for one in (asked.json for asked in there.asked("POST"))] == [5, 6]
    finally:
        other.close()


def test_a_result_that_was_fetched_is_not_fetched_again(there, here, tmp_path):
    tells(there, ready(there))
    ticket = submit(here, Request("flux-pro-1.1", "a cat"))
    watch(here, ticket)
    *_, result = watch(remote(BFL(), there.url, tmp_path / "tickets"), again(ticket))
    assert result.cost == 0.04
    assert len(there.asked("GET", "/signed.*")) == 1
    assert len(there.asked("POST")) == 1


def test_an_expired_url_is_asked_for_anew_and_then_given_up(there, here):
    there.on("GET", "/signed.*", Says(403, "expired"))
    tells(there, ready(there))
    with pytest.raises(Expired):
        run(here, Request("flux-pro-1.1", "a cat"))
    assert len(there.asked("GET", "/eu.*")) == 2
    assert len(there.asked("POST")) == 1


def test_a_polling_url_of_a_stranger_is_not_followed(there, here):
    there.on("POST", ".*", Says(200, {"id": "b1", "polling_url": "https://bfl.ai.example.org/look"}))
    ticket = submit(here, Request("flux-pro-1.1", "a cat"))
    with pytest.raises(BadAnswer, match=r"bfl\.ai\.example\.org"):
        watch(here, ticket)
    assert len(there.requests) == 1


def test_it_cannot_be_stopped_there_and_says_so(there, here):
    tells(there, Says(200, {"id": "b1", "status": "Pending"}))

    async def stopped():
        ticket = await here.submit((await here.resolve(Request("flux-pro-1.1", "a cat"))).request)
        async for _ in here.watch(ticket):
            await here.cancel(ticket)

    with pytest.raises(Cancelled, match="no way to stop it"):
        asyncio.run(stopped())


class _Asked:
    """A wire that only remembers where it was sent."""

    def __init__(self, account):
        self.account, self.paths = account, []

    async def pay(self, path, **said):
        from triptych.providers.wire.vendor import Reply

        self.paths.append(path)
        return Reply(200, {}, b'{"id": "b1", "polling_url": "https://api.us2.bfl.ai/v1/get_result?id=b1"}')


@pytest.mark.parametrize(
    ("region", "base", "host"),
    [
        (None, "https://api.bfl.ai", "https://api.bfl.ai/v1/flux-pro-1.1"),
        ("eu", "https://api.bfl.ai", "https://api.eu.bfl.ai/v1/flux-pro-1.1"),
        ("us", "https://api.bfl.ai", "https://api.us.bfl.ai/v1/flux-pro-1.1"),
        ("mars", "https://api.bfl.ai", "eu, us"),
        ("eu", "https://gateway.example.org", "take one of them away"),
    ],
)
def test_a_region_is_another_address(region, base, host, here):
    from loopback import account

    vendor = BFL()
    card = vendor.card("flux-pro-1.1")
    wire = _Asked(account("bfl", base, settings={} if region is None else {"region": region}))
    request = card.resolve(Request("flux-pro-1.1", "a cat"))
    if not host.startswith("https"):
        with pytest.raises(NotSetUp, match=host):
            asyncio.run(vendor.submit(wire, card, request))
        return
    asyncio.run(vendor.submit(wire, card, request))
    assert wire.paths == [host]
    assert wire.account.belongs("https://api.us2.bfl.ai/v1/get_result?id=b1")
