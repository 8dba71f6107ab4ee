"""Black Forest Labs: FLUX.1, FLUX.2 and FLUX.3. A request is a task; where it stands, and its result, lie at URLs.

Polling goes to the URL that the answer names, as it is, which may be another machine of theirs; the result's URL is
signed, lives for ten minutes (a clip's for two hours) and is fetched without the key.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, final

from triptych.errors import BadAnswer, InvalidField, NotSetUp, ProviderError
from triptych.providers.wire import tables
from triptych.providers.wire.inputs import PICTURES, check_bytes, check_type, named, size
from triptych.providers.wire.vendor import Answer, Link, Reply, complaint, encoded, explained, parsed, state_of
from triptych.types import Artifact, Card, Price, Request, TicketState

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = ["BFL"]

NAME: Final = "bfl"
REGIONS: Mapping[str, str] = {
    "global": "https://api.bfl.ai",
    "eu": "https://api.eu.bfl.ai",
    "us": "https://api.us.bfl.ai",
}
STATES: Mapping[str, TicketState] = {
    "Pending": "queued",
    "Reasoning": "running",
    "Generating": "running",
    "Ready": "succeeded",
    "Request Moderated": "moderated",
    "Content Moderated": "moderated",
    "Error": "failed",
    "Task not found": "failed",
}
WORDS: Mapping[str, str] = {"guidance_scale": "guidance", "audio": "generate_audio"}  # where theirs are others
SWITCHES = ("prompt_upsampling", "grounding", "raw", "draft", "audio")
OURS = ("keep_size", "keyframe_seconds", "mode")  # options that are not sent as they are
CREDIT: Final = 0.01  # US dollars
STILL: Final = 1024  # pixels a side of FLUX.2, which stands for the size of the init


@final
class BFL:
    """Their models, one task a sample."""

    name = NAME

    def cards(self) -> Mapping[str, Card]:
        return tables.cards(NAME)

    def card(self, name: str) -> Card | None:
        return self.cards().get(name)

    def batch(self, card: Card) -> int:
        return 1

    def check(self, card: Card, request: Request) -> None:
        for name, artifact in request.inputs.items():
            _check_file(card, name, artifact)
        if card.media == "video":
            _check_clip(card, request)
        else:
            _check_picture(card, request)

    def price(self, card: Card, request: Request) -> Price:
        """By the list; of a picture that keeps its size, by that size."""
        if card.media == "video":
            return tables.list_price(card, replace(request, options={**request.options, "mode": _mode(request)}))
        if _keeps_size(card, request):
            width, height = size("init", request.inputs["init"])
            return tables.list_price(card, replace(request, width=width, height=height))
        return tables.list_price(card, request)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        reply = await wire.pay(f"{_base(wire)}/v1/{card.settings['path']}", json=_body(card, request))
        told = reply.json()
        url = told.get("polling_url")
        if not isinstance(url, str) or not url:
            raise BadAnswer("its answer does not say where to look for the result.")
        handle = {"id": str(told.get("id", "")), "polling_url": url}
        state = state_of(NAME, str(told.get("status", "Pending")), STATES)
        begun: TicketState = "running" if state == "succeeded" else state  # the result is told to a look alone
        return Answer(begun, handle, cost=_dollars(told))

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        reply = await wire.ask(handle["polling_url"], takes=lambda reply: reply.ok or _status(reply) in STATES)
        told = reply.json()
        word = str(told.get("status", ""))
        state, found = state_of(NAME, word, STATES), told.get("result")
        result = found if isinstance(found, dict) else {}
        sample, reason = result.get("sample"), _reason(told, word)
        if state == "succeeded" and not (isinstance(sample, str) and sample):
            return Answer("moderated" if told.get("details") else "failed", handle, status=word, reason=reason)
        return Answer(
            state,
            handle,
            assets=(Link(str(sample)),) if state == "succeeded" else (),
            fraction=_fraction(told.get("progress")),
            status=word,
            reason="" if state in ("queued", "running", "succeeded") else reason,
            after=reply.after,
            told={name: result[name] for name in ("seed", "prompt", "draft_cache") if result.get(name) is not None},
        )

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        return False

    def explain(self, reply: Reply) -> ProviderError:
        words = _words(reply)
        refused = reply.status < 500 and "moderated" in words.lower()
        spec = tables.spec(NAME)
        return explained(spec.title, reply, words, refused=refused, key=spec.page)


def _check_file(card: Card, name: str, artifact: Artifact) -> None:
    if card.media == "video" and name == "init" and artifact.mime.startswith("video/"):
        check_type(name, artifact, ("video/mp4",))
        check_bytes(name, artifact, card.settings["largest_clip"])
        return
    check_type(name, artifact, PICTURES)
    if "largest" in card.settings:
        check_bytes(name, artifact, card.settings["largest"])
    least = card.settings.get("least_side", 0)
    if least and min(size(name, artifact)) < least:
        given = "{} x {} pixels".format(*size(name, artifact))
        raise InvalidField(name, given, f"a picture of at least {least} x {least} pixels")


def _check_picture(card: Card, request: Request) -> None:
    path, given = card.settings["path"], request.inputs
    _check_number(card, [*_pictures(request)])
    if not request.prompt.strip() and "reference" in card.fields and "reference" not in given:
        raise InvalidField("prompt", request.prompt, "a text, or a reference in its place,")
    most = card.settings.get("pixels")
    if most and not _keeps_size(card, request) and (request.width or 0) * (request.height or 0) > most:
        told = f"{request.width} x {request.height}"
        raise InvalidField("size", told, f"at most {most} pixels in all", "2048 x 2048 is the largest square.")
    if path in ("flux-pro-1.0-fill", "flux-pro-1.0-expand") and "init" not in given:
        raise InvalidField("init", None, "a picture to change")
    if path == "flux-pro-1.0-fill":
        if "mask" not in given and given["init"].mime == "image/jpeg":
            raise InvalidField("mask", None, "a mask, or an init that is transparent where it may change,")
        if "mask" in given and size("mask", given["mask"]) != size("init", given["init"]):
            shown = "{} x {} pixels".format(*size("mask", given["mask"]))
            raise InvalidField("mask", shown, "one as large as the init")
    if path == "flux-pro-1.0-expand" and not any(request.options.get(side) for side in SIDES):
        raise InvalidField("top", 0, f"pixels to add on at least one side ({', '.join(SIDES)})")


SIDES = ("top", "bottom", "left", "right")


def _check_clip(card: Card, request: Request) -> None:
    """Its four ways do not mix: words, frames, a clip to go on from, a draft."""
    frames, options = _frames(request), request.options
    _check_number(card, frames)
    mode = _mode(request)
    if options.get("mode", mode) != mode:
        raise InvalidField("mode", options["mode"], f"{mode}, which follows from what is given", "Leave it out.")
    if mode == "draft_enhance":
        if request.inputs or "draft" in options:
            raise InvalidField("draft_cache", "given", "it without pictures, clips and draft")
    elif not request.prompt.strip():
        raise InvalidField("prompt", request.prompt, "a text")
    if mode == "v2v" and (frames or (request.duration or 0) > 15):
        raise InvalidField("init", "a clip", "one without frames beside it, and 15 seconds more at most")
    pinned = _seconds(request)
    if pinned is None and "init" not in request.inputs and frames:
        raise InvalidField("init", None, "a first frame before others", "Or say when each is on: keyframe_seconds.")
    if pinned is not None:
        _check_seconds(pinned, frames, request)


def _check_seconds(pinned: list[float], frames: list[Artifact], request: Request) -> None:
    ascending = all(early < late for early, late in pairwise(pinned))
    inside = all(0 <= second <= (request.duration or 0) for second in pinned)
    if len(pinned) != len(frames) or not ascending or not inside:
        allowed = f"{len(frames)} ascending numbers of seconds, one a picture, none after {request.duration}"
        raise InvalidField("keyframe_seconds", request.options["keyframe_seconds"], allowed)


def _check_number(card: Card, pictures: list[Artifact]) -> None:
    most = card.settings.get("pictures")
    if most is not None and len(pictures) > most:
        raise InvalidField("pictures", f"{len(pictures)} in all", f"at most {most}")


def _body(card: Card, request: Request) -> dict[str, Any]:
    """What is sent; what the request leaves to them is left out."""
    body: dict[str, Any] = {"prompt": request.prompt} if request.prompt else {}
    body |= {name: getattr(request, name) for name in ("seed", "steps") if getattr(request, name) is not None}
    if request.guidance_scale is not None:
        body["guidance"] = request.guidance_scale
    if card.media == "image" and not _keeps_size(card, request):
        body |= {axis.name: getattr(request, axis.name) for axis in card.axes}
    for name, value in request.options.items():
        if name not in OURS:
            body[WORDS.get(name, name)] = value == "on" if name in SWITCHES else value
    return body | (_clip(request) if card.media == "video" else _files(card, request))


def _files(card: Card, request: Request) -> dict[str, Any]:
    path, pictures = card.settings["path"], [encoded(artifact) for artifact in _pictures(request)]
    if path.startswith("flux-pro-1.0-"):
        names = {"init": "image", "mask": "mask"}
        return {names[name]: encoded(artifact) for name, artifact in request.inputs.items()}
    if path == "flux-3-image":
        return {"images": pictures} if pictures else {}
    first = "input_image" if "pictures" in card.settings else "image_prompt"
    return {first if place == 1 else f"{first}_{place}": one for place, one in enumerate(pictures, start=1)}


def _clip(request: Request) -> dict[str, Any]:
    mode, frames, pinned = _mode(request), [encoded(one) for one in _frames(request)], _seconds(request)
    body: dict[str, Any] = {"mode": mode, "duration": int(request.duration or 0)}
    if mode == "draft_enhance":
        del body["duration"]  # the draft's own
    elif mode == "v2v":
        body["start_video"] = encoded(request.inputs["init"])
    elif pinned is not None:
        body["keyframes"] = [[second, frame] for second, frame in zip(pinned, frames, strict=True)]
    elif frames:
        body["keyframes"] = frames
    return body


def _mode(request: Request) -> str:
    if "draft_cache" in request.options:
        return "draft_enhance"
    init = request.inputs.get("init")
    if init is not None and init.mime.startswith("video/"):
        return "v2v"
    return "i2v" if request.inputs else "t2v"


def _pictures(request: Request) -> list[Artifact]:
    """What is to be changed, then what shall be in it."""
    init = [request.inputs["init"]] if "init" in request.inputs else []
    return [*init, *(artifact for _, artifact in named(request, "reference"))]


def _frames(request: Request) -> list[Artifact]:
    """The first frame, those between, the last."""
    first, last = request.inputs.get("init"), request.inputs.get("last_frame")
    found = [first] if first is not None and not first.mime.startswith("video/") else []
    return [*found, *(artifact for _, artifact in named(request, "keyframe")), *([] if last is None else [last])]


def _seconds(request: Request) -> list[float] | None:
    """When each frame is on. Raises InvalidField."""
    told = request.options.get("keyframe_seconds")
    if told is None:
        return None
    try:
        return [float(one) for one in told.split(",")]
    except ValueError:
        raise InvalidField("keyframe_seconds", told, "numbers of seconds between commas") from None


def _keeps_size(card: Card, request: Request) -> bool:
    """Whether the size is left to them, who then make it as large as the init."""
    kept = request.options.get("keep_size") == "on" and "init" in request.inputs
    return kept and (request.width, request.height) == (STILL, STILL)


def _base(wire: "Wire") -> str:
    """Where requests go. Raises NotSetUp where the region is none, or another address is set beside it."""
    account = wire.account
    region = account.settings.get("region")
    if region is None:
        return account.base_url.rstrip("/")
    if region not in REGIONS:
        raise NotSetUp(f"region {region!r} of bfl is none of {', '.join(REGIONS)}: see BFL_REGION or config.toml.")
    if account.base_url.rstrip("/") != account.spec.base_url:
        raise NotSetUp(f"bfl has both a region ({region}) and base_url ({account.base_url}): take one of them away.")
    return REGIONS[region]


def _dollars(told: Mapping[str, Any]) -> float | None:
    credits = told.get("cost")
    return credits * CREDIT if isinstance(credits, int | float) and not isinstance(credits, bool) else None


def _fraction(progress: Any) -> float | None:
    """In [0, 1], told as a share or in hundredths."""
    if not isinstance(progress, int | float) or isinstance(progress, bool) or not progress >= 0:
        return None
    return min(progress / 100 if progress > 1 else float(progress), 1.0)


def _status(reply: Reply) -> str:
    """The status of a task that comes with an HTTP status of a failure; "" where there is none."""
    try:
        return str(reply.json().get("status", ""))
    except BadAnswer:
        return ""


def _reason(told: Mapping[str, Any], word: str) -> str:
    details = told.get("details")
    if not details:
        return word
    parts = details.items() if isinstance(details, dict) else [("", details)]
    shown = "; ".join(f"{name}: {_flat(value)}".removeprefix(": ") for name, value in parts)
    return f"{word} ({shown})"


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(reply: Reply) -> str:
    """Theirs of what is wrong: a text, or a list that says where."""
    try:
        told = parsed(reply.body)
    except ValueError:
        return reply.body.decode(errors="replace")
    detail = told.get("detail", told.get("message", told.get("error", told))) if isinstance(told, dict) else told
    if isinstance(detail, list):
        return "; ".join(complaint(one) for one in detail)
    return detail if isinstance(detail, str) else json.dumps(detail)
