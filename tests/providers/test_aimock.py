"""Against @copilotkit/aimock 1.43.0, a server that none of ours wrote; where it is not here, these tests are skipped.

It wants node 20.15 or later, and the package (1.43.0, MIT, without dependencies) where TRIPTYCH_AIMOCK or /tmp/aimock
says:

    npm install --prefix /tmp/aimock @copilotkit/aimock@1.43.0
"""

import asyncio
import base64
import io
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from loopback import KEY, Loopback, Says, made, remote
from openai_media import events_of, file, half_white, mp4
from PIL import Image

from triptych.errors import BadAnswer, InDoubt, KeyRefused, ProviderError, RateLimited, Refused
from triptych.providers.openai import OpenAI
from triptych.types import Request

PLACE = Path(os.environ.get("TRIPTYCH_AIMOCK", "/tmp/aimock")) / "node_modules" / "@copilotkit" / "aimock"
START = 20.0  # seconds that it may take

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (PLACE / "dist" / "cli.js").is_file(),
    reason=f"node, or @copilotkit/aimock in {PLACE}, is not here",
)


def png():
    out = io.BytesIO()
    Image.new("RGB", (48, 32), "teal").save(out, "PNG")
    return out.getvalue()


class Aimock:
    """A running one. url: where; journal: what it was asked, as it has read it."""

    def __init__(self, fixtures, folder):
        place = folder / "fixtures.json"
        place.write_text(json.dumps({"fixtures": fixtures}))
        command = ["node", str(PLACE / "dist" / "cli.js"), "-p", "0", "-f", str(place)]
        self._log = (folder / "aimock.log").open("w+")
        environment = {**os.environ, "AIMOCK_API_KEYS": KEY}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, env=environment)
        self.url = self._listening(folder / "aimock.log")

    def _listening(self, log):
        until = time.monotonic() + START
        while time.monotonic() < until:
            found = re.search(r"listening on (http://\S+)", log.read_text())
            if found:
                return found[1]
            time.sleep(0.02)
        self.close()
        pytest.fail(f"aimock did not start: {log.read_text()}")

    def journal(self):
        told = httpx.get(f"{self.url}/__aimock/journal", headers={"authorization": f"Bearer {KEY}"}).json()
        return [(one["method"], one["path"], one["response"]["status"], one["body"]) for one in told]

    def close(self):
        self._process.terminate()
        self._process.wait(timeout=10)
        self._log.close()


def image(prompt, response, **rest):
    return {"match": {"userMessage": prompt, "endpoint": "image"}, "response": response, **rest}


def video(prompt, response, **rest):
    return {"match": {"userMessage": prompt, "endpoint": "video"}, "response": response, **rest}


@pytest.fixture(scope="module")
def results():
    """Where fixtures' result URLs lead."""
    server = Loopback()
    server.on("GET", "/clip.mp4", Says(body=mp4(), headers={"content-type": "video/mp4"}))
    server.on("GET", "/one.png", Says(body=png(), headers={"content-type": "image/png"}))
    yield server
    server.close()


@pytest.fixture(scope="module")
def aimock(results, tmp_path_factory):
    inline, whole = base64.b64encode(png()).decode(), {"image": {"b64Json": base64.b64encode(png()).decode()}}
    unsafe = {"error": {"message": "unsafe", "type": "invalid_request_error", "code": "moderation_blocked"}}
    fixtures = [  # other vendors add theirs below
        image("one fox", whole),
        image("two foxes", {"images": [{"b64Json": inline}, {"b64Json": inline, "revisedPrompt": "two red foxes"}]}),
        image("a fox by URL", {"image": {"url": f"{results.url}/one.png"}}),
        image("a cut fox", {"image": {"b64Json": inline[:-3]}}),
        image("no fox", {"images": []}),
        image("an unsafe fox", {**unsafe, "status": 400}),
        image("too many foxes", {"error": {"message": "slow", "type": "rate_limit_error"}, "status": 429}),
        image("a dropped fox", whole, chaos={"dropRate": 1}),
        image("a malformed fox", whole, chaos={"malformedRate": 1}),
        image("a lost fox", whole, chaos={"disconnectRate": 1}),
        video("a whole clip", {"video": {"id": "vid_1", "status": "completed", "url": f"{results.url}/clip.mp4"}}),
        video("a failing clip", {"video": {"id": "vid_2", "status": "failed"}}),
        video("a clip without content", {"video": {"id": "vid_3", "status": "completed"}}),
    ]
    found = Aimock(fixtures, tmp_path_factory.mktemp("aimock"))
    yield found
    found.close()


