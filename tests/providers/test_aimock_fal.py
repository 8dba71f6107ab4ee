"""fal's queue against @copilotkit/aimock, as test_aimock.py runs it.

It asks to be told which of fal's hosts is meant, and answers with fal's own URLs: a loopback server before it says the
one and turns the other back to itself.
"""

import asyncio

import httpx
import pytest
from hosts import FLUX, fal
from loopback import Loopback, Says, account
from test_aimock import Aimock, pytestmark
from wares import picture, remote, run, submit

from triptych.errors import Cancelled, ProviderError
from triptych.providers.fal import Fal
from triptych.types import Request

__all__ = ["pytestmark"]

NAME = "fal:fal-ai/flux/dev"
HOST = "queue.fal.run"


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    server = Loopback()
    made = {"images": [{"url": f"{server.url}/signed/a.png", "content_type": "image/png"}], "seed": 5}
    fixtures = [
        {"match": {"userMessage": "a cat", "endpoint": "fal"}, "response": {"json": made}},
        {"match": {"userMessage": "a dark cat", "endpoint": "fal"}, "response": {"json": {**made, "images": []}}},
    ]
    aimock = Aimock(fixtures, tmp_path_factory.mktemp("aimock"))

    def passed_on(asked):
        headers = {"authorization": asked.headers["authorization"], "x-fal-target-host": HOST}
        headers |= {"content-type": "application/json"}
        reply = httpx.request(asked.method, f"{aimock.url}/fal{asked.path}", headers=headers, content=asked.body)
        return Says(reply.status_code, reply.text.replace(f"https://{HOST}", server.url))

    server.on("GET", "/openapi.*", Says(200, fal("fal-ai/flux/dev", FLUX)))
    server.on("GET", "/signed/.*", Says(200, picture()))
    for method in ("POST", "GET", "PUT"):
        server.on(method, "/fal-ai/.*", passed_on)
    yield server
    aimock.close()
    server.close()


@pytest.fixture
def here(there, tmp_path):
    settings = {"schema": f"{there.url}/openapi.json"}
    told = account("fal", there.url, settings=settings)
    return remote(Fal(lambda: told), there.url, tmp_path, settings=settings)


def test_a_picture_comes_out_of_a_queue_that_others_wrote(here):
    result = run(here, Request(NAME, "a cat", seed=7, width=512, height=512))
    assert result.artifacts[0].mime == "image/png"
    assert result.recipe["told"][0]["seed"] == 5


def test_nothing_made_is_a_failure(here):
    with pytest.raises(ProviderError, match="holds no such file"):
        run(here, Request(NAME, "a dark cat"))


def test_what_is_over_cannot_be_cancelled(here, there):
    async def both(ticket):
        await here.cancel(ticket)
        return [event async for event in here.watch(ticket)]

    with pytest.raises(Cancelled):
        asyncio.run(both(submit(here, Request(NAME, "a cat"))))
    assert there.asked("PUT")
