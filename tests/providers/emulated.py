"""Vendors on this machine that remember: what they took in, where it stands, what it cost, which URLs still hold.

Each answers as its interface does, and its answers are held against the descriptions in ../shared/specs where they are
there. `faults` makes it misbehave: a list a stage (about, submit, poll, cancel, fetch), of which every request of that
stage uses up one. What lies at URLs lies with a stranger, on another port.
"""

import asyncio
import base64
import json
import re
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import urlsplit

import jsonschema
from hosts import FLUX, SCHNELL, fal, hub, replicate
from loopback import KEY, Loopback, Says
from wares import SPECS, clip, picture, sound

from triptych.providers.bfl import BFL
from triptych.providers.compatible import Compatible
from triptych.providers.elevenlabs import ElevenLabs
from triptych.providers.fal import Fal
from triptych.providers.google import Google
from triptych.providers.huggingface import HuggingFace
from triptych.providers.openai import OpenAI
from triptych.providers.replicate import Replicate
from triptych.providers.stability import Stability
from triptych.providers.vertex import Vertex
from triptych.types import Request

FORBIDDEN = "forbidden"  # a prompt with this word is against every vendor's rules


@dataclass
class Work:
    """A request that was taken in."""

    id: str
    prompt: str
    looks: int = 0
    stopped: bool = False
    issued: int = 0  # how many URLs of its result were given out
    expired: int = 0  # how many of those, from the first, hold no longer

    @property
    def stage(self):
        return ("queued", "running", "done")[min(self.looks, 2)]


@dataclass
class Fault:
    """One misbehaviour. taken: whether the request is taken in all the same; change: makes another answer of the right
    one; says: the answer where it is not taken in, by the vendor."""

    change: object = None
    says: object = None

    @property
    def taken(self):
        return self.says is None


@cache
def spec(name):
    path = SPECS / name
    return json.loads(path.read_text()) if path.is_file() else None


def b64(data):
    return base64.b64encode(data).decode()


