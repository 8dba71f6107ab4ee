"""Google's wires against @copilotkit/aimock, as test_aimock.py runs it: generateContent, predict, operations.

It knows them as the Gemini API had them (v1beta, and api_version v1 of Vertex AI's generateContent); its Interactions
stream text only, whatever is asked.
"""

import asyncio
import base64

import pytest
from google_media import mp4, png
from loopback import Loopback, Says, made, remote
from test_aimock import Aimock, image, pytestmark, video

from triptych.errors import BadAnswer, ProviderError, RateLimited
from triptych.providers.google import Google
from triptych.providers.vertex import Vertex
from triptych.types import Request

__all__ = ["pytestmark"]  # which skips these, too, where it is not here

PRO, BANANA, IMAGEN, VEO = (
    "gemini-3-pro-image",
    "gemini-3.1-flash-image",
    "imagen-4.0-generate-001",
    "veo-3.1-generate-001",
)


def content(prompt, response):
    return {"match": {"userMessage": prompt, "endpoint": "chat"}, "response": response}


@pytest.fixture(scope="module")
def results():
    server = Loopback()
    server.on("GET", "/clip.mp4", Says(body=mp4(), headers={"content-type": "video/mp4"}))
    yield server
    server.close()


@pytest.fixture(scope="module")
def aimock(results, tmp_path_factory):
    inline = base64.b64encode(png()).decode()
    drawn = {"audio": {"b64Json": inline, "contentType": "image/png"}, "content": "Here."}  # its way to inlineData
    fixtures = [
        content("draw a fox", drawn),
        content("write of a fox", {"content": "The fox is red."}),
        content("a rule", {"error": {"message": "slow", "type": "RESOURCE_EXHAUSTED"}, "status": 429}),
        image("one fox", {"image": {"b64Json": inline}}),
        image("two foxes", {"images": [{"b64Json": inline}, {"b64Json": inline}]}),
        image("a cut fox", {"image": {"b64Json": inline[:-3]}}),
        image("no fox", {"images": []}),
        video("a clip", {"video": {"id": "v1", "status": "completed", "url": f"{results.url}/clip.mp4"}}),
        video("a failing clip", {"video": {"id": "v2", "status": "failed"}}),
    ]
    found = Aimock(fixtures, tmp_path_factory.mktemp("aimock"))
    yield found
    found.close()


@pytest.fixture
def google(aimock, tmp_path):
    return remote(Google(), aimock.url, tmp_path, settings={"api_version": "v1beta"})


@pytest.fixture
def gateway(aimock, tmp_path):
    return remote(Vertex(), aimock.url, tmp_path, settings={"form": "gemini"})


def content_request(prompt):
    return Request(PRO, prompt, options={"wire": "generateContent"})


def test_a_picture_by_generate_content(aimock, google):
    result = asyncio.run(made(google, content_request("draw a fox")))
    assert [one.mime for one in result.artifacts] == ["image/png"]
    assert result.recipe["told"] == [{"text": "Here."}]
    assert aimock.journal()[-1][:3] == ("POST", f"/v1beta/models/{PRO}:generateContent", 200)


def test_words_in_place_of_a_picture(google):
    with pytest.raises(ProviderError, match="The fox is red"):
        asyncio.run(made(google, content_request("write of a fox")))


def test_too_much_is_waited_for_and_then_told(aimock, google):
    before = len(aimock.journal())
    with pytest.raises(RateLimited, match="slow"):
        asyncio.run(made(google, content_request("a rule")))
    assert [one[2] for one in aimock.journal()[before:]] == [429] * 4


def test_its_interactions_are_no_json(google):
    with pytest.raises(BadAnswer, match="not whole JSON"):
        asyncio.run(made(google, Request(PRO, "draw a fox")))


def test_a_picture_of_vertex(aimock, tmp_path):
    settings = {"api_version": "v1", "project": "p"}
    vertex = remote(Vertex(), aimock.url, tmp_path, settings=settings)
    assert len(asyncio.run(made(vertex, Request(BANANA, "draw a fox"))).artifacts) == 1
    path = f"/v1/projects/p/locations/us-central1/publishers/google/models/{BANANA}:generateContent"
    assert aimock.journal()[-1][1] == path


@pytest.mark.parametrize(("prompt", "count"), [("one fox", 1), ("two foxes", 2)])
def test_imagen(aimock, gateway, prompt, count):
    result = asyncio.run(made(gateway, Request(IMAGEN, prompt, count=count)))
    assert (len(result.artifacts), result.cost) == (count, pytest.approx(count * 0.04))
    assert aimock.journal()[-1][:3] == ("POST", f"/v1beta/models/{IMAGEN}:predict", 200)


@pytest.mark.parametrize(("prompt", "kind"), [("a cut fox", BadAnswer), ("no fox", ProviderError)])
def test_imagen_without_a_picture(gateway, prompt, kind):
    with pytest.raises(kind):
        asyncio.run(made(gateway, Request(IMAGEN, prompt)))


def test_veo(aimock, gateway, results):
    before = len(aimock.journal())
    result = asyncio.run(made(gateway, Request(VEO, "a clip", duration=4)))
    assert [one.mime for one in result.artifacts] == ["video/mp4"]
    asked = aimock.journal()[before:]
    assert asked[0][1] == f"/v1beta/models/{VEO}:predictLongRunning"
    assert asked[-1][1].startswith("/v1beta/operations/")
    assert "authorization" not in results.requests[-1].headers  # another origin than the gateway's


def test_veo_that_fails(gateway):
    with pytest.raises(ProviderError):
        asyncio.run(made(gateway, Request(VEO, "a failing clip")))
