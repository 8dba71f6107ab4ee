"""Every request of ours, held against the interfaces' descriptions by Prism 5.14.2, a server that none of ours wrote.

A small server between the two notes what Prism finds wrong with a request; what it then answers is made up, and is of
no interest. The descriptions are served as they are, but for two things: where they are behind the facts they are
mended, and at the top of a body they allow nothing that they do not name. Of a path that a description lacks nothing
is held; those are listed. Prism wants node, and lies where TRIPTYCH_PRISM or /tmp/prism says:

    npm install --prefix /tmp/prism @stoplight/prism-cli@5.14.2
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from every_request import requests
from hosts import CLIP, FILE, FLUX, fal
from loopback import KEY, SOON, Asked, Loopback, Says, account
from wares import SPECS

from triptych.errors import ProviderError
from triptych.providers.bfl import BFL
from triptych.providers.elevenlabs import ElevenLabs
from triptych.providers.fal import Fal
from triptych.providers.google import Google
from triptych.providers.openai import OpenAI
from triptych.providers.remote import Remote
from triptych.providers.stability import Stability
from triptych.providers.wire.http import Wire

PLACE = Path(os.environ.get("TRIPTYCH_PRISM", "/tmp/prism")) / "node_modules" / "@stoplight" / "prism-cli"
MAIN = PLACE / "dist" / "index.js"
START = 30.0  # seconds that it may take

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not here"),
    pytest.mark.skipif(not MAIN.is_file(), reason=f"@stoplight/prism-cli is not in {PLACE}"),
    pytest.mark.skipif(not SPECS.is_dir(), reason=f"{SPECS} is not here"),
]


@dataclass
class Found:
    """What Prism finds wrong with a request."""

    asked: Asked
    wrong: list

    @property
    def lacking(self):
        """Whether the description has no such path."""
        return any(one.startswith(" NO_PATH_MATCHED") for one in self.wrong)


class Prism:
    """A running one behind a server that notes what it finds."""

    def __init__(self, spec, folder):
        self.spec = spec
        place, log = folder / spec, folder / "prism.log"
        place.write_text(json.dumps(strict(mended(json.loads((SPECS / spec).read_text())))))
        command = ["node", str(MAIN), "mock", str(place), "--errors", "-h", "127.0.0.1", "-p", "0"]
        self._log = log.open("w+")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self.url = self._listening(log)
        self._client = httpx.Client(timeout=20.0)
        self.between = Loopback()
        self.found = []
        self.between.on("GET", r"/openapi\.json.*", self._described)
        for method in ("GET", "POST", "PUT", "DELETE"):
            self.between.on(method, ".*", self._passed_on)

    def _listening(self, log):
        until = time.monotonic() + START
        while time.monotonic() < until:
            listening = re.search(r"Prism is listening on (http://\S+)", log.read_text())
            if listening:
                return listening[1]
            time.sleep(0.02)
        self._process.kill()
        pytest.fail(f"Prism did not start: {log.read_text()}")

    def _described(self, asked):
        """fal's own description of a model."""
        id = unquote(asked.path.rpartition("=")[2])
        return Says(200, fal(id, *FAL[id]))

    def _passed_on(self, asked):
        reply = self.sends(asked.method, self.path(asked), asked.headers, asked.body)
        self.found.append(Found(asked, wrong(reply)))
        return Says(reply.status_code, reply.content, {"content-type": reply.headers.get("content-type", "")})

    def path(self, asked):
        """As the description has it, which leaves out what of fal's paths follows the app."""
        return re.sub(r"^(/fal-ai/\w+)/[\w-]+$", r"\1", asked.path)

    def sends(self, method, path, headers, body):
        kept = {name: text for name, text in headers.items() if name not in ("host", "content-length", "connection")}
        return self._client.request(method, f"{self.url}{path}", headers=kept, content=body)

    def close(self):
        self._client.close()
        self.between.close()
        self._process.terminate()
        self._process.wait(timeout=10)
        self._log.close()


