"""Stability AI: Stable Image, Stable Diffusion 3.5 and Stable Audio, one address a kind of work.

Every request is multipart, also where no file goes along. Most answer with the result; creative upscaling and Stable
Audio 3 answer with an id, whose result lies at another address for a day. JSON is asked for where it is offered: it
tells whether the content filter struck, which else looks like a success. A seed of 0 means any there: ours begin at 1.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from triptych.errors import BadAnswer, InvalidField, ProviderError
from triptych.providers.wire import tables
from triptych.providers.wire.inputs import PICTURES, check_bytes, check_type, size
from triptych.providers.wire.vendor import Answer, Data, Part, Reply, check_medium, decoded, explained, parsed
from triptych.types import Artifact, Card, Price, Request

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = ["Stability"]

NAME: Final = "stability"
JSON: Final = "application/json"
SOUNDS = ("audio/mpeg", "audio/wav")
LARGEST: Mapping[str, int] = {"image": 10 * 2**20, "audio": 50 * 2**20}  # bytes of a request's file
PAUSE: Final = 10.0  # seconds between two looks at a result, which they ask for
RESULTS = ("image", "audio", "result")  # where in their JSON it is
SUFFIXES: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
}
SIDES = ("left", "right", "up", "down")
MASKS = ("mask_start", "mask_end")


@final
class Stability:
    """Their models, one request a sample."""

    name = NAME

    def cards(self) -> Mapping[str, Card]:
        return tables.cards(NAME)

    def card(self, name: str) -> Card | None:
        return self.cards().get(name)

    def batch(self, card: Card) -> int:
        return 1

    def check(self, card: Card, request: Request) -> None:
        for name in card.settings.get("required", ()):
            if name not in request.inputs and name not in request.options:
                kind = "a file" if card.fields[name].kind == "artifact" else "a text"
                raise InvalidField(name, None, kind, f"{card.name} is for that alone.")
        for name, artifact in request.inputs.items():
            _check_file(card, name, artifact)
        if card.media == "audio":
            _check_sound(card, request)
        else:
            _check_picture(card, request)

    def price(self, card: Card, request: Request) -> Price:
        return tables.list_price(card, request)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        path = _path(card, request)
        reply = await wire.pay(f"v2beta/{path}", parts=[*_parts(card, request)], headers={"accept": JSON})
        if "results" not in card.settings:
            return _answer(reply, {})
        id = reply.json().get("id")
        if not isinstance(id, str) or not id:
            raise BadAnswer("its answer has no id, under which the result would lie.")
        accept = "audio/*" if card.media == "audio" else JSON
        return Answer("queued", {"path": f"v2beta/{card.settings['results']}/{id}", "accept": accept}, after=PAUSE)

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        reply = await wire.ask(handle["path"], headers={"accept": handle["accept"]}, takes=_tells)
        if reply.status == 202:
            return Answer("running", handle, status="in-progress", after=reply.after or PAUSE)
        if reply.status == 403:
            return Answer("moderated", handle, status="content_moderation", reason=_words(reply))
        if reply.status == 404:
            return Answer("expired", handle, status="not_found", reason=_words(reply))
        return _answer(reply, handle)

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        return False

    def explain(self, reply: Reply) -> ProviderError:
        spec, refused = tables.spec(NAME), _kind(reply) == "content_moderation"
        return explained(spec.title, reply, _words(reply), refused=refused, key=spec.page)


def _check_file(card: Card, name: str, artifact: Artifact) -> None:
    check_type(name, artifact, SOUNDS if card.media == "audio" else PICTURES)
    check_bytes(name, artifact, LARGEST[card.media])
    if card.media == "audio":
        return
    width, height = size(name, artifact)
    given = f"{width} x {height} pixels"
    least, most = card.settings.get("least_side", 0), card.settings.get("pixels")
    if min(width, height) < least:
        raise InvalidField(name, given, f"a picture of at least {least} pixels a side")
    if most is not None and width * height > most:
        raise InvalidField(name, given, f"a picture of at most {most} pixels in all", "Make it smaller first.")
    widest = card.settings.get("widest")
    if widest is not None and max(width, height) > widest * min(width, height):
        raise InvalidField(name, given, f"a picture of which one side is at most {widest} times the other")


def _check_picture(card: Card, request: Request) -> None:
    if "model" in card.settings and "init" in request.inputs and "aspect_ratio" in request.options:
        raise InvalidField("aspect_ratio", request.options["aspect_ratio"], "none with an init, whose shape is kept,")
    if "left" in card.fields and not any(request.options.get(side) for side in SIDES):
        raise InvalidField("left", 0, f"pixels to add on at least one side ({', '.join(SIDES)})")


def _check_sound(card: Card, request: Request) -> None:
    init, options = request.inputs.get("init"), request.options
    masked = [name for name in MASKS if name in options]
    if init is not None:
        from triptych.media import audio

        sound = audio.decode(init.data, "init")
        seconds, longest = len(sound.samples) / sound.rate, card.settings["longest"]
        if not 6 <= seconds <= longest:
            raise InvalidField("init", f"a sound of {seconds:.1f} s", f"one of 6 to {longest} s")
    if not masked:
        return
    if init is None:
        raise InvalidField(masked[0], options[masked[0]], "none without an init", "Give an init, or leave it out.")
    if options.get("mask_start", 0) >= options.get("mask_end", card.settings["longest"]):
        raise InvalidField("mask_end", options["mask_end"], f"more than mask_start = {options.get('mask_start', 0)}")
    if request.strength != 1.0:
        raise InvalidField("strength", request.strength, "none where a part is made anew", "Leave it out.")
    if request.guidance_scale is not None and not _told_apart(card):
        raise InvalidField("guidance_scale", request.guidance_scale, f"none where {card.name} makes a part anew")


def _told_apart(card: Card) -> bool:
    """Whether making a part of a sound anew takes a model's name and guidance: not so at version 2.5."""
    return "results" in card.settings