@pytest.fixture
def openai(aimock, tmp_path):
    return remote(OpenAI(), f"{aimock.url}/v1", tmp_path)


def run(work):
    return asyncio.run(work)


@pytest.mark.parametrize(("prompt", "count"), [("one fox", 1), ("two foxes", 2), ("a fox by URL", 1)])
@pytest.mark.parametrize("edits", [False, True])
def test_openai_pictures(aimock, openai, prompt, count, edits):
    inputs = {"init": file(), "mask": half_white()} if edits else {}
    result = run(made(openai, Request("gpt-image-2.6-flare", prompt, count=count, inputs=inputs)))
    assert [Image.open(io.BytesIO(one.data)).size for one in result.artifacts] == [(48, 32)] * count
    method, path, status, body = aimock.journal()[-1]
    assert (method, path, status) == ("POST", f"/v1/images/{'edits' if edits else 'generations'}", 200)
    assert (body["model"], body["messages"][0]["content"]) == ("gpt-image-2.6-flare", prompt)
    assert result.cost_from == "list"  # it tells no usage


def test_openai_streams_where_the_server_does_not(openai):
    *_, result = events_of(openai, Request("gpt-image-2", "one fox", options={"partial_images": 2}))
    assert len(result.artifacts) == 1


def test_openai_dall_e(openai):
    result = run(made(openai, Request("dall-e-2", "two foxes", count=2)))
    assert result.recipe["told"] == [{"revised_prompts": ["two red foxes"]}]
    assert result.cost == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("prompt", "kind", "times"),
    [
        ("a cut fox", BadAnswer, 1),
        ("no fox", ProviderError, 1),
        ("an unsafe fox", Refused, 1),
        ("too many foxes", RateLimited, 4),
        ("a dropped fox", InDoubt, 1),
        ("a malformed fox", BadAnswer, 1),
        ("a lost fox", InDoubt, 1),
        ("a fox that it does not know", ProviderError, 1),
    ],
)
def test_openai_without_a_picture(aimock, openai, prompt, kind, times):
    before = len(aimock.journal())
    with pytest.raises(kind) as caught:
        run(made(openai, Request("gpt-image-2", prompt)))
    assert type(caught.value) is kind
    assert len(aimock.journal()) - before == times


def test_openai_wrong_key(aimock, tmp_path):
    with pytest.raises(KeyRefused, match="Invalid API key"):
        run(made(remote(OpenAI(), f"{aimock.url}/v1", tmp_path, key="sk-other"), Request("gpt-image-2", "one fox")))


def test_openai_clips(aimock, openai):
    result = run(made(openai, Request("sora-2", "a whole clip", duration=8, width=1280, height=720)))
    assert [one.mime for one in result.artifacts] == ["video/mp4"]
    assert aimock.journal()[-1][:3] == ("POST", "/v1/videos", 200)  # finished at once, so it is not asked again
    with pytest.raises(ProviderError, match="OpenAI failed"):
        run(made(openai, Request("sora-2", "a failing clip")))
    with pytest.raises(ProviderError, match="no longer keeps"):  # it has no /content
        run(made(openai, Request("sora-2", "a clip without content")))
    assert ("GET", "/v1/videos/vid_3", 200, None) in aimock.journal()