# of sound effects, as elevenlabs 2.78.0 lists them, without those that have no container
EFFECTS = """
mp3_22050_32 mp3_24000_48 mp3_44100_32 mp3_44100_64 mp3_44100_96 mp3_44100_128 mp3_44100_192 opus_48000_32 opus_48000_64
opus_48000_96 opus_48000_128 opus_48000_192 wav_8000 wav_16000 wav_22050 wav_24000 wav_32000 wav_44100 wav_48000
"""


def mended(told):
    """The description with what it lacks of the facts.

    Sound effects: it repeats the formats of music; elevenlabs 2.78.0 has a list of its own, with WAV and without auto.
    Stable Audio 3: it has the three fields that its source sent; its clients send those of version 2.5 as well.
    """
    paths = told["paths"]
    if "/v1/sound-generation" in paths:
        paths["/v1/sound-generation"]["post"]["parameters"][0]["schema"]["enum"] = EFFECTS.split()
    if "/v2beta/audio/stable-audio/text-to-audio" in paths:
        older, newer = (
            paths[f"/v2beta/audio/{name}/text-to-audio"]["post"]["requestBody"]["content"]["multipart/form-data"]
            for name in ("stable-audio-2", "stable-audio")
        )
        more = {name: older["schema"]["properties"][name] for name in ("seed", "steps", "cfg_scale")}
        newer["schema"]["properties"] |= {**more, "model": {"const": "stable-audio-3"}}
    return told