class Emulated:
    """One vendor. media: what it makes; price: US dollars of one request; balance: what the account holds."""

    name = ""
    model = ""
    options: ClassVar[dict] = {}
    polls = True  # whether a request is looked for after it was sent
    links = True  # whether results lie at URLs
    header, prefix = "authorization", "Bearer "
    spec = ""
    inputs: ClassVar[dict] = {}
    fields: ClassVar[dict] = {}
    endless = False  # whether what it is at never ends
    file = b""  # what it makes in place of a small picture
    first = 0  # looks that are as good as taken; 2: it is done at once

    def __init__(self):
        self.there, self.stranger = Loopback(), Loopback()
        self.works = {}
        self.sent = 0  # requests that cost, as they came in
        self.balance = 100.0
        self.paid = 0.0
        self.faults = {stage: [] for stage in ("about", "submit", "poll", "cancel", "fetch")}
        for method in ("GET", "POST", "PUT", "DELETE"):
            self.there.on(method, ".*", self._hears)
            self.stranger.on(method, ".*", self._gives)

    @classmethod
    def at(cls, url):
        """One whose server runs in another process."""
        found = object.__new__(cls)
        found.there = SimpleNamespace(url=url)
        return found

    def close(self):
        self.there.close()
        self.stranger.close()

    # what the tests ask for

    def vendor(self, account):
        raise NotImplementedError

    def settings(self):
        return {}

    def request(self, prompt="a red fox", **rest):
        return Request(self.model, prompt, inputs=self.inputs, options=self.options, **{**self.fields, **rest})

    @property
    def data(self):
        """The file that it makes."""
        return self.file or picture()

    def expire(self):
        """All URLs so far hold no longer."""
        for work in self.works.values():
            work.expired = work.issued

    def keys_astray(self):
        """Requests at the stranger that carry the key in any way."""
        said = (f"{one.path} {one.headers} ".encode() + one.body for one in self.stranger.requests)
        return [text for text in said if KEY.encode() in text or b64(KEY.encode()).encode() in text]

    # what the vendors fill in

    def stage(self, asked):
        """Which stage a request is of, and of which work."""
        raise NotImplementedError

    def taken(self, work, asked):
        """The answer to a request that was taken in."""
        raise NotImplementedError

    def stands(self, work, asked):
        """The answer to a look at it."""
        raise NotImplementedError

    def about(self, asked):
        return Says(404, {"detail": "no such model"})

    def cancelled(self, work):
        return Says(404, {"detail": "no such way"})

    def error(self, status, words):
        """An answer that is no success, as this vendor writes it."""
        return Says(status, {"detail": words})

    def refusal(self):
        """A request that its rules forbid, before anything is made."""
        return self.error(403, "forbidden by our content policy")

    def broke(self):
        return self.error(402, "no credit left")

    def prompt(self, asked):
        return asked.json.get("prompt", "")

    def fits(self, path, method, body, status="200"):
        """The answer is as the description of the interface says, where that is here."""
        told = spec(self.spec) if self.spec else None
        if told is not None:
            schema = told["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
            jsonschema.validate(body, {**schema, "components": told.get("components", {})})
        return Says(int(status), body)

    def url(self, work):
        """A new URL of the result, with the stranger."""
        work.issued += 1
        return f"{self.stranger.url}/signed/{work.id}/{work.issued}.bin"

    # the server

    def _hears(self, asked):
        if asked.headers.get(self.header) != self.prefix + KEY and not self.open(asked):
            return self.error(401, f"Incorrect API key provided: {asked.headers.get(self.header)}")
        stage, id = self.stage(asked)
        if stage == "submit":
            self.sent += 1
        fault = self.faults[stage].pop(0) if self.faults[stage] else Fault()
        if not fault.taken:
            return fault.says(self) if callable(fault.says) else fault.says
        says = self._right(stage, id, asked)
        return fault.change(says) if fault.change else says

    def open(self, asked):
        """Whether it is answered without the key."""
        return False

    def _right(self, stage, id, asked):
        match stage:
            case "about":
                return self.about(asked)
            case "submit":
                return self._takes(asked)
            case "fetch":
                return self._file(asked)
            case "cancel":
                self.works[id].stopped = True
                return self.cancelled(self.works[id])
        work = self.works.get(id)
        if work is None:
            return self.error(404, "no such job")
        says = self.stands(work, asked)
        work.looks = 0 if self.endless else work.looks + 1
        return says

    def _takes(self, asked):
        if FORBIDDEN in self.prompt(asked):
            return self.refusal()
        if self.balance < 1.0:
            return self.broke()
        work = Work(f"w{len(self.works) + 1}", self.prompt(asked), self.first)
        self.works[work.id] = work
        self.balance -= 0.01
        self.paid += 0.01
        return self.taken(work, asked)

    def _gives(self, asked):
        """The stranger: files at signed URLs, for a while."""
        found = re.fullmatch(r"/signed/(w\d+)/(\d+)\.bin", urlsplit(asked.path).path)
        work = self.works.get(found[1]) if found else None
        if work is None:
            return Says(404, "nothing here")
        if self.faults["fetch"]:
            fault = self.faults["fetch"].pop(0)
            return fault.change(self._file(asked)) if fault.taken else fault.says
        if int(found[2]) <= work.expired:
            return Says(403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        return self._file(asked)

    def _file(self, asked):
        return ranged(asked, self.data)


def ranged(asked, data, etag='"v1"', whole=None):
    """A file as a server that knows ranges gives it."""
    told = {"content-type": "application/octet-stream", "etag": etag}
    found = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
    if found is None:
        return Says(200, data, told)
    start = int(found[1])
    if start >= len(data):
        return Says(416, b"", {"content-range": f"bytes */{len(data)}"})
    return Says(206, data[start:], told | {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"})


# Black Forest Labs


class Bfl(Emulated):
    name, model, header, prefix = "bfl", "flux-2-pro", "x-key", ""
    spec = "bfl_openapi.derived.json"

    def vendor(self, account):
        return BFL()

    def stage(self, asked):
        if asked.method == "POST":
            return "submit", ""
        return "poll", asked.path.rpartition("=")[2]

    def taken(self, work, asked):
        place = f"{self.there.url}/v1/get_result?id={work.id}"
        return self.fits("/v1/flux-2-pro", "post", {"id": work.id, "polling_url": place, "cost": 3.0})

    def stands(self, work, asked):
        told = {"id": work.id, "status": {"queued": "Pending", "running": "Pending", "done": "Ready"}[work.stage]}
        if work.stage == "done":
            told["result"] = {"sample": self.url(work), "prompt": work.prompt, "seed": 7}
        return self.fits("/v1/get_result", "get", told)

    def refusal(self):
        return self.error(400, "Request Moderated")


# OpenAI


class OpenAIPictures(Emulated):
    name, model, polls, links = "openai", "gpt-image-2.6-flare", False, False
    options: ClassVar[dict] = {"quality": "low"}
    spec = "openai_media_openapi.normalised_2026-11.json"
    path = "/images/generations"

    def vendor(self, account):
        return OpenAI()

    def stage(self, asked):
        return "submit", ""

    def taken(self, work, asked):
        usage = {"input_tokens": 10, "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}}
        usage |= {"output_tokens": 1000, "total_tokens": 1010}
        body = {"created": 1, "data": [{"b64_json": b64(self.data)}], "usage": usage}
        return self.fits(self.path, "post", body)

    def error(self, status, words, code=None):
        return Says(status, {"error": {"message": words, "type": "invalid_request_error", "param": None, "code": code}})

    def refusal(self):
        return self.error(400, "rejected by the safety system", "moderation_blocked")

    def broke(self):
        return self.error(429, "You exceeded your current quota", "insufficient_quota")


class OpenAIStream(OpenAIPictures):
    options: ClassVar[dict] = {"quality": "low", "partial_images": 1}

    def taken(self, work, asked):
        part = {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": b64(self.data)}
        usage = {"input_tokens": 10, "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}}
        usage |= {"output_tokens": 1000, "total_tokens": 1010}
        done = {"type": "image_generation.completed", "b64_json": b64(self.data), "usage": usage}
        text = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in (part, done, done))
        return Says(200, text, {"content-type": "text/event-stream"})


class OpenAIClips(OpenAIPictures):
    model, options, polls, links = "sora-2", {}, True, True

    @property
    def data(self):
        return clip()

    def stage(self, asked):
        if asked.method == "POST":
            return "submit", ""
        if asked.path.endswith("/content"):
            return "fetch", asked.path.split("/")[-2]
        return "poll", asked.path.split("/")[-1]

    def _told(self, work):
        status = {"queued": "queued", "running": "in_progress", "done": "completed"}[work.stage]
        told = {"id": work.id, "object": "video", "status": status, "progress": 50, "model": "sora-2", "seconds": "4"}
        told |= {"size": "720x1280", "created_at": 1, "completed_at": None, "expires_at": None}
        return told | {"remixed_from_video_id": None, "error": None, "prompt": work.prompt}

    def taken(self, work, asked):
        return self.fits("/videos", "post", self._told(work))

    def stands(self, work, asked):
        return self.fits("/videos/{video_id}", "get", self._told(work))

    def prompt(self, asked):
        return next(value.decode() for name, _, _, value in asked.parts if name == "prompt")


class CompatibleServer(OpenAIPictures):
    """A server of one's own that gives URLs."""

    name, model, options, spec = "openai-compatible", "openai-compatible:some-model", {}, ""
    links = True

    def vendor(self, account):
        return Compatible()

    def taken(self, work, asked):
        return Says(200, {"created": 1, "data": [{"url": self.url(work)}]})


# Google


class GoogleInteractions(Emulated):
    name, model, header, prefix, links = "google", "gemini-nano-banana-2.1", "x-goog-api-key", "", False
    options: ClassVar[dict] = {"background": "on"}
    spec = "google_interactions_openapi.derived.json"

    def vendor(self, account):
        return Google()

    def prompt(self, asked):
        told = asked.json["input"]
        return told if isinstance(told, str) else json.dumps(told)

    def stage(self, asked):
        if asked.path.endswith("/cancel"):
            return "cancel", asked.path.split("/")[-2]
        if asked.method == "POST":
            return "submit", ""
        return "poll", urlsplit(asked.path).path.split("/")[-1]

    def _told(self, work):
        status = {"queued": "queued", "running": "in_progress", "done": "completed"}[work.stage]
        told = {"id": work.id, "status": "cancelled" if work.stopped else status}
        if told["status"] == "completed":
            content = [{"type": "image", "mime_type": "image/png", "data": b64(self.data)}]
            told["steps"] = [{"type": "model_output", "content": content}]
            told["usage"] = {"output_tokens_by_modality": [{"modality": "image", "tokens": 1120}]}
        return told

    def taken(self, work, asked):
        return self.fits("/v1/interactions", "post", self._told(work))

    def stands(self, work, asked):
        return self.fits("/v1/interactions/{id}", "get", self._told(work))

    def cancelled(self, work):
        return self.fits("/v1/interactions/{id}/cancel", "post", self._told(work))

    def error(self, status, words, code="INVALID_ARGUMENT"):
        return Says(status, {"error": {"code": status, "message": words, "status": code}})

    def refusal(self):
        return self.error(400, "The prompt was blocked by our safety policies.")

    def broke(self):
        return self.error(429, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED")


class GoogleContent(GoogleInteractions):
    options, polls = {"wire": "generateContent"}, False

    def prompt(self, asked):
        return asked.json["contents"][0]["parts"][0]["text"]

    def stage(self, asked):
        return "submit", ""

    def taken(self, work, asked):
        part = {"inlineData": {"mimeType": "image/png", "data": b64(self.data)}}
        usage = {"candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}
        told = {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}], "usageMetadata": usage}
        return Says(200, told)


class VertexClips(GoogleInteractions):
    name, model, options = "vertex", "veo-3.1-generate-001", {}
    header, prefix = "authorization", "Bearer "

    def vendor(self, account):
        return Vertex()

    def settings(self):
        return {"project": "p", "location": "us-central1", "storage": self.there.url}

    @property
    def data(self):
        return clip()

    def prompt(self, asked):
        return asked.json["instances"][0]["prompt"]

    def stage(self, asked):
        if asked.path.endswith(":predictLongRunning"):
            return "submit", ""
        return "poll", asked.json["operationName"].rpartition("/")[2]

    def _name(self, work, asked):
        return f"{asked.path.removeprefix('/v1beta1/').rpartition(':')[0]}/operations/{work.id}"

    def taken(self, work, asked):
        return Says(200, {"name": self._name(work, asked)})

    def stands(self, work, asked):
        told = {"name": asked.json["operationName"], "done": work.stage == "done"}
        if work.stage == "done":
            told["response"] = {"videos": [{"bytesBase64Encoded": b64(self.data), "mimeType": "video/mp4"}]}
        return Says(200, told)


# Stability


class StabilityPictures(Emulated):
    name, model, polls, links = "stability", "stable-image-core", False, False
    spec = "stability_openapi.derived.json"

    def vendor(self, account):
        return Stability()

    def prompt(self, asked):
        return next(value.decode() for name, _, _, value in asked.parts if name == "prompt")

    def stage(self, asked):
        return ("submit", "") if asked.method == "POST" else ("poll", asked.path.rpartition("/")[2])

    def taken(self, work, asked):
        told = {"image": b64(self.data), "finish_reason": "SUCCESS", "seed": 7}
        return self.fits("/v2beta/stable-image/generate/core", "post", told)

    def error(self, status, words, name="bad_request"):
        return Says(status, {"id": "e1", "name": name, "errors": [words]})

    def refusal(self):
        told = self.error(403, "flagged by our content moderation", "content_moderation").body
        return self.fits("/v2beta/stable-image/generate/core", "post", told, "403")


class StabilitySounds(StabilityPictures):
    model, polls = "stable-audio-3", True

    @property
    def data(self):
        return sound()

    def taken(self, work, asked):
        return self.fits("/v2beta/audio/stable-audio/text-to-audio", "post", {"id": work.id}, "202")

    def stands(self, work, asked):
        if work.stage == "done":
            return Says(200, self.data, {"content-type": "audio/mpeg", "finish-reason": "SUCCESS"})
        return self.fits("/v2beta/audio/results/{id}", "get", {"id": work.id, "status": "in-progress"}, "202")


class Eleven(Emulated):
    name, model, header, prefix = "elevenlabs", "music-v2", "xi-api-key", ""
    polls, links = False, False

    def vendor(self, account):
        return ElevenLabs()

    @property
    def data(self):
        return sound()

    def stage(self, asked):
        return "submit", ""

    def taken(self, work, asked):
        return Says(200, self.data, {"content-type": "audio/mpeg", "song-id": work.id})

    def error(self, status, words, code="bad"):
        return Says(status, {"detail": {"status": code, "message": words}})

    def refusal(self):
        return self.error(400, "this prompt may break our rules", "bad_prompt")

    def broke(self):
        return self.error(401, "you have no credits left", "quota_exceeded")


# hosts


class FalQueue(Emulated):
    name, model, prefix = "fal", "fal:fal-ai/flux/dev", "Key "
    spec = "fal_queue_openapi.derived.json"
    base = "/{owner}/{app}/requests/{request_id}"

    def vendor(self, account):
        return Fal(account)

    def settings(self):
        return {"schema": f"{self.there.url}/openapi.json"}

    def open(self, asked):
        return asked.path.startswith("/openapi.json")

    def about(self, asked):
        return Says(200, fal("fal-ai/flux/dev", FLUX))

    def stage(self, asked):
        path = urlsplit(asked.path).path
        found = re.search(r"/requests/(\w+)(/\w+)?$", path)
        if found is None:
            return ("about", "") if asked.method == "GET" else ("submit", "")
        return ("cancel" if found[2] == "/cancel" else "poll"), found[1]

    def taken(self, work, asked):
        place = f"{self.there.url}/fal-ai/flux/requests/{work.id}"
        told = {"request_id": work.id, "status": "IN_QUEUE", "queue_position": 1, "response_url": place}
        told |= {"status_url": f"{place}/status", "cancel_url": f"{place}/cancel"}
        return self.fits("/{owner}/{app}", "post", told)

    def stands(self, work, asked):
        if not urlsplit(asked.path).path.endswith("/status"):
            work.looks -= 1  # the result itself is no look
            return self.fits(self.base, "get", {"images": [{"url": self.url(work), "content_type": "image/png"}]})
        status = {"queued": "IN_QUEUE", "running": "IN_PROGRESS", "done": "COMPLETED"}[work.stage]
        return self.fits(f"{self.base}/status", "get", {"status": status, "logs": None, "metrics": {}})

    def cancelled(self, work):
        return self.fits(f"{self.base}/cancel", "put", {"status": "CANCELLATION_REQUESTED"}, "202")

    def refusal(self):
        wrong = {"loc": ["body", "prompt"], "msg": "flagged", "type": "content_policy_violation"}
        return Says(422, {"detail": [wrong]})

    def broke(self):
        return self.error(403, "User is locked. Reason: Exhausted balance.")


class ReplicateHost(Emulated):
    name, model = "replicate", "replicate:black-forest-labs/flux-schnell"

    def vendor(self, account):
        return Replicate(account)

    def about(self, asked):
        return Says(200, replicate(SCHNELL))

    def prompt(self, asked):
        return asked.json["input"]["prompt"]

    def stage(self, asked):
        if asked.path.endswith("/predictions"):
            return "submit", ""
        found = re.search(r"/v1/predictions/(\w+)(/cancel)?$", asked.path)
        return ("about", "") if found is None else ("cancel" if found[2] else "poll", found[1])

    def _told(self, work):
        place = f"{self.there.url}/v1/predictions/{work.id}"
        status = {"queued": "starting", "running": "processing", "done": "succeeded"}[work.stage]
        told = {"id": work.id, "status": "canceled" if work.stopped else status, "error": None, "output": None}
        told["urls"] = {"get": place, "cancel": f"{place}/cancel"}
        return told | ({"output": [self.url(work)]} if told["status"] == "succeeded" else {})

    def taken(self, work, asked):
        return Says(201, self._told(work))

    def stands(self, work, asked):
        return Says(200, self._told(work))

    def cancelled(self, work):
        return Says(200, self._told(work))

    def refusal(self):
        return Says(422, {"title": "Input validation failed", "detail": "flagged as sensitive", "status": 422})


class HubHost(Emulated):
    name, model, polls, links = "huggingface", "huggingface:o/n", False, False

    def vendor(self, account):
        return HuggingFace(account)

    def settings(self):
        return {"hub": self.there.url}

    def about(self, asked):
        return Says(200, hub("text-to-image", hf_inference={}))

    def prompt(self, asked):
        return asked.json["inputs"]

    def stage(self, asked):
        return ("about", "") if asked.method == "GET" else ("submit", "")

    def taken(self, work, asked):
        return Says(200, self.data, {"content-type": "image/png"})

    def error(self, status, words):
        return Says(status, {"error": words})

    def refusal(self):
        return self.error(400, "flagged as NSFW")


VENDORS = (
    Bfl,
    OpenAIPictures,
    OpenAIStream,
    OpenAIClips,
    CompatibleServer,
    GoogleInteractions,
    GoogleContent,
    VertexClips,
    StabilityPictures,
    StabilitySounds,
    Eleven,
    FalQueue,
    ReplicateHost,
    HubHost,
)


# misbehaviour that is the same everywhere


def refused(status, words="no", headers=None):
    """An answer that is no success; the request is not taken in."""
    return Fault(says=lambda vendor: replace(vendor.error(status, words), headers=headers or {}))


def after(change):
    """Taken in, and then something goes wrong with the answer."""
    return Fault(change=change)


def failing(status, headers=None):
    """Taken in, and answered as if not."""
    return after(lambda says: Says(status, {"detail": "oops", "error": {"message": "oops"}}, headers or {}))


def cut(share=0.5):
    """Half of the body comes."""
    return after(lambda says: replace(says, cut=int(len(says.bytes()) * share)))


def slow(seconds=30.0):
    return after(lambda says: replace(says, slow=seconds))


def mistyped():
    """A page where something else was asked for, as from a proxy that wants a login."""
    page = "<!doctype html><html><head><title>Sign in</title></head><body>Welcome</body></html>"
    return after(lambda says: Says(200, page, {"content-type": "text/html"}))


def shortened():
    """The body ends in the middle, and says that this is all of it."""
    return after(lambda says: replace(says, body=says.bytes()[: len(says.bytes()) // 2]))


def nothing():
    return after(lambda says: Says(200, b""))


def led_to(url, status=302):
    return Fault(says=Says(status, b"", {"location": url}))


def short_base64():
    """Whole JSON, whose base64 is cut."""

    def change(says):
        text = says.bytes().decode()
        return replace(says, body=re.sub(r'([A-Za-z0-9+/]{200,})=*"', lambda found: found[1][:-99] + '"', text))

    return after(change)


@dataclass
class Waits:
    """Waits for nothing, and remembers how long it should have."""

    seconds: list = field(default_factory=list)

    async def __call__(self, seconds, stop):
        self.seconds.append(seconds)
        await asyncio.sleep(0)