def _path(card: Card, request: Request) -> str:
    path = str(card.settings["path"])
    if card.media != "audio":
        return path
    if "init" not in request.inputs:
        return f"{path}/text-to-audio"
    return f"{path}/{'inpaint' if _masked(request) else 'audio-to-audio'}"


def _masked(request: Request) -> bool:
    return any(name in request.options for name in MASKS)


def _parts(card: Card, request: Request) -> Iterator[Part]:
    """What is sent: files first, then what the request says; what it leaves to them is left out."""
    for name, artifact in request.inputs.items():
        part = card.settings["inputs"][name]
        yield Part(part, artifact.data, f"{part}.{SUFFIXES[artifact.mime]}", artifact.mime)
    alone = card.media == "audio" and _masked(request)  # a part is made anew
    said: dict[str, Any] = {
        "prompt": request.prompt or None,
        "negative_prompt": request.negative_prompt or None,
        "model": None if alone and not _told_apart(card) else card.settings.get("model"),
        "mode": "image-to-image" if card.media == "image" and "model" in card.settings and request.inputs else None,
        "duration": request.duration,
        "seed": request.seed,
        "steps": request.steps,
        "cfg_scale": request.guidance_scale,
        "strength": None if alone else request.strength,
        **request.options,
    }
    for name, value in said.items():
        if value is not None:
            yield Part(name, str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))


def _tells(reply: Reply) -> bool:
    """Of a look at a result: that it was refused, or is no longer there, is an answer too."""
    return reply.ok or (reply.status, _kind(reply)) in ((403, "content_moderation"), (404, "not_found"))


def _answer(reply: Reply, handle: Mapping[str, Any]) -> Answer:
    """Of a 200: in JSON, or the bytes with what there is to say in headers."""
    if reply.headers.get("content-type", "").startswith(JSON):
        told = reply.json()
        found = next((told[name] for name in RESULTS if isinstance(told.get(name), str) and told[name]), None)
        finish, seed = str(told.get("finish_reason", "")), told.get("seed")
        assets = () if found is None else (decoded(found),)
        reason = finish or _words(reply)
    else:
        check_medium(reply)
        finish, seed = reply.headers.get("finish-reason", ""), reply.headers.get("seed")
        assets = (Data(reply.body),) if reply.body else ()
        reason = finish or "the answer is empty"
    if finish == "CONTENT_FILTERED":  # what comes along is blurred
        return Answer("moderated", handle, status=finish, reason="the content filter struck (CONTENT_FILTERED)")
    if not assets:
        return Answer("failed", handle, status=finish, reason=reason)
    said = {} if seed is None else {"seed": int(seed) if str(seed).isdigit() else seed}
    return Answer("succeeded", handle, assets=assets, status=finish, told=said)


def _told(reply: Reply) -> Any:
    try:
        return parsed(reply.body)
    except ValueError:
        return None


def _kind(reply: Reply) -> str:
    """Their short name of what is wrong; "" where there is none."""
    told = _told(reply)
    return str(told.get("name", "")) if isinstance(told, dict) else ""


def _words(reply: Reply) -> str:
    told = _told(reply)
    if not isinstance(told, dict):
        return reply.body.decode(errors="replace")
    errors = told.get("errors") or told.get("message") or told.get("name") or json.dumps(told)
    return "; ".join(map(str, errors)) if isinstance(errors, list) else str(errors)