def strict(told):
    """The description, whose bodies have no field that it does not name."""
    for one in [post["post"] for post in told["paths"].values() if "post" in post]:
        for kind, body in one.get("requestBody", {}).get("content", {}).items():
            schema = body["schema"]
            while "$ref" in schema:
                schema = told["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            if "properties" in schema:
                schema["additionalProperties"] = False
            if kind == "multipart/form-data":  # of which Prism else reads the fields alone that it finds at the top
                body["schema"] = {"anyOf": [body["schema"]]}
    return told


def wrong(reply):
    """What Prism finds wrong with the request, in its words."""
    noted = json.loads(reply.headers.get("sl-violations", "[]"))
    told = [one for one in noted if one["location"][0] != "response"]
    if reply.headers.get("content-type", "").startswith("application/problem+json"):
        problem = reply.json()
        told += problem.get("validation") or [{"message": f"{problem['type'].rpartition('#')[2]}: {problem['detail']}"}]
    return [f"{'.'.join(one.get('location', ()))} {one['message']}" for one in told]


# The interfaces -------------------------------------------------------------------------------------------------------

FAL = {
    "fal-ai/flux/dev": (FLUX,),
    "fal-ai/kling/i2v": (CLIP, {"video": FILE}, "image-to-video", ("prompt", "image_url")),
}


@dataclass(frozen=True)
class Interface:
    """A vendor's description and our side. lacking: our paths that it does not have."""

    spec: str
    vendor: Callable[[Any], Any]
    models: tuple[str, ...] = ()
    lacking: str = ""

    def account(self, prism):
        settings = {"schema": f"{prism.between.url}/openapi.json"} if self.models else {}
        return account(self.vendor(None).name, prism.between.url, settings=settings)

    def remote(self, prism, folder):
        told = self.account(prism)
        return Remote(self.vendor(lambda: told), lambda: told, folder, SOON)


EDITS = "edit/(erase|outpaint|search-and-replace|search-and-recolor|remove-background)"
INTERFACES = {
    "openai": Interface("openai_media_openapi.normalised_2026-11.json", lambda _: OpenAI()),
    "google": Interface(
        "google_interactions_openapi.derived.json", lambda _: Google(), lacking="/v1/models/.*:generateContent"
    ),
    "bfl": Interface("bfl_openapi.derived.json", lambda _: BFL(), lacking="/v1/flux-(dev|pro-1.0-fill|pro-1.0-expand)"),
    "stability": Interface(
        "stability_openapi.derived.json",
        lambda _: Stability(),
        lacking=f"/v2beta/(stable-image/({EDITS}|control/.*|upscale/.*)|audio/.*/(audio-to-audio|inpaint))",
    ),
    "elevenlabs": Interface("elevenlabs_music_openapi.derived.json", lambda _: ElevenLabs()),
    "fal": Interface("fal_queue_openapi.derived.json", Fal, tuple(f"fal:{id}" for id in FAL)),
}
CARDS = [(name, card) for name, one in INTERFACES.items() for card in one.models or one.vendor(None).cards()]


@pytest.fixture(scope="module")
def running():
    """Those that were started, by vendor."""
    found = {}
    yield found
    for one in found.values():
        one.close()


@pytest.fixture
def prism(request, running, tmp_path_factory):
    name = request.param
    if name not in running:
        running[name] = Prism(INTERFACES[name].spec, tmp_path_factory.mktemp(name))
    running[name].found.clear()
    return running[name]


def interface(prism):
    return next(one for one in INTERFACES.values() if one.spec == prism.spec)


async def sent(provider, card, prism):
    """All of a card's requests, where the description has the path of the first."""
    async for request in requests(provider, card):
        with suppress(ProviderError):  # what is made up says nothing
            ticket = await provider.submit(request)
            if "partial_images" in request.options:
                async for _ in provider.watch(ticket):
                    pass
        if prism.found[0].lacking:
            return


@pytest.mark.parametrize(("prism", "model"), CARDS, indirect=["prism"])
def test_every_request_is_as_described(prism, model, tmp_path):
    ours = interface(prism)
    provider = ours.remote(prism, tmp_path)
    asyncio.run(sent(provider, provider.card(model), prism))
    assert not {(one.asked.path, text) for one in prism.found if not one.lacking for text in one.wrong}
    lacking = {one.asked.path for one in prism.found if one.lacking}
    assert all(re.fullmatch(ours.lacking, path) for path in lacking), lacking
    for one in {urlsplit(one.asked.path).path: one for one in prism.found if not one.lacking}.values():
        spoiled(prism, one.asked)


def spoiled(prism, asked):
    """None of it is let through by oversight: each field of the body that was accepted is refused with nonsense in it.

    Of parts, which are all text, a field more is.
    """
    if asked.headers["content-type"] != "application/json":
        body = re.sub(rb'name="prompt"', b'name="prompts"', asked.body)
        told = wrong(prism.sends(asked.method, prism.path(asked), asked.headers, body))
        assert any("'prompts'" in text for text in told), told
        return
    if prism.spec.startswith("fal"):  # of which a body is anything
        return
    for name in asked.json:
        for body in ({**asked.json, name: [None]}, {**asked.json, f"{name}s_": 1}):
            assert wrong(prism.sends(asked.method, asked.path, asked.headers, json.dumps(body).encode())), body


BITES = [
    ("openai", "/images/generations", {"prompt": "a", "n": 99}, "n must be <= 10"),
    ("openai", "/images/generations", {"prompt": "a", "quality": "splendid"}, "quality must be equal to one of"),
    ("openai", "/images/generations", {"n": 1}, "required property 'prompt'"),
    (
        "google",
        "/v1/interactions",
        {"model": "m", "input": "a", "response_format": {"type": "smell"}},
        "response_format",
    ),
    ("google", "/v1/interactions", {"input": "a"}, "required property 'model'"),
    ("bfl", "/v1/flux-2-pro", {"prompt": "a", "output_format": "tiff"}, "output_format must be equal to one of"),
    ("bfl", "/v1/flux-pro-1.1", {"prompt": "a", "width": 100}, "width must be >= 256"),
    ("bfl", "/v1/flux-3-image", {"prompt": "a", "seed": 1}, "found 'seed'"),
    ("elevenlabs", "/v1/music", {"prompt": "a", "music_length_ms": 10}, "music_length_ms must be >= 3000"),
    ("elevenlabs", "/v1/music?output_format=mp9", {"prompt": "a"}, "output_format must be equal to one of"),
    ("fal", "/fal-ai/flux", ["a"], "object"),
]
PARTS = [
    ("openai", "/images/edits", {"prompt": "a", "n": "99"}, "n must be <= 10"),
    ("openai", "/images/edits", {"prompt": "a", "quality": "splendid"}, "quality must be equal to one of"),
    ("openai", "/videos", {"prompt": "a", "seconds": "5"}, "seconds must be equal to one of"),
    (
        "stability",
        "/v2beta/stable-image/generate/core",
        {"prompt": "a", "aspect_ratio": "17:3"},
        "aspect_ratio must be",
    ),
    ("stability", "/v2beta/stable-image/generate/sd3", {"prompt": "a", "cfg_scale": "11"}, "cfg_scale must be <= 10"),
    ("stability", "/v2beta/audio/stable-audio-2/text-to-audio", {"prompt": "a", "seed": "x"}, "seed must be integer"),
]


def keyed(prism):
    spec = interface(prism).account(prism).spec
    return {spec.header: f"{spec.prefix}{KEY}"}


@pytest.mark.parametrize(("prism", "path", "body", "told"), BITES, indirect=["prism"])
def test_it_bites(prism, path, body, told):
    headers = {**keyed(prism), "content-type": "application/json"}
    found = wrong(prism.sends("POST", path, headers, json.dumps(body).encode()))
    assert any(told in text for text in found), found


@pytest.mark.parametrize(("prism", "path", "fields", "told"), PARTS, indirect=["prism"])
def test_it_bites_into_parts(prism, path, fields, told):
    files = {"image": ("a.png", b"png", "image/png")}
    asked = httpx.Request("POST", "http://x", data=fields, files=files if path == "/images/edits" else {"": ("", b"")})
    headers = {**keyed(prism), "content-type": asked.headers["content-type"]}
    found = wrong(prism.sends("POST", path, headers, asked.read()))
    assert any(told in text for text in found), found


@pytest.mark.parametrize("prism", [name for name in INTERFACES if name != "fal"], indirect=True)  # which is without it
def test_it_wants_the_key(prism):
    path = next(path for name, path, *_ in [*BITES, *PARTS] if INTERFACES[name].spec == prism.spec)
    found = wrong(prism.sends("POST", path, {"content-type": "application/json"}, b"{}"))
    assert any("UNAUTHORIZED" in text or "Invalid security scheme" in text for text in found), found


# What is asked about a job that there is: where it stands, to stop it.
LOOKS = [
    ("openai", "poll", {"id": "video_1"}, ["GET /videos/video_1"]),
    (
        "google",
        "poll",
        {"id": "v1_a", "model": "lyria-3.5", "media": "audio"},
        ["GET /v1/interactions/v1_a?stream=false"],
    ),
    ("google", "cancel", {"id": "v1_a", "model": "lyria-3.5", "media": "audio"}, ["POST /v1/interactions/v1_a/cancel"]),
    ("bfl", "poll", {"id": "b1", "polling_url": "/v1/get_result?id=b1"}, ["GET /v1/get_result?id=b1"]),
    ("stability", "poll", {"path": "v2beta/audio/results/a1", "accept": "audio/*"}, ["GET /v2beta/audio/results/a1"]),
    (
        "fal",
        "poll",
        {"status_url": "/fal-ai/flux/requests/r1/status"},
        ["GET /fal-ai/flux/requests/r1/status?logs=false"],
    ),
    ("fal", "cancel", {"cancel_url": "/fal-ai/flux/requests/r1/cancel"}, ["PUT /fal-ai/flux/requests/r1/cancel"]),
]


@pytest.mark.parametrize(("prism", "verb", "handle", "paths"), LOOKS, indirect=["prism"])
def test_looks_are_as_described(prism, verb, handle, paths):
    async def looked():
        told = interface(prism).account(prism)
        vendor = interface(prism).vendor(lambda: told)
        async with Wire(told, vendor.explain, SOON) as wire:
            with suppress(ProviderError, KeyError):
                await getattr(vendor, verb)(wire, handle)

    asyncio.run(looked())
    assert [f"{one.asked.method} {one.asked.path}" for one in prism.found][: len(paths)] == paths
    assert not any(one.wrong for one in prism.found)
