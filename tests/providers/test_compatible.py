"""Any server that speaks OpenAI's wire: pictures and clips under the names that it has, with a key or without."""

import asyncio
import base64
import io

import pytest
from loopback import KEY, Loopback, Says, account, made, remote
from openai_media import file, mp4
from PIL import Image

from triptych.errors import InvalidField, NotSetUp, PriceUnknown, Refused, UnknownName
from triptych.providers.compatible import Compatible
from triptych.providers.remote import Remote
from triptych.types import Request

MODEL = "openai-compatible:flux/dev:q4"


@pytest.fixture
def server():
    found = Loopback()
    yield found
    found.close()


def provider(server, folder, **rest):
    return remote(Compatible(), f"{server.url}/v1", folder, **rest)


def png():
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(out, "PNG")
    return out.getvalue()


def run(work):
    return asyncio.run(work)


@pytest.mark.parametrize("key", [KEY, None])
def test_pictures_come_by_the_name_that_the_server_has(server, tmp_path, key):
    server.on("GET", "/x.png", Says(body=png()))
    inline = [{"b64_json": base64.b64encode(png()).decode()}, {"url": f"{server.url}/x.png"}]
    server.on(
        "POST",
        "/v1/images/generations",
        Says(body={"data": [*inline, {"url": "data:image/png;base64," + base64.b64encode(png()).decode()}]}),
    )
    options = {"quality": "hd", "response_format": "url"}
    request = Request(MODEL, "a fox", width=768, height=512, count=3, options=options)
    result = run(made(provider(server, tmp_path, key=key, settings={"prices": "free"}), request))
    assert len(result.artifacts) == 3
    asked, fetched = server.requests
    assert asked.json == {
        "model": "flux/dev:q4",
        "prompt": "a fox",
        "n": 3,
        "size": "768x512",
        "quality": "hd",
        "response_format": "url",
    }
    assert asked.headers.get("authorization") == (key and f"Bearer {key}")
    assert "authorization" not in fetched.headers
    assert (result.cost, result.cost_from) == (0.0, "list")


@pytest.mark.parametrize(("size", "sent"), [("auto", {"size": "auto"}), ("unsaid", {})])
def test_a_size_need_not_be_said(server, tmp_path, size, sent):
    server.on("POST", "/v1/images/generations", Says(body={"data": [{"b64_json": base64.b64encode(png()).decode()}]}))
    run(made(provider(server, tmp_path), Request(MODEL, "a fox", options={"size": size})))
    assert server.requests[0].json == {"model": "flux/dev:q4", "prompt": "a fox", "n": 1, **sent}


@pytest.mark.parametrize("url", [None, "/clips/1.mp4"])
def test_clips_come_by_the_videos_wire(server, tmp_path, url):
    at = {} if url is None else {"url": f"{server.url}{url}"}
    server.on("POST", "/v1/videos", Says(body={"id": "v 1", "status": "pending"}))
    done = {"id": "v 1", "status": "succeeded", "progress": "100%", **at}
    server.on(
        "GET", "/v1/videos/v%201", Says(body={"id": "v 1", "status": "processing", "progress": 50}), Says(body=done)
    )
    server.on("GET", "/v1/videos/v%201/content|/clips/1.mp4", Says(body=mp4()))
    request = Request(
        "openai-compatible:video/wan-2.2", "a fox", width=832, height=480, duration=5, inputs={"init": file()}
    )
    result = run(made(provider(server, tmp_path, settings={"prices": "free"}), request))
    assert result.artifacts[0].mime == "video/mp4"
    parts = {name: data for name, *_, data in server.requests[0].parts}
    assert parts.pop("input_reference") == file().data
    assert parts == {"model": b"wan-2.2", "prompt": b"a fox", "size": b"832x480", "seconds": b"5"}
    assert ("authorization" in server.requests[-1].headers) is (
        url is None
    )  # the content is the server's, a URL is not


def test_what_it_costs_nobody_knows(server, tmp_path):
    for settings in ({"prices": "list"}, {"prices": "unknown"}):
        with pytest.raises(PriceUnknown):
            provider(server, tmp_path, settings=settings).price(Request(MODEL, "a fox"))
    assert provider(server, tmp_path, settings={"prices": "free"}).price(Request(MODEL, "a fox")).most == 0


def test_a_refusal_is_one(server, tmp_path):
    said = {"error": {"code": "content_policy_violation", "message": "unsafe"}}
    server.on("POST", "/v1/images/generations", Says(400, said))
    with pytest.raises(Refused, match="unsafe"):
        run(made(provider(server, tmp_path), Request(MODEL, "a fox")))


@pytest.mark.parametrize(
    "name", ["flux", "openai:flux", "openai-compatible", "openai-compatible:", "openai-compatible:video/"]
)
def test_other_names_are_not_its_own(server, tmp_path, name):
    with pytest.raises(UnknownName):
        provider(server, tmp_path).card(name)


def test_without_an_address_nothing_is_sent(tmp_path):
    told = account("openai-compatible", "")
    with pytest.raises(NotSetUp, match="OPENAI_COMPATIBLE_BASE_URL"):
        run(made(Remote(Compatible(), lambda: told, tmp_path), Request(MODEL, "a fox")))


def test_a_first_frame_is_a_picture(server, tmp_path):
    request = Request("openai-compatible:video/wan", "a fox", inputs={"init": file(kind="GIF")})
    with pytest.raises(InvalidField, match="image/gif"):
        run(made(provider(server, tmp_path), request))
    assert server.requests == []
